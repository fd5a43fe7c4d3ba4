package door

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
)

// office is what a test needs to write requests and to check them.
type office struct {
	trust   *identity.Trust
	signers map[events.Writer]*identity.Signer
}

func newOffice(t testing.TB) office {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if err := identity.Init(dir); err != nil {
		t.Fatal(err)
	}
	trust, err := identity.LoadTrust(filepath.Join(dir, identity.TrustFile))
	if err != nil {
		t.Fatal(err)
	}
	o := office{trust: trust, signers: map[events.Writer]*identity.Signer{}}
	for _, w := range events.Writers {
		if o.signers[w], err = identity.LoadSigner(dir, string(w)); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// request is a good request to store app.created, signed by who signs.
func (o office) request(t testing.TB, subject events.Subject, e events.Event, signer events.Writer) *nats.Msg {
	t.Helper()
	body, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	m := nats.NewMsg(subject.AppendSubject())
	m.Data = body
	for name, value := range e.Headers() {
		m.Header[name] = []string{value}
	}
	m.Header[identity.SignatureHeader] = []string{o.signers[signer].Sign(subject.String(), body)}
	return m
}

func created() (events.Subject, events.Event) {
	body := &events.AppCreated{About: events.About{ID: "hello"}, Actor: "u-1"}
	return events.AppSubject(1, "hello"), events.New(events.Gateway, time.Now(), events.NewID(), body)
}

func TestAGoodRequestIsStoredAsItWasSigned(t *testing.T) {
	o := newOffice(t)
	s, e := created()
	a, err := check(o.trust, 1, o.request(t, s, e, events.Gateway), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	m := a.message()
	if m.Subject != s.String() || m.Reply != "" {
		t.Errorf("stored under %s with reply %q", m.Subject, m.Reply)
	}
	if m.Header.Get(expectLastSubject) != "0" || m.Header.Get("ce-id") != e.ID {
		t.Errorf("headers are %v", m.Header)
	}
}

func TestHostileRequestsAreRefused(t *testing.T) {
	o := newOffice(t)
	s, e := created()
	other := events.AppSubject(1, "other")
	vet := &events.VetRunStarted{About: events.About{ID: "x"}}
	for name, c := range map[string]struct {
		change func(*nats.Msg) *nats.Msg
		why    string
	}{
		"no signature": {func(m *nats.Msg) *nats.Msg { delete(m.Header, identity.SignatureHeader); return m }, "missing"},
		"two signatures": {func(m *nats.Msg) *nats.Msg {
			m.Header.Add(identity.SignatureHeader, m.Header.Get(identity.SignatureHeader))
			return m
		}, "2 times"},
		"body changed":              {func(m *nats.Msg) *nats.Msg { m.Data = append(m.Data, ' '); return m }, "did not sign"},
		"moved to another subject":  {func(m *nats.Msg) *nats.Msg { m.Subject = other.AppendSubject(); return m }, "did not sign"},
		"signed by another service": {func(*nats.Msg) *nats.Msg { return o.request(t, s, e, events.Build) }, "build signed"},
		"stored as another service's": {func(*nats.Msg) *nats.Msg {
			moved := s
			moved.Writer = events.Build
			return o.request(t, moved, e, events.Build)
		}, "build may not write"},
		"another type's subject": {func(*nats.Msg) *nats.Msg {
			moved := s
			moved.Predicate = "removed"
			return o.request(t, moved, e, events.Gateway)
		}, "cannot be stored as app.removed"},
		"a type of another service": {func(*nats.Msg) *nats.Msg {
			moved := events.VetSubject(1, events.TypeVetRunStarted, "hello", 1, "", 1)
			moved.Writer = events.Gateway
			return o.request(t, moved, events.New(events.Gateway, time.Now(), "", vet), events.Gateway)
		}, "gateway may not write"},
		"closed epoch": {func(*nats.Msg) *nats.Msg {
			return o.request(t, events.AppSubject(2, "hello"), e, events.Gateway)
		}, "epoch 2 is not open"},
		"too large": {func(m *nats.Msg) *nats.Msg { m.Data = make([]byte, maxBody+1); return m }, "at most"},
		"empty":     {func(m *nats.Msg) *nats.Msg { m.Data = nil; return m }, "did not sign"},
		"no JSON":   {func(m *nats.Msg) *nats.Msg { return o.signed(s, []byte("{")) }, "malformed"},
		"unknown type": {func(m *nats.Msg) *nats.Msg {
			body := strings.Replace(string(m.Data), "app.created.0.1.0", "app.created.9.9.9", 1)
			return o.signed(s, []byte(body))
		}, "unknown event type"},
		"ce-id of another":      {header("ce-id", "x"), "ce-id"},
		"ce-source of another":  {header("ce-source", "x"), "ce-source"},
		"ce-type of another":    {header("ce-type", "x"), "ce-type"},
		"ce-subject of another": {header("ce-subject", "x"), "ce-subject"},
		"ce-time of another":    {header("ce-time", "2020-01-01T00:00:00Z"), "ce-time"},
		"ce-chainid of another": {header("ce-chainid", "x"), "ce-chainid"},
		"ce-id missing":         {func(m *nats.Msg) *nats.Msg { delete(m.Header, "ce-id"); return m }, "ce-id"},
		"ce-id twice": {func(m *nats.Msg) *nats.Msg {
			m.Header["ce-id"] = append(m.Header["ce-id"], "x")
			return m
		}, "2 times"},
		"an attribute of its own": {header("ce-mine", "x"), "nothing in the body"},
		"a wild card":             {subject("append.gateway.1.*._._.app.created._._"), "app"},
		"a full wild card":        {subject("append.gateway.1.>"), "tokens"},
		"NUL":                     {subject("append.gateway.1.he\x00llo._._.app.created._._"), "app"},
		"upper case":              {subject("append.gateway.1.Hello._._.app.created._._"), "app"},
		"an empty token":          {subject("append.gateway.1.._._.app.created._._"), "app"},
		"a leading zero":          {subject("append.gateway.01.hello._._.app.created._._"), "epoch"},
		"a token more":            {subject("append.gateway.1.hello._._.app.created._._._"), "tokens"},
		"the stored form":         {subject(s.String()), "not written as"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := check(o.trust, 1, c.change(o.request(t, s, e, events.Gateway)), time.Now())
			if err == nil {
				t.Fatalf("admitted as %s", a.subject)
			}
			if !strings.Contains(err.Error(), c.why) {
				t.Errorf("refused because %q, expected something with %q", err, c.why)
			}
		})
	}
}

func header(name, value string) func(*nats.Msg) *nats.Msg {
	return func(m *nats.Msg) *nats.Msg { m.Header[name] = []string{value}; return m }
}

func subject(s string) func(*nats.Msg) *nats.Msg {
	return func(m *nats.Msg) *nats.Msg { m.Subject = s; return m }
}

// signed is a request with any body, signed by the subject's writer.
func (o office) signed(s events.Subject, body []byte) *nats.Msg {
	m := nats.NewMsg(s.AppendSubject())
	m.Data = body
	m.Header[identity.SignatureHeader] = []string{o.signers[s.Writer].Sign(s.String(), body)}
	return m
}

// FuzzCheck signs whatever comes, so that the input reaches the decoder; what is admitted must be
// storable as it is.
func FuzzCheck(f *testing.F) {
	o := newOffice(f)
	s, e := created()
	good := o.request(f, s, e, events.Gateway)
	f.Add(good.Subject, good.Data, "ce-id", e.ID, true)
	f.Add("append.gateway.1.*.>.\x00", []byte("{}"), "Nats-Expected-Last-Msg-Id", "x", true)
	f.Add(good.Subject, []byte(`{"context":{"type":"dev.cdevents.change.merged.0.3.0"}}`), "ce-time", "", false)
	f.Fuzz(func(t *testing.T, subject string, body []byte, name, value string, signed bool) {
		m := nats.NewMsg(subject)
		m.Data = body
		for name, values := range good.Header {
			m.Header[name] = values
		}
		m.Header[name] = []string{value}
		parsed, err := events.ParseSubject(subject)
		signer := o.signers[parsed.Writer]
		if signed && err == nil && signer != nil {
			m.Header[identity.SignatureHeader] = []string{signer.Sign(parsed.String(), body)}
		}
		a, err := check(o.trust, 1, m, time.Now())
		if err != nil {
			return
		}
		if again, err := events.ParseSubject(a.subject); err != nil || again.AppendSubject() != subject {
			t.Errorf("%q admitted as %q: %v", subject, a.subject, err)
		}
		for name, values := range a.message().Header {
			if len(values) != 1 || !strings.HasPrefix(name, "ce-") && name != identity.SignatureHeader && name != expectLastSubject {
				t.Errorf("header %s: %q would be stored", name, values)
			}
		}
	})
}

func TestAcknowledgements(t *testing.T) {
	for text, want := range map[string]string{
		`{"stream":"EVENTS_1","seq":7}`: "seq",
		`{"stream":"EVENTS_1"}`:         "unknown",
		`nonsense`:                      "unknown",
		`{"error":{"code":400,"err_code":10071,"description":"d"},"seq":0}`: "exists",
		`{"error":{"code":400,"err_code":10077,"description":"d"}}`:         "exists",
		`{"error":{"code":400,"err_code":10164,"description":"d"}}`:         "exists",
		`{"error":{"code":503,"err_code":10077,"description":"d"},"seq":9}`: "exists",
		`{"error":{"code":503,"err_code":10023,"description":"no space"}}`:  "unknown",
	} {
		a := readAck([]byte(text))
		got := map[bool]string{true: "seq"}[a.Seq > 0] + map[bool]string{true: "exists"}[a.Exists] + map[bool]string{true: "unknown"}[a.Unknown != ""]
		if got != want {
			t.Errorf("%s is %q, want %q", text, got, want)
		}
	}
}
