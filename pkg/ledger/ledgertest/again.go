package ledgertest

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
)

// atOnce is how many deliveries Again has under way.
const atOnce = 8

// Again delivers every event that wakes a durable consumer to handle, times over, in an order of chance and some at
// once, as a bus does that has lost every acknowledgement. It fails the test where a delivery fails, or where an event
// comes of it: all that the events ask for must have been done before. It returns how many it delivered.
func (l *Ledger) Again(durable string, times int, seed uint64, handle func(context.Context, ledger.Record) error) int {
	l.t.Helper()
	i := slices.IndexFunc(events.Consumers, func(c events.Consumer) bool { return c.Durable == durable })
	if i < 0 {
		l.t.Fatalf("there is no consumer %s", durable)
	}
	reader := l.Client(string(events.Gateway))
	var all []ledger.Record
	head, err := reader.Read(l.t.Context(), 0, func(r ledger.Record) error {
		if slices.Contains(events.Consumers[i].Wakes, r.Event.Body.Type()) {
			all = append(all, slices.Repeat([]ledger.Record{r}, times)...)
		}
		return nil
	})
	if err != nil || len(all) == 0 {
		l.t.Fatalf("nothing wakes %s: %v", durable, err)
	}
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var work sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for _, r := range all {
		places <- struct{}{}
		work.Go(func() {
			defer func() { <-places }()
			if err := handle(l.t.Context(), r); err != nil {
				l.t.Errorf("delivering event %d again: %v", r.Seq, err)
			}
		})
	}
	work.Wait()
	if _, err := reader.Read(l.t.Context(), head, func(r ledger.Record) error {
		l.t.Errorf("delivering %d events %d times, seed %d, wrote %s", len(all)/times, times, seed, r.Subject)
		return nil
	}); err != nil {
		l.t.Fatal(err)
	}
	return len(all)
}
