package fold_test

import (
	"fmt"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
)

// reached is a ledger with a run that was verified in dev and is stuck at promoting to prod.
func reached(t *testing.T) (l *foldtest.Ledger, policy string) {
	t.Helper()
	l = foldtest.New()
	policy = l.Policy(1, "{}")
	l.Ready(foldtest.Definition("app: hello\nenvironments: [{name: dev}, {name: prod}]\n"), policy)
	live(l, "dev", 1, 1)
	l.Verified("hello", 1, "dev", 1, 1, events.Success)
	closing(l, "dev", 1, &events.SlotClosed{Closing: events.Verified})
	b := &events.PipelineRunFinished{Outcome: events.Error, Errors: "no engine", Result: events.Result{Environment: "prod", Attempt: 1}}
	b.ID = "hello/1/prod"
	l.Write(events.PromoteSubject(1, b.Type(), "hello", 1, "prod", "", 1), "", b)
	return l, policy
}

func live(l *foldtest.Ledger, env events.Slug, n, attempt int) {
	taken := &events.SlotTaken{Slot: n, Run: 1, Attempt: attempt, Digest: foldtest.Digest("run1"), Kind: events.KindDeploy, Environment: env}
	taken.ID = fmt.Sprint("hello/", env, "/", n)
	l.Write(events.SlotSubject(1, taken.Type(), "hello", env, n), "", taken)
	decided := &events.SlotDecided{Slot: n, Decision: events.Live, Environment: env}
	decided.ID = taken.ID
	l.Write(events.SlotSubject(1, decided.Type(), "hello", env, n), "", decided)
}

func closing(l *foldtest.Ledger, env events.Slug, n int, b *events.SlotClosed) {
	b.Slot, b.Environment, b.ID = n, env, fmt.Sprint("hello/", env, "/", n)
	l.Write(events.SlotSubject(1, b.Type(), "hello", env, n), "", b)
}

// Under the newest policy the image is vetted again before anything is promoted, and a run never goes back to an older
// one.
func TestReplayUnderTheNewestPolicy(t *testing.T) {
	l, old := reached(t)
	newest := l.Policy(2, `{"x":1}`)
	l.ReplayBy("hello", 1, fold.StagePromote, "prod", old)
	run := l.App("hello").Run(1)
	if run.Policy != old || run.Vet.Attempt != 1 || run.Env("prod").Promote.Attempt != 2 || run.Verdict == nil {
		t.Fatalf("the policy of before is no change: %+v", run)
	}
	l.ReplayBy("hello", 1, fold.StagePromote, "prod", newest)
	run = l.App("hello").Run(1)
	if run.Policy != newest || run.Verdict != nil || run.Vet.Attempt != 2 || run.Env("prod").Promote.Attempt != 3 || !run.Env("dev").Verified {
		t.Fatalf("under the newest policy: %+v, prod %+v", run, run.Env("prod"))
	}
	if len(run.Policies) != 1 || run.Policies[0].From != old || run.Policies[0].To != newest {
		t.Errorf("changes %+v", run.Policies)
	}
	l.Policy(3, `{"x":2}`)
	l.ReplayBy("hello", 1, fold.StageVet, "", old)
	l.ReplayBy("hello", 1, fold.StageVet, "", newest)
	if run = l.App("hello").Run(1); run.Policy != newest {
		t.Errorf("it went back to %s", run.Policy)
	}
}

// What was approved no longer counts once the verdict is another, or the policy asks for something else.
func TestGateSince(t *testing.T) {
	l, _ := reached(t)
	same := func(string, string) bool { return true }
	l.Replay("hello", 1, fold.StageVet, "")
	l.Vetted("hello", 1, 2, foldtest.Digest("run1"), []events.Slug{"dev", "prod"})
	if since := l.App("hello").Run(1).GateSince("prod", same); since != 0 {
		t.Errorf("the same verdict drops approvals up to %d", since)
	}
	l.Replay("hello", 1, fold.StageVet, "")
	l.Vetted("hello", 1, 3, foldtest.Digest("run1"), []events.Slug{"dev", "prod"}, "prod")
	run, last := l.App("hello").Run(1), uint64(len(l.Records(0)))
	if prod, dev := run.GateSince("prod", same), run.GateSince("dev", same); prod != last || dev != 0 {
		t.Errorf("another verdict for prod, as event %d: %d for prod, %d for dev", last, prod, dev)
	}
	newest := l.Policy(2, `{"x":1}`)
	l.ReplayBy("hello", 1, fold.StagePromote, "prod", newest)
	run, last = l.App("hello").Run(1), uint64(len(l.Records(0)))
	if since := run.GateSince("dev", func(string, string) bool { return false }); since != last {
		t.Errorf("another policy, as event %d: %d", last, since)
	}
	if since := run.GateSince("dev", same); since != 0 {
		t.Errorf("a policy that asks for the same: %d", since)
	}
}

// Of two replays of one attempt only the first counts.
func TestReplayNamesItsAttempt(t *testing.T) {
	l, _ := reached(t)
	for i := range 1000 {
		b := &events.ReplayRequested{Stage: fold.StagePromote, Environment: "prod", Attempt: 1, Actor: "bob"}
		b.ID = fmt.Sprint("again-", i)
		l.Write(events.CommandSubject(1, b.Type(), "hello", 1, "prod", b.ID), "", b)
	}
	if got := l.App("hello").Run(1).Env("prod").Promote.Attempt; got != 2 {
		t.Errorf("attempt %d after 1000 replays of attempt 1", got)
	}
}

// A skipped verification lets the run go on and is marked, and what the attempt before finds out later is fenced.
func TestSkip(t *testing.T) {
	l, _ := reached(t)
	l.Replay("hello", 1, fold.StagePromote, "prod")
	live(l, "prod", 1, 2)
	id := l.Command(events.Command{Verb: events.VerbSkip, App: "hello", Run: 1, Stage: "verify", Environment: "prod", Reason: "sandbox down"})
	run := l.App("hello").Run(1)
	if prod := run.Env("prod"); prod.Skip == nil || prod.Skip.ID != id || prod.Verify.Attempt != 2 || prod.Slot != 1 {
		t.Fatalf("after skip %+v", prod)
	}
	l.Verified("hello", 1, "prod", 1, 1, events.Failure)
	if a := l.App("hello"); a.Env("prod").Slot(1).Trial != nil || a.Run(1).Env("prod").Verify.Ended() {
		t.Error("the attempt that was skipped still counts")
	}
	skip := &events.Skip{Command: id, Actor: "bob", Reason: "sandbox down"}
	b := &events.TestSuiteRunFinished{Environment: events.Reference{ID: "prod"}, Outcome: events.Cancel, Trial: events.Trial{Slot: 1, Attempt: 2, Skipped: skip}}
	b.ID = "hello/1/prod/1"
	l.Write(events.VerifySubject(1, b.Type(), "hello", 1, "prod", 1, 0, 2), "", b)
	closing(l, "prod", 1, &events.SlotClosed{Closing: events.Unverified, Skipped: skip})
	a := l.App("hello")
	run = a.Run(1)
	if prod := run.Env("prod"); !prod.Verified || prod.Skipped == nil || prod.Skipped.Reason != "sandbox down" || prod.Verify.Status != fold.Skipped || run.Status() != fold.Done {
		t.Errorf("prod %+v, run %s", prod, run.Status())
	}
	if good := a.Env("prod").Good(2); good == nil || good.N != 1 || good.Skipped == nil {
		t.Errorf("what comes back after a later rejection: %+v", good)
	}
	l.Replay("hello", 1, fold.StageVerify, "prod")
	if prod := l.App("hello").Run(1).Env("prod"); prod.Skip != nil || prod.Skipped != nil || prod.Verified || prod.Verify.Attempt != 3 {
		t.Errorf("a replay verifies again: %+v", prod)
	}
}

func TestReplaysOfAllThatIsStuckAreOpenUntilTheyFinish(t *testing.T) {
	l, _ := reached(t)
	id := l.Command(events.Command{Verb: events.VerbReplay, Groups: []events.StuckGroup{{Cause: "x"}}})
	if open := l.Fold().Replays(); len(open) != 1 || open[0].ID != id || open[0].Groups[0].Cause != "x" {
		t.Fatalf("open %+v", open)
	}
	b := &events.CommandFinished{Verb: events.VerbReplay}
	b.ID = id
	l.Write(events.CommandSubject(1, b.Type(), "", 0, "", id), "", b)
	if open := l.Fold().Replays(); len(open) != 0 {
		t.Errorf("open %+v", open)
	}
}
