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

	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/pause"
	"towpath.dev/pkg/worker/boundary"
)

// job is one delivered message, opened.
type job struct {
	id        uint64 // its sequence in the stream
	delivered int
	run       func(context.Context) error
	giveUp    func(ctx context.Context, failed int, last error) error // nil: nothing to record
	about     ledger.Note                                             // what it is about
	aside     ledger.Aside                                            // of one that cannot be opened
}

// source is where a consumer's jobs come from.
type source struct {
	// open reads a delivered message. The error wraps ledger.ErrSetAside.
	open func(*nats.Msg) (job, error)
	// again makes a job of an event that was set aside and can be read by now; nil: there are none.
	again func(ledger.Record) job
}

// work handles and settles the messages of one consumer.
type work struct {
	rt       *Runtime
	consumer Consumer
	source   source
	beat     time.Duration   // between two signs of progress
	ctx      context.Context // of handlers: ends DrainTimeout after the consumer's
	alone    chan struct{}   // holds a token while a message is handled that is suspected to end the process

	mu    sync.Mutex
	tries map[uint64]ledger.Note // of messages that this process gave back to be tried again
}

// consume runs a consumer of any stream.
func (rt *Runtime) consume(ctx context.Context, stream string, c Consumer, from source) error {
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
	w := &work{
		rt: rt, consumer: c, source: from, beat: ackWait / 3, ctx: handling, alone: make(chan struct{}, 1), tries: map[uint64]ledger.Note{},
	}
	p := &puller{
		conn: rt.Ledger.Conn(), api: rt.Ledger.API(), stream: stream, durable: c.Durable, slots: c.Concurrency, work: w.message,
	}
	var takingUp sync.WaitGroup
	takingUp.Go(func() { w.takeUp(pulling) })
	err = p.run(pulling)
	stop(nil)
	takingUp.Wait()
	if err != nil {
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
		if pause.For(ctx, time.Second) != nil {
			return 0, nil
		}
	}
}

// message handles one message and settles it.
func (w *work) message(m *nats.Msg) {
	start := time.Now()
	stop := w.progress(m)
	j, err := w.source.open(m)
	if errors.Is(err, ledger.ErrSetAside) {
		s := w.setAside(j, err)
		stop()
		w.answer(m, s, err)
		return
	}
	var s settlement
	if err == nil {
		s, err = w.handle(j)
	}
	stop()
	w.answer(m, s, err)
	boundary.Reached(w.rt.service, boundary.Ack, j.about.App)
	w.log(m, j, s, err, time.Since(start))
}

// answer tells the bus what was settled.
func (w *work) answer(m *nats.Msg, s settlement, err error) {
	switch s.verdict {
	case ack:
		w.reply(m, "+ACK")
	case term, giveUp:
		w.reply(m, "+TERM "+oneLine(err))
	case retry:
		w.reply(m, fmt.Sprintf(`-NAK {"delay": %d}`, s.delay.Nanoseconds()))
	}
}

// setAside keeps why a message cannot be opened. Only when that is kept is it ended; until then it comes again, and
// its slot is free for others meanwhile.
func (w *work) setAside(j job, err error) settlement {
	w.rt.Logger.Error("message set aside", "durable", w.consumer.Durable, "seq", j.id, "err", err)
	if j.aside.Seq == 0 {
		return settlement{verdict: term}
	}
	if err := w.rt.notes.keep(w.ctx, j.aside.NoteOf(w.rt.notes.service(), w.consumer.Durable, time.Now())); err != nil {
		s := settlement{verdict: retry, delay: backoff(j.delivered, jitter())}
		w.rt.Logger.Warn("what was set aside could not be noted, to be tried again", "seq", j.id, "after", s.delay, "err", err)
		return s
	}
	return settlement{verdict: term}
}

// handle runs a job and decides what becomes of its message. The error is the handler's.
func (w *work) handle(j job) (settlement, error) {
	start := time.Now()
	note := w.history(j)
	leave, err := w.enter(j, &note)
	if err == nil {
		err = protect(w.ctx, j.run)
	}
	leave()
	return w.settle(j, note, err, time.Since(start)), err
}

// settle decides on a message, lets the service record that it gives up, and notes what is tried again.
func (w *work) settle(j job, note ledger.Note, err error, took time.Duration) settlement {
	if w.ctx.Err() != nil && err != nil {
		return settlement{verdict: retry} // a shutdown's doing, not the message's
	}
	s := settle(err, note.Failed, w.consumer.MaxAttempts, jitter())
	if s.counts {
		note.Failed++
	}
	if s.verdict == giveUp && j.giveUp != nil {
		record := func(ctx context.Context) error { return j.giveUp(ctx, note.Failed, err) }
		if failed := protect(w.ctx, record); failed != nil {
			w.rt.Logger.Error("giving up could not be recorded", "durable", w.consumer.Durable, "seq", j.id, "err", failed)
			s = settlement{verdict: retry, delay: maxPause}
			err = fmt.Errorf("%w; and that could not be recorded: %w", err, failed)
		}
	}
	if s.verdict == retry {
		s.delay = max(s.delay, w.fair(took))
		w.remember(j, note, s, err)
	} else {
		w.forget(j, note)
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
