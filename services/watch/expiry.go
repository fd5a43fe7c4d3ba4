package watch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
)

// expired reports whether the time of an environment that somebody made is over, or else when it will be; zero: never.
func expired(e *fold.Environment, now time.Time) (over bool, at time.Time) {
	if e.Gone || e.Ending != nil || e.Made.Expires == nil {
		return false, time.Time{}
	}
	if at = *e.Made.Expires; at.After(now) {
		return false, at
	}
	return true, at
}

// expire says of environments that their time is over, and sets a wake-up for those whose time will be.
func (s *Service) expire(ctx context.Context, now time.Time) error {
	var failed []error
	for _, e := range s.rt.Fold.Environments() {
		over, at := expired(e, now)
		if at.IsZero() {
			continue
		}
		err := error(nil)
		if over {
			err = s.sayExpired(ctx, e, now)
		} else if key := events.Key("environment", string(e.Name), e.Made.ID); s.set[key].IsZero() {
			if err = s.rt.Ledger.Schedule(ctx, key, at, []byte(e.Name)); err == nil {
				s.set[key] = at
			}
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("environment %s, whose time is over at %s: %w", e.Name, at.Format(time.RFC3339), err))
		}
	}
	return errors.Join(failed...)
}

// sayExpired writes environment.expired, once for each command that made or renewed the environment.
func (s *Service) sayExpired(ctx context.Context, e *fold.Environment, now time.Time) error {
	body := &events.EnvironmentExpired{About: events.About{ID: string(e.Name)}, Environment: e.Name, Command: e.Made.ID, Expired: *e.Made.Expires}
	subject := events.EnvironmentSubject(s.rt.Ledger.Epoch(), events.Watch, body.Type(), e.Name, e.Made.ID)
	_, err := s.rt.Append(ctx, subject, events.New(events.Watch, now, "", body))
	var exists *ledger.ExistsError
	if errors.As(err, &exists) {
		return nil
	}
	return err
}
