package worker_test

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/worker"
)

// BenchmarkEventToHandler measures from just before an event's append to the next worker's handler, on
// an idle ledger.
func BenchmarkEventToHandler(b *testing.B) {
	l := ledgertest.Start(b)
	build, err := worker.Open(b.Context(), worker.Options{
		Service: "build", Bus: l.URL, Keys: l.Keys, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer build.Close()
	arrived := make(chan time.Time, 1)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() {
		done <- build.Consume(ctx, worker.Consumer{Durable: "build", Concurrency: 4}, handlerFunc(func(context.Context, worker.Message) error {
			arrived <- time.Now()
			return nil
		}))
	}()
	took := make([]time.Duration, b.N)
	gateway := l.Client("gateway")
	b.ResetTimer()
	for i := range b.N {
		id := events.NewID()
		body := &events.CommandReceived{About: events.About{ID: id}}
		body.Verb = events.VerbHold
		s := events.CommandSubject(1, events.TypeCommandReceived, "", 0, "", id)
		start := time.Now()
		if _, err := gateway.Append(b.Context(), s, events.New(events.Gateway, start, "", body)); err != nil {
			b.Fatal(err)
		}
		took[i] = (<-arrived).Sub(start)
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
