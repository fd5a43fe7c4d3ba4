package worker

import (
	"context"
	"errors"
	"time"

	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/pause"
)

// A message whose deliveries end with the process, without an answer to the bus, may be what ends it (it
// makes it run out of memory, or hit a bug that takes the process down), or only have been in hand when
// another did.
//
//	delivery 1 … 5    handled like any other
//	then              each handling is noted before it begins
//	after 3 of those  handled one at a time, so that the guilty one is alone with what is new
//	after 9 of those  given up
//
// Any answer, a failed attempt's too, clears it.
const (
	unsuspected  = 5
	suspected    = 3
	maxUnsettled = 9
)

// errEndsProcess is why a message is given up that no process has survived.
var errEndsProcess = errors.New("the service ended each time it worked on this, without an error: see its log, and whether it is killed for want of memory")

// history returns what is known of earlier tries at a message. The first delivery has none.
func (w *work) history(j job) ledger.Note {
	w.mu.Lock()
	note, known := w.tries[j.id]
	w.mu.Unlock()
	if j.delivered > 1 {
		if kept, ok := w.rt.notes.tried(w.ctx, w.consumer.Durable, j.id); ok {
			note, known = kept, true
		}
	}
	if !known {
		note = j.about
		note.First = time.Now()
	}
	note.Service, note.Durable, note.Seq, note.State = w.rt.notes.service(), w.consumer.Durable, j.id, ledger.Retrying
	note.Allowed = w.consumer.MaxAttempts
	return note
}

// enter lets a message's handling begin, unless no process survives it. leave must be called.
func (w *work) enter(j job, note *ledger.Note) (leave func(), err error) {
	leave = func() {}
	if j.delivered-1-note.Settled < unsuspected {
		return leave, nil
	}
	if note.Begun >= maxUnsettled {
		return leave, errEndsProcess
	}
	if note.Begun >= suspected {
		select {
		case w.alone <- struct{}{}:
			leave = func() { <-w.alone }
		case <-w.ctx.Done():
			return leave, context.Cause(w.ctx)
		}
	}
	note.Begun++
	note.Last = time.Now()
	if note.Why == "" {
		note.Why = "the service ended while it worked on this, without an error"
	}
	w.keep(*note)
	return leave, nil
}

// remember notes that a message is tried again.
func (w *work) remember(j job, note ledger.Note, s settlement, err error) {
	if !s.counts && s.delay == 0 {
		return // nothing but the order in which things arrive
	}
	now := time.Now()
	note.Settled, note.Begun = j.delivered, 0
	note.Why, note.Last, note.Next = err.Error(), now, now.Add(s.delay)
	w.mu.Lock()
	w.tries[j.id] = note
	w.mu.Unlock()
	w.keep(note)
}

// forget drops what is noted of a message that was settled.
func (w *work) forget(j job, note ledger.Note) {
	w.mu.Lock()
	delete(w.tries, j.id)
	w.mu.Unlock()
	if !note.Last.IsZero() {
		w.rt.notes.drop(w.ctx, note)
	}
}

func (w *work) keep(note ledger.Note) {
	if err := w.rt.notes.keep(w.ctx, note); err != nil {
		w.rt.Logger.Warn("tries at a message are remembered by this process alone", "durable", note.Durable, "seq", note.Seq, "err", err)
	}
}

// fair is fairPause, for what waits now.
func (w *work) fair(took time.Duration) time.Duration {
	w.mu.Lock()
	waiting := len(w.tries)
	w.mu.Unlock()
	return fairPause(took, waiting, w.consumer.Concurrency)
}

// takeUp handles the events that this service set aside and that it can read by now, as after an upgrade:
// the bus delivers them no more. What it cannot read stays noted.
func (w *work) takeUp(ctx context.Context) {
	if w.source.again == nil {
		return
	}
	done := map[uint64]bool{}
	for _, note := range w.rt.notes.mine(ctx) {
		if done[note.Seq] {
			w.rt.notes.drop(w.ctx, note)
			continue
		}
		r, err := w.rt.notes.at(ctx, note.Seq)
		if err != nil || w.rt.notes.wakes(r) != w.consumer.Durable {
			continue
		}
		if !w.handleAgain(ctx, w.source.again(r)) {
			return
		}
		w.rt.Logger.Info("taken up", "durable", w.consumer.Durable, "seq", note.Seq, "was", note.Why)
		w.rt.notes.drop(w.ctx, note)
		done[note.Seq] = true
	}
}

// handleAgain handles a job until it is settled; false: ctx ended before.
func (w *work) handleAgain(ctx context.Context, j job) bool {
	for {
		s, err := w.handle(j)
		if s.verdict != retry {
			return true
		}
		w.rt.Logger.Warn("taking up failed, to be tried again", "durable", w.consumer.Durable, "seq", j.id, "after", s.delay, "err", err)
		if pause.For(ctx, s.delay) != nil {
			return false
		}
		j.delivered++
	}
}
