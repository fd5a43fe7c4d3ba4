package promote

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/policy"
)

// approve sends an approval of run 1 for prod.
func (d *desk) approve(actor, digest string) {
	d.Command(events.Command{Verb: events.VerbApprove, App: "hello", Run: 1, Environment: "prod", Actor: actor, Digest: digest})
}

// deny sends a denial of run 1 for prod.
func (d *desk) deny(actor, digest, reason string) {
	d.Command(events.Command{Verb: events.VerbDeny, App: "hello", Run: 1, Environment: "prod", Actor: actor, Digest: digest, Reason: reason})
}

func TestApprovals(t *testing.T) {
	digest := foldtest.Digest("run1")
	for name, c := range map[string]struct {
		rule policy.Approval
		act  func(d *desk)
		want string // what is said last
	}{
		"none wanted":  {policy.Approval{}, func(*desk) {}, "service deployed"},
		"none given":   {policy.Approval{Count: 1}, func(*desk) {}, "hello/1/prod waits: 0 of 1 approvals given"},
		"one of two":   {policy.Approval{Count: 2}, func(d *desk) { d.approve("bob", digest) }, "hello/1/prod waits: 1 of 2 approvals given"},
		"two of two":   {policy.Approval{Count: 2}, func(d *desk) { d.approve("bob", digest); d.approve("eve", digest) }, "service deployed"},
		"twice by one": {policy.Approval{Count: 2}, func(d *desk) { d.approve("bob", digest); d.approve("bob", digest) }, "hello/1/prod waits: 1 of 2 approvals given"},
		"another digest": {policy.Approval{Count: 1}, func(d *desk) { d.approve("bob", foldtest.Digest("run2")) },
			"hello/1/prod waits: 0 of 1 approvals given; that of bob does not count: it is for another digest"},
		"no digest": {policy.Approval{Count: 1}, func(d *desk) { d.approve("bob", "") },
			"hello/1/prod waits: 0 of 1 approvals given; that of bob does not count: it is for another digest"},
		"the author": {policy.Approval{Count: 1}, func(d *desk) { d.approve("ann", digest) },
			"hello/1/prod waits: 0 of 1 approvals given; that of ann does not count: the policy wants somebody who did not write or push the change"},
		"the author, who may":    {policy.Approval{Count: 1, AuthorMayApprove: true}, func(d *desk) { d.approve("ann", digest) }, "service deployed"},
		"the author and another": {policy.Approval{Count: 1}, func(d *desk) { d.approve("ann", digest); d.approve("bob", digest) }, "service deployed"},
		"denied": {policy.Approval{Count: 1}, func(d *desk) {
			d.approve("bob", digest)
			d.deny("eve", digest, "not on a Friday")
		}, "hello/1/prod denied: not on a Friday"},
		"another digest is denied": {policy.Approval{Count: 1}, func(d *desk) {
			d.approve("bob", digest)
			d.deny("eve", foldtest.Digest("run2"), "")
		}, "service deployed"},
		"approved, denied, then replayed": {policy.Approval{Count: 1}, func(d *desk) {
			d.approve("bob", digest)
			d.deny("eve", digest, "not on a Friday")
			d.settle("prod")
			d.Replay("hello", 1, "promote", "prod")
		}, "hello/1/prod denied: not on a Friday"},
		"denied, then vetted again": {policy.Approval{Count: 1}, func(d *desk) {
			d.approve("bob", digest)
			d.deny("eve", digest, "not on a Friday")
			d.settle("prod")
			d.Replay("hello", 1, "vet", "")
			d.Vetted("hello", 1, 2, digest, app.EnvironmentNames())
		}, "hello/1/prod denied: not on a Friday"},
		"approved by a denied run's denier": {policy.Approval{Count: 1}, func(d *desk) {
			d.deny("eve", digest, "not on a Friday")
			d.settle("prod")
			d.approve("eve", digest)
		}, "service deployed"},
		"approved after another's denial": {policy.Approval{Count: 1}, func(d *desk) {
			d.deny("eve", digest, "not on a Friday")
			d.settle("prod")
			d.approve("bob", digest)
			d.Replay("hello", 1, "promote", "prod")
		}, "hello/1/prod denied: not on a Friday"},
		"the author denies and takes it back": {policy.Approval{Count: 1}, func(d *desk) {
			d.deny("ann", digest, "not on a Friday")
			d.settle("prod")
			d.approve("ann", digest)
		}, "hello/1/prod waits: 0 of 1 approvals given; that of ann does not count: the policy wants somebody who did not write or push the change"},
		"approved, then the image is another": {policy.Approval{Count: 1}, func(d *desk) {
			d.approve("bob", digest)
			d.Replay("hello", 1, "build", "")
			d.Built("hello", 1, 2, foldtest.Digest("other"))
			d.Vetted("hello", 1, 2, foldtest.Digest("other"), app.EnvironmentNames())
			d.pass("dev")
		}, "hello/1/prod waits: 0 of 1 approvals given; that of bob does not count: it is for another digest"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk()
			d.rule = c.rule
			d.ready()
			d.pass("dev")
			c.act(d)
			done := d.settle("prod")
			if len(done) == 0 || done[len(done)-1] != c.want {
				t.Errorf("done: %q, want at last %q", done, c.want)
			}
		})
	}
}

// An actor's last word counts, and only that is recorded.
func TestApprovedDeniedAndApprovedAgain(t *testing.T) {
	digest := foldtest.Digest("run1")
	d := newDesk()
	d.rule = policy.Approval{Count: 1}
	d.ready()
	d.pass("dev")
	d.approve("eve", digest)
	d.deny("eve", digest, "wait")
	d.approve("eve", digest)
	done := strings.Join(d.settle("prod"), " > ")
	if want := "hello/1/prod approved > take 1"; !strings.HasPrefix(done, want) || strings.Contains(done, "denied") {
		t.Errorf("done: %s", done)
	}
}

// A denial stops a deployment up to its commit point.
func TestDeniedWhileItIsBroughtUp(t *testing.T) {
	digest := foldtest.Digest("run1")
	d := newDesk()
	d.rule = policy.Approval{Count: 1}
	d.ready()
	d.pass("dev")
	d.approve("bob", digest)
	before[Deploy](d)
	d.settle("prod")
	d.deny("eve", digest, "not on a Friday")
	d.stopAt = func(Step) bool { return false }
	done := strings.Join(d.settle("prod"), " > ")
	if want := "abandoned 1 cancel > hello/1/prod denied: not on a Friday > finished hello/1/prod cancel"; !strings.HasPrefix(done, want) {
		t.Errorf("done: %s, want it to begin with %s", done, want)
	}
	run := d.App("hello").Run(1)
	if run.Status() != fold.Refused || run.Env("prod").Promote.Status != fold.Refused {
		t.Errorf("the run is %s, its promotion %s", run.Status(), run.Env("prod").Promote.Status)
	}
	d.approve("eve", digest)
	if done := d.settle("prod"); len(done) == 0 || done[len(done)-1] != "service deployed" {
		t.Errorf("the denial was taken back, and then: %q", done)
	}
	d.deny("eve", digest, "too late")
	if done := d.settle("prod"); len(done) != 0 {
		t.Errorf("a denial of what is live: %q", done)
	}
}

func TestApprovalBindsDigestEnvironmentAndPolicy(t *testing.T) {
	d := newDesk()
	d.ready()
	d.pass("dev")
	d.approve("bob", foldtest.Digest("run1"))
	d.settle("prod")
	got := d.App("hello").Run(1).Env("prod").Approvals
	want := []events.Promotion{{
		ArtifactID: foldtest.ArtifactID("hello", foldtest.Digest("run1")), Environment: "prod", Policy: d.policy,
		Requestor: "ann", Responder: "bob", Decision: "approved", Wanted: 1,
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("approvals %+v, want %+v", got, want)
	}
}

// A reason is said again when it comes back after another.
func TestReasonsForWaiting(t *testing.T) {
	d := newDesk()
	d.missing["dev"] = true
	d.ready()
	said := d.settle("dev")
	d.missing["dev"] = false
	d.Command(events.Command{Verb: events.VerbHold, App: "hello", Reason: "drill"})
	said = append(said, d.settle("dev")...)
	d.missing["dev"] = true
	said = append(said, d.settle("dev")...)
	want := []string{
		"hello/1/dev waits: KEY has no value in dev", "hello/1/dev waits: held by bob: drill", "hello/1/dev waits: KEY has no value in dev",
	}
	if !reflect.DeepEqual(said, want) {
		t.Errorf("said %q", said)
	}
	w := d.App("hello").Run(1).Env("dev").Waiting
	if w.For != "an operator" || w.Command != "towpath config set dev hello KEY=…" || w.Attempt != 1 {
		t.Errorf("waiting %+v", w)
	}
}

func TestUnknownPolicyWaitsVisibly(t *testing.T) {
	d := newDesk()
	d.ready()
	facts := d.facts("dev")
	facts.Gates[1] = Gate{Fault: "the policy is not in the ledger"}
	say, ok := decide(d.App("hello"), "dev", facts).(Say)
	if !ok || words(say.Body) != "hello/1/dev waits: the policy is not in the ledger" {
		t.Errorf("%+v", say)
	}
}

func TestWhoActs(t *testing.T) {
	unhealthy := &UnfitError{Blame: BlameVersion, Trouble: events.Trouble{What: "starting", Why: "it exits", Do: "?"}}
	release := &UnfitError{Blame: BlameRelease, Trouble: events.Trouble{What: "running the release command"}}
	pinned := &UnfitError{Blame: BlameSettings, Trouble: events.Trouble{What: "reading the settings"}}
	for name, c := range map[string]struct {
		env   events.Slug
		unfit *UnfitError
		want  events.Outcome
		do    []string
	}{
		"unhealthy in the first":   {"dev", unhealthy, events.Failure, []string{"fix and push"}},
		"unhealthy in a later":     {"prod", unhealthy, events.Error, []string{"towpath config set prod hello KEY=…", "towpath replay hello/1 promote --env prod"}},
		"release fails":            {"dev", release, events.Error, []string{"towpath replay hello/1 promote --env dev"}},
		"release fails in a later": {"prod", release, events.Error, []string{"towpath replay hello/1 promote --env prod"}},
		"settings gone":            {"dev", pinned, events.Error, []string{"towpath config set dev hello", "towpath replay hello/1 promote --env dev"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk()
			d.ready()
			d.rule = policy.Approval{}
			if c.env == "prod" {
				d.pass("dev")
			}
			d.unfit = c.unfit
			d.settle(c.env)
			s := d.App("hello").Env(c.env).Last()
			if s.Decision != events.Abandoned || s.Outcome != c.want {
				t.Fatalf("slot is %s %s", s.Decision, s.Outcome)
			}
			for _, do := range c.do {
				if !strings.Contains(s.Trouble.Do, do) {
					t.Errorf("do %q, want %q in it", s.Trouble.Do, do)
				}
			}
			e := d.App("hello").Run(1).Env(c.env)
			if e.Promote.Outcome != c.want || e.Promote.Trouble.Do != s.Trouble.Do || !e.Concluded {
				t.Errorf("the stage ended as %s: %+v", e.Promote.Outcome, e.Promote.Trouble)
			}
		})
	}
}

func TestGivingUp(t *testing.T) {
	d := newDesk()
	d.ready()
	before[Deploy](d)
	d.settle("dev")
	v := newView(d.App("hello"), "dev", Facts{Epoch: 1})
	d.perform("dev", v.giveUpOn(v.env.Last(), errors.New("the engine does not answer"), 12))
	d.stopAt = func(Step) bool { return false }
	if done := strings.Join(d.settle("dev"), " > "); done != "finished hello/1/dev error > clean up to 1 but " {
		t.Errorf("done: %s", done)
	}
	trouble := d.App("hello").Run(1).Env("dev").Promote.Trouble
	if trouble.Tries != 12 {
		t.Errorf("tried %d times", trouble.Tries)
	}
	if trouble.Why != "the engine does not answer" || !strings.Contains(trouble.Do, "towpath replay hello/1 promote --env dev") {
		t.Errorf("trouble %+v", trouble)
	}
}

func TestRestoreOfANamedRun(t *testing.T) {
	d := newDesk()
	for range 3 {
		d.ready()
		d.pass("dev")
	}
	rollback := func(run, slot int) string {
		d.Command(events.Command{Verb: events.VerbRollback, App: "hello", Environment: "dev", Run: run, Slot: slot})
		done := strings.Join(d.settle("dev"), " > ")
		d.verified(events.Success)
		d.settle("dev")
		return done
	}
	for _, c := range []struct {
		run, slot int
		want      string
	}{
		{1, 0, "take 4 restore run 1 > deploy 4"},
		{0, 3, "take 5 restore run 3 > deploy 5"},
		{0, 0, "take 6 restore run 2 > deploy 6"},
		{0, 0, "take 7 restore run 1 > deploy 7"},
		{0, 0, "take 8 restore run 0 > abandoned 8 cancel"},
		{9, 0, "take 9 restore run 0 > abandoned 9 cancel"},
		{0, 8, "take 10 restore run 0 > abandoned 10 cancel"},
		{0, 5, "take 11 restore run 3 > deploy 11"}, // a slot that was itself brought back
	} {
		if got := rollback(c.run, c.slot); !strings.HasPrefix(got, c.want) {
			t.Errorf("rollback to run %d, slot %d: %s, want %s", c.run, c.slot, got, c.want)
		}
	}
}

// What was brought back stays until somebody lets a run in and that run is verified.
func TestPinLastsUntilARunIsVerified(t *testing.T) {
	d := newDesk()
	d.ready()
	d.pass("dev")
	d.ready()
	d.pass("dev")
	d.command(events.VerbRollback, "dev")
	d.settle("dev")
	d.verified(events.Success)
	d.settle("dev")

	d.ready() // 3 is let in and fails
	d.command(events.VerbPromote, "dev")
	d.settle("dev")
	d.verified(events.Failure)
	d.settle("dev")
	d.verified(events.Success)
	d.settle("dev")
	if live := d.App("hello").Env("dev").Live(); live.Run != 1 || live.Kind != events.KindRollback {
		t.Fatalf("live is %+v", live)
	}
	d.ready() // 4 waits
	if done := strings.Join(d.settle("dev"), " > "); done != "hello/4/dev waits: an operator brought hello/1 back to dev" {
		t.Errorf("done: %s", done)
	}
	d.approveIn("dev", 4) // until somebody approves it
	d.pass("dev")
	d.ready()
	if done := d.settle("dev"); len(done) == 0 || done[0] != "take 7 deploy run 5" {
		t.Errorf("5 does not follow by itself: %q", done)
	}
}

func (d *desk) approveIn(env events.Slug, run int) {
	d.Command(events.Command{
		Verb: events.VerbApprove, App: "hello", Run: run, Environment: env, Digest: foldtest.Digest(fmt.Sprint("run", run)),
	})
}

func TestEnvironments(t *testing.T) {
	d := newDesk()
	d.PushNumber(foldtest.Definition("app: hello\nservice: {port: 1}\nenvironments: [{name: dev}, {name: old}]\n"), d.policy, 1)
	d.PushNumber(foldtest.Definition("app: hello\nservice: {port: 1}\nenvironments: [{name: qa}, {name: dev}]\n"), d.policy, 2)
	d.Command(events.Command{Verb: events.VerbRollback, App: "hello", Environment: "gone"})
	if got := fmt.Sprint(Environments(d.App("hello"))); got != "[qa dev old gone]" {
		t.Errorf("environments %s", got)
	}
}

func TestStepErrors(t *testing.T) {
	one, two := &StepError{Err: errors.New("a")}, &StepError{Err: errors.New("b")}
	for _, err := range []error{errors.Join(one, errors.New("x"), two), errors.Join(errors.Join(one), fmt.Errorf("wrapped: %w", two))} {
		if got := stepErrors(err); !reflect.DeepEqual(got, []*StepError{one, two}) {
			t.Errorf("%v: found %v", err, got)
		}
	}
	if got := stepErrors(errors.New("x")); got != nil {
		t.Errorf("found %v", got)
	}
}

func TestTurns(t *testing.T) {
	turns, at := newTurns(), Place{"hello", "dev"}
	mem, ok := turns.begin(at)
	if !ok {
		t.Fatal("the first does not get the turn")
	}
	mem.switched = 7
	if _, ok := turns.begin(at); ok {
		t.Fatal("two have the turn")
	}
	if _, ok := turns.begin(Place{"hello", "prod"}); !ok {
		t.Fatal("another place is taken as well")
	}
	if !turns.end(at) {
		t.Error("nobody looks again although somebody came")
	}
	if turns.end(at) {
		t.Error("looks again although nobody came")
	}
	if mem, ok := turns.begin(at); !ok || mem.switched != 7 {
		t.Errorf("forgot: %+v %v", mem, ok)
	}
}
