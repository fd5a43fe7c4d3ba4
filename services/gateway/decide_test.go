package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
	"towpath.dev/services/gateway/git"
)

const twoEnvironments = "app: hello\nenvironments: [{name: dev}, {name: prod}]\n"

// story is a ledger in memory on which orders are judged.
type story struct {
	*foldtest.Ledger
	policy string
}

func newStory() story {
	l := foldtest.New()
	return story{l, l.Policy(1, "{}")}
}

// take has a run take the next slot of an environment.
func (s story) take(run int, env events.Slug) (n int) {
	app := s.App("hello")
	n = app.Env(env).Slots.Len() + 1
	r := app.Run(run)
	taken := &events.SlotTaken{Slot: n, Run: run, Attempt: r.Env(env).Promote.Attempt, Digest: r.Artifact.Digest, ArtifactID: r.ArtifactID, Kind: events.KindDeploy, Environment: env}
	taken.ID = fmt.Sprintf("hello/%s/%d", env, n)
	s.Write(events.SlotSubject(1, taken.Type(), "hello", env, n), "", taken)
	return n
}

// deploy takes a run through an environment, to the closing that is given.
func (s story) deploy(run int, env events.Slug, closing events.Closing) {
	r, n := s.App("hello").Run(run), s.take(run, env)
	about := events.About{ID: fmt.Sprintf("hello/%s/%d", env, n)}
	decided := &events.SlotDecided{About: about, Slot: n, Decision: events.Live, Environment: env}
	s.Write(events.SlotSubject(1, decided.Type(), "hello", env, n), "", decided)
	if closing == "" {
		return
	}
	outcome := events.Success
	if closing == events.Rejected {
		outcome = events.Failure
	}
	s.Verified("hello", run, env, n, r.Env(env).Verify.Attempt, outcome)
	closed := &events.SlotClosed{About: about, Slot: n, Closing: closing, Environment: env}
	s.Write(events.SlotSubject(1, closed.Type(), "hello", env, n), "", closed)
}

func (s story) ended(run int, env events.Slug, outcome events.Outcome) {
	b := &events.PipelineRunFinished{About: events.About{ID: fmt.Sprintf("hello/%d/%s", run, env)}, Outcome: outcome}
	b.Result = events.Result{Environment: env, Attempt: s.App("hello").Run(run).Env(env).Promote.Attempt, Trouble: &events.Trouble{What: "deploying", Why: "no engine"}}
	s.Write(events.PromoteSubject(1, b.Type(), "hello", run, env, "", b.Result.Attempt), "", b)
}

func (s story) decide(o order, rule policy.Approval) (decision, *problem) {
	o.App = "hello"
	return s.decideBy(o, s.scope(rule))
}

func (s story) decideBy(o order, in scope) (decision, *problem) {
	o.App = "hello"
	return decide(o.completed(in.app, in.actor), in)
}

// scope is what eve's orders are judged by, where every policy asks for the same approvals.
func (s story) scope(rule policy.Approval) scope {
	return scope{
		app: s.App("hello"), held: s.Fold().Held(), actor: "eve", roles: []string{"approver"}, newest: s.Fold().CurrentPolicy().Digest,
		rule:    func(*fold.Run, events.Slug) policy.Approval { return rule },
		ruleBy:  func(string, *fold.Run, events.Slug) policy.Approval { return rule },
		maySkip: func(_ *fold.Run, env events.Slug) bool { return env == "dev" },
	}
}

// Every verb against the states that a run can be in.
func TestDecide(t *testing.T) {
	one := policy.Approval{Count: 1, AuthorMayApprove: true}
	states := map[string]func(story){
		"pushed": func(s story) { s.Push(foldtest.Definition(twoEnvironments), s.policy) },
		"ready":  func(s story) { s.Ready(foldtest.Definition(twoEnvironments), s.policy) },
		"in dev": func(s story) {
			s.Ready(foldtest.Definition(twoEnvironments), s.policy)
			s.deploy(1, "dev", events.Verified)
		},
		"live in dev": func(s story) {
			s.Ready(foldtest.Definition(twoEnvironments), s.policy)
			s.deploy(1, "dev", "")
		},
		"stuck in prod": func(s story) {
			s.Ready(foldtest.Definition(twoEnvironments), s.policy)
			s.deploy(1, "dev", events.Verified)
			s.ended(1, "prod", events.Error)
		},
		"under way in prod": func(s story) {
			s.Ready(foldtest.Definition(twoEnvironments), s.policy)
			s.deploy(1, "dev", events.Verified)
			s.take(1, "prod")
		},
		"failed in dev": func(s story) {
			s.Ready(foldtest.Definition(twoEnvironments), s.policy)
			s.deploy(1, "dev", events.Rejected)
		},
		"through": func(s story) {
			s.Ready(foldtest.Definition(twoEnvironments), s.policy)
			s.deploy(1, "dev", events.Verified)
			s.deploy(1, "prod", events.Verified)
		},
		"superseded": func(s story) {
			d := foldtest.Definition(twoEnvironments)
			s.Ready(d, s.policy)
			s.Ready(d, s.policy)
			s.deploy(2, "dev", events.Verified)
		},
		"cancelled": func(s story) {
			s.Ready(foldtest.Definition(twoEnvironments), s.policy)
			s.Command(events.Command{Verb: events.VerbCancel, App: "hello", Run: 1})
		},
		"two versions": func(s story) {
			d := foldtest.Definition(twoEnvironments)
			s.Ready(d, s.policy)
			s.deploy(1, "dev", events.Verified)
			s.Ready(d, s.policy)
			s.deploy(2, "dev", events.Verified)
		},
		"held": func(s story) {
			s.Push(foldtest.Definition(twoEnvironments), s.policy)
			s.Command(events.Command{Verb: events.VerbHold, App: "hello"})
		},
		"all held": func(s story) {
			s.Push(foldtest.Definition(twoEnvironments), s.policy)
			s.Command(events.Command{Verb: events.VerbHold})
		},
	}
	for _, c := range []struct {
		state string
		order order
		want  string // part of the text where it is followed; of the reason, after "no: ", where not
	}{
		{"pushed", order{Verb: "approve", Run: 1, Env: "prod"}, "no: it has no image yet"},
		{"ready", order{Verb: "approve", Run: 1, Env: "prod"}, "hello/1 is approved for prod (00"},
		{"ready", order{Verb: "approve", Run: 1}, "no: no environment is named"},
		{"ready", order{Verb: "approve", Run: 1, Env: "moon"}, "no: its pipeline has no such environment"},
		{"ready", order{Verb: "approve", Run: 2, Env: "prod"}, "no: there is no such run"},
		{"ready", order{Verb: "approve", Run: 1, Env: "prod", Digest: foldtest.Digest("x")}, "no: its image is"},
		{"ready", order{Verb: "approve", Run: 1, Env: "prod", Digest: foldtest.Digest("run1")}, "1 of 1"},
		{"stuck in prod", order{Verb: "approve", Run: 1, Env: "prod"}, "1 of 1"},
		{"live in dev", order{Verb: "approve", Run: 1, Env: "dev"}, "no: it is there already"},
		{"in dev", order{Verb: "approve", Run: 1, Env: "dev"}, "no: it is there already"},
		{"superseded", order{Verb: "approve", Run: 1, Env: "prod"}, "no: hello/1 is superseded"},
		{"cancelled", order{Verb: "approve", Run: 1, Env: "prod"}, "no: hello/1 is cancelled"},
		{"failed in dev", order{Verb: "approve", Run: 1, Env: "prod"}, "no: hello/1 is failed"},
		{"through", order{Verb: "approve", Run: 1, Env: "prod"}, "no: hello/1 is done"},
		{"ready", order{Verb: "deny", Run: 1, Env: "prod"}, "hello/1 is denied prod"},
		{"through", order{Verb: "deny", Run: 1, Env: "prod"}, "no: hello/1 is done"},

		{"pushed", order{Verb: "promote", Run: 1, Env: "dev"}, "no: it has no image yet"},
		{"ready", order{Verb: "promote", Run: 1, Env: "dev"}, "hello/1 goes to dev when its gates are open"},
		{"ready", order{Verb: "promote", Run: 1}, "no: no environment is named"},
		{"superseded", order{Verb: "promote", Run: 1, Env: "dev"}, "hello/1 goes to dev"},

		{"pushed", order{Verb: "cancel", Run: 1}, "hello/1 is cancelled"},
		{"stuck in prod", order{Verb: "cancel", Run: 1}, "hello/1 is cancelled"},
		{"cancelled", order{Verb: "cancel", Run: 1}, "no: it has ended: cancelled"},
		{"through", order{Verb: "cancel", Run: 1}, "no: it has ended: done"},

		{"pushed", order{Verb: "hold"}, "hello is held"},
		{"held", order{Verb: "hold"}, "no: it is held already"},
		{"all held", order{Verb: "hold"}, "hello is held"},
		{"held", order{Verb: "resume"}, "hello goes on"},
		{"pushed", order{Verb: "resume"}, "no: it is not held"},
		{"all held", order{Verb: "resume"}, "no: everything is held, not hello alone"},

		{"two versions", order{Verb: "rollback", Env: "dev"}, "hello/1 comes back to dev"},
		{"two versions", order{Verb: "rollback", Env: "dev", Run: 1}, "hello/1 comes back to dev"},
		{"two versions", order{Verb: "rollback", Env: "dev", Run: 7}, "no: hello/7 was never verified there"},
		{"two versions", order{Verb: "rollback", Env: "prod"}, "no: nothing has run there"},
		{"two versions", order{Verb: "rollback"}, "no: no environment is named"},
		{"in dev", order{Verb: "rollback", Env: "dev"}, "no: no other version was verified there"},

		{"stuck in prod", order{Verb: "replay", Run: 1}, "3 effects already done are kept, 2 will run, no rebuild"},
		{"stuck in prod", order{Verb: "replay", Run: 1, Stage: "promote", Env: "prod"}, "3 effects already done are kept, 2 will run, no rebuild"},
		{"stuck in prod", order{Verb: "replay", Run: 1, Stage: "build"}, "0 effects already done are kept, 2 will run, 1 more if the image differs, the image is built again only if its source changed"},
		{"stuck in prod", order{Verb: "replay", Run: 1, Stage: "build", Rebuild: true}, "the image is built again"},
		{"stuck in prod", order{Verb: "replay", Run: 1, Stage: "vet"}, "2 effects already done are kept, 1 will run"},
		{"failed in dev", order{Verb: "replay", Run: 1}, "2 effects already done are kept, 2 will run"},
		{"live in dev", order{Verb: "replay", Run: 1, Stage: "verify", Env: "dev"}, "no: it has not begun"},
		{"ready", order{Verb: "replay", Run: 1}, "no: no stage of it is stuck or failed: it is running"},
		{"stuck in prod", order{Verb: "replay", Run: 1, Attempt: 2}, "2 will run, no rebuild"},
		{"stuck in prod", order{Verb: "replay", Run: 1, Attempt: 1}, "no: attempt 1 of it is there by now"},
		{"under way in prod", order{Verb: "replay", Run: 1, Stage: "promote", Env: "prod"}, "1 attempt under way will be fenced off"},
		{"under way in prod", order{Verb: "approve", Run: 1, Env: "prod"}, "1 of 1"},
		{"under way in prod", order{Verb: "deny", Run: 1, Env: "prod"}, "hello/1 is denied prod"},
		{"ready", order{Verb: "replay", Run: 1, Stage: "promote", Env: "dev"}, "no: it has not begun"},
		{"ready", order{Verb: "replay", Run: 1, Stage: "promote"}, "no: no environment is named, and it has stopped in none"},
		{"superseded", order{Verb: "replay", Run: 1, Stage: "build"}, "no: hello/2 took its place"},
		{"two versions", order{Verb: "replay", Run: 1, Stage: "promote", Env: "dev"}, "no: hello/2 runs there by now"},
		{"two versions", order{Verb: "replay", Run: 2, Stage: "promote", Env: "dev"}, "2 effects already done are kept, 2 will run"},
	} {
		t.Run(c.state+" "+c.order.Verb, func(t *testing.T) {
			s := newStory()
			states[c.state](s)
			d, why := s.decide(c.order, one)
			want, no := strings.CutPrefix(c.want, "no: ")
			switch {
			case no && (why == nil || !strings.Contains(why.Why, want) || why.Status < 400 || why.Code == ""):
				t.Errorf("got %+v %+v, want refusal with %q", d, why, want)
			case !no && (why != nil || !strings.Contains(d.text, want)):
				t.Errorf("got %+v %v, want %q", d, why, want)
			case !no && d.replay == nil && (d.command.Actor != "eve" || d.command.Verb != c.order.Verb || d.command.App != "hello"):
				t.Errorf("command %+v", d.command)
			}
		})
	}
}

// What a rollback changes of an app's settings: of one that finds them itself, nothing, whatever it was pinned to.
func TestRollbackPreview(t *testing.T) {
	slot := func(n int, config, secret uint64) *fold.Slot {
		return &fold.Slot{N: n, SlotTaken: events.SlotTaken{Run: n, Pins: events.Pins{
			Config: map[string]uint64{"KEY": config}, Secrets: map[string]uint64{"PASSWORD": secret},
		}}}
	}
	live, before := slot(2, 7, 3), slot(1, 4, 1)
	for name, c := range map[string]struct {
		found    map[settings.Kind]bool
		settings []string
		kept     []string
	}{
		"handed": {nil, []string{"KEY"}, []string{"secret PASSWORD as it is now, version 3"}},
		"configuration found": {
			map[settings.Kind]bool{settings.Config: true}, nil,
			[]string{"configuration as Consul has it now: hello reads it there itself in dev (discover: true)", "secret PASSWORD as it is now"},
		},
		"all found": {
			map[settings.Kind]bool{settings.Config: true, settings.Secrets: true}, nil,
			[]string{"configuration as Consul has it now", "secrets as Vault has them now"},
		},
	} {
		in := scope{then: &then{secrets: map[string]uint64{"PASSWORD": 3}, found: c.found}}
		p := in.foreseeRollback(order{App: "hello", Env: "dev"}, live, before, before)
		var keys []string
		for _, change := range p.Settings {
			keys = append(keys, change.Key)
		}
		if !slices.Equal(keys, c.settings) || len(p.Kept) != len(c.kept) {
			t.Fatalf("%s: changes %q, keeps %q", name, keys, p.Kept)
		}
		for i, want := range c.kept {
			if !strings.HasPrefix(p.Kept[i], want) {
				t.Errorf("%s: keeps %q, want %q", name, p.Kept[i], want)
			}
		}
	}
}

func TestDecideBinds(t *testing.T) {
	s := newStory()
	d := foldtest.Definition(twoEnvironments)
	s.Ready(d, s.policy)
	s.deploy(1, "dev", events.Verified)
	s.Ready(d, s.policy)
	s.deploy(2, "dev", events.Verified)
	back, why := s.decide(order{Verb: "rollback", Env: "dev"}, policy.Approval{})
	if why != nil || back.command.Slot != 1 || back.command.Run != 1 || back.command.Digest != foldtest.Digest("run1") {
		t.Errorf("rollback binds %+v (%v)", back.command, why)
	}
	yes, why := s.decide(order{Verb: "approve", Run: 2, Env: "prod"}, policy.Approval{Count: 2, AuthorMayApprove: true})
	if why != nil || yes.command.Digest != foldtest.Digest("run2") || !strings.HasSuffix(yes.text, "1 of 2") {
		t.Errorf("approval binds %+v (%v)", yes, why)
	}
	_, why = s.decide(order{Verb: "approve", Run: 2, Env: "prod"}, policy.Approval{})
	if why == nil || !strings.Contains(why.Why, "asks for no approval") {
		t.Errorf("an approval that nobody asks for: %v", why)
	}
	app := s.App("hello")
	_, why = decide(order{Verb: "approve", App: "hello", Run: 2, Env: "prod"}, scope{
		app: app, actor: "ann", rule: func(*fold.Run, events.Slug) policy.Approval { return policy.Approval{Count: 1} },
	})
	if why == nil || why.Status != 403 || !strings.Contains(why.Why, "you wrote part of this change") {
		t.Errorf("the author approved: %v", why)
	}
	_, why = decide(order{Verb: "approve", App: "hello", Run: 2, Env: "prod"}, scope{
		app: app, actor: "eve", roles: []string{"developer"},
		rule: func(*fold.Run, events.Slug) policy.Approval {
			return policy.Approval{Count: 1, Approvers: []string{"release-manager"}}
		},
	})
	if why == nil || why.Status != 403 || !strings.Contains(why.Why, "release-manager") {
		t.Errorf("somebody without the role approved: %v", why)
	}
	replay, why := s.decide(order{Verb: "replay", Run: 2, Stage: "vet", Env: "dev"}, policy.Approval{})
	if why != nil || replay.replay.Environment != "" {
		t.Errorf("vetting is of no environment: %+v (%v)", replay.replay, why)
	}
	all, why := decide(order{Verb: "hold"}, scope{actor: "eve"})
	if why != nil || !strings.HasPrefix(all.text, "everything is held") || all.command.App != "" {
		t.Errorf("hold %+v (%v)", all, why)
	}
	if _, why := decide(order{Verb: "resume"}, scope{actor: "eve"}); why == nil {
		t.Error("everything goes on although nothing is held")
	}
}

func TestJudgePush(t *testing.T) {
	zero, sha := git.Commit(strings.Repeat("0", 40)), git.Commit(strings.Repeat("a", 40))
	good := foldtest.Definition(twoEnvironments)
	known := &fold.App{Name: "hello", Branch: "main"}
	bring := func(ref string) found {
		return found{update: git.Update{Ref: ref, Old: zero, New: sha}, definition: good}
	}
	missing := func(ref string) found {
		return found{update: git.Update{Ref: ref, Old: zero, New: sha}, missing: true}
	}
	gone := func(ref string) found { return found{update: git.Update{Ref: ref, Old: sha, New: zero}} }
	for _, c := range []struct {
		name    string
		known   *fold.App
		updates []found
		want    string
	}{
		{"first", nil, []found{bring("refs/heads/main")}, ""},
		{"first with a tag", nil, []found{bring("refs/heads/main"), gone("refs/tags/v0"), bring("refs/tags/v1")}, ""},
		{"first, a branch without", nil, []found{missing("refs/heads/main")}, "missing at the root of main"},
		{"first, one branch with, one without", nil, []found{missing("refs/heads/topic"), bring("refs/heads/main")}, ""},
		{"first, tags only", nil, []found{bring("refs/tags/v1")}, "missing at the root of any branch"},
		{"known, another branch without", known, []found{missing("refs/heads/topic")}, ""},
		{"known, its branch without", known, []found{missing("refs/heads/main")}, "missing at the root of main"},
		{"known, deleting another", known, []found{gone("refs/heads/topic")}, ""},
		{"known, deleting its own", known, []found{gone("refs/heads/main")}, "cannot be deleted"},
		{"another namespace", known, []found{bring("refs/pull/1/head")}, "neither a branch nor a tag"},
		{"faults", known, []found{{update: git.Update{Ref: "refs/heads/x", New: sha}, fault: fmt.Errorf("towpath.yaml:1: a\ntowpath.yaml:2: b")}}, "towpath.yaml:2: b"},
		{"another app", &fold.App{Name: "other", Branch: "main"}, []found{bring("refs/heads/main")}, "app: must be other"},
	} {
		app := events.Slug("hello")
		if c.known != nil {
			app = c.known.Name
		}
		why := strings.Join(judgePush(app, c.known, c.updates), "\n")
		if c.want == "" && why != "" || !strings.Contains(why, c.want) {
			t.Errorf("%s: %q, want %q", c.name, why, c.want)
		}
	}
}
