package watch

import (
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/policy"
)

// TestCausesAreShared: two apps that are stuck for the same reason have one cause, another reason another.
func TestCausesAreShared(t *testing.T) {
	away := func(app string) string {
		d := due{run: &fold.Run{App: events.Slug(app), N: len(app)}, stage: fold.StageBuild, overdue: true, cause: "its deadline passed"}
		d = d.tried([]ledger.Note{
			{Service: events.Build, App: events.Slug(app), Run: len(app), Failed: 3, Why: "pushing r/" + app + "@sha256:0123456789ab: dial tcp 10.0.0.1:5000: connection refused after 1.5s"},
			{Service: events.Vet, App: events.Slug(app), Run: len(app), Failed: 9, Why: "vet's"},
			{Service: events.Build, App: "another", Run: len(app), Failed: 9, Why: "another's"},
		})
		if d.tries != 3 {
			t.Errorf("tried %d times", d.tries)
		}
		return d.cause
	}
	if one, other := away("hello"), away("shop"); one != other || one != "its deadline passed: pushing …: dial tcp 10.0.0.1:5000: connection refused after …" {
		t.Errorf("%q and %q", one, other)
	}
}

func TestHalted(t *testing.T) {
	p := policy.Default().Policy
	l := foldtest.New()
	l.Push(foldtest.Definition(twoEnvironments), "")
	a := l.App("hello")
	start := ledger.Record{Event: events.Event{ID: a.Run(1).StartEvent, Body: &events.ChangeMerged{}}, Subject: events.Subject{App: "hello"}}
	d, ok := halted(a, start, events.Build, 7, p)
	if !ok || d.stage != fold.StageBuild || d.run.N != 1 || d.tries != 7 || d.at.After(time.Now()) {
		t.Errorf("build waits for its first event: %v %+v", ok, d)
	}
	if _, ok := halted(a, start, events.Vet, 7, p); ok {
		t.Error("it is not vet's turn")
	}
	other := start
	other.Event.ID = "another"
	if _, ok := halted(a, other, events.Build, 7, p); ok {
		t.Error("no run waits for this event")
	}
	l.Built("hello", 1, 1, foldtest.Digest("run1"))
	l.Vetted("hello", 1, 1, foldtest.Digest("run1"), []events.Slug{"dev", "prod"})
	take(l)
	live(l)
	decided := ledger.Record{Event: events.Event{Body: &events.SlotDecided{}}, Subject: events.Subject{App: "hello", Env: "dev"}}
	if d, ok := halted(l.App("hello"), decided, events.Verify, 7, p); !ok || d.env != "dev" || d.stage != fold.StageVerify {
		t.Errorf("verify waits for its slot: %v %+v", ok, d)
	}
	l.Command(events.Command{Verb: events.VerbCancel, App: "hello", Run: 1})
	if _, ok := halted(l.App("hello"), decided, events.Verify, 7, p); ok {
		t.Error("a cancelled run waits for nothing")
	}
}
