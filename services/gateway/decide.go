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
	ID      string      `json:"id"`
	Verb    string      `json:"verb"`
	App     events.Slug `json:"app"`
	Run     int         `json:"run"`
	Stage   string      `json:"stage"`
	Env     events.Slug `json:"env"`
	Digest  string      `json:"digest"`
	Reason  string      `json:"reason"`
	Rebuild bool        `json:"rebuild"`
}

// verbReplay is the one verb that becomes an event of its own type.
const verbReplay = "replay"

// verbs that an order may have.
var verbs = []string{
	events.VerbApprove, events.VerbDeny, events.VerbPromote, events.VerbRollback, events.VerbCancel, events.VerbHold, events.VerbResume, verbReplay,
}

// scope is what an order is judged by.
type scope struct {
	app   *fold.App  // nil: unknown, or an order about everything
	held  *fold.Hold // the hold on everything
	actor string
	roles []string
	rule  func(run *fold.Run, env events.Slug) policy.Approval // of the run's own policy
}

// decision is what becomes of an order that makes sense.
type decision struct {
	command  events.Command
	replay   *events.ReplayRequested // instead of command
	original string                  // the event that a replay repeats
	text     string                  // for people
	kept     []string                // what stays as it is; of a replay
	runs     []string                // what runs again; of a replay
}

// decide judges an order on the fold. Gates are promote's to judge; what can never count is refused here, with why.
func decide(o order, s scope) (decision, *problem) {
	d := decision{command: events.Command{
		Verb: o.Verb, App: o.App, Run: o.Run, Stage: o.Stage, Environment: o.Env, Digest: o.Digest, Actor: s.actor, Reason: o.Reason,
	}}
	switch o.Verb {
	case events.VerbHold, events.VerbResume:
		return decideHold(o, s, d)
	case events.VerbRollback:
		return decideRollback(o, s, d)
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
		return decidePromote(o, run, d)
	case events.VerbCancel:
		return decideCancel(run, d)
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

func decideRollback(o order, s scope, d decision) (decision, *problem) {
	place := fmt.Sprintf("%s in %s", o.App, o.Env)
	env := s.app.Env(o.Env)
	live := env.Live()
	if o.Env == "" {
		return d, invalid("rolling back", string(o.App), "no environment is named", "name it with --env")
	}
	if live == nil {
		return d, conflict("rolling back", place, "nothing has run there", "")
	}
	for _, slot := range slices.Backward(env.Slots) {
		if !slot.Closing.Stands() || slot.Kind == events.KindRemove || slot.Digest == "" {
			continue
		}
		if o.Run > 0 && slot.Run == o.Run || o.Run == 0 && slot.N < live.N && slot.Digest != live.Digest {
			d.command.Slot, d.command.Run, d.command.Digest = slot.N, slot.Run, slot.Digest
			d.text = fmt.Sprintf("%s comes back to %s (%s)", fold.Name(o.App, slot.Run), o.Env, shortDigest(slot.Digest))
			return d, nil
		}
	}
	if o.Run > 0 {
		return d, conflict("rolling back", place, fold.Name(o.App, o.Run)+" was never verified there", "towpath show "+fold.Name(o.App, o.Run))
	}
	return d, conflict("rolling back", place, "no other version was verified there before "+fold.Name(o.App, live.Run), "")
}

// decideResponse judges an approval or a denial. It binds the digest that the actor looked at.
func decideResponse(o order, s scope, run *fold.Run, d decision) (decision, *problem) {
	on := run.Name() + " for " + string(o.Env)
	env := run.Env(o.Env)
	status := run.Status()
	switch {
	case env == nil:
		return d, invalid(o.Verb, run.Name(), "no environment is named", "name it with --env, one of "+joined(run.Definition.EnvironmentNames()))
	case status.Ended() && status != fold.Stuck:
		return d, conflict(o.Verb, on, run.Name()+" is "+string(status), "towpath show "+run.Name())
	case env.Verified || env.Slot != 0:
		return d, conflict(o.Verb, on, "it is there already", "towpath rollback takes it back")
	case run.Artifact == nil:
		return d, conflict(o.Verb, on, "it has no image yet, and an answer is about one image", "wait until it is built: towpath show "+run.Name())
	case o.Digest != "" && o.Digest != run.Artifact.Digest:
		return d, conflict(o.Verb, on, "its image is "+shortDigest(run.Artifact.Digest)+" by now, you looked at "+shortDigest(o.Digest), "look again: towpath show "+run.Name())
	}
	d.command.Digest = run.Artifact.Digest
	if o.Verb == events.VerbDeny {
		d.text = fmt.Sprintf("%s is denied %s", run.Name(), o.Env)
		return d, nil
	}
	rule := s.rule(run, o.Env)
	if rule.Count == 0 {
		return d, conflict(o.Verb, on, string(o.Env)+" asks for no approval", "")
	}
	author := s.actor == run.Start.Actor || slices.Contains(run.Start.Authors, s.actor)
	if why := rule.Refuses(s.roles, author); why != "" {
		return d, forbidden(o.Verb, on, why, "ask somebody else to approve")
	}
	d.text = fmt.Sprintf("%s is approved for %s (%s): %d of %d", run.Name(), o.Env, shortDigest(run.Artifact.Digest), approvers(env, run, s.actor), rule.Count)
	return d, nil
}

// approvers counts who has approved this image, one more actor included.
func approvers(env *fold.RunEnv, run *fold.Run, actor string) int {
	who := map[string]bool{actor: true}
	for _, r := range env.Responses {
		if r.Verb == events.VerbApprove && r.Digest == run.Artifact.Digest {
			who[r.Actor] = true
		}
	}
	return len(who)
}

func decidePromote(o order, run *fold.Run, d decision) (decision, *problem) {
	on := run.Name() + " to " + string(o.Env)
	switch env := run.Env(o.Env); {
	case env == nil:
		return d, invalid("promoting", run.Name(), "no environment is named", "name it with --env, one of "+joined(run.Definition.EnvironmentNames()))
	case run.Artifact == nil:
		return d, conflict("promoting", on, "it has no image yet", "towpath show "+run.Name())
	case env.Promote.Status == fold.Running:
		return d, conflict("promoting", on, "that is under way", "towpath show "+run.Name())
	}
	d.command.Digest = run.Artifact.Digest
	d.text = fmt.Sprintf("%s goes to %s when its gates are open", run.Name(), o.Env)
	return d, nil
}

func decideCancel(run *fold.Run, d decision) (decision, *problem) {
	if status := run.Status(); status.Ended() && status != fold.Stuck {
		return d, conflict("cancelling", run.Name(), "it has ended: "+string(status), "")
	}
	d.text = run.Name() + " is cancelled"
	return d, nil
}

func decideReplay(o order, s scope, run *fold.Run, d decision) (decision, *problem) {
	if o.Stage == "" {
		o.Stage, o.Env = stopped(run)
	}
	stage, ok := run.Stage(o.Stage, o.Env)
	on := strings.TrimSpace(run.Name() + " " + o.Stage + " " + string(o.Env))
	switch {
	case o.Stage == "":
		return d, conflict("replaying", run.Name(), "no stage of it is stuck or failed", "name the stage: build, vet, promote --env ENV or verify --env ENV")
	case !ok:
		return d, invalid("replaying", on, "there is no such stage", "build, vet, promote --env ENV or verify --env ENV")
	case run.SupersededBy != 0:
		return d, conflict("replaying", on, fold.Name(run.App, run.SupersededBy)+" took its place", "push again, or towpath promote "+run.Name()+" --env ENV")
	case o.Stage == fold.StageBuild && run.Image:
		return d, conflict("replaying", on, "its image was built elsewhere", "replay vet, or submit a new image")
	case stage.Status == fold.Pending || stage.Status == fold.Queued && !stage.Started.IsZero():
		return d, conflict("replaying", on, "it has not begun", "towpath show "+run.Name())
	}
	if newer := newerIn(s.app, run, o.Stage, o.Env); newer != 0 {
		return d, conflict("replaying", on, fold.Name(run.App, newer)+" runs there by now", fmt.Sprintf("towpath rollback %s --env %s --to %s", run.App, o.Env, run.Name()))
	}
	env := o.Env
	if o.Stage == fold.StageBuild || o.Stage == fold.StageVet {
		env = ""
	}
	d.original = stage.LastEvent
	d.replay = &events.ReplayRequested{
		Stage: o.Stage, Environment: env, Original: stage.LastEvent, Actor: s.actor, Reason: o.Reason, Rebuild: o.Rebuild,
	}
	d.kept, d.runs = effects(s.app, run, o.Stage, env, stage.Attempt+1)
	rebuild := "no rebuild"
	if o.Stage == fold.StageBuild {
		rebuild = "the image is built again only if its source changed"
		if o.Rebuild {
			rebuild = "the image is built again"
		}
	}
	effects := "effects"
	if len(d.kept) == 1 {
		effects = "effect"
	}
	d.text = fmt.Sprintf("%d %s kept, %d will run, %s", len(d.kept), effects, len(d.runs), rebuild)
	return d, nil
}

// stopped is the first stage that is stuck, failed, cancelled or refused.
func stopped(run *fold.Run) (stage string, env events.Slug) {
	halts := func(s fold.Stage) bool {
		return s.Status == fold.Stuck || s.Status == fold.Failed || s.Status == fold.CancelledRun || s.Status == fold.Refused
	}
	if halts(run.Build) {
		return fold.StageBuild, ""
	}
	if halts(run.Vet) {
		return fold.StageVet, ""
	}
	for _, env := range run.Envs {
		if halts(env.Promote) {
			return fold.StagePromote, env.Name
		}
		if halts(env.Verify) {
			return fold.StageVerify, env.Name
		}
	}
	return "", ""
}

// newerIn is a newer run that an environment runs by now; 0: none.
func newerIn(app *fold.App, run *fold.Run, stage string, env events.Slug) int {
	if stage != fold.StagePromote && stage != fold.StageVerify {
		return 0
	}
	if live := app.Env(env).Live(); live != nil && live.Run > run.N && live.Kind == events.KindDeploy {
		return live.Run
	}
	return 0
}

// effects says what a replay keeps, and what it runs (again) as far as no gate comes in between.
func effects(app *fold.App, run *fold.Run, stage string, env events.Slug, attempt int) (kept, runs []string) {
	if run.Artifact != nil && stage != fold.StageBuild {
		kept = append(kept, "image "+shortDigest(run.Artifact.Digest))
	}
	if run.Verdict != nil && stage != fold.StageBuild && stage != fold.StageVet {
		kept = append(kept, "verdict of vetting")
	}
	for _, e := range run.Envs {
		if e.Verified && e.Name != env {
			kept = append(kept, fmt.Sprintf("%s, deployed and verified", e.Name))
		}
	}
	again := func(what string) string { return fmt.Sprintf("%s, attempt %d", what, attempt) }
	switch stage {
	case fold.StageBuild:
		return kept, append(runs, again("build"), "vet")
	case fold.StageVet:
		return kept, append(runs, again("vet"))
	case fold.StageVerify:
		if slot := app.Env(env).Slot(run.Env(env).Slot); slot != nil && slot.Open() {
			kept = append(kept, fmt.Sprintf("deployment to %s (slot %d)", env, slot.N))
			return kept, append(runs, again("verify in "+string(env)))
		}
	}
	return kept, append(runs, again("promote to "+string(env)), "verify in "+string(env))
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
