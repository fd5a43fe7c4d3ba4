// Package view is the gateway's read model: what people and programs are shown, as a pure function of the fold. The
// same fold always gives the same view; nothing here reads a clock, a disk or the network.
package view

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
)

// Run is one change of one app on its way.
type Run struct {
	App      string      `json:"app"`
	Run      string      `json:"run"` // "hello/1"
	Number   int         `json:"number"`
	Commit   string      `json:"commit,omitempty"` // empty for an image that was built elsewhere
	Ref      string      `json:"ref,omitempty"`
	Digest   string      `json:"digest,omitempty"` // sha256:…, once there is an artifact
	Status   fold.Status `json:"status"`
	Detail   string      `json:"detail,omitempty"`  // why it is in that status
	For      string      `json:"for,omitempty"`     // who has to act
	Command  string      `json:"command,omitempty"` // what they do
	Created  time.Time   `json:"created"`
	Finished *time.Time  `json:"finished,omitempty"`
	URL      string      `json:"url,omitempty"` // page for people
	Stages   []Stage     `json:"stages"`
	Seq      uint64      `json:"seq"` // the last event that changed its app
}

// Stage is one stage of a run, in its present attempt.
type Stage struct {
	Stage    string      `json:"stage"`         // build, vet, promote, verify
	Env      string      `json:"env,omitempty"` // promote and verify
	Attempt  int         `json:"attempt"`
	Status   fold.Status `json:"status"`
	Started  *time.Time  `json:"started,omitempty"`
	Finished *time.Time  `json:"finished,omitempty"`
	Detail   string      `json:"detail,omitempty"`
	For      string      `json:"for,omitempty"`
	Command  string      `json:"command,omitempty"`
	Replay   *Asked      `json:"replay,omitempty"`   // who asked for this attempt; absent for the first
	Skipped  *Asked      `json:"skipped,omitempty"`  // of verify: who skipped it
	Replaced *Asked      `json:"replaced,omitempty"` // of promote: who brought another version back in its place
	Tries    int         `json:"tries,omitempty"`    // that failed, of one that is tried again by itself
	Next     *time.Time  `json:"nextTry,omitempty"`  // when it is
}

// Asked is who asked for something, and why.
type Asked struct {
	Actor  string     `json:"actor"`
	Reason string     `json:"reason,omitempty"`
	Run    string     `json:"run,omitempty"`    // whose version came back
	Parent string     `json:"parent,omitempty"` // id of the command that this was a part of
	At     *time.Time `json:"at,omitempty"`
}

// Took is how long the stage has been at work, until it finished or until now; 0 before it began.
func (s Stage) Took(now time.Time) time.Duration {
	switch {
	case s.Started == nil:
		return 0
	case s.Finished != nil:
		return s.Finished.Sub(*s.Started)
	}
	return max(0, now.Sub(*s.Started))
}

// Through reports whether the stage holds nothing up any more.
func (s Stage) Through() bool { return s.Status == fold.Done || s.Status == fold.Skipped }

// Stage returns a stage of the run; env is empty for build and vet.
func (v Run) Stage(name, env string) (Stage, bool) {
	for _, s := range v.Stages {
		if s.Stage == name && s.Env == env {
			return s, true
		}
	}
	return Stage{}, false
}

// Ahead tells of an environment that the run has not reached what will keep it from entering, and what to do.
func (v Run) Ahead(env, why, command string) {
	for i, s := range v.Stages {
		if s.Stage == fold.StagePromote && s.Env == env && s.Status == fold.Pending {
			v.Stages[i].Detail, v.Stages[i].Command = why, command
		}
	}
}

// Blocked reports whether what keeps a run from entering the stage's environment is known before it gets there.
func (s Stage) Blocked() bool { return s.Status == fold.Pending && s.Detail != "" }

// Envs are the run's environments, in its order.
func (v Run) Envs() []string {
	var names []string
	for _, s := range v.Stages {
		if s.Stage == fold.StagePromote {
			names = append(names, s.Env)
		}
	}
	return names
}

// because is the reason as the end of a sentence.
func (a Asked) because() string {
	if a.Reason == "" {
		return ""
	}
	return ": " + a.Reason
}

// Who acts, in the words of the CLI.
const (
	forAuthor   = "the author"
	forOperator = "an operator"
	forApprover = "an approver"
)

// NewRun shows a run of an app. url is its page.
func NewRun(app *fold.App, run *fold.Run, url string) Run {
	v := Run{
		App: string(run.App), Run: run.Name(), Number: run.N, Commit: run.Start.SHA, Ref: run.Start.Ref,
		Status: app.StatusOf(run), Created: run.Created, URL: url, Seq: app.Seq,
	}
	if run.Artifact != nil {
		v.Digest = run.Artifact.Digest
	}
	v.Stages = append(v.Stages, stageOf(run, fold.StageBuild, nil, run.Build), stageOf(run, fold.StageVet, nil, run.Vet))
	for _, env := range run.Envs {
		v.Stages = append(v.Stages, stageOf(run, fold.StagePromote, env, env.Promote), stageOf(run, fold.StageVerify, env, env.Verify))
	}
	v.held(app, run)
	v.replaced(app, run)
	v.changed(app, run)
	v.explain(run)
	if run.Status().Ended() && run.Status() != fold.Stuck {
		v.Finished = lastMoment(run)
	}
	return v
}

// held marks the stage that a hold keeps from beginning.
func (v *Run) held(app *fold.App, run *fold.Run) {
	if app.Hold == nil || run.Status().Ended() {
		return
	}
	for i, s := range v.Stages {
		if s.Status != fold.Pending && s.Status != fold.Queued && s.Status != fold.Waiting {
			continue
		}
		if s.Status == fold.Waiting && s.Detail != "" {
			return
		}
		v.Stages[i].Status = fold.Waiting
		v.Stages[i].Detail, v.Stages[i].For, v.Stages[i].Command = Held(app)
		return
	}
}

// replaced marks the environments where an earlier version was brought back in place of this run's.
func (v *Run) replaced(app *fold.App, run *fold.Run) {
	for i, s := range v.Stages {
		env := run.Env(events.Slug(s.Env))
		if env == nil || s.Stage != fold.StagePromote || env.Slot == 0 {
			continue
		}
		slots := app.Env(env.Name)
		for n := env.Slot + 1; slots.Slot(n) != nil; n++ {
			next := slots.Slot(n)
			if next.Decision != events.Live {
				continue
			}
			if next.Kind == events.KindRestore {
				by := Asked{Actor: next.Actor, Reason: next.Reason, Run: fold.Name(run.App, next.Run), At: moment(next.DecidedAt)}
				v.Stages[i].Replaced = &by
				v.Stages[i].Detail = fmt.Sprintf("%s brought %s back in its place%s", by.Actor, by.Run, by.because())
				v.Stages[i].Command = fmt.Sprintf("towpath promote %s --env %s", run.Name(), env.Name)
			}
			break
		}
	}
}

// changed marks the environments that the run's version has, and in which something is no longer as it was verified: its
// settings were changed since, or something was changed behind Towpath's back.
func (v *Run) changed(app *fold.App, run *fold.Run) {
	for i, s := range v.Stages {
		env := app.Env(events.Slug(s.Env))
		live := env.Live()
		if s.Env == "" || !s.Through() || live == nil || live.Run != run.N || live.Kind == events.KindRemove {
			continue
		}
		var lines []string
		switch s.Stage {
		case fold.StageVerify:
			for _, one := range env.Stale(live) {
				lines = append(lines, Stale(one).String())
			}
			if len(lines) > 0 && v.Stages[i].Command == "" {
				v.Stages[i].Command = run.ReplayCommand(fold.StageVerify, env.Name)
			}
		case fold.StagePromote:
			for _, one := range env.Drifts {
				lines = append(lines, newDrift(one).String())
			}
		}
		if s.Detail != "" {
			lines = append([]string{s.Detail}, lines...)
		}
		v.Stages[i].Detail = strings.Join(lines, "\n")
	}
}

// Held says why nothing of an app begins, who ends that, and how; empty where nothing holds it.
func Held(app *fold.App) (why, who, command string) {
	if app.Hold == nil {
		return "", "", ""
	}
	why, command = "held", "towpath resume "+string(app.Name)
	if app.Hold.All {
		why, command = "everything is held", "towpath resume --all"
	}
	if app.Hold.Reason != "" {
		why += ": " + app.Hold.Reason
	}
	return why, forOperator, command
}

// explain says of the whole run what its stages do not say, or takes over what the decisive stage says.
func (v *Run) explain(run *fold.Run) {
	switch v.Status {
	case fold.CancelledRun:
		if run.Cancelled != nil {
			v.Detail = run.Cancelled.Reason
		}
		return
	case fold.Superseded:
		v.Detail = fold.Name(run.App, run.SupersededBy) + " took its place"
		return
	}
	for _, s := range v.Stages {
		if s.Status == v.Status && s.Status != fold.Done && s.Status != fold.Running {
			v.Detail, v.For, v.Command = s.Detail, s.For, s.Command
			return
		}
	}
}

func stageOf(run *fold.Run, name string, env *fold.RunEnv, s fold.Stage) Stage {
	v := Stage{Stage: name, Attempt: s.Attempt, Status: s.Status, Started: moment(s.Started), Finished: moment(s.Finished)}
	if env != nil {
		v.Env = string(env.Name)
	}
	if s.Replay != nil && s.Replay.Actor != "" {
		v.Replay = &Asked{Actor: s.Replay.Actor, Reason: s.Replay.Reason, Parent: s.Replay.Parent, At: moment(s.Replay.At)}
	}
	switch s.Status {
	case fold.Pending:
		if s.Replay != nil && !run.Status().Ended() {
			v.Status, v.Detail = fold.Queued, fmt.Sprintf("attempt %d was asked for", s.Attempt)
		}
	case fold.Queued:
		v.Detail = "waits for a free builder"
	case fold.Waiting:
		v.Detail, v.For, v.Command = waiting(run, env)
	case fold.Failed:
		v.Detail, v.For, v.Command = troubled(s), forAuthor, failedCommand(run, name, env, s)
	case fold.Refused:
		v.Detail = troubled(s)
		if env != nil && env.Denied != nil && env.Denied.Responder != "" {
			v.For, v.Command = env.Denied.Responder, fmt.Sprintf("towpath approve %s --env %s", run.Name(), env.Name)
		}
	case fold.Stuck:
		v.Detail, v.For, v.Command = troubled(s), forOperator, stuckCommand(run, name, env, s)
	case fold.Done:
		if name == fold.StageVet {
			v.Detail = verdict(run)
		}
	case fold.Skipped:
		v.Detail = "the image was built elsewhere"
		if env != nil {
			v.skipped(env)
		}
	}
	return v
}

// skipped says who skipped the verification in an environment.
func (v *Stage) skipped(env *fold.RunEnv) {
	var by Asked
	switch {
	case env.Skipped != nil:
		by = Asked{Actor: env.Skipped.Actor, Reason: env.Skipped.Reason}
	case env.Skip != nil:
		by = Asked{Actor: env.Skip.Actor, Reason: env.Skip.Reason, At: moment(env.Skip.At)}
	}
	v.Skipped, v.Replay, v.Detail = &by, nil, fmt.Sprintf("not verified: %s skipped it%s", by.Actor, by.because())
}

// waiting says what keeps a run out of an environment.
func waiting(run *fold.Run, env *fold.RunEnv) (why, who, command string) {
	switch {
	case env == nil:
		return "", "", ""
	case env.Waiting != nil:
		return env.Waiting.Reason, env.Waiting.For, env.Waiting.Command
	case env.Requested != nil:
		why = fmt.Sprintf("%d of %s given", len(env.Approvals), count(env.Requested.Wanted, "approval"))
		return why, forApprover, fmt.Sprintf("towpath approve %s --env %s", run.Name(), env.Name)
	}
	return "", "", ""
}

// troubled is what went wrong and, below it, the last lines of the log.
func troubled(s fold.Stage) string {
	switch {
	case s.Trouble != nil:
		return strings.Join(append([]string{s.Trouble.String()}, s.Trouble.Log...), "\n")
	case s.Stuck != nil:
		return s.Stuck.LastError
	}
	return ""
}

// failedCommand is for the author: a new commit, or another try where a setting may have been at fault.
func failedCommand(run *fold.Run, name string, env *fold.RunEnv, s fold.Stage) string {
	do := "fix and push"
	if s.Trouble != nil && s.Trouble.Do != "" {
		do = s.Trouble.Do
	}
	if name == fold.StageVerify && !strings.Contains(do, "towpath replay") {
		do += ", or mend the settings and " + run.ReplayCommand(fold.StagePromote, env.Name)
	}
	return do
}

func stuckCommand(run *fold.Run, name string, env *fold.RunEnv, s fold.Stage) string {
	if s.Stuck != nil && s.Stuck.Command != "" {
		return s.Stuck.Command
	}
	if env != nil {
		return run.ReplayCommand(name, env.Name)
	}
	return run.ReplayCommand(name, "")
}

// verdict says what vetting found, environments with the same words on one line; empty where all pass.
func verdict(run *fold.Run) string {
	if run.Verdict == nil {
		return ""
	}
	var reasons []string
	where := map[string][]string{}
	for _, v := range run.Verdict.Verdicts {
		if v.Verdict == events.Pass {
			continue
		}
		for _, reason := range v.Reasons {
			text := string(v.Verdict) + ": " + strings.TrimPrefix(reason, string(v.Verdict)+": ")
			if where[text] == nil {
				reasons = append(reasons, text)
			}
			where[text] = append(where[text], string(v.Environment))
		}
	}
	var lines []string
	for _, reason := range reasons {
		lines = append(lines, strings.Join(where[reason], ", ")+": "+reason)
	}
	return strings.Join(lines, "\n")
}

// lastMoment is when the last thing happened to a run.
func lastMoment(run *fold.Run) *time.Time {
	last := run.Created
	stages := []fold.Stage{run.Build, run.Vet}
	for _, env := range run.Envs {
		stages = append(stages, env.Promote, env.Verify)
	}
	for _, s := range stages {
		if s.Since.After(last) {
			last = s.Since
		}
	}
	if run.Cancelled != nil && run.Cancelled.At.After(last) {
		last = run.Cancelled.At
	}
	return &last
}

func moment(at time.Time) *time.Time {
	if at.IsZero() {
		return nil
	}
	return &at
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Runs shows runs of all apps or one, newest first; state, where not empty, chooses by status.
func Runs(apps []*fold.App, app events.Slug, state string, url func(events.Slug, int) string) []Run {
	all := []Run{}
	for _, a := range apps {
		if app != "" && a.Name != app {
			continue
		}
		for run := range a.Runs.All() {
			if state == "" || string(a.StatusOf(run)) == state {
				all = append(all, NewRun(a, run, url(a.Name, run.N)))
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Run) int {
		if order := b.Created.Compare(a.Created); order != 0 {
			return order
		}
		return b.Number - a.Number
	})
	return all
}
