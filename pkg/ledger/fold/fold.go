// Package fold keeps the state that the ledger's events amount to: apps, their runs and stages, and the
// slots of their environments. It is a pure function of the events in order: the same events give the
// same state, an event applied twice changes nothing, and events of a fenced attempt are passed over.
//
// What it returns is immutable: a reader may keep an *App for as long as it likes, and Apply never
// changes one that it gave out.
package fold

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
)

// Fold is the state after the events that were applied. It is safe for concurrent use.
type Fold struct {
	mu       sync.Mutex
	seq      uint64
	ledgerID string
	apps     map[events.Slug]*place
	hold     *Hold
	policies map[string]json.RawMessage
	policy   PolicyVersion
	replays  []Command // of all that is stuck, which have not finished; oldest first
	// environments are those that somebody made, by name.
	environments map[events.Slug]*Environment
	alarms       []Alarm               // that stand, oldest first
	alarmCount   map[events.Writer]int // of all that a service ever raised
	dismissed    []uint64              // messages, sorted
	definitions  *definitions
	changed      chan struct{} // closed at the next change; nil: nobody waits for one
}

// place holds one app. What was given out is copied before it changes, part by part; what nobody has seen is
// changed where it is, so that reading a long ledger copies nothing.
type place struct {
	app   *App
	given bool
}

// give returns the app to somebody who may keep it.
func (p *place) give() *App {
	p.given = true
	return p.app
}

// own returns the app to be changed. Where it was given out that is a copy, which takes its place with keep.
func (p *place) own() *App {
	if !p.given {
		return p.app
	}
	next := *p.app
	next.owned = owned{}
	return &next
}

func (p *place) keep(a *App) {
	if a != p.app {
		p.app, p.given = a, false
	}
}

// PolicyVersion names the newest platform policy that was published.
type PolicyVersion struct {
	Serial int // 0: none yet
	Digest string
}

// Hold stops new stages from beginning.
type Hold struct {
	All    bool // of every app
	Actor  string
	Reason string
	Since  time.Time
}

// New returns the state of an empty ledger.
func New() *Fold {
	return &Fold{
		apps:     map[events.Slug]*place{},
		policies: map[string]json.RawMessage{},

		environments: map[events.Slug]*Environment{},
		alarmCount:   map[events.Writer]int{},
		definitions:  &definitions{known: map[string]definition{}},
	}
}

// Apply folds one event in. Records must come in the order of their sequences; one that was applied
// already is passed over. An error means that the event contradicts the contract; the state then moves
// past it all the same.
func (f *Fold) Apply(r ledger.Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Seq <= f.seq {
		return nil
	}
	if f.ledgerID == "" {
		f.ledgerID = r.ID()
	}
	err := f.apply(r)
	f.advance(r.Seq)
	return err
}

// Skip moves past a sequence whose event was set aside, so that nobody waits for it.
func (f *Fold) Skip(seq uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if seq > f.seq {
		f.advance(seq)
	}
}

func (f *Fold) advance(seq uint64) {
	f.seq = seq
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// Seq is the sequence of the last event that was applied.
func (f *Fold) Seq() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seq
}

// LedgerID is the id of the ledger's first event; empty before it.
func (f *Fold) LedgerID() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ledgerID
}

// Wait returns when the event with this sequence has been applied, or with the context's error.
func (f *Fold) Wait(ctx context.Context, seq uint64) error {
	return f.until(ctx, func() bool { return f.seq >= seq })
}

// WaitApp returns the app once an event later than after has changed it, or with the context's error.
func (f *Fold) WaitApp(ctx context.Context, name events.Slug, after uint64) (*App, error) {
	var a *App
	err := f.until(ctx, func() bool {
		a = f.view(name)
		return a != nil && a.Seq > after
	})
	return a, err
}

func (f *Fold) until(ctx context.Context, done func() bool) error {
	for {
		f.mu.Lock()
		ok := done()
		if !ok && f.changed == nil {
			f.changed = make(chan struct{})
		}
		changed := f.changed
		f.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the ledger: %w", context.Cause(ctx))
		}
	}
}

// App returns an app, or nil if there is none of that name.
func (f *Fold) App(name events.Slug) *App {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view(name)
}

// Apps returns all apps, sorted by name.
func (f *Fold) Apps() []*App {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*App
	for _, name := range slices.Sorted(maps.Keys(f.apps)) {
		all = append(all, f.view(name))
	}
	return all
}

// view adds what holds for every app.
func (f *Fold) view(name events.Slug) *App {
	p := f.apps[name]
	if p == nil {
		return nil
	}
	a := p.give()
	if f.hold == nil || a.Hold != nil {
		return a
	}
	held := *a
	held.Hold = f.hold
	return &held
}

// Held returns the hold on everything, or nil.
func (f *Fold) Held() *Hold {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hold
}

// Policy returns the text of a published policy, or nil.
func (f *Fold) Policy(digest string) json.RawMessage {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.policies[digest]
}

// CurrentPolicy names the newest published policy.
func (f *Fold) CurrentPolicy() PolicyVersion {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.policy
}

// Alarm is something that a person must look into, and that is not mended.
type Alarm struct {
	N  int // the alarm's number among those of By
	By events.Writer
	At time.Time
	events.Alarm
}

// Alarms returns the alarms that stand, oldest first, and how many a service ever raised.
func (f *Fold) Alarms(by events.Writer) (standing []Alarm, raised int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.alarms, f.alarmCount[by]
}

// Replays returns the commands to replay all that is stuck which have not finished, oldest first.
func (f *Fold) Replays() []Command {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.replays
}

// Dismissed reports whether an operator has dismissed the message with this sequence, which was set aside.
func (f *Fold) Dismissed(seq uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, dismissed := slices.BinarySearch(f.dismissed, seq)
	return dismissed
}

// apply decides by the event's type whose state changes.
func (f *Fold) apply(r ledger.Record) error {
	switch b := r.Event.Body.(type) {
	case *events.PolicyPublished:
		f.policies[b.Digest] = b.Text
		f.policy = PolicyVersion{Serial: r.Subject.Attempt, Digest: b.Digest}
		return nil
	case *events.CommandReceived:
		if b.Verb == events.VerbReplay {
			f.replays = append(slices.Clone(f.replays), Command{ID: b.ID, Seq: r.Seq, At: r.Event.Time, Command: b.Command})
			return nil
		}
		if b.Verb == events.VerbPrepareEnvironment || b.Verb == events.VerbCreateEnvironment || b.Verb == events.VerbDestroyEnvironment {
			return f.applyEnvironment(r)
		}
		if b.Verb == events.VerbDismiss {
			if i, known := slices.BinarySearch(f.dismissed, b.Message); !known {
				f.dismissed = slices.Insert(slices.Clone(f.dismissed), i, b.Message)
			}
			return nil
		}
		if r.Subject.App == "" {
			return f.applyGlobal(r, b)
		}
	case *events.EnvironmentCreated, *events.EnvironmentModified, *events.EnvironmentDeleted, *events.EnvironmentExpired:
		return f.applyEnvironment(r)
	case *events.AlarmRaised:
		f.alarms = append(slices.Clone(f.alarms), Alarm{N: r.Subject.Attempt, By: r.Subject.Writer, At: r.Event.Time, Alarm: b.Alarm})
		f.alarmCount[r.Subject.Writer] = max(f.alarmCount[r.Subject.Writer], r.Subject.Attempt)
		return nil
	case *events.AlarmResolved:
		f.alarms = slices.DeleteFunc(slices.Clone(f.alarms), func(a Alarm) bool { return a.N == r.Subject.Attempt && a.By == r.Subject.Writer })
		return nil
	case *events.CommandFinished:
		f.replays = slices.DeleteFunc(slices.Clone(f.replays), func(c Command) bool { return c.ID == b.ID })
		return nil
	}
	if r.Subject.App == "" {
		return nil
	}
	return f.applyToApp(r)
}

func (f *Fold) applyGlobal(r ledger.Record, b *events.CommandReceived) error {
	resumed := b.Verb == events.VerbResume && f.hold != nil
	switch b.Verb {
	case events.VerbHold:
		f.hold = &Hold{All: true, Actor: b.Actor, Reason: b.Reason, Since: r.Event.Time}
	case events.VerbResume:
		f.hold = nil
	default:
		return fmt.Errorf("event %d: command %s names no app", r.Seq, b.Verb)
	}
	for _, p := range f.apps {
		next := p.own()
		next.Seq = r.Seq
		if resumed {
			next.Resumed = r.Event.Time
		}
		p.keep(next)
	}
	return nil
}

// applyToApp changes the app that the event is about. An event that contradicts the contract changes nothing.
func (f *Fold) applyToApp(r ledger.Record) error {
	name := r.Subject.App
	p, known := f.apps[name]
	if !known {
		p = &place{app: &App{Name: name, Envs: map[events.Slug]*Env{}}}
		p.app.Runs.definitions = f.definitions
	}
	next := p.own()
	changed, err := next.apply(r, f.policy.Digest, f.definitions)
	if err != nil {
		return fmt.Errorf("event %d on %s: %w", r.Seq, r.Subject, err)
	}
	if changed {
		next.Seq = r.Seq
		p.keep(next)
		f.apps[name] = p
	}
	return nil
}
