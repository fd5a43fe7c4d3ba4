package worker

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"towpath.dev/pkg/policy"
)

// Exit codes of a service's process.
const (
	exitFailed = 1
	exitUsage  = 2
)

// Main runs a service as a process of its own: it reads the flags that all services share (and those
// that the caller defined on flag.CommandLine before), opens the runtime, and calls run until it
// returns or the process is told to end. SIGTERM and SIGINT end run's context, so that it drains; a
// second one ends the process at once. Main does not return.
//
//	--bus         URL of the bus            TOWPATH_BUS, nats://127.0.0.1:4222
//	--bus-ca      who vouches for a tls://  TOWPATH_BUS_CA, none: the machine's own authorities
//	--keys        the identity's keys       TOWPATH_KEYS, keys
//	--platform    platform.yaml             TOWPATH_PLATFORM, none: the defaults
//	--state       folder of the snapshot    TOWPATH_STATE, or systemd's STATE_DIRECTORY; none: no snapshot
//	--log-format  text or json              TOWPATH_LOG_FORMAT, text
//	--log-level   debug, info, warn, error  TOWPATH_LOG_LEVEL, info
func Main(id string, run func(ctx context.Context, rt *Runtime) error) {
	bus := flag.String("bus", env("TOWPATH_BUS", "nats://127.0.0.1:4222"), "URL of the bus (TOWPATH_BUS)")
	ca := flag.String("bus-ca", os.Getenv("TOWPATH_BUS_CA"), "PEM file with who vouches for a tls:// bus; empty: the machine's own (TOWPATH_BUS_CA)")
	keys := flag.String("keys", env("TOWPATH_KEYS", "keys"), "folder with the keys of this service (TOWPATH_KEYS)")
	platform := flag.String("platform", os.Getenv("TOWPATH_PLATFORM"), "platform.yaml; empty: the defaults (TOWPATH_PLATFORM)")
	state := flag.String("state", env("TOWPATH_STATE", os.Getenv("STATE_DIRECTORY")), "folder for the snapshot that makes the next start fast; empty: none (TOWPATH_STATE)")
	format := flag.String("log-format", env("TOWPATH_LOG_FORMAT", "text"), "text or json (TOWPATH_LOG_FORMAT)")
	level := flag.String("log-level", env("TOWPATH_LOG_LEVEL", "info"), "debug, info, warn or error (TOWPATH_LOG_LEVEL)")
	flag.Parse()
	logger, err := NewLogger(os.Stderr, *format, *level)
	if err == nil && flag.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "towpath %s: %v; see --help\n", id, err)
		os.Exit(exitUsage)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop)
	if err := serve(ctx, Options{Service: id, Bus: *bus, CA: *ca, Keys: *keys, State: *state, Logger: logger}, *platform, run); err != nil {
		logger.Error("service ended", "service", id, "err", err)
		os.Exit(exitFailed)
	}
	os.Exit(0)
}

// serve opens the runtime and runs the service in it. A runtime that can follow no further ends it.
func serve(ctx context.Context, o Options, platform string, run func(context.Context, *Runtime) error) error {
	if platform != "" {
		var err error
		if o.Platform, err = policy.Load(platform); err != nil {
			return err
		}
	}
	rt, err := Open(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer rt.Close()
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(rt.Broken(), func() { cancel(context.Cause(rt.Broken())) })()
	rt.Logger.Info("service runs", "bus", o.Bus)
	err = run(running, rt)
	if broken := context.Cause(rt.Broken()); broken != nil {
		return errors.Join(err, broken)
	}
	return err
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// NewLogger returns a logger that writes text or JSON lines from a level on ("debug", "info", "warn",
// "error").
func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: must be debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("log format %q: must be text or json", format)
}
