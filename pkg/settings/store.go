// Package settings keeps each app's configuration and secrets in each environment.
//
// A Store asks, for each environment, the provider that the platform file names: Consul and Vault, or the embedded
// one, buckets of the bus. It guarantees that a version names one value of one key for good, that a write which sets
// what is there already makes no new version where the provider may read what is there, and that a secret's value
// leaves it only as a Secret. It writes no events: who changes a setting says so in the ledger afterwards.
package settings

import (
	"context"
	"fmt"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/policy"
)

// MaxValue is the largest value of a setting, in bytes.
const MaxValue = 64 << 10

// Kind tells configuration from secrets.
type Kind string

// The kinds.
const (
	Config  Kind = "config"
	Secrets Kind = "secret"
)

// Store is where all settings are. It is safe for concurrent use.
type Store struct {
	embedded map[Kind]*Embedded
	external map[Kind]map[events.Slug]Provider
	access   map[Kind]map[events.Slug]Access
	archive  archive
}

// Open returns the store on a bus, with nothing but the embedded provider. key has KeySize bytes. It does no IO.
func Open(client *ledger.Client, key []byte) (*Store, error) {
	s := &Store{
		embedded: map[Kind]*Embedded{}, external: map[Kind]map[events.Slug]Provider{Config: {}, Secrets: {}},
		access: map[Kind]map[events.Slug]Access{Config: {}, Secrets: {}}, archive: archive{client.Bucket(events.BucketPinned)},
	}
	for _, kind := range []Kind{Config, Secrets} {
		var err error
		if s.embedded[kind], err = NewEmbedded(client, kind, key); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Use has an environment's settings of one kind kept by p, or by the embedded provider where p is nil. Environments
// for which it is not called are as policy.DefaultEnvironment is. It is called before the store is used.
func (s *Store) Use(env events.Slug, kind Kind, p Provider) { s.external[kind][env] = p }

func (s *Store) provider(env events.Slug, kind Kind) Provider {
	p, named := s.external[kind][env]
	if !named {
		p = s.external[kind][policy.DefaultEnvironment]
	}
	if p == nil {
		return s.embedded[kind]
	}
	return p
}

// Name says which store keeps an environment's settings of one kind; see Provider.
func (s *Store) Name(env events.Slug, kind Kind) string { return s.provider(env, kind).Name() }

// ReadOnly reports whether an environment's settings of one kind may only be read; see Provider.
func (s *Store) ReadOnly(env events.Slug, kind Kind) bool { return s.provider(env, kind).ReadOnly() }

// External reports whether another provider than the embedded one keeps an environment's settings of one kind.
func (s *Store) External(env events.Slug, kind Kind) bool {
	return s.provider(env, kind) != Provider(s.embedded[kind])
}

// SetConfig sets a configuration value and returns its version, which is the present one where the value is the
// same. Errors wrap ErrInvalid where key or value can never be stored.
func (s *Store) SetConfig(ctx context.Context, env, app events.Slug, key, value string) (version uint64, err error) {
	return s.set(ctx, Place{Config, env, app, key}, value, nil)
}

// SetSecret is SetConfig for a secret.
func (s *Store) SetSecret(ctx context.Context, env, app events.Slug, key string, value Secret) (version uint64, err error) {
	return s.set(ctx, Place{Secrets, env, app, key}, value.Reveal(), nil)
}

// SetConfigIf sets a value only where the key's version is the one expected, 0 for a key that is not set; else the
// error wraps ErrChanged.
func (s *Store) SetConfigIf(ctx context.Context, env, app events.Slug, key, value string, expected uint64) (version uint64, err error) {
	return s.set(ctx, Place{Config, env, app, key}, value, &expected)
}

// SetSecretIf is SetConfigIf for a secret.
func (s *Store) SetSecretIf(ctx context.Context, env, app events.Slug, key string, value Secret, expected uint64) (version uint64, err error) {
	return s.set(ctx, Place{Secrets, env, app, key}, value.Reveal(), &expected)
}

func (s *Store) set(ctx context.Context, p Place, value string, expected *uint64) (uint64, error) {
	version, err := s.provider(p.Env, p.Kind).Set(ctx, p, value, expected)
	return version, wrap("setting", p, err)
}

// GetConfig returns a value and its version. Errors wrap ErrNotSet where there is none.
func (s *Store) GetConfig(ctx context.Context, env, app events.Slug, key string) (value string, version uint64, err error) {
	return s.get(ctx, Place{Config, env, app, key})
}

// GetSecret is GetConfig for a secret.
func (s *Store) GetSecret(ctx context.Context, env, app events.Slug, key string) (Secret, uint64, error) {
	value, version, err := s.get(ctx, Place{Secrets, env, app, key})
	return NewSecret(value), version, err
}

func (s *Store) get(ctx context.Context, p Place) (string, uint64, error) {
	if err := p.Check(); err != nil {
		return "", 0, err
	}
	value, version, err := s.provider(p.Env, p.Kind).Get(ctx, p)
	return value, version, wrap("reading", p, err)
}

// GetConfigAt returns the value that a version of a store named; an empty store is the present one. What another store
// had is read from the embedded one and from the archive. Errors wrap ErrNotSet where it is no longer kept.
func (s *Store) GetConfigAt(ctx context.Context, env, app events.Slug, key, store string, version uint64) (string, error) {
	return s.at(ctx, Place{Config, env, app, key}, store, version)
}

// GetSecretAt is GetConfigAt for a secret, of which there is no archive.
func (s *Store) GetSecretAt(ctx context.Context, env, app events.Slug, key, store string, version uint64) (Secret, error) {
	value, err := s.at(ctx, Place{Secrets, env, app, key}, store, version)
	return NewSecret(value), err
}

func (s *Store) at(ctx context.Context, p Place, store string, version uint64) (value string, err error) {
	if err := p.Check(); err != nil {
		return "", err
	}
	switch present := s.provider(p.Env, p.Kind); {
	case events.SameStore(store, present.Name()):
		value, err = present.GetAt(ctx, p, version)
	case store == events.StoreEmbedded:
		value, err = s.embedded[p.Kind].GetAt(ctx, p, version)
	case p.Kind == Config:
		value, err = s.archive.value(ctx, p, store, version)
	default:
		err = fmt.Errorf("%w of that version here: %s", ErrNotSet, Moved(store, present.Name()))
	}
	return value, wrap(fmt.Sprintf("reading version %d of", version), p, err)
}

// Moved says that an environment's settings are in another store than they were.
func Moved(from, to string) string { return fmt.Sprintf("moved from %s to %s", from, to) }

// Forget takes away what is kept of an app in an environment beyond its present settings: earlier values of its
// configuration. The app can go back to none of them.
func (s *Store) Forget(ctx context.Context, env, app events.Slug) error {
	if err := (Place{Config, env, app, "A"}).Check(); err != nil {
		return err
	}
	for _, err := range []error{s.archive.forget(ctx, env, app), s.embedded[Config].forget(ctx, env, app)} {
		if err != nil {
			return fmt.Errorf("forgetting the earlier configuration of %s in %s: %w", app, env, err)
		}
	}
	return nil
}

// DeleteConfig takes a value away and returns the version that says so. Earlier versions are kept for rollbacks.
// Errors wrap ErrNotSet where there is none.
func (s *Store) DeleteConfig(ctx context.Context, env, app events.Slug, key string) (version uint64, err error) {
	version, _, err = s.remove(ctx, Place{Config, env, app, key})
	return version, err
}

// DeleteSecret takes a secret away, with all its earlier versions: a slot that is pinned to one of them cannot come
// back. left says where the store still holds the value, see Provider. Errors wrap ErrNotSet where there is none.
func (s *Store) DeleteSecret(ctx context.Context, env, app events.Slug, key string) (version uint64, left string, err error) {
	return s.remove(ctx, Place{Secrets, env, app, key})
}

func (s *Store) remove(ctx context.Context, p Place) (version uint64, left string, err error) {
	if err := p.Check(); err != nil {
		return 0, "", err
	}
	version, left, err = s.provider(p.Env, p.Kind).Delete(ctx, p)
	return version, left, wrap("removing", p, err)
}

// ListConfig returns an app's configuration in an environment, sorted by key.
func (s *Store) ListConfig(ctx context.Context, env, app events.Slug) ([]Item, error) {
	return s.list(ctx, Config, env, app)
}

// ListSecrets returns which secrets an app has in an environment, sorted by key, never their values.
func (s *Store) ListSecrets(ctx context.Context, env, app events.Slug) ([]Item, error) {
	return s.list(ctx, Secrets, env, app)
}

func (s *Store) list(ctx context.Context, kind Kind, env, app events.Slug) ([]Item, error) {
	if err := (Place{kind, env, app, "A"}).Check(); err != nil {
		return nil, err
	}
	items, err := s.provider(env, kind).List(ctx, env, app)
	if err != nil {
		return nil, fmt.Errorf("listing the %s of %s in %s: %w", kind, app, env, err)
	}
	return items, nil
}

// Watch returns when an app's settings of one kind in an environment may have changed since mark; see Provider.
func (s *Store) Watch(ctx context.Context, kind Kind, env, app events.Slug, mark uint64) (next uint64, err error) {
	next, err = s.provider(env, kind).Watch(ctx, env, app, mark)
	if err != nil {
		return mark, fmt.Errorf("watching the %s of %s in %s: %w", kind, app, env, err)
	}
	return next, nil
}

// Newest returns the settings of the embedded provider that were changed last, at most most of each kind. A process
// that died between setting one and saying so finds here what is left to say.
func (s *Store) Newest(ctx context.Context, most int) ([]Change, error) {
	var changes []Change
	for _, kind := range []Kind{Config, Secrets} {
		newest, err := s.embedded[kind].Newest(ctx, most)
		if err != nil {
			return nil, fmt.Errorf("listing the newest %s: %w", kind, err)
		}
		changes = append(changes, newest...)
	}
	return changes, nil
}

func wrap(doing string, p Place, err error) error {
	if err != nil {
		return fmt.Errorf("%s %s: %w", doing, p, err)
	}
	return nil
}
