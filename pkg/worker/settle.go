package worker

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// retryError asks for the message again after a while.
type retryError struct {
	error
	after time.Duration
}

func (e retryError) Unwrap() error { return e.error }

// RetryAfter asks for the message again after d, because something outside is known to be away or to
// need time. It does not count as a failed attempt and may go on for ever; what is waited for must be
// visible in an event.
func RetryAfter(err error, d time.Duration) error { return retryError{err, d} }

// verdict is what happens to a message.
type verdict int

const (
	ack    verdict = iota // done
	retry                 // deliver again after the delay
	giveUp                // tries are used up: tell the service, then terminate
	term                  // never deliver again
)

// settlement is the one decision about a handled message.
type settlement struct {
	verdict verdict
	delay   time.Duration
	counts  bool // as a failed attempt
}

// settle decides what becomes of a message whose handler returned err, after so many failed attempts
// before. jitter is in [0, 1).
func settle(err error, failures, maxAttempts int, jitter float64) settlement {
	var again retryError
	switch {
	case err == nil:
		return settlement{verdict: ack}
	case errors.Is(err, errEndsProcess):
		return settlement{verdict: giveUp}
	case errors.As(err, &again):
		return settlement{verdict: retry, delay: again.after}
	case failures+1 >= maxAttempts:
		return settlement{verdict: giveUp, counts: true}
	}
	return settlement{verdict: retry, delay: backoff(failures+1, jitter), counts: true}
}

// Pauses after a failed attempt: 250 ms, doubled each time, at most 30 s, a quarter more at random.
const (
	firstPause = 250 * time.Millisecond
	maxPause   = 30 * time.Second
)

func backoff(failures int, jitter float64) time.Duration {
	d := maxPause
	if failures < 8 {
		d = min(maxPause, firstPause<<(failures-1))
	}
	return d + time.Duration(float64(d)*jitter/4)
}

// fairPause is the pause after which a message that failed comes again, where many wait for the same: so
// long that they take at most half of a consumer's slots, and the other half is free for what is new.
func fairPause(took time.Duration, waiting, slots int) time.Duration {
	return min(maxFairPause, 2*took*time.Duration(waiting)/time.Duration(slots))
}

// maxFairPause is the longest, so that an outage's end is noticed.
const maxFairPause = 5 * time.Minute

func jitter() float64 { return rand.Float64() }

// PanicError is what a handler's panic becomes: a failed attempt like any other.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("the handler panicked: %v", e.Value) }
