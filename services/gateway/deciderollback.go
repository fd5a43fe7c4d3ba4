package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/settings"
	"towpath.dev/services/gateway/view"
)

// then are the settings of a rollback: values of configuration, the versions that secrets have now, what that version needs
// and is no longer kept, and of what kinds it finds its settings itself, whatever it is pinned to.
type then struct {
	values  map[pinned]string
	secrets map[string]uint64
	store   string // that has the secrets now
	lost    []string
	found   map[settings.Kind]bool
}

// finds says of what kinds an app finds its settings itself in an environment.
func (s *Service) finds(run *fold.Run, env events.Slug) map[settings.Kind]bool {
	found := map[settings.Kind]bool{}
	if run != nil && run.Definition.Discover {
		found[settings.Config] = true // in Consul, without which it is not deployed
		found[settings.Secrets] = s.settings.External(env, settings.Secrets)
	}
	return found
}

// foundItself says what a deployment does not change of an app that finds its settings itself.
func foundItself(app, env events.Slug, found map[settings.Kind]bool, pins events.Pins) (kept []string) {
	if found[settings.Config] && len(pins.Config) > 0 {
		kept = append(kept, fmt.Sprintf("configuration as Consul has it now: %s reads it there itself in %s (discover: true)", app, env))
	}
	if found[settings.Secrets] && len(pins.Secrets) > 0 {
		kept = append(kept, fmt.Sprintf("secrets as Vault has them now: %s reads them there itself in %s (discover: true)", app, env))
	}
	return kept
}

// pinned is a version of a key in a store.
type pinned struct {
	key, store string
	version    uint64
}

// rollbackTarget returns the slot that an order brings back, and the one whose version and pins that has; nils: there
// is none.
func rollbackTarget(o order, app *fold.App) (slot, origin *fold.Slot) {
	env := app.Env(o.Env)
	live := env.Live()
	if live == nil {
		return nil, nil
	}
	for slot := range env.Slots.Backward() {
		if !slot.Closing.Stands() || slot.Kind == events.KindRemove || slot.Digest == "" {
			continue
		}
		if o.Run > 0 && slot.Run == o.Run || o.Run == 0 && slot.N < live.N && slot.Digest != live.Digest {
			return slot, env.Origin(slot)
		}
	}
	return nil, nil
}

// then looks up what a rollback's settings were and are.
func (s *Service) then(ctx context.Context, o order, app *fold.App) (*then, error) {
	_, origin := rollbackTarget(o, app)
	if origin == nil {
		return nil, nil
	}
	t := &then{
		values: map[pinned]string{}, secrets: map[string]uint64{}, store: s.settings.Name(o.Env, settings.Secrets),
		found: s.finds(app.Run(origin.Run), o.Env),
	}
	lost := func(kind settings.Kind, key string, version uint64) {
		t.lost = append(t.lost, fmt.Sprintf("version %d of %s %s is no longer kept", version, kind, key))
	}
	for i, pins := range []events.Pins{app.Env(o.Env).Live().Pins, origin.Pins} {
		if t.found[settings.Config] {
			break
		}
		for key, version := range pins.Config {
			value, err := s.settings.GetConfigAt(ctx, o.Env, o.App, key, pins.ConfigStore, version)
			switch {
			case errors.Is(err, settings.ErrNotSet):
				if i == 1 {
					lost(settings.Config, key, version)
				}
				continue
			case err != nil:
				return nil, err
			}
			t.values[pinned{key, pins.ConfigStore, version}] = value
		}
	}
	items, err := s.settings.ListSecrets(ctx, o.Env, o.App)
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		t.secrets[item.Key] = item.Version
	}
	for key, version := range origin.Pins.Secrets {
		switch {
		case o.WithSecrets && !events.SameStore(origin.Pins.SecretStore, t.store) && origin.Pins.SecretStore != events.StoreEmbedded:
			t.lost = append(t.lost, fmt.Sprintf("version %d of secret %s was %s", version, key, settings.Moved(origin.Pins.SecretStore, t.store)))
		case o.WithSecrets && s.settings.External(o.Env, settings.Secrets):
			// Only promote may read there, and says where that version is no longer kept.
		case o.WithSecrets:
			if _, err := s.settings.GetSecretAt(ctx, o.Env, o.App, key, origin.Pins.SecretStore, version); errors.Is(err, settings.ErrNotSet) {
				lost(settings.Secrets, key, version)
			} else if err != nil {
				return nil, err
			}
		case t.secrets[key] == 0:
			t.lost = append(t.lost, fmt.Sprintf("secret %s has no value", key))
		}
	}
	slices.Sort(t.lost)
	t.lost = slices.Compact(t.lost)
	return t, nil
}

func decideRollback(o order, s scope, d decision) (decision, *problem) {
	const doing = "rolling back"
	place := fmt.Sprintf("%s in %s", o.App, o.Env)
	live := s.app.Env(o.Env).Live()
	if o.Env == "" {
		return d, invalid(doing, string(o.App), "no environment is named", "name it with --env")
	}
	if live == nil {
		return d, conflict(doing, place, "nothing has run there", "")
	}
	slot, origin := rollbackTarget(o, s.app)
	if s.then == nil {
		s.then = &then{}
	}
	switch {
	case s.app.Env(o.Env).Ending != 0:
		return d, conflict(doing, place, string(o.Env)+" is being destroyed", "")
	case s.app.Env(o.Env).Gone:
		return d, conflict(doing, place, string(o.Env)+" was destroyed", "towpath env create "+string(o.Env)+" --from ENV makes it again")
	case slot == nil && o.Run > 0:
		return d, conflict(doing, place, fold.Name(o.App, o.Run)+" was never verified there", "towpath show "+fold.Name(o.App, o.Run))
	case slot == nil:
		return d, conflict(doing, place, "no other version was verified there before "+fold.Name(o.App, live.Run), "")
	case len(s.then.lost) > 0:
		do := "push that change again: it is deployed with today's settings"
		if !o.WithSecrets {
			do = fmt.Sprintf("set the secret again (towpath secret set %s %s KEY), or %s", o.Env, o.App, do)
		}
		return d, conflict(doing, place, strings.Join(s.then.lost, "; "), do)
	}
	d.command.Slot, d.command.Run, d.command.Digest, d.command.WithSecrets = slot.N, slot.Run, slot.Digest, o.WithSecrets
	d.preview = s.foreseeRollback(o, live, slot, origin)
	d.text = fmt.Sprintf("%s comes back to %s (%s)", fold.Name(o.App, slot.Run), o.Env, shortDigest(slot.Digest))
	switch n := len(d.preview.Settings); {
	case s.then.found[settings.Config]:
		d.text += " with the settings that it finds there now"
	case n > 0:
		d.text += fmt.Sprintf(" with %s as at that time", plural(n, "setting"))
	case len(live.Pins.Config)+len(live.Pins.Secrets) > 0:
		d.text += " with the same settings"
	}
	return d, nil
}

// foreseeRollback says what will be otherwise than it is now.
func (s scope) foreseeRollback(o order, live, slot, origin *fold.Slot) view.Preview {
	p := view.Preview{Image: &view.ImageChange{
		Was: live.Digest, WasRun: fold.Name(o.App, live.Run), Is: slot.Digest, IsRun: fold.Name(o.App, slot.Run),
	}}
	p.Kept = foundItself(o.App, o.Env, s.then.found, origin.Pins)
	for _, key := range keysOf(live.Pins.Config, origin.Pins.Config) {
		was, is := live.Pins.Config[key], origin.Pins.Config[key]
		from := movedFrom(live.Pins.ConfigStore, origin.Pins.ConfigStore, was, is)
		if was == is && from == "" || s.then.found[settings.Config] {
			continue
		}
		one := view.SettingChange{Key: key, Kind: string(settings.Config), Was: was, Is: is, From: from}
		if value, ok := s.then.values[pinned{key, live.Pins.ConfigStore, was}]; ok && was != 0 {
			one.WasValue = &value
		}
		if value, ok := s.then.values[pinned{key, origin.Pins.ConfigStore, is}]; ok && is != 0 {
			one.IsValue = &value
		}
		p.Settings = append(p.Settings, one)
	}
	for _, key := range keysOf(live.Pins.Secrets, origin.Pins.Secrets) {
		if s.then.found[settings.Secrets] {
			break
		}
		was, is, version := live.Pins.Secrets[key], s.then.secrets[key], origin.Pins.Secrets[key]
		store := s.then.store
		if o.WithSecrets || version == 0 {
			is, store = version, origin.Pins.SecretStore
		}
		from := movedFrom(live.Pins.SecretStore, store, was, is)
		if was != is || from != "" {
			p.Settings = append(p.Settings, view.SettingChange{Key: key, Kind: string(settings.Secrets), Was: was, Is: is, From: from})
		}
		if moved := movedFrom(origin.Pins.SecretStore, store, version, is); !o.WithSecrets && moved != "" {
			p.Kept = append(p.Kept, fmt.Sprintf("secret %s as it is now, version %d (%s)", key, is, settings.Moved(moved, store)))
		} else if !o.WithSecrets && version != 0 && version != is {
			p.Kept = append(p.Kept, fmt.Sprintf("secret %s as it is now, version %d (%s ran with %d; --with-secrets brings that back)", key, is, fold.Name(o.App, slot.Run), version))
		}
	}
	return p
}

// movedFrom is the store of a version that another one, of another store, takes the place of; empty: both are of one.
func movedFrom(was, is string, before, now uint64) string {
	if before == 0 || now == 0 || events.SameStore(was, is) {
		return ""
	}
	return was
}

// keysOf are the keys of two sets of pins, sorted.
func keysOf(a, b map[string]uint64) []string {
	keys := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(keys)
	return slices.Compact(keys)
}
