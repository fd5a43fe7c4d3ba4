package door

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
)

// admissible is a request that passed every check: where to store which bytes.
type admissible struct {
	subject   string
	event     events.Event
	body      []byte
	signature string
}

// maxBody leaves room for the headers within events.MaxEventSize.
const maxBody = events.MaxEventSize - 8<<10

// check decides whether a request may be stored. It has no side effects. The error says what is wrong
// with the request, in words for the one who sent it.
func check(trust *identity.Trust, epoch int, m *nats.Msg, now time.Time) (admissible, error) {
	subject, err := events.ParseSubject(m.Subject)
	if err != nil {
		return admissible{}, err
	}
	if subject.AppendSubject() != m.Subject {
		return admissible{}, fmt.Errorf("subject %.120q is not written as %q", m.Subject, subject.AppendSubject())
	}
	if subject.Epoch != epoch {
		return admissible{}, fmt.Errorf("epoch %d is not open, %d is", subject.Epoch, epoch)
	}
	if len(m.Data) > maxBody {
		return admissible{}, fmt.Errorf("body has %d bytes, at most %d are allowed: put what is large into the registry and name it by digest", len(m.Data), maxBody)
	}
	a := admissible{subject: subject.String(), body: m.Data}
	if a.signature, err = single(m.Header, identity.SignatureHeader); err != nil {
		return admissible{}, err
	}
	signer, err := trust.VerifyNew(a.subject, a.body, a.signature, now)
	if err != nil {
		return admissible{}, err
	}
	if signer != string(subject.Writer) {
		return admissible{}, fmt.Errorf("%s signed what would be stored as %s's", signer, subject.Writer)
	}
	if a.event, err = events.Decode(m.Data); err != nil {
		return admissible{}, err
	}
	if off := a.event.Time.Sub(now); off.Abs() > maxClock {
		return admissible{}, fmt.Errorf("the event's time is %s, %s off the clock here: set the clock of the machine that %s runs on, or of this one",
			a.event.Time.Format(time.RFC3339), off.Round(time.Second), subject.Writer)
	}
	return a, checkEvent(subject, a.event, m.Header)
}

// maxClock is how far an event's time may be from the door's. An append that waited for the bus is late by as
// much as the bus was away.
const maxClock = 30 * time.Minute

// checkEvent decides whether what the event says of itself agrees with where it is to be stored and
// with its headers.
func checkEvent(subject events.Subject, e events.Event, h nats.Header) error {
	t := e.Body.Type()
	if t.Subject() != subject.Subject || t.Predicate() != subject.Predicate {
		return fmt.Errorf("an event of type %s cannot be stored as %s.%s", t, subject.Subject, subject.Predicate)
	}
	if !events.MayWrite(subject.Writer, t) {
		return fmt.Errorf("%s may not write %s", subject.Writer, t)
	}
	mirrored := e.Headers()
	for name := range h {
		if !strings.HasPrefix(name, "ce-") {
			continue
		}
		if _, err := single(h, name); err != nil {
			return err
		}
		if mirrored[name] == "" {
			return fmt.Errorf("header %.64q has nothing in the body to mirror", name)
		}
	}
	return e.CheckHeaders(func(name string) string {
		v, _ := single(h, name)
		return v
	})
}

// single returns a header that must be there exactly once.
func single(h nats.Header, name string) (string, error) {
	switch v := h[name]; {
	case len(v) == 0:
		return "", fmt.Errorf("header %.64s is missing", name)
	case len(v) > 1:
		return "", fmt.Errorf("header %.64s is there %d times", name, len(v))
	case v[0] == "":
		return "", errors.New("header " + name + " is empty")
	default:
		return v[0], nil
	}
}

// message returns what is published: headers made anew from the body, so that none of the sender's
// own can reach the stream.
func (a admissible) message() *nats.Msg {
	m := nats.NewMsg(a.subject)
	m.Data = a.body
	for name, value := range a.event.Headers() {
		m.Header[name] = []string{value}
	}
	m.Header[identity.SignatureHeader] = []string{a.signature}
	m.Header[expectLastSubject] = []string{"0"}
	return m
}

// expectLastSubject with 0 lets the bus store a message only where its subject has none.
const expectLastSubject = "Nats-Expected-Last-Subject-Sequence"
