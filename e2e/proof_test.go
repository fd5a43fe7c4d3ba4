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
// address, $WITNESS_KEY its public key.
func witnessCommand(ts *testscript.TestScript, neg bool, args []string) {
	own(ts)
	if neg || len(args) != 1 {
		ts.Fatalf("usage: witness TRUST")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	w, err := system.StartWitness(ctx, binaries, ts.MkAbs("witness"), ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(w.Close)
	key, err := w.Key()
	ts.Check(err)
	ts.Setenv("WITNESS", w.URL())
	ts.Setenv("WITNESS_KEY", key)
}
