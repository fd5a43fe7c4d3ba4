package fold

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/strictyaml"
)

// State is all that a fold holds after one sequence. It is immutable, and two folds that were given the same events
// have states with the same bytes.
type State struct {
	Seq      uint64
	LedgerID string
	Apps     map[events.Slug]*App
	Hold     *Hold
	Policies map[string]json.RawMessage
	Policy   PolicyVersion
	Replays  []Command // of all that is stuck, which have not finished; oldest first
	// Environments are those that somebody made, by name.
	Environments map[events.Slug]*Environment
	// Definitions are the canonical texts that runs pin, by digest.
	Definitions map[string]json.RawMessage
	Alarms      []Alarm               // that stand, oldest first
	AlarmCount  map[events.Writer]int // of all that a service ever raised
	Dismissed   []uint64              // messages that were set aside and that an operator dismissed, sorted
}

//go:embed *.go
var source embed.FS

// sources are those of every package that has a say in what a state is: what decodes events and sets them aside, what
// reads the definitions that runs pin, and this one.
func sources() map[string]string {
	return map[string]string{
		"events":          events.Source(),
		"pkg/identity":    identity.Source(),
		"pkg/ledger":      ledger.Source(),
		"pkg/pipeline":    pipeline.Source(),
		"pkg/strictyaml":  strictyaml.Source(),
		"pkg/ledger/fold": events.SourceOf(source),
	}
}

// Format names the form of a state's bytes and the meaning of what is in them: a hash over the types of a state
// and over the source of all that has a say in it. A state of another format is built anew from the ledger and never
// converted, so that a fold which has learned something new does not go on from what an older one made of the same
// events.
var Format = sync.OnceValue(func() string {
	h := sha256.New()
	h.Write([]byte(shapeOf(reflect.TypeFor[State]())))
	all := sources()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(h, "%s %s\n", name, all[name])
	}
	return "1-" + hex.EncodeToString(h.Sum(nil)[:8])
})

// codecs are those of a state and of all types in it, and of what is read alone.
var codecs = sync.OnceValue(func() map[reflect.Type]*codec {
	made := map[reflect.Type]*codec{}
	codecOf(reflect.TypeFor[State](), made)
	codecOf(reflect.TypeFor[runHead](), made)
	return made
})

// Encode returns the state in its one form.
func (s State) Encode() []byte {
	w := newWriter()
	codecs()[reflect.TypeFor[State]()].write(w, reflect.ValueOf(s))
	return w.data
}

// DecodeState reads what Encode of the same Format wrote.
func DecodeState(data []byte) (State, error) {
	var s State
	r := &reader{data: string(data)}
	codecs()[reflect.TypeFor[State]()].read(r, reflect.ValueOf(&s).Elem())
	if r.err == nil && len(r.data) > 0 {
		r.fail("something follows it")
	}
	if r.err != nil {
		return State{}, fmt.Errorf("reading a state of the fold: %w", r.err)
	}
	return s, nil
}

// Difference returns the path of the first field in which two states differ, such as
// "Apps[hello].Runs[2].Build.Status", and its value in each; an empty path where they are the same.
func (s State) Difference(other State) (path, here, there string) {
	path, here, there = firstDifference("", reflect.ValueOf(s), reflect.ValueOf(other))
	return strings.TrimPrefix(path, "."), here, there
}

// State returns what the fold holds. It costs little: nothing is copied until it changes.
func (f *Fold) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := State{
		Seq: f.seq, LedgerID: f.ledgerID, Apps: make(map[events.Slug]*App, len(f.apps)),
		Hold: f.hold, Policies: maps.Clone(f.policies), Policy: f.policy, Replays: f.replays,
		Environments: maps.Clone(f.environments), Definitions: f.definitions.texts(),
		Alarms: f.alarms, AlarmCount: maps.Clone(f.alarmCount), Dismissed: f.dismissed,
	}
	for name, place := range f.apps {
		s.Apps[name] = place.give()
	}
	return s
}

// Restore returns a fold that goes on from a state, which DecodeState has returned.
func Restore(s State) (*Fold, error) {
	f := New()
	f.seq, f.ledgerID, f.hold, f.policy, f.replays = s.Seq, s.LedgerID, s.Hold, s.Policy, s.Replays
	f.alarms, f.dismissed = s.Alarms, s.Dismissed
	maps.Copy(f.alarmCount, s.AlarmCount)
	maps.Copy(f.policies, s.Policies)
	for name, e := range s.Environments {
		if e == nil || e.Name != name {
			return nil, fmt.Errorf("restoring the fold: %w: environment %s is not whole", errNoState, name)
		}
		f.environments[name] = e
	}
	for digest, text := range s.Definitions {
		if _, err := f.definitions.read(&events.RunStart{Definition: text, DefinitionDigest: digest}); err != nil {
			return nil, fmt.Errorf("restoring the fold: %w", err)
		}
	}
	for name, a := range s.Apps {
		if a == nil || a.Name != name || a.Envs == nil || slices.Contains(slices.Collect(maps.Values(a.Envs)), nil) {
			return nil, fmt.Errorf("restoring the fold: %w: app %s is not whole", errNoState, name)
		}
		if err := a.check(f.definitions); err != nil {
			return nil, fmt.Errorf("restoring the fold: app %s: %w", name, err)
		}
		f.apps[name] = &place{app: a, given: true}
	}
	return f, nil
}

// check says what is wrong with an app that was read, and completes it by what is known.
func (a *App) check(known *definitions) error {
	if err := a.Runs.check(known); err != nil {
		return fmt.Errorf("run %w", err)
	}
	for name, env := range a.Envs {
		if err := env.Slots.check(known); err != nil {
			return fmt.Errorf("%s: slot %w", name, err)
		}
	}
	for _, n := range a.Unsettled {
		if a.Run(n) == nil {
			return fmt.Errorf("run %d: %w: it is listed and not there", n, errNoState)
		}
	}
	return nil
}

// Replace puts the state of another fold in the place of this one's. The other must not be used any more. It is for
// a fold that was built anew from the ledger, up to the same sequence.
func (f *Fold) Replace(with *Fold) error {
	s := with.State()
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.Seq != f.seq {
		return fmt.Errorf("replacing the fold at %d: the other is at %d", f.seq, s.Seq)
	}
	f.ledgerID, f.hold, f.policies, f.policy, f.replays = s.LedgerID, s.Hold, s.Policies, s.Policy, s.Replays
	f.apps, f.definitions, f.environments = with.apps, with.definitions, s.Environments
	f.alarms, f.alarmCount, f.dismissed = s.Alarms, s.AlarmCount, s.Dismissed
	f.advance(s.Seq)
	return nil
}
