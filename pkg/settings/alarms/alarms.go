// Package alarms writes into the ledger that somebody else may hold what was handed over for a service, or for a
// container of an app, alone.
//
// It guarantees that what stands is raised once, and is resolved once it is known to be over. A store that cannot be
// asked ends no alarm. It finds nothing out itself: stores of settings do.
package alarms

import (
	"context"
	"errors"
	"slices"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/worker"
)

// every is how often stores are asked.
const every = 10 * time.Second

// Keep writes what is found at the stores that a service uses, until ctx is done.
func Keep(ctx context.Context, rt *worker.Runtime, store *settings.Store, as events.Writer) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		standing, unsure := store.Alarms(ctx)
		if err := tell(ctx, rt, as, standing, unsure); err != nil && ctx.Err() == nil {
			rt.Logger.Warn("an alarm is not in the ledger yet, to be tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func tell(ctx context.Context, rt *worker.Runtime, as events.Writer, standing []events.Alarm, unsure []events.Slug) error {
	known, raised := rt.Fold.Alarms(as)
	for _, s := range decide(as, known, raised, standing, unsure) {
		subject := events.AlarmSubject(rt.Epoch(), as, s.body.Type(), s.alarm.App, s.alarm.Environment, s.nth)
		_, err := rt.Append(ctx, subject, events.New(as, time.Now(), "", s.body))
		var exists *ledger.ExistsError
		if err != nil && !errors.As(err, &exists) {
			return err
		}
		rt.Logger.Warn("an alarm was raised, or is over", "event", s.body.Type(), "about", s.body.SubjectID())
	}
	return nil
}

// say is one event about an alarm.
type say struct {
	nth   int
	alarm events.Alarm
	body  events.Body
}

// decide compares what stands with what the ledger knows of a service, which has raised so many.
func decide(as events.Writer, known []fold.Alarm, raised int, standing []events.Alarm, unsure []events.Slug) []say {
	var all []say
	same := func(a, b events.Alarm) bool {
		return a.Environment == b.Environment && a.App == b.App && a.What == b.What
	}
	for _, one := range standing {
		if slices.ContainsFunc(known, func(k fold.Alarm) bool { return k.By == as && same(k.Alarm, one) }) ||
			slices.ContainsFunc(all, func(s say) bool { return same(s.alarm, one) }) {
			continue
		}
		raised++
		b := &events.AlarmRaised{Alarm: one}
		b.ID = subjectID(one)
		all = append(all, say{raised, one, b})
	}
	for _, k := range known {
		over := k.By == as && !slices.ContainsFunc(standing, func(one events.Alarm) bool { return same(k.Alarm, one) })
		if !over || slices.Contains(unsure, k.Environment) || k.App != "" && len(unsure) > 0 {
			continue
		}
		b := &events.AlarmResolved{Alarm: k.Alarm}
		b.ID = subjectID(k.Alarm)
		all = append(all, say{k.N, k.Alarm, b})
	}
	return all
}

func subjectID(a events.Alarm) string { return string(a.Environment) + "/" + a.What }
