package worker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/worker"
)

// noted waits until the notes of a bucket are as wanted, as the gateway sees them.
func noted(t *testing.T, l *ledgertest.Ledger, bucket, want string, ok func([]ledger.Note) bool) []ledger.Note {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		list, err := l.Client("gateway").Notes(t.Context(), bucket, "")
		if err == nil && ok(list) {
			return list
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: want %s, have %+v, %v", bucket, want, list, err)
		}
	}
}

func none(list []ledger.Note) bool { return len(list) == 0 }

func TestAttemptsAreCountedAcrossRestarts(t *testing.T) {
	l := ledgertest.Start(t)
	gateway := open(t, l, "gateway")
	seq := command(t, gateway)
	var tries atomic.Int32
	gaveUp := make(chan worker.Message, 10)
	for range 4 { // each process sees one attempt fail
		build := open(t, l, "build")
		failed := make(chan struct{}, 10)
		stop := consume(t, build, worker.Consumer{MaxAttempts: 4, GiveUp: func(_ context.Context, m worker.Message, last error) error {
			gaveUp <- m
			return nil
		}}, func(context.Context, worker.Message) error {
			n := tries.Add(1)
			failed <- struct{}{}
			return fmt.Errorf("no luck %d", n)
		})
		receive(t, failed, "an attempt")
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		build.Close()
	}
	m := receive(t, gaveUp, "giving up")
	if m.Record.Seq != seq || m.Failed != 4 || tries.Load() != 4 {
		t.Errorf("gave up event %d after %d failed attempts, %d were made", m.Record.Seq, m.Failed, tries.Load())
	}
	settled(t, open(t, l, "build"))
	noted(t, l, events.BucketTries, "none: it is settled", none)
}

func TestWhatIsTriedAgainIsVisible(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := open(t, l, "gateway"), open(t, l, "build")
	var away atomic.Bool
	away.Store(true)
	consume(t, build, worker.Consumer{MaxAttempts: 13}, func(context.Context, worker.Message) error {
		if away.Load() {
			return errors.New("the registry is away")
		}
		return nil
	})
	seq := command(t, gateway)
	list := noted(t, l, events.BucketTries, "two failed tries", func(list []ledger.Note) bool { return len(list) == 1 && list[0].Failed >= 2 })
	n := list[0]
	if n.Service != events.Build || n.Seq != seq || n.Why != "the registry is away" || n.Allowed != 13 || !n.Next.After(n.Last) || n.State != ledger.Retrying {
		t.Errorf("noted %+v", n)
	}
	away.Store(false)
	noted(t, l, events.BucketTries, "none: it is settled", none)
	if err := l.Client("vet").Keep(t.Context(), ledger.Note{Service: events.Build, Durable: "build", Seq: 1, State: ledger.Retrying}); err == nil {
		t.Error("vet kept a note of build's")
	}
}

// TestAMessageThatEndsTheProcessEndsStuck kills the process, as the bus sees it, each time it has the message
// in hand. Neighbours are handled, and in the end it is given up without being touched.
func TestAMessageThatEndsTheProcessEndsStuck(t *testing.T) {
	l := ledgertest.Start(t, ledgertest.AckWait(500*time.Millisecond))
	gateway := open(t, l, "gateway")
	bad := command(t, gateway)
	gaveUp := make(chan error, 1)
	neighbours := make(chan uint64, 100)
	deaths := 0
	var handled atomic.Int32
	for deaths < 40 {
		build := open(t, l, "build")
		begun := make(chan struct{}, 1)
		go build.Consume(t.Context(), worker.Consumer{Durable: "build", Concurrency: 4, MaxAttempts: 3, GiveUp: func(_ context.Context, m worker.Message, last error) error {
			gaveUp <- fmt.Errorf("%d: %w", m.Record.Seq, last)
			return nil
		}}, handlerFunc(func(_ context.Context, m worker.Message) error {
			if m.Record.Seq != bad {
				neighbours <- m.Record.Seq
				return nil
			}
			handled.Add(1)
			build.Ledger.Close() // as kill -9 does, for the bus
			begun <- struct{}{}
			return nil
		}))
		if deaths == 8 {
			want := command(t, gateway)
			if got := receive(t, neighbours, "the neighbour"); got != want {
				t.Errorf("handled %d, want %d", got, want)
			}
		}
		select {
		case <-begun:
			deaths++
			continue
		case err := <-gaveUp:
			if !strings.HasPrefix(err.Error(), fmt.Sprintf("%d: the service ended each time", bad)) {
				t.Errorf("gave up %v", err)
			}
			settled(t, build)
			if n := int(handled.Load()); n != deaths || n > 20 {
				t.Errorf("ended %d processes", n)
			}
			return
		case <-time.After(30 * time.Second):
			t.Fatalf("nothing happened after %d deaths", deaths)
		}
	}
	t.Fatal("it was never given up")
}

// parkedCommand stores, past the door, an event of a version that no build of today can read.
func parkedCommand(t *testing.T, l *ledgertest.Ledger) uint64 {
	t.Helper()
	signer, err := identity.LoadSigner(l.Keys, "gateway")
	if err != nil {
		t.Fatal(err)
	}
	id := events.NewID()
	s := events.CommandSubject(1, events.TypeCommandReceived, "", 0, "", id)
	body := &events.CommandReceived{About: events.About{ID: id}}
	body.Verb = events.VerbHold
	m := ledgertest.Stored(t, signer, s, events.New(events.Gateway, time.Now(), "", body))
	m.Data = []byte(strings.Replace(string(m.Data), "command.received.0.1.0", "command.received.0.2.0", 1))
	m.Header[identity.SignatureHeader] = []string{signer.Sign(s.String(), m.Data)}
	return pastTheDoor(t, l, m)
}

// pastTheDoor stores a message as the door would, unchecked.
func pastTheDoor(t *testing.T, l *ledgertest.Ledger, m *nats.Msg) uint64 {
	t.Helper()
	reply, err := l.Client("ledger").Conn().RequestMsg(m, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var seq uint64
	if _, err := fmt.Sscanf(strings.ReplaceAll(string(reply.Data), " ", ""), `{"stream":"EVENTS_1","seq":%d`, &seq); err != nil {
		t.Fatalf("%s: %v", reply.Data, err)
	}
	return seq
}

// TestAnEventOfANewerVersionIsParked: every service that meets it says so, nobody acts on it, and what is
// behind it goes on.
func TestAnEventOfANewerVersionIsParked(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := open(t, l, "gateway"), open(t, l, "build")
	parked := parkedCommand(t, l)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, rt := range []*worker.Runtime{gateway, build} {
		if err := rt.Fold.Wait(ctx, parked); err != nil {
			t.Errorf("waiting for the parked event: %v", err)
		}
		if rt.Fold.Held() != nil {
			t.Error("somebody acted on it")
		}
	}
	seen := make(chan uint64, 10)
	consume(t, build, worker.Consumer{}, func(_ context.Context, m worker.Message) error { seen <- m.Record.Seq; return nil })
	want := command(t, gateway)
	if got := receive(t, seen, "the neighbour"); got != want {
		t.Errorf("handled %d, want %d alone", got, want)
	}
	list := noted(t, l, events.BucketAside, "gateway's and both of build's", func(list []ledger.Note) bool { return len(list) == 3 })
	for _, n := range list {
		if n.Seq != parked || n.State != ledger.Parked || n.Type != "dev.cdeventsx.towpath-command.received.0.2.0" || !strings.Contains(n.Why, "unknown event type") {
			t.Errorf("noted %+v", n)
		}
	}
	// The same build, started again, still cannot read it: it stays, and is not noted twice.
	again := open(t, l, "build")
	stop := consume(t, again, worker.Consumer{}, func(_ context.Context, m worker.Message) error { seen <- m.Record.Seq; return nil })
	want = command(t, gateway)
	if got := receive(t, seen, "the next"); got != want {
		t.Errorf("handled %d, want %d alone", got, want)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	noted(t, l, events.BucketAside, "the same three", func(list []ledger.Note) bool { return len(list) == 3 })
}

// TestWhatAnOlderBuildParkedIsTakenUp leaves the bus as a build does that could not read an event which this
// one can: noted, and ended for the consumer.
func TestWhatAnOlderBuildParkedIsTakenUp(t *testing.T) {
	l := ledgertest.Start(t)
	gateway := open(t, l, "gateway")
	seq := command(t, gateway)
	old := l.Connect("build")
	k, err := old.JetStream().Consumer(t.Context(), events.StreamName(1), "build")
	if err != nil {
		t.Fatal(err)
	}
	m, err := k.Next()
	if err != nil {
		t.Fatal(err)
	}
	unknown := ledger.Aside{Seq: seq, Time: time.Now(), Subject: m.Subject(), Type: "newer", Why: "unknown event type"}
	for _, durable := range []string{"build", ledger.NoteFollower} {
		if err := old.Keep(t.Context(), unknown.NoteOf(events.Build, durable, time.Now())); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Connect("verify").Keep(t.Context(), unknown.NoteOf(events.Verify, ledger.NoteFollower, time.Now())); err != nil {
		t.Fatal(err)
	}
	if err := m.Term(); err != nil {
		t.Fatal(err)
	}
	settled(t, open(t, l, "build"))
	seen := make(chan uint64, 10)
	failures := 2
	consume(t, open(t, l, "build"), worker.Consumer{}, func(_ context.Context, m worker.Message) error {
		if failures--; failures >= 0 {
			return errors.New("not yet")
		}
		seen <- m.Record.Seq
		return nil
	})
	if got := receive(t, seen, "the parked event"); got != seq {
		t.Errorf("took up %d, want %d", got, seq)
	}
	list := noted(t, l, events.BucketAside, "verify's alone", func(list []ledger.Note) bool { return len(list) == 1 })
	if list[0].Service != events.Verify {
		t.Errorf("left: %+v", list)
	}
	consume(t, open(t, l, "build"), worker.Consumer{}, func(_ context.Context, m worker.Message) error { seen <- m.Record.Seq; return nil })
	want := command(t, gateway)
	if got := receive(t, seen, "the next"); got != want {
		t.Errorf("handled %d after all was taken up, want %d", got, want)
	}
}

// TestHundredsThatWaitLetOthersThrough: more messages than a worker ever holds fail for as long as something is
// away. What comes after them, and has nothing to do with it, is handled at once.
func TestHundredsThatWaitLetOthersThrough(t *testing.T) {
	l := ledgertest.Start(t)
	gateway, build := open(t, l, "gateway"), open(t, l, "build")
	const waiting = events.MaxInHand + 64
	var appending sync.WaitGroup
	for range 8 {
		appending.Go(func() {
			for range waiting / 8 {
				command(t, gateway)
			}
		})
	}
	appending.Wait()
	var failed sync.Map
	var many atomic.Int32
	all, through := make(chan struct{}), make(chan uint64, 10)
	consume(t, build, worker.Consumer{Concurrency: 4, MaxAttempts: 1000}, func(_ context.Context, m worker.Message) error {
		if m.Record.Seq > waiting {
			through <- m.Record.Seq
			return nil
		}
		if _, again := failed.LoadOrStore(m.Record.Seq, true); !again && many.Add(1) == waiting {
			close(all)
		}
		<-time.After(5 * time.Millisecond) // the answer of what is away
		return errors.New("the registry is away")
	})
	receive(t, all, "a try at each")
	start := time.Now()
	for range 3 {
		want := command(t, gateway)
		if got := receive(t, through, "what has nothing to do with it"); got != want {
			t.Errorf("handled %d, want %d", got, want)
		}
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("three neighbours took %s", took)
	}
}
