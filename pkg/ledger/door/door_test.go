package door_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/door"
	"towpath.dev/pkg/ledger/ledgertest"
)

// TestAClosingDoorAnswersWhatItTook closes and opens doors while events are appended: nobody waits for a
// lost answer, and each event is stored once.
func TestAClosingDoorAnswersWhatItTook(t *testing.T) {
	l := ledgertest.Start(t)
	const writers, each = 4, 40
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				s, e := ledgertest.AppCreated(events.Slug(fmt.Sprintf("app-%d-%d", w, i)))
				if _, err := l.Client("gateway").Append(t.Context(), s, e); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 10 {
		l.CloseDoor()
		l.OpenDoor()
	}
	writing.Wait()
	stored := map[events.Slug]int{}
	last, err := l.Client("build").Read(t.Context(), 0, func(r ledger.Record) error { stored[r.Subject.App]++; return nil })
	if err != nil || last != writers*each || len(stored) != writers*each {
		t.Errorf("%d events of %d apps are stored: %v", last, len(stored), err)
	}
}

// TestDoorsShareTheRequests runs a second door beside the test's own: each request is answered once.
func TestDoorsShareTheRequests(t *testing.T) {
	l := ledgertest.Start(t)
	c := l.Connect("ledger")
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	second := &door.Door{Conn: c.Conn(), Trust: c.Trust(), Epoch: 1, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	go func() { done <- second.Serve(ctx, func() { close(ready) }) }()
	<-ready
	asking := l.Client("gateway").Conn()
	inbox := asking.NewInbox()
	answers, err := asking.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	const requests = 100
	for i := range requests {
		s, e := ledgertest.AppCreated(events.Slug(fmt.Sprintf("app-%d", i)))
		m := ledgertest.Stored(t, l.Client("gateway").Signer(), s, e)
		m.Subject, m.Reply = s.AppendSubject(), inbox
		if err := asking.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[uint64]bool{}
	for range requests {
		m, err := answers.NextMsg(nats.DefaultTimeout * 5)
		if err != nil {
			t.Fatal(err)
		}
		var a ledger.Answer
		if err := json.Unmarshal(m.Data, &a); err != nil || a.Seq == 0 || seen[a.Seq] {
			t.Fatalf("answered %s", m.Data)
		}
		seen[a.Seq] = true
	}
	if n, _, _ := answers.Pending(); n > 0 {
		t.Errorf("%d requests were answered twice", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
