// Package build is the service that makes images: it fetches the exact commit of a run, builds it with
// BuildKit in the build engine, has it pushed to the registry, signs how it was built, and says so in the
// ledger.
//
// It guarantees that an artifact.published names an image that is in the registry with this service's
// signed provenance beside it, that the same tree is not built twice unless asked for, and that every
// attempt ends: with an image, with the line of the Dockerfile that failed, or with what an operator has
// to mend. It does not judge what it builds: that is vet's part.
package build

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/source"
	"towpath.dev/pkg/worker"
	"towpath.dev/pkg/worker/boundary"
)

// Deps are what the service works with.
type Deps struct {
	Runtime  *worker.Runtime  // opened as identity "build"
	Registry *registry.Client // nil: one with the credentials of Docker's configuration file
}

// Service builds.
type Service struct {
	cfg     Config
	rt      *worker.Runtime
	effects effects
	slots   chan struct{} // holds one token for each build that runs

	mu   sync.Mutex
	runs map[string]*inProgress // by run name
}

// inProgress is a run that this process works on.
type inProgress struct {
	handlers int           // that work on the run, or wait to; guarded by Service.mu
	turn     chan struct{} // holds a token while a handler works on the run, which has the rest
	log      io.WriteCloser
	key      ledger.LogKey // of log
	baseless int           // tries in a row that found no answer about a base image
}

// New validates and does no IO.
func New(cfg Config, deps Deps) (*Service, error) {
	platform := deps.Runtime.Platform
	if cfg.Registry == "" {
		cfg.Registry = platform.Registry.Address
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if deps.Registry == nil {
		deps.Registry = registry.New(registry.Options{})
	}
	b := platform.Engines.Build
	host := engine.Host{URL: b.Host, TLS: engine.TLS(b.TLS), Publish: b.Publish, Dedicated: b.Dedicated}
	if err := host.Validate(); err != nil {
		return nil, fmt.Errorf("engines.build: %w", err)
	}
	return &Service{
		cfg: cfg, rt: deps.Runtime, slots: make(chan struct{}, cfg.Concurrency), runs: map[string]*inProgress{},
		effects: effects{
			cfg: cfg, platform: platform, fleet: engine.NewFleet(host, host, nil), registry: deps.Registry,
			signer: deps.Runtime.Ledger.Signer(), trust: deps.Runtime.Ledger.Trust(),
		},
	}, nil
}

// Messages are taken beyond the builds that run, so that a build which has to wait can say so, and a
// cancellation is never behind a build.
const (
	messages = 64
	// tries at one attempt, with pauses that grow to 30 s, cover about three minutes without engine or
	// registry; then an operator is needed.
	tries = 13
	// baseTries are enough where the engine and our registry answer, and only that of a base image does not.
	baseTries = 3
)

// Run builds until ctx ends; builds that are under way then have 20 s to end, and are begun again at the
// next start.
func (s *Service) Run(ctx context.Context) error {
	defer s.effects.fleet.Close()
	if err := os.MkdirAll(s.cfg.Work, 0o700); err != nil {
		return fmt.Errorf("making the folder for sources: %w", err)
	}
	if err := sweep(s.cfg.Work); err != nil {
		return fmt.Errorf("clearing the folder for sources: %w", err)
	}
	return s.rt.Consume(ctx, worker.Consumer{
		Durable: "build", Concurrency: messages, MaxAttempts: tries, GiveUp: s.giveUp,
	}, s)
}

// Handle brings the runs that the event is about as far as build can.
func (s *Service) Handle(ctx context.Context, m worker.Message) error {
	var work sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, t := range s.targets(m.Record) {
		work.Go(func() {
			err := s.exclusively(ctx, t, func(p *inProgress) error { return s.advance(ctx, t, p) })
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

// targets are the runs that an event may have given build something to do for.
func (s *Service) targets(r ledger.Record) []target {
	apps := s.rt.Fold.Apps()
	var all []target
	for _, a := range apps {
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
func (s *Service) exclusively(ctx context.Context, t target, f func(*inProgress) error) error {
	name := fold.Name(t.app, t.run)
	s.mu.Lock()
	p := s.runs[name]
	if p == nil {
		p = &inProgress{turn: make(chan struct{}, 1)}
		s.runs[name] = p
	}
	p.handlers++
	s.mu.Unlock()
	var err error
	select {
	case p.turn <- struct{}{}:
		err = f(p)
		<-p.turn
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.handlers--; p.handlers == 0 && p.log == nil {
		delete(s.runs, name)
	}
	return err
}

// advance decides and acts until there is nothing to do.
func (s *Service) advance(ctx context.Context, t target, p *inProgress) error {
	for {
		a := s.rt.Fold.App(t.app)
		run := a.Run(t.run)
		if run == nil {
			return fmt.Errorf("run %s is unknown", fold.Name(t.app, t.run))
		}
		d := decide(a, run)
		record := recorder{book: s.rt, run: run, attempt: d.attempt}
		boundary.Reached(events.Build, boundary.Decided, t.app)
		switch d.action {
		case rest:
			return nil
		case finish:
			p.closeLog()
			return record.finished(ctx, d.outcome, run.ArtifactID)
		case stop:
			if err := record.ended(ctx, events.Cancel, events.Trouble{What: "building the image", Why: d.why}); err != nil {
				return err
			}
		case make_:
			if err := s.attempt(ctx, record, d, p); err != nil && !errors.Is(err, errFenced) {
				return err
			}
		}
	}
}

// errFenced is the cause of a build's context when the ledger says that the attempt is not to go on.
var errFenced = errors.New("the attempt was cancelled or replayed")

// attempt builds, and records how that ended. An error means that the attempt has not ended.
func (s *Service) attempt(ctx context.Context, record recorder, d decision, p *inProgress) error {
	ctx, done := s.fenced(ctx, record)
	defer done()
	release, err := s.slot(ctx, record)
	if err != nil {
		return err
	}
	defer release()
	if err := record.started(ctx, d.replay); err != nil {
		return err
	}
	log := p.openLog(s.rt, record)
	j := s.job(record, d)
	made, err := s.perform(ctx, j, log)
	boundary.Reached(events.Build, boundary.Effect, j.app)
	var f *Fault
	switch {
	case err == nil:
		return s.publish(ctx, record, j, made)
	case errors.As(err, &f) && ctx.Err() == nil:
		fmt.Fprintf(log, "ERROR: %s\n", f)
		return record.ended(ctx, f.Outcome, f.Trouble)
	case errors.Is(context.Cause(ctx), errFenced):
		fmt.Fprintf(log, "stopped: %s\n", errFenced)
		return errFenced
	}
	if base, ok := errors.AsType[*unreachableBase](err); ok {
		if p.baseless++; p.baseless >= baseTries {
			fmt.Fprintf(log, "ERROR: %s\n", base)
			return record.ended(ctx, events.Error, base.trouble)
		}
	}
	fmt.Fprintf(log, "interrupted, to be tried again: %v\n", err)
	return err
}

// perform makes the image within the build's time.
func (s *Service) perform(ctx context.Context, j job, log io.Writer) (product, error) {
	asked := time.Duration(j.definition.Build.Timeout)
	allowed := s.rt.Platform.BuildTimeout(asked)
	slow := &timeoutError{limit: allowed.String() + " (the platform's limit)", do: "make the build faster and push, or ask the platform's operator for more time"}
	if allowed == asked {
		slow = &timeoutError{limit: allowed.String() + " (build.timeout in towpath.yaml)", do: "make the build faster, or raise build.timeout, and push"}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, allowed, slow)
	defer cancel()
	made, err := s.effects.perform(ctx, j, log)
	if err != nil && faultOf(err) == nil && errors.Is(context.Cause(ctx), slow) {
		err = authorActs(events.Trouble{What: "building the image", Why: slow.Error(), Do: slow.do})
	}
	return made, err
}

// job reads what is to be built out of the run.
func (s *Service) job(record recorder, d decision) job {
	run := record.run
	j := job{
		app: run.App, run: run.N, attempt: d.attempt, chainID: run.ChainID, definition: run.Definition, fresh: d.fresh,
		source: origin{repository: run.Start.RepositoryURL, ref: run.Start.Ref, commit: run.Start.SHA},
	}
	if j.source.repository == "" {
		j.source.repository = source.URL(s.cfg.Gateway, run.App)
		password := source.Password(s.rt.Ledger.Signer(), run.App, time.Now())
		j.source.authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(source.User+":"+password))
	}
	return j
}

// publish names the image in the ledger. Where another try at the attempt has named another image first,
// that one, which is as whole, is taken.
func (s *Service) publish(ctx context.Context, record recorder, j job, made product) error {
	fixed, err := record.packaged(ctx, made.artifact, j.source.repository)
	if errors.Is(err, errOtherPackaged) {
		made, err = s.effects.recall(ctx, j, fixed)
	}
	if err != nil {
		return err
	}
	return record.published(ctx, made)
}

// slot takes one of the places for builds that run. One that has to wait says so.
func (s *Service) slot(ctx context.Context, record recorder) (release func(), err error) {
	release = func() { <-s.slots }
	select {
	case s.slots <- struct{}{}:
		return release, nil
	default:
	}
	if err := record.queued(ctx); err != nil {
		return nil, err
	}
	select {
	case s.slots <- struct{}{}:
		return release, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
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
			if decide(a, a.Run(record.run.N)).overtaken(record.attempt) {
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
		if d.action != make_ {
			continue
		}
		record := recorder{book: s.rt, run: run, attempt: d.attempt}
		trouble := events.Trouble{What: "building the image", Why: shorten(last.Error()), Tries: m.Failed}
		if err := record.ended(ctx, events.Error, trouble); err != nil {
			return err
		}
		if err := record.finished(ctx, events.Error, ""); err != nil {
			return err
		}
	}
	return nil
}

// openLog returns the attempt's log, which stays open between tries.
func (p *inProgress) openLog(rt *worker.Runtime, record recorder) io.Writer {
	key := ledger.LogKey{Service: string(events.Build), App: record.run.App, Run: record.run.N, Stage: fold.StageBuild, Attempt: record.attempt}
	if p.log == nil || p.key != key {
		p.closeLog()
		p.log, p.key, p.baseless = rt.Ledger.Log(key), key, 0
	}
	return p.log
}

func (p *inProgress) closeLog() {
	if p.log != nil {
		p.log.Close()
		p.log = nil
	}
}
