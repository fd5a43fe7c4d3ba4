package promote

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/policy"
)

// halt stops a process at one point until it is let go on, as SIGSTOP or a slow engine would.
type halt struct {
	at       string
	once     sync.Once
	reached  chan struct{}
	resuming chan struct{}
}

func newHalt(at string) *halt {
	return &halt{at: at, reached: make(chan struct{}), resuming: make(chan struct{})}
}

func (h *halt) pass(point string) {
	if h == nil || point != h.at {
		return
	}
	h.once.Do(func() {
		close(h.reached)
		<-h.resuming
	})
}

// oneLedger is the ledger that two processes write to.
type oneLedger struct {
	mu sync.Mutex
	*foldtest.Ledger
}

// process is one promote, which never notices by itself that it is fenced.
type process struct {
	ledger *oneLedger
	engine *oneEngine
	halt   *halt
}

func (p *process) App(name events.Slug) *fold.App {
	p.ledger.mu.Lock()
	defer p.ledger.mu.Unlock()
	return p.ledger.Ledger.App(name)
}

func (p *process) Append(_ context.Context, s events.Subject, e events.Event) (ledger.Record, error) {
	p.halt.pass("before " + s.Subject + "." + s.Predicate)
	p.ledger.mu.Lock()
	defer p.ledger.mu.Unlock()
	return p.ledger.Ledger.Append(s, e)
}

func (p *process) Undecided(ctx context.Context, _ Place, _ int) (context.Context, context.CancelFunc) {
	return context.WithCancel(ctx)
}

func (p *process) Gate(context.Context, Place, *fold.Run) (Gate, error) { return Gate{}, nil }

func (p *process) Present(context.Context, Place, events.Pins) (events.Pins, error) {
	return events.Pins{}, nil
}

func (p *process) Prepare(_ context.Context, v Version) ([]events.Instance, error) {
	p.halt.pass("before the effect")
	p.engine.mu.Lock()
	p.engine.running[v.Slot.N] = true
	p.engine.mu.Unlock()
	p.halt.pass("after the effect")
	return []events.Instance{{ID: fmt.Sprint("slot-", v.Slot.N)}}, nil
}

func (p *process) Switch(_ context.Context, v Version) error {
	p.halt.pass("before the switch")
	p.engine.mu.Lock()
	defer p.engine.mu.Unlock()
	if v.Slot.N > p.engine.traffic { // the table takes no smaller slot
		p.engine.traffic = v.Slot.N
	}
	return nil
}

func (p *process) Clean(_ context.Context, _ Place, keep []*fold.Slot, upTo int) error {
	p.engine.mu.Lock()
	defer p.engine.mu.Unlock()
	for n := 1; n <= upTo; n++ {
		if !slices.ContainsFunc(keep, func(s *fold.Slot) bool { return s.N == n }) {
			delete(p.engine.running, n)
		}
	}
	return nil
}

func (p *process) Heal(context.Context, Version) error { return nil }

func (p *process) Left(context.Context, []events.Slug) ([]events.Slug, error) { return nil, nil }

func (p *process) Raze(context.Context, events.Slug, map[events.Slug]int) error { return nil }

func (p *process) Look(context.Context, Version, *fold.Env, bool) ([]Finding, error) { return nil, nil }

// oneEngine is what the processes bring about.
type oneEngine struct {
	mu      sync.Mutex
	running map[int]bool // slots with replicas
	traffic int          // the slot that has it
}

func (p *process) promoter() *promoter {
	return &promoter{
		epoch: 1, ledger: p, effects: p, gates: p, turns: newTurns(), logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// A stuck stage is replayed a thousand times while its original still runs: it was halted somewhere between two steps, and
// goes on when the replay is through. One version has the traffic, by one decision, and nothing is left of the original.
func TestReplayWhileTheOriginalRuns(t *testing.T) {
	points := []string{
		"before slot.taken", "before pipelinerun.started", "before the effect", "after the effect", "before slot.decided", "before the switch", "before service.deployed",
	}
	place := Place{"hello", "dev"}
	for i := range 1000 {
		point := points[i%len(points)]
		l := &oneLedger{Ledger: foldtest.New()}
		l.Ready(foldtest.Definition("app: hello\nenvironments: [{name: dev}]\n"), l.Policy(1, "{}"))
		engine := &oneEngine{running: map[int]bool{}}
		original, other := &process{l, engine, newHalt(point)}, &process{l, engine, nil}
		ended := make(chan error, 1)
		first := original.promoter()
		go func() { ended <- first.settle(t.Context(), place, func() {}) }()
		<-original.halt.reached

		l.mu.Lock()
		b := &events.ReplayRequested{Stage: fold.StagePromote, Environment: "dev", Attempt: 1, Actor: "bob", Reason: "it hangs"}
		b.ID = "replay"
		l.Write(events.CommandSubject(1, b.Type(), "hello", 1, "dev", b.ID), "", b)
		l.mu.Unlock()
		second := other.promoter()
		settle := func() {
			t.Helper()
			if err := second.settle(t.Context(), place, func() {}); err != nil {
				t.Fatalf("%d, halted %s: %v", i, point, err)
			}
		}
		settle()
		live := other.App("hello").Env("dev").Live()
		if live == nil || live.Attempt != 2 {
			t.Fatalf("%d, halted %s: the replay is not live: %+v", i, point, live)
		}
		if i%2 == 0 { // the original comes back before or after the verification
			close(original.halt.resuming)
			<-ended
		}
		l.mu.Lock()
		l.Verified("hello", 1, "dev", live.N, live.TrialAttempt, events.Success)
		l.mu.Unlock()
		settle()
		if i%2 == 1 {
			close(original.halt.resuming)
			<-ended
		}
		if err := first.settle(t.Context(), place, func() {}); err != nil {
			t.Fatalf("%d, halted %s: the original afterwards: %v", i, point, err)
		}

		app := other.App("hello")
		env := app.Env("dev")
		lives, ofReplay := 0, 0
		for s := range env.Slots.All() {
			if s.Decision == events.Live && s.Closing == events.Verified {
				lives++
			}
			if s.Attempt == 2 {
				ofReplay++
			}
		}
		run := app.Run(1)
		switch {
		case lives != 1 || ofReplay != 1 || env.Live().N != live.N:
			t.Fatalf("%d, halted %s: %d verified slots, %d of the replay, live %d: %+v", i, point, lives, ofReplay, env.Live().N, slices.Collect(env.Slots.All()))
		case engine.traffic != live.N || !maps.Equal(engine.running, map[int]bool{live.N: true}):
			t.Fatalf("%d, halted %s: slot %d is live; traffic at %d, running %v", i, point, live.N, engine.traffic, engine.running)
		case run.Status() != fold.Done || run.Env("dev").Promote.Attempt != 2 || env.Slots.Len() > 2:
			t.Fatalf("%d, halted %s: the run is %s in attempt %d after %d slots", i, point, run.Status(), run.Env("dev").Promote.Attempt, env.Slots.Len())
		}
	}
}

// Answers count on under another policy only while the environment asks for the same.
func TestSinceAnotherPolicy(t *testing.T) {
	texts := map[string]int{"one": 1, "the same": 1, "two": 2}
	digests := map[string]string{}
	l := foldtest.New()
	serial := 0
	for _, name := range []string{"one", "the same", "two"} {
		p := defaultPolicyForTest(texts[name], name)
		serial++
		b := &events.PolicyPublished{Digest: p.Digest(), Text: p.Text(), Actor: "operator"}
		b.ID = b.Digest
		l.Write(events.PolicySubject(1, serial), "", b)
		digests[name] = b.Digest
		if name == "one" {
			l.Ready(foldtest.Definition("app: hello\nenvironments: [{name: dev}, {name: prod}]\n"), b.Digest)
		}
		if name != "one" {
			l.ReplayBy("hello", 1, fold.StageVet, "", b.Digest)
			l.Vetted("hello", 1, serial, foldtest.Digest("run1"), []events.Slug{"dev", "prod"})
		}
		r := &rules{fold: l.Fold(), parsed: map[string]policy.Policy{}}
		run := l.App("hello").Run(1)
		if run.Policy != digests[name] {
			t.Fatalf("judged by %s, want the policy called %s", run.Policy, name)
		}
		prod, _ := run.Definition.Environment("prod")
		if since := r.since(run, prod); (since != 0) != (name == "two") {
			t.Errorf("under the policy called %s: approvals up to %d are dropped", name, since)
		}
	}
}

// defaultPolicyForTest asks for count approvals in prod, and differs by name elsewhere.
func defaultPolicyForTest(count int, name string) policy.Policy {
	p := policy.Default().Policy
	p.Approvals = map[events.Slug]policy.Approval{policy.DefaultEnvironment: {}, "prod": {Count: count}, events.Slug("env" + fmt.Sprint(len(name))): {Count: 3}}
	return p
}
