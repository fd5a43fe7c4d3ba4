package build

import (
	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
)

// action is what build does next for a run.
type action int

const (
	rest   action = iota // nothing: it is not build's turn, or no longer
	make_                // build the present attempt
	stop                 // record that the attempt was cancelled
	finish               // write what is still missing after the attempt's end
)

// decision is what build does next for a run, and why.
type decision struct {
	action  action
	why     string // for rest and stop
	attempt int
	replay  *fold.Replay // what asked for this attempt, if it was not taken up yet
	fresh   bool         // build even where the same tree was built before
	outcome events.Outcome
}

// decide says what to do for a run, given what the ledger says.
func decide(a *fold.App, r *fold.Run) decision {
	s := &r.Build
	d := decision{attempt: s.Attempt, outcome: s.Outcome}
	begun := s.Status == fold.Running || s.Status == fold.Queued || s.Stuck != nil
	ended := func(why string) decision {
		d.why = why
		if begun {
			d.action, d.outcome = stop, events.Cancel
		}
		return d
	}
	switch {
	case r.Image:
		d.why = "the image was built elsewhere"
	case s.Concluded:
		d.why = "the attempt has ended"
	case s.Ended():
		d.action = finish
	case r.Cancelled != nil:
		return ended("the run was cancelled")
	case r.SupersededBy != 0:
		return ended("run " + fold.Name(r.App, r.SupersededBy) + " took its place")
	case a.Hold != nil && !begun:
		d.why = "the app is on hold"
	default:
		d.action = make_
		d.fresh = r.Start.Rebuild || s.Replay != nil && s.Replay.Rebuild
		if s.Replay != nil && !s.Replayed {
			d.replay = s.Replay
		}
	}
	return d
}

// overtaken reports whether what is decided now says that the attempt is not to go on: it is not to be
// made any more, another one is, or it was ended without an image. That it has its image may be its own
// doing.
func (d decision) overtaken(attempt int) bool {
	return d.attempt != attempt || d.action != make_ && d.outcome != events.Success
}

// woken returns the runs of an app that an event may have given build something to do for.
func woken(a *fold.App, e events.Event, run int) []int {
	switch b := e.Body.(type) {
	case *events.ChangeMerged:
		if r := a.StartedBy(e.ID); r != nil {
			return []int{r.N}
		}
	case *events.ReplayRequested:
		if b.Stage == fold.StageBuild {
			return []int{run}
		}
	case *events.CommandReceived:
		switch b.Verb {
		case events.VerbCancel:
			return []int{b.Run}
		case events.VerbResume:
			return waiting(a)
		}
	}
	return nil
}

// waiting lists the runs that a hold has kept from being built, or that were begun when one ended.
func waiting(a *fold.App) []int {
	var all []int
	for r := range a.Open() {
		if decide(a, r).action != rest {
			all = append(all, r.N)
		}
	}
	return all
}
