package proof

import (
	"errors"
	"fmt"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
)

// parkedError says that an event is the work of the service that its subject names, and that this build cannot read what
// it says: a newer type, or a body that its own writer got wrong. Every service of the same build sets it aside.
type parkedError struct {
	at  events.Subject
	why error
}

func (e *parkedError) Error() string { return e.why.Error() }
func (e *parkedError) Unwrap() error { return e.why }

// open verifies and reads an event as it is stored. The error is a *parkedError where nothing but the body is in the way.
func open(m ledger.Stored, trust *identity.Trust) (ledger.Record, error) {
	r, err := m.Record(trust)
	if err == nil {
		return r, nil
	}
	subject, nameless := events.ParseSubject(m.Subject)
	unread := errors.As(err, new(*events.UnknownTypeError)) || errors.Is(err, events.ErrMalformed)
	if nameless != nil || !unread {
		return r, err // what its writer had no right to write is no event, whoever reads it
	}
	if writer, wrong := trust.VerifyAt(m.Subject, m.Body, m.Signature, m.Time); wrong != nil || writer != string(subject.Writer) {
		return r, err
	}
	return r, &parkedError{subject, err}
}

// parked is an event that is shown and not judged.
type parked struct {
	seq     uint64
	subject events.Subject
	why     string
}

// String says which and why.
func (p parked) String() string {
	return fmt.Sprintf("event %d (%s): %s", p.seq, nameOf(p.subject), p.why)
}

// park takes note of an event that cannot be read; false: it is none that may be passed over.
func (c *checker) park(m ledger.Stored, err error) bool {
	var aside *parkedError
	if !errors.As(err, &aside) {
		return false
	}
	c.parked = append(c.parked, parked{m.Seq, aside.at, reason(err)})
	return true
}

// maxParked is how many events that could not be read are named.
const maxParked = 10

// unread says which events were passed over.
func (c *checker) unread() (lines []string) {
	for _, p := range c.parked[:min(len(c.parked), maxParked)] {
		lines = append(lines, p.String())
	}
	if more := len(c.parked) - len(lines); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return lines
}
