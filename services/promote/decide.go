package promote

import (
	"fmt"
	"maps"
	"slices"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
)

// Facts are what decide has to know besides the ledger.
type Facts struct {
	Epoch int
	URL   string // of the gateway, without a slash at the end
	// Switched is the slot that this process last sent the traffic to; 0: none yet. What an earlier
	// process did is done again: the switch is idempotent.
	Switched int
	// Cleaned is the state of the environment after which this process last removed what is not needed.
	Cleaned Cleaned
	// Gates holds, for each run that could be promoted, what stands before the environment.
	Gates map[int]Gate
	// Restore holds, for each slot that a command may bring back, its settings as they are now; none where a store of
	// settings does not answer.
	Restore map[int]events.Pins
}

// Cleaned says which slot was the last, and which got the traffic and was closed, when what is not
// needed was removed.
type Cleaned struct {
	Last   int
	Live   int
	Closed bool
}

// Gate is what stands before one run in one environment.
type Gate struct {
	Fault    string          // why its rules are not known; empty: they are
	Approval policy.Approval // of the run's policy, raised by its pipeline
	// Since is the sequence at which the gate's answer changed last: approvals up to it were given to
	// something else and do not count. 0: it never changed.
	Since   uint64
	Missing []settings.MissingKey
	Pins    events.Pins // present versions; complete only when nothing is missing
	// Unread says that its store of settings does not answer: Missing and Pins are not known.
	Unread bool
}

// Step is one thing to do next: Say, Deploy, Switch or Clean. After each one decide is asked again.
type Step interface{ step() }

// Say appends one event.
type Say struct {
	Subject events.Subject
	Chain   string
	Body    events.Body
	Links   []events.Link
}

// Deploy makes the replicas of an undecided slot ready and decides the slot.
type Deploy struct {
	Slot *fold.Slot
	Run  *fold.Run  // whose version it is
	From *fold.Slot // whose instances may be taken over; nil: none
}

// Switch sends the traffic to a live slot and waits until older replicas are idle. A slot of kind remove
// takes the traffic away.
type Switch struct {
	Slot *fold.Slot
	Run  *fold.Run // nil for kind remove
}

// Clean removes the replicas of every slot up to the last one, but those that kept slots have, their own
// or adopted.
type Clean struct {
	Keep []*fold.Slot
	UpTo int
	Then Cleaned
}

func (Say) step()    {}
func (Deploy) step() {}
func (Switch) step() {}
func (Clean) step()  {}

// Environments are the environments where an app has slots or runs that are not settled: those of its newest run in
// order, then the others.
func Environments(a *fold.App) []events.Slug {
	var all []events.Slug
	open := a.Unsettled
	if newest := a.Runs.Len(); newest > 0 && !slices.Contains(open, newest) {
		open = append(slices.Clone(open), newest)
	}
	for _, n := range slices.Backward(open) {
		for _, env := range a.Run(n).Envs {
			if !slices.Contains(all, env.Name) {
				all = append(all, env.Name)
			}
		}
	}
	for _, env := range slices.Sorted(maps.Keys(a.Envs)) {
		if !slices.Contains(all, env) {
			all = append(all, env)
		}
	}
	return all
}

// view is one app's environment as decide looks at it.
type view struct {
	app   *fold.App
	name  events.Slug
	env   *fold.Env
	facts Facts
	found *found
}

// found keeps the candidates, which several questions are about.
type found struct {
	done bool
	all  []candidate
}

func newView(a *fold.App, env events.Slug, facts Facts) view {
	return view{app: a, name: env, env: a.Env(env), facts: facts, found: &found{}}
}

// decide returns what is to be done next for an app in one environment, or nil when nothing is: until an
// event wakes it again. Who decides is of no account: every outcome is an event that can be written
// once, and every effect may be carried out again.
//
// A slot in flight comes first. Once none is, what the last one left is put in order: how its promotion
// ended, the end of the whole environment, an operator's wish, a rejected version taken back, the plan of an
// environment that somebody made, the traffic, the old replicas. Then the next run may come.
func decide(a *fold.App, env events.Slug, facts Facts) Step {
	v := newView(a, env, facts)
	for _, next := range []func() Step{
		v.giveUp, v.announce, v.carryOn, v.conclude, v.vacate, v.restore, v.bringBack, v.furnish, v.direct, v.clean, v.gates, v.take,
	} {
		if s := next(); s != nil {
			return s
		}
	}
	return nil
}

// interject returns what can be said at once although somebody is at work on the environment: that a
// slot is not wanted any more, and what other runs wait for. It is always a Say, or nil.
func interject(a *fold.App, env events.Slug, facts Facts) Step {
	v := newView(a, env, facts)
	if s := v.giveUp(); s != nil {
		return s
	}
	return v.announce()
}

// announce says what the others wait for before the long work on a slot begins.
func (v view) announce() Step {
	if v.inFlight() {
		return v.gates()
	}
	return nil
}

// conclude says how the promotion ended that took the last slot.
func (v view) conclude() Step {
	s := v.env.Last()
	if s == nil || s.Open() || s.Kind != events.KindDeploy {
		return nil
	}
	run, env := v.holder(s)
	if env == nil || env.Concluded {
		return nil
	}
	switch {
	case s.Decision == events.Abandoned:
		if no := env.Denials(s.Digest); len(no) > 0 && s.Outcome == events.Cancel && !env.Promote.Ended() {
			return v.denied(run, env, Gate{}, no[0])
		}
		return v.finished(run, env, s.Outcome, s.Trouble)
	case s.Closing.Stands():
		return v.finished(run, env, events.Success, nil)
	case s.Closing == events.Rejected:
		return v.finished(run, env, events.Failure, rejection(s))
	}
	return v.finished(run, env, events.Cancel, &events.Trouble{What: "promoting to " + string(v.name), Why: s.Why})
}

func rejection(s *fold.Slot) *events.Trouble {
	if s.Trial != nil && s.Trial.Trouble != nil {
		return s.Trial.Trouble
	}
	return &events.Trouble{What: "verifying in " + string(s.Environment), Why: s.Why}
}

// direct makes sure that the traffic is where the ledger says, unless it is about to go elsewhere.
func (v view) direct() Step {
	live := v.env.Live()
	if v.env.Gone || live == nil || v.facts.Switched >= live.N || v.yields(live) && v.next() != nil {
		return nil
	}
	return Switch{Slot: live, Run: v.version(live)}
}

// clean removes the replicas that nothing needs: neither the traffic nor, while what has the traffic is
// not proven, a way back.
func (v view) clean() Step {
	last := v.env.Last()
	if v.env.Gone || last == nil || last.Decision == "" || last.Open() && last.Kind == events.KindDeploy {
		return nil
	}
	var keep []*fold.Slot
	then := Cleaned{Last: last.N}
	if live := v.env.Live(); live != nil {
		then.Live, then.Closed = live.N, live.Closing != ""
		keep = append(keep, live)
		if good := v.env.Good(live.N); good != nil && !live.Closing.Stands() {
			keep = append(keep, good)
		}
	}
	if v.facts.Cleaned == then {
		return nil
	}
	return Clean{Keep: keep, UpTo: last.N, Then: then}
}

// holder returns the run that took a slot of kind deploy and its place in the environment, or nils where
// another attempt has taken its place.
func (v view) holder(s *fold.Slot) (*fold.Run, *fold.RunEnv) {
	run := v.app.Run(s.Run)
	if run == nil {
		return nil, nil
	}
	env := run.Env(v.name)
	if env == nil || env.Slot != s.N || env.Promote.Attempt != s.Attempt {
		return nil, nil
	}
	return run, env
}

// version returns the run whose version a slot holds, or nil.
func (v view) version(s *fold.Slot) *fold.Run { return v.app.Run(s.Run) }

// place names the app in the environment, for people.
func (v view) place() string { return fmt.Sprintf("%s in %s", v.app.Name, v.name) }
