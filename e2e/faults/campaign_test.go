package faults

import (
	"flag"
	"testing"
	"time"

	"towpath.dev/e2e/system"
)

var (
	long  = flag.Bool("long", false, "the long campaign of `make faults`, in place of the short one")
	seed  = flag.Uint64("seed", 1, "of the campaign: the same gives the same apps, changes and schedule of kills")
	kills = flag.Int("kills", 0, "long campaign: kills at each boundary in each shape; 0: 100")
	runs  = flag.Int("runs", 0, "long campaign: runs in each shape; 0: 500")
)

// TestCampaign is the short campaign, or with -long the one of `make faults`.
func TestCampaign(t *testing.T) {
	began := time.Now()
	binaries, err := system.Build(t.Context(), false, "faults")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("built in %s", time.Since(began).Round(time.Second))
	for _, shape := range []system.Shape{system.AllInOne, system.Separate} {
		t.Run(string(shape), func(t *testing.T) { run(t, binaries, size(shape)) })
	}
}

// size is how much is done.
func size(shape system.Shape) options {
	o := options{seed: *seed, shape: shape, apps: 6, kills: 1, runs: 8, mean: time.Second, budget: 12 * time.Second}
	if *long {
		o = options{seed: *seed, shape: shape, apps: 16, kills: 100, runs: 500, mean: 2 * time.Second, outage: 20 * time.Second, budget: 25 * time.Minute}
		if *kills > 0 {
			o.kills = *kills
		}
		if *runs > 0 {
			o.runs = *runs
		}
	}
	return o
}
