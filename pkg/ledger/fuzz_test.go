package ledger

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
)

// FuzzRecord reads stored messages as every follower and worker does: with the signature that came, and, so
// that the decoder is reached, with one that fits. Whatever is not set aside is the event that was signed.
func FuzzRecord(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "keys")
	if err := identity.Init(dir); err != nil {
		f.Fatal(err)
	}
	trust, err := identity.LoadTrust(filepath.Join(dir, identity.TrustFile))
	if err != nil {
		f.Fatal(err)
	}
	signers := map[string]*identity.Signer{}
	for _, w := range events.Writers {
		if signers[string(w)], err = identity.LoadSigner(dir, string(w)); err != nil {
			f.Fatal(err)
		}
	}
	subject := events.AppSubject(1, "hello").String()
	body, err := events.New(events.Gateway, time.Unix(1, 0), "", &events.AppCreated{About: events.About{ID: "hello"}}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(subject, body, signers["gateway"].Sign(subject, body), "gateway")
	f.Add(subject, body, "", "build")
	f.Add("event.1.gateway.*.>.\x00", []byte(`{"context":{"type":"dev.cdevents.future.thing.9.0.0"}}`), "x y", "gateway")
	f.Add(subject, []byte(`{"context":{"specversion":"0.9.9","type":"dev.cdeventsx.towpath-app.created.0.1.0"}}`), "", "gateway")
	f.Fuzz(func(t *testing.T, subject string, body []byte, signature, writer string) {
		signatures := []string{signature}
		if s := signers[writer]; s != nil {
			signatures = append(signatures, s.Sign(subject, body))
		}
		for _, signature := range signatures {
			s := stored{seq: 7, subject: subject, body: body, header: nats.Header{identity.SignatureHeader: {"first", signature}}, time: time.Now()}
			r, err := verifiedRecord(trust, s)
			if err != nil {
				if !errors.Is(err, ErrSetAside) {
					t.Errorf("untyped error %v", err)
				}
				note := asideOf(s, err).NoteOf(events.Build, NoteFollower, time.Now())
				if note.Why == "" || !utf8.ValidString(note.Why+note.Subject+note.Type) {
					t.Errorf("noted %+v", note)
				}
				value, err := json.Marshal(note)
				if again, bad := readNote(value); err != nil || bad != nil || again.Why != note.Why {
					t.Errorf("kept as %s: %v, %v", value, err, bad)
				}
				continue
			}
			if r.Subject.String() != subject || string(r.Subject.Writer) != writer && signature != signatures[0] {
				t.Errorf("%q of %s is read as %s", subject, writer, r.Subject)
			}
		}
	})
}

// FuzzStored reads the headers with which the bus hands out what it stored.
func FuzzStored(f *testing.F) {
	f.Add("7", "2026-01-02T03:04:05.678Z", "6", "0", "200", []byte("{}"))
	f.Add("-1", "", "x", "99999999999999999999", "404", []byte{})
	f.Fuzz(func(t *testing.T, seq, at, last, pending, status string, body []byte) {
		m := &nats.Msg{Data: body, Header: nats.Header{
			headerStream: {"OTHER", "S"}, headerSubject: {"a"}, headerSequence: {"1", seq}, headerTime: {at},
			headerLast: {last}, headerPending: {pending}, headerStatus: {status},
		}}
		if isControl(m) {
			t.Error("taken for a control message")
		}
		if s, err := parseStored(m); err == nil && (s.stream != "S" || s.time.IsZero() && at == "") {
			t.Errorf("believed %+v", s)
		}
		delete(m.Header, headerStream)
		if more, err := endOfBatch("S", m, 6); more && (err != nil || status != "204") {
			t.Errorf("goes on after %q: %v", status, err)
		}
		if a, err := ReadStopped(body); err == nil && a.Seq == 0 {
			t.Errorf("an advisory about nothing: %+v", a)
		}
	})
}
