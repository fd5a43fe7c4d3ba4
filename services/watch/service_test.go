package watch_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
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

	pushed := push(t, l)
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

// push appends a run's first event and returns when.
func push(t *testing.T, l *ledgertest.Ledger) time.Time {
	t.Helper()
	d := foldtest.Definition("app: hello\nenvironments: [{name: dev}]\n")
	b := &events.ChangeMerged{Repository: events.Reference{ID: "hello"}, Run: events.RunStart{
		App: "hello", Ref: "refs/heads/main", SHA: "abc", Definition: d.Canonical(), DefinitionDigest: d.Digest(), Actor: "ann",
	}}
	b.ID = "abc"
	pushed := time.Now()
	subject := events.RunStartSubject(l.Epoch, b.Type(), "hello", "", "refs/heads/main", 0, "abc")
	if _, err := l.Client("gateway").Append(t.Context(), subject, events.New(events.Gateway, pushed, events.NewID(), b)); err != nil {
		t.Fatal(err)
	}
	return pushed
}

// handler is a worker that never gets to the end of anything.
type handler func() error

func (h handler) Handle(context.Context, worker.Message) error { return h() }

// TestAMessageThatStoppedAtMaxDeliverIsStuck has build ask for its message again and again, without ever counting a
// failure, until the bus no longer delivers it. Watch is away meanwhile: the bus keeps its word for it.
func TestAMessageThatStoppedAtMaxDeliverIsStuck(t *testing.T) {
	const deliveries = 5
	l := ledgertest.Start(t, ledgertest.MaxDeliver(deliveries))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	build, err := worker.Open(ctx, worker.Options{Service: "build", Bus: l.URL, Keys: l.Keys})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(build.Close)
	working, rest := context.WithCancel(ctx)
	worked := make(chan error, 1)
	handled := make(chan struct{}, 100)
	go func() {
		worked <- build.Consume(working, worker.Consumer{Durable: "build", MaxAttempts: 100}, handler(func() error {
			handled <- struct{}{}
			return worker.RetryAfter(errors.New("the engine is away"), time.Millisecond)
		}))
	}()
	push(t, l)
	for range deliveries {
		<-handled
	}
	id := events.NewID()
	hold := &events.CommandReceived{About: events.About{ID: id}}
	hold.Verb = events.VerbHold
	command, err := l.Client("gateway").Append(ctx, events.CommandSubject(l.Epoch, hold.Type(), "", 0, "", id), events.New(events.Gateway, time.Now(), "", hold))
	if err != nil {
		t.Fatal(err)
	}
	for range deliveries {
		<-handled
	}

	rt, err := worker.Open(ctx, worker.Options{Service: "watch", Bus: l.URL, Keys: l.Keys})
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
	for seq := uint64(0); ; {
		a, err := rt.Fold.WaitApp(ctx, "hello", seq)
		if err != nil {
			t.Fatal(err)
		}
		seq = a.Seq
		if stuck := a.Run(1).Build.Stuck; stuck != nil {
			if stuck.Deliveries != deliveries || stuck.Command != "towpath replay hello/1 build" || !strings.Contains(stuck.LastError, "after 5 deliveries") {
				t.Errorf("stuck: %+v", stuck)
			}
			break
		}
	}
	for {
		notes, err := l.Client("gateway").Notes(ctx, events.BucketAside, "")
		if err != nil {
			t.Fatal(err)
		}
		if len(notes) == 1 {
			if n := notes[0]; n.State != ledger.Halted || n.Seq != command.Seq || n.Durable != "build" {
				t.Errorf("noted %+v", n)
			}
			break
		}
	}
	if len(handled) > 0 {
		t.Errorf("delivered %d times more", len(handled))
	}
	stop()
	rest()
	if err := errors.Join(<-stopped, <-worked); err != nil {
		t.Error(err)
	}
}
