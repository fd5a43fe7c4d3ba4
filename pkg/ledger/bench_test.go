package ledger_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/ledgertest"
)

// percentiles reports p50 and p99 of what was measured, in microseconds.
func percentiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkAppend appends through the door.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 8} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			l := ledgertest.Start(b)
			measure(b, writers, func() func(app string) error {
				c := l.Connect("gateway")
				return func(app string) error {
					s, e := appCreated(app)
					_, err := c.Append(b.Context(), s, e)
					return err
				}
			})
		})
	}
}

// BenchmarkPublish stores the same events with the door's own rights: what BenchmarkAppend is compared
// with.
func BenchmarkPublish(b *testing.B) {
	for _, writers := range []int{1, 8} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			l := ledgertest.Start(b)
			signer := l.Client("gateway").Signer()
			measure(b, writers, func() func(app string) error {
				c := l.Connect("ledger").Conn()
				return func(app string) error {
					s, e := appCreated(app)
					_, err := c.RequestMsg(ledgertest.Stored(b, signer, s, e), 10*time.Second)
					return err
				}
			})
		})
	}
}

// measure has writers store b.N events.
func measure(b *testing.B, writers int, writer func() func(app string) error) {
	took := make([]time.Duration, b.N)
	next := make(chan int)
	var all sync.WaitGroup
	for w := range writers {
		write := writer()
		all.Go(func() {
			for i := range next {
				start := time.Now()
				if err := write(fmt.Sprintf("app-%d-%d", w, i)); err != nil {
					b.Error(err)
				}
				took[i] = time.Since(start)
			}
		})
	}
	b.ResetTimer()
	for i := range b.N {
		next <- i
	}
	close(next)
	all.Wait()
	b.StopTimer()
	percentiles(b, took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkRead reads the whole ledger, verifying every signature.
func BenchmarkRead(b *testing.B) {
	l := ledgertest.Start(b)
	const size = 5000
	insider := l.Client("ledger").Conn()
	for i := range size {
		s, e := appCreated(fmt.Sprintf("app-%d", i))
		m := ledgertest.Stored(b, l.Client("gateway").Signer(), s, e)
		if err := insider.PublishMsg(m); err != nil {
			b.Fatal(err)
		}
	}
	if err := insider.Flush(); err != nil {
		b.Fatal(err)
	}
	s, e := appCreated("last")
	if _, err := l.Client("gateway").Append(b.Context(), s, e); err != nil {
		b.Fatal(err)
	}
	reader := l.Client("build")
	b.ResetTimer()
	for range b.N {
		n := 0
		if _, err := reader.Read(b.Context(), 0, func(ledger.Record) error { n++; return nil }); err != nil || n != size+1 {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "events/s")
}
