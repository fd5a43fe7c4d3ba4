package settings

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"towpath.dev/events"
	"towpath.dev/pkg/pipeline"
)

// Provider keeps the values of one kind of settings: a bucket of the bus, Consul's KV, Vault's KV v2. The suite in
// package settingstest says what every provider guarantees; all are safe for concurrent use, and bound each wait.
//
// A version names one value of one key for good. It grows with each change of the key, and is otherwise the
// provider's own: a revision of the bucket, Consul's ModifyIndex, a version of Vault's KV v2.
//
// Errors wrap ErrNotSet, ErrChanged, ErrInvalid or ErrReadOnly where those say what is the matter, and are an
// *UnavailableError where the provider cannot answer now, for whatever reason a person or time can mend. None holds a value.
type Provider interface {
	// Name says which store it is, for people and in pins: versions of stores with different names are never compared. It
	// follows from the configuration alone.
	Name() string
	// ReadOnly reports whether the platform lets Towpath only read there: Set and Delete are refused, and what is there is
	// somebody else's.
	ReadOnly() bool
	// Get returns a key's value and version.
	Get(ctx context.Context, p Place) (value string, version uint64, err error)
	// GetAt returns the value that a version named, also after later changes and after deletion while it is kept;
	// else the error wraps ErrNotSet.
	GetAt(ctx context.Context, p Place, version uint64) (value string, err error)
	// Set sets a key and returns its version: the present one where the value is the same. What Place.CheckValue refuses
	// is not set, nor what is too large for the store; the error wraps ErrInvalid then. Where expected is given,
	// it sets the key only while it has that version (0: while it is not set), else the error wraps ErrChanged; a value
	// that is there already, later than the version expected, is what an attempt whose answer was lost has set.
	Set(ctx context.Context, p Place, value string, expected *uint64) (version uint64, err error)
	// Delete takes a value away and returns the version that says so, greater than that of the value. Earlier versions of
	// a secret go with it, and none of another key: left says where the store still holds the value for the sake of those,
	// and how it is taken away there; it is empty where nothing is left.
	Delete(ctx context.Context, p Place) (version uint64, left string, err error)
	// List returns which keys an app has in an environment, sorted, those of a shared level included. It never reads a
	// secret's value.
	List(ctx context.Context, env, app events.Slug) ([]Item, error)
	// Watch returns when anything that List would return may have changed since mark, with the next mark, or with the
	// same mark when nothing did for about 30 s. A mark of 0 answers at once. Callers look with List; a change may wake them twice.
	Watch(ctx context.Context, env, app events.Slug, mark uint64) (next uint64, err error)
}

// Place is where one setting is kept.
type Place struct {
	Kind Kind
	Env  events.Slug
	App  events.Slug
	Key  string
}

// String returns the place as people read it.
func (p Place) String() string { return fmt.Sprintf("%s %s of %s in %s", p.Kind, p.Key, p.App, p.Env) }

// Check reports a place at which nothing can be kept, wrapping ErrInvalid.
func (p Place) Check() error {
	_, envErr := events.ParseSlug(string(p.Env))
	_, appErr := events.ParseSlug(string(p.App))
	check := pipeline.CheckKey
	if p.Kind == Secrets {
		check = pipeline.CheckSecret
	}
	if err := errors.Join(envErr, appErr, check(p.Key)); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// CheckValue reports a value that cannot be kept at the place, or a place at which nothing can, wrapping ErrInvalid.
func (p Place) CheckValue(value string) error {
	switch {
	case len(value) > MaxValue:
		return fmt.Errorf("%s: %w: the value has %d bytes, allowed are %d", p, ErrInvalid, len(value), MaxValue)
	case p.Kind == Config && (!utf8.ValidString(value) || strings.ContainsRune(value, 0)):
		return fmt.Errorf("%s: %w: configuration must be UTF-8 without zero bytes; keep it as a secret, which is a file", p, ErrInvalid)
	}
	return p.Check()
}

// Item is one setting as it is listed. Value is empty for a secret.
type Item struct {
	Key     string
	Value   string
	Version uint64
	Set     time.Time // zero where the provider does not know
	Shared  bool      // it is of the level that all apps of the environment share
	Unfit   string    // why the value can be handed to no app, where that can be known; empty: it can, or that is not known
}

var (
	// ErrNotSet says that a key has no value, or none of that version any more.
	ErrNotSet = errors.New("it has no value")
	// ErrChanged says that the key has another version than the caller expected.
	ErrChanged = errors.New("it was changed meanwhile")
	// ErrInvalid says that a key or value can never be stored.
	ErrInvalid = errors.New("invalid setting")
	// ErrReadOnly says that the platform lets Towpath read there, and no more.
	ErrReadOnly = errors.New("it may only be read here")
)

// UnavailableError says that a provider cannot answer: it is not reached, has no leader, is sealed, or refuses the
// identity that asks. Whoever meets it waits and tries again.
type UnavailableError struct {
	Store string // what does not answer, such as "Consul of prod (https://consul.prod:8501)"
	What  string // what was asked of it
	Why   string
	Do    string // what a person does about it
	Alarm bool   // somebody else may hold what was ours: a person must look, whether or not it mends itself
	Err   error
}

// Error says all of it.
func (e *UnavailableError) Error() string {
	return fmt.Sprintf("%s: %s: %s; %s", e.Store, e.What, e.Why, e.Do)
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }
