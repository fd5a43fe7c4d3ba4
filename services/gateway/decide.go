package gateway

import (
	"fmt"
	"slices"
	"strings"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/policy"
	"towpath.dev/services/gateway/git"
	"towpath.dev/services/gateway/view"
)

// found is what an update of a reference brings.
type found struct {
	update     git.Update
	definition pipeline.Definition
	missing    bool  // no towpath.yaml at the root
	fault      error // towpath.yaml cannot be used
}

// tracked reports whether the update starts a run: its own towpath.yaml names the branch and the app.
func (f found) tracked(app events.Slug) bool {
	return !f.update.New.None() && !f.missing && f.fault == nil && f.definition.App == app && f.definition.Branch == f.update.Branch()
}

// judgePush says why a push cannot be taken in, one line for each reason; none: it can. known is nil for a push that
// makes the app.
func judgePush(app events.Slug, known *fold.App, updates []found) []string {
	var why []string
	usable := false
	for _, f := range updates {
		branch := f.update.Branch()
		switch {
		case branch == "" && strings.HasPrefix(f.update.Ref, "refs/tags/"):
		case branch == "":
			why = append(why, fmt.Sprintf("%s is neither a branch nor a tag; only those are kept here", f.update.Ref))
		case f.update.New.None():
			if known != nil && known.Branch == branch {
				why = append(why, fmt.Sprintf("%s carries %s and cannot be deleted; name another branch in %s and push that first", branch, app, pipeline.FileName))
			}
		case f.missing && known != nil && known.Branch != branch:
		case f.missing && known != nil:
			why = append(why, missingFile(branch))
		case f.missing:
		case f.fault != nil:
			why = append(why, strings.Split(f.fault.Error(), "\n")...)
		case f.definition.App != app:
			why = append(why, fmt.Sprintf("%s: app: must be %s, as this repository is called (got %q); change it, or push to /git/%s.git", pipeline.FileName, app, f.definition.App, f.definition.App))
		default:
			usable = true
		}
	}
	if known == nil && !usable && len(why) == 0 {
		why = append(why, missingFile(firstBranch(updates)))
	}
	return why
}

func missingFile(branch string) string {
	return fmt.Sprintf("%s is missing at the root of %s; `towpath init` writes one", pipeline.FileName, branch)
}

func firstBranch(updates []found) string {
	for _, f := range updates {
		if branch := f.update.Branch(); branch != "" && !f.update.New.None() {
			return branch
		}
	}
	return "any branch"
}

// untracked says why an update that was taken in starts no run.
func untracked(app events.Slug, f found) string {
	branch := f.update.Branch()
	switch {
	case branch == "":
		return fmt.Sprintf("%s starts no run: only a branch does", strings.TrimPrefix(f.update.Ref, "refs/"))
	case f.update.New.None():
		return branch + " is gone"
	case f.missing:
		return fmt.Sprintf("%s starts no run: it has no %s", branch, pipeline.FileName)
	case f.fault != nil || f.definition.App != app:
		return fmt.Sprintf("%s starts no run: its %s cannot be used", branch, pipeline.FileName)
	}
	return fmt.Sprintf("%s starts no run: pushes to %s do (branch in %s)", branch, f.definition.Branch, pipeline.FileName)
}

// order is a command as it was sent.
type order struct {
	ID       string      `json:"id"`
	Verb     string      `json:"verb"`
	App      events.Slug `json:"app"`
	Run      int         `json:"run"`
	Stage    string      `json:"stage"`
	Env      events.Slug `json:"env"`
	Digest   string      `json:"digest"`
	Reason   string      `json:"reason"`
	Attempt  int         `json:"attempt"`  // replay: the number that the new attempt had in a preview; 0: any
	Rebuild  bool        `json:"rebuild"`  // replay: build even where the same tree was built before
	Policy   string      `json:"policy"`   // replay: pinned (also where it is empty) or current
	AllStuck bool        `json:"allStuck"` // replay: everything that is stuck, of an app or of all
	// WithSecrets is of a rollback: the secrets of that time come back too.
	WithSecrets bool `json:"withSecrets"`
	// Message is of a dismissal: the sequence of a message that was set aside.
	Message uint64 `json:"message"`
	// Overrule is of an approval: it puts an end to denials of people who may not approve there any more.
	Overrule bool `json:"overrule"`
}

// The policies that a replay can be judged by.
const (
	policyPinned  = "pinned"  // the one that the run was judged by before
	policyCurrent = "current" // the newest one
)

// stages are the names of all stages.
var stages = []string{fold.StageBuild, fold.StageVet, fold.StagePromote, fold.StageVerify}

// verbs that an order may have.
var verbs = []string{
	events.VerbApprove, events.VerbDeny, events.VerbPromote, events.VerbRollback, events.VerbCancel, events.VerbSkip, events.VerbHold,
	events.VerbResume, events.VerbReplay, events.VerbDismiss,
}

// command is the order as an event says it.
func (o order) command(actor string) events.Command {
	return events.Command{
		Verb: o.Verb, App: o.App, Run: o.Run, Stage: o.Stage, Environment: o.Env, Digest: o.Digest, Actor: actor, Reason: o.Reason, Message: o.Message,
	}
}

// completed fills in what the order leaves open and only one thing can be meant: the stage at which a run stopped, and
// the one environment where it did, or else is. app may be nil.
func (o order) completed(app *fold.App, actor string) order {
	if app == nil || app.Run(o.Run) == nil || o.AllStuck {
		return o
	}
	run := app.Run(o.Run)
	switch {
	case o.Verb == events.VerbReplay && o.Stage == "":
		o.Stage, o.Env = stopped(run, o.Env)
	case o.Env != "":
	case o.Verb == events.VerbApprove || o.Verb == events.VerbDeny:
		o.Env = awaits(run, actor)
	case o.Verb != events.VerbReplay && o.Verb != events.VerbSkip:
	case o.Stage == fold.StagePromote || o.Stage == fold.StageVerify:
		all := stoppedIn(run, o.Stage)
		if next := run.Next(); len(all) == 0 && next != nil && (next.Promote.Ended() || next.Promote.Status == fold.Waiting || next.Promote.Status == fold.Running) {
			all = []events.Slug{next.Name} // where it is at work, or waits
		}
		if len(all) == 1 {
			o.Env = all[0]
		}
	}
	return o
}

// awaits is the environment before which a run waits for an approval; else the last one that the actor has answered for;
// "": none.
func awaits(run *fold.Run, actor string) events.Slug {
	var answered events.Slug
	for _, env := range run.Envs {
		if next := run.Next(); next == env && env.Promote.Status == fold.Waiting && env.Requested != nil {
			return env.Name
		}
		for _, r := range env.Responses {
			if r.Actor == actor {
				answered = env.Name
			}
		}
	}
	return answered
}

// scope is what an order is judged by.
type scope struct {
	app     *fold.App   // nil: unknown, or an order about everything
	apps    []*fold.App // of a replay of all that is stuck: those that it is about
	held    *fold.Hold  // the hold on everything
	actor   string
	roles   []string
	newest  string                                                              // digest of the newest policy
	rule    func(run *fold.Run, env events.Slug) policy.Approval                // of the policy that the run is judged by
	ruleBy  func(digest string, run *fold.Run, env events.Slug) policy.Approval // of another
	maySkip func(run *fold.Run, env events.Slug) bool
	// present are the settings as they are now where the order is about, and missing those that have no value; nil and
	// none for orders that use none.
	present *events.Pins
	missing []string
	// messages are, of a dismissal, what was set aside.
	messages []view.Message
	then     *then // of a rollback that has a version to bring back
	// takesBack reports whether somebody may still approve there, who can take a denial back that an approval is to overrule.
	takesBack map[string]bool
}

// decision is what becomes of an order that makes sense.
type decision struct {
	command events.Command
	replay  *events.ReplayRequested // instead of command
	text    string                  // for people
	preview view.Preview            // of a replay; its text is text
}

// decide judges an order on the fold. Gates are promote's to judge; what can never count is refused here, with why.
func decide(o order, s scope) (decision, *problem) {
	d := decision{command: o.command(s.actor)}
	switch {
	case o.Verb == events.VerbHold, o.Verb == events.VerbResume:
		return decideHold(o, s, d)
	case o.Verb == events.VerbDismiss:
		return decideDismiss(o, s, d)
	case o.Verb == events.VerbRollback:
		return decideRollback(o, s, d)
	case o.AllStuck:
		return decideAllStuck(o, s, d)
	}
	run := s.app.Run(o.Run)
	if run == nil {
		return d, notFound(o.Verb, fold.Name(o.App, o.Run), "there is no such run", fmt.Sprintf("towpath runs --app %s lists them", o.App))
	}
	if o.Env != "" && run.Env(o.Env) == nil {
		return d, notFound(o.Verb, run.Name()+" in "+string(o.Env), "its pipeline has no such environment",
			"one of "+joined(run.Definition.EnvironmentNames()))
	}
	switch o.Verb {
	case events.VerbApprove, events.VerbDeny:
		return decideResponse(o, s, run, d)
	case events.VerbPromote:
		return decidePromote(o, s, run, d)
	case events.VerbCancel:
		return decideCancel(o, run, d)
	case events.VerbSkip:
		return decideSkip(o, s, run, d)
	}
	return decideReplay(o, s, run, d)
}

func decideHold(o order, s scope, d decision) (decision, *problem) {
	what := "everything"
	held := s.held != nil
	if s.app != nil {
		what = string(s.app.Name)
		held = s.app.Hold != nil && !s.app.Hold.All
	}
	switch {
	case o.Verb == events.VerbHold && held:
		return d, conflict("holding", what, "it is held already", "")
	case o.Verb == events.VerbHold:
		d.text = what + " is held: what runs goes on, nothing new begins"
	case !held && s.app != nil && s.app.Hold != nil:
		return d, conflict("resuming", what, "everything is held, not "+what+" alone", "towpath resume --all")
	case !held:
		return d, conflict("resuming", what, "it is not held", "")
	default:
		d.text = what + " goes on"
	}
	return d, nil
}

// decideDismiss judges whether a message is one that nobody acts on any more.
func decideDismiss(o order, s scope, d decision) (decision, *problem) {
	on := fmt.Sprintf("event %d", o.Message)
	i := slices.IndexFunc(s.messages, func(m view.Message) bool { return m.Seq == o.Message && (m.Dismissable() || m.Parked()) })
	switch {
	case i < 0:
		return d, notFound("dismissing", on, "no such message was set aside", "towpath stuck lists them")
	case s.messages[i].Dismissed:
		return d, conflict("dismissing", on, "it was dismissed before", "towpath stuck --all lists it")
	case s.messages[i].Parked():
		return d, conflict("dismissing", on, "a newer Towpath can read it, and takes it up", "upgrade; it leaves the list by itself then")
	}
	d.text = on + " is off the list; the ledger keeps it, and towpath stuck --all shows it"
	return d, nil
}

// decideResponse judges an approval or a denial. It binds the digest that the actor looked at.
func decideResponse(o order, s scope, run *fold.Run, d decision) (decision, *problem) {
	on := run.Name() + " for " + string(o.Env)
	env := run.Env(o.Env)
	status := run.Status()
	if c := s.given(o, run, env); c != nil {
		d.command.Digest, d.command.Repeats = c.Digest, c.ID
		d.text = fmt.Sprintf("%s is already approved for %s by you (%s): %d of %d", run.Name(), o.Env, shortDigest(c.Digest), s.approvers(run, env, s.actor), s.rule(run, o.Env).Count)
		return d, nil
	}
	denials := denialsOf(run, env)
	mine := slices.ContainsFunc(denials, func(c fold.Command) bool { return c.Actor == s.actor })
	back := o.Verb == events.VerbApprove && (mine || len(denials) == 0 && deniedBy(env) != "")
	switch {
	case env == nil:
		return d, invalid(o.Verb, run.Name(), "no environment is named", "name it with --env, one of "+joined(run.Definition.EnvironmentNames()))
	case !back && status.Ended() && status != fold.Stuck && (status != fold.Refused || deniedBy(env) == ""):
		return d, conflict(o.Verb, on, run.Name()+" is "+string(status), "towpath show "+run.Name())
	case run.Artifact == nil:
		return d, conflict(o.Verb, on, "it has no image yet, and an answer is about one image", "wait until it is built: towpath show "+run.Name())
	case o.Digest != "" && o.Digest != run.Artifact.Digest:
		return d, conflict(o.Verb, on, "its image is "+shortDigest(run.Artifact.Digest)+" by now, you looked at "+shortDigest(o.Digest), "look again: towpath show "+run.Name())
	case back:
	case o.Verb == events.VerbDeny && mine:
		return d, conflict(o.Verb, on, "you have denied it already", "towpath approve "+run.Name()+" --env "+string(o.Env)+" takes that back")
	case o.Overrule && len(denials) == 0:
		return d, conflict(o.Verb, on, "nobody's denial stands there", "leave --overrule out")
	case o.Overrule:
		if no := s.stillMay(denials); no != nil {
			return d, deniedBefore("overruling", on, run, *no)
		}
	case o.Verb == events.VerbApprove && len(denials) > 0:
		return d, deniedBefore(o.Verb, on, run, denials[0])
	case env.Verified || s.live(env):
		return d, conflict(o.Verb, on, "it is there already", "towpath rollback takes it back")
	}
	d.command.Digest = run.Artifact.Digest
	if o.Verb == events.VerbDeny {
		d.text = fmt.Sprintf("%s is denied %s", run.Name(), o.Env)
		return d, nil
	}
	rule := s.rule(run, o.Env)
	author := s.actor == run.Start.Actor || slices.Contains(run.Start.Authors, s.actor)
	why := rule.Refuses(s.roles, author)
	if o.Overrule && why == "" {
		for _, no := range denials {
			d.command.Overrules = append(d.command.Overrules, no.ID)
		}
	}
	switch {
	case o.Overrule && why != "":
		return d, forbidden("overruling", on, why, "ask somebody else to approve")
	case o.Overrule && rule.Count == 0:
		d.text = fmt.Sprintf("%s for %s: %s of %s overruled", run.Name(), o.Env, plural(len(denials), "denial"), deniers(denials))
		return d, nil
	case back && (rule.Count == 0 || why != "" && rule.Refuses(s.roles, false) == ""): // it does not count: promote knows authors, and no roles
		d.text = fmt.Sprintf("the denial of %s for %s is taken back", run.Name(), o.Env)
		return d, nil
	case rule.Count == 0:
		return d, conflict(o.Verb, on, string(o.Env)+" asks for no approval", "")
	case why != "" && mine:
		return d, forbidden(o.Verb, on, why, fmt.Sprintf("ask somebody who may: %s; or push a change, which is answered anew", overruleCommand(run, o.Env)))
	case why != "":
		return d, forbidden(o.Verb, on, why, "ask somebody else to approve")
	}
	d.text = fmt.Sprintf("%s is approved for %s (%s): %d of %d", run.Name(), o.Env, shortDigest(run.Artifact.Digest), s.approvers(run, env, s.actor), rule.Count)
	if mine {
		d.text += "; your denial is taken back"
	}
	if o.Overrule {
		d.text += fmt.Sprintf("; %s of %s overruled", plural(len(denials), "denial"), deniers(denials))
	}
	return d, nil
}

// stillMay returns a denial of somebody who may approve there and can take it back; nil: there is none.
func (s scope) stillMay(denials []fold.Command) *fold.Command {
	for _, no := range denials {
		if s.takesBack[no.Actor] {
			return &no
		}
	}
	return nil
}

// deniers names those whose denials they are.
func deniers(denials []fold.Command) string {
	var who []string
	for _, no := range denials {
		who = append(who, no.Actor)
	}
	return strings.Join(who, ", ")
}

func overruleCommand(run *fold.Run, env events.Slug) string {
	return fmt.Sprintf("towpath approve %s --env %s --overrule --reason TEXT", run.Name(), env)
}

// denialsOf are the denials of a run's image that stand in an environment, which may be nil.
func denialsOf(run *fold.Run, env *fold.RunEnv) []fold.Command {
	if env == nil || run.Artifact == nil {
		return nil
	}
	return env.Denials(run.Artifact.Digest)
}

// deniedBy is who refused a run's present attempt at an environment; "": nobody.
func deniedBy(env *fold.RunEnv) string {
	if env == nil || env.Denied == nil {
		return ""
	}
	return env.Denied.Responder
}

// deniedBefore says who denied a run, and that they take that back; others do who may approve, where they may not any more.
func deniedBefore(doing, on string, run *fold.Run, no fold.Command) *problem {
	why := "denied by " + no.Actor
	if no.Reason != "" {
		why += ": " + no.Reason
	}
	return conflict(doing, on, why, fmt.Sprintf("%s takes that back with towpath approve %s --env %s, or push a change; where %s may not approve there any more, who may says %s",
		no.Actor, run.Name(), no.Environment, no.Actor, overruleCommand(run, no.Environment)))
}

// live reports whether the slot that the run took in an environment was decided live.
func (s scope) live(env *fold.RunEnv) bool {
	slot := s.app.Env(env.Name).Slot(env.Slot)
	return slot != nil && slot.Decision == events.Live
}

// given returns the approval that the actor gave already, as their last word, if it is about the same image and still
// counts; else nil. A version that an operator brought back meanwhile asks for another, and so does a run that ended or
// that people refused.
func (s scope) given(o order, run *fold.Run, env *fold.RunEnv) *fold.Command {
	if o.Verb != events.VerbApprove || env == nil || run.Artifact == nil || o.Digest != "" && o.Digest != run.Artifact.Digest ||
		run.Cancelled != nil || run.SupersededBy != 0 || deniedBy(env) != "" {
		return nil
	}
	since := s.since(run, env.Name)
	for slot := range s.app.Env(env.Name).Slots.Backward() {
		if slot.Kind == events.KindRestore || slot.TakenSeq <= since {
			since = max(since, slot.TakenSeq)
			break
		}
	}
	for _, c := range env.LastWords(run.Artifact.Digest) {
		if c.Actor == s.actor && c.Verb == events.VerbApprove && c.Seq > since {
			return &c
		}
	}
	return nil
}

// since is the sequence up to which answers for an environment no longer count.
func (s scope) since(run *fold.Run, env events.Slug) uint64 {
	return run.GateSince(env, func(from, to string) bool { return s.ruleBy(from, run, env).Equal(s.ruleBy(to, run, env)) })
}

// approvers counts who has approved this image, one more actor included.
func (s scope) approvers(run *fold.Run, env *fold.RunEnv, actor string) int {
	who := map[string]bool{actor: true}
	since := s.since(run, env.Name)
	for _, c := range env.LastWords(run.Artifact.Digest) {
		if c.Verb == events.VerbApprove && c.Seq > since {
			who[c.Actor] = true
		}
	}
	return len(who)
}

func decidePromote(o order, s scope, run *fold.Run, d decision) (decision, *problem) {
	on := run.Name() + " to " + string(o.Env)
	switch env := run.Env(o.Env); {
	case env == nil:
		return d, invalid("promoting", run.Name(), "no environment is named", "name it with --env, one of "+joined(run.Definition.EnvironmentNames()))
	case run.Artifact == nil:
		return d, conflict("promoting", on, "it has no image yet", "towpath show "+run.Name())
	case env.Promote.Status == fold.Running:
		return d, conflict("promoting", on, "that is under way", "towpath show "+run.Name())
	}
	if denials := denialsOf(run, run.Env(o.Env)); len(denials) > 0 {
		return d, deniedBefore("promoting", on, run, denials[0])
	}
	d.command.Digest = run.Artifact.Digest
	d.text = fmt.Sprintf("%s goes to %s when its gates are open", run.Name(), o.Env)
	return d, nil
}

// decideCancel judges the end of a run. Of an environment, only of the one that the run has come to: it goes no further
// than that in any case.
func decideCancel(o order, run *fold.Run, d decision) (decision, *problem) {
	if status := run.Status(); status.Ended() && status != fold.Stuck {
		return d, conflict("cancelling", run.Name(), "it has ended: "+string(status), "")
	}
	d.text = run.Name() + " is cancelled"
	if o.Env == "" {
		return d, nil
	}
	on := run.Name() + " in " + string(o.Env)
	switch next := run.Next(); {
	case run.Env(o.Env).Verified:
		return d, conflict("cancelling", on, "it is there already", "towpath rollback takes it back")
	case next != nil && next.Name != o.Env:
		return d, conflict("cancelling", on, "it has not come there: it is on its way to "+string(next.Name), "towpath cancel "+run.Name()+" ends the run")
	}
	d.text = fmt.Sprintf("%s is cancelled in %s", run.Name(), o.Env)
	return d, nil
}

func joined(names []events.Slug) string {
	texts := make([]string, len(names))
	for i, name := range names {
		texts[i] = string(name)
	}
	return strings.Join(texts, ", ")
}

// shortDigest is a digest as people are shown it: twelve digits.
func shortDigest(digest string) string {
	hex := strings.TrimPrefix(digest, "sha256:")
	return hex[:min(12, len(hex))]
}
