package watch

import (
	"fmt"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/policy"
)

// due is a stage that somebody must look at once its deadline has passed.
type due struct {
	run     *fold.Run
	stage   string
	env     events.Slug
	attempt int
	nth     int       // for the nth time the attempt is found stuck
	since   time.Time // when the stage's turn came, or its attempt began
	at      time.Time // its deadline; since for an attempt that ended in an error
	why     string
	cause   string // why, in words that every stage shares which is stuck for the same reason
	tries   int    // within the attempt; 0: not known
	overdue bool   // nothing has ended it, and what is tried at it may say why
}

// decide returns what an app's runs wait for that nobody was asked to give: the stages that ended in an
// error, and those that a worker has to bring to an end by a deadline. What waits for a person, for
// another run or for a hold to be lifted has no deadline, and a deadline counts anew from when a hold ended.
// policies holds the policies that runs pin, by
// digest; a run without its policy is judged by otherwise.
func decide(a *fold.App, policies map[string]policy.Policy, otherwise policy.Policy) []due {
	var all []due
	for run := range a.Open() {
		p, ok := policies[run.Policy]
		if !ok {
			p = otherwise
		}
		all = append(all, errored(run)...)
		if a.Hold == nil && !run.Status().Ended() {
			all = append(all, current(a, run, p)...)
		}
	}
	return all
}

// errored returns the stages whose present attempt ended in an error that was not reported yet.
func errored(run *fold.Run) []due {
	var all []due
	add := func(name string, env events.Slug, s fold.Stage) {
		if s.Outcome != events.Error || s.Stuck != nil || run.Cancelled != nil {
			return
		}
		d := due{
			run: run, stage: name, env: env, attempt: s.Attempt, nth: s.Reported + 1, since: s.Finished, at: s.Finished, why: "it ended in an error",
		}
		if s.Trouble != nil {
			d.why, d.tries = s.Trouble.String(), s.Trouble.Tries
		}
		if d.cause = run.Cause(s); d.cause == "" {
			d.cause = d.why
		}
		all = append(all, d)
	}
	add(fold.StageBuild, "", run.Build)
	add(fold.StageVet, "", run.Vet)
	for _, e := range run.Envs {
		add(fold.StagePromote, e.Name, e.Promote)
		add(fold.StageVerify, e.Name, e.Verify)
	}
	return all
}

// current returns the stage whose turn it is, if a worker has to end it.
func current(a *fold.App, run *fold.Run, p policy.Policy) []due {
	since := run.Created
	if !run.Image {
		if !run.Build.Ended() {
			return stage(a, run, fold.StageBuild, "", run.Build, since, p)
		}
		since = run.Build.Finished
	}
	if !run.Vet.Ended() {
		return stage(a, run, fold.StageVet, "", run.Vet, since, p)
	}
	since = run.Vet.Finished
	e := run.Next()
	if e == nil {
		return nil
	}
	for _, before := range run.Envs {
		if before == e {
			break
		}
		if s := a.Env(before.Name).Slot(before.Slot); s != nil {
			since = later(since, s.ClosedAt)
		}
	}
	if !e.Promote.Ended() {
		if e.Promote.Status == fold.Waiting {
			answered := lastAnswer(e)
			if !answered.After(e.Promote.Since) {
				return nil
			}
			since = later(since, answered)
		}
		return stage(a, run, fold.StagePromote, e.Name, e.Promote, since, p)
	}
	if !e.Verify.Ended() {
		return stage(a, run, fold.StageVerify, e.Name, e.Verify, e.Promote.Finished, p)
	}
	return stage(a, run, fold.StagePromote, e.Name, e.Promote, e.Verify.Finished, p) // which closes the slot by the result
}

// lastAnswer is when somebody last approved or denied: after that it is promote's turn to say something.
func lastAnswer(e *fold.RunEnv) time.Time {
	var last time.Time
	for _, c := range e.Responses {
		last = later(last, c.At)
	}
	return last
}

func stage(a *fold.App, run *fold.Run, name string, env events.Slug, s fold.Stage, since time.Time, p policy.Policy) []due {
	if s.Stuck != nil {
		return nil
	}
	if s.Replay != nil {
		since = later(since, s.Replay.At)
	}
	since = later(later(since, s.Started), a.Resumed)
	if s.Reported > 0 {
		since = later(since, s.Since)
	}
	limit := p.Deadline(name)
	return []due{{
		run: run, stage: name, env: env, attempt: s.Attempt, nth: s.Reported + 1, since: since, at: since.Add(limit),
		why: fmt.Sprintf("nothing has ended it within %s", limit), cause: "its deadline passed", overdue: true,
	}}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// key names the due stage's wake-up; another attempt, or another deadline, has another.
func (d due) key() events.Slug {
	return events.Key(d.run.ChainID, d.stage, string(d.env), fmt.Sprint(d.attempt), d.at.UTC().Format(time.RFC3339Nano))
}

// stuck is the event that says so.
func (d due) stuck() *events.StageStuck {
	s, _ := d.run.Stage(d.stage, d.env)
	last := s.LastEvent
	if last == "" {
		last = d.run.StartEvent
	}
	id := d.run.Name() + "/" + d.stage
	if d.env != "" {
		id += "/" + string(d.env)
	}
	return &events.StageStuck{
		About: events.About{ID: id}, Stage: d.stage, Environment: d.env, Attempt: d.attempt,
		LastEvent: last, Since: d.since, LastError: d.why, Cause: d.cause, Deliveries: d.tries, Command: d.run.ReplayCommand(d.stage, d.env),
	}
}
