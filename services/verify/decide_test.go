package verify

import (
	"strings"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
)

const definition = `
app: hello
service: {port: 8080}
environments: [{name: dev, verify: [{http: {path: /, status: 200}}]}]
`

func take(l *foldtest.Ledger, slot, attempt int, kind events.Kind) {
	b := &events.SlotTaken{Slot: slot, Run: 1, Attempt: attempt, Digest: foldtest.Digest("run1"), Kind: kind, Environment: "dev"}
	b.ID = "hello/dev"
	l.Write(events.SlotSubject(1, b.Type(), "hello", "dev", slot), foldtest.Chain("hello", 1), b)
}

func decided(l *foldtest.Ledger, slot int, d events.Decision) {
	b := &events.SlotDecided{Slot: slot, Decision: d, Environment: "dev"}
	b.ID = "hello/dev"
	l.Write(events.SlotSubject(1, b.Type(), "hello", "dev", slot), foldtest.Chain("hello", 1), b)
}

func closed(l *foldtest.Ledger, slot int, c events.Closing) {
	b := &events.SlotClosed{Slot: slot, Closing: c, Environment: "dev"}
	b.ID = "hello/dev"
	l.Write(events.SlotSubject(1, b.Type(), "hello", "dev", slot), foldtest.Chain("hello", 1), b)
}

func TestDecide(t *testing.T) {
	for name, c := range map[string]struct {
		story   func(l *foldtest.Ledger)
		slot    int // 0: nothing to verify
		attempt int
	}{
		"nothing":   {func(l *foldtest.Ledger) {}, 0, 0},
		"taken":     {func(l *foldtest.Ledger) { take(l, 1, 1, events.KindDeploy) }, 0, 0},
		"live":      {func(l *foldtest.Ledger) { take(l, 1, 1, events.KindDeploy); decided(l, 1, events.Live) }, 1, 1},
		"abandoned": {func(l *foldtest.Ledger) { take(l, 1, 1, events.KindDeploy); decided(l, 1, events.Abandoned) }, 0, 0},
		"verified": {func(l *foldtest.Ledger) {
			take(l, 1, 1, events.KindDeploy)
			decided(l, 1, events.Live)
			l.Verified("hello", 1, "dev", 1, 1, events.Success)
		}, 0, 0},
		"closed": {func(l *foldtest.Ledger) {
			take(l, 1, 1, events.KindDeploy)
			decided(l, 1, events.Live)
			closed(l, 1, events.Superseded)
		}, 0, 0},
		"cancelled": {func(l *foldtest.Ledger) {
			take(l, 1, 1, events.KindDeploy)
			decided(l, 1, events.Live)
			l.Command(events.Command{Verb: events.VerbCancel, App: "hello", Run: 1})
		}, 0, 0},
		"failed and replayed while open": {func(l *foldtest.Ledger) {
			take(l, 1, 1, events.KindDeploy)
			decided(l, 1, events.Live)
			l.Verified("hello", 1, "dev", 1, 1, events.Error)
			l.Replay("hello", 1, fold.StageVerify, "dev")
		}, 1, 2},
		"the version before came back": {func(l *foldtest.Ledger) {
			take(l, 1, 1, events.KindDeploy)
			decided(l, 1, events.Live)
			l.Verified("hello", 1, "dev", 1, 1, events.Failure)
			closed(l, 1, events.Rejected)
			take(l, 2, 0, events.KindRollback)
			decided(l, 2, events.Live)
		}, 2, 1},
		"nothing runs": {func(l *foldtest.Ledger) {
			take(l, 1, 0, events.KindRemove)
			decided(l, 1, events.Live)
		}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := foldtest.New()
			l.Ready(foldtest.Definition(definition), "")
			c.story(l)
			got, ok := decide(l.App("hello"), "dev")
			if ok != (c.slot > 0) {
				t.Fatalf("decided %+v, %v; want slot %d", got, ok, c.slot)
			}
			if ok && (got.slot.N != c.slot || got.attempt != c.attempt || len(got.checks) != 1) {
				t.Errorf("slot %d attempt %d with %d checks, want slot %d attempt %d with 1", got.slot.N, got.attempt, len(got.checks), c.slot, c.attempt)
			}
		})
	}
}

func TestConclude(t *testing.T) {
	l := foldtest.New()
	l.Ready(foldtest.Definition(definition), "")
	take(l, 1, 1, events.KindDeploy)
	decided(l, 1, events.Live)
	verification, _ := decide(l.App("hello"), "dev")
	if o, trouble := verification.conclude([]result{{name: "health", outcome: events.Success}}); o != events.Success || trouble != nil {
		t.Errorf("all passed: %s, %+v", o, trouble)
	}
	o, trouble := verification.conclude([]result{{name: "health", outcome: events.Success}, {name: "GET /", outcome: events.Failure, why: "answers 500"}})
	if o != events.Failure || !strings.Contains(trouble.String(), "GET /: answers 500") || !strings.Contains(trouble.Do, "towpath replay hello/1 promote --env dev") {
		t.Errorf("one failed: %s, %+v", o, trouble)
	}
}

// An operator's skip is an attempt of its own that verifies nothing; a replay after it verifies again.
func TestSkipped(t *testing.T) {
	l := foldtest.New()
	l.Ready(foldtest.Definition(definition), l.Policy(1, "{}"))
	take(l, 1, 1, events.KindDeploy)
	decided(l, 1, events.Live)
	id := l.Command(events.Command{Verb: events.VerbSkip, App: "hello", Run: 1, Stage: "verify", Environment: "dev", Reason: "sandbox down"})
	got, ok := decide(l.App("hello"), "dev")
	if !ok || got.attempt != 2 || got.skip == nil || *got.skip != (events.Skip{Command: id, Actor: "bob", Reason: "sandbox down"}) {
		t.Fatalf("%+v, skip %+v", got, got.skip)
	}
	l.Replay("hello", 1, fold.StageVerify, "dev")
	if got, ok := decide(l.App("hello"), "dev"); !ok || got.attempt != 3 || got.skip != nil {
		t.Errorf("after a replay: %+v", got)
	}
}
