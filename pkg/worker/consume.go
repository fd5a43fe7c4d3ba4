package worker

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/worker/boundary"
)

// Message is one delivery of an event that woke the service.
type Message struct {
	Record    ledger.Record
	Delivered int // 1 for the first delivery
}

// Handler acts on one message. What it returns settles the message: nil acknowledges it, Permanent
// terminates it, RetryAfter has it delivered again after a while, any other error counts as a failed
// attempt and has it delivered again with growing pauses. ctx outlives a shutdown by the consumer's
// DrainTimeout.
type Handler interface {
	Handle(ctx context.Context, m Message) error
}

// Consumer says how a service consumes its durable consumer.
type Consumer struct {
	// Durable is the name in events.Consumers.
	Durable string
	// Concurrency is how many messages are handled at once; 0 means 1, at most 256.
	Concurrency int
	// MaxAttempts is how many failed attempts at a message end it; 0 means 6. Attempts are counted in
	// this process: a restart begins anew, and watch's deadlines are what bounds a stage for good.
	MaxAttempts int
	// GiveUp is called with the last error when the attempts are used up: the service records it as an
	// event, and the message is terminated. Where it fails the message is delivered again. nil: the
	// message is only terminated.
	GiveUp func(ctx context.Context, m Message, last error) error
	// DrainTimeout is how long work in flight may go on after ctx ended; 0 means 20 s.
	DrainTimeout time.Duration
}

const (
	defaultAttempts = 6
	defaultDrain    = 20 * time.Second
)

func (c Consumer) withDefaults() (Consumer, error) {
	if c.Concurrency == 0 {
		c.Concurrency = 1
	}
	if c.MaxAttempts == 0 {
		c.MaxAttempts = defaultAttempts
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = defaultDrain
	}
	if c.Durable == "" || c.Concurrency < 1 || c.Concurrency > maxSlots || c.MaxAttempts < 1 || c.DrainTimeout < 0 {
		return c, fmt.Errorf("consumer %q: durable is required, concurrency 1–%d, attempts and drain timeout above 0", c.Durable, maxSlots)
	}
	return c, nil
}

// Consume delivers the consumer's messages to h until ctx ends (nil), the fold can no longer follow, or
// the bus says that the consumer is gone. It then stops pulling, lets what is in flight finish for
// DrainTimeout, cancels the rest and gives it back, and returns.
func (rt *Runtime) Consume(ctx context.Context, c Consumer, h Handler) error {
	c, err := c.withDefaults()
	if err != nil {
		return err
	}
	return rt.consume(ctx, events.StreamName(rt.Ledger.Epoch()), c, func(m *nats.Msg) (job, error) {
		return rt.eventJob(c, h, m)
	})
}

// eventJob verifies a delivered event. The error wraps ledger.ErrSetAside.
func (rt *Runtime) eventJob(c Consumer, h Handler, m *nats.Msg) (job, error) {
	d, err := rt.Ledger.Delivered(m)
	message := Message{Record: d.Record, Delivered: d.Delivered}
	j := job{id: d.Seq, delivered: d.Delivered, app: d.Subject.App}
	if err != nil {
		return j, err
	}
	j.run = func(ctx context.Context) error {
		if err := rt.await(ctx, d.Seq); err != nil {
			return RetryAfter(err, 0)
		}
		if d.Delivered > 1 { // who had it before may have written since, and died
			if err := rt.Ledger.CatchUp(ctx); err != nil {
				return RetryAfter(err, time.Second)
			}
		}
		boundary.Reached(rt.service, boundary.Received, j.app)
		return h.Handle(ctx, message)
	}
	if c.GiveUp != nil {
		j.giveUp = func(ctx context.Context, last error) error { return c.GiveUp(ctx, message, last) }
	}
	return j, nil
}

// WakeUp is a timer that fired.
type WakeUp struct {
	Key     events.Slug
	Payload []byte
}

// WakeUps delivers the timers that watch scheduled (ledger.Client.Schedule) to h, in the way of Consume.
// c.Durable is ignored.
func (rt *Runtime) WakeUps(ctx context.Context, c Consumer, h func(ctx context.Context, w WakeUp) error) error {
	c.Durable = ledger.TimerDurable
	c, err := c.withDefaults()
	if err != nil {
		return err
	}
	return rt.consume(ctx, events.TimerStream, c, func(m *nats.Msg) (job, error) {
		meta, err := m.Metadata()
		if err != nil {
			return job{}, fmt.Errorf("%w: no delivery of a consumer: %w", ledger.ErrSetAside, err)
		}
		wake := WakeUp{Key: events.Slug(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]), Payload: m.Data}
		run := func(ctx context.Context) error {
			boundary.Reached(rt.service, boundary.Received, "")
			return h(ctx, wake)
		}
		return job{id: meta.Sequence.Stream, delivered: int(meta.NumDelivered), run: run}, nil
	})
}
