// Command ledger runs the ledger's door and its sealer as a process of its own.
package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"

	"towpath.dev/pkg/worker"
	"towpath.dev/services/ledger"
)

func main() {
	folder := flag.String("seal", sealFolder(), "folder of the sealed tree and the newest checkpoints; empty: in memory, computed at each start (TOWPATH_SEAL)")
	worker.Main("ledger", func(ctx context.Context, rt *worker.Runtime) error {
		witness := rt.Platform.Witness
		s, err := ledger.New(ledger.Config{State: *folder, Witness: witness.URL, WitnessKey: witness.Key}, ledger.Deps{Runtime: rt})
		if err != nil {
			return err
		}
		return s.Run(ctx)
	})
}

// sealFolder is TOWPATH_SEAL, or a folder in the one that systemd gives the service.
func sealFolder() string {
	if folder := os.Getenv("TOWPATH_SEAL"); folder != "" {
		return folder
	}
	if state := os.Getenv("STATE_DIRECTORY"); state != "" {
		return filepath.Join(state, "seal")
	}
	return ""
}
