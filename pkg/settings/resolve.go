package settings

import (
	"context"
	"errors"
	"fmt"

	"towpath.dev/events"
	"towpath.dev/pkg/pipeline"
)

// MissingKey is a declared setting without a value.
type MissingKey struct {
	Env     events.Slug
	App     events.Slug
	Kind    Kind
	Key     string
	Command string // what a person runs to set it
}

func missing(env, app events.Slug, kind Kind, key string) MissingKey {
	command := fmt.Sprintf("towpath %s set %s %s %s", kind, env, app, key)
	if kind == Config {
		command += "=…"
	}
	return MissingKey{Env: env, App: app, Kind: kind, Key: key, Command: command}
}

// Resolved is what one deploy uses.
type Resolved struct {
	Config  map[string]string
	Secrets map[string]Secret
	Pins    events.Pins
}

// SecretValues lists the secrets, for a Redactor.
func (r Resolved) SecretValues() []Secret {
	values := make([]Secret, 0, len(r.Secrets))
	for _, value := range r.Secrets {
		values = append(values, value)
	}
	return values
}

// Missing returns the settings that the definition declares and the environment lacks, in declared order.
func (s *Store) Missing(ctx context.Context, env events.Slug, definition pipeline.Definition) ([]MissingKey, error) {
	_, lacking, err := s.Present(ctx, env, definition)
	return lacking, err
}

// Present returns the present versions of the settings that the definition declares, and those that the environment
// lacks, in declared order. It reads no secret's value, so it is for whoever may read none.
func (s *Store) Present(ctx context.Context, env events.Slug, definition pipeline.Definition) (events.Pins, []MissingKey, error) {
	pins := newResolved().Pins
	var lacking []MissingKey
	for _, declared := range []struct {
		kind Kind
		keys []string
		pins map[string]uint64
	}{{Config, definition.Config, pins.Config}, {Secrets, definition.Secrets, pins.Secrets}} {
		if len(declared.keys) == 0 {
			continue
		}
		items, err := s.list(ctx, declared.kind, env, definition.App)
		if err != nil {
			return events.Pins{}, nil, err
		}
		versions := map[string]uint64{}
		for _, item := range items {
			versions[item.Key] = item.Version
		}
		for _, key := range declared.keys {
			if version, set := versions[key]; set {
				declared.pins[key] = version
			} else {
				lacking = append(lacking, missing(env, definition.App, declared.kind, key))
			}
		}
	}
	return pins, lacking, nil
}

// Resolve reads the present value of every setting that the definition declares, with the versions to pin. Where
// some have none it returns which, and nothing else.
func (s *Store) Resolve(ctx context.Context, env events.Slug, definition pipeline.Definition) (Resolved, []MissingKey, error) {
	r := newResolved()
	var lacking []MissingKey
	for _, key := range definition.Config {
		value, version, err := s.GetConfig(ctx, env, definition.App, key)
		if errors.Is(err, ErrNotSet) {
			lacking = append(lacking, missing(env, definition.App, Config, key))
			continue
		}
		if err != nil {
			return Resolved{}, nil, err
		}
		r.Config[key], r.Pins.Config[key] = value, version
	}
	for _, key := range definition.Secrets {
		value, version, err := s.GetSecret(ctx, env, definition.App, key)
		if errors.Is(err, ErrNotSet) {
			lacking = append(lacking, missing(env, definition.App, Secrets, key))
			continue
		}
		if err != nil {
			return Resolved{}, nil, err
		}
		r.Secrets[key], r.Pins.Secrets[key] = value, version
	}
	if len(lacking) > 0 {
		return Resolved{}, lacking, nil
	}
	return r, nil, nil
}

// ResolveAt reads the values that the pins name. Errors wrap ErrNotSet where one is no longer kept.
func (s *Store) ResolveAt(ctx context.Context, env, app events.Slug, pins events.Pins) (Resolved, error) {
	r := newResolved()
	r.Pins = pins
	for key, version := range pins.Config {
		value, err := s.GetConfigAt(ctx, env, app, key, version)
		if err != nil {
			return Resolved{}, err
		}
		r.Config[key] = value
	}
	for key, version := range pins.Secrets {
		value, err := s.GetSecretAt(ctx, env, app, key, version)
		if err != nil {
			return Resolved{}, err
		}
		r.Secrets[key] = value
	}
	return r, nil
}

func newResolved() Resolved {
	return Resolved{
		Config: map[string]string{}, Secrets: map[string]Secret{},
		Pins: events.Pins{Config: map[string]uint64{}, Secrets: map[string]uint64{}},
	}
}
