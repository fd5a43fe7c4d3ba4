package vet

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/worker"
)

// counted counts the requests that change a registry.
type counted struct {
	http.Handler
	writes atomic.Int64
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		c.writes.Add(1)
	}
	c.Handler.ServeHTTP(w, r)
}

// Every message a hundred times, in any order: no further verdict, and nothing further in the registry.
func TestEachMessageAHundredTimes(t *testing.T) {
	w := newWorld(t)
	writes := &counted{Handler: w.gate.proxy}
	w.gate.proxy = writes
	w.push(1)
	w.built(1, program(t))
	w.until(1, "it is judged", hasEnded(1))
	w.replay(1)
	w.until(1, "it is judged again", hasEnded(2))
	w.push(2)
	w.command(events.Command{Verb: events.VerbCancel, App: hello, Run: 2, Actor: "bob"})
	before := writes.writes.Load()
	s, err := New(Config{Work: t.TempDir()}, Deps{Runtime: w.vet, Registry: w.registry})
	if err != nil {
		t.Fatal(err)
	}
	s.effects.taker = &taker
	n := w.ledger.Again("vet", 100, 1, func(ctx context.Context, r ledger.Record) error {
		return s.Handle(ctx, worker.Message{Record: r, Delivered: 2})
	})
	t.Logf("%d deliveries", n)
	if after := writes.writes.Load(); before == 0 || after != before {
		t.Errorf("%d writes to the registry, then %d", before, after)
	}
}
