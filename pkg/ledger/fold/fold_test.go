package fold_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/pipeline"
)

var hello = foldtest.Definition(`
app: hello
service: {port: 8080}
environments: [{name: dev}, {name: qa}]
`)

// story is a ledger with what promote writes about slots.
type story struct{ *foldtest.Ledger }

func newStory() story { return story{foldtest.New()} }

func (s story) take(env events.Slug, slot, run, attempt int, k events.Kind, digest string) {
	b := &events.SlotTaken{Slot: slot, Run: run, Attempt: attempt, Kind: k, Environment: env, Digest: digest}
	b.ID = fmt.Sprintf("hello/%s/%d", env, slot)
	s.Write(events.SlotSubject(foldtest.Epoch, b.Type(), "hello", env, slot), "", b)
}

func (s story) decide(env events.Slug, slot int, d events.Decision) {
	b := &events.SlotDecided{Slot: slot, Decision: d, Environment: env}
	b.ID = fmt.Sprintf("hello/%s/%d", env, slot)
	s.Write(events.SlotSubject(foldtest.Epoch, b.Type(), "hello", env, slot), "", b)
}

func (s story) close(env events.Slug, slot int, c events.Closing) {
	b := &events.SlotClosed{Slot: slot, Closing: c, Environment: env}
	b.ID = fmt.Sprintf("hello/%s/%d", env, slot)
	s.Write(events.SlotSubject(foldtest.Epoch, b.Type(), "hello", env, slot), "", b)
}

func (s story) finish(run int, env events.Slug, attempt int, o events.Outcome) {
	b := &events.PipelineRunFinished{Outcome: o}
	b.ID = fold.Name("hello", run)
	s.Write(events.PromoteSubject(foldtest.Epoch, b.Type(), "hello", run, env, "", attempt), "", b)
}

// conclude writes what follows an attempt at building that made an image.
func (s story) conclude(run, attempt int) {
	b := &events.TaskRunFinished{TaskName: "build", Outcome: events.Success, Result: events.Result{Attempt: attempt}}
	b.ID = fold.Name("hello", run)
	s.Write(events.BuildSubject(foldtest.Epoch, b.Type(), "hello", run, "", attempt), "", b)
}

// pass takes a run through an environment.
func (s story) pass(env events.Slug, slot, run int) {
	s.take(env, slot, run, 1, events.KindDeploy, foldtest.Digest(fmt.Sprint("run", run)))
	s.decide(env, slot, events.Live)
	s.Verified("hello", run, env, slot, 1, events.Success)
	s.close(env, slot, events.Verified)
	s.finish(run, env, 1, events.Success)
}

func (s story) run(n int) *fold.Run { return s.App("hello").Run(n) }

func TestRunOnItsWay(t *testing.T) {
	s := newStory()
	status := func(want fold.Status) {
		t.Helper()
		if got := s.run(1).Status(); got != want {
			t.Errorf("status %s, want %s", got, want)
		}
	}
	s.Push(hello, "policy")
	status(fold.Queued)
	s.Built("hello", 1, 1, foldtest.Digest("run1"))
	status(fold.Running)
	s.Vetted("hello", 1, 1, foldtest.Digest("run1"), hello.EnvironmentNames(), "qa")
	if v, ok := s.run(1).VerdictFor("qa"); !ok || v.Verdict != events.Fail {
		t.Errorf("verdict %v %v", v, ok)
	}
	s.pass("dev", 1, 1)
	status(fold.Running)
	if next := s.run(1).Next(); next == nil || next.Name != "qa" {
		t.Errorf("next is %v", next)
	}
	s.pass("qa", 1, 1)
	status(fold.Done)
	app := s.App("hello")
	if live := app.Env("qa").Live(); live.Run != 1 || live.Open() {
		t.Errorf("live %+v", live)
	}
	if good := app.Env("qa").Good(2); good == nil || good.N != 1 {
		t.Errorf("good %+v", good)
	}
}

func TestReplayOfVerificationKeepsTheOldResultOut(t *testing.T) {
	s := newStory()
	s.Ready(hello, "policy")
	s.take("dev", 1, 1, 1, events.KindDeploy, foldtest.Digest("run1"))
	s.decide("dev", 1, events.Live)
	s.Verified("hello", 1, "dev", 1, 1, events.Error)
	if got := s.run(1).Status(); got != fold.Stuck {
		t.Errorf("status %s", got)
	}
	s.Replay("hello", 1, fold.StageVerify, "dev")
	slot := func() *fold.Slot { return s.App("hello").Env("dev").Slot(1) }
	if slot().Trial != nil || slot().TrialAttempt != 2 || s.run(1).Env("dev").Promote.Attempt != 1 {
		t.Errorf("after the replay: %+v", slot())
	}
	s.Verified("hello", 1, "dev", 1, 2, events.Success)
	if slot().Trial == nil || slot().Trial.Outcome != events.Success {
		t.Errorf("trial %+v", slot().Trial)
	}
}

func TestLateResultOfAFencedVerification(t *testing.T) {
	s := newStory()
	s.Ready(hello, "policy")
	s.take("dev", 1, 1, 1, events.KindDeploy, foldtest.Digest("run1"))
	s.decide("dev", 1, events.Live)
	s.Replay("hello", 1, fold.StageVerify, "dev")
	s.Verified("hello", 1, "dev", 1, 1, events.Failure)
	if trial := s.App("hello").Env("dev").Slot(1).Trial; trial != nil {
		t.Errorf("attempt 1 counts although attempt 2 was asked for: %+v", trial)
	}
}

func TestReplayOfVerificationOfAnEndedSlotIsANewPromotion(t *testing.T) {
	s := newStory()
	s.Ready(hello, "policy")
	s.take("dev", 1, 1, 1, events.KindDeploy, foldtest.Digest("run1"))
	s.decide("dev", 1, events.Live)
	s.Verified("hello", 1, "dev", 1, 1, events.Failure)
	s.close("dev", 1, events.Rejected)
	s.finish(1, "dev", 1, events.Failure)
	if got := s.run(1).Status(); got != fold.Failed {
		t.Errorf("status %s", got)
	}
	s.Replay("hello", 1, fold.StageVerify, "dev")
	e := s.run(1).Env("dev")
	if e.Promote.Attempt != 2 || e.Verify.Attempt != 2 || e.Slot != 0 || e.Concluded {
		t.Errorf("after the replay: %+v", e)
	}
}

func TestReplayedBuildOfAnotherImagePassesEveryEnvironmentAgain(t *testing.T) {
	for _, c := range []struct {
		image    string
		verified bool
	}{{"run1", true}, {"other", false}} {
		s := newStory()
		s.Ready(hello, "policy")
		s.pass("dev", 1, 1)
		s.Replay("hello", 1, fold.StageBuild, "")
		if r := s.run(1); r.Artifact != nil || r.Verdict != nil || r.Build.Attempt != 2 || r.Vet.Attempt != 2 {
			t.Errorf("after the replay: %+v", r)
		}
		s.Built("hello", 1, 2, foldtest.Digest(c.image))
		if got := s.run(1).Env("dev").Verified; got != c.verified {
			t.Errorf("image %s: verified in dev: %v", c.image, got)
		}
	}
}

func TestVerdictOnAnotherArtifactIsNone(t *testing.T) {
	s := newStory()
	n := s.Push(hello, "policy")
	s.Built("hello", n, 1, foldtest.Digest("mine"))
	s.Vetted("hello", n, 1, foldtest.Digest("another"), hello.EnvironmentNames())
	if _, ok := s.run(n).VerdictFor("dev"); ok {
		t.Error("a verdict on another artifact counts")
	}
}

func TestNewerRunSupersedes(t *testing.T) {
	for _, c := range []struct {
		onNewer string
		want    fold.Status
	}{{"supersede", fold.Superseded}, {"queue", fold.Running}} {
		d := foldtest.Definition("app: hello\nonNewer: " + c.onNewer + "\nservice: {port: 8080}\nenvironments: [{name: dev}, {name: qa}]\n")
		s := newStory()
		s.Ready(d, "policy") // 1 is verified in dev, and so passed only where it has not been
		s.pass("dev", 1, 1)
		s.Ready(d, "policy")
		s.Ready(d, "policy")
		s.take("dev", 2, 3, 1, events.KindDeploy, foldtest.Digest("run3"))
		if got := s.run(2).Status(); got != fold.Running {
			t.Errorf("%s: undecided: %s", c.onNewer, got)
		}
		s.decide("dev", 2, events.Live)
		if got := s.run(2).Status(); got != c.want {
			t.Errorf("%s: status of the run between: %s, want %s", c.onNewer, got, c.want)
		}
		if got := s.run(1).Status(); got != fold.Running {
			t.Errorf("%s: status of the oldest: %s", c.onNewer, got)
		}
	}
}

func TestClosingEndsTheVerification(t *testing.T) {
	s := newStory()
	s.Ready(hello, "policy")
	s.take("dev", 1, 1, 1, events.KindDeploy, foldtest.Digest("run1"))
	s.decide("dev", 1, events.Live)
	s.close("dev", 1, events.Superseded)
	if got := s.run(1).Status(); got != fold.CancelledRun {
		t.Errorf("status %s", got)
	}
}

func TestCommands(t *testing.T) {
	s := newStory()
	s.Ready(hello, "policy")
	s.pass("dev", 1, 1)
	s.Command(events.Command{Verb: events.VerbHold, App: "hello", Reason: "drill"})
	if app := s.App("hello"); app.StatusOf(app.Run(1)) != fold.Running || app.Hold == nil || app.Hold.All {
		t.Errorf("held: %s %+v", app.StatusOf(app.Run(1)), app.Hold)
	}
	s.Command(events.Command{Verb: events.VerbResume, App: "hello"})
	s.Command(events.Command{Verb: events.VerbHold})
	if app := s.App("hello"); app.Hold == nil || !app.Hold.All {
		t.Errorf("all held: %+v", app.Hold)
	}
	s.Command(events.Command{Verb: events.VerbResume})
	s.Command(events.Command{Verb: events.VerbCancel, App: "hello", Run: 1, Environment: "dev"})
	if s.run(1).Cancelled != nil {
		t.Error("cancelled where it was verified")
	}
	id := s.Command(events.Command{Verb: events.VerbRollback, App: "hello", Environment: "dev"})
	if all := s.App("hello").Env("dev").Rollbacks; len(all) != 1 || all[0].ID != id {
		t.Errorf("rollbacks %+v", all)
	}
	s.Command(events.Command{Verb: events.VerbCancel, App: "hello", Run: 1})
	if got := s.run(1).Status(); got != fold.CancelledRun {
		t.Errorf("status %s", got)
	}
	s.Command(events.Command{Verb: events.VerbPromote, App: "hello", Run: 1, Environment: "qa"})
	if r := s.run(1); r.Cancelled != nil || r.Env("qa").Forced == nil || r.Env("qa").Promote.Attempt != 1 {
		t.Errorf("after promote: %+v", r.Env("qa"))
	}
	s.Replay("hello", 1, fold.StagePromote, "dev")
	if e := s.run(1).Env("dev"); e.Verified || e.Slot != 0 || e.Promote.Attempt != 2 || e.Promote.Replay.Seq == 0 {
		t.Errorf("after the replay: %+v", e)
	}
}

func TestSlotsOutOfOrderAreRefused(t *testing.T) {
	for name, write := range map[string]func(s story){
		"a slot left out":             func(s story) { s.take("dev", 3, 1, 1, events.KindDeploy, "") },
		"while another is open":       func(s story) { s.take("dev", 2, 1, 1, events.KindDeploy, "") },
		"deciding what was not taken": func(s story) { s.decide("dev", 2, events.Live) },
		"closing what is not live":    func(s story) { s.close("dev", 1, events.Verified) },
	} {
		s := newStory()
		s.Ready(hello, "policy")
		s.take("dev", 1, 1, 1, events.KindDeploy, "")
		f := s.Fold()
		before := dump(f.App("hello"))
		seq := f.Seq()
		write(s)
		if err := f.Apply(s.Records(seq)[0]); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if f.Seq() != seq+1 || dump(f.App("hello")) != before {
			t.Errorf("%s: changed the app, or stands still", name)
		}
	}
}

func TestUnknownDefinitionIsRefused(t *testing.T) {
	s := newStory()
	d := hello
	d.OnNewer = pipeline.Queue
	b := &events.ChangeMerged{Run: events.RunStart{App: "hello", Definition: d.Canonical(), DefinitionDigest: hello.Digest()}}
	b.ID = "sha"
	s.Write(events.RunStartSubject(1, b.Type(), "hello", "", "", 0, "x"), "", b)
	if err := fold.New().Apply(s.Records(0)[0]); err == nil {
		t.Error("a definition that is not the pinned one was accepted")
	}
}

func TestWaiting(t *testing.T) {
	s := newStory()
	s.Ready(hello, "policy")
	f := fold.New()
	done := make(chan error, 2)
	go func() { done <- f.Wait(t.Context(), 3) }()
	go func() {
		a, err := f.WaitApp(t.Context(), "hello", 2)
		if err == nil && a.Seq != 3 {
			err = fmt.Errorf("app at %d", a.Seq)
		}
		done <- err
	}()
	for _, r := range s.Records(0) {
		if err := f.Apply(r); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	f.Skip(9)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := f.Wait(ctx, 9); err != nil {
		t.Error(err)
	}
	if err := f.Wait(ctx, 10); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for what does not come: %v", err)
	}
	if f.LedgerID() != s.Records(0)[0].ID() {
		t.Error("another ledger's id")
	}
}

func TestPolicies(t *testing.T) {
	s := newStory()
	first := s.Policy(1, `{"a":1}`)
	second := s.Policy(2, `{"a":2}`)
	f := s.Fold()
	if string(f.Policy(first)) != `{"a":1}` || f.CurrentPolicy() != (fold.PolicyVersion{Serial: 2, Digest: second}) {
		t.Errorf("policy %s, current %+v", f.Policy(first), f.CurrentPolicy())
	}
}

// dump is an app's whole state as text.
func dump(a *fold.App) string {
	data, err := json.Marshal(a)
	if err != nil {
		panic(err)
	}
	return string(data)
}

func apply(t interface{ Fatal(...any) }, records []ledger.Record) *fold.Fold {
	f := fold.New()
	for _, r := range records {
		if err := f.Apply(r); err != nil && !errors.Is(err, fold.ErrSlotOrder) {
			t.Fatal(err)
		}
	}
	return f
}

// Alarms stand until whoever raised them says that they are over, also in a fold that was restored.
func TestAlarmsStandUntilTheyAreOver(t *testing.T) {
	s := newStory()
	s.alarm("dev", events.Promote, false)
	s.alarm("qa", events.Gateway, false)
	s.alarm("qa", events.Promote, false)
	s.alarm("qa", events.Promote, true)
	kept, err := fold.DecodeState(s.Fold().State().Encode())
	if err != nil {
		t.Fatal(err)
	}
	restored, err := fold.Restore(kept)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]*fold.Fold{"fold": s.Fold(), "restored": restored} {
		standing, raised := f.Alarms(events.Promote)
		if raised != 2 || len(standing) != 2 || standing[0].By != events.Promote || standing[0].N != 1 || standing[0].Environment != "dev" ||
			standing[1].By != events.Gateway || standing[1].N != 1 || standing[1].At.IsZero() {
			t.Errorf("%s: promote raised %d, and %+v stand", name, raised, standing)
		}
	}
}
