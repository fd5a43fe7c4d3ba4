package watch

import (
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/policy"
)

const twoEnvironments = `
app: hello
service: {port: 8080}
environments: [{name: dev}, {name: prod}]
`

// build writes an event of build's or vet's for run 1.
func write(l *foldtest.Ledger, s events.Subject, b events.Body) {
	l.Write(s, foldtest.Chain("hello", 1), b)
}

func buildEnds(l *foldtest.Ledger, o events.Outcome, attempt int) {
	b := &events.TaskRunFinished{TaskName: "build", Outcome: o, Errors: "engine is away"}
	b.ID = "hello/1"
	write(l, events.BuildSubject(1, b.Type(), "hello", 1, "", attempt), b)
}

func take(l *foldtest.Ledger) {
	b := &events.SlotTaken{Slot: 1, Run: 1, Attempt: 1, Digest: foldtest.Digest("run1"), Kind: events.KindDeploy, Environment: "dev"}
	b.ID = "hello/dev/1"
	write(l, events.SlotSubject(1, b.Type(), "hello", "dev", 1), b)
}

func live(l *foldtest.Ledger) {
	b := &events.SlotDecided{Slot: 1, Decision: events.Live, Environment: "dev"}
	b.ID = "hello/dev/1"
	write(l, events.SlotSubject(1, b.Type(), "hello", "dev", 1), b)
}

func waitsForApproval(l *foldtest.Ledger) {
	l.Built("hello", 1, 1, foldtest.Digest("run1"))
	l.Vetted("hello", 1, 1, foldtest.Digest("run1"), []events.Slug{"dev", "prod"})
	b := &events.PipelineRunQueued{Waiting: events.Waiting{Environment: "dev", Attempt: 1, Reason: "0 of 1 approvals given", For: "an approver"}}
	b.ID = "hello/1/dev"
	write(l, events.PromoteSubject(1, b.Type(), "hello", 1, "dev", "why", 1), b)
}

func TestDecide(t *testing.T) {
	p := policy.Default().Policy
	digest := foldtest.Digest("run1")
	environments := []events.Slug{"dev", "prod"}
	cases := map[string]struct {
		story func(l *foldtest.Ledger)
		stage string // "" for nothing due
		env   events.Slug
		after time.Duration // deadline after since; 0: at once
		tries int
	}{
		"pushed":      {func(l *foldtest.Ledger) {}, fold.StageBuild, "", p.Deadlines.Build, 1},
		"built":       {func(l *foldtest.Ledger) { l.Built("hello", 1, 1, digest) }, fold.StageVet, "", p.Deadlines.Vet, 1},
		"build error": {func(l *foldtest.Ledger) { buildEnds(l, events.Error, 1) }, fold.StageBuild, "", 0, 1},
		"build fails": {func(l *foldtest.Ledger) { buildEnds(l, events.Failure, 1) }, "", "", 0, 0},
		"replayed": {func(l *foldtest.Ledger) {
			buildEnds(l, events.Error, 1)
			l.Replay("hello", 1, fold.StageBuild, "")
		}, fold.StageBuild, "", p.Deadlines.Build, 2},
		"a fenced error": {func(l *foldtest.Ledger) {
			l.Replay("hello", 1, fold.StageBuild, "")
			buildEnds(l, events.Error, 1)
		}, fold.StageBuild, "", p.Deadlines.Build, 2},
		"held": {func(l *foldtest.Ledger) {
			l.Command(events.Command{Verb: events.VerbHold, App: "hello"})
		}, "", "", 0, 0},
		"cancelled": {func(l *foldtest.Ledger) {
			buildEnds(l, events.Error, 1)
			l.Command(events.Command{Verb: events.VerbCancel, App: "hello", Run: 1})
		}, "", "", 0, 0},
		"vetted": {func(l *foldtest.Ledger) {
			l.Built("hello", 1, 1, digest)
			l.Vetted("hello", 1, 1, digest, environments)
		}, fold.StagePromote, "dev", p.Deadlines.Promote, 1},
		"promoting": {func(l *foldtest.Ledger) {
			l.Built("hello", 1, 1, digest)
			l.Vetted("hello", 1, 1, digest, environments)
			take(l)
		}, fold.StagePromote, "dev", p.Deadlines.Promote, 1},
		"waiting for a setting": {func(l *foldtest.Ledger) {
			l.Built("hello", 1, 1, digest)
			l.Vetted("hello", 1, 1, digest, environments)
			b := &events.PipelineRunQueued{Waiting: events.Waiting{Environment: "dev", Attempt: 1, Reason: "KEY missing", For: "an operator"}}
			b.ID = "hello/1/dev"
			write(l, events.PromoteSubject(1, b.Type(), "hello", 1, "dev", "why", 1), b)
		}, "", "", 0, 0},
		"waiting for an approval": {waitsForApproval, "", "", 0, 0},
		"approved, and nobody says anything": {func(l *foldtest.Ledger) {
			waitsForApproval(l)
			l.Command(events.Command{Verb: events.VerbApprove, App: "hello", Run: 1, Environment: "dev"})
		}, fold.StagePromote, "dev", p.Deadlines.Promote, 1},
		"live": {func(l *foldtest.Ledger) {
			l.Built("hello", 1, 1, digest)
			l.Vetted("hello", 1, 1, digest, environments)
			take(l)
			live(l)
		}, fold.StageVerify, "dev", p.Deadlines.Verify, 1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			l := foldtest.New()
			l.Push(foldtest.Definition(twoEnvironments), "")
			c.story(l)
			got := decide(l.App("hello"), nil, p)
			if c.stage == "" {
				if len(got) != 0 {
					t.Fatalf("due: %+v, want nothing", got)
				}
				return
			}
			if len(got) != 1 || got[0].stage != c.stage || got[0].env != c.env || got[0].attempt != c.tries || got[0].at.Sub(got[0].since) != c.after {
				t.Fatalf("due: %+v, want %s %s attempt %d after %s", got, c.stage, c.env, c.tries, c.after)
			}
		})
	}
}

// A stage that could not begin for longer than its deadline has all of it from when the hold ended.
func TestAHoldStopsTheClock(t *testing.T) {
	p := policy.Default().Policy
	for name, app := range map[string]events.Slug{"of the app": "hello", "of everything": ""} {
		t.Run(name, func(t *testing.T) {
			l := foldtest.New()
			l.Push(foldtest.Definition(twoEnvironments), "")
			l.Command(events.Command{Verb: events.VerbHold, App: app})
			l.Pass(2 * p.Deadlines.Build)
			l.Command(events.Command{Verb: events.VerbResume, App: app})
			ended := l.App("hello").Resumed
			if got := decide(l.App("hello"), nil, p); len(got) != 1 || !got[0].since.Equal(ended) || !got[0].at.Equal(ended.Add(p.Deadlines.Build)) {
				t.Fatalf("due: %+v, want %s at %s", got, fold.StageBuild, ended.Add(p.Deadlines.Build))
			}
			l.Pass(time.Minute)
			l.Command(events.Command{Verb: events.VerbResume, App: app})
			if again := l.App("hello").Resumed; !again.Equal(ended) {
				t.Errorf("resuming what is not held moves the end of the hold from %s to %s", ended, again)
			}
		})
	}
}

// What was reported is not due again, whatever comes in twice.
func TestReportedOnce(t *testing.T) {
	l := foldtest.New()
	l.Push(foldtest.Definition(twoEnvironments), "")
	buildEnds(l, events.Error, 1)
	got := decide(l.App("hello"), nil, policy.Default().Policy)
	write(l, events.StuckSubject(1, "hello", 1, "", got[0].stage, 1, 1), got[0].stuck())
	if again := decide(l.App("hello"), nil, policy.Default().Policy); len(again) != 0 {
		t.Errorf("due again: %+v", again)
	}
	if s := l.App("hello").Run(1); s.Status() != fold.Stuck || s.Build.Stuck.Command != "towpath replay hello/1 build" {
		t.Errorf("run is %s, command %q", s.Status(), s.Build.Stuck.Command)
	}
}
