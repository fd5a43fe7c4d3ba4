// Command notify runs the notify service as a process of its own.
package main

import (
	"context"

	"towpath.dev/pkg/worker"
	"towpath.dev/services/notify"
)

func main() {
	worker.Main("notify", func(ctx context.Context, rt *worker.Runtime) error {
		s, err := notify.New(notify.Config{}, notify.Deps{Runtime: rt})
		if err != nil {
			return err
		}
		return s.Run(ctx)
	})
}
