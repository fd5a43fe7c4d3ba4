package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"towpath.dev/events"
)

// Query chooses events by where they are stored, so that the bus leaves the others out. Empty fields choose all.
type Query struct {
	App       events.Slug
	Env       events.Slug
	Subject   string // the type's: "slot"
	Predicate string // the type's: "taken"
	After     uint64 // only events after this sequence
}

// filter is the subjects that the query chooses.
func (q Query) filter(epoch int) string {
	any := func(token string) string {
		if token == "" {
			return "*"
		}
		return token
	}
	return strings.Join([]string{
		"event", fmt.Sprint(epoch), "*", any(string(q.App)), "*", any(string(q.Env)), any(q.Subject), any(q.Predicate), "*", "*",
	}, ".")
}

// Query hands the records that a query chooses to apply, verified and in order, up to the head at that moment.
// Messages that are set aside are passed over. It keeps at most two batches in memory.
func (c *Client) Query(ctx context.Context, q Query, apply func(Record) error) error {
	f := &follower{client: c, stream: events.StreamName(c.epoch), private: true}
	filter := q.filter(c.epoch)
	for more, after := true, q.After; more; {
		var messages []opened
		var err error
		more, err = c.batch(ctx, f.stream, directGet{Seq: after + 1, Next: filter}, func(s stored) error {
			messages = append(messages, opened{stored: s})
			return nil
		})
		if err != nil && !errors.Is(err, errBroken) {
			return err
		}
		if errors.Is(err, errBroken) {
			more = true
		}
		f.open(messages)
		for _, o := range messages {
			after = o.seq
			if o.err != nil {
				c.logger.Debug("event passed over", "service", c.service, "seq", o.seq, "err", o.err)
			} else if err := apply(o.record); err != nil {
				return err
			}
		}
	}
	return nil
}

// Before returns the last sequence, of those that Follow has applied, whose event was stored before a time; 0 where
// there is none. It asks for some twenty events, as their times grow with their sequences.
func (c *Client) Before(ctx context.Context, at time.Time) (uint64, error) {
	stream := events.StreamName(c.epoch)
	low, high := uint64(0), c.Applied() // low is before; what follows high is not
	for low < high {
		middle := low + (high-low+1)/2
		s, err := c.get(ctx, stream, directGet{Seq: middle})
		if err != nil {
			return 0, fmt.Errorf("looking for the event before %s: %w", at.Format(time.RFC3339), err)
		}
		if s.time.Before(at) {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return low, nil
}
