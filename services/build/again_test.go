package build

import (
	"context"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/worker"
)

// Every message a hundred times, in any order: nothing is built again. Each attempt's log would show it.
func TestEachMessageAHundredTimes(t *testing.T) {
	b := newBench(t)
	b.push("hello", b.repo.commit("Dockerfile", b.dockerfile("RUN echo built")), "")
	b.built("hello", 1, 1)
	b.replay("hello", 1, false)
	b.built("hello", 1, 2)
	b.push("hello", b.repo.commit("Dockerfile", b.dockerfile("RUN exit 3")), "")
	b.until("hello", 2, "failed", func(r *fold.Run) bool { return r.Build.Ended() })
	b.end() // which finishes what has begun
	logs := []string{b.log("hello", 1, 1), b.log("hello", 1, 2), b.log("hello", 2, 1)}
	s, err := New(b.cfg, Deps{Runtime: b.build, Registry: b.client})
	if err != nil {
		t.Fatal(err)
	}
	n := b.ledger.Again("build", 100, 1, func(ctx context.Context, r ledger.Record) error {
		return s.Handle(ctx, worker.Message{Record: r, Delivered: 2})
	})
	t.Logf("%d deliveries", n)
	for i, at := range []struct{ run, attempt int }{{1, 1}, {1, 2}, {2, 1}} {
		if now := b.log("hello", at.run, at.attempt); now != logs[i] {
			t.Errorf("hello/%d attempt %d was at work again:\n%s", at.run, at.attempt, now)
		}
	}
	if a := b.gateway.Fold.App("hello"); a.Run(1).Build.Outcome != events.Success || a.Run(2).Build.Outcome != events.Failure {
		t.Errorf("%+v, %+v", a.Run(1).Build, a.Run(2).Build)
	}
}
