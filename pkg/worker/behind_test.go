package worker_test

import (
	"context"
	"flag"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/worker"
)

// promised is how far behind a stage may be while the others' p99 is at most twice what it is idle. With less the test also
// runs beside other packages, where a p99 of milliseconds is the machine's affair: then only waits count that no busy
// machine explains.
const (
	promised = 100_000
	excuse   = 250 * time.Millisecond
)

var behind = flag.Int("behind", 20_000, "how many messages one stage is behind in TestAStageFarBehindKeepsNoOtherWaiting; `make faults` takes 100000")

// TestAStageFarBehindKeepsNoOtherWaiting: while promote works on a mountain of messages, build gets its own as soon as
// before.
func TestAStageFarBehindKeepsNoOtherWaiting(t *testing.T) {
	// Storing the mountain with a sync for each event takes minutes; it is the same for both measurements.
	l := ledgertest.Start(t, ledgertest.Loosened(func(conf string) string {
		return strings.Replace(conf, "sync_interval: always", "sync_interval: 1h", 1)
	}))
	gateway, build, promote := open(t, l, "gateway"), open(t, l, "build"), open(t, l, "promote")
	arrived := make(chan time.Time, 1)
	consume(t, build, worker.Consumer{}, func(_ context.Context, m worker.Message) error {
		if m.Record.Event.Body.Type() == events.TypeCommandReceived {
			arrived <- time.Now()
		}
		return nil
	})
	p99 := func() time.Duration {
		took := make([]time.Duration, 300)
		for i := range took {
			start := time.Now()
			command(t, gateway)
			took[i] = receive(t, arrived, "the message").Sub(start)
		}
		slices.Sort(took)
		return took[len(took)*99/100]
	}
	idle := p99()
	pile(t, l, *behind)

	var handled atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- promote.Consume(ctx, worker.Consumer{Durable: "promote", Concurrency: 4}, handlerFunc(func(context.Context, worker.Message) error {
			handled.Add(1)
			<-time.After(10 * time.Millisecond) // as long as a step takes
			return nil
		}))
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	ledgertest.Soon(t, "promote works on what it is behind", func() bool { return handled.Load() > 0 })
	// A machine that is busy with something else for a moment says nothing about the bus: one of three measurements counts.
	var loaded time.Duration
	most := 2 * idle
	if *behind < promised {
		most += excuse
	}
	for range 3 {
		loaded = p99()
		t.Logf("promote is %d messages behind: build's p99 is %s, idle %s", int64(*behind)-handled.Load(), loaded, idle)
		if loaded <= most {
			break
		}
	}
	if loaded > most {
		t.Errorf("p99 from an append to build's handler: %s while promote is behind, %s idle; at most %s is allowed", loaded, idle, most)
	}
	if left := int64(*behind) - handled.Load(); left < int64(*behind)/2 {
		t.Errorf("promote was only %d messages behind at the end", left)
	}
}

// pileBound is how long the bus may take to store what it was handed last.
const pileBound = 2 * time.Minute

// pile stores so many events that wake promote alone.
func pile(t *testing.T, l *ledgertest.Ledger, n int) {
	t.Helper()
	signer, bus := l.Client("gateway").Signer(), l.Client("ledger").JetStream()
	for i := range n {
		body := &events.SettingChanged{About: events.About{ID: "dev/hello/KEY"}, Key: "KEY", App: "hello", Environment: "dev", Version: uint64(i + 1), Actor: "u-test"}
		s := events.SettingSubject(1, body.Type(), "hello", "dev", "KEY", "", uint64(i+1))
		if _, err := bus.PublishMsgAsync(ledgertest.Stored(t, signer, s, events.New(events.Gateway, time.Now(), "", body)), jetstream.WithStallWait(pileBound)); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-bus.PublishAsyncComplete():
	case <-time.After(pileBound):
		t.Fatalf("%d of %d events are not stored within %s", bus.PublishAsyncPending(), n, pileBound)
	}
}
