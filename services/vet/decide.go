package vet

import (
	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
)

// action is what vet does next for a run.
type action int

const (
	rest  action = iota // nothing: it is not vet's turn, or no longer
	judge               // make the present attempt
	stop                // record that the attempt was cancelled
)

// decision is what vet does next for a run, and why.
type decision struct {
	action  action
	why     string // for rest and stop
	attempt int
	replay  *fold.Replay // what asked for this attempt, if it was not taken up yet
}

// decide says what to do for a run, given what the ledger says.
func decide(a *fold.App, r *fold.Run) decision {
	s := &r.Vet
	d := decision{attempt: s.Attempt}
	begun := s.Status == fold.Running || s.Stuck != nil
	ended := func(why string) decision {
		d.why = why
		if begun {
			d.action = stop
		}
		return d
	}
	switch {
	case s.Ended():
		d.why = "the attempt has ended"
	case r.Artifact == nil:
		d.why = "there is no artifact"
	case r.Cancelled != nil:
		return ended("the run was cancelled")
	case r.SupersededBy != 0:
		return ended("run " + fold.Name(r.App, r.SupersededBy) + " took its place")
	case a.Hold != nil && !begun:
		d.why = "the app is on hold"
	default:
		d.action = judge
		if s.Replay != nil && s.Replay.EventID != "" && !s.Replayed {
			d.replay = s.Replay
		}
	}
	return d
}

// overtaken reports whether an attempt at judging a run's artifact, as the run was, is not to go on as the
// ledger is now: it is to be stopped, or was ended without a verdict; another attempt is to be made; or the
// run has another artifact.
func overtaken(attempt int, before *fold.Run, a *fold.App, now *fold.Run) bool {
	failed := now.Vet.Ended() && now.Vet.Outcome != events.Success
	return failed || now.Vet.Attempt != attempt || now.ArtifactID != before.ArtifactID || decide(a, now).action == stop
}

// woken returns the runs of an app that an event may have given vet something to do for. run is the
// number in the event's subject, if any.
func woken(a *fold.App, e events.Event, run int) []int {
	switch b := e.Body.(type) {
	case *events.ArtifactPublished:
		if run != 0 {
			return []int{run}
		}
		if r := a.StartedBy(e.ID); r != nil {
			return []int{r.N}
		}
	case *events.ReplayRequested:
		return []int{run}
	case *events.CommandReceived:
		if b.Run != 0 {
			return []int{b.Run}
		}
		return waiting(a)
	}
	return nil
}

// waiting lists the runs of which the present attempt has not ended and may go on.
func waiting(a *fold.App) []int {
	var all []int
	for r := range a.Open() {
		if decide(a, r).action != rest {
			all = append(all, r.N)
		}
	}
	return all
}
