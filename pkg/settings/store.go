// Package settings keeps each app's configuration and secrets in each environment.
//
// The store in this package is the embedded one: buckets of the bus, secrets encrypted under a key that never
// leaves the machines of gateway and promote. It guarantees that a version names one value of one key for good,
// that a write which sets what is there already makes no new version, and that a secret's value leaves it only as a
// Secret. It writes no events: who changes a setting says so in the ledger afterwards.
package settings

import (
	"cmp"
	"context"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/chacha20poly1305"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/pipeline"
)

// MaxValue is the largest value of a setting, in bytes.
const MaxValue = 64 << 10

// KeySize is the size of the key that secrets are encrypted under, in bytes.
const KeySize = chacha20poly1305.KeySize

// Kind tells configuration from secrets.
type Kind string

// The kinds.
const (
	Config  Kind = "config"
	Secrets Kind = "secret"
)

var (
	// ErrNotSet says that a key has no value, or none of that version any more.
	ErrNotSet = errors.New("it has no value")
	// ErrChanged says that the key has another version than the caller expected.
	ErrChanged = errors.New("it was changed meanwhile")
	// ErrInvalid says that a key or value can never be stored.
	ErrInvalid = errors.New("invalid setting")
)

// Store is the embedded store. It is safe for concurrent use.
type Store struct {
	buckets map[Kind]*ledger.Bucket
	aead    cipher.AEAD
}

// Item is one setting as it is listed. Value is empty for a secret.
type Item struct {
	Key     string
	Value   string
	Version uint64
	Set     time.Time
}

// Open returns the store on a bus. key has KeySize bytes. It does no IO.
func Open(client *ledger.Client, key []byte) (*Store, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("opening the settings store: the key has %d bytes, want %d: %w", len(key), KeySize, err)
	}
	return &Store{
		buckets: map[Kind]*ledger.Bucket{
			Config:  client.Bucket(events.BucketConfig),
			Secrets: client.Bucket(events.BucketSecrets),
		},
		aead: aead,
	}, nil
}

// SetConfig sets a configuration value and returns its version, which is the present one where the value is the
// same. Errors wrap ErrInvalid where key or value can never be stored.
func (s *Store) SetConfig(ctx context.Context, env, app events.Slug, key, value string) (version uint64, err error) {
	return s.set(ctx, place{Config, env, app, key}, value, nil)
}

// SetSecret is SetConfig for a secret.
func (s *Store) SetSecret(ctx context.Context, env, app events.Slug, key string, value Secret) (version uint64, err error) {
	return s.set(ctx, place{Secrets, env, app, key}, value.Reveal(), nil)
}

// SetConfigIf sets a value only where the key's version is the one expected, 0 for a key that is not set; else the
// error wraps ErrChanged.
func (s *Store) SetConfigIf(ctx context.Context, env, app events.Slug, key, value string, expected uint64) (version uint64, err error) {
	return s.set(ctx, place{Config, env, app, key}, value, &expected)
}

// SetSecretIf is SetConfigIf for a secret.
func (s *Store) SetSecretIf(ctx context.Context, env, app events.Slug, key string, value Secret, expected uint64) (version uint64, err error) {
	return s.set(ctx, place{Secrets, env, app, key}, value.Reveal(), &expected)
}

// GetConfig returns a value and its version. Errors wrap ErrNotSet where there is none.
func (s *Store) GetConfig(ctx context.Context, env, app events.Slug, key string) (value string, version uint64, err error) {
	return s.get(ctx, place{Config, env, app, key})
}

// GetConfigAt returns the value that a version named. Errors wrap ErrNotSet where it is no longer kept.
func (s *Store) GetConfigAt(ctx context.Context, env, app events.Slug, key string, version uint64) (string, error) {
	return s.at(ctx, place{Config, env, app, key}, version)
}

// GetSecret is GetConfig for a secret.
func (s *Store) GetSecret(ctx context.Context, env, app events.Slug, key string) (Secret, uint64, error) {
	value, version, err := s.get(ctx, place{Secrets, env, app, key})
	return NewSecret(value), version, err
}

// GetSecretAt is GetConfigAt for a secret.
func (s *Store) GetSecretAt(ctx context.Context, env, app events.Slug, key string, version uint64) (Secret, error) {
	value, err := s.at(ctx, place{Secrets, env, app, key}, version)
	return NewSecret(value), err
}

// DeleteConfig takes a value away and returns the version that says so. Earlier versions are kept for rollbacks.
// Errors wrap ErrNotSet where there is none.
func (s *Store) DeleteConfig(ctx context.Context, env, app events.Slug, key string) (version uint64, err error) {
	return s.remove(ctx, place{Config, env, app, key})
}

// DeleteSecret takes a secret away, with all its earlier versions: a slot that is pinned to one of them cannot come
// back. Errors wrap ErrNotSet where there is none.
func (s *Store) DeleteSecret(ctx context.Context, env, app events.Slug, key string) (version uint64, err error) {
	return s.remove(ctx, place{Secrets, env, app, key})
}

// ListConfig returns an app's configuration in an environment, sorted by key.
func (s *Store) ListConfig(ctx context.Context, env, app events.Slug) ([]Item, error) {
	return s.list(ctx, Config, env, app)
}

// ListSecrets returns which secrets an app has in an environment, sorted by key, never their values.
func (s *Store) ListSecrets(ctx context.Context, env, app events.Slug) ([]Item, error) {
	return s.list(ctx, Secrets, env, app)
}

// place is where one setting is kept.
type place struct {
	kind Kind
	env  events.Slug
	app  events.Slug
	key  string
}

func (p place) String() string { return fmt.Sprintf("%s %s of %s in %s", p.kind, p.key, p.app, p.env) }

func (p place) path() string { return string(p.env) + "." + string(p.app) + "." + p.key }

func (p place) check() error {
	_, envErr := events.ParseSlug(string(p.env))
	_, appErr := events.ParseSlug(string(p.app))
	if err := errors.Join(envErr, appErr, pipeline.CheckKey(p.key)); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

func (p place) checkValue(value string) error {
	switch {
	case len(value) > MaxValue:
		return fmt.Errorf("%s: %w: the value has %d bytes, allowed are %d", p, ErrInvalid, len(value), MaxValue)
	case p.kind == Config && (!utf8.ValidString(value) || strings.ContainsRune(value, 0)):
		return fmt.Errorf("%s: %w: configuration must be UTF-8 without zero bytes; keep it as a secret, which is a file", p, ErrInvalid)
	}
	return p.check()
}

// set writes by compare and swap, so that two writers never lose a version that one of them was told of.
func (s *Store) set(ctx context.Context, p place, value string, expected *uint64) (uint64, error) {
	if err := p.checkValue(value); err != nil {
		return 0, err
	}
	for {
		present, revision, err := s.stored(ctx, p)
		if err != nil {
			return 0, fmt.Errorf("setting %s: %w", p, err)
		}
		version := revision
		if present == nil {
			version = 0
		}
		if present != nil && *present == value && (expected == nil || *expected <= version) {
			return version, nil
		}
		if expected != nil && *expected != version {
			return 0, fmt.Errorf("setting %s: %w: it has version %d, not %d", p, ErrChanged, version, *expected)
		}
		data, err := s.seal(p, value)
		if err != nil {
			return 0, fmt.Errorf("setting %s: %w", p, err)
		}
		revision, err = s.buckets[p.kind].Update(ctx, p.path(), data, revision)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("setting %s: %w", p, err)
		}
		return revision, nil
	}
}

// stored returns a key's present value, nil where it has none, and the revision that the next write must follow.
func (s *Store) stored(ctx context.Context, p place) (value *string, revision uint64, err error) {
	data, revision, err := s.buckets[p.kind].Get(ctx, p.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	text, err := s.open(p, data)
	if errors.Is(err, ErrNotSet) {
		return nil, revision, nil
	}
	return &text, revision, err
}

func (s *Store) get(ctx context.Context, p place) (string, uint64, error) {
	if err := p.check(); err != nil {
		return "", 0, err
	}
	value, revision, err := s.stored(ctx, p)
	if err != nil {
		return "", 0, fmt.Errorf("reading %s: %w", p, err)
	}
	if value == nil {
		return "", 0, fmt.Errorf("reading %s: %w", p, ErrNotSet)
	}
	return *value, revision, nil
}

func (s *Store) at(ctx context.Context, p place, version uint64) (string, error) {
	if err := p.check(); err != nil {
		return "", err
	}
	data, err := s.buckets[p.kind].GetRevision(ctx, p.path(), version)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrNotSet, err)
	}
	if err != nil {
		return "", fmt.Errorf("reading %s at version %d: %w", p, version, err)
	}
	value, err := s.open(p, data)
	if err != nil {
		return "", fmt.Errorf("reading %s at version %d: %w", p, version, err)
	}
	return value, nil
}

// remove leaves a mark, whose revision is the version that says that the key is gone.
func (s *Store) remove(ctx context.Context, p place) (uint64, error) {
	if _, _, err := s.get(ctx, p); err != nil {
		return 0, fmt.Errorf("removing: %w", err)
	}
	if p.kind == Secrets {
		if err := s.buckets[p.kind].Delete(ctx, p.path()); err != nil {
			return 0, fmt.Errorf("removing %s: %w", p, err)
		}
	}
	version, err := s.buckets[p.kind].Put(ctx, p.path(), []byte{formatGone})
	if err != nil {
		return 0, fmt.Errorf("removing %s: %w", p, err)
	}
	return version, nil
}

func (s *Store) list(ctx context.Context, kind Kind, env, app events.Slug) ([]Item, error) {
	if err := (place{kind, env, app, "A"}).check(); err != nil {
		return nil, err
	}
	entries, err := s.buckets[kind].List(ctx, string(env)+"."+string(app))
	if err != nil {
		return nil, fmt.Errorf("listing the %s of %s in %s: %w", kind, app, env, err)
	}
	items := []Item{}
	for _, entry := range entries {
		p := place{kind, env, app, entry.Key[strings.LastIndexByte(entry.Key, '.')+1:]}
		value, err := s.open(p, entry.Value)
		if errors.Is(err, ErrNotSet) {
			continue
		}
		if err != nil && kind == Config {
			return nil, fmt.Errorf("listing %s: %w", p, err)
		}
		item := Item{Key: p.key, Version: entry.Revision, Set: entry.Time}
		if kind == Config {
			item.Value = value
		}
		items = append(items, item)
	}
	slices.SortFunc(items, func(a, b Item) int { return strings.Compare(a.Key, b.Key) })
	return items, nil
}

// Change is one version of a setting, without its value.
type Change struct {
	Kind    Kind
	Env     events.Slug
	App     events.Slug
	Key     string
	Version uint64
	Deleted bool
}

// Newest returns the settings that were changed last, at most most of each kind. A process that died between setting
// one and saying so finds here what is left to say.
func (s *Store) Newest(ctx context.Context, most int) ([]Change, error) {
	var changes []Change
	for _, kind := range []Kind{Config, Secrets} {
		entries, err := s.buckets[kind].List(ctx, "")
		if err != nil {
			return nil, fmt.Errorf("listing the newest %s: %w", kind, err)
		}
		slices.SortFunc(entries, func(a, b ledger.Entry) int { return cmp.Compare(b.Revision, a.Revision) })
		for _, entry := range entries[:min(most, len(entries))] {
			path := strings.SplitN(entry.Key, ".", 3)
			if len(path) == 3 {
				changes = append(changes, Change{
					Kind: kind, Env: events.Slug(path[0]), App: events.Slug(path[1]), Key: path[2], Version: entry.Revision,
					Deleted: len(entry.Value) == 0 || entry.Value[0] == formatGone,
				})
			}
		}
	}
	return changes, nil
}

// First byte of what is stored.
const (
	formatGone   = 0 // nothing follows: the key was removed
	formatPlain  = 1 // the value follows
	formatSealed = 2 // nonce and XChaCha20-Poly1305 text follow, bound to the key's path
)

func (s *Store) seal(p place, value string) ([]byte, error) {
	if p.kind == Config {
		return append([]byte{formatPlain}, value...), nil
	}
	nonce := make([]byte, s.aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("encrypting: %w", err)
	}
	return s.aead.Seal(append([]byte{formatSealed}, nonce...), nonce, []byte(value), p.bound()), nil
}

func (s *Store) open(p place, data []byte) (string, error) {
	size := s.aead.NonceSize()
	switch {
	case len(data) == 0 || data[0] == formatGone:
		return "", ErrNotSet
	case p.kind == Config && data[0] == formatPlain:
		return string(data[1:]), nil
	case p.kind == Secrets && data[0] == formatSealed && len(data) > size:
		value, err := s.aead.Open(nil, data[1:1+size], data[1+size:], p.bound())
		if err != nil {
			return "", errors.New("it does not decrypt under this installation's settings key: restore keys/settings.key, or set the secret again")
		}
		return string(value), nil
	}
	return "", errors.New("what is stored is damaged: set it again")
}

// bound is what a sealed value is tied to, so that it opens at no other key.
func (p place) bound() []byte { return []byte("towpath " + string(p.kind) + " " + p.path()) }
