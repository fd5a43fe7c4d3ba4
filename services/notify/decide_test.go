package notify

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/policy"
)

const definition = `
app: hello
service: {port: 8080}
environments: [{name: dev}, {name: prod}]
`

// last is what the newest event of a story gives people to hear of.
func last(l *foldtest.Ledger) (notice, bool) {
	records := l.Records(0)
	return tell(l, records[len(records)-1])
}

func tell(l *foldtest.Ledger, r ledger.Record) (notice, bool) {
	return decide(l.App("hello"), r.Seq, r.Subject, r.Event)
}

func write(l *foldtest.Ledger, s events.Subject, b events.Body) {
	l.Write(s, foldtest.Chain("hello", 1), b)
}

func buildEnds(l *foldtest.Ledger, o events.Outcome) {
	b := &events.TaskRunFinished{TaskName: "build", Outcome: o, Errors: "no such file"}
	b.ID = "hello/1"
	b.Result.Trouble = &events.Trouble{What: "building", Why: "no such file"}
	write(l, events.BuildSubject(1, b.Type(), "hello", 1, "", 1), b)
}

func queued(l *foldtest.Ledger, env events.Slug, who string) {
	b := &events.PipelineRunQueued{Waiting: events.Waiting{Environment: env, Attempt: 1, Reason: "0 of 1 approval given", For: who}}
	b.ID = "hello/1/" + string(env)
	write(l, events.PromoteSubject(1, b.Type(), "hello", 1, env, events.Key(who), 1), b)
}

func ready(l *foldtest.Ledger) {
	l.Ready(foldtest.Definition(definition), "")
}

// deployed takes run 1 through a slot of its only environment.
func deployed(l *foldtest.Ledger, n int, kind events.Kind) {
	if n == 1 {
		l.Ready(foldtest.Definition("app: hello\nservice: {port: 8080}\nenvironments: [{name: dev}]\n"), "")
	}
	about := events.About{ID: fmt.Sprint("hello/dev/", n)}
	for _, b := range []events.Body{
		&events.SlotTaken{About: about, Slot: n, Run: 1, Attempt: 1, Digest: foldtest.Digest("run1"), Kind: kind, Environment: "dev"},
		&events.SlotDecided{About: about, Slot: n, Decision: events.Live, Environment: "dev"},
	} {
		write(l, events.SlotSubject(1, b.Type(), "hello", "dev", n), b)
	}
	l.Verified("hello", 1, "dev", n, 1, events.Success)
	closed := &events.SlotClosed{About: about, Slot: n, Closing: events.Verified, Environment: "dev"}
	write(l, events.SlotSubject(1, closed.Type(), "hello", "dev", n), closed)
}

func isStuck(l *foldtest.Ledger, nth int) {
	b := &events.StageStuck{Stage: "build", Attempt: 1, LastError: "the engine <is> `away`", Command: "towpath replay hello/1 build"}
	b.ID = "hello/1/build"
	write(l, events.StuckSubject(1, "hello", 1, "", "build", 1, nth), b)
}

func TestDecide(t *testing.T) {
	for name, c := range map[string]struct {
		story   func(*foldtest.Ledger)
		kind    string // empty: nothing to hear of
		text    string
		command string
	}{
		"pushed":                    {func(l *foldtest.Ledger) { l.Push(foldtest.Definition(definition), "") }, "", "", ""},
		"build fails":               {func(l *foldtest.Ledger) { l.Push(foldtest.Definition(definition), ""); buildEnds(l, events.Failure) }, policy.NoticeFailed, "hello/1 failed in build", "towpath show hello/1"},
		"an error is not stuck yet": {func(l *foldtest.Ledger) { l.Push(foldtest.Definition(definition), ""); buildEnds(l, events.Error) }, "", "", ""},
		"stuck": {func(l *foldtest.Ledger) {
			l.Push(foldtest.Definition(definition), "")
			buildEnds(l, events.Error)
			isStuck(l, 1)
		}, policy.NoticeStuck, "hello/1 is stuck in build", "towpath replay hello/1 build"},
		"waits for an approver":               {func(l *foldtest.Ledger) { ready(l); queued(l, "dev", forApprover) }, policy.NoticeApproval, "hello/1 waits for an approval in dev", "towpath approve hello/1 --env dev"},
		"waits for an operator":               {func(l *foldtest.Ledger) { ready(l); queued(l, "dev", "an operator") }, "", "", ""},
		"an event about everything":           {func(l *foldtest.Ledger) { ready(l); l.Command(events.Command{Verb: events.VerbHold}) }, "", "", ""},
		"verified in its last environment":    {func(l *foldtest.Ledger) { deployed(l, 1, events.KindDeploy) }, policy.NoticeDone, "hello/1 is done", "towpath show hello/1"},
		"brought back long after it was done": {func(l *foldtest.Ledger) { deployed(l, 1, events.KindDeploy); deployed(l, 2, events.KindRollback) }, "", "", ""},
		"cancelled": {func(l *foldtest.Ledger) {
			ready(l)
			l.Command(events.Command{Verb: events.VerbCancel, App: "hello", Run: 1})
		}, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := foldtest.New()
			c.story(l)
			n, ok := last(l)
			if ok != (c.kind != "") || ok && (n.Kind != c.kind || !strings.HasPrefix(n.Text, c.text) || n.Command != c.command || n.ID == "") {
				t.Errorf("%v %+v", ok, n)
			}
		})
	}
}

// Who denied a run is named, as they are everywhere: by their opaque id.
func TestWhoDeniedIsNamed(t *testing.T) {
	l := foldtest.New()
	ready(l)
	b := &events.PromotionDenied{Promotion: events.Promotion{Environment: "prod", Responder: "u-eve", Decision: "denied", Reason: "not on Fridays"}}
	b.ID = "hello/1/prod"
	write(l, events.PromoteSubject(1, b.Type(), "hello", 1, "prod", events.Key("u-eve"), 1), b)
	if n, ok := last(l); !ok || n.Kind != policy.NoticeFailed || n.Env != "prod" || n.Detail != "it was denied by u-eve: not on Fridays" {
		t.Errorf("%v %+v", ok, n)
	}
}

// What no longer stands when the event is read is of no use to anybody.
func TestWhatIsOverIsNotTold(t *testing.T) {
	l := foldtest.New()
	ready(l)
	queued(l, "dev", forApprover)
	asked := newest(l)
	l.Command(events.Command{Verb: events.VerbCancel, App: "hello", Run: 1})
	if n, ok := tell(l, asked); ok {
		t.Errorf("an approval of a cancelled run: %+v", n)
	}
	l = foldtest.New()
	l.Push(foldtest.Definition(definition), "")
	buildEnds(l, events.Error)
	isStuck(l, 1)
	stuck := newest(l)
	l.Replay("hello", 1, "build", "")
	if n, ok := tell(l, stuck); ok {
		t.Errorf("a stage that is replayed already: %+v", n)
	}
}

// An attempt that is stuck, goes on and gets stuck again is told of twice.
func TestStuckAgainIsToldAgain(t *testing.T) {
	l := foldtest.New()
	l.Push(foldtest.Definition(definition), "")
	began := &events.BuildStarted{About: events.About{ID: "hello/1"}}
	to := newReceiver(policy.Receiver{Kinds: []string{policy.NoticeStuck}})
	for nth := 1; nth <= 2; nth++ {
		isStuck(l, nth)
		n, ok := last(l)
		if !ok {
			t.Fatalf("stuck for time %d: nothing to hear of", nth)
		}
		to.offer(n)
		to.offer(n) // the same event again
		if got, ok := to.next(n.At, time.Hour); !ok || got.Seq != n.Seq {
			t.Fatalf("stuck for time %d: %v %+v", nth, ok, got)
		}
		to.settle(n)
		if got, ok := to.next(n.At, time.Hour); ok {
			t.Fatalf("told twice of time %d: %+v", nth, got)
		}
		if nth == 1 {
			write(l, events.BuildSubject(1, began.Type(), "hello", 1, "", 1), began)
		}
	}
}

func newest(l *foldtest.Ledger) ledger.Record {
	records := l.Records(0)
	return records[len(records)-1]
}

// Every event that tells of one thing tells of it under one id.
func TestOneThingHasOneID(t *testing.T) {
	l := foldtest.New()
	l.Push(foldtest.Definition(definition), "")
	buildEnds(l, events.Failure)
	first, ok := last(l)
	late := &events.TestSuiteRunFinished{Environment: events.Reference{ID: "dev"}, Outcome: events.Failure}
	late.ID = "hello/1"
	write(l, events.VerifySubject(1, late.Type(), "hello", 1, "dev", 1, 0, 1), late)
	second, again := last(l)
	if !ok || !again || first.ID != second.ID {
		t.Errorf("%v %+v, then %v %+v", ok, first, again, second)
	}
}

// An alarm is of no run, and perhaps of no app.
func TestAlarm(t *testing.T) {
	raised := &events.AlarmRaised{Alarm: events.Alarm{
		Environment: "prod", What: "login of promote at Vault of prod", Why: "it was used already", Do: "find out who",
	}}
	raised.ID = "prod/login"
	for _, app := range []events.Slug{"", "hello"} {
		raised.App = app
		subject := events.AlarmSubject(1, events.Promote, raised.Type(), app, "prod", 3)
		n, ok := decide(nil, 7, subject, events.Event{Body: raised})
		if !ok || n.Kind != policy.NoticeAlarm || n.Seq != 7 || n.Env != "prod" || n.App != app || n.Command != "towpath stuck" ||
			!strings.Contains(n.Text, "ALARM in prod: login of promote") || n.Detail != "it was used already; find out who" {
			t.Errorf("%+v", n)
		}
		again, _ := decide(nil, 9, subject, events.Event{Body: raised})
		if again.ID != n.ID || n.ID == "" {
			t.Errorf("ids %s and %s", n.ID, again.ID)
		}
	}
	resolved := &events.AlarmResolved{Alarm: raised.Alarm}
	if n, ok := decide(nil, 8, events.AlarmSubject(1, events.Promote, resolved.Type(), "", "prod", 3), events.Event{Body: resolved}); ok {
		t.Errorf("its end is told: %+v", n)
	}
}
