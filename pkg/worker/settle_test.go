package worker

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSettle(t *testing.T) {
	plain := errors.New("no luck")
	for name, c := range map[string]struct {
		err      error
		failures int
		want     settlement
	}{
		"done":                      {nil, 0, settlement{verdict: ack}},
		"done after failures":       {nil, 5, settlement{verdict: ack}},
		"first failure":             {plain, 0, settlement{verdict: retry, delay: 250 * time.Millisecond, counts: true}},
		"second failure":            {plain, 1, settlement{verdict: retry, delay: 500 * time.Millisecond, counts: true}},
		"last failure":              {plain, 2, settlement{verdict: giveUp, counts: true}},
		"a failure too many":        {plain, 9, settlement{verdict: giveUp, counts: true}},
		"wait":                      {RetryAfter(plain, time.Minute), 0, settlement{verdict: retry, delay: time.Minute}},
		"wait, after many failures": {RetryAfter(plain, time.Minute), 9, settlement{verdict: retry, delay: time.Minute}},
		"wait, wrapped":             {fmt.Errorf("vault: %w", RetryAfter(plain, 0)), 9, settlement{verdict: retry}},
		"cancelled":                 {context.Canceled, 0, settlement{verdict: retry, delay: 250 * time.Millisecond, counts: true}},
	} {
		if got := settle(c.err, c.failures, 3, 0); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	if !errors.Is(RetryAfter(plain, 0), plain) {
		t.Error("the marked error is hidden")
	}
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		failures, random := rapid.IntRange(1, 1<<30).Draw(t, "failures"), rapid.Float64Range(0, 0.999).Draw(t, "jitter")
		d := backoff(failures, random)
		if d < firstPause || d > maxPause+maxPause/4 {
			t.Fatalf("pause of %s", d)
		}
		if next := backoff(failures+1, random); next < d {
			t.Fatalf("pause shrank from %s to %s", d, next)
		}
	})
}

// What waits for the same takes half of the slots at most, however much it is and however long a try takes.
func TestFairPause(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		took := time.Duration(rapid.IntRange(0, 10_000).Draw(t, "took")) * time.Millisecond
		waiting, slots := rapid.IntRange(0, 1000).Draw(t, "waiting"), rapid.IntRange(1, maxSlots).Draw(t, "slots")
		d := fairPause(took, waiting, slots)
		if d < 0 || d > maxFairPause {
			t.Fatalf("pause of %s", d)
		}
		if busy := float64(waiting) * float64(took) / float64(max(d, 1)); d < maxFairPause && d > 0 && busy > float64(slots)/2+1 {
			t.Fatalf("%d messages of %s each, every %s, keep %.1f of %d slots busy", waiting, took, d, busy, slots)
		}
	})
}
