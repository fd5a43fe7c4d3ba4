package gateway

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/policy"
	"towpath.dev/services/gateway/view"
)

// stuck gives an app a run that is stuck at promoting to dev.
func (s *station) stuck(app events.Slug, why string) {
	s.t.Helper()
	d := foldtest.Definition(fmt.Sprintf("app: %s\nenvironments: [{name: dev}, {name: prod}]\n", app))
	sha := strings.Repeat("a", 40)
	b := &events.ChangeMerged{About: events.About{ID: sha}, Repository: events.Reference{ID: string(app)}, Run: events.RunStart{
		App: app, Ref: "refs/heads/main", SHA: sha, PolicyDigest: s.fold().CurrentPolicy().Digest,
		Definition: d.Canonical(), DefinitionDigest: d.Digest(), Actor: "ann",
	}}
	s.write(events.RunStartSubject(1, b.Type(), app, "", "refs/heads/main", 0, sha), events.NewID(), b)
	s.built(app, 1)
	s.ends(app, 1, why)
}

// ends says how an attempt at promoting to dev ended: without a why well.
func (s *station) ends(app events.Slug, attempt int, why string) {
	s.t.Helper()
	if why == "" {
		s.live(app, 1, "dev")
		return
	}
	b := &events.PipelineRunFinished{About: events.About{ID: string(app) + "/1/dev"}, Outcome: events.Error, Errors: why}
	b.Result = events.Result{Environment: "dev", Attempt: attempt, Trouble: &events.Trouble{What: "promoting", Why: why}}
	s.write(events.PromoteSubject(1, b.Type(), app, 1, "dev", "", attempt), "", b)
}

// replayed waits until an app's promotion to dev is in an attempt.
func (s *station) replayed(app events.Slug, attempt int) *fold.Stage {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	for seq := uint64(0); ; {
		a, err := s.fold().WaitApp(ctx, app, seq)
		if err != nil {
			s.t.Fatalf("%s is not replayed: %v", app, err)
		}
		if stage := a.Run(1).Env("dev").Promote; stage.Attempt == attempt {
			return &stage
		}
		seq = a.Seq
	}
}

// One command carries everything out, and goes on after a restart of the gateway without doing anything twice.
func TestReplayAllThatIsStuck(t *testing.T) {
	s := newStation(t)
	s.stuck("a-1", "no registry")
	s.stuck("a-2", "no registry")
	s.stuck("a-3", "no registry")
	s.stuck("b-1", "no engine")
	s.stuck("b-2", "no engine")
	o := order{ID: id("outage", 1), Verb: "replay", AllStuck: true, Reason: "the registry is back"}
	before := s.fold().Seq()
	shown := get[view.Preview](s, "POST", "/v1/commands?dryRun=1", o)
	if len(shown.Groups) != 2 || len(shown.Groups[0].Stages) != 3 || shown.Groups[0].Stages[0].Run != "a-1/1" || s.fold().Seq() != before {
		t.Fatalf("preview %+v", shown)
	}
	first := get[view.Answer](s, "POST", "/v1/commands", o)
	for _, app := range []events.Slug{"a-1", "b-1"} {
		stage := s.replayed(app, 2)
		if stage.Replay.Parent != o.ID || stage.Replay.Reason != o.Reason || stage.Replay.Actor == "" || stage.Replay.ID == o.ID {
			t.Errorf("%s: %+v", app, stage.Replay)
		}
	}
	s.restart()
	if again := get[view.Answer](s, "POST", "/v1/commands", o); again != first {
		t.Errorf("after a restart the same command is answered with %+v, first with %+v", again, first)
	}
	if attempt := s.fold().App("a-2").Run(1).Env("dev").Promote.Attempt; attempt != 1 {
		t.Errorf("a-2 is in attempt %d before the first of each group has ended", attempt)
	}
	s.ends("a-1", 2, "no registry")
	s.ends("b-1", 2, "")
	s.replayed("b-2", 2)
	s.replayed("a-2", 2)
	s.ends("b-2", 2, "")
	s.replayed("a-3", 2)
	s.ends("a-2", 2, "no registry")
	s.ends("a-3", 2, "no registry")
	var end view.Replays
	for deadline := time.Now().Add(30 * time.Second); !end.Finished; {
		if time.Now().After(deadline) {
			t.Fatalf("it does not finish: %+v", end)
		}
		end = get[view.Replays](s, "GET", "/v1/replays/"+o.ID, nil)
	}
	results := map[string]view.Result{}
	for _, g := range end.Groups {
		for _, one := range g.Stages {
			results[one.Run] = one.Result
			if one.Result == view.StopAgain && (one.Command != "towpath replay "+one.Run+" promote --env dev" || !strings.Contains(one.Why, "no registry")) {
				t.Errorf("%+v", one)
			}
		}
	}
	want := map[string]view.Result{"a-1/1": view.StopAgain, "a-2/1": view.StopAgain, "a-3/1": view.StopAgain, "b-1/1": view.WentOn, "b-2/1": view.WentOn}
	if fmt.Sprint(results) != fmt.Sprint(want) {
		t.Errorf("results %v, want %v", results, want)
	}
	// The answer is the ledger's, which the fold follows.
	if err := s.fold().Wait(t.Context(), end.Seq); err != nil {
		t.Fatal(err)
	}
	if open := s.fold().Replays(); len(open) != 0 {
		t.Errorf("open %+v", open)
	}
	for _, app := range []events.Slug{"a-1", "a-2", "a-3", "b-1", "b-2"} {
		if n := count(s.records(app), "replay.requested"); n != 1 {
			t.Errorf("%s was replayed %d times", app, n)
		}
	}
	if status, answer := s.ask(s.token, "GET", "/v1/replays/nothing-here", nil); status != http.StatusNotFound {
		t.Errorf("%d %s", status, answer)
	}
}

// An order that is sent again has its first answer after a restart too, whatever has become of it: followed or refused.
func TestSameCommandAfterARestart(t *testing.T) {
	s := newStation(t)
	s.stuck("hello", "no engine")
	cancelled := order{ID: id("cancel", 1), Verb: "cancel", App: "hello", Run: 1, Reason: "drill"}
	replay := order{ID: id("replay", 1), Verb: "replay", App: "hello", Run: 1}
	refused := order{ID: id("hold", 1), Verb: "resume", App: "hello"}
	first := get[view.Answer](s, "POST", "/v1/commands", replay)
	s.ends("hello", 2, "no engine")
	second := get[view.Answer](s, "POST", "/v1/commands", cancelled)
	if status, _ := s.ask(s.token, "POST", "/v1/commands", refused); status != http.StatusConflict {
		t.Errorf("resuming what is not held: %d", status)
	}
	get[view.Answer](s, "POST", "/v1/commands", order{ID: id("hold", 2), Verb: "hold", App: "hello"})
	s.restart()
	if again := get[view.Answer](s, "POST", "/v1/commands", replay); again != first {
		t.Errorf("replay: %+v, first %+v", again, first)
	}
	if again := get[view.Answer](s, "POST", "/v1/commands", cancelled); again != second {
		t.Errorf("cancel: %+v, first %+v", again, second)
	}
	if status, answer := s.ask(s.token, "POST", "/v1/commands", refused); status != http.StatusConflict || !strings.Contains(answer, "it is not held") {
		t.Errorf("what was refused, sent again now that it is held: %d %s", status, answer)
	}
	other := replay
	other.Verb, other.Stage, other.Env = "cancel", "", ""
	other.ID = cancelled.ID
	other.Verb = "promote"
	if status, answer := s.ask(s.token, "POST", "/v1/commands", other); status != http.StatusConflict || !strings.Contains(answer, "used for another command") {
		t.Errorf("another command under the same id: %d %s", status, answer)
	}
	if n := count(s.records("hello"), "replay.requested"); n != 1 {
		t.Errorf("%d replays", n)
	}
}

// Whoever approves twice is told so. That is on record under the id, and counts for nothing.
func TestApprovedAlready(t *testing.T) {
	s := newStory()
	s.Ready(foldtest.Definition(twoEnvironments), s.policy)
	s.deploy(1, "dev", events.Verified)
	first := s.Command(events.Command{Verb: events.VerbApprove, App: "hello", Run: 1, Environment: "prod", Digest: foldtest.Digest("run1"), Actor: "eve"})
	two := policy.Approval{Count: 2, AuthorMayApprove: true}
	d, why := s.decide(order{Verb: "approve", Run: 1, Env: "prod"}, two)
	if why != nil || d.command.Repeats != first || !strings.Contains(d.text, "already approved") || !strings.HasSuffix(d.text, "1 of 2") {
		t.Errorf("%+v %v", d, why)
	}
	before := s.App("hello")
	s.Command(d.command)
	if after := s.App("hello"); len(after.Run(1).Env("prod").Responses) != 1 || after.Seq != before.Seq {
		t.Errorf("what was said again counts: %+v", after.Run(1).Env("prod"))
	}
	s.deploy(1, "prod", events.Verified)
	if d, why := s.decide(order{Verb: "approve", Run: 1}, two); why != nil || d.command.Repeats != first {
		t.Errorf("once it is there: %+v %v", d, why)
	}
	s.Command(events.Command{Verb: events.VerbDeny, App: "hello", Run: 1, Environment: "prod", Digest: foldtest.Digest("run1"), Actor: "eve"})
	if d, _ := s.decide(order{Verb: "approve", Run: 1, Env: "prod"}, two); d.command.Repeats != "" {
		t.Errorf("the last word was no: %+v", d)
	}
}

func TestDecideSkip(t *testing.T) {
	s := newStory()
	s.Ready(foldtest.Definition(twoEnvironments), s.policy)
	skip := func(o order) (decision, *problem) {
		o.Verb, o.Run = "skip", 1
		if o.Reason == "" {
			o.Reason = "sandbox down"
		}
		return s.decide(o, policy.Approval{})
	}
	refuse := func(o order, status int, want string) {
		t.Helper()
		if _, why := skip(o); why == nil || why.Status != status || !strings.Contains(why.Why, want) {
			t.Errorf("%+v: %+v, want %d %q", o, why, status, want)
		}
	}
	refuse(order{Stage: "vet"}, http.StatusForbidden, "never vetting, never an approval")
	refuse(order{Stage: "approval", Env: "prod"}, http.StatusForbidden, "never vetting, never an approval")
	refuse(order{Stage: "promote", Env: "dev"}, http.StatusForbidden, "never vetting")
	refuse(order{Stage: "verify", Env: "dev"}, http.StatusConflict, "it has not come that far")
	s.deploy(1, "dev", "")
	d, why := skip(order{Stage: "verify", Env: "dev"})
	if why != nil || d.command.Verb != events.VerbSkip || d.command.Reason != "sandbox down" || d.command.Stage != "verify" || d.command.Environment != "dev" {
		t.Errorf("%+v %v", d, why)
	}
	s.Command(d.command)
	refuse(order{Stage: "verify", Env: "dev"}, http.StatusConflict, "it is being skipped already")
	s = newStory()
	s.Ready(foldtest.Definition(twoEnvironments), s.policy)
	s.deploy(1, "dev", events.Rejected)
	if d, why := skip(order{Stage: "verify"}); why != nil || d.command.Environment != "dev" || !strings.Contains(d.text, "deployed to dev again") {
		t.Errorf("after a rejection, where it stopped: %+v %v", d, why)
	}
	s = newStory()
	s.Ready(foldtest.Definition(twoEnvironments), s.policy)
	s.deploy(1, "dev", events.Verified)
	refuse(order{Stage: "verify", Env: "dev"}, http.StatusConflict, "it is through already")
	s.deploy(1, "prod", "")
	refuse(order{Stage: "verify", Env: "prod"}, http.StatusForbidden, "policy")
	o := order{Verb: "skip", Run: 1, Stage: "verify", Env: "dev"}
	if _, why := s.decide(o, policy.Approval{}); why == nil || why.Status != http.StatusBadRequest {
		t.Errorf("without a reason: %v", why)
	}
}

// The preview of a replay under another policy says which approvals it drops.
func TestForeseeAnotherPolicy(t *testing.T) {
	s := newStory()
	s.Ready(foldtest.Definition(twoEnvironments), s.policy)
	s.deploy(1, "dev", events.Verified)
	s.Command(events.Command{Verb: events.VerbApprove, App: "hello", Run: 1, Environment: "prod", Digest: foldtest.Digest("run1"), Actor: "eve"})
	s.ended(1, "prod", events.Error)
	newest := s.Policy(2, `{"x":1}`)
	in := s.scope(policy.Approval{Count: 1, AuthorMayApprove: true})
	in.present = &events.Pins{Config: map[string]uint64{"KEY": 3}}
	in.ruleBy = func(digest string, _ *fold.Run, _ events.Slug) policy.Approval {
		if digest == newest {
			return policy.Approval{Count: 2, AuthorMayApprove: true}
		}
		return policy.Approval{Count: 1, AuthorMayApprove: true}
	}
	d, why := s.decideBy(order{Verb: "replay", Run: 1, Policy: policyCurrent}, in)
	if why != nil {
		t.Fatal(why)
	}
	if d.replay.Policy != newest || d.replay.Attempt != 1 || d.preview.Pins.Policy != newest || d.preview.Pins.PolicyWas != s.policy || !strings.HasPrefix(d.preview.Runs[0], "vet, attempt 2") {
		t.Errorf("%+v, pins %+v, runs %q", d.replay, d.preview.Pins, d.preview.Runs)
	}
	if len(d.preview.Approvals) != 1 || d.preview.Approvals[0].Kept || !strings.Contains(d.preview.Approvals[0].Why, "2 approvals in prod, not 1") {
		t.Errorf("approvals %+v", d.preview.Approvals)
	}
	d, why = s.decideBy(order{Verb: "replay", Run: 1}, in)
	if why != nil || d.replay.Policy != "" || len(d.preview.Approvals) != 1 || !d.preview.Approvals[0].Kept {
		t.Errorf("pinned: %+v, approvals %+v (%v)", d.replay, d.preview.Approvals, why)
	}
}

// A rollback shows in the run that it replaced, and who asked for it.
func TestRollbackShowsInWhatItReplaced(t *testing.T) {
	s := newStory()
	d := foldtest.Definition(twoEnvironments)
	for n := range 2 {
		s.Ready(d, s.policy)
		s.deploy(n+1, "dev", events.Verified)
	}
	id := s.Command(events.Command{Verb: events.VerbRollback, App: "hello", Run: 1, Slot: 1, Environment: "dev", Actor: "eve", Reason: "too slow"})
	about := events.About{ID: "hello/dev/3"}
	taken := &events.SlotTaken{About: about, Slot: 3, Run: 1, Kind: events.KindRestore, From: 1, Command: id, Environment: "dev", Digest: foldtest.Digest("run1")}
	s.Write(events.SlotSubject(1, taken.Type(), "hello", "dev", 3), "", taken)
	decided := &events.SlotDecided{About: about, Slot: 3, Decision: events.Live, Environment: "dev"}
	s.Write(events.SlotSubject(1, decided.Type(), "hello", "dev", 3), "", decided)
	app := s.App("hello")
	shown := view.NewRun(app, app.Run(2), "").Stages[2]
	if by := shown.Replaced; by == nil || by.Actor != "eve" || by.Reason != "too slow" || by.Run != "hello/1" || !strings.Contains(shown.Detail, "eve brought hello/1 back in its place: too slow") {
		t.Errorf("%+v %+v", shown, shown.Replaced)
	}
	if other := view.NewRun(app, app.Run(1), "").Stages[2]; other.Replaced != nil {
		t.Errorf("the run that came back was replaced by its successor, not by a rollback: %+v", other.Replaced)
	}
}

// What nothing reads is set with a warning, and makes no app.
func TestUndeclaredSetting(t *testing.T) {
	s := newStation(t)
	value := map[string]string{"value": "x"}
	if early := get[setting](s, "PUT", "/v1/settings/dev/phantom/KEY", value); early.Warning != "" {
		t.Errorf("an app without a run declares nothing yet: %q", early.Warning)
	}
	if apps := get[[]view.App](s, "GET", "/v1/apps", nil); len(apps) != 0 {
		t.Errorf("a setting made an app: %+v", apps)
	}
	s.stuck("hello", "no engine")
	if got := get[setting](s, "PUT", "/v1/settings/dev/hello/TYPO", value); got.Version == 0 || !strings.Contains(got.Warning, "does not declare TYPO under config") {
		t.Errorf("%+v", got)
	}
}
