package discovery_test

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/ledger/ledgertest"
)

var hello = discovery.Place{Env: "dev", App: "hello"}

func entry(slot int, addresses ...string) discovery.Entry {
	e := discovery.Entry{Slot: slot, Run: "hello/1", Instances: []events.Instance{}}
	for _, a := range addresses {
		e.Instances = append(e.Instances, events.Instance{ID: a, Address: a})
	}
	return e
}

func TestSlotNeverBecomesSmaller(t *testing.T) {
	table := discovery.Open(ledgertest.Start(t).Client(string(events.Promote)))
	ctx := t.Context()
	if _, err := table.Get(ctx, hello); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("nothing is there yet: %v", err)
	}
	for _, slot := range []int{1, 1, 3, 3} {
		if err := table.Publish(ctx, hello, entry(slot, "a:1")); err != nil {
			t.Fatalf("slot %d: %v", slot, err)
		}
	}
	var stale *discovery.StaleError
	if err := table.Publish(ctx, hello, entry(2, "old:1")); !errors.As(err, &stale) || stale.Live != 3 {
		t.Errorf("an older slot: %v", err)
	}
	if err := table.Publish(ctx, hello, discovery.Entry{Slot: 4, Removed: true}); err != nil {
		t.Fatal(err)
	}
	if err := table.Publish(ctx, hello, entry(3, "a:1")); !errors.As(err, &stale) {
		t.Errorf("an older slot, after everything was removed: %v", err)
	}
}

func TestWritersAtOnceEndWithTheGreatestSlot(t *testing.T) {
	table := discovery.Open(ledgertest.Start(t).Client(string(events.Promote)))
	var writers sync.WaitGroup
	for slot := 1; slot <= 20; slot++ {
		writers.Go(func() {
			var stale *discovery.StaleError
			if err := table.Publish(t.Context(), hello, entry(slot)); err != nil && !errors.As(err, &stale) {
				t.Errorf("slot %d: %v", slot, err)
			}
		})
	}
	writers.Wait()
	if e, err := table.Get(t.Context(), hello); err != nil || e.Slot != 20 {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestWatchAsAnotherService(t *testing.T) {
	l := ledgertest.Start(t)
	write := discovery.Open(l.Client(string(events.Promote)))
	if err := write.Publish(t.Context(), hello, entry(1, "a:1")); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	synced, slots, ended := make(chan struct{}), make(chan int, 8), make(chan error, 1)
	go func() {
		ended <- discovery.Open(l.Client(string(events.Edge))).Watch(ctx, func() { close(synced) },
			func(_ discovery.Place, e discovery.Entry) { slots <- e.Slot },
			func(key string, err error) { t.Errorf("%s: %v", key, err) })
	}()
	<-synced
	if slot := <-slots; slot != 1 {
		t.Errorf("got slot %d, want 1", slot)
	}
	if err := write.Publish(t.Context(), hello, entry(2, "b:1")); err != nil {
		t.Fatal(err)
	}
	if slot := <-slots; slot != 2 {
		t.Errorf("got slot %d, want 2", slot)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := discovery.Open(l.Client(string(events.Edge))).Publish(t.Context(), hello, entry(9)); err == nil {
		t.Error("the edge may only read")
	}
}
