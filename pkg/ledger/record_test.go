package ledger

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
)

// A publisher's own headers precede the server's: nothing that it wrote may be believed.
func TestTheServersHeadersAreTheLast(t *testing.T) {
	m := &nats.Msg{Data: []byte("body"), Header: nats.Header{
		headerStream:   {"OTHER", "EVENTS_1"},
		headerSubject:  {"event.1.promote.forged", "event.1.build.true"},
		headerSequence: {"999", "7"},
		headerTime:     {"1999-01-01T00:00:00Z", "2026-01-02T03:04:05.678Z"},
		headerPending:  {"0", "12"},
		headerLast:     {"998", "6"},
		headerStatus:   {"404"},
	}}
	if isControl(m) {
		t.Error("a stored message with a Status header was taken for the end of the log")
	}
	s, err := parseStored(m)
	if err != nil {
		t.Fatal(err)
	}
	if s.stream != "EVENTS_1" || s.subject != "event.1.build.true" || s.seq != 7 || s.time.Year() != 2026 || s.pending != 12 || s.last != 6 {
		t.Errorf("believed %+v", s)
	}
}

func TestEndOfABatch(t *testing.T) {
	control := func(status, pending, last string) *nats.Msg {
		return &nats.Msg{Header: nats.Header{headerStatus: {status}, headerPending: {pending}, headerLast: {last}}}
	}
	for name, c := range map[string]struct {
		m    *nats.Msg
		more bool
		err  error
	}{
		"at the head":         {control("204", "0", "9"), false, nil},
		"more behind":         {control("204", "5", "9"), true, nil},
		"nothing there":       {control("404", "", ""), false, nil},
		"the last is missing": {control("204", "0", "10"), false, errBroken},
		"an error":            {control("500", "", ""), false, errAny},
		"too many":            {control("413", "", ""), false, errAny},
	} {
		more, err := endOfBatch("S", c.m, 9)
		if more != c.more || (err == nil) != (c.err == nil) || c.err != nil && c.err != errAny && !errors.Is(err, c.err) {
			t.Errorf("%s: more %v, %v", name, more, err)
		}
	}
}

var errAny = errors.New("any")

func TestUnreadableSequencesAreErrors(t *testing.T) {
	for _, name := range []string{headerSequence, headerTime, headerLast, headerPending} {
		m := &nats.Msg{Header: nats.Header{
			headerStream: {"S"}, headerSubject: {"s"}, headerSequence: {"1"}, headerTime: {"2026-01-02T03:04:05Z"},
			headerLast: {"0"}, headerPending: {"0"},
		}}
		m.Header[name] = append(m.Header[name], "x")
		if _, err := parseStored(m); err == nil {
			t.Errorf("%s: x was read", name)
		}
	}
}
