package fold

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
)

// Environment is one that somebody made from another, apart from those that pipelines name.
//
//	preparing ──> asked for ──> created ──> ending ──> gone ──> preparing …
//	    └────────────────────────────────────^
type Environment struct {
	Name    events.Slug
	Made    Command   // made it, or renewed it last
	Since   time.Time // when it was first asked for, since it was gone
	Created bool      // promote has taken Made up
	// Preparing says that its settings are being written, for Made, and it is not asked for yet.
	Preparing bool
	Ending    *Ending // it is to be destroyed; nil: it is not
	Gone      bool    // nothing of it is left
	Seq       uint64  // the last event that changed it
}

// Ending is why an environment is destroyed.
type Ending struct {
	ID     string // of the command; of the event where its time was over
	Actor  string // empty where its time was over
	Reason string
	At     time.Time
}

// Plan is what an environment that somebody made is to hold of an app.
type Plan struct {
	Command    string // id
	From       events.Slug
	Like       events.Slug // the environment whose part of the pipeline holds
	Run        int
	ArtifactID string
	Repository string
	Digest     string
	Pins       events.Pins
}

// Setting is what the ledger says last of a key.
type Setting struct {
	Store   string // whose version it is, see events.SettingChanged
	Version uint64
	Deleted bool
	Actor   string
	Seq     uint64
}

// Drift is something that was found to be otherwise than the ledger says, and still is.
type Drift struct {
	N  int // the drift's number in its app's environment
	At time.Time
	events.Drift
}

// StaleSetting is a setting that was changed after a slot had been pinned to it.
type StaleSetting struct {
	Key     string
	Kind    string // config or secret
	Pinned  uint64
	Present uint64 // 0: it is gone
	From    string // the store that the pinned version is of, where the present one is of another
}

// Environments returns the environments that somebody made, those that are gone included, sorted by name.
func (f *Fold) Environments() []*Environment {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*Environment
	for _, name := range slices.Sorted(maps.Keys(f.environments)) {
		all = append(all, f.environments[name])
	}
	return all
}

// Environment returns an environment that somebody made and that is not gone, or nil.
func (f *Fold) Environment(name events.Slug) *Environment {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.environments[name]; e != nil && !e.Gone {
		return e
	}
	return nil
}

// applyEnvironment applies what is about an environment as a whole.
func (f *Fold) applyEnvironment(r ledger.Record) error {
	name := r.Subject.Env
	known := f.environments[name]
	if known == nil {
		known = &Environment{Name: name, Gone: true}
	}
	next := *known
	next.Seq = r.Seq
	switch b := r.Event.Body.(type) {
	case *events.CommandReceived:
		c := Command{ID: b.ID, Seq: r.Seq, At: r.Event.Time, Command: b.Command}
		switch {
		case b.Verb == events.VerbPrepareEnvironment && (next.Gone || next.Preparing && next.Ending == nil):
			next = Environment{Name: name, Made: c, Since: r.Event.Time, Preparing: true, Seq: r.Seq}
			f.expect(name, b.Apps, r.Seq)
		case b.Verb == events.VerbPrepareEnvironment && next.Ending == nil:
			f.expect(name, b.Apps, r.Seq)
		case b.Verb == events.VerbCreateEnvironment && (next.Gone || next.Preparing && next.Ending == nil):
			next = Environment{Name: name, Made: c, Since: r.Event.Time, Seq: r.Seq}
		case b.Verb == events.VerbCreateEnvironment && next.Ending == nil:
			next.Made, next.Created = c, false
		case b.Verb == events.VerbDestroyEnvironment:
			f.end(&next, Ending{ID: b.ID, Actor: b.Actor, Reason: b.Reason, At: r.Event.Time}, r.Seq)
		}
	case *events.EnvironmentExpired:
		if b.Command == next.Made.ID {
			f.end(&next, Ending{ID: r.Event.ID, At: r.Event.Time}, r.Seq)
		}
	case *events.EnvironmentCreated, *events.EnvironmentModified:
		if next.Gone || next.Ending != nil || next.Created {
			return nil
		}
		next.Created = true
		f.environments[name] = &next
		return f.furnish(&next)
	case *events.EnvironmentDeleted:
		if next.Ending == nil {
			return fmt.Errorf("event %d: environment %s is gone, and nobody ended it", r.Seq, name)
		}
		next.Gone = true
		f.eachIn(name, r.Seq, func(e *Env) { e.Plan, e.Ending, e.Gone, e.Drifts = nil, 0, true, nil })
	}
	f.environments[name] = &next
	return nil
}

// expect has apps know of an environment in which they are about to have settings.
func (f *Fold) expect(name events.Slug, apps []events.EnvironmentApp, seq uint64) {
	for _, one := range apps {
		if p := f.apps[one.App]; p != nil {
			f.changeEnv(p, name, seq, func(*Env) {})
		}
	}
}

// end has an environment destroyed. The first ending counts.
func (f *Fold) end(e *Environment, why Ending, seq uint64) {
	if e.Gone || e.Ending != nil {
		return
	}
	e.Ending = &why
	f.eachIn(e.Name, seq, func(env *Env) { env.Ending, env.Rollbacks = seq, nil })
}

// eachIn changes every app that ever had anything in an environment.
func (f *Fold) eachIn(name events.Slug, seq uint64, change func(*Env)) {
	for _, p := range f.apps {
		if _, there := p.app.Envs[name]; there {
			f.changeEnv(p, name, seq, change)
		}
	}
}

func (f *Fold) changeEnv(p *place, name events.Slug, seq uint64, change func(*Env)) {
	next := p.own()
	change(next.ownEnv(name))
	next.Seq = seq
	p.keep(next)
}

// furnish gives the apps of an environment their plans: the versions of the slots that the command names.
func (f *Fold) furnish(e *Environment) error {
	for _, one := range e.Made.Apps {
		p := f.apps[one.App]
		if p == nil {
			return fmt.Errorf("environment %s: app %s is unknown", e.Name, one.App)
		}
		from := p.app.Env(e.Made.From).Slot(one.Slot)
		if from == nil {
			return fmt.Errorf("environment %s: %s has no slot %d in %s", e.Name, one.App, one.Slot, e.Made.From)
		}
		f.changeEnv(p, e.Name, e.Seq, func(env *Env) {
			env.Ending, env.Gone = 0, false
			env.Plan = &Plan{
				Command: e.Made.ID, From: e.Made.From, Like: from.Defined(), Run: from.Run, ArtifactID: from.ArtifactID,
				Repository: from.Repository, Digest: from.Digest, Pins: one.Pins,
			}
		})
	}
	return nil
}

// Carrier returns the slot that carries out an environment's plan for the app: the one that was taken for it, or the
// live one where that holds the same anyway; nil: there is none yet.
func (e *Env) Carrier() *Slot {
	p := e.Plan
	if p == nil {
		return nil
	}
	for s := range e.Slots.Backward() {
		if s.Command == p.Command {
			return s
		}
	}
	live := e.Live()
	if live != nil && live.Kind != events.KindRemove && live.Closing.Stands() && live.Digest == p.Digest && live.Like == p.Like &&
		live.Pins.Equal(p.Pins) {
		return live
	}
	return nil
}

// applySetting keeps what the ledger says last of a key. Of two that say it at once of one store the newer version counts.
func (a *App) applySetting(seq uint64, secret bool, env events.Slug, key string, s Setting) {
	e := a.ownEnv(env)
	of := &e.Config
	if secret {
		of = &e.Secrets
	}
	if known, ok := (*of)[key]; ok && !known.Deleted && known.Store == s.Store && known.Version > s.Version {
		return
	}
	s.Seq = seq
	next := maps.Clone(*of)
	if next == nil {
		next = map[string]Setting{}
	}
	next[key] = s
	*of = next
}

// Stale returns the settings that are no longer those that a slot is pinned to, because somebody changed them since:
// what was verified there is not what its next start would use.
func (e *Env) Stale(s *Slot) []StaleSetting {
	var all []StaleSetting
	brought := s.Kind == events.KindRestore || s.Kind == events.KindRollback // with settings of that time
	compare := func(kind, store string, pins map[string]uint64, known map[string]Setting) {
		for key, pinned := range pins {
			now, ok := known[key]
			same := events.SameStore(store, now.Store)
			switch {
			case !ok, brought && now.Seq < s.TakenSeq, same && (now.Version < pinned || now.Version == pinned && !now.Deleted):
				continue
			case !same && now.Seq < s.TakenSeq: // of the store that was left before
				continue
			}
			one := StaleSetting{Kind: kind, Key: key, Pinned: pinned, Present: now.Version}
			if !same {
				one.From = store
			}
			if now.Deleted {
				one.Present = 0
			}
			all = append(all, one)
		}
	}
	compare("config", s.Pins.ConfigStore, s.Pins.Config, e.Config)
	compare("secret", s.Pins.SecretStore, s.Pins.Secrets, e.Secrets)
	slices.SortFunc(all, func(a, b StaleSetting) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key)) })
	return all
}

// Origin returns the slot that first held the version and pins that a slot holds.
func (e *Env) Origin(s *Slot) *Slot {
	for s.From != 0 && e.Slot(s.From) != nil {
		s = e.Slot(s.From)
	}
	return s
}

// detect keeps a drift that was found.
func (a *App) detect(r ledger.Record, d events.Drift) {
	e := a.ownEnv(r.Subject.Env)
	e.Drifts = append(slices.Clone(e.Drifts), Drift{N: r.Subject.Attempt, At: r.Event.Time, Drift: d})
	e.DriftCount = max(e.DriftCount, r.Subject.Attempt)
}

// resolve forgets a drift that is over.
func (a *App) resolve(r ledger.Record) {
	e := a.ownEnv(r.Subject.Env)
	e.Drifts = slices.DeleteFunc(slices.Clone(e.Drifts), func(d Drift) bool { return d.N == r.Subject.Attempt })
}
