package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"towpath.dev/events"
)

// NoteState says what becomes of the message that a note is about.
type NoteState string

// The states.
//
//	retrying ──> gone: the message was settled, by whatever event its handler wrote
//	parked   ──> gone: a newer build has taken it up
//	aside, stopped: they stay
const (
	Retrying NoteState = "retrying" // it failed, and is tried again
	SetAside NoteState = "aside"    // it is no event that can be trusted and read
	Parked   NoteState = "parked"   // it takes a newer build to read it
	Halted   NoteState = "stopped"  // the bus no longer delivers it, and no stage waits for it
)

// Note is what a service keeps about a message that it has not settled well: it survives restarts, and is
// what people are shown. It decides nothing about runs, and is no part of the ledger.
type Note struct {
	Service events.Writer `json:"service"`
	Durable string        `json:"durable"` // the consumer that delivers it; NoteFollower where none does
	Seq     uint64        `json:"seq"`
	State   NoteState     `json:"state"`
	Subject string        `json:"subject"`
	Stored  time.Time     `json:"stored,omitzero"`
	Type    string        `json:"type,omitempty"` // of a parked event
	App     events.Slug   `json:"app,omitempty"`
	Run     int           `json:"run,omitempty"`   // 0: the run that Event started, or none
	Env     events.Slug   `json:"env,omitempty"`   // may be empty though it is about one
	Event   string        `json:"event,omitempty"` // context.id
	Why     string        `json:"why"`             // the last error
	Failed  int           `json:"failed,omitempty"`
	Allowed int           `json:"allowed,omitempty"` // failures after which the service gives up
	// Settled counts deliveries that a worker has answered: what the bus counts beyond them ended with
	// the worker.
	Settled int `json:"settled,omitempty"`
	// Begun counts handlings that began, and ended with the worker, since the last one that was answered.
	// They are counted only for a message under suspicion.
	Begun int       `json:"begun,omitempty"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Next  time.Time `json:"next,omitzero"` // of the next try
}

// NoteFollower stands for the durable of what a service met while it followed the ledger.
const NoteFollower = "follow"

// bucket is where notes of a state are kept.
func (n Note) bucket() string {
	if n.State == Retrying {
		return events.BucketTries
	}
	return events.BucketAside
}

func noteKey(service events.Writer, durable string, seq uint64) string {
	return fmt.Sprintf("%s.%s.%d", service, durable, seq)
}

func (n Note) key() string { return noteKey(n.Service, n.Durable, n.Seq) }

// longestWhy is how much of an error a note keeps, in bytes.
const longestWhy = 2000

// Keep writes a note, in the place of what was there. A service can keep only its own.
func (c *Client) Keep(ctx context.Context, n Note) error {
	n.Subject, n.Why = clip(n.Subject, 200), clip(n.Why, longestWhy)
	value, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if _, err := c.Bucket(n.bucket()).Put(ctx, n.key(), value); err != nil {
		return fmt.Errorf("keeping a note of message %d: %w", n.Seq, err)
	}
	return nil
}

// Drop takes a note away. One that is not there is no error.
func (c *Client) Drop(ctx context.Context, n Note) error {
	if err := c.Bucket(n.bucket()).Delete(ctx, n.key()); err != nil {
		return fmt.Errorf("dropping the note of message %d: %w", n.Seq, err)
	}
	return nil
}

// Tried returns this service's note of a message that is being tried again; false where there is none.
func (c *Client) Tried(ctx context.Context, durable string, seq uint64) (Note, bool, error) {
	value, _, err := c.Bucket(events.BucketTries).Get(ctx, noteKey(events.Writer(c.service), durable, seq))
	if errors.Is(err, fs.ErrNotExist) {
		return Note{}, false, nil
	}
	if err != nil {
		return Note{}, false, fmt.Errorf("looking for a note of message %d: %w", seq, err)
	}
	n, err := readNote(value)
	return n, err == nil, nil
}

// Notes lists the notes of a bucket (events.BucketTries, events.BucketAside); service "" means all that
// this identity may read. One that cannot be read is left out.
func (c *Client) Notes(ctx context.Context, bucket string, service events.Writer) ([]Note, error) {
	entries, err := c.Bucket(bucket).List(ctx, string(service))
	if err != nil {
		return nil, err
	}
	var all []Note
	for _, e := range entries {
		if n, err := readNote(e.Value); err == nil && n.key() == e.Key {
			all = append(all, n)
		}
	}
	return all, nil
}

// WatchNotes hands the notes of a bucket to apply, by key, as they are kept and dropped (nil), in the way
// of Bucket.Watch.
func (c *Client) WatchNotes(ctx context.Context, bucket string, synced func(), apply func(key string, n *Note)) error {
	return c.Bucket(bucket).Watch(ctx, "", synced, func(e Entry) error {
		n, err := readNote(e.Value)
		if e.Deleted || err != nil || n.key() != e.Key {
			apply(e.Key, nil)
			return nil
		}
		apply(e.Key, &n)
		return nil
	})
}

func readNote(value []byte) (Note, error) {
	var n Note
	err := json.Unmarshal(value, &n)
	return n, err
}

// NoteOf is what a service keeps about a message that it met while following.
func (a Aside) NoteOf(service events.Writer, durable string, now time.Time) Note {
	n := Note{
		Service: service, Durable: durable, Seq: a.Seq, State: SetAside, Subject: a.Subject, Stored: a.Time,
		Type: a.Type, Why: a.Why, First: now, Last: now,
	}
	if a.Parked() {
		n.State = Parked
	}
	return n
}
