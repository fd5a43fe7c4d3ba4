package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// Bounds of one batch of direct gets. Batches of 4,000 and more were seen to hold appends up for 60 ms
// to seconds; one batch is asked for only when the one before has arrived whole, and two at most are in memory.
const (
	batchMessages = 256
	batchBytes    = 1 << 20
)

// directTimeout bounds the silence between two messages of a reply; a reply is at most one batch.
const directTimeout = 5 * time.Second

// errNotFound says that a direct get found no message. On a replicated stream that means "not known
// here yet" and never "absent".
var errNotFound = errors.New("no such message")

// errBroken says that a reply lost messages on its way; asking again is safe.
var errBroken = errors.New("batch arrived incomplete")

// directGet is the request of a direct get (NATS ADR-31).
type directGet struct {
	Seq       uint64   `json:"seq,omitempty"`
	Last      string   `json:"last_by_subj,omitempty"`
	Next      string   `json:"next_by_subj,omitempty"`
	Batch     int      `json:"batch,omitempty"`
	MaxBytes  int      `json:"max_bytes,omitempty"`
	MultiLast []string `json:"multi_last,omitempty"`
	UpTo      uint64   `json:"up_to_seq,omitempty"`
}

// get returns one message of a stream, by sequence or as the last of a subject, or errNotFound.
func (c *Client) get(ctx context.Context, stream string, q directGet) (stored, error) {
	payload, err := json.Marshal(q)
	if err != nil {
		return stored{}, err
	}
	ctx, connected := c.outage.during(ctx)
	defer connected()
	limited, cancel := context.WithTimeout(ctx, directTimeout)
	defer cancel()
	m, err := c.conn.RequestWithContext(limited, c.prefix+".DIRECT.GET."+stream, payload)
	if err != nil {
		return stored{}, fmt.Errorf("reading from %s: %w", stream, because(ctx, err))
	}
	if isControl(m) {
		return stored{}, controlError(stream, m)
	}
	return parseStored(m)
}

func controlError(stream string, m *nats.Msg) error {
	status := lastValue(m.Header, headerStatus)
	if status == "404" {
		return fmt.Errorf("reading from %s: %w", stream, errNotFound)
	}
	return fmt.Errorf("reading from %s: the bus answered %s %s %.200s", stream, status, lastValue(m.Header, headerStatusMsg), m.Data)
}

// batch asks for up to batchMessages messages and hands each to apply, in order. more says whether the
// stream held further ones at that moment. A reply with a hole in it wraps errBroken.
func (c *Client) batch(ctx context.Context, stream string, q directGet, apply func(stored) error) (more bool, err error) {
	q.Batch, q.MaxBytes = batchMessages, batchBytes
	payload, err := json.Marshal(q)
	if err != nil {
		return false, err
	}
	ctx, connected := c.outage.during(ctx)
	defer connected()
	inbox := c.conn.NewInbox()
	reply := make(chan *nats.Msg, batchMessages+1)
	sub, err := c.conn.ChanSubscribe(inbox, reply)
	if err != nil {
		return false, fmt.Errorf("reading from %s: %w", stream, err)
	}
	defer sub.Unsubscribe()
	if err := c.conn.PublishRequest(c.prefix+".DIRECT.GET."+stream, inbox, payload); err != nil {
		return false, fmt.Errorf("reading from %s: %w", stream, err)
	}
	silence := time.NewTimer(directTimeout)
	defer silence.Stop()
	var last uint64
	for {
		var m *nats.Msg
		select {
		case m = <-reply:
			silence.Reset(directTimeout)
		case <-silence.C:
			return false, fmt.Errorf("reading from %s after %d: %w", stream, last, nats.ErrTimeout)
		case <-ctx.Done():
			return false, fmt.Errorf("reading from %s after %d: %w", stream, last, because(ctx, ctx.Err()))
		case <-c.closed:
			return false, fmt.Errorf("reading from %s after %d: %w", stream, last, nats.ErrConnectionClosed)
		}
		if isControl(m) {
			return endOfBatch(stream, m, last)
		}
		s, err := parseStored(m)
		if err != nil {
			return false, err
		}
		if s.last != last {
			return false, fmt.Errorf("reading from %s: %w: %d follows %d, not %d", stream, errBroken, s.seq, s.last, last)
		}
		last = s.seq
		if err := apply(s); err != nil {
			return false, err
		}
	}
}

// endOfBatch reads the control message that ends a reply: 404 when there was nothing, 204 with the
// number of messages that wait behind the batch.
func endOfBatch(stream string, m *nats.Msg, last uint64) (more bool, err error) {
	err = controlError(stream, m)
	if errors.Is(err, errNotFound) {
		return false, nil
	}
	if lastValue(m.Header, headerStatus) != "204" {
		return false, err
	}
	if end := lastValue(m.Header, headerLast); end != fmt.Sprint(last) {
		return false, fmt.Errorf("reading from %s: %w: it ends at %s, the last seen is %d", stream, errBroken, end, last)
	}
	return lastValue(m.Header, headerPending) != "0", nil
}
