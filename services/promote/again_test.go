package promote_test

import (
	"context"
	"maps"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/worker"
	"towpath.dev/services/promote"
)

// Every message a hundred times, in any order, at a process that knows nothing but the ledger: one run went through
// all environments, one was rejected in QA and gave way to the version before, one was cancelled.
func TestEachMessageAHundredTimes(t *testing.T) {
	s := newStage(t)
	stop := s.start(promote.Config{})
	for _, env := range hello.EnvironmentNames() {
		s.set(env, "a")
	}
	s.ready(hello, 1)
	s.until("prod waits for an approval", func(a *fold.App) bool { return a.Run(1) != nil && a.Run(1).Env("prod").Waiting != nil })
	s.approve(1)
	s.untilRun(1, fold.Done)
	s.mu.Lock()
	s.outcomes[foldtest.Digest("run2")] = events.Failure
	s.mu.Unlock()
	s.ready(hello, 2)
	s.untilRun(2, fold.Failed)
	s.until("the version before is back", func(a *fold.App) bool {
		live := a.Env("dev").Last()
		return live.Kind == events.KindRollback && live.Closing == events.Verified
	})
	s.ready(hello, 3)
	s.command(events.Command{Verb: events.VerbCancel, Run: 3})
	s.until("it is cancelled or done", func(a *fold.App) bool { return a.Run(3).Status().Ended() })
	stop()

	second, err := promote.New(promote.Config{}, promote.Deps{Runtime: s.open("promote"), Effects: s.engine})
	if err != nil {
		t.Fatal(err)
	}
	// What was said to be left to do when the first process ended is done once.
	if err := second.Handle(t.Context(), worker.Message{}); err != nil {
		t.Fatal(err)
	}
	s.engine.mu.Lock()
	started, traffic, replicas := maps.Clone(s.engine.started), maps.Clone(s.engine.traffic), maps.Clone(s.engine.replicas)
	s.engine.mu.Unlock()
	n := s.ledger.Again("promote", 100, 1, func(ctx context.Context, r ledger.Record) error {
		return second.Handle(ctx, worker.Message{Record: r, Delivered: 2})
	})
	t.Logf("%d deliveries", n)
	if !maps.Equal(started, s.engine.started) || !maps.Equal(traffic, s.engine.traffic) || !maps.Equal(replicas, s.engine.replicas) {
		t.Errorf("started %v, then %v; traffic %v, then %v; replicas %v, then %v",
			started, s.engine.started, traffic, s.engine.traffic, replicas, s.engine.replicas)
	}
}
