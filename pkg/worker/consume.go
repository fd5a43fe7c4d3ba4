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
	// Failed is how many attempts at it failed, for GiveUp.
	Failed int
}

// Handler acts on one message. What it returns settles the message: nil acknowledges it, also
// where the handler has written an event that says why nothing can be done; RetryAfter has it delivered again
// after a while; any other error counts as a failed attempt and has it delivered again with growing pauses. ctx outlives a shutdown by the consumer's
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
	// MaxAttempts is how many failed attempts at a message end it; 0 means 6. They are kept on the bus
	// (ledger.Note), so that a restart goes on counting. Attempts that end with the process itself, again
	// and again, end the message too.
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
	return rt.consume(ctx, events.StreamName(rt.Ledger.Epoch()), c, source{
		open: func(m *nats.Msg) (job, error) {
			d, err := rt.Ledger.Delivered(m)
			if err != nil {
				return job{id: d.Seq, delivered: d.Delivered, aside: d.Aside}, err
			}
			return rt.eventJob(c, h, d), nil
		},
		again: func(r ledger.Record) job { return rt.eventJob(c, h, ledger.Delivery{Record: r, Delivered: 1}) },
	})
}

// eventJob is the handling of one event.
func (rt *Runtime) eventJob(c Consumer, h Handler, d ledger.Delivery) job {
	message := Message{Record: d.Record, Delivered: d.Delivered}
	j := job{id: d.Seq, delivered: d.Delivered, about: about(d.Record)}
	j.run = func(ctx context.Context) error {
		if err := rt.await(ctx, d.Seq); err != nil {
			return RetryAfter(err, 0)
		}
		if d.Delivered > 1 { // who had it before may have written since, and died
			if err := rt.Ledger.CatchUp(ctx); err != nil {
				return RetryAfter(err, time.Second)
			}
		}
		boundary.Reached(rt.service, boundary.Received, j.about.App)
		return h.Handle(ctx, message)
	}
	if c.GiveUp != nil {
		j.giveUp = func(ctx context.Context, failed int, last error) error {
			message.Failed = failed
			return c.GiveUp(ctx, message, last)
		}
	}
	return j
}

// about says in a note which event it is about.
func about(r ledger.Record) ledger.Note {
	return ledger.Note{
		Subject: r.Subject.String(), Stored: r.Time, App: r.Subject.App, Run: r.Subject.Run, Env: r.Subject.Env, Event: r.Event.ID,
	}
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
	return rt.consume(ctx, events.TimerStream, c, source{open: func(m *nats.Msg) (job, error) {
		wake := WakeUp{Key: events.Slug(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]), Payload: m.Data}
		return plainJob(m, func(ctx context.Context) error {
			boundary.Reached(rt.service, boundary.Received, "")
			return h(ctx, wake)
		})
	}})
}

// Advisories delivers the bus's word on messages that it no longer delivers (ledger.Stopped) to h, in the
// way of Consume. Only watch may call it. c.Durable is ignored.
func (rt *Runtime) Advisories(ctx context.Context, c Consumer, h func(context.Context, ledger.Stopped) error) error {
	c.Durable = ledger.AdvisoryDurable
	c, err := c.withDefaults()
	if err != nil {
		return err
	}
	return rt.consume(ctx, events.AdvisoryStream, c, source{open: func(m *nats.Msg) (job, error) {
		stopped, err := ledger.ReadStopped(m.Data)
		if err != nil {
			return job{}, err
		}
		return plainJob(m, func(ctx context.Context) error { return h(ctx, stopped) })
	}})
}

// plainJob is the handling of a message that is no event.
func plainJob(m *nats.Msg, run func(context.Context) error) (job, error) {
	meta, err := m.Metadata()
	if err != nil {
		return job{}, fmt.Errorf("message %w: no delivery of a consumer: %w", ledger.ErrSetAside, err)
	}
	return job{id: meta.Sequence.Stream, delivered: int(meta.NumDelivered), run: run, about: ledger.Note{Subject: m.Subject, Stored: meta.Timestamp}}, nil
}
