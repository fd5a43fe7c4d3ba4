package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/pause"
)

// notes keeps on the bus what this service knows of messages that it has not settled well, so that a
// restart does not forget it and people can see it. Where the bus does not take a note the service goes on
// with what it has in memory.
type notes struct {
	client *ledger.Client
	logger *slog.Logger

	mu     sync.Mutex
	asides []ledger.Aside // met while following, not yet kept
	more   chan struct{}  // has a token while there are some
}

func newNotes(client *ledger.Client, logger *slog.Logger) *notes {
	return &notes{client: client, logger: logger, more: make(chan struct{}, 1)}
}

func (n *notes) service() events.Writer { return events.Writer(n.client.Service()) }

// noteTimeout bounds one note.
const noteTimeout = 2 * time.Second

// passedOver takes up what the follower met. It does not wait for the bus.
func (n *notes) passedOver(a ledger.Aside) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asides = append(n.asides, a)
	select {
	case n.more <- struct{}{}:
	default:
	}
}

// keepAsides notes what the follower met, until ctx ends.
func (n *notes) keepAsides(ctx context.Context) {
	select {
	case <-n.client.CaughtUp():
	case <-ctx.Done():
		return
	}
	known := n.recheck(ctx)
	for {
		n.mu.Lock()
		asides := n.asides
		n.asides = nil
		n.mu.Unlock()
		for _, a := range asides {
			if !known[a.Seq] && n.aside(ctx, a) != nil {
				return // ctx ended
			}
		}
		select {
		case <-n.more:
		case <-ctx.Done():
			return
		}
	}
}

// recheck reads again what this service set aside before. What it can read by now (it was upgraded, or a
// key became known) is in the fold, and its note is dropped, unless a durable's worker has to take it up
// first. It returns the sequences that are noted by the follower already.
func (n *notes) recheck(ctx context.Context) (known map[uint64]bool) {
	known = map[uint64]bool{}
	for _, note := range n.mine(ctx) {
		if note.Durable != ledger.NoteFollower {
			continue
		}
		switch r, err := n.at(ctx, note.Seq); {
		case errors.Is(err, ledger.ErrSetAside):
			known[note.Seq] = true
		case err == nil && n.wakes(r) == "":
			n.drop(ctx, note)
		}
	}
	return known
}

// mine returns what this service set aside, waiting for the bus until ctx ends.
func (n *notes) mine(ctx context.Context) []ledger.Note {
	for {
		list, err := n.client.Notes(ctx, events.BucketAside, n.service())
		if err == nil || ctx.Err() != nil {
			return list
		}
		n.logger.Debug("notes cannot be read, to be tried again", "err", err)
		if pause.For(ctx, time.Second) != nil {
			return nil
		}
	}
}

// at reads an event, waiting for the bus until ctx ends. The error then wraps ledger.ErrSetAside.
func (n *notes) at(ctx context.Context, seq uint64) (ledger.Record, error) {
	for {
		r, err := n.client.At(ctx, seq)
		if err == nil || errors.Is(err, ledger.ErrSetAside) || pause.For(ctx, time.Second) != nil {
			return r, err
		}
	}
}

// wakes returns this service's durable that an event wakes; empty: none.
func (n *notes) wakes(r ledger.Record) string {
	for _, c := range events.Consumers {
		if c.Service == n.service() && c.WokenBy(r.Event.Body.Type()) {
			return c.Durable
		}
	}
	return ""
}

// aside keeps why a message was set aside. It tries until the bus has taken it or ctx ends.
func (n *notes) aside(ctx context.Context, a ledger.Aside) error {
	note := a.NoteOf(n.service(), ledger.NoteFollower, time.Now())
	for rest := 100 * time.Millisecond; ; rest = min(2*rest, 10*time.Second) {
		err := n.keep(ctx, note)
		if err == nil {
			return nil
		}
		n.logger.Warn("what was set aside could not be noted, to be tried again", "seq", a.Seq, "err", err)
		if err := pause.For(ctx, rest); err != nil {
			return err
		}
	}
}

func (n *notes) keep(ctx context.Context, note ledger.Note) error {
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	return n.client.Keep(ctx, note)
}

// drop takes a note away. If that fails it stays until it is met again.
func (n *notes) drop(ctx context.Context, note ledger.Note) {
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	if err := n.client.Drop(ctx, note); err != nil {
		n.logger.Warn("a note of a settled message stays for now", "seq", note.Seq, "err", err)
	}
}

// tried returns what an earlier process, or this one, noted of a message.
func (n *notes) tried(ctx context.Context, durable string, seq uint64) (ledger.Note, bool) {
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	note, ok, err := n.client.Tried(ctx, durable, seq)
	if err != nil {
		n.logger.Warn("earlier tries at a message are not known", "seq", seq, "err", err)
	}
	return note, ok
}
