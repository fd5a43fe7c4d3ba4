package promote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/settings"
	"towpath.dev/services/promote/deploy"
)

// Finding is something at a place that is otherwise than the ledger says.
type Finding struct {
	What     string
	Expected string
	Found    string
	// Gone says of a container that it does not run: Heal makes it again.
	Gone bool
	// Fresh says that it may be that somebody is just about to say so in the ledger: it counts once it was found twice.
	Fresh bool
}

// fresh is how long somebody who has changed a setting may take to say so.
const fresh = 5 * time.Second

// keyFindings compares the present versions of the settings that a slot is pinned to with the last ones that the
// ledger knows of: its pins, and what was said to be set since. Where the pins are of another store than the one that is
// used now, it says that and compares nothing.
func keyFindings(kind settings.Kind, pins map[string]uint64, from, store string, known map[string]fold.Setting, present []settings.Item, now time.Time) []Finding {
	if !events.SameStore(from, store) {
		return []Finding{{What: string(kind), Expected: "in " + from, Found: settings.Moved(from, store) + ": promote it again to have it from there"}}
	}
	var all []Finding
	for key, pinned := range pins {
		said, was := known[key]
		if was && !events.SameStore(said.Store, store) {
			said, was = fold.Setting{}, false
		}
		expected := pinned
		if was {
			expected = said.Version
		}
		one := Finding{What: fmt.Sprintf("%s %s", kind, key), Expected: fmt.Sprintf("version %d", expected), Found: "gone", Fresh: true}
		i := slices.IndexFunc(present, func(item settings.Item) bool {
			return item.Key == key && !(item.Shared && said.Deleted) // what all apps share shows where the app's own is gone
		})
		switch {
		case i < 0 && was && said.Deleted:
			continue
		case i >= 0 && (present[i].Version == expected && !said.Deleted || present[i].Version == pinned):
			continue
		case i >= 0:
			one.Found = fmt.Sprintf("version %d", present[i].Version)
			one.Fresh = present[i].Set.IsZero() || now.Sub(present[i].Set) < fresh
			if said.Deleted {
				one.Expected = "none"
			}
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Finding) int { return cmp.Compare(a.What, b.What) })
	return all
}

// drifts says what is to be written of what was found at a place: each drift once when it is found, and once when it
// is over.
func (v view) drifts(slot int, found []Finding) []Say {
	var all []Say
	n := v.env.DriftCount
	for _, f := range found {
		if slices.ContainsFunc(v.env.Drifts, func(d fold.Drift) bool { return d.What == f.What && d.Found == f.Found }) {
			continue
		}
		n++
		b := &events.DriftDetected{Drift: events.Drift{App: v.app.Name, Environment: v.name, Slot: slot, What: f.What, Expected: f.Expected, Found: f.Found}}
		b.ID = fmt.Sprintf("%s/%s/%s", v.app.Name, v.name, f.What)
		all = append(all, v.drift(b, n))
	}
	for _, d := range v.env.Drifts {
		if slices.ContainsFunc(found, func(f Finding) bool { return d.What == f.What && d.Found == f.Found }) {
			continue
		}
		b := &events.DriftResolved{Drift: d.Drift}
		b.ID = fmt.Sprintf("%s/%s/%s", v.app.Name, v.name, d.What)
		all = append(all, v.drift(b, d.N))
	}
	return all
}

func (v view) drift(b events.Body, n int) Say {
	say := Say{Subject: events.DriftSubject(v.facts.Epoch, b.Type(), v.app.Name, v.name, n), Body: b}
	if live := v.env.Live(); live != nil && v.version(live) != nil {
		say.Chain = v.version(live).ChainID
	}
	return say
}

// lookForDrift finds what is otherwise at a place than the ledger says, and writes what is new of it. It reports
// whether a container is gone, which Heal makes again.
func (p *promoter) lookForDrift(ctx context.Context, at Place, mem *memory) (gone bool, err error) {
	a := p.ledger.App(at.App)
	v := newView(a, at.Env, Facts{Epoch: p.epoch})
	live := v.env.Live()
	if v.inFlight() || v.env.Ending != 0 {
		return false, nil
	}
	var found []Finding
	slot := 0
	if live != nil && live.Kind != events.KindRemove && v.version(live) != nil {
		slot = live.N
		tidy := !mem.untidy && mem.cleaned.Last == v.env.Last().N
		if found, err = p.effects.Look(ctx, Version{at, live, v.version(live), nil}, v.env, tidy); err != nil {
			return false, err
		}
	}
	suspects := map[string]bool{}
	mem.unsure = false
	found = slices.DeleteFunc(found, func(f Finding) bool {
		gone = gone || f.Gone
		if !f.Fresh {
			return false
		}
		id := f.What + " " + f.Found
		suspects[id] = true
		mem.unsure = mem.unsure || !mem.suspects[id]
		return !mem.suspects[id]
	})
	mem.suspects = suspects
	for _, say := range v.drifts(slot, found) {
		if err := p.say(ctx, say); err != nil {
			return gone, err
		}
		p.logger.Warn("otherwise than the ledger says, or no longer", "event", say.Body.Type(), "about", say.Body.SubjectID())
	}
	return gone, nil
}

// lost finds which settings a slot's replicas would be made again with, and cannot be, because those versions are no
// longer kept.
func (e *engines) lost(ctx context.Context, v Version, plan *fold.Plan) ([]Finding, error) {
	var all []Finding
	pins := e.handed(v)
	missing := func(kind settings.Kind, key string, version uint64, err error) error {
		if !errors.Is(err, settings.ErrNotSet) {
			return err
		}
		f := Finding{
			What: fmt.Sprintf("version %d of %s %s", version, kind, key), Expected: fmt.Sprintf("kept, because slot %d runs with it", v.Slot.N),
			Found: "no longer kept; replicas that are lost are not made again; ",
		}
		if v.Slot.Kind == events.KindRollback {
			f.Found = "no longer kept; replicas that are lost are made again with what is set now; where that is not as it should be: "
		}
		f.Found += fmt.Sprintf("set it (%s), then deploy with that: %s", kind.SetCommand(v.Env, v.App, key), deployAgain(v, plan))
		all = append(all, f)
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(pins.Config)) {
		_, err := e.settings.GetConfigAt(ctx, v.Env, v.App, key, pins.ConfigStore, pins.Config[key])
		if err := missing(settings.Config, key, pins.Config[key], err); err != nil {
			return nil, err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(pins.Secrets)) {
		_, err := e.settings.GetSecretAt(ctx, v.Env, v.App, key, pins.SecretStore, pins.Secrets[key])
		if err := missing(settings.Secrets, key, pins.Secrets[key], err); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// deployAgain is the command that deploys with present settings what a slot holds.
func deployAgain(v Version, plan *fold.Plan) string {
	if plan != nil {
		return fmt.Sprintf("towpath env create %s --from %s", v.Env, plan.From)
	}
	return v.Run.ReplayCommand(fold.StagePromote, v.Env)
}

// Look implements Effects.
func (e *engines) Look(ctx context.Context, v Version, env *fold.Env, tidy bool) ([]Finding, error) {
	spec := deploy.Spec{Place: discovery.Place{Env: v.Env, App: v.App}, Slot: v.Slot.N, Repository: v.Slot.Repository, Digest: v.Slot.Digest}
	// An app that finds its settings itself has none of them in its containers, and takes up what is changed in Consul.
	config := v.Slot.Pins.Config
	if v.Run.Definition.Discover {
		config = nil
	}
	// Where a pinned value is no longer kept, there is nothing to compare with.
	if resolved, err := e.settings.ResolveAt(ctx, v.Env, v.App, events.Pins{Config: config, ConfigStore: v.Slot.Pins.ConfigStore}); err == nil {
		spec.Config = variables(resolved.Config)
	} else if !errors.Is(err, settings.ErrNotSet) {
		return nil, err
	}
	deviations, err := e.deployer.Deviations(ctx, spec, v.Slot.Instances, tidy)
	if err != nil {
		return nil, err
	}
	var all []Finding
	again := v.Slot.Kind == events.KindRollback // whose replicas were made with what could be had
	for _, d := range deviations {
		all = append(all, Finding{What: d.What, Expected: d.Expected, Found: d.Found, Gone: d.Gone})
		again = again || d.Gone
	}
	if again {
		lost, err := e.lost(ctx, v, env.Plan)
		if err != nil {
			return nil, err
		}
		all = append(all, lost...)
	}
	now := time.Now()
	if len(config) > 0 {
		present, err := e.settings.ListConfig(ctx, v.Env, v.App)
		if err != nil {
			return nil, err
		}
		all = append(all, keyFindings(settings.Config, config, v.Slot.Pins.ConfigStore, e.settings.Name(v.Env, settings.Config), env.Config, present, now)...)
	}
	if len(v.Slot.Pins.Secrets) > 0 {
		secrets, err := e.settings.ListSecrets(ctx, v.Env, v.App)
		if err != nil {
			return nil, err
		}
		all = append(all, keyFindings(settings.Secrets, v.Slot.Pins.Secrets, v.Slot.Pins.SecretStore, e.settings.Name(v.Env, settings.Secrets), env.Secrets, secrets, now)...)
	}
	return all, nil
}
