package edge

import "time"

// downFor is how long a replica that could not be connected to is passed over, where no health path says
// sooner that it is back.
const downFor = time.Second

// failuresAllowed is how many checks in a row may fail before a replica gets no more requests: one slow
// answer of a busy machine is not the end of a replica.
const failuresAllowed = 2

// condition is what is known of one replica.
//
//	up ──(3 failed checks, or a failed dial)──> down ──(a good check, or its time is over)──> up
type condition struct {
	failures int       // checks in a row
	until    time.Time // down until then; zero: up
	why      string    // the last failure
}

// forever stands for a time that only a good check ends.
var forever = time.Unix(1<<40, 0)

func (c condition) up(now time.Time) bool { return !now.Before(c.until) }

// checked returns the condition after a health check; why is empty for a good one.
func (c condition) checked(why string) condition {
	if why == "" {
		return condition{}
	}
	c.failures++
	c.why = why
	if c.failures > failuresAllowed {
		c.until = forever
	}
	return c
}

// undialled returns the condition after a failed connection.
func (c condition) undialled(why string, now time.Time, hasChecks bool) condition {
	c.why = why
	c.until = now.Add(downFor)
	if hasChecks {
		c.until = forever
	}
	return c
}

// choose returns the index of the replica after last that is up and was not tried, in turn; -1 for none.
func choose(replicas []condition, tried []bool, last int, now time.Time) int {
	for i := range replicas {
		at := (last + 1 + i) % len(replicas)
		if !tried[at] && replicas[at].up(now) {
			return at
		}
	}
	return -1
}
