package watch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
)

// stopped acts on the bus's word that it no longer delivers a message: the stage that waits for it is
// stuck. Where no stage does, a note says so: nobody will act on it any more.
func (s *Service) stopped(ctx context.Context, a ledger.Stopped) error {
	service, ok := consumerOf(a.Consumer)
	if !ok || a.Stream != events.StreamName(s.rt.Ledger.Epoch()) {
		return s.note(ctx, a, ledger.Record{})
	}
	r, err := s.rt.Ledger.At(ctx, a.Seq)
	if errors.Is(err, ledger.ErrSetAside) {
		return s.note(ctx, a, r)
	}
	if err == nil {
		err = s.rt.Ledger.Await(ctx, a.Seq)
	}
	if err != nil {
		return err
	}
	if app := s.rt.Fold.App(r.Subject.App); app != nil {
		if d, ok := halted(app, r, service, a.Deliveries, s.rt.Platform.Policy); ok {
			return s.say(ctx, d, time.Now())
		}
	}
	return s.note(ctx, a, r)
}

// consumerOf returns the service whose durable consumer this is.
func consumerOf(durable string) (events.Writer, bool) {
	i := slices.IndexFunc(events.Consumers, func(c events.Consumer) bool { return c.Durable == durable })
	if i < 0 {
		return "", false
	}
	return events.Consumers[i].Service, true
}

func (s *Service) note(ctx context.Context, a ledger.Stopped, r ledger.Record) error {
	now := time.Now()
	n := ledger.Note{
		Service: events.Watch, Durable: a.Consumer, Seq: a.Seq, State: ledger.Halted,
		Why:   fmt.Sprintf("the bus stopped to deliver it to %s after %d deliveries, and no stage waits for it", a.Consumer, a.Deliveries),
		First: now, Last: now,
	}
	if r.Event.Body != nil {
		n.Subject, n.Stored, n.App, n.Run, n.Env, n.Event = r.Subject.String(), r.Time, r.Subject.App, r.Subject.Run, r.Subject.Env, r.Event.ID
	}
	return s.rt.Ledger.Keep(ctx, n)
}
