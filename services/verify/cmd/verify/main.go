// Command verify runs the verify service as a process of its own.
package main

import (
	"context"
	"flag"
	"os"

	"towpath.dev/pkg/worker"
	"towpath.dev/services/verify"
)

func main() {
	var cfg verify.Config
	flag.StringVar(&cfg.Domain, "domain", os.Getenv("TOWPATH_EDGE_DOMAIN"), "what host names of apps end in, localhost if empty (TOWPATH_EDGE_DOMAIN)")
	worker.Main("verify", func(ctx context.Context, rt *worker.Runtime) error {
		s, err := verify.New(cfg, verify.Deps{Runtime: rt})
		if err != nil {
			return err
		}
		return s.Run(ctx)
	})
}
