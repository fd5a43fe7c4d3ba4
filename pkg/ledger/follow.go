package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/pause"
)

// HistoryError says that the bus holds another history than the one followed so far: it was restored
// from a backup, or another ledger took its place. The process must stop and build its state anew.
type HistoryError struct {
	Seq uint64 // the last sequence applied
	Why string
}

func (e *HistoryError) Error() string {
	return fmt.Sprintf("the ledger has another history at %d: %s; restart the process to read it from the beginning", e.Seq, e.Why)
}

const (
	// liveBuffer is how many live messages may wait for apply; beyond it the follower reads the
	// stream instead, so that nothing is lost and memory stays bounded.
	liveBuffer = 4096
	// lookEvery is how often an idle follower reads the head even though nothing points at a gap:
	// after a leader was killed the last events may be missing without a trace.
	lookEvery = 2 * time.Second
	// absence is how long the last applied sequence may be unknown to the bus after a reconnect
	// before that counts as another history; a replica may lag, a restart takes its time.
	absence = 10 * time.Second
	// retryPause is the pause after a read that failed.
	retryPause = 50 * time.Millisecond
)

// Follow hands every record of the epoch to apply, or those after the mark that Resume was given: first
// those already there, then new ones as they are stored, in the order of their sequence, each once, none left out, until ctx ends (nil), apply
// fails (its error), or the bus holds another history (*HistoryError). A message that is no trustworthy,
// readable event is logged and passed over; Await counts it as applied. A bus that is away is waited
// for. A client follows at most once, and apply is called from one goroutine.
func (c *Client) Follow(ctx context.Context, apply func(Record) error) error {
	if c.position.taken.Swap(true) {
		return errors.New("following the ledger: this client follows already")
	}
	live := make(chan *nats.Msg, liveBuffer)
	sub, err := c.conn.ChanSubscribe(fmt.Sprintf("live.event.%d.>", c.epoch), live)
	if err != nil {
		return fmt.Errorf("following the ledger: %w", err)
	}
	defer sub.Unsubscribe()
	f := &follower{client: c, apply: apply, stream: events.StreamName(c.epoch), mark: c.position.markNow()}
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	if err = f.catchUp(ctx); err == nil {
		close(c.position.ready)
	}
	for err == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-c.closed:
			return fmt.Errorf("following the ledger: %w", nats.ErrConnectionClosed)
		case m := <-live:
			err = f.live(ctx, m)
		case <-c.position.look:
			err = f.lookAgain(ctx)
		case <-ticker.C:
			err = f.catchUp(ctx)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Await returns once Follow has applied the record with this sequence, or with ctx's error. After
// 25 ms it has the follower read the stream, in case the live message was lost.
func (c *Client) Await(ctx context.Context, seq uint64) error {
	if err := c.position.await(ctx, seq); err != nil {
		return fmt.Errorf("waiting for event %d to be applied: %w", seq, err)
	}
	return nil
}

// CatchUp returns once Follow has applied all that the stream held when it was called, or with the bus's
// or ctx's error.
func (c *Client) CatchUp(ctx context.Context) error {
	head, err := c.Read(ctx, c.Applied(), func(Record) error { return nil })
	if err != nil {
		return fmt.Errorf("looking for the ledger's head: %w", err)
	}
	return c.Await(ctx, head)
}

// CaughtUp is closed once Follow has reached the head for the first time.
func (c *Client) CaughtUp() <-chan struct{} { return c.position.ready }

// Applied returns the last sequence that Follow has applied; 0 before the first.
func (c *Client) Applied() uint64 {
	seq, _ := c.position.at()
	return seq
}

// Read hands every record after a sequence to apply, up to the head at that moment, and returns the
// last sequence read (after itself if there was none). Unreadable messages are logged and passed over.
func (c *Client) Read(ctx context.Context, after uint64, apply func(Record) error) (last uint64, err error) {
	mark, err := c.Replay(ctx, Replay{From: Mark{Seq: after}}, apply)
	return mark.Seq, err
}

// follower applies one stream's messages in order.
type follower struct {
	client  *Client
	stream  string
	apply   func(Record) error
	mark    Mark             // the last applied
	private bool             // a Replay: not the client's position
	upTo    uint64           // the last to apply; 0: all
	known   *Mark            // up to there signatures were verified before; nil: nowhere
	aside   func(seq uint64) // told of what is set aside; may be nil
	ahead   chan prefetch    // the batch that is being read already; nil: none
}

// applyError marks an error of the caller's apply, which ends following; other errors are the bus's.
type applyError struct{ error }

func (e applyError) Unwrap() error { return e.error }

func (f *follower) live(ctx context.Context, m *nats.Msg) error {
	s, err := parseStored(m)
	if err != nil || s.stream != f.stream {
		return f.catchUp(ctx)
	}
	switch {
	case s.seq <= f.mark.Seq:
		return nil
	case s.seq == f.mark.Seq+1:
		next := []opened{{stored: s}}
		f.open(next)
		return unwrapApply(f.one(next[0]))
	}
	return f.catchUp(ctx)
}

// one applies the message that follows the last.
func (f *follower) one(s opened) error {
	at := f.mark.Seq
	if s.seq != at+1 {
		return applyError{&HistoryError{Seq: at, Why: fmt.Sprintf("%d is followed by %d", at, s.seq)}}
	}
	var writer events.Writer
	if s.err != nil {
		f.client.logger.Error("event passed over", "service", f.client.service, "seq", s.seq, "err", s.err)
		if f.aside != nil {
			f.aside(s.seq)
		}
		if f.client.aside != nil && !f.private {
			f.client.aside(asideOf(s.stored, s.err))
		}
	} else if err := f.apply(s.record); err != nil {
		return applyError{err}
	} else {
		writer = s.record.Subject.Writer
	}
	signature := lastValue(s.header, identity.SignatureHeader)
	if f.private {
		f.mark.next(s, signature, writer)
	} else {
		f.client.position.advance(&f.mark, s, signature, writer)
	}
	if f.known != nil && s.seq == f.known.Seq && f.mark.Chain != f.known.Chain {
		return applyError{fmt.Errorf("%w, somewhere up to %d", ErrOtherChain, s.seq)}
	}
	return nil
}

// catchUp reads to the head. It tries again while the bus is away.
func (f *follower) catchUp(ctx context.Context) error {
	level := slog.LevelWarn
	for more := true; more; {
		var err error
		more, err = f.readBatch(ctx)
		if fatal := unwrapApply(err); fatal != err {
			return fatal
		}
		if err == nil {
			continue
		}
		if ctx.Err() != nil || errors.Is(err, nats.ErrConnectionClosed) {
			return err
		}
		f.client.logger.Log(ctx, level, "the ledger cannot be read yet; is the bus up and provisioned?", "service", f.client.service, "after", f.mark.Seq, "err", err)
		level, more = slog.LevelDebug, true
		if err := pause.For(ctx, retryPause); err != nil {
			return err
		}
	}
	return nil
}

func unwrapApply(err error) error {
	var a applyError
	if errors.As(err, &a) {
		return a.error
	}
	return err
}

// lookAgain reads to the head because somebody asked; after a reconnect it first makes sure that the
// bus still holds the history that was followed.
func (f *follower) lookAgain(ctx context.Context) error {
	if f.client.position.check.Swap(false) && f.mark.Seq > 0 {
		if err := f.sameHistory(ctx); err != nil {
			return err
		}
	}
	return f.catchUp(ctx)
}

// sameHistory reads the last applied sequence again.
func (f *follower) sameHistory(ctx context.Context) error {
	s, err := f.held(ctx, f.mark.Seq)
	if err == nil && hash(s.subject, s.body) != f.mark.Hash {
		err = &HistoryError{Seq: f.mark.Seq, Why: "it holds a different event"}
	}
	return err
}

// held reads an event that the ledger must hold. Not finding it is no answer until absence has passed; a bus that is
// away is waited for.
func (f *follower) held(ctx context.Context, seq uint64) (stored, error) {
	deadline := time.Now().Add(absence)
	for {
		s, err := f.client.get(ctx, f.stream, directGet{Seq: seq})
		switch {
		case err == nil:
			return s, nil
		case !errors.Is(err, errNotFound):
			deadline = time.Now().Add(absence)
		case time.Now().After(deadline):
			return s, &HistoryError{Seq: seq, Why: "it has no such event"}
		}
		if err := pause.For(ctx, retryPause); err != nil {
			return s, err
		}
	}
}
