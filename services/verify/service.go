// Package verify is the service that finds out whether what is live works: it asks every instance of a
// live slot for its health, runs the checks that the app declares for the environment, and says in the
// ledger how that ended.
//
// It guarantees one result for each attempt at a slot, that a container which runs and does not answer
// fails within its deadline, and that a check whose engine is away is tried again and never taken for a
// failure of the app. It changes nothing: promote acts on what it found.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/worker"
	"towpath.dev/pkg/worker/boundary"
)

// Deps are what the service works with.
type Deps struct {
	Runtime *worker.Runtime // opened as identity "verify"
}

// Service verifies.
type Service struct {
	cfg   Config
	rt    *worker.Runtime
	fleet *engine.Fleet
	table discovery.Table
	http  *http.Client

	mu    sync.Mutex
	turns map[discovery.Place]chan struct{} // one handler at a time for each place
}

// New validates and does no IO.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Service{
		cfg: cfg.withDefaults(), rt: deps.Runtime, fleet: engine.FleetOf(deps.Runtime.Platform.Engines),
		table: discovery.Open(deps.Runtime.Ledger), turns: map[discovery.Place]chan struct{}{},
		http: &http.Client{
			Transport:     &http.Transport{DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Run verifies until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	defer s.fleet.Close()
	return s.rt.Consume(ctx, worker.Consumer{
		Durable: "verify", Concurrency: s.cfg.Concurrency, MaxAttempts: s.cfg.Tries, GiveUp: s.giveUp,
	}, s)
}

// Handle verifies what the event made live, or what it asks to be verified again.
func (s *Service) Handle(ctx context.Context, m worker.Message) error {
	place, ok := concerns(m.Record)
	if !ok {
		return nil
	}
	release, err := s.turn(ctx, place)
	if err != nil {
		return err
	}
	defer release()
	t, ok := decide(s.rt.Fold.App(place.App), place.Env)
	if !ok {
		return nil
	}
	boundary.Reached(events.Verify, boundary.Decided, place.App)
	record := recorder{book: s.rt, trial: t}
	if t.skip != nil {
		return record.skipped(ctx)
	}
	if err := record.started(ctx); err != nil {
		return err
	}
	results, err := s.perform(ctx, place, t)
	boundary.Reached(events.Verify, boundary.Effect, place.App)
	if errors.Is(err, errFenced) {
		return nil
	}
	if err != nil {
		return err
	}
	for n, r := range results {
		if err := record.checked(ctx, n+1, r); err != nil {
			return err
		}
	}
	outcome, trouble := t.conclude(results)
	return record.finished(ctx, outcome, trouble)
}

// concerns returns the place that an event gives verify something to look at.
func concerns(r ledger.Record) (discovery.Place, bool) {
	place := discovery.Place{Env: r.Subject.Env, App: r.Subject.App}
	switch b := r.Event.Body.(type) {
	case *events.SlotDecided:
		return place, b.Decision == events.Live
	case *events.ReplayRequested:
		return place, b.Stage == fold.StageVerify
	case *events.CommandReceived:
		return place, b.Verb == events.VerbSkip
	}
	return discovery.Place{}, false
}

// turn waits until no other handler works on the place.
func (s *Service) turn(ctx context.Context, p discovery.Place) (release func(), err error) {
	s.mu.Lock()
	turn := s.turns[p]
	if turn == nil {
		turn = make(chan struct{}, 1)
		s.turns[p] = turn
	}
	s.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// errFenced says that the verification no longer counts: its slot was closed, or another attempt began.
var errFenced = errors.New("the verification no longer counts")

// perform runs health and checks, in order, and stops at the first that fails.
func (s *Service) perform(ctx context.Context, place discovery.Place, t trial) ([]result, error) {
	ctx, stop := s.fenced(ctx, place, t)
	defer stop()
	log := s.rt.Ledger.Log(ledger.LogKey{
		Service: string(events.Verify), App: place.App, Run: t.run.N, Env: place.Env, Stage: fold.StageVerify, Attempt: t.attempt,
	})
	defer log.Close()
	docker, err := s.fleet.Environment(ctx, string(place.Env))
	if err != nil {
		return nil, s.fencedOr(ctx, err)
	}
	c := checker{cfg: s.cfg, engine: docker, http: s.http, place: place, instances: s.instances(ctx, place, t), trial: t, log: log, bus: s.rt.Ledger.Conn()}
	checks := t.checks
	if !s.verifies(t) {
		fmt.Fprintf(log, "the platform's policy leaves the checks of %s out\n", place.Env)
		checks = nil
	}
	r, err := c.health(ctx)
	results := []result{r}
	for n := 0; err == nil && r.outcome == events.Success && n < len(checks); n++ {
		say(log, r)
		r, err = c.check(ctx, n+1, checks[n])
		results = append(results, r)
	}
	if err != nil || ctx.Err() != nil {
		return nil, s.fencedOr(ctx, err)
	}
	say(log, r)
	return results, nil
}

func say(log io.Writer, r result) {
	if r.outcome == events.Success {
		fmt.Fprintf(log, "ok: %s\n", r.name)
		return
	}
	fmt.Fprintf(log, "FAILED: %s: %s\n", r.name, r.why)
}

// fencedOr prefers the reason for which the work was stopped.
func (s *Service) fencedOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// instances prefers the table, which has an instance's address after a restart, to what the slot says.
func (s *Service) instances(ctx context.Context, place discovery.Place, t trial) []events.Instance {
	e, err := s.table.Get(ctx, place)
	if err == nil && e.Slot == t.slot.N && len(e.Instances) > 0 {
		return e.Instances
	}
	return t.slot.Instances
}

// verifies reports whether the policy that the run pins has the environment's checks run.
func (s *Service) verifies(t trial) bool {
	p, err := policy.ParseText(s.rt.Fold.Policy(t.run.Policy))
	return err != nil || p.Verifies(t.slot.Defined())
}

// fenced returns a context that ends with errFenced as soon as the verification no longer counts.
func (s *Service) fenced(ctx context.Context, place discovery.Place, t trial) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for seq := uint64(0); ; {
			a, err := s.rt.Fold.WaitApp(ctx, place.App, seq)
			if err != nil {
				return
			}
			seq = a.Seq
			if now, ok := decide(a, place.Env); !ok || now.slot.N != t.slot.N || now.attempt != t.attempt {
				cancel(errFenced)
				return
			}
		}
	})
	return ctx, func() {
		cancel(nil)
		watching.Wait()
	}
}

// giveUp records that no result could be had.
func (s *Service) giveUp(ctx context.Context, m worker.Message, last error) error {
	place, ok := concerns(m.Record)
	if !ok {
		return nil
	}
	t, ok := decide(s.rt.Fold.App(place.App), place.Env)
	if !ok {
		return nil
	}
	return recorder{book: s.rt, trial: t}.finished(ctx, events.Error, &events.Trouble{
		What: fmt.Sprintf("verifying %s in %s", t.run.Name(), place.Env), Why: last.Error(), Tries: m.Failed,
		Do: t.run.ReplayCommand(fold.StageVerify, place.Env),
	})
}

// book is what a recorder writes to: the service's runtime.
type book interface {
	// Append stores an event and returns once the fold has it, as worker.Runtime's method does.
	Append(ctx context.Context, s events.Subject, e events.Event) (ledger.Record, error)
	Epoch() int
}

// recorder writes the events of one verification. An event that is there already is left as it is.
type recorder struct {
	book  book
	trial trial
}

func (r recorder) write(ctx context.Context, check int, b events.Body) error {
	t := r.trial
	subject := events.VerifySubject(r.book.Epoch(), b.Type(), t.run.App, t.run.N, t.slot.Environment, t.slot.N, check, t.attempt)
	return r.append(ctx, subject, b)
}

func (r recorder) append(ctx context.Context, subject events.Subject, b events.Body) error {
	_, err := r.book.Append(ctx, subject, events.New(events.Verify, time.Now(), r.trial.run.ChainID, b, events.Path(r.trial.slot.DecidedID)))
	var exists *ledger.ExistsError
	if errors.As(err, &exists) {
		return nil
	}
	return err
}

func (r recorder) id() string {
	return fmt.Sprintf("%s/%s/%d", r.trial.run.Name(), r.trial.slot.Environment, r.trial.slot.N)
}

func (r recorder) details(trouble *events.Trouble) events.Trial {
	return events.Trial{Slot: r.trial.slot.N, Attempt: r.trial.attempt, Digest: r.trial.slot.Digest, Trouble: trouble}
}

func (r recorder) environment() events.Reference {
	return events.Reference{ID: string(r.trial.slot.Environment)}
}

func (r recorder) started(ctx context.Context) error {
	t := r.trial
	if t.replay != nil {
		b := &events.StageReplayed{About: events.About{ID: r.id()}, Stage: fold.StageVerify, Environment: t.slot.Environment, Attempt: t.attempt}
		subject := events.StageReplayedSubject(r.book.Epoch(), events.Verify, t.run.App, t.run.N, t.slot.Environment, fold.StageVerify, t.attempt)
		if err := r.append(ctx, subject, b); err != nil {
			return err
		}
	}
	return r.write(ctx, 0, &events.TestSuiteRunStarted{About: events.About{ID: r.id()}, Environment: r.environment(), Trial: r.details(nil)})
}

func (r recorder) checked(ctx context.Context, n int, check result) error {
	return r.write(ctx, n, &events.TestCaseRunFinished{
		About: events.About{ID: fmt.Sprintf("%s/%d", r.id(), n)}, Environment: r.environment(),
		TestSuiteRun: &events.Reference{ID: r.id()},
		TestCase:     &events.TestCase{ID: fmt.Sprint(n), Name: check.name, Type: "functional"},
		Outcome:      check.outcome, Reason: check.why, Trial: r.details(nil),
	})
}

// skipped says of each check that it was not run, under the number that it would have had after health, and of
// the whole that nobody verified anything.
func (r recorder) skipped(ctx context.Context) error {
	details := r.details(nil)
	details.Skipped = r.trial.skip
	for n, check := range r.trial.checks {
		err := r.write(ctx, n+2, &events.TestCaseRunSkipped{
			About: events.About{ID: fmt.Sprintf("%s/%d", r.id(), n+2)}, Environment: r.environment(),
			TestSuiteRun: &events.Reference{ID: r.id()},
			TestCase:     &events.TestCase{ID: fmt.Sprint(n + 2), Name: check.String(), Type: "functional"},
			Reason:       r.trial.skip.Reason, Trial: details,
		})
		if err != nil {
			return err
		}
	}
	return r.write(ctx, 0, &events.TestSuiteRunFinished{
		About: events.About{ID: r.id()}, Environment: r.environment(), Outcome: events.Cancel,
		Reason: fmt.Sprintf("%s skipped it: %s", r.trial.skip.Actor, r.trial.skip.Reason), Trial: details,
	})
}

func (r recorder) finished(ctx context.Context, o events.Outcome, trouble *events.Trouble) error {
	b := &events.TestSuiteRunFinished{About: events.About{ID: r.id()}, Environment: r.environment(), Outcome: o, Trial: r.details(trouble)}
	if trouble != nil {
		b.Reason = trouble.String()
	}
	return r.write(ctx, 0, b)
}
