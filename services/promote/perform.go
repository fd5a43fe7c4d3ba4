package promote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/worker/boundary"
)

// Version is what a slot puts into its environment.
type Version struct {
	Place
	Slot *fold.Slot
	Run  *fold.Run  // whose definition holds; nil for kind remove
	From *fold.Slot // whose instances may be taken over; nil: none
}

// Effects are what promote does outside the ledger. Each may be carried out any number of times, by any
// process: what is there already is taken over. An *UnfitError says that the version is to blame; any
// other error that it is not known whether anything was done.
type Effects interface {
	// Prepare starts the replicas of a slot, or adopts them, waits until they are healthy, then runs the
	// release command of a slot of kind deploy, once, and returns where the replicas answer.
	Prepare(ctx context.Context, v Version) ([]events.Instance, error)
	// Switch sends the traffic to the slot's instances, unless a greater slot has it, and returns when
	// older instances are idle or their time is over. An *UndrainedError says that the first was done and
	// the second is not known.
	Switch(ctx context.Context, v Version) error
	// Clean removes all that belongs to slots up to upTo but those in keep, and their instances.
	Clean(ctx context.Context, p Place, keep []*fold.Slot, upTo int) error
	// Heal makes a live slot's instances again that are gone from their engine.
	Heal(ctx context.Context, v Version) error
	// Look finds what is otherwise at a place than its live slot and the ledger's settings say. Other containers count
	// where the place is tidy: where all that is not needed was removed.
	Look(ctx context.Context, v Version, env *fold.Env, tidy bool) ([]Finding, error)
	// Raze removes all that is left of an environment of these apps up to the slot that each is with: containers, volumes,
	// networks, secrets, what apps were granted to find their settings, and its entries in Consul's catalog and in the
	// table of what gets traffic. Nothing of those slots may be under way; later ones are left alone.
	Raze(ctx context.Context, env events.Slug, apps map[events.Slug]int) error
	// Left returns those of these environments that have containers, or an entry in the table of what gets traffic.
	Left(ctx context.Context, among []events.Slug) ([]events.Slug, error)
}

// UndrainedError says that the traffic was switched, but not whether requests are still at older instances.
type UndrainedError struct{ Err error }

func (e *UndrainedError) Error() string { return "waiting for requests in flight: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *UndrainedError) Unwrap() error { return e.Err }

// Ledger is the log as promote uses it.
type Ledger interface {
	// App returns the app as far as this process has followed.
	App(events.Slug) *fold.App
	// Append writes an event and returns when this process has followed past it, or past the one that
	// was there (*ledger.ExistsError).
	Append(context.Context, events.Subject, events.Event) (ledger.Record, error)
	// Undecided returns a context that ends with errDecided when the slot is decided by somebody else.
	Undecided(ctx context.Context, p Place, slot int) (context.Context, context.CancelFunc)
}

// Gates looks up what decide has to know besides the ledger.
type Gates interface {
	// Gate returns what stands before a run. With an error it is all but what is in stores of settings.
	Gate(ctx context.Context, p Place, run *fold.Run) (Gate, error)
	// Present returns the present versions of the settings that pins name.
	Present(ctx context.Context, p Place, pins events.Pins) (events.Pins, error)
}

// errDecided ends work on a slot that somebody else has decided.
var errDecided = errors.New("the slot was decided by another")

// StepError says at which place and step carrying on failed for now.
type StepError struct {
	Place
	Step Step // nil: the facts could not be had
	Err  error
	// Tries is how often it was tried, when it is given up.
	Tries int
}

func (e *StepError) Error() string { return fmt.Sprintf("%s in %s: %v", e.App, e.Env, e.Err) }

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// promoter carries out what decide decides, at one place after the other.
type promoter struct {
	epoch   int
	url     string
	ledger  Ledger
	effects Effects
	gates   Gates
	turns   *turns
	logger  *slog.Logger
}

// settle does all there is to do at a place. Where somebody of this process is at work on it already, it
// says what can be said at once and leaves the rest to them. moved is called after each slot that was
// closed: other environments may go on. The error is a *StepError.
func (p *promoter) settle(ctx context.Context, at Place, moved func()) error {
	mem, ok := p.turns.begin(at)
	if !ok {
		return p.interject(ctx, at)
	}
	return p.finish(ctx, at, mem, moved)
}

// finish works until nobody came meanwhile, and gives the turn back.
func (p *promoter) finish(ctx context.Context, at Place, mem *memory, moved func()) error {
	held := true
	defer func() {
		if held { // a panic must not keep the place for good
			p.turns.drop(at)
		}
	}()
	for {
		err := p.work(ctx, at, mem, moved)
		if held = p.turns.end(at); !held {
			return err
		}
	}
}

// work decides and performs until nothing is left to do.
func (p *promoter) work(ctx context.Context, at Place, mem *memory, moved func()) error {
	var said events.Subject
	for {
		a, facts, unread := p.look(ctx, at)
		if a == nil {
			return nil
		}
		facts.Switched, facts.Cleaned = mem.switched, mem.cleaned
		step := decide(a, at.Env, facts)
		if step == nil {
			return unread
		}
		boundary.Reached(events.Promote, boundary.Decided, at.App)
		var err error
		if say, ok := step.(Say); ok {
			said, err = p.sayOnce(ctx, say, said)
		} else {
			said, err = events.Subject{}, p.perform(ctx, newView(a, at.Env, facts), at, mem, step)
		}
		if err != nil {
			return &StepError{Place: at, Step: step, Err: err}
		}
		if said.Subject == events.TypeSlotClosed.Subject() && said.Predicate == events.TypeSlotClosed.Predicate() {
			moved()
		}
	}
}

// interject says what does not have to wait for whoever is at work.
func (p *promoter) interject(ctx context.Context, at Place) error {
	var said events.Subject
	for {
		a, facts, unread := p.look(ctx, at)
		if a == nil {
			return nil
		}
		say, ok := interject(a, at.Env, facts).(Say)
		if !ok {
			return unread
		}
		var err error
		if said, err = p.sayOnce(ctx, say, said); err != nil {
			return &StepError{Place: at, Step: say, Err: err}
		}
	}
}

// look gathers what is decided on. The app is nil where there is none. The error says what could not be read, which
// holds up only what needs it.
func (p *promoter) look(ctx context.Context, at Place) (*fold.App, Facts, error) {
	facts := Facts{Epoch: p.epoch, URL: p.url, Gates: map[int]Gate{}, Restore: map[int]events.Pins{}}
	var unread []error
	a := p.ledger.App(at.App)
	if a == nil {
		return nil, facts, nil
	}
	for _, n := range Candidates(a, at.Env) {
		gate, err := p.gates.Gate(ctx, at, a.Run(n))
		if err != nil {
			gate.Unread = true
			unread = append(unread, &StepError{Place: at, Err: err})
		}
		facts.Gates[n] = gate
	}
	for _, n := range Restorable(a, at.Env) {
		pins, err := p.gates.Present(ctx, at, a.Env(at.Env).Slot(n).Pins)
		if err != nil {
			unread = append(unread, &StepError{Place: at, Err: err})
			continue
		}
		facts.Restore[n] = pins
	}
	return a, facts, errors.Join(unread...)
}

// perform carries out a step that is more than an event.
func (p *promoter) perform(ctx context.Context, v view, at Place, mem *memory, step Step) error {
	switch s := step.(type) {
	case Deploy:
		return p.deploy(ctx, v, Version{at, s.Slot, s.Run, s.From})
	case Switch:
		err := p.effects.Switch(ctx, Version{at, s.Slot, s.Run, nil})
		boundary.Reached(events.Promote, boundary.Effect, at.App)
		var undrained *UndrainedError
		if errors.As(err, &undrained) && mem.waived >= s.Slot.N {
			p.logger.Warn("going on although requests may be in flight", "app", at.App, "env", at.Env, "slot", s.Slot.N, "err", err)
			err = nil
		}
		if err != nil {
			return err
		}
		mem.switched = s.Slot.N
	case Clean:
		err := p.effects.Clean(ctx, at, s.Keep, s.UpTo)
		if err != nil {
			p.logger.Warn("replicas that are not needed could not be removed yet", "app", at.App, "env", at.Env, "err", err)
		}
		mem.cleaned, mem.untidy = s.Then, err != nil
		boundary.Reached(events.Promote, boundary.Effect, at.App)
	}
	return nil
}

// deploy makes an undecided slot's version ready and decides the slot.
func (p *promoter) deploy(ctx context.Context, v view, version Version) error {
	if run, env := v.holder(version.Slot); env != nil {
		if err := p.say(ctx, v.started(version.Slot, run, env)); err != nil {
			return err
		}
	}
	working, stop := p.ledger.Undecided(ctx, version.Place, version.Slot.N)
	defer stop()
	instances, err := p.effects.Prepare(working, version)
	boundary.Reached(events.Promote, boundary.Effect, version.App)
	var unfit *UnfitError
	switch {
	case errors.Is(context.Cause(working), errDecided):
		return nil
	case errors.As(err, &unfit):
		return p.say(ctx, v.judge(version.Slot, unfit))
	case err != nil:
		return err
	}
	return p.say(ctx, v.live(version.Slot, instances))
}

// say appends an event. One that is there already settles the matter as well: the next decision is made
// on it.
func (p *promoter) say(ctx context.Context, s Say) error {
	e := events.New(events.Promote, time.Now(), s.Chain, s.Body, s.Links...)
	_, err := p.ledger.Append(ctx, s.Subject, e)
	var exists *ledger.ExistsError
	if errors.As(err, &exists) {
		return nil
	}
	return err
}

// heal says what is otherwise at a place than it should be, and makes the replicas again that it has lost, unless
// somebody is at work on it.
func (p *promoter) heal(ctx context.Context, at Place) error {
	mem, ok := p.turns.begin(at)
	if !ok {
		return nil
	}
	gone, err := p.lookForDrift(ctx, at, mem)
	err = errors.Join(err, p.healLive(ctx, at))
	if gone && err == nil {
		_, err = p.lookForDrift(ctx, at, mem)
	}
	if !p.turns.end(at) {
		return err
	}
	return errors.Join(err, p.finish(ctx, at, mem, func() {}))
}

func (p *promoter) healLive(ctx context.Context, at Place) error {
	a := p.ledger.App(at.App)
	if a == nil {
		return nil
	}
	v := newView(a, at.Env, Facts{})
	live := v.env.Live()
	if live == nil || live.Kind == events.KindRemove || v.version(live) == nil {
		return nil
	}
	return p.effects.Heal(ctx, Version{at, live, v.version(live), live})
}

// sayOnce says s unless it was said just before: then the fold passes it over, and deciding again would go
// on for ever.
func (p *promoter) sayOnce(ctx context.Context, s Say, before events.Subject) (events.Subject, error) {
	if s.Subject == before {
		return before, fmt.Errorf("%s is written, and changes nothing", before)
	}
	return s.Subject, p.say(ctx, s)
}

// giveUp ends what could not be carried out although it was tried often enough: the slot that could not be
// brought up is abandoned, and the switch that waits for the edge waits no longer.
func (p *promoter) giveUp(ctx context.Context, failed *StepError) error {
	switch s := failed.Step.(type) {
	case Deploy:
		v := newView(p.ledger.App(failed.App), failed.Env, Facts{Epoch: p.epoch, URL: p.url})
		if last := v.env.Last(); last.N == s.Slot.N && last.Decision == "" {
			return p.say(ctx, v.giveUpOn(last, failed.Err, failed.Tries))
		}
	case Switch:
		p.turns.waive(failed.Place, s.Slot.N)
	}
	return nil
}
