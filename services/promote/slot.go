package promote

import (
	"fmt"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
)

// giveUp ends a slot in flight that is not wanted any more: an undecided one is abandoned, a live one
// that is not verified is closed as superseded.
func (v view) giveUp() Step {
	s := v.env.Last()
	if s == nil || !s.Open() {
		return nil
	}
	why, unwanted := v.unwanted(s)
	switch {
	case !unwanted:
		return nil
	case s.Decision == "":
		return v.abandoned(s, events.Cancel, &events.Trouble{What: "promoting to " + string(v.name), Why: why})
	}
	return v.closed(s, events.Superseded, why)
}

// unwanted says why a slot in flight is not to go on.
func (v view) unwanted(s *fold.Slot) (why string, unwanted bool) {
	if v.env.Ending != 0 && s.Kind != events.KindRemove {
		return fmt.Sprintf("%s is being destroyed", v.name), true
	}
	if s.Kind == events.KindRestore && s.From == 0 {
		return "no earlier version of " + v.place() + " can be brought back; name a run that was verified there", true
	}
	for _, c := range v.env.Rollbacks {
		if v.target(c) != nil {
			return fmt.Sprintf("%s asked for an earlier version%s", c.Actor, because(c.Reason)), true
		}
	}
	if s.Kind != events.KindDeploy {
		return "", false
	}
	run := v.app.Run(s.Run)
	if run == nil {
		return "its run is unknown", true
	}
	if c := run.Cancelled; c != nil {
		return fmt.Sprintf("cancelled by %s%s", c.Actor, because(c.Reason)), true
	}
	env := run.Env(v.name)
	if env == nil || env.Promote.Attempt != s.Attempt {
		return "another attempt takes its place", true
	}
	if run.SupersededBy != 0 {
		return "superseded by " + fold.Name(v.app.Name, run.SupersededBy), true
	}
	if no := env.Denials(s.Digest); len(no) > 0 && s.Decision == "" {
		return fmt.Sprintf("denied by %s%s", no[0].Actor, because(no[0].Reason)), true
	}
	return "", false
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// carryOn does the next thing for a slot in flight.
func (v view) carryOn() Step {
	s := v.env.Last()
	switch {
	case s == nil || !s.Open():
		return nil
	case s.Decision == "" && s.Kind == events.KindRemove:
		return v.live(s, nil)
	case s.Decision == "":
		return v.deploy(s)
	case v.facts.Switched < s.N:
		return Switch{Slot: s, Run: v.version(s)}
	case !s.Deployed && (s.Kind != events.KindRemove || v.served(s.N)):
		return v.deployed(s)
	case s.Kind == events.KindRemove:
		return v.closed(s, events.Verified, "")
	case s.Trial == nil:
		return nil
	case s.Trial.Skipped != nil:
		return v.unverified(s, *s.Trial.Skipped)
	}
	switch s.Trial.Outcome {
	case events.Success:
		return v.closed(s, events.Verified, "")
	case events.Failure:
		return v.closed(s, events.Rejected, s.Trial.Reason)
	case events.Error:
		// Nobody knows whether the version is good. It stays until an operator has it verified again, or
		// until another may come.
		if next := v.next(); next != nil {
			return v.closed(s, events.Superseded, next.run.Name()+" takes its place: "+s.Trial.Reason)
		}
	}
	return nil
}

// deploy brings up the version of an undecided slot. What an operator brings back gets today's secrets, so
// it needs new replicas; what comes back by itself is as it was.
func (v view) deploy(s *fold.Slot) Step {
	d := Deploy{Slot: s, Run: v.version(s)}
	if s.Kind == events.KindRollback {
		d.From = v.env.Slot(s.From)
	}
	return d
}

// restore takes a slot for the oldest command that asks for an earlier version. Where there is none to
// bring back, the slot is taken all the same, and abandoned with that reason, so that the command has
// its answer in the ledger.
func (v view) restore() Step {
	if v.inFlight() || v.env.Ending != 0 || len(v.env.Rollbacks) == 0 {
		return nil
	}
	c := v.env.Rollbacks[0]
	b := v.claim(events.KindRestore)
	b.Command = c.ID
	if target := v.target(c); target != nil {
		v.carry(b, target)
		pins, known := v.facts.Restore[target.N]
		switch {
		case c.WithSecrets:
			b.Pins = target.Pins
		case !known && len(target.Pins.Secrets) > 0:
			return nil
		default:
			b.Pins = events.Pins{
				Config: target.Pins.Config, ConfigStore: target.Pins.ConfigStore, Secrets: pins.Secrets, SecretStore: pins.SecretStore,
			}
		}
	}
	return v.taken(b)
}

// target returns the slot whose version a command wants back, or nil where there is none. A command that
// names neither slot nor run wants the last version that was verified before the one that has the
// traffic now.
func (v view) target(c fold.Command) *fold.Slot {
	switch {
	case c.Slot > 0:
		if s := v.env.Slot(c.Slot); s != nil && s.Decision == events.Live && s.Digest != "" {
			return v.env.Origin(s)
		}
		return nil
	case c.Run > 0:
		return v.proven(v.env.Slots.Len(), func(s *fold.Slot) bool { return s.Run == c.Run })
	}
	live := v.env.Live()
	if live == nil {
		return nil
	}
	return v.proven(v.env.Origin(live).N-1, func(s *fold.Slot) bool { return s.Digest != live.Digest })
}

// proven returns the newest slot up to n that stands, holds a version and fits, or nil.
func (v view) proven(n int, fits func(*fold.Slot) bool) *fold.Slot {
	for ; n > 0; n-- {
		if s := v.env.Slot(n); s.Closing.Stands() && s.Digest != "" && fits(s) {
			return v.env.Origin(s)
		}
	}
	return nil
}

// bringBack takes a slot for the last good version when the one that has the traffic was not verified.
// This is tried once: where the good version does not come up either, an operator has to decide.
func (v view) bringBack() Step {
	live, last := v.env.Live(), v.env.Last()
	if v.occupied() || live == nil || live.Closing == "" || live.Closing.Stands() {
		return nil
	}
	if live.Kind != events.KindDeploy && live.Kind != events.KindRestore && live.Kind != events.KindCreate {
		return nil
	}
	if last.N > live.N && (last.Kind == events.KindRollback || last.Kind == events.KindRemove) {
		return nil
	}
	if s := v.gates(); s != nil && v.yields(live) {
		return s
	}
	if v.yields(live) && v.mayCome() {
		return nil
	}
	good := v.env.Good(live.N)
	if good == nil {
		return v.taken(v.claim(events.KindRemove))
	}
	b := v.claim(events.KindRollback)
	v.carry(b, good)
	b.Pins = good.Pins
	return v.taken(b)
}

// yields reports whether a live slot was closed so that another may come, not because it is bad.
func (v view) yields(live *fold.Slot) bool {
	return live.Closing == events.Superseded && !v.cancelled(live)
}

// cancelled reports whether the run that took a slot was cancelled.
func (v view) cancelled(s *fold.Slot) bool {
	run := v.app.Run(s.Run)
	return s.Kind == events.KindDeploy && run != nil && run.Cancelled != nil
}

// take takes a slot for the run whose turn it is.
func (v view) take() Step {
	next := v.next()
	if v.occupied() || next == nil {
		return nil
	}
	b := v.claim(events.KindDeploy)
	b.Run, b.Attempt, b.Pins = next.run.N, next.env.Promote.Attempt, next.gate.Pins
	b.ArtifactID, b.Repository, b.Digest = next.run.ArtifactID, next.run.Artifact.Repository, next.run.Artifact.Digest
	return v.taken(b)
}

// inFlight reports whether the last slot keeps the next from being taken.
func (v view) inFlight() bool {
	last := v.env.Last()
	return last != nil && last.Open()
}

// occupied reports whether no slot may be taken: one is in flight, or an operator's wish comes first, whose settings
// cannot be read at the moment.
func (v view) occupied() bool {
	return v.inFlight() || v.env.Ending == 0 && len(v.env.Rollbacks) > 0
}

// claim begins the next slot.
func (v view) claim(k events.Kind) *events.SlotTaken {
	b := &events.SlotTaken{Slot: v.env.Slots.Len() + 1, Kind: k, Environment: v.name}
	b.ID = v.slotID(b.Slot)
	if live := v.env.Live(); k == events.KindRemove && live != nil {
		b.Run = live.Run
	}
	return b
}

// carry fills in the version of an earlier slot.
func (v view) carry(b *events.SlotTaken, from *fold.Slot) {
	b.From, b.Run, b.Like = from.N, from.Run, from.Like
	b.ArtifactID, b.Repository, b.Digest = from.ArtifactID, from.Repository, from.Digest
}

func (v view) slotID(n int) string { return fmt.Sprintf("%s/%s/%d", v.app.Name, v.name, n) }
