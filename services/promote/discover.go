package promote

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"towpath.dev/events"
	"towpath.dev/pkg/settings"
	"towpath.dev/services/promote/deploy"
)

// discover has the containers of a definition that says so find their settings themselves, in Consul and Vault: they
// get access instead of values, each container tokens of its own where they are for one use. Secrets that the embedded
// store keeps are files as ever, because nobody can ask it.
func (e *engines) discover(ctx context.Context, v Version, spec *deploy.Spec) error {
	d := v.Run.Definition
	if !d.Discover {
		return nil
	}
	spec.Env = map[string]string{"TOWPATH_ENVIRONMENT": string(v.Env), "TOWPATH_APP": string(v.App)}
	spec.Files = map[string]settings.Secret{}
	holder := settings.Holder{Install: e.install, Env: v.Env, App: v.App, Slot: v.Slot.N, Keys: d.Config}
	config := e.settings.Access(v.Env, settings.Config)
	if config == nil {
		return &UnfitError{Blame: BlameSettings, Trouble: events.Trouble{
			What: "letting the app find its settings", On: v.Run.Name() + " in " + string(v.Env),
			Why: "towpath.yaml says discover: true, and the embedded store keeps the settings of " + string(v.Env),
			Do:  "name a Consul under settings in platform.yaml, or take discover away",
		}}
	}
	if err := grant(ctx, config, holder, spec); err != nil {
		return err
	}
	spec.Config = nil
	if secrets := e.settings.Access(v.Env, settings.Secrets); secrets != nil && len(d.Secrets) > 0 {
		holder.Keys = d.Secrets
		if err := grant(ctx, secrets, holder, spec); err != nil {
			return err
		}
		spec.Conceal = slices.Collect(maps.Values(spec.Secrets)) // the app may print what it finds
		spec.Secrets, spec.Own = nil, e.issuer(v)
	}
	return nil
}

// issuer is who gives the containers of a version tokens of their own; nil: they need none.
func (e *engines) issuer(v Version) settings.Issuer {
	if d := v.Run.Definition; !d.Discover || len(d.Secrets) == 0 {
		return nil
	}
	own, _ := e.settings.Access(v.Env, settings.Secrets).(settings.Issuer)
	return own
}

func grant(ctx context.Context, access settings.Access, h settings.Holder, spec *deploy.Spec) error {
	given, err := access.Grant(ctx, h)
	if err != nil {
		return fmt.Errorf("letting %s find its settings in %s: %w", h.App, h.Env, err)
	}
	maps.Copy(spec.Env, given.Env)
	maps.Copy(spec.Files, given.Files)
	return nil
}

// access is what slots of an environment may have been granted.
func access(store *settings.Store) func(env events.Slug) []settings.Access {
	return func(env events.Slug) []settings.Access {
		var all []settings.Access
		for _, kind := range []settings.Kind{settings.Config, settings.Secrets} {
			if a := store.Access(env, kind); a != nil {
				all = append(all, a)
			}
		}
		return all
	}
}
