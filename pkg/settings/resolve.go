package settings

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"towpath.dev/events"
	"towpath.dev/pkg/pipeline"
)

// MissingKey is a declared setting that an environment cannot give to the app: it has no value, or one that no container
// can have.
type MissingKey struct {
	Env     events.Slug
	App     events.Slug
	Kind    Kind
	Key     string
	Unfit   string // why its value cannot be deployed; empty: it has none
	Command string // what a person runs to set it
}

func missing(env, app events.Slug, kind Kind, key, unfit string) MissingKey {
	return MissingKey{Env: env, App: app, Kind: kind, Key: key, Unfit: unfit, Command: kind.SetCommand(env, app, key)}
}

// SetCommand is what a person runs to set a key.
func (k Kind) SetCommand(env, app events.Slug, key string) string {
	command := fmt.Sprintf("towpath %s set %s %s %s", k, env, app, key)
	if k == Config {
		command += "=…"
	}
	return command
}

// String says what is the matter, without the command.
func (m MissingKey) String() string {
	if m.Unfit == "" {
		return m.Key + " missing"
	}
	return m.Key + " cannot be deployed: " + m.Unfit
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
// cannot give to the app, in declared order. It reads no secret's value, so it is for whoever may read none.
func (s *Store) Present(ctx context.Context, env events.Slug, definition pipeline.Definition) (events.Pins, []MissingKey, error) {
	items := map[string]Item{}
	if len(definition.Config) > 0 {
		all, err := s.ListConfig(ctx, env, definition.App)
		if err != nil {
			return events.Pins{}, nil, err
		}
		for _, item := range all {
			items[item.Key] = item
		}
	}
	return s.pin(ctx, env, definition, items)
}

// Pin is Present for whoever is to deploy: it also makes sure that the configuration can be read at the versions that it
// returns later on, whatever is changed meanwhile.
func (s *Store) Pin(ctx context.Context, env events.Slug, definition pipeline.Definition) (events.Pins, []MissingKey, error) {
	items := map[string]Item{}
	for _, key := range definition.Config {
		value, version, err := s.GetConfig(ctx, env, definition.App, key)
		switch {
		case errors.Is(err, ErrNotSet):
		case errors.Is(err, ErrInvalid):
			items[key] = Item{Key: key, Unfit: err.Error()}
		case err != nil:
			return events.Pins{}, nil, err
		default:
			items[key] = Item{Key: key, Value: value, Version: version}
		}
	}
	return s.pin(ctx, env, definition, items)
}

// pin judges what there is of the declared settings, config being that of the configuration.
func (s *Store) pin(ctx context.Context, env events.Slug, definition pipeline.Definition, config map[string]Item) (events.Pins, []MissingKey, error) {
	pins := newResolved().Pins
	var lacking []MissingKey
	judge := func(kind Kind, keys []string, items map[string]Item, versions map[string]uint64) {
		for _, key := range keys {
			switch item, set := items[key]; {
			case !set, item.Unfit != "":
				lacking = append(lacking, missing(env, definition.App, kind, key, item.Unfit))
			default:
				versions[key] = item.Version
			}
		}
	}
	if len(definition.Config) > 0 {
		pins.ConfigStore = s.Name(env, Config)
		if !definition.Discover {
			tooMuch(definition.Config, config)
		}
		judge(Config, definition.Config, config, pins.Config)
	}
	if len(definition.Secrets) > 0 {
		pins.SecretStore = s.Name(env, Secrets)
		all, err := s.ListSecrets(ctx, env, definition.App)
		if err != nil {
			return events.Pins{}, nil, err
		}
		items := map[string]Item{}
		for _, item := range all {
			items[item.Key] = item
		}
		judge(Secrets, definition.Secrets, items, pins.Secrets)
	}
	return pins, lacking, nil
}

// MaxEnvironment is how much configuration an app's containers can have together, in bytes, names included. Linux gives a
// process a quarter of its stack's limit, 2 MiB where nobody changed that, for its variables and arguments; the image has
// some of its own.
const MaxEnvironment = 1 << 20

// tooMuch marks the largest values where all are more than an environment takes.
func tooMuch(keys []string, items map[string]Item) {
	size := func(key string) int { return len(key) + len("=\x00") + len(items[key].Value) }
	total := 0
	for _, key := range keys {
		total += size(key)
	}
	largest := slices.SortedFunc(slices.Values(keys), func(a, b string) int { return cmp.Or(cmp.Compare(size(b), size(a)), cmp.Compare(a, b)) })
	for left, i := total, 0; left > MaxEnvironment && i < len(largest); i++ {
		item, set := items[largest[i]]
		if !set || item.Unfit != "" {
			continue
		}
		left -= size(item.Key)
		item.Unfit = fmt.Sprintf("all configuration has %d bytes together, more than the %d that a container's environment takes, and this one has %d of them; make it shorter, or keep it as a secret, which is a file",
			total, MaxEnvironment, len(item.Value))
		items[item.Key] = item
	}
}

// ResolveAt reads the values that the pins name. Errors wrap ErrNotSet where one is no longer kept.
func (s *Store) ResolveAt(ctx context.Context, env, app events.Slug, pins events.Pins) (Resolved, error) {
	r := newResolved()
	r.Pins = pins
	for key, version := range pins.Config {
		value, err := s.GetConfigAt(ctx, env, app, key, pins.ConfigStore, version)
		if err != nil {
			return Resolved{}, err
		}
		r.Config[key] = value
	}
	for key, version := range pins.Secrets {
		value, err := s.GetSecretAt(ctx, env, app, key, pins.SecretStore, version)
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
