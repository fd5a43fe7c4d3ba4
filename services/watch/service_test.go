package watch_test

import (
	"context"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/worker"
	"towpath.dev/services/watch"
)

const limit = time.Second

func TestStuckWithinFiveSecondsOfTheDeadline(t *testing.T) {
	l := ledgertest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	platform := policy.Default()
	platform.Policy.Deadlines.Build = limit
	rt, err := worker.Open(ctx, worker.Options{Service: "watch", Bus: l.URL, Keys: l.Keys, Platform: platform})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rt.Close)
	s, err := watch.New(watch.Config{LookEvery: time.Hour}, watch.Deps{Runtime: rt})
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	run, stop := context.WithCancel(ctx)
	go func() { stopped <- s.Run(run) }()

	d := foldtest.Definition("app: hello\nenvironments: [{name: dev}]\n")
	b := &events.ChangeMerged{Repository: events.Reference{ID: "hello"}, Run: events.RunStart{
		App: "hello", Ref: "refs/heads/main", SHA: "abc", Definition: d.Canonical(), DefinitionDigest: d.Digest(), Actor: "ann",
	}}
	b.ID = "abc"
	pushed := time.Now()
	subject := events.RunStartSubject(l.Epoch, b.Type(), "hello", "", "refs/heads/main", 0, "abc")
	if _, err := l.Client("gateway").Append(ctx, subject, events.New(events.Gateway, pushed, events.NewID(), b)); err != nil {
		t.Fatal(err)
	}
	for seq := uint64(0); ; {
		a, err := rt.Fold.WaitApp(ctx, "hello", seq)
		if err != nil {
			t.Fatal(err)
		}
		seq = a.Seq
		if stuck := a.Run(1).Build.Stuck; stuck != nil {
			late := time.Since(pushed) - limit
			if late < 0 || late > 5*time.Second {
				t.Errorf("stuck %s after the deadline, want 0–5 s", late)
			}
			if a.Run(1).Status() != fold.Stuck || stuck.LastEvent == "" {
				t.Errorf("run is %s, %+v", a.Run(1).Status(), stuck)
			}
			break
		}
	}
	stop()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
