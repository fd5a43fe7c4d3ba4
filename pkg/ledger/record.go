package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
)

// Record is one event as it is stored.
type Record struct {
	Seq     uint64    // position in the epoch's stream, from 1, without gaps
	Time    time.Time // when the bus stored it; zero in what Append returns for a new event
	Subject events.Subject
	Event   events.Event
	Body    []byte // the event's bytes, as they were signed
	// Signature is the value of identity.SignatureHeader.
	Signature string
}

// hash identifies a record for good: SHA-256 over subject, line feed, body.
func hash(subject string, body []byte) Hash {
	var room [4096]byte // enough for nearly every event, and on the stack
	return sha256.Sum256(append(append(append(room[:0], subject...), '\n'), body...))
}

// ID returns the ledger's id if r is the ledger's first event: 64 hexadecimal digits. Two ledgers never
// share it, so that a snapshot or a container can say which one it belongs to.
func (r Record) ID() string {
	return idOf(hash(r.Subject.String(), r.Body))
}

func idOf(first Hash) string { return hex.EncodeToString(first[:]) }

// ErrSetAside is wrapped for a stored message that is no event this build can trust and read: a wrong
// signature, a malformed body, a type that it does not know or that its writer may not write. It is passed over
// and never guessed at.
//
// The time that an event gives itself is no reason: the door holds it to its clock, order comes from
// sequences, and a reader that compared it to the bus's clock would set aside for good whatever was stored
// while that clock was wrong.
var ErrSetAside = errors.New("set aside")

// stored is one message of a stream as the bus returns it, before anything in it is believed.
type stored struct {
	seq     uint64
	last    uint64 // the sequence before it: of its subject when republished, of the batch in a batch
	pending uint64 // how many follow it; in batches only
	time    time.Time
	stream  string
	subject string
	header  nats.Header
	body    []byte
}

// Names of the headers that the server adds behind a publisher's own.
const (
	headerStream    = "Nats-Stream"
	headerSubject   = "Nats-Subject"
	headerSequence  = "Nats-Sequence"
	headerTime      = "Nats-Time-Stamp"
	headerPending   = "Nats-Num-Pending"
	headerLast      = "Nats-Last-Sequence"
	headerStatus    = "Status"
	headerStatusMsg = "Description"
)

// lastValue returns a header's last value: the server's own stands behind whatever a publisher sent.
func lastValue(h nats.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// isControl reports whether a reply is the server's own word and no stored message. A stored message
// may carry a Status header of its own, so only the absence of Nats-Stream tells.
func isControl(m *nats.Msg) bool { return len(m.Header[headerStream]) == 0 }

func parseStored(m *nats.Msg) (stored, error) {
	s := stored{
		stream:  lastValue(m.Header, headerStream),
		subject: lastValue(m.Header, headerSubject),
		header:  m.Header, body: m.Data,
	}
	var err error
	if s.seq, err = strconv.ParseUint(lastValue(m.Header, headerSequence), 10, 64); err != nil {
		return stored{}, fmt.Errorf("stored message without a sequence on %s: %w", m.Subject, err)
	}
	if s.time, err = time.Parse(time.RFC3339Nano, lastValue(m.Header, headerTime)); err != nil {
		return stored{}, fmt.Errorf("stored message %d without a time: %w", s.seq, err)
	}
	if v := lastValue(m.Header, headerLast); v != "" {
		if s.last, err = strconv.ParseUint(v, 10, 64); err != nil {
			return stored{}, fmt.Errorf("stored message %d: last sequence: %w", s.seq, err)
		}
	}
	if v := lastValue(m.Header, headerPending); v != "" {
		if s.pending, err = strconv.ParseUint(v, 10, 64); err != nil {
			return stored{}, fmt.Errorf("stored message %d: pending: %w", s.seq, err)
		}
	}
	return s, nil
}

// record verifies and decodes a stored message. The error wraps ErrSetAside.
func (c *Client) record(s stored) (Record, error) {
	return verifiedRecord(c.trust, s)
}

func verifiedRecord(trust *identity.Trust, s stored) (Record, error) {
	subject, err := events.ParseSubject(s.subject)
	if err != nil {
		return Record{}, fmt.Errorf("event %d %w: %w", s.seq, ErrSetAside, err)
	}
	signature := lastValue(s.header, identity.SignatureHeader)
	writer, err := trust.VerifyAt(s.subject, s.body, signature, s.time)
	if err != nil {
		return Record{}, fmt.Errorf("event %d on %s %w: %w", s.seq, s.subject, ErrSetAside, err)
	}
	if writer != string(subject.Writer) {
		return Record{}, fmt.Errorf("event %d on %s %w: signed by %s", s.seq, s.subject, ErrSetAside, writer)
	}
	return decoded(s, subject, signature)
}

// readRecord decodes a stored message whose signature was verified before. The error wraps ErrSetAside.
func readRecord(s stored) (Record, error) {
	subject, err := events.ParseSubject(s.subject)
	if err != nil {
		return Record{}, fmt.Errorf("event %d %w: %w", s.seq, ErrSetAside, err)
	}
	return decoded(s, subject, lastValue(s.header, identity.SignatureHeader))
}

func decoded(s stored, subject events.Subject, signature string) (Record, error) {
	event, err := events.Decode(s.body)
	if err != nil {
		return Record{}, fmt.Errorf("event %d on %s %w: %w", s.seq, s.subject, ErrSetAside, err)
	}
	if t := event.Body.Type(); t.Subject() != subject.Subject || t.Predicate() != subject.Predicate {
		return Record{}, fmt.Errorf("event %d on %s %w: it is a %s", s.seq, s.subject, ErrSetAside, t)
	}
	if t := event.Body.Type(); !events.MayWrite(subject.Writer, t) {
		return Record{}, fmt.Errorf("event %d on %s %w: %s may not write %s", s.seq, s.subject, ErrSetAside, subject.Writer, t)
	}
	return Record{Seq: s.seq, Time: s.time, Subject: subject, Event: event, Body: s.body, Signature: signature}, nil
}
