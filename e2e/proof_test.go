package e2e

import (
	"context"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"towpath.dev/e2e/system"
)

// spoil FILE: flips one bit in the middle of the file.
func spoil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: spoil FILE")
	}
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	data[len(data)/2] ^= 1
	ts.Check(os.WriteFile(path, data, 0o644))
}

// witness TRUST: starts a witness as a process of its own, which knows the ledger by that trust.json; $WITNESS is its
// address, $WITNESS_KEY its public key, $WITNESS_FOLDER its folder. witness stop, witness again.
func witnessCommand(ts *testscript.TestScript, neg bool, args []string) {
	h := own(ts)
	if neg || len(args) != 1 {
		ts.Fatalf("usage: witness TRUST|stop|again")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	switch {
	case h.witness == nil:
		w, err := system.StartWitness(ctx, binaries, ts.MkAbs("witness"), ts.MkAbs(args[0]))
		ts.Check(err)
		ts.Defer(w.Close)
		h.witness = w
	case args[0] == "stop":
		h.witness.Close()
		return
	case args[0] == "again":
		ts.Check(h.witness.Again(ctx))
	default:
		ts.Fatalf("usage: witness TRUST, then stop or again")
	}
	key, err := h.witness.Key()
	ts.Check(err)
	ts.Setenv("WITNESS", h.witness.URL())
	ts.Setenv("WITNESS_KEY", key)
	ts.Setenv("WITNESS_FOLDER", h.witness.Folder())
}
