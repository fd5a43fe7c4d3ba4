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

	"golang.org/x/crypto/chacha20poly1305"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
)

// KeySize is the size of the key that secrets are encrypted under, in bytes.
const KeySize = chacha20poly1305.KeySize

// Embedded is the Provider that needs nothing installed: a bucket of the bus, where secrets are encrypted under a key
// that never leaves the machines of gateway and promote. It has no shared level.
type Embedded struct {
	kind   Kind
	bucket *ledger.Bucket
	aead   cipher.AEAD
}

// NewEmbedded returns the embedded provider of one kind. key has KeySize bytes. It does no IO.
func NewEmbedded(client *ledger.Client, kind Kind, key []byte) (*Embedded, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("opening the settings store: the key has %d bytes, want %d: %w", len(key), KeySize, err)
	}
	bucket := events.BucketConfig
	if kind == Secrets {
		bucket = events.BucketSecrets
	}
	return &Embedded{kind: kind, bucket: client.Bucket(bucket), aead: aead}, nil
}

// Name implements Provider.
func (s *Embedded) Name() string { return events.StoreEmbedded }

// ReadOnly implements Provider.
func (s *Embedded) ReadOnly() bool { return false }

// Set implements Provider. It writes by compare and swap, so that two writers never lose a version that one of them
// was told of.
func (s *Embedded) Set(ctx context.Context, p Place, value string, expected *uint64) (uint64, error) {
	if err := p.CheckValue(value); err != nil {
		return 0, err
	}
	for {
		present, revision, err := s.stored(ctx, p)
		if err != nil {
			return 0, err
		}
		version := revision
		if present == nil {
			version = 0
		}
		if present != nil && *present == value && (expected == nil || 0 < *expected && *expected <= version) {
			return version, nil
		}
		if expected != nil && *expected != version {
			return 0, fmt.Errorf("%w: it has version %d, not %d", ErrChanged, version, *expected)
		}
		data, err := s.seal(p, value)
		if err != nil {
			return 0, err
		}
		revision, err = s.bucket.Update(ctx, p.path(), data, revision)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		return revision, err
	}
}

// stored returns a key's present value, nil where it has none, and the revision that the next write must follow.
func (s *Embedded) stored(ctx context.Context, p Place) (value *string, revision uint64, err error) {
	data, revision, err := s.bucket.Get(ctx, p.path())
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

// Get implements Provider.
func (s *Embedded) Get(ctx context.Context, p Place) (string, uint64, error) {
	value, revision, err := s.stored(ctx, p)
	if err != nil {
		return "", 0, err
	}
	if value == nil {
		return "", 0, ErrNotSet
	}
	return *value, revision, nil
}

// GetAt implements Provider.
func (s *Embedded) GetAt(ctx context.Context, p Place, version uint64) (string, error) {
	data, err := s.bucket.GetRevision(ctx, p.path(), version)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %w", ErrNotSet, err)
	}
	if err != nil {
		return "", err
	}
	return s.open(p, data)
}

// Delete implements Provider. It leaves a mark, whose revision is the version that says that the key is gone.
func (s *Embedded) Delete(ctx context.Context, p Place) (version uint64, left string, err error) {
	if _, _, err := s.Get(ctx, p); err != nil {
		return 0, "", err
	}
	if s.kind == Secrets {
		if err := s.bucket.Delete(ctx, p.path()); err != nil {
			return 0, "", err
		}
	}
	version, err = s.bucket.Put(ctx, p.path(), []byte{formatGone})
	return version, "", err
}

// forget takes away keys that have no value, with their past.
func (s *Embedded) forget(ctx context.Context, env, app events.Slug) error {
	items, err := s.List(ctx, env, app)
	if err != nil || len(items) > 0 {
		return err
	}
	return forget(ctx, s.bucket, env, app)
}

// List implements Provider.
func (s *Embedded) List(ctx context.Context, env, app events.Slug) ([]Item, error) {
	entries, err := s.bucket.List(ctx, string(env)+"."+string(app))
	if err != nil {
		return nil, err
	}
	items := []Item{}
	for _, entry := range entries {
		p := Place{s.kind, env, app, strings.TrimPrefix(entry.Key, string(env)+"."+string(app)+".")}
		value, err := s.open(p, entry.Value)
		if errors.Is(err, ErrNotSet) {
			continue
		}
		if err != nil && s.kind == Config {
			return nil, fmt.Errorf("%s: %w", p.Key, err)
		}
		item := Item{Key: p.Key, Version: entry.Revision, Set: entry.Time}
		if s.kind == Config {
			item.Value = value
		}
		items = append(items, item)
	}
	slices.SortFunc(items, func(a, b Item) int { return strings.Compare(a.Key, b.Key) })
	return items, nil
}

// watchBound is how long Watch waits for a change.
const watchBound = 30 * time.Second

// Watch implements Provider. Marks are the bucket's revisions.
func (s *Embedded) Watch(ctx context.Context, env, app events.Slug, mark uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, watchBound)
	defer cancel()
	next, caughtUp := max(mark, 1), false
	over := errors.New("there is something to look at")
	err := s.bucket.Watch(ctx, string(env)+"."+string(app), func() {
		if caughtUp = true; next > mark {
			cancel()
		}
	}, func(e ledger.Entry) error {
		if next = max(next, e.Revision); caughtUp && next > mark {
			return over
		}
		return nil
	})
	if errors.Is(err, over) {
		err = nil
	}
	return next, err
}

// Change is one version of a setting, without its value.
type Change struct {
	Kind    Kind
	Env     events.Slug
	App     events.Slug
	Key     string
	Store   string // whose version it is
	Version uint64
	Deleted bool
}

// Newest returns the settings that were changed last, at most most.
func (s *Embedded) Newest(ctx context.Context, most int) ([]Change, error) {
	entries, err := s.bucket.List(ctx, "")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b ledger.Entry) int { return cmp.Compare(b.Revision, a.Revision) })
	var changes []Change
	for _, entry := range entries[:min(most, len(entries))] {
		path := strings.SplitN(entry.Key, ".", 3)
		if len(path) == 3 {
			changes = append(changes, Change{
				Kind: s.kind, Env: events.Slug(path[0]), App: events.Slug(path[1]), Key: path[2], Store: events.StoreEmbedded, Version: entry.Revision,
				Deleted: len(entry.Value) == 0 || entry.Value[0] == formatGone,
			})
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

func (s *Embedded) seal(p Place, value string) ([]byte, error) {
	if s.kind == Config {
		return append([]byte{formatPlain}, value...), nil
	}
	nonce := make([]byte, s.aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("encrypting: %w", err)
	}
	return s.aead.Seal(append([]byte{formatSealed}, nonce...), nonce, []byte(value), p.bound()), nil
}

func (s *Embedded) open(p Place, data []byte) (string, error) {
	size := s.aead.NonceSize()
	switch {
	case len(data) == 0 || data[0] == formatGone:
		return "", ErrNotSet
	case s.kind == Config && data[0] == formatPlain:
		return string(data[1:]), nil
	case s.kind == Secrets && data[0] == formatSealed && len(data) > size:
		value, err := s.aead.Open(nil, data[1:1+size], data[1+size:], p.bound())
		if err != nil {
			return "", errors.New("it does not decrypt under this installation's settings key: restore keys/settings.key, or set the secret again")
		}
		return string(value), nil
	}
	return "", errors.New("what is stored is damaged: set it again")
}

// path is the place's key in the bucket.
func (p Place) path() string { return string(p.Env) + "." + string(p.App) + "." + p.Key }

// bound is what a sealed value is tied to, so that it opens at no other key.
func (p Place) bound() []byte { return []byte("towpath " + string(p.Kind) + " " + p.path()) }
