// Package notify is the service that tells people: it reads the ledger and posts what somebody has to act on, or waits
// for, to the webhooks that the platform file names.
//
// It guarantees that each notification is tried until a receiver has taken it, has refused it, or it is too old to be of
// use, also after a restart, and that a receiver which is away keeps nobody else waiting. A receiver may get the same
// notification more than once, with the same id. It writes no event and decides nothing: a run never waits for it.
package notify

import (
	"errors"
	"fmt"
	"time"
)

// Config of the service.
type Config struct {
	// MaxAge is how old a notification may become before it is left out; 0: 1 h. What was left out is counted, and the
	// receiver told how much it was.
	MaxAge time.Duration
	// Pace is the time between two posts to one receiver; 0: 1 s, which is what chats take.
	Pace time.Duration
	// Timeout bounds one post; 0: 10 s.
	Timeout time.Duration
	// Retry is the pause after a post that failed; it doubles with each one, up to a minute. 0: 1 s.
	Retry time.Duration
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field     *time.Duration
		otherwise time.Duration
	}{{&c.MaxAge, time.Hour}, {&c.Pace, time.Second}, {&c.Timeout, 10 * time.Second}, {&c.Retry, time.Second}} {
		if *d.field == 0 {
			*d.field = d.otherwise
		}
	}
	return c
}

// Validate reports all faults at once.
func (c Config) Validate() error {
	var faults []error
	for _, f := range []struct {
		name  string
		value time.Duration
	}{{"max age", c.MaxAge}, {"pace", c.Pace}, {"timeout", c.Timeout}, {"retry", c.Retry}} {
		if f.value < 0 {
			faults = append(faults, fmt.Errorf("notify: %s %s is negative", f.name, f.value))
		}
	}
	return errors.Join(faults...)
}
