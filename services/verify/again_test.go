package verify_test

import (
	"context"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/worker"
	"towpath.dev/services/verify"
)

// Every message a hundred times, in any order: no further result, and no check is run again.
func TestEachMessageAHundredTimes(t *testing.T) {
	b := start(t, serving())
	b.deploy(`{command: ["/testapp", "print", "fine"]}`, b.instance())
	if r := b.result(); r.Outcome != events.Success {
		t.Fatalf("%s: %s", r.Outcome, r.Reason)
	}
	s, err := verify.New(verify.Config{}, verify.Deps{Runtime: b.rt})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	n := b.ledger.Again("verify", 100, 1, func(ctx context.Context, r ledger.Record) error {
		return s.Handle(ctx, worker.Message{Record: r, Delivered: 2})
	})
	t.Logf("%d deliveries in %s", n, time.Since(began))
}
