package gateway

import (
	"fmt"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/settings"
	"towpath.dev/services/gateway/view"
)

func decideReplay(o order, s scope, run *fold.Run, d decision) (decision, *problem) {
	stage, ok := run.Stage(o.Stage, o.Env)
	on := strings.TrimSpace(run.Name() + " " + o.Stage + " " + string(o.Env))
	switch {
	case o.Stage == "":
		return d, conflict("replaying", run.Name(), "no stage of it is stuck or failed: it is "+string(s.app.StatusOf(run)), "name the stage: build, vet, promote --env ENV or verify --env ENV")
	case o.Env == "" && (o.Stage == fold.StagePromote || o.Stage == fold.StageVerify):
		return d, whichEnvironment("replaying", on, run, o.Stage)
	case !ok:
		return d, invalid("replaying", on, "there is no such stage", "build, vet, promote --env ENV or verify --env ENV")
	case run.SupersededBy != 0:
		return d, conflict("replaying", on, fold.Name(run.App, run.SupersededBy)+" took its place", "push again, or towpath promote "+run.Name()+" --env ENV")
	case o.Stage == fold.StageBuild && run.Image:
		return d, conflict("replaying", on, "its image was built elsewhere", "replay vet, or submit a new image")
	case stage.Status == fold.Pending || stage.Status == fold.Queued:
		return d, conflict("replaying", on, "it has not begun", "towpath show "+run.Name())
	case stage.Status == fold.Skipped && o.Stage != fold.StageVerify:
		return d, conflict("replaying", on, "this run has no such stage", "towpath show "+run.Name())
	}
	if newer := newerIn(s.app, run, o.Stage, o.Env); newer != 0 {
		return d, conflict("replaying", on, fold.Name(run.App, newer)+" runs there by now", fmt.Sprintf("towpath rollback %s --env %s --to %s", run.App, o.Env, run.Name()))
	}
	if o.Attempt != 0 && o.Attempt != stage.Attempt+1 {
		return d, conflict("replaying", on, fmt.Sprintf("attempt %d of it is there by now%s", stage.Attempt, askedBy(stage)), "look again at what a replay would do: "+run.ReplayCommand(o.Stage, o.Env)+" --dry-run")
	}
	deploys := o.Stage == fold.StagePromote || o.Stage == fold.StageVerify && !s.stands(run, o)
	if denials := denialsOf(run, run.Env(o.Env)); deploys && len(denials) > 0 {
		return d, deniedBefore("replaying", on, run, denials[0])
	}
	env := o.Env
	if o.Stage == fold.StageBuild || o.Stage == fold.StageVet {
		env = ""
	}
	d.replay = &events.ReplayRequested{
		Stage: o.Stage, Environment: env, Attempt: stage.Attempt, Original: stage.LastEvent, Actor: s.actor, Reason: o.Reason, Rebuild: o.Rebuild,
	}
	if o.Policy == policyCurrent && s.newest != run.Policy {
		d.replay.Policy = s.newest
	}
	d.preview = s.foresee(run, d.replay, stage.Attempt+1)
	d.text = summary(d.preview, o)
	return d, nil
}

// stands reports whether a verification is to be replayed on the deployment that is there.
func (s scope) stands(run *fold.Run, o order) bool {
	slot := s.app.Env(o.Env).Slot(run.Env(o.Env).Slot)
	return slot != nil && slot.Open() && (o.Policy != policyCurrent || s.newest == run.Policy)
}

// askedBy says who asked for an attempt, as the end of a sentence; empty where nobody did.
func askedBy(stage fold.Stage) string {
	if stage.Replay == nil || stage.Replay.Actor == "" {
		return ""
	}
	return ", asked for by " + stage.Replay.Actor
}

// whichEnvironment says that an environment has to be named, and which.
func whichEnvironment(doing, on string, run *fold.Run, stage string) *problem {
	all := stoppedIn(run, stage)
	if len(all) == 0 {
		return invalid(doing, on, "no environment is named, and it has stopped in none", "name it with --env, one of "+joined(run.Definition.EnvironmentNames()))
	}
	return invalid(doing, on, "no environment is named, and it has stopped in more than one", "name it with --env, one of "+joined(all))
}

// halted reports whether a stage stopped short of its end.
func halted(s fold.Stage) bool {
	return s.Status == fold.Stuck || s.Status == fold.Failed || s.Status == fold.CancelledRun || s.Status == fold.Refused
}

// stopped is the first stage that is stuck, failed, cancelled or refused; in env alone, where one is named.
func stopped(run *fold.Run, in events.Slug) (stage string, env events.Slug) {
	if in == "" && halted(run.Build) {
		return fold.StageBuild, ""
	}
	if in == "" && halted(run.Vet) {
		return fold.StageVet, ""
	}
	for _, env := range run.Envs {
		if in != "" && env.Name != in {
			continue
		}
		if halted(env.Promote) {
			return fold.StagePromote, env.Name
		}
		if halted(env.Verify) {
			return fold.StageVerify, env.Name
		}
	}
	return "", in
}

// stoppedIn are the environments where a run's promotion or verification stopped short of its end.
func stoppedIn(run *fold.Run, stage string) []events.Slug {
	var all []events.Slug
	for _, env := range run.Envs {
		if stage == fold.StagePromote && (halted(env.Promote) || halted(env.Verify)) || stage == fold.StageVerify && halted(env.Verify) {
			all = append(all, env.Name)
		}
	}
	return all
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

// foresee says what a replay will do as far as no gate comes in between.
func (s scope) foresee(run *fold.Run, replay *events.ReplayRequested, attempt int) view.Preview {
	p := view.Preview{Stage: replay.Stage, Env: string(replay.Environment), Attempt: attempt, Pins: &view.Pins{Definition: run.Start.DefinitionDigest, Policy: run.Policy}}
	rejudged := replay.Policy != ""
	if rejudged {
		p.Pins.Policy, p.Pins.PolicyWas = replay.Policy, run.Policy
	}
	if run.Artifact != nil && replay.Stage != fold.StageBuild {
		p.Pins.Digest = run.Artifact.Digest
		p.Kept = append(p.Kept, "image "+shortDigest(run.Artifact.Digest))
	}
	deploys := replay.Stage == fold.StagePromote || replay.Stage == fold.StageVerify
	switch {
	case deploys && rejudged:
		p.Runs = append(p.Runs, fmt.Sprintf("vet, attempt %d, by the newest policy", run.Vet.Attempt+1))
	case deploys && run.Verdict != nil:
		p.Kept = append(p.Kept, "verdict of vetting")
	}
	built := replay.Stage == fold.StageBuild
	for _, e := range run.Envs {
		deployed := fmt.Sprintf("promote to %s, attempt %d, and verify there, with the new image", e.Name, e.Promote.Attempt+1)
		switch {
		case !e.Verified || e.Name == replay.Environment:
		case built && replay.Rebuild:
			p.Runs = append(p.Runs, deployed)
		case built:
			p.Maybe = append(p.Maybe, deployed)
		case e.Skipped != nil:
			p.Kept = append(p.Kept, fmt.Sprintf("%s, deployed, its verification skipped", e.Name))
		default:
			p.Kept = append(p.Kept, fmt.Sprintf("%s, deployed and verified", e.Name))
		}
	}
	again := func(what string) string { return fmt.Sprintf("%s, attempt %d", what, attempt) }
	env := replay.Environment
	switch replay.Stage {
	case fold.StageBuild:
		p.Runs = append([]string{again("build"), "vet"}, p.Runs...)
	case fold.StageVet:
		p.Runs = append(p.Runs, again("vet"))
	case fold.StageVerify:
		slot := s.app.Env(env).Slot(run.Env(env).Slot)
		if slot != nil && slot.Open() && !rejudged {
			p.Kept = append(p.Kept, fmt.Sprintf("deployment to %s (slot %d)", env, slot.N))
			p.Runs = append(p.Runs, again("verify in "+string(env)))
			break
		}
		p.Runs = append(p.Runs, fmt.Sprintf("promote to %s, attempt %d", env, run.Env(env).Promote.Attempt+1), again("verify in "+string(env)))
		p.Settings = s.settingChanges(run, env)
	default:
		p.Runs = append(p.Runs, again("promote to "+string(env)), "verify in "+string(env))
		p.Settings = s.settingChanges(run, env)
	}
	p.Approvals = s.approvalFates(run, replay)
	p.Fenced = fenced(run, replay)
	return p
}

// fenced names the attempts that are under way and that a replay puts an end to.
func fenced(run *fold.Run, replay *events.ReplayRequested) (attempts []string) {
	see := func(what string, stage fold.Stage) {
		if stage.Ended() || stage.Status != fold.Running && stage.Status != fold.Queued {
			return
		}
		since := stage.Started
		if since.IsZero() {
			since = stage.Since
		}
		attempts = append(attempts, fmt.Sprintf("%s, attempt %d, is under way since %s%s", what, stage.Attempt, since.UTC().Format(time.RFC3339), askedBy(stage)))
	}
	switch replay.Stage {
	case fold.StageBuild:
		see("build", run.Build)
		see("vet", run.Vet)
	case fold.StageVet:
		see("vet", run.Vet)
	}
	for _, e := range run.Envs {
		whole := replay.Environment == "" && !e.Verified || e.Name == replay.Environment
		if whole {
			see("promote to "+string(e.Name), e.Promote)
			see("verify in "+string(e.Name), e.Verify)
		}
	}
	return attempts
}

// summary is the preview in one line.
func summary(p view.Preview, o order) string {
	text := fmt.Sprintf("%s already done %s kept, %d will run, ", plural(len(p.Kept), "effect"), isAre(len(p.Kept)), len(p.Runs))
	if n := len(p.Maybe); n > 0 {
		text += fmt.Sprintf("%d more if the image differs, ", n)
	}
	if n := len(p.Fenced); n > 0 {
		text += fmt.Sprintf("%s under way will be fenced off, ", plural(n, "attempt"))
	}
	switch {
	case o.Stage != fold.StageBuild:
		text += "no rebuild"
	case o.Rebuild:
		text += "the image is built again"
	default:
		text += "the image is built again only if its source changed"
	}
	return text
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// settingChanges compares the settings of the run's last attempt in an environment, or else of what runs there, with
// those that are there now.
func (s scope) settingChanges(run *fold.Run, env events.Slug) []view.SettingChange {
	if s.present == nil {
		return nil
	}
	var changes []view.SettingChange
	for _, key := range s.missing {
		kind, name, _ := strings.Cut(key, " ")
		changes = append(changes, view.SettingChange{Key: name, Kind: kind, Missing: true})
	}
	before := s.app.Env(env).Live()
	for slot := range s.app.Env(env).Slots.Backward() {
		if slot.Kind == events.KindDeploy && slot.Run == run.N {
			before = slot
			break
		}
	}
	if before == nil || len(s.missing) > 0 {
		return changes
	}
	compare := func(kind settings.Kind, left, store string, was, is map[string]uint64) {
		for _, key := range keysOf(was, is) {
			if from := movedFrom(left, store, was[key], is[key]); was[key] != is[key] || from != "" {
				changes = append(changes, view.SettingChange{Key: key, Kind: string(kind), Was: was[key], Is: is[key], From: from})
			}
		}
	}
	compare(settings.Config, before.Pins.ConfigStore, s.present.ConfigStore, before.Pins.Config, s.present.Config)
	compare(settings.Secrets, before.Pins.SecretStore, s.present.SecretStore, before.Pins.Secrets, s.present.Secrets)
	return changes
}

// approvalFates says which of the approvals that count will count after the replay, and which denials stand. Only what is
// known now is said: a verdict that differs drops more.
func (s scope) approvalFates(run *fold.Run, replay *events.ReplayRequested) []view.Approval {
	if run.Artifact == nil {
		return nil
	}
	var fates []view.Approval
	built := replay.Stage == fold.StageBuild
	for _, e := range run.Envs {
		if e.Verified && e.Name != replay.Environment && !built {
			continue
		}
		since := s.since(run, e.Name)
		for _, c := range e.LastWords(run.Artifact.Digest) {
			fate := view.Approval{Env: string(e.Name), Actor: c.Actor, Denial: c.Verb == events.VerbDeny}
			if !fate.Denial && (c.Seq <= since || s.rule(run, e.Name).Count == 0) {
				continue
			}
			if !fate.Denial {
				fate.Why = s.drops(run, e.Name, replay)
			}
			switch {
			case fate.Why != "":
			case built && replay.Rebuild:
				fate.Why = "the image is built again, and an answer is about one image"
			case built:
				fate.Kept, fate.Why = true, "unless the image differs"
			default:
				fate.Kept = true
			}
			fates = append(fates, fate)
		}
	}
	return fates
}

// drops says why the approvals for an environment will no longer count; empty: they will.
func (s scope) drops(run *fold.Run, env events.Slug, replay *events.ReplayRequested) string {
	if replay.Policy == "" {
		return ""
	}
	was, is := s.rule(run, env), s.ruleBy(replay.Policy, run, env)
	switch {
	case was.Equal(is):
		return ""
	case was.Count != is.Count:
		return fmt.Sprintf("the newest policy asks for %s in %s, not %d", plural(is.Count, "approval"), env, was.Count)
	}
	return fmt.Sprintf("the newest policy says otherwise who may approve in %s", env)
}
