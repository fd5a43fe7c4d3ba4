// Command promote runs the promote service as a process of its own.
package main

import (
	"context"
	"flag"
	"os"

	"towpath.dev/pkg/worker"
	"towpath.dev/services/promote"
)

func main() {
	var cfg promote.Config
	flag.StringVar(&cfg.Gateway, "gateway", os.Getenv("TOWPATH_GATEWAY"), "URL of the gateway; empty: http://127.0.0.1:7070 (TOWPATH_GATEWAY)")
	flag.StringVar(&cfg.Domain, "domain", os.Getenv("TOWPATH_EDGE_DOMAIN"), "what host names of apps end in; empty: localhost (TOWPATH_EDGE_DOMAIN)")
	worker.Main("promote", func(ctx context.Context, rt *worker.Runtime) error {
		s, err := promote.New(cfg, promote.Deps{Runtime: rt})
		if err != nil {
			return err
		}
		return s.Run(ctx)
	})
}
