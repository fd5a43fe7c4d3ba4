package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/ledgertest"
)

// follow follows until the test ends. The channel brings the error with which it ended.
func follow(t *testing.T, c *ledger.Client, apply func(ledger.Record) error) (stop func(), done <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Follow(ctx, apply) }()
	return cancel, ended
}

func appendApp(t *testing.T, c *ledger.Client, app string) ledger.Record {
	t.Helper()
	s, e := appCreated(app)
	r, err := c.Append(t.Context(), s, e)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func await(t *testing.T, c *ledger.Client, seq uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := c.Await(ctx, seq); err != nil {
		t.Fatal(err)
	}
}

func TestFollowGoesOnAcrossRestartsOfTheServer(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := l.Client("gateway"), l.Client("build")
	var seen []uint64
	stop, done := follow(t, build, func(r ledger.Record) error { seen = append(seen, r.Seq); return nil })
	var last uint64
	for i := range 3 {
		var writing sync.WaitGroup
		writing.Go(func() {
			for n := range 20 {
				s, e := appCreated(fmt.Sprintf("app-%d-%d", i, n))
				r, err := gateway.Append(t.Context(), s, e)
				if err != nil {
					t.Error(err)
				}
				last = r.Seq
			}
		})
		l.Restart()
		writing.Wait()
	}
	await(t, build, last)
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(seen) != 60 || last != 60 {
		t.Errorf("%d records up to %d, appended were 60", len(seen), last)
	}
	for i, seq := range seen {
		if seq != uint64(i+1) {
			t.Fatalf("place %d has %d", i+1, seq)
		}
	}
}

func TestAnotherHistoryEndsFollowing(t *testing.T) {
	for name, events := range map[string]int{"with other events": 3, "with fewer events": 1} {
		t.Run(name, func(t *testing.T) {
			l := ledgertest.Start(t)
			gateway, build := l.Client("gateway"), l.Client("build")
			_, done := follow(t, build, func(ledger.Record) error { return nil })
			appendApp(t, gateway, "one")
			await(t, build, appendApp(t, gateway, "two").Seq)
			l.Stop()
			l.Wipe()
			l.Restart()
			l.Provision()
			for i := range events {
				appendApp(t, gateway, fmt.Sprintf("other-%d", i))
			}
			var other *ledger.HistoryError
			if err := <-done; !errors.As(err, &other) || other.Seq != 2 {
				t.Errorf("following ended with %v", err)
			}
		})
	}
}

// TestWhatIsNoEventIsPassedOver stores, with the door's own rights, what the door would never store, and
// more of it than the buffer for live messages holds.
func TestWhatIsNoEventIsPassedOver(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := l.Client("gateway"), l.Client("build")
	held := make(chan struct{})
	var seen []string
	stop, done := follow(t, build, func(r ledger.Record) error {
		<-held
		seen = append(seen, string(r.Subject.App))
		return nil
	})
	appendApp(t, gateway, "first")
	insider := l.Connect("ledger").Conn()
	for i := range 6000 {
		if err := insider.Publish(fmt.Sprintf("event.1.gateway.junk-%d._._.app.created._._", i), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	poison(t, l, insider)
	last := appendApp(t, gateway, "last")
	close(held)
	await(t, build, last.Seq)
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(seen) != 2 || seen[0] != "first" || seen[1] != "last" || last.Seq < 6002 {
		t.Errorf("followed %v up to %d", seen, last.Seq)
	}
}

// poison stores one event of each kind that must be set aside.
func poison(t *testing.T, l *ledgertest.Ledger, insider *nats.Conn) {
	t.Helper()
	gateway := l.Client("gateway").Signer()
	s, e := appCreated("poison")
	body, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	unknown := []byte(`{"context":{"type":"dev.cdevents.future.thing.9.0.0"}}`)
	not := events.AppSubject(1, "poison-4") // build's to write nothing of the kind, with its own key
	not.Writer = events.Build
	for name, c := range map[string]struct {
		subject   string
		body      []byte
		signature string
	}{
		"wrong-signer":  {events.AppSubject(1, "poison-1").String(), body, l.Client("build").Signer().Sign(events.AppSubject(1, "poison-1").String(), body)},
		"moved":         {events.AppSubject(1, "poison-2").String(), body, gateway.Sign(s.String(), body)},
		"unknown type":  {events.AppSubject(1, "poison-3").String(), unknown, gateway.Sign(events.AppSubject(1, "poison-3").String(), unknown)},
		"no right":      {not.String(), body, l.Client("build").Signer().Sign(not.String(), body)},
		"wrong subject": {"event.1.Bad", body, gateway.Sign("event.1.Bad", body)},
	} {
		m := nats.NewMsg(c.subject)
		m.Data = c.body
		m.Header[identity.SignatureHeader] = []string{c.signature}
		if err := insider.PublishMsg(m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if err := insider.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestAppendWaitsForTheDoor(t *testing.T) {
	l := ledgertest.Start(t)
	l.CloseDoor()
	s, e := appCreated("patient")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := l.Client("gateway").Append(ctx, s, e); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("with the door closed: %v", err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := l.Client("gateway").Append(t.Context(), s, e)
		answered <- err
	}()
	l.OpenDoor()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestConnectSaysWhatIsWrong(t *testing.T) {
	l := ledgertest.Start(t)
	stranger := ledgertest.Start(t)
	o := l.Options("build")
	o.Keys = stranger.Keys
	if _, err := ledger.Connect(t.Context(), o); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("with the keys of another installation: %v", err)
	}
	if conn, err := nats.Connect(l.URL); err == nil {
		conn.Close()
		t.Error("connected without a key")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	o = l.Options("build")
	l.Stop()
	if _, err := ledger.Connect(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a bus: %v", err)
	}
	o.Keys = t.TempDir()
	if _, err := ledger.Connect(t.Context(), o); err == nil {
		t.Error("connected without keys")
	}
}
