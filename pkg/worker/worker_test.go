package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/worker"
)

// open returns a runtime of the test's ledger.
func open(t *testing.T, l *ledgertest.Ledger, service string) *worker.Runtime {
	t.Helper()
	rt, err := worker.Open(t.Context(), worker.Options{
		Service: service, Bus: l.URL, Keys: l.Keys, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rt.Close)
	return rt
}

type handlerFunc func(context.Context, worker.Message) error

func (f handlerFunc) Handle(ctx context.Context, m worker.Message) error { return f(ctx, m) }

// consume runs a consumer of build until stop, which returns what Consume returned.
func consume(t *testing.T, rt *worker.Runtime, c worker.Consumer, h handlerFunc) (stop func() error) {
	t.Helper()
	c.Durable = "build"
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rt.Consume(ctx, c, h) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = stop() })
	return stop
}

// command appends a command.received, which wakes build, and returns its sequence.
func command(t *testing.T, rt *worker.Runtime) uint64 {
	t.Helper()
	id := events.NewID()
	body := &events.CommandReceived{About: events.About{ID: id}}
	body.Verb = events.VerbHold
	s := events.CommandSubject(1, events.TypeCommandReceived, "", 0, "", id)
	r, err := rt.Append(t.Context(), s, events.New(events.Gateway, time.Now(), "", body))
	if err != nil {
		t.Fatal(err)
	}
	return r.Seq
}

// receive returns the next value, or fails the test.
func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(30 * time.Second):
		t.Fatalf("%s did not come", what)
		panic("not reached")
	}
}

// settled waits until the consumer has nothing to do and nothing under way.
func settled(t *testing.T, rt *worker.Runtime) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		k, err := rt.Ledger.JetStream().Consumer(t.Context(), events.StreamName(1), "build")
		if err != nil {
			t.Fatal(err)
		}
		info := k.CachedInfo()
		if info.NumPending == 0 && info.NumAckPending == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still to do: %d, under way: %d", info.NumPending, info.NumAckPending)
		}
	}
}

func TestHandlerSeesEventsThatTheFoldHas(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := open(t, l, "gateway"), open(t, l, "build")
	seen := make(chan uint64)
	stop := consume(t, build, worker.Consumer{}, func(_ context.Context, m worker.Message) error {
		if at := build.Fold.Seq(); at < m.Record.Seq {
			return fmt.Errorf("fold is at %d", at)
		}
		seen <- m.Record.Seq
		return nil
	})
	for range 5 {
		want := command(t, gateway)
		if got := receive(t, seen, "the message"); got != want {
			t.Fatalf("handled %d, appended %d", got, want)
		}
		if at := gateway.Fold.Seq(); at < want {
			t.Errorf("appended %d, own fold is at %d", want, at)
		}
	}
	settled(t, build)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestFailedAttemptsAreCountedThenGivenUp(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := open(t, l, "gateway"), open(t, l, "build")
	bad := command(t, gateway)
	var tries, recorded atomic.Int32
	neighbours := make(chan uint64, 10)
	gaveUp := make(chan error, 10)
	consume(t, build, worker.Consumer{MaxAttempts: 3, GiveUp: func(_ context.Context, m worker.Message, last error) error {
		if recorded.Add(1) == 1 {
			return errors.New("the event could not be appended")
		}
		gaveUp <- fmt.Errorf("%d: %w", m.Record.Seq, last)
		return nil
	}}, func(_ context.Context, m worker.Message) error {
		if m.Record.Seq != bad {
			neighbours <- m.Record.Seq
			return nil
		}
		switch n := tries.Add(1); {
		case n == 2:
			panic("poison")
		default:
			return fmt.Errorf("try %d", n)
		}
	})
	good := command(t, gateway)
	if got := receive(t, neighbours, "the neighbour"); got != good {
		t.Errorf("handled %d beside the bad message, not %d", got, good)
	}
	if tries.Load() > 2 {
		t.Error("the neighbour waited for the bad message")
	}
	// The third failure cannot be recorded at once; it is tried again after the longest pause, which
	// this test does not wait for.
	for recorded.Load() == 0 {
		l.Client("gateway").Conn().Flush()
	}
	if tries.Load() != 3 {
		t.Errorf("given up after %d tries", tries.Load())
	}
}

func TestWhatIsGivenUpIsTerminated(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := open(t, l, "gateway"), open(t, l, "build")
	seq := command(t, gateway)
	gaveUp := make(chan string, 10)
	consume(t, build, worker.Consumer{MaxAttempts: 2, GiveUp: func(_ context.Context, m worker.Message, last error) error {
		gaveUp <- fmt.Sprintf("%d after %d: %v", m.Record.Seq, m.Delivered, last)
		return nil
	}}, func(context.Context, worker.Message) error { return errors.New("no luck") })
	if got, want := receive(t, gaveUp, "giving up"), fmt.Sprintf("%d after 2: no luck", seq); got != want {
		t.Errorf("gave up %q, want %q", got, want)
	}
	settled(t, build)
	if len(gaveUp) > 0 {
		t.Error("gave up twice")
	}
}

func TestRetryAfter(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := open(t, l, "gateway"), open(t, l, "build")
	waits := command(t, gateway)
	var mu sync.Mutex
	tries := map[uint64]int{}
	consume(t, build, worker.Consumer{MaxAttempts: 1, GiveUp: func(_ context.Context, m worker.Message, last error) error {
		t.Errorf("gave %d up: %v", m.Record.Seq, last)
		return nil
	}}, func(_ context.Context, m worker.Message) error {
		mu.Lock()
		defer mu.Unlock()
		tries[m.Record.Seq]++
		if tries[m.Record.Seq] < 5 {
			return worker.RetryAfter(errors.New("sealed"), time.Millisecond)
		}
		return nil
	})
	settled(t, build)
	mu.Lock()
	defer mu.Unlock()
	if tries[waits] != 5 {
		t.Errorf("tries: %v", tries)
	}
}

// TestPoisonIsSetAside stores, with the door's own rights, messages that no build can trust or read.
func TestPoisonIsSetAside(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := open(t, l, "gateway"), open(t, l, "build")
	insider := l.Client("ledger").Conn()
	for i := range 50 {
		if err := insider.Publish(fmt.Sprintf("event.1.gateway._._._.command.received.poison-%d._", i), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	if err := insider.Flush(); err != nil {
		t.Fatal(err)
	}
	want := command(t, gateway)
	seen := make(chan uint64, 100)
	consume(t, build, worker.Consumer{}, func(_ context.Context, m worker.Message) error { seen <- m.Record.Seq; return nil })
	if got := receive(t, seen, "the neighbour"); got != want {
		t.Errorf("handled %d, want %d alone", got, want)
	}
	settled(t, build)
	if len(seen) > 0 {
		t.Errorf("handled %d as well", <-seen)
	}
}

// TestPoisonThatCannotBeNotedHoldsNoSlot has the bucket of such notes take none: the one slot is free for the
// neighbour, and why the message was set aside is kept once the bucket takes notes again.
func TestPoisonThatCannotBeNotedHoldsNoSlot(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := open(t, l, "gateway"), open(t, l, "build")
	js := l.Client("operator").JetStream()
	bucket, err := js.Stream(t.Context(), "KV_"+events.BucketAside)
	if err != nil {
		t.Fatal(err)
	}
	config := bucket.CachedInfo().Config
	closed := config
	closed.MaxMsgSize = 1
	if _, err := js.UpdateStream(t.Context(), closed); err != nil {
		t.Fatal(err)
	}
	poison := nats.NewMsg("event.1.gateway._._._.command.received.poison._")
	poison.Data = []byte("{}")
	seq := pastTheDoor(t, l, poison)
	want := command(t, gateway)
	seen := make(chan uint64, 100)
	consume(t, build, worker.Consumer{}, func(_ context.Context, m worker.Message) error { seen <- m.Record.Seq; return nil })
	if got := receive(t, seen, "the neighbour"); got != want {
		t.Errorf("handled %d, want %d alone", got, want)
	}
	if list, err := l.Client("gateway").Notes(t.Context(), events.BucketAside, ""); err != nil || len(list) > 0 {
		t.Errorf("noted already: %+v, %v", list, err)
	}
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	settled(t, build)
	noted(t, l, events.BucketAside, "build's of the poison", func(list []ledger.Note) bool {
		return slices.ContainsFunc(list, func(n ledger.Note) bool { return n.Service == events.Build && n.Durable == "build" && n.Seq == seq })
	})
}

func TestLongWorkIsNotGivenToAnother(t *testing.T) {
	l := ledgertest.Start(t, ledgertest.AckWait(time.Second))
	gateway, build, other := open(t, l, "gateway"), open(t, l, "build"), open(t, l, "build")
	var deliveries atomic.Int32
	done := make(chan struct{}, 10)
	h := func(context.Context, worker.Message) error {
		deliveries.Add(1)
		<-time.After(3 * time.Second) // the work: three times what the bus waits for
		done <- struct{}{}
		return nil
	}
	consume(t, build, worker.Consumer{}, h)
	consume(t, other, worker.Consumer{}, h)
	command(t, gateway)
	receive(t, done, "the end of the work")
	settled(t, build)
	if n := deliveries.Load(); n != 1 {
		t.Errorf("delivered %d times", n)
	}
}

func TestWorkOfADeadProcessIsTakenOver(t *testing.T) {
	l := ledgertest.Start(t, ledgertest.AckWait(time.Second))
	gateway, dying, heir := open(t, l, "gateway"), open(t, l, "build"), open(t, l, "build")
	begun, never := make(chan struct{}), make(chan struct{})
	go dying.Consume(t.Context(), worker.Consumer{Durable: "build"}, handlerFunc(func(context.Context, worker.Message) error {
		close(begun)
		<-never
		return nil
	}))
	seq := command(t, gateway)
	receive(t, begun, "the message")
	dying.Ledger.Close() // as kill -9 does, for the bus
	taken := make(chan worker.Message, 1)
	consume(t, heir, worker.Consumer{}, func(_ context.Context, m worker.Message) error { taken <- m; return nil })
	if m := receive(t, taken, "the message, again"); m.Record.Seq != seq || m.Delivered != 2 {
		t.Errorf("took over %d, delivery %d", m.Record.Seq, m.Delivered)
	}
	close(never)
}

func TestDrainFinishesWhatHasBegun(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := open(t, l, "gateway"), open(t, l, "build")
	begun, finish := make(chan struct{}, 10), make(chan struct{})
	var ended error
	stop := consume(t, build, worker.Consumer{DrainTimeout: time.Minute}, func(ctx context.Context, _ worker.Message) error {
		begun <- struct{}{}
		<-finish
		ended = ctx.Err()
		return nil
	})
	command(t, gateway)
	receive(t, begun, "the message")
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	command(t, gateway)
	select {
	case err := <-stopped:
		t.Fatalf("stopped while work was under way: %v", err)
	case <-begun:
		t.Fatal("another message was begun")
	case <-time.After(300 * time.Millisecond):
	}
	close(finish)
	if err := receive(t, stopped, "the end"); err != nil {
		t.Fatal(err)
	}
	if ended != nil {
		t.Errorf("the work was cancelled: %v", ended)
	}
	rest := make(chan worker.Message, 10)
	consume(t, build, worker.Consumer{}, func(_ context.Context, m worker.Message) error { rest <- m; return nil })
	if m := receive(t, rest, "the other message"); m.Delivered != 1 {
		t.Errorf("the message that was not begun is delivered for time %d", m.Delivered)
	}
	settled(t, build)
	if len(rest) > 0 {
		t.Error("the finished message came again")
	}
}

func TestDrainGivesBackWhatTakesTooLong(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := open(t, l, "gateway"), open(t, l, "build")
	begun := make(chan struct{}, 1)
	stop := consume(t, build, worker.Consumer{DrainTimeout: 50 * time.Millisecond, MaxAttempts: 1}, func(ctx context.Context, _ worker.Message) error {
		begun <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	seq := command(t, gateway)
	receive(t, begun, "the message")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	again := make(chan worker.Message, 1)
	start := time.Now()
	consume(t, build, worker.Consumer{}, func(_ context.Context, m worker.Message) error { again <- m; return nil })
	if m := receive(t, again, "the message, again"); m.Record.Seq != seq {
		t.Errorf("given back: %d, begun: %d", m.Record.Seq, seq)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("given back only after %s", took)
	}
}

func TestConcurrencyIsTheNumberOfSlots(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := open(t, l, "gateway"), open(t, l, "build")
	const messages, slots = 40, 4
	for range messages {
		command(t, gateway)
	}
	var at, most atomic.Int32
	var all sync.WaitGroup
	all.Add(messages)
	full := make(chan struct{})
	consume(t, build, worker.Consumer{Concurrency: slots}, func(context.Context, worker.Message) error {
		defer all.Done()
		n := at.Add(1)
		defer at.Add(-1)
		for {
			seen := most.Load()
			if n <= seen || most.CompareAndSwap(seen, n) {
				break
			}
		}
		if n == slots {
			select {
			case <-full:
			default:
				close(full)
			}
		}
		receive(t, full, "the fourth at once")
		return nil
	})
	all.Wait()
	settled(t, build)
	if most.Load() != slots {
		t.Errorf("%d at once, want %d", most.Load(), slots)
	}
}

func TestConsumingGoesOnAcrossRestartsOfTheBus(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := open(t, l, "gateway"), open(t, l, "build")
	seen := make(chan uint64, 100)
	consume(t, build, worker.Consumer{Concurrency: 2}, func(_ context.Context, m worker.Message) error { seen <- m.Record.Seq; return nil })
	var got []uint64
	for range 3 {
		want := command(t, gateway)
		for !slices.Contains(got, want) {
			got = append(got, receive(t, seen, "the message"))
		}
		l.Restart()
	}
}

func TestAppendOnATakenSubjectMovesTheFoldPastTheWinner(t *testing.T) {
	l := ledgertest.Start(t)
	one, two := open(t, l, "gateway"), open(t, l, "gateway")
	s, e := ledgertest.AppCreated("hello")
	won, err := one.Append(t.Context(), s, e)
	if err != nil {
		t.Fatal(err)
	}
	s, e = ledgertest.AppCreated("hello")
	_, err = two.Append(t.Context(), s, e)
	var exists *ledger.ExistsError
	if !errors.As(err, &exists) || exists.Winner.Seq != won.Seq {
		t.Fatalf("second append: %v", err)
	}
	if two.Fold.Seq() < won.Seq || two.Fold.App("hello") == nil {
		t.Errorf("the fold is at %d", two.Fold.Seq())
	}
}

func TestAnotherHistoryEndsTheService(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := open(t, l, "gateway"), open(t, l, "build")
	stop := make(chan error, 1)
	go func() {
		stop <- build.Consume(t.Context(), worker.Consumer{Durable: "build"}, handlerFunc(func(context.Context, worker.Message) error { return nil }))
	}()
	if err := build.Ledger.Await(t.Context(), command(t, gateway)); err != nil {
		t.Fatal(err)
	}
	l.Stop()
	l.Wipe()
	l.Restart()
	l.Provision()
	s, e := ledgertest.AppCreated("another")
	if _, err := l.Client("gateway").Append(t.Context(), s, e); err != nil {
		t.Fatal(err)
	}
	var other *ledger.HistoryError
	if err := receive(t, stop, "the end"); !errors.As(err, &other) {
		t.Errorf("consuming ended with %v", err)
	}
}

func TestTimersWake(t *testing.T) {
	l := ledgertest.Start(t)
	watch := open(t, l, "watch")
	if err := watch.Ledger.Schedule(t.Context(), "hello-build", time.Now(), []byte("payload")); err != nil {
		t.Fatal(err)
	}
	woken := make(chan worker.WakeUp, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- watch.WakeUps(ctx, worker.Consumer{}, func(_ context.Context, w worker.WakeUp) error { woken <- w; return nil })
	}()
	if w := receive(t, woken, "the timer"); w.Key != "hello-build" || string(w.Payload) != "payload" {
		t.Errorf("woken by %+v", w)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestConsumersAreChecked(t *testing.T) {
	l := ledgertest.Start(t)
	build := open(t, l, "build")
	for _, c := range []worker.Consumer{
		{}, {Durable: "build", Concurrency: -1}, {Durable: "build", Concurrency: 257}, {Durable: "build", MaxAttempts: -1},
	} {
		if err := build.Consume(t.Context(), c, handlerFunc(func(context.Context, worker.Message) error { return nil })); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}
