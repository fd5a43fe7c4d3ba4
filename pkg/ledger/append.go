package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/pause"
)

// Answer is what the door replies to an append: exactly one of Seq, Exists, Refused and Unknown is set, as
// JSON.
type Answer struct {
	// Seq is the stored event's sequence, as the bus acknowledged it.
	Seq uint64 `json:"seq,omitempty"`
	// Exists says that the subject was written before, by whomever.
	Exists bool `json:"exists,omitempty"`
	// Refused says why the door will never store this.
	Refused string `json:"refused,omitempty"`
	// Key says, beside Refused, that it is for the signature's key alone: one that the door does not know
	// yet, or no longer accepts. Signed with the identity's present key it may be taken.
	Key bool `json:"key,omitempty"`
	// Unknown says why the door cannot tell whether it was stored: ask again.
	Unknown string `json:"unknown,omitempty"`
}

// ExistsError says that another event already has the subject. Fold past Winner and decide afresh.
type ExistsError struct{ Winner Record }

func (e *ExistsError) Error() string {
	return fmt.Sprintf("%s is already written, as event %d", e.Winner.Subject, e.Winner.Seq)
}

// ErrRefused is wrapped when the door will not store an event: trying again is of no use.
var ErrRefused = errors.New("the ledger's door refused the event")

const (
	// appendTry bounds one request to the door; a write that is synced to disk takes about a millisecond.
	appendTry = 2 * time.Second
	// keyPatience is how long a key that the door does not accept is tried again: while keys rotate, the
	// door or this process may not have read the new ones yet.
	keyPatience = 20 * time.Second
)

// errKey says that the door does not accept the signature's key.
var errKey = errors.New("the door does not accept the key")

// Append signs an event and has the door store it. It returns when the bus has acknowledged it, or has
// shown that the very same event was stored by an earlier try. Until one of these is known it asks
// again, until ctx ends; an error that comes from ctx therefore leaves it unknown whether the event was
// stored, and the caller must append the same event again or read. Errors: *ExistsError when another
// event has the subject, ErrRefused when the door says no. A key that the door does not accept is read and
// tried again for 20 s before that is a refusal, so that keys rotate without stopping anybody.
func (c *Client) Append(ctx context.Context, s events.Subject, e events.Event) (Record, error) {
	body, err := e.Encode()
	if err == nil {
		err = s.Validate()
	}
	if err == nil && string(s.Writer) != c.service {
		err = fmt.Errorf("%w: it is %s's to write, this is %s", ErrRefused, s.Writer, c.service)
	}
	if err != nil {
		return Record{}, fmt.Errorf("appending to %s: %w", s, err)
	}
	subject := s.String()
	r := Record{Subject: s, Event: e, Body: body, Signature: c.signer.Sign(subject, body)}
	request := nats.NewMsg(s.AppendSubject())
	request.Data = body
	for name, value := range e.Headers() {
		request.Header[name] = []string{value}
	}
	request.Header[identity.SignatureHeader] = []string{r.Signature}
	began := time.Now()
	for pauseFor := 10 * time.Millisecond; ; pauseFor = min(2*pauseFor, time.Second) {
		done, err := c.tryAppend(ctx, request, &r)
		if done {
			return r, err
		}
		if errors.Is(err, errKey) {
			if time.Since(began) > keyPatience {
				return Record{}, fmt.Errorf("appending to %s: %w: %w", s, ErrRefused, err)
			}
			c.signer.Refresh()
			r.Signature = c.signer.Sign(subject, body)
			request.Header[identity.SignatureHeader] = []string{r.Signature}
		}
		c.logger.Debug("append unanswered, asking again", "service", c.service, "subject", subject, "err", err)
		if stop := pause.For(ctx, pauseFor); stop != nil || errors.Is(err, nats.ErrConnectionClosed) {
			return Record{}, fmt.Errorf("appending to %s: not known whether it is stored: %w (%w)", s, err, errors.Join(stop))
		}
	}
}

// tryAppend asks the door once. Not done means that the outcome is unknown.
func (c *Client) tryAppend(ctx context.Context, request *nats.Msg, r *Record) (done bool, err error) {
	connected, disconnect := c.outage.during(ctx)
	defer disconnect()
	try, cancel := context.WithTimeout(connected, appendTry)
	defer cancel()
	reply, err := c.conn.RequestMsgWithContext(try, request)
	err = because(connected, err)
	if errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrBadSubject) {
		return true, fmt.Errorf("appending to %s: %w: %w", r.Subject, ErrRefused, err)
	}
	if err != nil {
		return false, err
	}
	var a Answer
	if err := json.Unmarshal(reply.Data, &a); err != nil {
		return false, fmt.Errorf("the door's answer is unreadable: %w", err)
	}
	switch {
	case a.Seq > 0:
		r.Seq = a.Seq
		return true, nil
	case a.Key:
		return false, fmt.Errorf("%w: %s", errKey, a.Refused)
	case a.Refused != "":
		return true, fmt.Errorf("appending to %s: %w: %s", r.Subject, ErrRefused, a.Refused)
	case a.Exists:
		return c.existing(ctx, r)
	}
	return false, errors.New(a.Unknown)
}

// existing reads who has the subject: r itself, from an earlier try, or another. A replica that does
// not have the event yet leaves it unknown.
func (c *Client) existing(ctx context.Context, r *Record) (done bool, err error) {
	s, err := c.get(ctx, events.StreamName(r.Subject.Epoch), directGet{Last: r.Subject.String()})
	if err != nil {
		return false, err
	}
	if bytes.Equal(s.body, r.Body) {
		r.Seq, r.Time = s.seq, s.time
		return true, nil
	}
	winner, err := c.record(s)
	if err != nil {
		return true, fmt.Errorf("appending to %s: what is written there is unreadable: %w", r.Subject, err)
	}
	return true, &ExistsError{Winner: winner}
}
