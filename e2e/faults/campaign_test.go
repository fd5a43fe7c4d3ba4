package faults

import (
	"flag"
	"testing"
	"time"

	"towpath.dev/e2e/system"
	"towpath.dev/pkg/engine/enginetest"
)

var (
	long   = flag.Bool("long", false, "the long campaign of `make faults`, in place of the short one")
	seed   = flag.Uint64("seed", 1, "of the campaign: the same gives the same apps, changes and schedule of kills")
	kills  = flag.Int("kills", 100, "long campaign: kills at each boundary in each shape")
	runs   = flag.Int("runs", 500, "long campaign: runs in each shape")
	outage = flag.Duration("outage", 20*time.Second, "long campaign: how long the bus is away while the separate services are killed")
	budget = flag.Duration("budget", 30*time.Minute, "long campaign: after so long in one shape no more is begun")
)

// TestCampaign is the short campaign, or with -long the one of `make faults`.
func TestCampaign(t *testing.T) {
	began := time.Now()
	binaries, err := system.Build(t.Context(), false, "faults")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("built in %s", time.Since(began).Round(time.Second))
	if *long {
		// Ended containers by the hundred lock an older Engine up: the campaign needs one that it may start again.
		engine := enginetest.StartDockerd(t, "--live-restore")
		t.Setenv("DOCKER_HOST", engine.Host.URL)
		stop := watch(t, engine)
		defer stop()
	}
	for _, shape := range []system.Shape{system.AllInOne, system.Separate} {
		o := size(shape)
		if *long {
			t.Logf("%s: %d kills at each boundary, then %d runs: about 20 minutes on two idle processors, at most %s", shape, o.kills, o.runs, o.budget)
		}
		t.Run(string(shape), func(t *testing.T) {
			if !*long {
				t.Parallel()
			}
			run(t, binaries, o)
		})
	}
	if *long {
		t.Logf("took %s", time.Since(began).Round(time.Second))
	}
}

// size is how much is done.
func size(shape system.Shape) options {
	o := options{seed: *seed, shape: shape, apps: 6, kills: 1, runs: 8, mean: time.Second, budget: 10 * time.Second, resume: 4 * resumeBound} // other tests have the processors too
	if *long {
		o = options{seed: *seed, shape: shape, apps: 16, kills: *kills, runs: *runs, mean: 2 * time.Second, outage: *outage, budget: *budget, quota: true, resume: resumeBound}
	}
	if shape == system.AllInOne {
		o.mean *= 3 // all of it has to come up again
	}
	return o
}
