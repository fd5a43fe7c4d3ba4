package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"towpath.dev/events"
)

// Aside is a stored message that is no event this build can trust and read: it stays in the ledger as it
// is, nobody acts on it, and why is kept (Note).
type Aside struct {
	Seq     uint64
	Time    time.Time // when the bus stored it
	Subject string    // as it is stored; not to be believed
	Type    string    // of an event that only a newer build can read; empty: it is no trustworthy event
	Why     string
}

// Parked reports whether a newer build may be able to read it.
func (a Aside) Parked() bool { return a.Type != "" }

// asideOf says why a stored message was set aside.
func asideOf(s stored, err error) Aside {
	a := Aside{Seq: s.seq, Time: s.time, Subject: clip(s.subject, 200), Why: clip(reason(err), 500)}
	var unknown *events.UnknownTypeError
	if errors.As(err, &unknown) {
		a.Type = clip(string(unknown.Type), 100)
		if unknown.SpecVersion != "" {
			a.Type += " (CDEvents " + clip(unknown.SpecVersion, 20) + ")"
		}
	}
	return a
}

// reason is an error's text without the place, which Aside has.
func reason(err error) string {
	_, why, found := strings.Cut(err.Error(), ErrSetAside.Error()+": ")
	if !found {
		return err.Error()
	}
	return why
}

// clip returns at most n bytes of a text that may be anything, as valid UTF-8 without control characters.
func clip(text string, n int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0x7f {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "") + "…"
}

// At reads one event by its sequence. The error wraps ErrSetAside for a message that is no event this
// build can trust and read, of which Record then holds the sequence alone.
func (c *Client) At(ctx context.Context, seq uint64) (Record, error) {
	s, err := c.get(ctx, events.StreamName(c.epoch), directGet{Seq: seq})
	if err != nil {
		return Record{}, fmt.Errorf("event %d: %w", seq, err)
	}
	r, err := c.record(s)
	r.Seq = seq
	return r, err
}
