package ledger_test

import (
	"context"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/worker"
	"towpath.dev/services/ledger"
)

func TestTheServiceIsTheDoor(t *testing.T) {
	l := ledgertest.Start(t)
	l.CloseDoor()
	rt, err := worker.Open(t.Context(), worker.Options{Service: "ledger", Bus: l.URL, Keys: l.Keys})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	ready, done := make(chan struct{}), make(chan error, 1)
	s, err := ledger.New(ledger.Config{}, ledger.Deps{Runtime: rt, Ready: func() { close(ready) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- s.Run(ctx) }()
	<-ready
	subject, event := ledgertest.AppCreated("hello")
	r, err := l.Client("gateway").Append(t.Context(), subject, event)
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Ledger.Await(t.Context(), r.Seq); err != nil || rt.Fold.App("hello") == nil {
		t.Errorf("the service's own fold lacks event %d: %v", r.Seq, err)
	}
	rotation := l.Rotate(identity.Change{Identities: []string{"ledger"}, Now: time.Now(), Actor: "u-1", Reason: "every quarter"})[0]
	var told *events.KeyRotated
	followed := l.Follow(t, "watch")
	for told == nil {
		select {
		case r := <-followed:
			told, _ = r.Event.Body.(*events.KeyRotated)
		case <-time.After(20 * time.Second):
			t.Fatal("the rotation is not in the ledger")
		}
	}
	if told.Identity != "ledger" || told.Key != rotation.Key || told.Replaces != rotation.Replaces || told.Actor != "u-1" || told.Reason != "every quarter" || !told.Retires.Equal(rotation.Retires) {
		t.Errorf("recorded %+v, rotated was %+v", told, rotation)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
