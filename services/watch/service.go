// Package watch is the service that turns silence into an event: a stage whose attempt ended in an
// error, or that nothing has ended by its deadline, becomes stage.stuck, with the command that replays
// it.
//
// It guarantees at most one such event for each attempt at a stage, within five seconds of its deadline
// while it runs, and after a restart for deadlines that passed meanwhile. Its timers are derived from
// events and can be lost: the fold is looked at again at every event, wake-up and tick.
package watch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/worker"
	"towpath.dev/pkg/worker/boundary"
)

// Config of the service.
type Config struct {
	// LookEvery is how often all open runs are looked at, besides events and wake-ups; 0 means 2 s.
	LookEvery time.Duration
}

// Validate reports all faults.
func (c Config) Validate() error {
	if c.LookEvery < 0 {
		return fmt.Errorf("watch: look interval %s is below 0", c.LookEvery)
	}
	return nil
}

// Deps are what the service works with.
type Deps struct {
	Runtime *worker.Runtime // opened as identity "watch"
}

// Service watches deadlines.
type Service struct {
	cfg Config
	rt  *worker.Runtime

	mu       sync.Mutex
	policies map[string]policy.Policy // parsed once
	set      map[events.Slug]time.Time
	looked   map[events.Slug]looked // by app
}

// looked is what was seen of an app: it need not be looked at again until it changes or something is due.
type looked struct {
	seq  uint64
	next time.Time // the earliest deadline; zero: none
}

// New validates and does no IO.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.LookEvery == 0 {
		cfg.LookEvery = 2 * time.Second
	}
	return &Service{
		cfg: cfg, rt: deps.Runtime, policies: map[string]policy.Policy{}, set: map[events.Slug]time.Time{}, looked: map[events.Slug]looked{},
	}, nil
}

// Run watches until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	told := make(chan error, 2)
	go func() {
		told <- s.rt.WakeUps(ctx, worker.Consumer{}, func(ctx context.Context, _ worker.WakeUp) error { return s.look(ctx) })
		stop()
	}()
	go func() {
		told <- s.rt.Advisories(ctx, worker.Consumer{}, s.stopped)
		stop()
	}()
	err := s.follow(ctx)
	stop()
	return errors.Join(err, <-told, <-told)
}

// follow looks at every change of the fold, and at every tick.
func (s *Service) follow(ctx context.Context) error {
	for {
		seq := s.rt.Fold.Seq()
		if err := s.look(ctx); err != nil && ctx.Err() == nil {
			s.rt.Logger.Error("looking for stuck stages, again at the next event or tick", "err", err)
		}
		wait, cancel := context.WithTimeout(ctx, s.cfg.LookEvery)
		err := s.rt.Fold.Wait(wait, seq+1)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case s.rt.Broken().Err() != nil:
			return context.Cause(s.rt.Broken())
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			return err
		}
	}
}

// look reports what is overdue and sets a wake-up for what will be.
func (s *Service) look(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, notes := time.Now(), &noted{client: s.rt.Ledger, logger: s.rt.Logger, left: noteBound, by: map[events.Writer][]ledger.Note{}}
	failed := []error{s.expire(ctx, now)} // of one app; it keeps none of the others from being looked at
	for _, a := range s.rt.Fold.Apps() {
		if before := s.looked[a.Name]; before.seq == a.Seq && (before.next.IsZero() || now.Before(before.next)) {
			continue
		}
		next, err := s.lookAt(ctx, a, notes, now)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		s.looked[a.Name] = looked{a.Seq, next}
	}
	for key, at := range s.set {
		if now.After(at.Add(time.Hour)) {
			delete(s.set, key)
		}
	}
	return errors.Join(failed...)
}

// lookAt does look for one app and returns the earliest deadline to come; zero: none.
func (s *Service) lookAt(ctx context.Context, a *fold.App, notes *noted, now time.Time) (next time.Time, err error) {
	var failed []error
	for _, d := range decide(a, s.pinned(a), s.rt.Platform.Policy) {
		if err := s.act(ctx, d, notes, now); err != nil {
			failed = append(failed, err)
		}
		if d.at.After(now) && (next.IsZero() || d.at.Before(next)) {
			next = d.at
		}
	}
	return next, errors.Join(failed...)
}

func (s *Service) act(ctx context.Context, d due, notes *noted, now time.Time) error {
	if d.at.After(now) {
		return s.schedule(ctx, d)
	}
	boundary.Reached(events.Watch, boundary.Decided, d.run.App)
	if d.overdue {
		d = d.tried(notes.of(ctx, events.Writer(d.stage)))
	}
	return s.say(ctx, d, now)
}

// say writes stage.stuck, once for each attempt.
func (s *Service) say(ctx context.Context, d due, now time.Time) error {
	body := d.stuck()
	subject := events.StuckSubject(s.rt.Ledger.Epoch(), d.run.App, d.run.N, d.env, d.stage, d.attempt, d.nth)
	_, err := s.rt.Append(ctx, subject, events.New(events.Watch, now, d.run.ChainID, body, events.Path(body.LastEvent)))
	var exists *ledger.ExistsError
	if errors.As(err, &exists) {
		return nil
	}
	return err
}

// schedule has the bus wake every watch at the deadline.
func (s *Service) schedule(ctx context.Context, d due) error {
	key := d.key()
	if _, ok := s.set[key]; ok {
		return nil
	}
	if err := s.rt.Ledger.Schedule(ctx, key, d.at, []byte(d.run.Name())); err != nil {
		return err
	}
	boundary.Reached(events.Watch, boundary.Effect, d.run.App)
	s.set[key] = d.at
	return nil
}

// pinned returns the policies that an app's runs pin.
func (s *Service) pinned(a *fold.App) map[string]policy.Policy {
	for run := range a.Open() {
		digest := run.Policy
		if _, ok := s.policies[digest]; ok {
			continue
		}
		if p, err := policy.ParseText(s.rt.Fold.Policy(digest)); err == nil {
			s.policies[digest] = p
		}
	}
	return s.policies
}
