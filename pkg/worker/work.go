package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/worker/boundary"
)

// job is one delivered message, opened.
type job struct {
	id        uint64      // its sequence in the stream
	app       events.Slug // that it is about; empty: none
	delivered int
	run       func(context.Context) error
	giveUp    func(ctx context.Context, last error) error // nil: nothing to record
}

// work handles and settles the messages of one consumer.
type work struct {
	rt       *Runtime
	consumer Consumer
	open     func(*nats.Msg) (job, error)
	beat     time.Duration   // between two signs of progress
	ctx      context.Context // of handlers: ends DrainTimeout after the consumer's

	mu       sync.Mutex
	failures map[uint64]int // failed attempts at messages that are not settled yet
}

// consume runs a consumer of any stream.
func (rt *Runtime) consume(ctx context.Context, stream string, c Consumer, open func(*nats.Msg) (job, error)) error {
	ackWait, err := rt.ackWait(ctx, stream, c.Durable)
	if err != nil || ctx.Err() != nil {
		return err
	}
	pulling, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(rt.broken, func() { stop(context.Cause(rt.broken)) })()
	handling, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(pulling, func() {
		time.AfterFunc(c.DrainTimeout, func() { cancel(errDrained) })
	})()
	w := &work{rt: rt, consumer: c, open: open, beat: ackWait / 3, ctx: handling, failures: map[uint64]int{}}
	p := &puller{
		conn: rt.Ledger.Conn(), api: rt.Ledger.API(), stream: stream, durable: c.Durable, slots: c.Concurrency, work: w.message,
	}
	if err := p.run(pulling); err != nil {
		return err
	}
	if ctx.Err() == nil {
		return fmt.Errorf("consuming %s: %w", c.Durable, context.Cause(pulling))
	}
	return nil
}

// errDrained is the cause with which work is cancelled that outlived a shutdown's patience.
var errDrained = errors.New("the service is shutting down and this took too long")

// ackWait returns how long the bus waits for a sign of progress. It waits until the consumer can be
// seen, or ctx ends.
func (rt *Runtime) ackWait(ctx context.Context, stream, durable string) (time.Duration, error) {
	level := slog.LevelWarn
	for {
		k, err := rt.Ledger.JetStream().Consumer(ctx, stream, durable)
		if err == nil {
			return k.CachedInfo().Config.AckWait, nil
		}
		if ctx.Err() != nil {
			return 0, nil
		}
		if errors.Is(err, nats.ErrConnectionClosed) {
			return 0, fmt.Errorf("looking for consumer %s: %w", durable, err)
		}
		rt.Logger.Log(ctx, level, "consumer cannot be seen yet; is the bus provisioned?", "stream", stream, "durable", durable, "err", err)
		level = slog.LevelDebug
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// message handles one message and settles it.
func (w *work) message(m *nats.Msg) {
	start := time.Now()
	stop := w.progress(m)
	j, err := w.open(m)
	if errors.Is(err, ledger.ErrSetAside) {
		stop()
		w.rt.Logger.Error("message set aside", "durable", w.consumer.Durable, "subject", m.Subject, "seq", j.id, "err", err)
		w.reply(m, "+TERM "+oneLine(err))
		return
	}
	if err == nil {
		err = protect(w.ctx, j.run)
	}
	s := w.settle(j, err)
	stop()
	switch s.verdict {
	case ack:
		w.reply(m, "+ACK")
	case term, giveUp:
		w.reply(m, "+TERM "+oneLine(err))
	case retry:
		w.reply(m, fmt.Sprintf(`-NAK {"delay": %d}`, s.delay.Nanoseconds()))
	}
	boundary.Reached(w.rt.service, boundary.Ack, j.app)
	w.log(m, j, s, err, time.Since(start))
}

// settle decides on a message, counts its failed attempts, and lets the service record that it gives up.
func (w *work) settle(j job, err error) settlement {
	w.mu.Lock()
	failures := w.failures[j.id]
	w.mu.Unlock()
	if w.ctx.Err() != nil && err != nil {
		return settlement{verdict: retry} // a shutdown's doing, not the message's
	}
	s := settle(err, failures, w.consumer.MaxAttempts, jitter())
	if s.verdict == giveUp && j.giveUp != nil {
		record := func(ctx context.Context) error { return j.giveUp(ctx, err) }
		if failed := protect(w.ctx, record); failed != nil {
			w.rt.Logger.Error("giving up could not be recorded", "durable", w.consumer.Durable, "seq", j.id, "err", failed)
			return settlement{verdict: retry, delay: maxPause}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case s.verdict != retry:
		delete(w.failures, j.id)
	case s.counts:
		w.failures[j.id] = failures + 1
	}
	return s
}

// protect calls f and turns a panic into an error: one poisonous message must not end its neighbours.
func protect(ctx context.Context, f func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f(ctx)
}

// progress tells the bus at a third of its patience that a message is being worked on, until stop.
func (w *work) progress(m *nats.Msg) (stop func()) {
	done := make(chan struct{})
	var beating sync.WaitGroup
	beating.Go(func() {
		t := time.NewTicker(w.beat)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				w.reply(m, "+WPI")
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		beating.Wait()
	}
}

// reply settles a message or reports progress. If it is lost the message is delivered again, which a
// handler must bear in any case.
func (w *work) reply(m *nats.Msg, word string) {
	if err := w.rt.Ledger.Conn().Publish(m.Reply, []byte(word)); err != nil {
		w.rt.Logger.Warn("message not settled, it will be delivered again", "durable", w.consumer.Durable, "err", err)
	}
}

func (w *work) log(m *nats.Msg, j job, s settlement, err error, took time.Duration) {
	level, words := slog.LevelInfo, map[verdict]string{ack: "handled", retry: "to be tried again", giveUp: "given up", term: "terminated"}
	attributes := []any{"durable", w.consumer.Durable, "subject", m.Subject, "seq", j.id, "delivered", j.delivered, "took", took}
	if err != nil {
		level = slog.LevelWarn
		attributes = append(attributes, "err", err)
	}
	if s.verdict == retry {
		attributes = append(attributes, "after", s.delay)
	}
	var panicked *PanicError
	if errors.As(err, &panicked) {
		level = slog.LevelError
		attributes = append(attributes, "stack", string(panicked.Stack))
	}
	w.rt.Logger.Log(w.ctx, level, words[s.verdict], attributes...)
}

// oneLine is an error's text as the reason of a termination.
func oneLine(err error) string {
	return fmt.Sprintf("%.200q", err.Error())
}
