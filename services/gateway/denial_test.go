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
	"towpath.dev/services/gateway/view"
)

// answer has somebody answer for run 1 in prod.
func (s story) answer(verb, actor, reason string) {
	s.Command(events.Command{Verb: verb, App: "hello", Run: 1, Environment: "prod", Actor: actor, Digest: s.App("hello").Run(1).Artifact.Digest, Reason: reason})
}

// refuse is what promote writes of a denial of run 1 for prod; of a verdict, where nobody denied it.
func (s story) refuse(responder, reason string) {
	b := &events.PromotionDenied{Promotion: events.Promotion{Environment: "prod", Responder: responder, Reason: reason}}
	b.ID = "hello/1/prod"
	s.Write(events.PromoteSubject(1, b.Type(), "hello", 1, "prod", "no", s.App("hello").Run(1).Env("prod").Promote.Attempt), "", b)
}

// An approver's denial stands until they take it back, whoever asks for another attempt.
func TestADenialStands(t *testing.T) {
	one := policy.Approval{Count: 1}
	denied := func(s story) {
		s.Ready(foldtest.Definition(twoEnvironments), s.policy)
		s.deploy(1, "dev", events.Verified)
		s.answer(events.VerbApprove, "adam", "")
		s.answer(events.VerbDeny, "eve", "not on a Friday")
		s.refuse("eve", "not on a Friday")
	}
	byVerdict := func(s story) {
		s.Ready(foldtest.Definition(twoEnvironments), s.policy)
		s.deploy(1, "dev", events.Verified)
		s.refuse("", "the verdict is fail")
	}
	byAuthor := func(s story) {
		s.Ready(foldtest.Definition(twoEnvironments), s.policy)
		s.deploy(1, "dev", events.Verified)
		s.answer(events.VerbDeny, "ann", "")
		s.refuse("ann", "")
	}
	for name, c := range map[string]struct {
		before func(story)
		actor  string
		rule   policy.Approval
		order  order
		want   string // part of the text; of the refusal, after "no: "
	}{
		"another replays":                 {denied, "otto", one, order{Verb: "replay", Run: 1, Stage: "promote", Env: "prod"}, "no: denied by eve: not on a Friday; eve takes that back with towpath approve hello/1 --env prod"},
		"another replays what stopped":    {denied, "otto", one, order{Verb: "replay", Run: 1}, "no: denied by eve: not on a Friday"},
		"another promotes":                {denied, "otto", one, order{Verb: "promote", Run: 1, Env: "prod"}, "no: denied by eve: not on a Friday"},
		"another approves":                {denied, "adam", one, order{Verb: "approve", Run: 1, Env: "prod"}, "no: denied by eve: not on a Friday"},
		"another denies as well":          {denied, "adam", one, order{Verb: "deny", Run: 1, Env: "prod"}, "hello/1 is denied prod"},
		"denied again":                    {denied, "eve", one, order{Verb: "deny", Run: 1, Env: "prod"}, "no: you have denied it already"},
		"taken back":                      {denied, "eve", one, order{Verb: "approve", Run: 1, Env: "prod"}, "2 of 1; your denial is taken back"},
		"taken back, no environment":      {denied, "eve", one, order{Verb: "approve", Run: 1}, "2 of 1; your denial is taken back"},
		"taken back, no approvals wanted": {denied, "eve", policy.Approval{}, order{Verb: "approve", Run: 1, Env: "prod"}, "the denial of hello/1 for prod is taken back"},
		"taken back by the author":        {byAuthor, "ann", one, order{Verb: "approve", Run: 1, Env: "prod"}, "the denial of hello/1 for prod is taken back"},
		"taken back without the role":     {denied, "eve", policy.Approval{Count: 1, Approvers: []string{"release-manager"}}, order{Verb: "approve", Run: 1, Env: "prod"}, "no: an approver here is release-manager"},
		"overruled":                       {denied, "adam", one, order{Verb: "approve", Run: 1, Env: "prod", Overrule: true, Reason: "eve has left"}, "1 of 1; 1 denial of eve overruled"},
		"overruled, no approvals wanted":  {denied, "adam", policy.Approval{}, order{Verb: "approve", Run: 1, Env: "prod", Overrule: true, Reason: "eve has left"}, "1 denial of eve overruled"},
		"overruled without the role":      {denied, "adam", policy.Approval{Count: 1, Approvers: []string{"release-manager"}}, order{Verb: "approve", Run: 1, Env: "prod", Overrule: true, Reason: "eve has left"}, "no: an approver here is release-manager"},
		"overruled by the author":         {denied, "ann", one, order{Verb: "approve", Run: 1, Env: "prod", Overrule: true, Reason: "eve has left"}, "no: you wrote part of this change"},
		"overruled, and she still may":    {denied, "may", one, order{Verb: "approve", Run: 1, Env: "prod", Overrule: true, Reason: "I know better"}, "no: denied by eve: not on a Friday; eve takes that back"},
		"nothing to overrule":             {byVerdict, "adam", one, order{Verb: "approve", Run: 1, Env: "prod", Overrule: true, Reason: "eve has left"}, "no: "},
		"the verdict refused it":          {byVerdict, "eve", one, order{Verb: "approve", Run: 1, Env: "prod"}, "no: hello/1 is refused"},
		"vetted again":                    {denied, "otto", one, order{Verb: "replay", Run: 1, Stage: "vet"}, "1 will run"},
		"gone on before the refusal": {func(s story) {
			denied(s)
			s.answer(events.VerbApprove, "eve", "")
		}, "eve", one, order{Verb: "replay", Run: 1, Stage: "promote", Env: "prod"}, "no: it has not begun"},
		"a refusal that came after the denial was taken back": {func(s story) {
			s.Ready(foldtest.Definition(twoEnvironments), s.policy)
			s.deploy(1, "dev", events.Verified)
			s.answer(events.VerbDeny, "eve", "")
			s.answer(events.VerbApprove, "eve", "")
			s.refuse("eve", "")
		}, "eve", one, order{Verb: "approve", Run: 1, Env: "prod"}, "is approved for prod"},
		"a deployment that stands is verified again": {func(s story) {
			s.Ready(foldtest.Definition(twoEnvironments), s.policy)
			s.deploy(1, "dev", events.Verified)
			s.deploy(1, "prod", "")
			s.answer(events.VerbDeny, "eve", "too late")
			s.Verified("hello", 1, "prod", 1, 1, events.Error)
		}, "otto", one, order{Verb: "replay", Run: 1, Stage: "verify", Env: "prod"}, "1 will run, no rebuild"},
		"cancelled, and approved before": {func(s story) {
			s.Ready(foldtest.Definition(twoEnvironments), s.policy)
			s.answer(events.VerbApprove, "eve", "")
			s.Command(events.Command{Verb: events.VerbCancel, App: "hello", Run: 1})
		}, "eve", one, order{Verb: "approve", Run: 1, Env: "prod"}, "no: hello/1 is cancelled"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory()
			c.before(s)
			in := s.scope(c.rule)
			in.actor = c.actor
			in.takesBack = map[string]bool{"eve": c.actor == "may"}
			d, why := s.decideBy(c.order, in)
			got := d.text
			if why != nil {
				got = "no: " + why.Why + "; " + why.Do
			}
			no, want := strings.HasPrefix(c.want, "no: "), strings.TrimPrefix(c.want, "no: ")
			if no != (why != nil) || !strings.Contains(got, want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// What was overruled goes on by itself as well, and says who did that over whom. A later denial stands again.
func TestADenialIsOverruled(t *testing.T) {
	s := newStory()
	s.Ready(foldtest.Definition(twoEnvironments), s.policy)
	s.deploy(1, "dev", events.Verified)
	s.answer(events.VerbDeny, "eve", "not on a Friday")
	s.refuse("eve", "not on a Friday")
	in := s.scope(policy.Approval{Count: 1})
	in.actor = "adam"
	d, why := s.decideBy(order{Verb: "approve", Run: 1, Env: "prod", Overrule: true, Reason: "eve has left"}, in)
	if why != nil || len(d.command.Overrules) != 1 || d.command.Reason != "eve has left" {
		t.Fatalf("%+v, %v", d.command, why)
	}
	s.Command(d.command)
	env := s.App("hello").Run(1).Env("prod")
	digest := s.App("hello").Run(1).Artifact.Digest
	if len(env.Denials(digest)) != 0 || env.Denied != nil || env.Promote.Attempt != 2 {
		t.Errorf("after it was overruled: %+v, attempt %d", env.Denials(digest), env.Promote.Attempt)
	}
	s.answer(events.VerbDeny, "eve", "again")
	if no := s.App("hello").Run(1).Env("prod").Denials(digest); len(no) != 1 || no[0].Reason != "again" {
		t.Errorf("after another denial: %+v", no)
	}
}

// What was taken back goes on by itself, and until then everybody is shown who denied.
func TestADenialIsShownAndTakenBack(t *testing.T) {
	s := newStory()
	s.Ready(foldtest.Definition(twoEnvironments), s.policy)
	s.deploy(1, "dev", events.Verified)
	s.answer(events.VerbDeny, "eve", "not on a Friday")
	s.refuse("eve", "not on a Friday")
	shown := view.NewRun(s.App("hello"), s.App("hello").Run(1), "")
	if shown.Status != fold.Refused || shown.Detail != "promotion to prod denied by eve: not on a Friday" || shown.For != "eve" ||
		shown.Command != "towpath approve hello/1 --env prod" {
		t.Errorf("shown as %s %q, for %q: %q", shown.Status, shown.Detail, shown.For, shown.Command)
	}
	s.answer(events.VerbApprove, "adam", "")
	if run := s.App("hello").Run(1); run.Status() != fold.Refused {
		t.Errorf("approved by another, the run is %s", run.Status())
	}
	s.answer(events.VerbApprove, "eve", "")
	app := s.App("hello")
	if e := app.Run(1).Env("prod"); app.Run(1).Status() == fold.Refused || e.Promote.Attempt != 2 || !slices.Contains(app.Unsettled, 1) {
		t.Errorf("taken back, the run is %s, in attempt %d", app.Run(1).Status(), e.Promote.Attempt)
	}
}

const threeEnvironments = "app: hello\nenvironments: [{name: dev}, {name: qa}, {name: prod, approvals: 1}]\n"

// What a preview of a build says comes to pass, whether the image differs or not.
func TestPreviewOfABuild(t *testing.T) {
	for _, rebuild := range []bool{false, true} {
		for _, image := range []string{"run1", "another"} {
			if rebuild && image == "run1" {
				continue
			}
			t.Run(fmt.Sprintf("rebuild %v, image %s", rebuild, image), func(t *testing.T) {
				s := newStory()
				s.Ready(foldtest.Definition(threeEnvironments), s.policy)
				s.deploy(1, "dev", events.Verified)
				s.deploy(1, "qa", events.Verified)
				s.answer(events.VerbApprove, "adam", "")
				d, why := s.decide(order{Verb: "replay", Run: 1, Stage: "build", Rebuild: rebuild}, policy.Approval{Count: 1})
				if why != nil {
					t.Fatal(why)
				}
				p := d.preview
				s.Replay("hello", 1, "build", "")
				s.Built("hello", 1, 2, foldtest.Digest(image))
				s.Vetted("hello", 1, s.App("hello").Run(1).Vet.Attempt, foldtest.Digest(image), []events.Slug{"dev", "qa", "prod"})
				run := s.App("hello").Run(1)
				for _, env := range []string{"dev", "qa"} {
					says := func(list []string) bool {
						return slices.ContainsFunc(list, func(one string) bool { return strings.HasPrefix(one, "promote to "+env+", attempt 2") })
					}
					kept := slices.ContainsFunc(p.Kept, func(one string) bool { return strings.HasPrefix(one, env) })
					again := !run.Env(events.Slug(env)).Verified && run.Env(events.Slug(env)).Promote.Attempt == 2
					if again != (image == "another") || kept || says(p.Runs) != rebuild || says(p.Maybe) == rebuild {
						t.Errorf("%s is deployed again: %v; the preview: %+v", env, again, p)
					}
				}
				counts := len(run.Env("prod").LastWords(run.Artifact.Digest)) == 1
				if len(p.Approvals) != 1 || p.Approvals[0].Kept == rebuild || p.Approvals[0].Why == "" || counts != (image == "run1") {
					t.Errorf("the approval counts: %v; the preview: %+v", counts, p.Approvals)
				}
			})
		}
	}
}

// A replay says which attempt it puts an end to, and is refused where its preview was about another.
func TestPreviewOfWhatIsUnderWay(t *testing.T) {
	s := newStory()
	s.Ready(foldtest.Definition(twoEnvironments), s.policy)
	s.deploy(1, "dev", events.Verified)
	s.ended(1, "prod", events.Error)
	first := order{Verb: "replay", Run: 1, Stage: "promote", Env: "prod"}
	shown, why := s.decide(first, policy.Approval{})
	if why != nil || shown.preview.Attempt != 2 || len(shown.preview.Fenced) != 0 {
		t.Fatalf("%+v %v", shown.preview, why)
	}
	s.Replay("hello", 1, "promote", "prod") // by bob, meanwhile
	s.take(1, "prod")
	late := first
	late.Attempt = shown.preview.Attempt
	if _, why := s.decide(late, policy.Approval{}); why == nil || why.Status != 409 || !strings.Contains(why.Why, "attempt 2 of it is there by now, asked for by bob") {
		t.Errorf("the second operator: %v", why)
	}
	again, why := s.decide(first, policy.Approval{})
	if why != nil || len(again.preview.Fenced) != 1 || again.preview.Attempt != 3 {
		t.Fatalf("looked at again: %+v %v", again.preview, why)
	}
	since := s.App("hello").Run(1).Env("prod").Promote.Started.UTC().Format("2006-01-02T15:04:05Z07:00")
	if want := "promote to prod, attempt 2, is under way since " + since + ", asked for by bob"; again.preview.Fenced[0] != want {
		t.Errorf("fenced %q, want %q", again.preview.Fenced[0], want)
	}
	s.Replay("hello", 1, "promote", "prod")
	if slot := s.App("hello").Env("prod").Last(); slot.Attempt == s.App("hello").Run(1).Env("prod").Promote.Attempt {
		t.Error("the attempt under way was not fenced off")
	}
}
