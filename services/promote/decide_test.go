package promote

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
)

var update = flag.Bool("update", false, "write the goldens anew")

var app = foldtest.Definition(`
app: hello
service: {port: 8080}
config: [KEY]
environments: [{name: dev}, {name: prod}]
`)

// desk decides on a ledger in memory and carries out what is decided, in words.
type desk struct {
	*foldtest.Ledger
	fold    *fold.Fold
	policy  string
	missing map[events.Slug]bool
	rule    policy.Approval // of prod
	memory  map[events.Slug]*memory
	unfit   *UnfitError // what becomes of the next deploy; nil: it is healthy
	stopAt  func(Step) bool
}

// App is the app as everything makes it.
func (d *desk) App(app events.Slug) *fold.App {
	for _, r := range d.Records(d.fold.Seq()) {
		if err := d.fold.Apply(r); err != nil {
			panic(err)
		}
	}
	return d.fold.App(app)
}

func newDesk() *desk {
	d := &desk{
		Ledger: foldtest.New(), fold: fold.New(), missing: map[events.Slug]bool{}, memory: map[events.Slug]*memory{"dev": {}, "prod": {}},
		rule: policy.Approval{Count: 1, AuthorMayApprove: true}, stopAt: func(Step) bool { return false },
	}
	d.policy = d.Policy(1, "{}")
	return d
}

func (d *desk) facts(env events.Slug) Facts {
	a, m := d.App("hello"), d.memory[env]
	f := Facts{Epoch: 1, URL: "http://gateway", Gates: map[int]Gate{}, Restore: map[int]events.Pins{}, Switched: m.switched, Cleaned: m.cleaned}
	for _, n := range Candidates(a, env) {
		g := Gate{Pins: events.Pins{Config: map[string]uint64{"KEY": 1}}}
		if d.missing[env] {
			g.Missing = []settings.MissingKey{{Key: "KEY", Command: "towpath config set " + string(env) + " hello KEY=…"}}
		}
		if env == "prod" {
			g.Approval = d.rule
		}
		f.Gates[n] = g
	}
	return f
}

// settle decides and performs until nothing is left to do in an environment, and returns what was done.
func (d *desk) settle(env events.Slug) []string {
	var done []string
	for range 40 {
		if d.App("hello") == nil {
			return done
		}
		step := decide(d.App("hello"), env, d.facts(env))
		if step == nil {
			return done
		}
		if d.stopAt(step) {
			return append(done, "STOP")
		}
		done = append(done, d.perform(env, step))
	}
	return append(done, "…for ever")
}

func (d *desk) perform(env events.Slug, step Step) string {
	switch s := step.(type) {
	case Say:
		d.Write(s.Subject, s.Chain, s.Body)
		return words(s.Body)
	case Deploy:
		v := newView(d.App("hello"), env, Facts{Epoch: 1})
		if d.unfit != nil {
			say := v.judge(s.Slot, d.unfit)
			d.unfit = nil
			return fmt.Sprintf("deploy %d: %s", s.Slot.N, d.perform(env, say))
		}
		name := fmt.Sprintf("%s-%d", env, s.Slot.N)
		if s.From != nil {
			name = s.From.Instances[0].ID
		}
		return fmt.Sprintf("deploy %d on %s: %s", s.Slot.N, name, d.perform(env, v.live(s.Slot, []events.Instance{{ID: name}})))
	case Switch:
		d.memory[env].switched = s.Slot.N
		return fmt.Sprintf("switch to %d", s.Slot.N)
	case Clean:
		d.memory[env].cleaned = s.Then
		var keep []string
		for _, k := range s.Keep {
			keep = append(keep, fmt.Sprint(k.N))
		}
		return fmt.Sprintf("clean up to %d but %s", s.UpTo, strings.Join(keep, ","))
	}
	panic(step)
}

// words says what an event is in a few words.
func words(b events.Body) string {
	switch b := b.(type) {
	case *events.SlotTaken:
		return fmt.Sprintf("take %d %s run %d", b.Slot, b.Kind, b.Run)
	case *events.SlotDecided:
		return strings.TrimSpace(fmt.Sprintf("%s %d %s", b.Decision, b.Slot, b.Outcome))
	case *events.SlotClosed:
		return fmt.Sprintf("close %d %s", b.Slot, b.Closing)
	case *events.PipelineRunFinished:
		return fmt.Sprintf("finished %s %s", b.ID, b.Outcome)
	case *events.PipelineRunQueued:
		return fmt.Sprintf("%s waits: %s", b.ID, b.Waiting.Reason)
	case *events.PromotionDenied:
		return fmt.Sprintf("%s denied: %s", b.ID, b.Reason)
	case *events.PromotionRequested, *events.PromotionApproved, *events.StageReplayed:
		return b.SubjectID() + " " + b.Type().Predicate()
	}
	return b.Type().Subject() + " " + b.Type().Predicate()
}

// pass takes the newest run through an environment.
func (d *desk) pass(env events.Slug) {
	d.settle(env)
	s := d.App("hello").Env(env).Last()
	d.Verified("hello", s.Run, env, s.N, s.TrialAttempt, events.Success)
	d.settle(env)
}

func (d *desk) verified(o events.Outcome) {
	if s := d.App("hello").Env("dev").Last(); s != nil && s.Decision == events.Live && s.Trial == nil {
		d.Verified("hello", s.Run, "dev", s.N, s.TrialAttempt, o)
	}
}

// ready pushes, builds and vets the next run.
func (d *desk) ready() int {
	n := 1
	if a := d.App("hello"); a != nil {
		n = a.Runs.Len() + 1
	}
	d.PushNumber(app, d.policy, n)
	d.Built("hello", n, 1, foldtest.Digest(fmt.Sprint("run", n)))
	d.Vetted("hello", n, 1, foldtest.Digest(fmt.Sprint("run", n)), app.EnvironmentNames())
	return n
}

func (d *desk) command(verb string, env events.Slug) {
	a := d.App("hello")
	if a == nil {
		return
	}
	r := a.Newest()
	c := events.Command{Verb: verb, App: "hello", Run: r.N, Environment: env}
	if r.Artifact != nil {
		c.Digest = r.Artifact.Digest
	}
	switch verb {
	case events.VerbHold, events.VerbResume:
		c.Run, c.Environment = 0, ""
	case events.VerbRollback:
		c.Run = 0
	}
	d.Command(c)
}

// state is where an app can stand in dev, with run 1 verified there where the name says "second".
type state struct {
	name  string
	build func(d *desk)
}

func before[T Step](d *desk) {
	d.stopAt = func(s Step) bool { _, ok := s.(T); return ok }
}

var states = []state{
	{"nothing vetted", func(d *desk) { d.Push(app, d.policy) }},
	{"verdict fail", func(d *desk) {
		n := d.Push(app, d.policy)
		d.Built("hello", n, 1, foldtest.Digest("run1"))
		d.Vetted("hello", n, 1, foldtest.Digest("run1"), app.EnvironmentNames(), "dev")
	}},
	{"no verdict", func(d *desk) {
		n := d.Push(app, d.policy)
		d.Built("hello", n, 1, foldtest.Digest("run1"))
		d.Vetted("hello", n, 1, foldtest.Digest("run1"), nil)
	}},
	{"setting missing", func(d *desk) { d.missing["dev"] = true; d.ready(); d.settle("dev") }},
	{"held", func(d *desk) { d.ready(); d.command(events.VerbHold, ""); d.settle("dev") }},
	{"first taken", func(d *desk) { d.ready(); before[Deploy](d); d.settle("dev") }},
	{"first live", func(d *desk) { d.ready(); before[Switch](d); d.settle("dev") }},
	{"first verifying", func(d *desk) { d.ready(); d.settle("dev") }},
	{"first verified", func(d *desk) { d.ready(); d.pass("dev") }},
	{"first rejected", func(d *desk) { d.ready(); d.settle("dev"); d.verified(events.Failure); d.settle("dev") }},
	{"first unhealthy", func(d *desk) { d.ready(); d.unfit = &UnfitError{}; d.settle("dev") }},
	{"second taken", func(d *desk) { d.ready(); d.pass("dev"); d.ready(); before[Deploy](d); d.settle("dev") }},
	{"second live", func(d *desk) { d.ready(); d.pass("dev"); d.ready(); before[Switch](d); d.settle("dev") }},
	{"second verifying", func(d *desk) { d.ready(); d.pass("dev"); d.ready(); d.settle("dev") }},
	{"second stuck", func(d *desk) {
		d.ready()
		d.pass("dev")
		d.ready()
		d.settle("dev")
		d.verified(events.Error)
		d.settle("dev")
	}},
	{"second verified", func(d *desk) { d.ready(); d.pass("dev"); d.ready(); d.pass("dev") }},
	{"second unhealthy", func(d *desk) { d.ready(); d.pass("dev"); d.ready(); d.unfit = &UnfitError{}; d.settle("dev") }},
	{"second rejected, first coming back", func(d *desk) {
		d.ready()
		d.pass("dev")
		d.ready()
		d.settle("dev")
		d.verified(events.Failure)
		before[Deploy](d)
		d.settle("dev")
	}},
	{"second rejected, first back", func(d *desk) {
		d.ready()
		d.pass("dev")
		d.ready()
		d.settle("dev")
		d.verified(events.Failure)
		d.settle("dev")
		d.verified(events.Success)
		d.settle("dev")
	}},
	{"operator brought first back", func(d *desk) {
		d.ready()
		d.pass("dev")
		d.ready()
		d.pass("dev")
		d.command(events.VerbRollback, "dev")
		d.settle("dev")
		d.verified(events.Success)
		d.settle("dev")
	}},
	{"waits for approval in prod", func(d *desk) { d.ready(); d.pass("dev"); d.settle("prod") }},
	{"live in prod", func(d *desk) {
		d.ready()
		d.pass("dev")
		d.command(events.VerbApprove, "prod")
		d.settle("prod")
	}},
}

// happenings are what can happen next.
var happenings = []state{
	{"decided again", func(d *desk) {}},
	{"process restarted", func(d *desk) { d.memory["dev"], d.memory["prod"] = &memory{}, &memory{} }},
	{"verified", func(d *desk) { d.verified(events.Success) }},
	{"verification fails", func(d *desk) { d.verified(events.Failure) }},
	{"verification impossible", func(d *desk) { d.verified(events.Error) }},
	{"deploy unhealthy", func(d *desk) { d.unfit = &UnfitError{} }},
	{"setting set", func(d *desk) { d.missing["dev"] = false }},
	{"newer run", func(d *desk) { d.ready() }},
	{"cancel", func(d *desk) { d.command(events.VerbCancel, "") }},
	{"hold", func(d *desk) { d.command(events.VerbHold, "") }},
	{"hold, newer run", func(d *desk) { d.command(events.VerbHold, ""); d.ready() }},
	{"resume", func(d *desk) { d.command(events.VerbResume, "") }},
	{"approve prod", func(d *desk) { d.command(events.VerbApprove, "prod") }},
	{"deny prod", func(d *desk) { d.command(events.VerbDeny, "prod") }},
	{"promote to dev", func(d *desk) { d.command(events.VerbPromote, "dev") }},
	{"rollback dev", func(d *desk) { d.command(events.VerbRollback, "dev") }},
	{"replay promote dev", func(d *desk) { d.Replay("hello", d.App("hello").Runs.Len(), fold.StagePromote, "dev") }},
	{"replay verify dev", func(d *desk) { d.Replay("hello", d.App("hello").Runs.Len(), fold.StageVerify, "dev") }},
}

// TestEveryStateAndEvent holds what follows when anything happens at any point. The golden is read by
// people; a change of it is a change of what promote does.
func TestEveryStateAndEvent(t *testing.T) {
	var out bytes.Buffer
	for _, s := range states {
		fmt.Fprintf(&out, "== %s\n", s.name)
		for _, h := range happenings {
			d := newDesk()
			s.build(d)
			d.stopAt = func(Step) bool { return false }
			h.build(d)
			fmt.Fprintf(&out, "%s\n", h.name)
			for _, env := range []events.Slug{"dev", "prod"} {
				if done := d.settle(env); len(done) > 0 {
					fmt.Fprintf(&out, "    %s: %s\n", env, strings.Join(done, " > "))
				}
			}
		}
	}
	golden(t, "testdata/decisions.txt", out.Bytes())
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if bytes.Equal(got, want) {
		return
	}
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			t.Fatalf("%s:%d is %q, want %q (go test -update accepts it)", path, i+1, g[i], w[min(i, len(w)-1)])
		}
	}
	t.Fatalf("%s has %d more lines", path, len(w)-len(g))
}

// TestAnythingInAnyOrder: whatever happens, promote comes to rest, deciding again finds nothing to do, and
// what is live is what was vetted.
func TestAnythingInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDesk()
		d.ready()
		for range rapid.IntRange(1, 25).Draw(t, "length") {
			h := happenings[rapid.IntRange(0, len(happenings)-1).Draw(t, "what")]
			h.build(d)
			for _, env := range []events.Slug{"dev", "prod"} {
				if rapid.IntRange(0, 3).Draw(t, "late") == 0 {
					continue
				}
				if done := d.settle(env); len(done) >= 40 {
					t.Fatalf("after %q no rest: %q", h.name, done)
				}
				if done := d.settle(env); len(done) > 0 {
					t.Fatalf("after %q and rest: %q", h.name, done)
				}
			}
			d.check(t)
		}
	})
}

func (d *desk) check(t *rapid.T) {
	a := d.App("hello")
	for _, env := range a.Envs {
		for s := range env.Slots.All() {
			run := a.Run(s.Run)
			switch {
			case s.Decision != events.Live || s.Kind == events.KindRemove:
			case run.Artifact.Digest != s.Digest || run.Verdict.ArtifactID != s.ArtifactID:
				t.Fatalf("slot %d of %s holds %s, vetted was %s", s.N, env.Name, s.Digest, run.Artifact.Digest)
			case s.Kind == events.KindDeploy && s.Closing == events.Verified && s.Trial.Outcome != events.Success:
				t.Fatalf("slot %d of %s was closed as verified and its trial is %s", s.N, env.Name, s.Trial.Outcome)
			}
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, runs := range []int{10, 1000} {
		b.Run(fmt.Sprint(runs, " runs"), func(b *testing.B) {
			d := newDesk()
			for range runs {
				d.ready()
				d.pass("dev")
			}
			a := d.App("hello")
			facts := d.facts("dev")
			for b.Loop() {
				if decide(a, "dev", facts) != nil {
					b.Fatal("there is something to do")
				}
			}
		})
	}
}
