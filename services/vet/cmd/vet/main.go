// Command vet runs the vet service as a process of its own.
package main

import (
	"context"
	"flag"

	"towpath.dev/pkg/worker"
	"towpath.dev/services/vet"
)

func main() {
	var cfg vet.Config
	flag.StringVar(&cfg.Work, "work", "", "folder in which images are unpacked (in the temporary folder)")
	flag.IntVar(&cfg.Concurrency, "concurrency", 0, "images that are looked at at once (2)")
	flag.StringVar(&cfg.Platform, "image-platform", "", "variant of an image for several platforms that is looked at (linux and this machine's architecture)")
	worker.Main("vet", func(ctx context.Context, rt *worker.Runtime) error {
		s, err := vet.New(cfg, vet.Deps{Runtime: rt})
		if err != nil {
			return err
		}
		return s.Run(ctx)
	})
}
