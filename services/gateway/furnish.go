package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/worker/boundary"
	"towpath.dev/services/gateway/view"
)

// furnishing bounds how many apps' settings are copied at a time.
const furnishing = 16

// copied is one setting of an environment that is to be made.
type copied struct {
	kind   settings.Kind
	app    events.Slug
	key    string
	value  settings.Secret // whatever kind it is: it is written and never shown
	pinned bool            // the version that is to run uses it
	there  uint64          // the version that is there already and stays; 0: it is to be written
}

// findAllSettings finds the settings of an environment that is to be made: what each app's version uses where it is copied
// from, and what the request says instead. In an environment that is renewed (known), what is set stays. It writes nothing.
func (s *Service) findAllSettings(ctx context.Context, o view.NewEnvironment, known *fold.Environment, plan []planned) ([][]copied, error) {
	found := make([][]copied, len(plan))
	lacks := make([][]string, len(plan))
	err := side(len(plan), func(i int) (err error) {
		found[i], lacks[i], err = s.findSettings(ctx, o, known, plan[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	if missing := slices.Concat(lacks...); len(missing) > 0 {
		return nil, conflict("making environment", string(o.Name), strings.Join(missing, "; "), "give those with --settings, or promote the app to "+string(o.From)+" again")
	}
	return found, nil
}

// furnish writes the settings that were found for each app of an environment.
func (s *Service) furnish(ctx context.Context, actor identity.Actor, o view.NewEnvironment, plan []planned, found [][]copied) (apps []events.EnvironmentApp, warnings []string, err error) {
	apps = make([]events.EnvironmentApp, len(plan))
	err = side(len(plan), func(i int) (err error) {
		apps[i] = events.EnvironmentApp{App: plan[i].app.Name, Slot: plan[i].slot.N}
		apps[i].Pins, err = s.writeSettings(ctx, actor, o.Name, found[i])
		return err
	})
	for i, p := range plan {
		for _, one := range found[i] {
			if w := undeclared(p.app, one.key, one.kind == settings.Secrets); w != "" {
				warnings = append(warnings, w)
			}
		}
	}
	return apps, warnings, err
}

// side does n things side by side and returns their errors.
func side(n int, do func(int) error) error {
	errs := make([]error, n)
	places := make(chan struct{}, furnishing)
	var work sync.WaitGroup
	for i := range n {
		places <- struct{}{}
		work.Go(func() {
			defer func() { <-places }()
			errs[i] = do(i)
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

// findSettings finds the value of every setting that an app is to have in a new environment, and says which cannot be had.
func (s *Service) findSettings(ctx context.Context, o view.NewEnvironment, known *fold.Environment, p planned) (found []copied, missing []string, err error) {
	for _, kind := range []settings.Kind{settings.Config, settings.Secrets} {
		pins, store, given := p.slot.Pins.Config, p.slot.Pins.ConfigStore, o.Apps[p.app.Name].Config
		if kind == settings.Secrets {
			pins, store, given = p.slot.Pins.Secrets, p.slot.Pins.SecretStore, o.Apps[p.app.Name].Secrets
		}
		var there map[string]uint64
		switch {
		case known == nil:
			err = s.othersKeys(ctx, kind, o.Name, p.app.Name)
		case !known.Preparing: // else what is there is of an attempt that came to no end, and is written anew
			there, err = s.versionsOf(ctx, kind, o.Name, p.app.Name)
		}
		if err != nil {
			return nil, nil, err
		}
		keys := slices.AppendSeq(slices.Collect(maps.Keys(pins)), maps.Keys(given))
		slices.Sort(keys)
		for _, key := range slices.Compact(keys) {
			version, pinned := pins[key]
			one := copied{kind: kind, app: p.app.Name, key: key, pinned: pinned, there: there[key]}
			if text, ok := given[key]; ok {
				if err := pipeline.CheckKey(key); err != nil {
					return nil, nil, invalid("making environment", string(o.Name), fmt.Sprintf("%.80s of %s: %v", key, p.app.Name, err), "")
				}
				one.value, one.there = settings.NewSecret(text), 0
				found = append(found, one)
				continue
			}
			if one.there == 0 && kind == settings.Secrets && s.settings.External(o.From, kind) {
				missing = append(missing, fmt.Sprintf("secret %s of %s is in the Vault of %s, where the gateway reads no value", key, p.app.Name, o.From))
				continue
			}
			if one.there == 0 {
				one.value, err = s.valueAt(ctx, kind, o.From, p.app.Name, key, store, version)
			}
			switch {
			case errors.Is(err, settings.ErrNotSet):
				missing = append(missing, fmt.Sprintf("version %d of %s %s of %s in %s is no longer kept", version, kind, key, p.app.Name, o.From))
			case err != nil:
				return nil, nil, err
			default:
				found = append(found, one)
			}
		}
	}
	return found, missing, nil
}

// othersKeys refuses a new environment where somebody else has put keys of the app into the store that it would use: they
// would be overwritten now, and removed when it is destroyed.
func (s *Service) othersKeys(ctx context.Context, kind settings.Kind, env, app events.Slug) error {
	if !s.settings.External(env, kind) {
		return nil
	}
	items, err := s.list(ctx, kind, env, app)
	if err != nil {
		return err
	}
	known := map[string]fold.Setting{}
	if a := s.fold().App(app); a != nil {
		if known = a.Env(env).Config; kind == settings.Secrets {
			known = a.Env(env).Secrets
		}
	}
	var others []string
	for _, item := range items {
		if _, ours := known[item.Key]; !ours && !item.Shared {
			others = append(others, item.Key)
		}
	}
	if len(others) == 0 {
		return nil
	}
	return conflict("making environment", string(env), fmt.Sprintf("%s of %s (%s) is set already in the store that it would use, and not by Towpath", kind, app, strings.Join(others, ", ")),
		"choose another name, or remove it there: destroying the environment would")
}

// list lists an app's settings of one kind. It reads no value of a secret.
func (s *Service) list(ctx context.Context, kind settings.Kind, env, app events.Slug) ([]settings.Item, error) {
	if kind == settings.Secrets {
		return s.settings.ListSecrets(ctx, env, app)
	}
	return s.settings.ListConfig(ctx, env, app)
}

// versionsOf are the present versions of an app's settings of one kind, by key. It reads no value.
func (s *Service) versionsOf(ctx context.Context, kind settings.Kind, env, app events.Slug) (map[string]uint64, error) {
	items, err := s.list(ctx, kind, env, app)
	versions := map[string]uint64{}
	for _, item := range items {
		versions[item.Key] = item.Version
	}
	return versions, err
}

func (s *Service) valueAt(ctx context.Context, kind settings.Kind, env, app events.Slug, key, store string, version uint64) (settings.Secret, error) {
	if kind == settings.Secrets {
		return s.settings.GetSecretAt(ctx, env, app, key, store, version)
	}
	text, err := s.settings.GetConfigAt(ctx, env, app, key, store, version)
	return settings.NewSecret(text), err
}

// writeSettings writes settings of one app, says so in the ledger, and returns the versions that its version uses.
func (s *Service) writeSettings(ctx context.Context, actor identity.Actor, env events.Slug, all []copied) (events.Pins, error) {
	pins := events.Pins{
		Config: map[string]uint64{}, ConfigStore: s.settings.Name(env, settings.Config),
		Secrets: map[string]uint64{}, SecretStore: s.settings.Name(env, settings.Secrets),
	}
	for _, one := range all {
		version := one.there
		if version == 0 {
			var err error
			if one.kind == settings.Secrets {
				version, err = s.settings.SetSecret(ctx, env, one.app, one.key, one.value)
			} else {
				version, err = s.settings.SetConfig(ctx, env, one.app, one.key, one.value.Reveal())
			}
			switch {
			case errors.Is(err, settings.ErrInvalid):
				return pins, invalid("making environment", string(env), err.Error(), "")
			case errors.Is(err, settings.ErrReadOnly):
				return pins, refused("making environment", string(env), err.Error(), "name a store that Towpath may write for it, under settings in platform.yaml")
			}
			if err != nil {
				return pins, err
			}
			boundary.Reached(events.Gateway, boundary.Effect, one.app)
			change := settings.Change{Kind: one.kind, Env: env, App: one.app, Key: one.key, Store: s.settings.Name(env, one.kind), Version: version}
			if _, err := s.recordSetting(ctx, change, actor.ID); err != nil {
				return pins, err
			}
		}
		switch {
		case !one.pinned:
		case one.kind == settings.Secrets:
			pins.Secrets[one.key] = version
		default:
			pins.Config[one.key] = version
		}
	}
	return pins, nil
}

// clearPause is how soon settings that could not be removed are tried again.
const clearPause = 2 * time.Second

// keepClearing removes the settings of environments that are to be destroyed, until ctx ends.
func (s *Service) keepClearing(ctx context.Context) {
	cleared := map[events.Slug]string{} // environment → id of its ending
	for ctx.Err() == nil {
		seq, wait := s.fold().Seq(), time.Hour
		for _, e := range s.fold().Environments() {
			if e.Gone || e.Ending == nil || cleared[e.Name] == e.Ending.ID {
				continue
			}
			if err := s.clearSettings(ctx, e); err != nil {
				wait = clearPause
				if ctx.Err() == nil {
					s.logger.Warn("settings of an environment that is to be destroyed are still there", "env", e.Name, "err", err)
				}
				continue
			}
			cleared[e.Name] = e.Ending.ID
		}
		waiting, cancel := context.WithTimeout(ctx, wait)
		if wait == clearPause {
			<-waiting.Done()
		} else {
			s.fold().Wait(waiting, seq+1)
		}
		cancel()
	}
}

// clearSettings removes every setting of an environment, of the apps that it has or had, and what is kept of earlier ones.
// What Towpath may only read is somebody else's, and stays.
func (s *Service) clearSettings(ctx context.Context, e *fold.Environment) error {
	defer s.making.lock(e.Name)()
	actor := e.Ending.Actor
	if actor == "" {
		actor = string(events.Watch)
	}
	apps := slices.DeleteFunc(s.fold().Apps(), func(a *fold.App) bool { return a.Envs[e.Name] == nil }) // of others nothing was put there
	return side(len(apps), func(i int) error {
		app := apps[i].Name
		// Before the settings are gone too, since nobody looks here again once they are.
		if err := s.settings.Forget(ctx, e.Name, app); err != nil {
			return err
		}
		for _, kind := range []settings.Kind{settings.Config, settings.Secrets} {
			if err := s.clearKind(ctx, e.Name, app, kind, actor); err != nil {
				return err
			}
		}
		return s.settings.Forget(ctx, e.Name, app)
	})
}

// clearKind removes every setting of one kind of an app in an environment.
func (s *Service) clearKind(ctx context.Context, env, app events.Slug, kind settings.Kind, actor string) error {
	store := s.settings.Name(env, kind)
	if s.settings.ReadOnly(env, kind) {
		s.logger.Info("settings of an environment that is destroyed stay where they may only be read", "env", env, "app", app, "kind", kind, "store", store)
		return nil
	}
	items, err := s.list(ctx, kind, env, app)
	if err != nil {
		return err
	}
	for _, item := range items {
		if item.Shared {
			continue // it is not the app's
		}
		change := settings.Change{Kind: kind, Env: env, App: app, Key: item.Key, Store: store, Deleted: true}
		if kind == settings.Config {
			change.Version, err = s.settings.DeleteConfig(ctx, env, app, item.Key)
		} else {
			change.Version, _, err = s.settings.DeleteSecret(ctx, env, app, item.Key) // no other stays that could share it
		}
		if errors.Is(err, settings.ErrNotSet) {
			continue
		}
		if err == nil {
			boundary.Reached(events.Gateway, boundary.Effect, app)
			_, err = s.recordSetting(ctx, change, actor)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
