package enginetest

import (
	"testing"
	"time"
)

// Eventually waits until condition holds, asking every 20 ms, and fails the test after bound. what is
// what should have come true.
func Eventually(t testing.TB, bound time.Duration, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(bound)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %v it still does not hold: %s", bound, what)
		}
	}
}
