// Package discovery is the table of what gets traffic: for each app in each environment the greatest live
// slot and its instances. Promote writes it, as a projection of the ledger; the edge, and whoever asks
// where an app runs, reads it. An entry's slot never becomes smaller, so a writer that is behind cannot
// send traffic back to an older version.
package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
)

// Entry is what gets the traffic of one app in one environment.
type Entry struct {
	Slot      int               `json:"slot"`
	Digest    string            `json:"digest,omitempty"`
	Run       string            `json:"run,omitempty"` // hello/42
	Instances []events.Instance `json:"instances"`     // without an address: a service that takes no requests
	Health    string            `json:"health,omitempty"`
	// Removed says that nothing is to run any more. The entry stays, so that its slot does.
	Removed bool `json:"removed,omitempty"`
}

// Place names an app in an environment.
type Place struct {
	Env events.Slug
	App events.Slug
}

func (p Place) key() string { return string(p.Env) + "." + string(p.App) }

// String returns the host name's part that is the place: hello.dev.
func (p Place) String() string { return string(p.App) + "." + string(p.Env) }

// StaleError says that a greater slot is live already.
type StaleError struct {
	Place Place
	Slot  int // that was to be published
	Live  int // that is
}

func (e *StaleError) Error() string {
	return fmt.Sprintf("publishing slot %d of %s: slot %d is live already; nothing was changed", e.Slot, e.Place, e.Live)
}

// Table is the bucket that holds the entries. It is safe for concurrent use.
type Table struct{ bucket *ledger.Bucket }

// Open returns the table as the client's identity may use it. It does no IO.
func Open(client *ledger.Client) Table { return Table{client.Bucket(events.BucketDiscovery)} }

// Get returns the entry of a place. The error wraps fs.ErrNotExist where there never was one.
func (t Table) Get(ctx context.Context, p Place) (Entry, error) {
	e, _, err := t.get(ctx, p)
	return e, err
}

func (t Table) get(ctx context.Context, p Place) (e Entry, revision uint64, err error) {
	data, revision, err := t.bucket.Get(ctx, p.key())
	if err != nil {
		return Entry{}, 0, err
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return Entry{}, revision, fmt.Errorf("entry of %s is unreadable: %w", p, err)
	}
	return e, revision, nil
}

// Publish makes e the entry of a place, unless a greater slot has it (*StaleError). The same entry twice
// is written once.
func (t Table) Publish(ctx context.Context, p Place, e Entry) error {
	if e.Instances == nil {
		e.Instances = []events.Instance{}
	}
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("publishing slot %d of %s: %w", e.Slot, p, err)
	}
	for {
		present, revision, err := t.get(ctx, p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("publishing slot %d of %s: %w", e.Slot, p, err)
		case present.Slot > e.Slot:
			return &StaleError{p, e.Slot, present.Slot}
		case reflect.DeepEqual(present, e):
			return nil
		}
		if revision == 0 {
			_, err = t.bucket.Create(ctx, p.key(), data)
		} else {
			_, err = t.bucket.Update(ctx, p.key(), data, revision)
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
}

// List returns every entry, by place.
func (t Table) List(ctx context.Context) (map[Place]Entry, error) {
	entries, err := t.bucket.List(ctx, "")
	if err != nil {
		return nil, err
	}
	all := map[Place]Entry{}
	for _, b := range entries {
		env, app, _ := strings.Cut(b.Key, ".")
		var e Entry
		if err := json.Unmarshal(b.Value, &e); err != nil {
			return nil, fmt.Errorf("entry %s is unreadable: %w", b.Key, err)
		}
		all[Place{events.Slug(env), events.Slug(app)}] = e
	}
	return all, nil
}

// Clear throws an entry away, for whoever will write it anew. An edge that runs keeps sending requests where it did.
func (t Table) Clear(ctx context.Context, p Place) error { return t.bucket.Delete(ctx, p.key()) }

// ClearUpTo throws away the entry of a place, unless a greater slot has it, and reports whether none has.
func (t Table) ClearUpTo(ctx context.Context, p Place, slot int) (cleared bool, err error) {
	for {
		present, revision, err := t.get(ctx, p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return true, nil
		case err != nil || present.Slot > slot:
			return false, err
		}
		if err = t.bucket.DeleteRevision(ctx, p.key(), revision); !errors.Is(err, fs.ErrExist) {
			return err == nil, err
		}
	}
}

// Watch hands every entry to apply, first those that are there, then each that is written, until ctx ends.
// What apply was told last of a place is the truth. synced is called once after the first pass. Entries
// that cannot be read go to unreadable and change nothing. A bus that is away is waited for.
func (t Table) Watch(ctx context.Context, synced func(), apply func(Place, Entry), unreadable func(key string, err error)) error {
	return t.bucket.Watch(ctx, "", synced, func(b ledger.Entry) error {
		env, app, _ := strings.Cut(b.Key, ".")
		p := Place{events.Slug(env), events.Slug(app)}
		e := Entry{Removed: true}
		if !b.Deleted {
			e = Entry{}
			if err := json.Unmarshal(b.Value, &e); err != nil {
				unreadable(b.Key, err)
				return nil
			}
		}
		apply(p, e)
		return nil
	})
}

// DrainRequest asks the edge (events.DrainSubject) to answer when it sends requests of a place to Slot or
// a later one, and nothing is under way any more at instances that its entry does not hold.
type DrainRequest struct {
	Env     events.Slug   `json:"env"`
	App     events.Slug   `json:"app"`
	Slot    int           `json:"slot"`
	Timeout time.Duration `json:"timeout"` // nanoseconds; at most MaxDrain
}

// MaxDrain bounds one DrainRequest: the bus forgets whom to answer after two minutes.
const MaxDrain = time.Minute

// DrainReply answers a DrainRequest, at the latest when its time is over.
type DrainReply struct {
	Slot     int    `json:"slot"`     // that the edge sends requests to; 0: none
	InFlight int    `json:"inFlight"` // requests still at older instances
	Error    string `json:"error,omitempty"`
}

// Drained reports whether the reply says that slot has the traffic alone.
func (r DrainReply) Drained(slot int) bool { return r.Error == "" && r.Slot >= slot && r.InFlight == 0 }
