package watch

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/policy"
)

// What workers noted, and what the bus no longer delivers, put into the words of what decide finds due.

// noteBound is how long one look waits for what workers noted, which is worth less than being in time.
const noteBound = time.Second

// noted is what the stages' workers noted of their tries, as one look finds it: it reads the notes of each worker at
// most once, and only where a stage is overdue.
type noted struct {
	client *ledger.Client
	logger *slog.Logger
	left   time.Duration // of noteBound
	by     map[events.Writer][]ledger.Note
}

func (n *noted) of(ctx context.Context, service events.Writer) []ledger.Note {
	if notes, read := n.by[service]; read {
		return notes
	}
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, n.left)
	defer cancel()
	notes, err := n.client.Notes(ctx, events.BucketTries, service)
	if err != nil {
		n.logger.Warn("tries at a stage are not known", "stage", service, "err", err)
	}
	n.left -= time.Since(begin)
	n.by[service] = notes
	return notes
}

// tried adds what the stage's worker noted of its tries: how many failed, and the last error.
func (d due) tried(notes []ledger.Note) due {
	for _, n := range notes {
		if string(n.Service) != d.stage || !about(n, d) || n.Failed+n.Begun <= d.tries {
			continue
		}
		d.tries = n.Failed + n.Begun
		d.why = fmt.Sprintf("%s; tried %d times, the last error: %s", d.why, d.tries, n.Why)
		d.cause += ": " + d.run.Alike(n.Why)
	}
	return d
}

// about reports whether a note is about an event that the stage waits on.
func about(n ledger.Note, d due) bool {
	if n.App != d.run.App || n.Env != "" && n.Env != d.env {
		return false
	}
	return n.Run == d.run.N || n.Event == d.run.StartEvent || n.Run == 0 && n.Env != ""
}

// halted returns the stage that waits for an event which the bus no longer delivers to a service; false
// where no stage of a run does.
func halted(a *fold.App, r ledger.Record, service events.Writer, deliveries int, p policy.Policy) (due, bool) {
	run := a.Run(runOf(a, r))
	if run == nil || run.Status().Ended() {
		return due{}, false
	}
	for _, d := range current(a, run, p) {
		if d.stage != string(service) || r.Subject.Env != "" && r.Subject.Env != d.env {
			continue
		}
		d.at, d.tries = d.since, deliveries
		d.cause = "the bus stopped to deliver the event that it waits for"
		d.why = fmt.Sprintf("%s, after %d deliveries", d.cause, deliveries)
		return d, true
	}
	return due{}, false
}

// runOf is the number of the run that an event is about; 0: none.
func runOf(a *fold.App, r ledger.Record) int {
	if r.Subject.Run > 0 {
		return r.Subject.Run
	}
	for run := range a.Open() { // no other waits for anything
		if run.StartEvent == r.Event.ID {
			return run.N
		}
	}
	if last := a.Env(r.Subject.Env).Last(); r.Event.Body.Type() == events.TypeSlotDecided && last != nil {
		return last.Run
	}
	return 0
}
