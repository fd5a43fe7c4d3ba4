package ledger_test

import (
	"context"
	"testing"

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
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
