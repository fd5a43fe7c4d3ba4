package ledger

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"towpath.dev/events"
	"towpath.dev/pkg/pause"
)

// Bucket is a table of keys on the bus, in the format of NATS' key-value buckets. It works in every
// account that is granted the bucket, lists and watches without a consumer, and is safe for concurrent
// use. Keys are one or more tokens of letters, digits, '-', '_', '=' and '/', joined by dots.
type Bucket struct {
	client *Client
	name   string
}

// Entry is one version of one key.
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64 // grows with each write to the bucket
	Time     time.Time
	Deleted  bool // the key is gone; Value is empty
}

// Bucket returns the bucket with a name of module events (events.BucketConfig and so on). It does no IO.
func (c *Client) Bucket(name string) *Bucket { return &Bucket{c, name} }

func (b *Bucket) stream() string            { return "KV_" + b.name }
func (b *Bucket) subject(key string) string { return "$KV." + b.name + "." + key }

// bucketHistory is how many versions of a key each bucket keeps. Actors can be erased, so they have no
// past; settings are pinned by version.
var bucketHistory = map[string]int64{
	events.BucketActors:    1,
	events.BucketConfig:    64,
	events.BucketSecrets:   64,
	events.BucketDiscovery: 1,
	events.BucketIssued:    1,
	events.BucketNotify:    1,
	events.BucketPinned:    1,
	events.BucketTries:     1,
	events.BucketAside:     1,
}

// triesLife is how long it is remembered how often a message was tried since its last try.
const triesLife = 7 * 24 * time.Hour

func bucketStreams() []jetstream.StreamConfig {
	var all []jetstream.StreamConfig
	for _, name := range []string{
		events.BucketActors, events.BucketAside, events.BucketConfig, events.BucketDiscovery, events.BucketIssued, events.BucketNotify, events.BucketPinned,
		events.BucketSecrets, events.BucketTries,
	} {
		subjects := "$KV." + name + ".>"
		stream := jetstream.StreamConfig{
			Name:              "KV_" + name,
			Subjects:          []string{subjects},
			Storage:           jetstream.FileStorage,
			Discard:           jetstream.DiscardNew,
			MaxMsgsPerSubject: bucketHistory[name],
			MaxMsgSize:        512 << 10,
			DenyDelete:        true,
			AllowRollup:       true,
			AllowDirect:       true,
			RePublish:         &jetstream.RePublish{Source: subjects, Destination: "live.kv." + name + ".>"},
		}
		if name == events.BucketTries {
			stream.MaxAge = triesLife
		}
		all = append(all, stream)
	}
	return all
}

const (
	headerOperation = "KV-Operation"
	headerRollup    = "Nats-Rollup"
	headerExpect    = "Nats-Expected-Last-Subject-Sequence"
)

// Get returns a key's value and its revision. The error wraps fs.ErrNotExist where there is none.
func (b *Bucket) Get(ctx context.Context, key string) (value []byte, revision uint64, err error) {
	return b.read(ctx, key, directGet{Last: b.subject(key)})
}

// GetRevision returns a key's value as of the write that had this revision. The error wraps
// fs.ErrNotExist where that write was not to this key, deleted it, or is no longer kept.
func (b *Bucket) GetRevision(ctx context.Context, key string, revision uint64) (value []byte, err error) {
	value, _, err = b.read(ctx, key, directGet{Seq: revision})
	return value, err
}

func (b *Bucket) read(ctx context.Context, key string, q directGet) ([]byte, uint64, error) {
	if err := checkKey(key); err != nil {
		return nil, 0, err
	}
	s, err := b.client.get(ctx, b.stream(), q)
	switch {
	case errors.Is(err, errNotFound):
		return nil, 0, fmt.Errorf("%s in %s: %w", key, b.name, fs.ErrNotExist)
	case err != nil:
		return nil, 0, fmt.Errorf("%s in %s: %w", key, b.name, err)
	}
	e := b.entry(s)
	if e.Deleted || e.Key != key {
		return nil, 0, fmt.Errorf("%s in %s: %w", key, b.name, fs.ErrNotExist)
	}
	return e.Value, e.Revision, nil
}

func (b *Bucket) entry(s stored) Entry {
	return Entry{
		Key: strings.TrimPrefix(s.subject, b.subject("")), Value: s.body, Revision: s.seq, Time: s.time,
		Deleted: lastValue(s.header, headerOperation) != "",
	}
}

// Put sets a key, whatever it was, and returns the new revision.
func (b *Bucket) Put(ctx context.Context, key string, value []byte) (revision uint64, err error) {
	return b.write(ctx, key, value, nil)
}

// Create sets a key that is not there. The error wraps fs.ErrExist where it is.
func (b *Bucket) Create(ctx context.Context, key string, value []byte) (revision uint64, err error) {
	return b.Update(ctx, key, value, 0)
}

// Update sets a key whose present revision is known; 0: it is not there. The error wraps fs.ErrExist
// where that is not so, as when another write came in between.
func (b *Bucket) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	written, err := b.write(ctx, key, value, expect(revision))
	if revision > 0 || !errors.Is(err, fs.ErrExist) {
		return written, err
	}
	last, unread := b.refusing(ctx, key, err)
	if unread != nil {
		return 0, fmt.Errorf("writing %s in %s: what stands in its way cannot be read: %w", key, b.name, unread)
	}
	if last.Deleted {
		return b.write(ctx, key, value, expect(last.Revision))
	}
	return 0, err
}

// lag is how long a replica may lack a write that its leader has spoken of.
const lag = 2 * time.Second

// refusing returns the write because of which the bus refused another, or a later one of the key, which may have taken
// its place. The bus names its sequence, and any replica may answer a read: one that has not come so far yet has it a
// moment later.
func (b *Bucket) refusing(ctx context.Context, key string, refused error) (Entry, error) {
	var named uint64
	var store *storeError
	if errors.As(refused, &store) { // 10071 names it, 10164 does not
		if _, text, found := strings.Cut(store.Description, "wrong last sequence: "); found {
			if _, err := fmt.Sscan(text, &named); err != nil {
				return Entry{}, fmt.Errorf("the bus refused with %.100q: %w", store.Description, err)
			}
		}
	}
	for deadline := time.Now().Add(lag); ; {
		s, err := b.client.get(ctx, b.stream(), directGet{Last: b.subject(key)})
		if err == nil && s.seq >= named || err != nil && !errors.Is(err, errNotFound) {
			return b.entry(s), err
		}
		if time.Now().After(deadline) {
			return Entry{}, fmt.Errorf("no server has write %d yet", named)
		}
		if err := pause.For(ctx, retryPause); err != nil {
			return Entry{}, err
		}
	}
}

func expect(revision uint64) nats.Header {
	return nats.Header{headerExpect: {fmt.Sprint(revision)}}
}

// Delete takes a key away together with its past. A key that is not there is no error.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	_, err := b.write(ctx, key, nil, nats.Header{headerOperation: {"PURGE"}, headerRollup: {"sub"}})
	return err
}

// DeleteRevision is Delete where the key's present revision is still this one; else the error wraps fs.ErrExist.
func (b *Bucket) DeleteRevision(ctx context.Context, key string, revision uint64) error {
	header := expect(revision)
	header[headerOperation], header[headerRollup] = []string{"PURGE"}, []string{"sub"}
	_, err := b.write(ctx, key, nil, header)
	return err
}

func (b *Bucket) write(ctx context.Context, key string, value []byte, header nats.Header) (uint64, error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	revision, err := b.client.publish(ctx, &nats.Msg{Subject: b.subject(key), Data: value, Header: header})
	var refused *storeError
	if errors.As(err, &refused) && (refused.Code == 10071 || refused.Code == 10164) {
		return 0, fmt.Errorf("%s in %s was written meanwhile: %w: %w", key, b.name, fs.ErrExist, refused)
	}
	if err != nil {
		return 0, fmt.Errorf("writing %s in %s: %w", key, b.name, err)
	}
	return revision, nil
}

// List returns the present entries whose keys lie below these whole tokens ("qa.hello" finds
// "qa.hello.PORT"; "" finds all), by revision.
func (b *Bucket) List(ctx context.Context, prefix string) ([]Entry, error) {
	latest := map[string]Entry{}
	var order []string
	err := b.scan(ctx, prefix, 0, func(e Entry) error {
		order = append(order, e.Key)
		latest[e.Key] = e
		return nil
	})
	if err != nil {
		return nil, err
	}
	var list []Entry
	seen := map[string]int{}
	for i, key := range order {
		seen[key] = i
	}
	for i, key := range order {
		if e := latest[key]; seen[key] == i && !e.Deleted {
			list = append(list, e)
		}
	}
	return list, nil
}

// Each hands the present entries below these whole tokens to f, until f fails.
func (b *Bucket) Each(ctx context.Context, prefix string, f func(key string, value []byte) error) error {
	entries, err := b.List(ctx, prefix)
	for _, e := range entries {
		if err == nil {
			err = f(e.Key, e.Value)
		}
	}
	return err
}

// scan hands every kept version after a revision to apply, deletions too.
func (b *Bucket) scan(ctx context.Context, prefix string, after uint64, apply func(Entry) error) error {
	filter := b.subject(">")
	if prefix != "" {
		if err := checkKey(prefix); err != nil {
			return err
		}
		filter = b.subject(prefix + ".>")
	}
	for more := true; more; {
		var err error
		more, err = b.client.batch(ctx, b.stream(), directGet{Seq: after + 1, Next: filter}, func(s stored) error {
			after = s.seq
			return apply(b.entry(s))
		})
		if err != nil {
			return fmt.Errorf("listing %s: %w", b.name, err)
		}
	}
	return nil
}

// Watch hands the entries below prefix to apply, deletions too: first those that are kept, then each
// one written, until ctx ends (nil) or apply fails. An entry may be left out when a later one of its key
// follows, so what apply knows last is the truth. synced, where not nil, is called once the first pass
// is through. A bus that is away is waited for.
func (b *Bucket) Watch(ctx context.Context, prefix string, synced func(), apply func(Entry) error) error {
	live := make(chan *nats.Msg, liveBuffer)
	sub, err := b.client.conn.ChanSubscribe("live.kv."+b.name+".>", live)
	if err != nil {
		return fmt.Errorf("watching %s: %w", b.name, err)
	}
	defer sub.Unsubscribe()
	var last uint64
	var failed error
	next := func(e Entry) error {
		last = e.Revision
		failed = apply(e)
		return failed
	}
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		err := b.scan(ctx, prefix, last, next)
		switch {
		case ctx.Err() != nil:
			return nil
		case failed != nil:
			return failed
		case errors.Is(err, nats.ErrConnectionClosed):
			return fmt.Errorf("watching %s: %w", b.name, err)
		case err != nil:
			if pause.For(ctx, retryPause) != nil {
				return nil
			}
			continue
		case synced != nil:
			synced()
			synced = nil
		}
		select {
		case <-live:
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		case <-b.client.closed:
			return fmt.Errorf("watching %s: %w", b.name, nats.ErrConnectionClosed)
		}
	}
}

func checkKey(key string) error {
	for i := 0; i < len(key); i++ {
		c := key[i]
		dot := c == '.' && i > 0 && i < len(key)-1 && key[i-1] != '.'
		if !dot && !strings.ContainsRune("-_=/", rune(c)) && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return fmt.Errorf("key %.100q: only letters, digits and - _ = / in tokens joined by dots", key)
		}
	}
	if key == "" || len(key) > 512 {
		return fmt.Errorf("key %.100q has %d bytes, not 1–512", key, len(key))
	}
	return nil
}
