// Command ledger runs the ledger's door as a process of its own.
package main

import (
	"context"

	"towpath.dev/pkg/worker"
	"towpath.dev/services/ledger"
)

func main() {
	worker.Main("ledger", func(ctx context.Context, rt *worker.Runtime) error {
		s, err := ledger.New(ledger.Config{}, ledger.Deps{Runtime: rt})
		if err != nil {
			return err
		}
		return s.Run(ctx)
	})
}
