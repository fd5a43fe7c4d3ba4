package settings

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
)

// Archived is a Provider of configuration that remembers, in a bucket of the bus, every version that was read or
// written through it, for a provider that forgets them: Consul keeps one value for each key. A deploy reads what it
// pins, so what a rollback needs is there. Secrets are never archived.
type Archived struct {
	Provider
	archive
	kept sync.Map // SHA-256 ([32]byte) of what is known to be in the bucket, by key
}

// NewArchived returns the provider with an archive. It does no IO.
func NewArchived(client *ledger.Client, forgetful Provider) *Archived {
	return &Archived{Provider: forgetful, archive: archive{client.Bucket(events.BucketPinned)}}
}

// Get implements Provider. A value that cannot be archived is not handed out.
func (a *Archived) Get(ctx context.Context, p Place) (string, uint64, error) {
	value, version, err := a.Provider.Get(ctx, p)
	if err != nil {
		return "", 0, err
	}
	return value, version, a.keep(ctx, p, value, version)
}

// Set implements Provider.
func (a *Archived) Set(ctx context.Context, p Place, value string, expected *uint64) (uint64, error) {
	version, err := a.Provider.Set(ctx, p, value, expected)
	if err != nil {
		return 0, err
	}
	// It is set, whatever becomes of the archive: what a deploy uses is archived when that reads it, or not used.
	_ = a.keep(context.WithoutCancel(ctx), p, value, version)
	return version, nil
}

// GetAt implements Provider.
func (a *Archived) GetAt(ctx context.Context, p Place, version uint64) (string, error) {
	value, err := a.value(ctx, p, a.Name(), version)
	if !errors.Is(err, ErrNotSet) {
		return value, err
	}
	return a.Provider.GetAt(ctx, p, version)
}

// keep archives a value. A version that had another one says that the provider counts anew: pins would lead to the
// values of before.
func (a *Archived) keep(ctx context.Context, p Place, value string, version uint64) error {
	key, sum := archiveKey(p, a.Name(), version), sha256.Sum256([]byte(value))
	if known, ok := a.kept.Load(key); ok && known == sum {
		return nil
	}
	_, err := a.bucket.Create(ctx, key, []byte(value))
	if errors.Is(err, fs.ErrExist) {
		var present []byte
		if present, _, err = a.bucket.Get(ctx, key); err == nil && string(present) != value {
			err = errors.New("that version had another value: its versions were counted anew, as after a loss of its data; set the key again until its version is a new one")
		}
	}
	if err != nil {
		return fmt.Errorf("archiving version %d: %w", version, err)
	}
	a.kept.Store(key, sum)
	return nil
}

// archive is the bucket of what stores forget, those that are not used any more included.
type archive struct{ bucket *ledger.Bucket }

// value returns the value that a version of a store named. The error wraps ErrNotSet where it was never archived.
func (a archive) value(ctx context.Context, p Place, store string, version uint64) (string, error) {
	value, _, err := a.bucket.Get(ctx, archiveKey(p, store, version))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrNotSet, err)
	}
	return string(value), err
}

// forget takes away all that is kept of an app in an environment.
func (a archive) forget(ctx context.Context, env, app events.Slug) error {
	return forget(ctx, a.bucket, env, app)
}

func forget(ctx context.Context, bucket *ledger.Bucket, env, app events.Slug) error {
	entries, err := bucket.List(ctx, string(env)+"."+string(app))
	for _, e := range entries {
		if err == nil {
			err = bucket.Delete(ctx, e.Key)
		}
	}
	return err
}

// archiveKey names a version of a store. The store is there as the beginning of a hash.
func archiveKey(p Place, store string, version uint64) string {
	sum := sha256.Sum256([]byte(store))
	return fmt.Sprintf("%s.%x.%d", p.path(), sum[:8], version)
}
