// Command edge runs the entry to apps as a process of its own. It does not use the runtime of the other
// services: it follows one table and not the ledger, so that it takes requests as soon as it is started.
//
//	--bus         URL of the bus                   TOWPATH_BUS, nats://127.0.0.1:4222
//	--bus-ca      who vouches for a tls:// bus     TOWPATH_BUS_CA, none: the machine's own authorities
//	--keys        folder with the edge's keys      TOWPATH_KEYS, keys
//	--listen      address that apps are reached at TOWPATH_EDGE_LISTEN, 127.0.0.1:7080
//	--domain      what host names end in           TOWPATH_EDGE_DOMAIN, localhost
//	--log-format  text or json                     TOWPATH_LOG_FORMAT, text
//	--log-level   debug, info, warn or error       TOWPATH_LOG_LEVEL, info
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/worker"
	"towpath.dev/services/edge"
)

func main() {
	option := func(name, variable, otherwise, usage string) *string {
		return flag.String(name, cmp.Or(os.Getenv(variable), otherwise), usage+" ("+variable+")")
	}
	bus := option("bus", "TOWPATH_BUS", "nats://127.0.0.1:4222", "URL of the bus")
	ca := option("bus-ca", "TOWPATH_BUS_CA", "", "PEM file with who vouches for a tls:// bus")
	keys := option("keys", "TOWPATH_KEYS", "keys", "folder with the edge's keys")
	listen := option("listen", "TOWPATH_EDGE_LISTEN", "127.0.0.1:7080", "address that apps are reached at")
	domain := option("domain", "TOWPATH_EDGE_DOMAIN", "localhost", "what host names end in")
	format := option("log-format", "TOWPATH_LOG_FORMAT", "text", "text or json")
	level := option("log-level", "TOWPATH_LOG_LEVEL", "info", "debug, info, warn or error")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, edge.Config{Listen: *listen, Domain: *domain}, *bus, *ca, *keys, *format, *level); err != nil {
		fmt.Fprintln(os.Stderr, "towpath", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg edge.Config, bus, ca, keys, format, level string) error {
	logger, err := worker.NewLogger(os.Stderr, format, level)
	if err != nil {
		return err
	}
	logger = logger.With("service", events.Edge)
	client, err := ledger.Connect(ctx, ledger.Options{URL: bus, CA: ca, Service: string(events.Edge), Keys: keys, Logger: logger})
	if err != nil {
		return err
	}
	defer client.Close()
	s, err := edge.New(cfg, edge.Deps{Ledger: client, Logger: logger})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
