// Command watch runs the watch service as a process of its own.
package main

import (
	"context"

	"towpath.dev/pkg/worker"
	"towpath.dev/services/watch"
)

func main() {
	worker.Main("watch", func(ctx context.Context, rt *worker.Runtime) error {
		s, err := watch.New(watch.Config{}, watch.Deps{Runtime: rt})
		if err != nil {
			return err
		}
		return s.Run(ctx)
	})
}
