// Package vet is the service that looks into images before anybody runs them: what they consist of and
// under which licences, what they stand on, and who built them from what. It judges that by the policy
// that the run pinned, for each environment, and keeps SBOM and signed verdict beside the image.
//
// It guarantees that every verdict is about the digest that the run's artifact names, under the policy text
// of the digest that the run pinned, and can be proven from the registry; that an image which cannot be
// read or analysed never passes; and that every attempt ends. What it does not know it says. It stops
// nothing itself: promote acts on the verdict.
package vet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/worker"
	"towpath.dev/pkg/worker/boundary"
	"towpath.dev/services/vet/contents"
	"towpath.dev/services/vet/inventory"
	"towpath.dev/services/vet/layers"
)

// Deps are what the service works with.
type Deps struct {
	Runtime  *worker.Runtime  // opened as identity "vet"
	Registry *registry.Client // nil: one with the credentials of Docker's configuration file
}

// Service vets.
type Service struct {
	cfg     Config
	rt      *worker.Runtime
	effects effects
	places  chan struct{} // holds one token for each image that is looked at

	mu   sync.Mutex
	runs map[string]*turn // by run name
}

// turn lets one handler after the other work on a run.
type turn struct {
	handlers int           // that work on the run, or wait to; guarded by Service.mu
	token    chan struct{} // holds a token while one works on it
}

// New validates and does no IO.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if deps.Registry == nil {
		deps.Registry = registry.New(registry.Options{})
	}
	limits := deps.Runtime.Platform.Limits
	return &Service{
		cfg: cfg, rt: deps.Runtime, places: make(chan struct{}, cfg.Concurrency), runs: map[string]*turn{},
		effects: effects{
			cfg: cfg, limits: layers.Limits{Bytes: limits.Image, Files: limits.Files}, registry: deps.Registry,
			signer: deps.Runtime.Ledger.Signer(), trust: deps.Runtime.Ledger.Trust(), taker: &inventory.Taker{},
			files: &files{platform: deps.Runtime.Platform.Vet, limits: contents.Limits{Bytes: limits.Image, Files: limits.Files}},
		},
	}, nil
}

const (
	// messages are taken beyond the images that are looked at, so that a cancellation waits for none.
	messages = 32
	// tries at one attempt, with pauses that grow to 30 s, cover about three minutes without a registry;
	// then an operator is needed.
	tries = 13
	// settling is how long after a start what lay meanwhile is taken up, by this service and those beside it, before
	// vet uses a processor for what no image has asked for yet.
	settling = 5 * time.Second
)

// Run vets until ctx ends; what is under way then has 20 s to end, and is begun again at the next start.
func (s *Service) Run(ctx context.Context) error {
	work, done, err := openWork(s.cfg.Work)
	if err != nil {
		return err
	}
	defer done()
	s.effects.work = work
	if _, err := contents.LoadSignatures(s.rt.Platform.Vet.Signatures); err != nil {
		return err // before an image waits for it
	}
	var preparing sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	defer func() { stop(); preparing.Wait() }()
	preparing.Go(func() {
		select {
		case <-time.After(settling):
		case <-ctx.Done():
			return
		}
		if err := s.effects.taker.Prepare(); err != nil {
			s.rt.Logger.Error("licence texts will not be recognised", "err", err)
		}
	})
	return s.rt.Consume(ctx, worker.Consumer{Durable: "vet", Concurrency: messages, MaxAttempts: tries, GiveUp: s.giveUp}, s)
}

// Handle brings the runs that the event is about as far as vet can.
func (s *Service) Handle(ctx context.Context, m worker.Message) error {
	var work sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, t := range s.targets(m.Record) {
		work.Go(func() {
			err := s.exclusively(ctx, t, func() error { return s.advance(ctx, t) })
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

// target is a run.
type target struct {
	app events.Slug
	run int
}

// targets are the runs that an event may have given vet something to do for.
func (s *Service) targets(r ledger.Record) []target {
	var all []target
	for _, a := range s.rt.Fold.Apps() {
		if r.Subject.App != "" && r.Subject.App != a.Name {
			continue
		}
		for _, n := range woken(a, r.Event, r.Subject.Run) {
			all = append(all, target{a.Name, n})
		}
	}
	return all
}

// exclusively keeps two messages from working on the same run in this process at once.
func (s *Service) exclusively(ctx context.Context, t target, f func() error) error {
	name := fold.Name(t.app, t.run)
	s.mu.Lock()
	mine := s.runs[name]
	if mine == nil {
		mine = &turn{token: make(chan struct{}, 1)}
		s.runs[name] = mine
	}
	mine.handlers++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if mine.handlers--; mine.handlers == 0 {
			delete(s.runs, name)
		}
	}()
	select {
	case mine.token <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-mine.token }()
	return f()
}

// advance decides and acts.
func (s *Service) advance(ctx context.Context, t target) error {
	a := s.rt.Fold.App(t.app)
	run := a.Run(t.run)
	if run == nil {
		return fmt.Errorf("run %s is unknown", fold.Name(t.app, t.run))
	}
	d := decide(a, run)
	record := recorder{book: s.rt, run: run, attempt: d.attempt}
	boundary.Reached(events.Vet, boundary.Decided, t.app)
	switch d.action {
	case judge:
		err := s.attempt(ctx, record, d)
		if errors.Is(err, errFenced) {
			return s.advance(ctx, t)
		}
		return err
	case stop:
		return record.ended(ctx, events.Cancel, events.Trouble{What: "vetting the image", Why: d.why})
	}
	return nil
}

// errFenced is the cause of a context when the ledger says that the attempt is not to go on.
var errFenced = errors.New("the attempt was cancelled or replayed")

// attempt judges, and records how that ended. An error means that the attempt has not ended.
func (s *Service) attempt(ctx context.Context, record recorder, d decision) error {
	ctx, done := s.fenced(ctx, record)
	defer done()
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := record.started(ctx, d.replay); err != nil {
		return err
	}
	log := s.rt.Ledger.Log(ledger.LogKey{
		Service: string(events.Vet), App: record.run.App, Run: record.run.N, Stage: fold.StageVet, Attempt: record.attempt,
	})
	defer log.Close()
	v, err := s.perform(ctx, record, log)
	boundary.Reached(events.Vet, boundary.Effect, record.run.App)
	var f *fault
	switch {
	case err == nil:
		fmt.Fprint(log, v.report.words())
		return record.judged(ctx, v)
	case errors.Is(context.Cause(ctx), errFenced):
		fmt.Fprintf(log, "stopped: %v\n", errFenced)
		return errFenced
	case errors.As(err, &f) && ctx.Err() == nil:
		fmt.Fprintf(log, "ERROR: %s\n", f.trouble)
		return record.ended(ctx, f.outcome, f.trouble)
	}
	fmt.Fprintf(log, "interrupted, to be tried again: %v\n", err)
	return err
}

// fault ends an attempt without a verdict.
type fault struct {
	outcome events.Outcome
	trouble events.Trouble
}

func (f *fault) Error() string { return f.trouble.String() }

// perform judges within the stage's time.
func (s *Service) perform(ctx context.Context, record recorder, log io.Writer) (verdict, error) {
	j, err := s.job(record.run)
	if err != nil {
		return verdict{}, err
	}
	allowed := j.policy.Deadlines.Vet - min(s.cfg.Margin, j.policy.Deadlines.Vet/2)
	slow := &fault{events.Error, events.Trouble{
		What: "vetting the image", On: j.artifact.String(), Why: fmt.Sprintf("it took longer than %s (policy.deadlines.vet in the platform file)", j.policy.Deadlines.Vet),
	}}
	ctx, cancel := context.WithTimeoutCause(ctx, allowed, slow)
	defer cancel()
	v, err := s.effects.perform(ctx, j, log)
	switch {
	case err == nil:
		return v, nil
	case errors.Is(context.Cause(ctx), slow):
		return v, slow
	case errors.Is(err, registry.ErrNotFound):
		return v, missing(record.run, j, err)
	}
	return v, fmt.Errorf("vetting image %s: %w", j.artifact, err)
}

// missing says who has to act when the registry does not have the image.
func missing(run *fold.Run, j job, err error) *fault {
	f := &fault{events.Error, events.Trouble{What: "vetting the image", On: j.artifact.String(), Why: err.Error()}}
	if run.Image {
		f.outcome, f.trouble.Do = events.Failure, "push the image to the registry and submit it again"
	}
	return f
}

// job reads what is to be judged, and by what, out of the run.
func (s *Service) job(run *fold.Run) (job, error) {
	refuse := func(what string, err error) (job, error) {
		return job{}, &fault{events.Error, events.Trouble{What: what, On: run.Name(), Why: err.Error()}}
	}
	repository, err := registry.ParseRepository(run.Artifact.Repository)
	if err != nil {
		return refuse("reading the artifact's name", err)
	}
	digest, err := registry.ParseDigest(run.Artifact.Digest)
	if err != nil {
		return refuse("reading the artifact's name", err)
	}
	text := s.rt.Fold.Policy(run.Policy)
	if text == nil {
		return refuse("reading the policy", fmt.Errorf("the ledger has no policy %s, which the run pins", run.Policy))
	}
	pinned, err := policy.ParseText(text)
	if err != nil {
		return refuse("reading the policy", err)
	}
	judge, err := pinned.Judge()
	if err != nil {
		return refuse("reading the policy", err)
	}
	return job{
		artifact: repository.At(digest), policy: pinned, policyDigest: run.Policy, judge: judge,
		environments: places(s.rt.Fold.App(run.App), run), origin: originOf(run),
	}, nil
}

func originOf(run *fold.Run) origin {
	o := origin{app: run.App, commit: run.Start.SHA, elsewhere: run.Image, provenance: run.Artifact.Provenance}
	if s := run.Definition.Service; s != nil {
		o.health = s.Health.Path != "" || len(s.Health.Command) > 0
	}
	return o
}

// fenced returns a context that ends with errFenced as soon as the ledger says that the attempt is not to
// go on.
func (s *Service) fenced(ctx context.Context, record recorder) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for seq := uint64(0); ; {
			a, err := s.rt.Fold.WaitApp(ctx, record.run.App, seq)
			if err != nil {
				return
			}
			seq = a.Seq
			if overtaken(record.attempt, record.run, a, a.Run(record.run.N)) {
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

// giveUp records that an attempt's tries are used up.
func (s *Service) giveUp(ctx context.Context, m worker.Message, last error) error {
	for _, t := range s.targets(m.Record) {
		a := s.rt.Fold.App(t.app)
		run := a.Run(t.run)
		d := decide(a, run)
		if d.action != judge {
			continue
		}
		record := recorder{book: s.rt, run: run, attempt: d.attempt}
		err := record.ended(ctx, events.Error, events.Trouble{What: "vetting the image", On: run.Artifact.Repository + "@" + run.Artifact.Digest, Why: last.Error(), Tries: m.Failed})
		if err != nil {
			return err
		}
	}
	return nil
}
