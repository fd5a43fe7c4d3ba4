// Command build runs the build service as a process of its own.
package main

import (
	"cmp"
	"context"
	"flag"
	"os"

	"towpath.dev/pkg/worker"
	"towpath.dev/services/build"
)

func main() {
	var cfg build.Config
	flag.StringVar(&cfg.Gateway, "gateway", cmp.Or(os.Getenv("TOWPATH_GATEWAY"), "http://127.0.0.1:7070"), "URL of the gateway, which hosts repositories (TOWPATH_GATEWAY)")
	flag.StringVar(&cfg.Registry, "registry", os.Getenv("TOWPATH_REGISTRY"), "host:port of the registry, if the platform file names none (TOWPATH_REGISTRY)")
	flag.StringVar(&cfg.Work, "work", "", "folder for sources while they are built (in the temporary folder)")
	worker.Main("build", func(ctx context.Context, rt *worker.Runtime) error {
		s, err := build.New(cfg, build.Deps{Runtime: rt})
		if err != nil {
			return err
		}
		return s.Run(ctx)
	})
}
