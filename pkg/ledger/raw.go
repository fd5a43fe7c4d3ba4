package ledger

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
)

// Stored is one message of the epoch's stream as the bus holds it, before anything in it is believed.
// Sealing works on these: what nobody can read is part of the ledger all the same.
type Stored struct {
	Seq       uint64    // from 1, without gaps
	Time      time.Time // when the bus stored it
	Subject   string
	Body      []byte
	Signature string // the value of identity.SignatureHeader; "" where there is none
}

// ReadStored hands every message after a sequence to apply, up to the head at that moment, and returns
// the last sequence read (after itself if there was none). Nothing is passed over: a sequence that is
// missing ends the reading with a *HistoryError.
func (c *Client) ReadStored(ctx context.Context, after uint64, apply func(Stored) error) (last uint64, err error) {
	stream := events.StreamName(c.epoch)
	for more := true; more; {
		more, err = c.batch(ctx, stream, directGet{Seq: after + 1}, func(s stored) error {
			if s.seq != after+1 {
				return &HistoryError{Seq: after, Why: fmt.Sprintf("%d is followed by %d", after, s.seq)}
			}
			after = s.seq
			return apply(Stored{
				Seq: s.seq, Time: s.time.UTC(), Subject: s.subject, Body: s.body,
				Signature: lastValue(s.header, identity.SignatureHeader),
			})
		})
		if err != nil {
			return after, err
		}
	}
	return after, nil
}

// ID returns the ledger's id if s is the ledger's first message, as Record.ID does.
func (s Stored) ID() string {
	sum := hash(s.Subject, s.Body)
	return hex.EncodeToString(sum[:])
}

// Record verifies and decodes a stored message. The error wraps ErrSetAside for one that is no event
// this build can trust and read.
func (s Stored) Record(trust *identity.Trust) (Record, error) {
	return verifiedRecord(trust, stored{
		seq: s.Seq, time: s.Time, subject: s.Subject, body: s.Body,
		header: nats.Header{identity.SignatureHeader: {s.Signature}},
	})
}
