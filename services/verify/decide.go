package verify

import (
	"fmt"
	"strings"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pipeline"
)

// trial is the verification of one slot.
type trial struct {
	slot    *fold.Slot
	run     *fold.Run
	attempt int
	service pipeline.Service
	checks  []pipeline.Check
	replay  *fold.Replay // what asked for this attempt, if it was not taken up yet
	skip    *events.Skip // nothing is to be verified, because somebody said so; nil: it is
}

// decide returns the verification that an environment of an app is to have now: that of its live slot,
// while the slot is open and the present attempt has no result. A slot under which nothing runs has
// none.
func decide(a *fold.App, env events.Slug) (trial, bool) {
	s := a.Env(env).Last()
	if s == nil || s.Decision != events.Live || !s.Open() || s.Trial != nil || s.Kind == events.KindRemove {
		return trial{}, false
	}
	run := a.Run(s.Run)
	if run == nil || s.Kind == events.KindDeploy && (run.Cancelled != nil || run.SupersededBy != 0) {
		return trial{}, false
	}
	t := trial{slot: s, run: run, attempt: s.TrialAttempt, service: *run.Definition.Service}
	if e, ok := run.Definition.Environment(s.Defined()); ok {
		t.checks = e.Verify
	}
	e := run.Env(env)
	if e == nil || e.Slot != s.N {
		return t, true
	}
	if e.Verify.Replay != nil && !e.Verify.Replayed {
		t.replay = e.Verify.Replay
	}
	if c := e.Skip; c != nil {
		t.skip = &events.Skip{Command: c.ID, Actor: c.Actor, Reason: c.Reason}
	}
	return t, true
}

// result is how one check ended.
type result struct {
	name    string
	outcome events.Outcome
	why     string // for anything but success
	log     []string
}

// conclude makes the verification's end out of its checks: it is a success when every check is.
func (t trial) conclude(results []result) (events.Outcome, *events.Trouble) {
	var failed []string
	var log []string
	for _, r := range results {
		if r.outcome == events.Success {
			continue
		}
		failed = append(failed, r.name+": "+r.why)
		log = append(log, r.log...)
	}
	if len(failed) == 0 {
		return events.Success, nil
	}
	if len(log) > 30 {
		log = log[len(log)-30:]
	}
	return events.Failure, &events.Trouble{
		What: fmt.Sprintf("verifying %s in %s", t.run.Name(), t.slot.Environment),
		Why:  strings.Join(failed, "; "),
		Do:   "fix and push; where a setting is at fault, correct it and " + t.run.ReplayCommand(fold.StagePromote, t.slot.Environment),
		Log:  log,
	}
}
