package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"towpath.dev/events"
)

// TimerDurable is the durable consumer on events.TimerStream that wakes watch.
const TimerDurable = "timers"

const (
	setPrefix   = "timer.set."
	firedPrefix = "timer.fired."
	// firedLife is how long a wake-up waits for watch; at its start watch derives all of them anew.
	firedLife = "24h"
)

// timerStream holds schedules (timer.set.<key>) and the wake-ups that they turn into
// (timer.fired.<key>), the latest of each key.
func timerStream() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              events.TimerStream,
		Description:       "watch's wake-ups, derived from events",
		Subjects:          []string{setPrefix + "*", firedPrefix + "*"},
		Storage:           jetstream.FileStorage,
		Discard:           jetstream.DiscardOld,
		MaxMsgsPerSubject: 1,
		MaxMsgSize:        4 << 10,
		AllowRollup:       true,
		AllowMsgTTL:       true,
		AllowMsgSchedules: true,
	}
}

// Schedule has the bus wake watch at a time, with a payload of at most 2 KiB; a later call with the same
// key replaces it, and a time that has passed wakes at once. Only watch may call it. A wake-up says
// nothing by itself: watch looks at the fold and decides.
func (c *Client) Schedule(ctx context.Context, key events.Slug, at time.Time, payload []byte) error {
	m := nats.NewMsg(setPrefix + string(key))
	m.Data = payload
	m.Header["Nats-Schedule"] = []string{"@at " + at.UTC().Format(time.RFC3339Nano)}
	m.Header["Nats-Schedule-Target"] = []string{firedPrefix + string(key)}
	m.Header["Nats-Schedule-TTL"] = []string{firedLife}
	if _, err := c.publish(ctx, m); err != nil {
		return fmt.Errorf("scheduling %s: %w", key, err)
	}
	return nil
}
