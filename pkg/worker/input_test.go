package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/worker"
)

// bad is one message that must not be acted on, as it would be stored.
type bad struct {
	message *nats.Msg
	door    string // with what words the door refuses it
	reader  string // with what words readers set it aside, if it got past the door; "": see storedAnyway
}

// badInputs are made anew for each test, each on a subject of its own that wakes build.
func badInputs(t *testing.T, l *ledgertest.Ledger) map[string]bad {
	t.Helper()
	gateway, build := l.Client("gateway").Signer(), l.Client("build").Signer()
	stranger := ledgertest.Start(t).Client("gateway").Signer()
	subject := func() events.Subject {
		return events.CommandSubject(1, events.TypeCommandReceived, "", 0, "", events.NewID())
	}
	event := func(at time.Time) events.Event {
		body := &events.CommandReceived{About: events.About{ID: events.NewID()}}
		body.Verb = events.VerbHold
		return events.New(events.Gateway, at, "", body)
	}
	made := func(signer *identity.Signer, change func(*nats.Msg)) *nats.Msg {
		m := ledgertest.Stored(t, signer, subject(), event(time.Now()))
		change(m)
		return m
	}
	signed := func(body func(string) string) *nats.Msg {
		return made(gateway, func(m *nats.Msg) {
			m.Data = []byte(body(string(m.Data)))
			m.Header[identity.SignatureHeader] = []string{gateway.Sign(m.Subject, m.Data)}
		})
	}
	replaced := func(old, with string) func(string) string {
		return func(body string) string { return strings.Replace(body, old, with, 1) }
	}
	all := map[string]bad{
		"broken signature": {made(gateway, func(m *nats.Msg) {
			id, _, _ := strings.Cut(m.Header.Get(identity.SignatureHeader), " ")
			m.Header[identity.SignatureHeader] = []string{id + " " + strings.Repeat("A", 86) + "=="}
		}), "did not sign", "did not sign"},
		"signature that is none": {made(gateway, func(m *nats.Msg) { m.Header[identity.SignatureHeader] = []string{"\xff\x00"} }), "signature", "signature"},
		"no signature":           {made(gateway, func(m *nats.Msg) { delete(m.Header, identity.SignatureHeader) }), "missing", "signature"},
		"changed body":           {made(gateway, func(m *nats.Msg) { m.Data = append(m.Data, ' ') }), "did not sign", "did not sign"},
		"wrong signer":           {made(build, func(*nats.Msg) {}), "build signed", "signed by build"},
		"signer of elsewhere":    {made(stranger, func(*nats.Msg) {}), "not trusted", "not trusted"},
		"moved subject":          {made(gateway, func(m *nats.Msg) { m.Subject = subject().String() }), "did not sign", "did not sign"},
		"subject of another type": {made(gateway, func(m *nats.Msg) {
			s, e := ledgertest.AppCreated("other")
			m.Data = ledgertest.Stored(t, gateway, s, e).Data
			m.Header[identity.SignatureHeader] = []string{gateway.Sign(m.Subject, m.Data)}
		}), "cannot be stored as command.received", "it is a dev.cdeventsx.towpath-app.created"},
		"writer without the right": {made(build, func(m *nats.Msg) { // its own subject, its own key, a command that it may not give
			m.Subject = strings.Replace(m.Subject, ".gateway.", ".build.", 1)
			m.Header[identity.SignatureHeader] = []string{build.Sign(m.Subject, m.Data)}
		}), "build may not write", "build may not write dev.cdeventsx.towpath-command.received"},
		"bad JSON":               {signed(func(string) string { return "{" }), "malformed", "malformed"},
		"no JSON":                {signed(func(string) string { return "\x00\xff" }), "malformed", "malformed"},
		"empty":                  {signed(func(string) string { return "" }), "malformed", "malformed"},
		"another JSON":           {signed(func(string) string { return "[]" }), "malformed", "malformed"},
		"deep JSON":              {signed(func(string) string { return strings.Repeat("[", 100_000) }), "malformed", "malformed"},
		"something behind":       {signed(func(body string) string { return body + "{}" }), "malformed", "malformed"},
		"no type":                {signed(replaced("dev.cdeventsx.towpath-command.received.0.1.0", "")), "malformed", "malformed"},
		"unknown type":           {signed(replaced("towpath-command.received.0.1.0", "towpath-future.received.0.1.0")), "unknown event type", "unknown event type"},
		"newer version":          {signed(replaced("received.0.1.0", "received.0.2.0")), "unknown event type", "unknown event type"},
		"newer CDEvents":         {signed(replaced(`"specversion":"0.5.1"`, `"specversion":"0.9.0"`)), "unknown event type", "unknown event type"},
		"content of no type":     {signed(replaced(`"content":{`, `"content":{"verb":7,`)), "malformed", "malformed"},
		"time that is none":      {signed(replaced(`"timestamp":"2`, `"timestamp":"x2`)), "malformed", "malformed"},
		"1 MiB":                  {signed(func(body string) string { return body + strings.Repeat(" ", 1<<20-len(body)-2000) }), "at most", ""},
		"a clock an hour ahead":  {ledgertest.Stored(t, gateway, subject(), event(time.Now().Add(time.Hour))), "off the clock", ""},
		"a clock an hour behind": {ledgertest.Stored(t, gateway, subject(), event(time.Now().Add(-time.Hour))), "off the clock", ""},
	}
	return all
}

// TestTheDoorRefusesBadInput: each with a reason, and nothing is stored.
func TestTheDoorRefusesBadInput(t *testing.T) {
	l := ledgertest.Start(t)
	for name, b := range badInputs(t, l) {
		s, err := events.ParseSubject(b.message.Subject)
		if err != nil {
			t.Fatal(err)
		}
		b.message.Subject = s.AppendSubject()
		reply, err := l.Client(string(s.Writer)).Conn().RequestMsg(b.message, 10*time.Second)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var a ledger.Answer
		if err := json.Unmarshal(reply.Data, &a); err != nil || !strings.Contains(a.Refused, b.door) || a.Refused == "" {
			t.Errorf("%s: answered %s, want a refusal with %q", name, reply.Data, b.door)
		}
	}
	if last, err := l.Client("gateway").Read(t.Context(), 0, func(ledger.Record) error { return nil }); err != nil || last != 0 {
		t.Errorf("%d events are stored: %v", last, err)
	}
}

// TestReadersSetBadInputAside stores it past the door, with the ledger's own rights on the bus: every reader
// says why and passes it over, nothing acts on it, and what is behind it goes on.
func TestReadersSetBadInputAside(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := open(t, l, "gateway"), open(t, l, "build")
	seen := make(chan uint64, 100)
	consume(t, build, worker.Consumer{Concurrency: 4}, func(_ context.Context, m worker.Message) error { seen <- m.Record.Seq; return nil })
	want := map[uint64]bad{}
	names := map[uint64]string{}
	inputs := badInputs(t, l)
	for _, name := range slices.Sorted(maps.Keys(inputs)) {
		b := inputs[name]
		switch {
		case name == "1 MiB":
			reply, err := l.Client("ledger").Conn().RequestMsg(b.message, 10*time.Second)
			if err != nil || !strings.Contains(string(reply.Data), "message size exceeds maximum allowed") {
				t.Errorf("the stream took it: %s, %v", reply.Data, err)
			}
		case b.reader != "":
			seq := pastTheDoor(t, l, b.message)
			want[seq], names[seq] = b, name
		}
	}
	good := command(t, gateway)
	if got := receive(t, seen, "the neighbour"); got != good {
		t.Errorf("%s (%d) was handled, want %d alone", names[got], got, good)
	}
	settled(t, build)
	for seq, b := range want {
		if _, err := l.Client("vet").At(t.Context(), seq); !errors.Is(err, ledger.ErrSetAside) || !strings.Contains(err.Error(), b.reader) {
			t.Errorf("%s: read with %v, want %q", names[seq], err, b.reader)
		}
	}
	if _, err := l.Client("vet").Read(t.Context(), 0, func(r ledger.Record) error {
		if r.Seq != good {
			t.Errorf("%s (%d) was read", names[r.Seq], r.Seq)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	// The follower of each, and build's consumer, keep why.
	notes := noted(t, l, events.BucketAside, "three for each", func(list []ledger.Note) bool { return len(list) == 3*len(want) })
	for _, n := range notes {
		parked := strings.Contains(want[n.Seq].reader, "unknown event type")
		if !strings.Contains(n.Why, want[n.Seq].reader) || (n.State == ledger.Parked) != parked || (n.State == ledger.SetAside) == parked {
			t.Errorf("%s: noted %+v", names[n.Seq], n)
		}
	}
	if n := gateway.Fold.Held(); n == nil || gateway.Fold.Seq() != good {
		t.Errorf("the fold is at %d, hold %+v", gateway.Fold.Seq(), n)
	}
	// They stay, whatever is restarted.
	l.Restart()
	noted(t, l, events.BucketAside, "the same", func(list []ledger.Note) bool { return len(list) == len(notes) })
}

// TestAClockThatIsOffDecidesNothing: past the door an event an hour off is what its sequence says.
func TestAClockThatIsOffDecidesNothing(t *testing.T) {
	l := ledgertest.Start(t)
	gateway := open(t, l, "gateway")
	inputs := badInputs(t, l)
	for _, name := range []string{"a clock an hour ahead", "a clock an hour behind"} {
		seq := pastTheDoor(t, l, inputs[name].message)
		if r, err := l.Client("vet").At(t.Context(), seq); err != nil || r.Seq != seq || time.Since(r.Time) > time.Minute {
			t.Errorf("%s: %v", name, err)
		}
	}
	if good := command(t, gateway); gateway.Fold.Seq() != good || good != 3 {
		t.Errorf("the fold is at %d, the last event is %d", gateway.Fold.Seq(), good)
	}
}
