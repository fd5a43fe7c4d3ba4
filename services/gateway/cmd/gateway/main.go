// Command gateway runs the gateway as a process of its own. As `gateway hook NAME` it is what git runs while it takes a
// push in.
package main

import (
	"context"
	"flag"
	"os"

	"towpath.dev/pkg/worker"
	"towpath.dev/services/gateway"
	"towpath.dev/services/gateway/hook"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "hook" {
		os.Exit(hook.Run(os.Args[2], os.Getenv, os.Stdin, os.Stdout))
	}
	var cfg gateway.Config
	cfg.Flags(flag.CommandLine)
	worker.Main("gateway", func(ctx context.Context, rt *worker.Runtime) error {
		s, err := gateway.New(cfg, gateway.Deps{Runtime: rt})
		if err != nil {
			return err
		}
		return s.Run(ctx)
	})
}
