package notify

import (
	"strings"
	"testing"

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

func isStuck(l *foldtest.Ledger) {
	b := &events.StageStuck{Stage: "build", Attempt: 1, LastError: "the engine <is> `away`", Command: "towpath replay hello/1 build"}
	b.ID = "hello/1/build"
	write(l, events.StuckSubject(1, "hello", 1, "", "build", 1, 1), b)
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
			isStuck(l)
		}, policy.NoticeStuck, "hello/1 is stuck in build", "towpath replay hello/1 build"},
		"waits for an approver":     {func(l *foldtest.Ledger) { ready(l); queued(l, "dev", forApprover) }, policy.NoticeApproval, "hello/1 waits for an approval in dev", "towpath approve hello/1 --env dev"},
		"waits for an operator":     {func(l *foldtest.Ledger) { ready(l); queued(l, "dev", "an operator") }, "", "", ""},
		"an event about everything": {func(l *foldtest.Ledger) { ready(l); l.Command(events.Command{Verb: events.VerbHold}) }, "", "", ""},
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
	isStuck(l)
	stuck := newest(l)
	l.Replay("hello", 1, "build", "")
	if n, ok := tell(l, stuck); ok {
		t.Errorf("a stage that is replayed already: %+v", n)
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
	l.Command(events.Command{Verb: events.VerbCancel + "x", App: "hello", Run: 1})
	second, again := last(l)
	if !ok || !again || first.ID != second.ID {
		t.Errorf("%v %+v, then %v %+v", ok, first, again, second)
	}
}
