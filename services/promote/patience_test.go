package promote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/settings"
)

// Only a message that waits for nothing but stores of settings waits for ever: any other fault has its tries.
func TestWhatIsWaitedForPatiently(t *testing.T) {
	away := &settings.UnavailableError{Store: "Consul of dev", What: "reading", Why: "it is not reached", Do: "start it", Err: errors.New("refused")}
	step := &StepError{Place: Place{"hello", "dev"}, Err: fmt.Errorf("looking up the settings: %w", away)}
	broken := &StepError{Place: Place{"hello", "qa"}, Err: errors.New("the engine does not answer")}
	ending := fmt.Errorf("environment demo: %w", fmt.Errorf("removing what is left of demo: %w", errors.Join(away)))
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"nothing":                        {nil, false},
		"a store":                        {errors.Join(step), true},
		"a store, deep down":             {errors.Join(errors.Join(step), ending), true},
		"an environment that ends":       {errors.Join(nil, ending), true},
		"an engine":                      {errors.Join(broken), false},
		"a store and an engine":          {errors.Join(step, broken), false},
		"an engine and an environment":   {errors.Join(errors.Join(broken), ending), false},
		"what hides a store as its text": {errors.New(away.Error()), false},
	} {
		if got := storesAlone(c.err); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		if (patient(c.err) == nil) != (c.err == nil) {
			t.Errorf("%s: %v", name, patient(c.err))
		}
	}
}

// uncertain is a place at which a key seems to be another.
type uncertain struct {
	*process
	found []Finding
}

func (u *uncertain) Look(context.Context, Version, *fold.Env, bool) ([]Finding, error) {
	return append([]Finding(nil), u.found...), nil
}

// What may be about to be said in the ledger is looked at a second time, soon, before it counts.
func TestWhatIsUncertainIsLookedAtAgain(t *testing.T) {
	l := &oneLedger{Ledger: foldtest.New()}
	l.Ready(foldtest.Definition("app: hello\nenvironments: [{name: dev}]\n"), l.Policy(1, "{}"))
	p := &process{l, &oneEngine{running: map[int]bool{}}, nil}
	u := &uncertain{process: p}
	at := Place{"hello", "dev"}
	m := &promoter{epoch: 1, ledger: p, effects: u, gates: p, turns: newTurns(), logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if err := m.settle(t.Context(), at, func() {}); err != nil {
		t.Fatal(err)
	}
	l.Verified("hello", 1, "dev", 1, 1, events.Success)
	if err := m.settle(t.Context(), at, func() {}); err != nil {
		t.Fatal(err)
	}
	fresh := Finding{What: "config KEY", Expected: "version 4", Found: "gone", Fresh: true}
	for i, c := range []struct {
		found  []Finding
		unsure bool
		drifts int
	}{
		{nil, false, 0},
		{[]Finding{fresh}, true, 0},
		{[]Finding{fresh}, false, 1},
		{[]Finding{fresh}, false, 1},
		{nil, false, 0},
		{[]Finding{fresh}, true, 0},
		{nil, false, 0},
	} {
		u.found = c.found
		if err := m.heal(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		if n := len(l.App("hello").Env("dev").Drifts); m.turns.unsure() != c.unsure || n != c.drifts {
			t.Errorf("look %d: unsure %v, %d drifts", i, m.turns.unsure(), n)
		}
	}
}
