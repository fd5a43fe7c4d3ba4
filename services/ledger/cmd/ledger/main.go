// Command ledger runs the ledger's door and its sealer as a process of its own.
package main

import (
	"context"
	"flag"
	"os"

	"towpath.dev/pkg/worker"
	"towpath.dev/services/ledger"
)

func main() {
	state := flag.String("state", os.Getenv("TOWPATH_STATE"), "folder of the sealed tree; empty: in memory, computed at each start (TOWPATH_STATE)")
	worker.Main("ledger", func(ctx context.Context, rt *worker.Runtime) error {
		witness := rt.Platform.Witness
		s, err := ledger.New(ledger.Config{State: *state, Witness: witness.URL, WitnessKey: witness.Key}, ledger.Deps{Runtime: rt})
		if err != nil {
			return err
		}
		return s.Run(ctx)
	})
}
