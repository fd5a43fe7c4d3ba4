// Package promote is the service that takes vetted artifacts through an app's environments, one after the
// other: it asks for approvals, waits for settings, brings up new replicas, switches the traffic, keeps the
// version before until the new one is verified, and brings it back where it is not.
//
// It guarantees that traffic rests on the greatest live slot of the ledger and on nothing else, that the
// digest which is deployed is the digest that was vetted and verified in the environments before, that no
// run replaces a newer one, or a version that an operator brought back, by itself, and that a crash
// between any two steps is repaired by deciding again. It does not check that a version works beyond its
// health: that is verify's part.
package promote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/discovery/catalog"
	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pause"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/settings/alarms"
	"towpath.dev/pkg/settings/providers"
	"towpath.dev/pkg/worker"
	"towpath.dev/services/promote/deploy"
)

// Deps are what the service works with.
type Deps struct {
	Runtime *worker.Runtime // opened as identity "promote"
	// Effects stand in for the engines that the platform names; nil means those.
	Effects Effects
	// Registry finds credentials; nil: those of Docker's configuration file.
	Registry *registry.Client
}

// Service promotes.
type Service struct {
	cfg      Config
	rt       *worker.Runtime
	fleet    *engine.Fleet
	registry *registry.Client
	settings *settings.Store
	promoter *promoter
	catalog  *catalog.Catalog // nil where effects stand in for the engines
	// keepStores keeps the logins of the stores of settings alive.
	keepStores func() (leave func())
}

// New validates and reads the key of the settings; it does no other IO.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	key, err := identity.LoadSettingsKey(deps.Runtime.Keys)
	if err != nil {
		return nil, fmt.Errorf("promote: %w", err)
	}
	rt := deps.Runtime
	store, keep, err := providers.Open(providers.Options{
		Client: rt.Ledger, Key: key, Platform: rt.Platform, Service: events.Promote, Logger: rt.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("promote: %w", err)
	}
	s := &Service{cfg: cfg.withDefaults(), rt: rt, registry: deps.Registry, settings: store, keepStores: keep}
	if s.registry == nil {
		s.registry = registry.New(registry.Options{})
	}
	s.promoter = &promoter{
		epoch: rt.Ledger.Epoch(), url: s.cfg.Gateway, ledger: follower{rt}, effects: deps.Effects, turns: newTurns(),
		gates: newRules(rt.Fold, store), logger: rt.Logger,
	}
	return s, nil
}

// Run promotes until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	defer s.keepStores()() // work under way needs them after ctx has ended
	if s.promoter.effects == nil {
		// The ledger's id, which names what this installation makes on engines, is that of its first event.
		if err := s.rt.Fold.Wait(ctx, 1); err != nil {
			return nil
		}
		deployer, err := s.connect()
		if err != nil {
			return err
		}
		defer s.fleet.Close()
		quiet, err := s.answerInventories(ctx, deployer)
		if err != nil {
			return err
		}
		defer quiet()
	}
	deaf, err := s.answerRedactions(ctx)
	if err != nil {
		return err
	}
	defer deaf()
	s.rt.OnRebuild(s.rebuildTable)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var looking sync.WaitGroup
	defer looking.Wait()
	defer stop()
	looking.Go(func() { s.lookAround(ctx) })
	looking.Go(func() { s.followStores(ctx) })
	looking.Go(func() { alarms.Keep(ctx, s.rt, s.settings, events.Promote) })
	return s.rt.Consume(ctx, worker.Consumer{
		Durable: "promote", Concurrency: s.cfg.Concurrency, MaxAttempts: s.cfg.MaxAttempts,
		GiveUp: s.giveUp, DrainTimeout: s.cfg.DrainTimeout,
	}, s)
}

// installID is how many digits of the ledger's id name the installation.
const installID = 8

func (s *Service) connect() (*deploy.Deployer, error) {
	s.fleet = engine.FleetOf(s.rt.Platform.Engines)
	table, install := discovery.Open(s.rt.Ledger), s.rt.Fold.LedgerID()[:installID]
	s.catalog = catalog.New(install, s.cfg.Domain, s.rt.Platform, table)
	deployer, err := deploy.New(
		deploy.Config{Install: install, Domain: s.cfg.Domain},
		deploy.Deps{
			Engines: s.fleet, Table: table, Catalog: s.catalog, Access: access(s.settings), Bus: s.rt.Ledger.Conn(), Logger: s.rt.Logger,
		},
	)
	if err != nil {
		return nil, fmt.Errorf("promote: %w", err)
	}
	s.promoter.effects = &engines{
		install: install, deployer: deployer, table: table, settings: s.settings, registry: s.registry, ledger: s.rt.Ledger, logger: s.rt.Logger,
	}
	return deployer, nil
}

// Handle does all that there is to do for the app that the event is about, or for every app.
func (s *Service) Handle(ctx context.Context, m worker.Message) error {
	if app := m.Record.Subject.App; app != "" {
		return patient(errors.Join(s.settle(ctx, app), s.settleEnvironments(ctx)))
	}
	return s.settleEverything(ctx)
}

// settleEverything goes through all environments that somebody made, and all apps: the apps have their plans from the
// first look at the environments, and may have left one with nothing for the second.
func (s *Service) settleEverything(ctx context.Context) error {
	return patient(errors.Join(s.settleEnvironments(ctx), s.settleAll(ctx), s.settleEnvironments(ctx)))
}

// storePause is after how long a store of settings that does not answer is asked again.
const storePause = 5 * time.Second

// patient has a message that only waits for stores of settings tried again until they answer, however long that
// takes: the stage's deadline tells an operator, and a store that is back finds the stage where it was.
func patient(err error) error {
	if !storesAlone(err) {
		return err
	}
	return worker.RetryAfter(err, storePause)
}

// storesAlone reports whether an error says of stores of settings that they do not answer, and nothing else.
func storesAlone(err error) bool {
	switch e := err.(type) {
	case nil:
		return false
	case *settings.UnavailableError:
		return true
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(e.Unwrap(), func(one error) bool { return !storesAlone(one) })
	}
	return storesAlone(errors.Unwrap(err))
}

// unavailable reports whether an error says that a store of settings does not answer.
func unavailable(err error) bool {
	var away *settings.UnavailableError
	return errors.As(err, &away)
}

// settleAll goes through all apps, some at a time.
func (s *Service) settleAll(ctx context.Context) error {
	var mu sync.Mutex
	var errs []error
	var work sync.WaitGroup
	places := make(chan struct{}, s.cfg.Concurrency)
	for _, a := range s.rt.Fold.Apps() {
		places <- struct{}{}
		work.Go(func() {
			defer func() { <-places }()
			if err := s.settle(ctx, a.Name); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

// settle does all that there is to do for an app, in its environments side by side: one that is slow or
// whose engine is away does not hold up the others.
func (s *Service) settle(ctx context.Context, app events.Slug) error {
	r := &round{promoter: s.promoter, app: app}
	r.all(ctx, "")
	r.work.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.errs...)
}

// round is one look at an app.
type round struct {
	promoter *promoter
	app      events.Slug
	work     sync.WaitGroup
	mu       sync.Mutex
	errs     []error
}

// all settles every environment but one.
func (r *round) all(ctx context.Context, but events.Slug) {
	a := r.promoter.ledger.App(r.app)
	if a == nil {
		return
	}
	for _, env := range Environments(a) {
		if env == but {
			continue
		}
		r.work.Go(func() {
			err := r.promoter.settle(ctx, Place{r.app, env}, func() { r.all(ctx, env) })
			if err != nil {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.errs = append(r.errs, err)
			}
		})
	}
}

// giveUp ends what could not be carried out, and does what there is to do after that.
func (s *Service) giveUp(ctx context.Context, m worker.Message, last error) error {
	for _, failed := range stepErrors(last) {
		if unavailable(failed) {
			continue
		}
		failed.Tries = m.Failed
		if err := s.promoter.giveUp(ctx, failed); err != nil {
			return err
		}
	}
	if err := s.Handle(ctx, m); err != nil {
		s.rt.Logger.Warn("after giving up, left to the next look", "err", err)
	}
	return nil
}

// stepErrors finds every StepError in a joined error.
func stepErrors(err error) []*StepError {
	switch e := err.(type) {
	case *StepError:
		return []*StepError{e}
	case interface{ Unwrap() []error }:
		var all []*StepError
		for _, one := range e.Unwrap() {
			all = append(all, stepErrors(one)...)
		}
		return all
	case interface{ Unwrap() error }:
		return stepErrors(e.Unwrap())
	}
	return nil
}

// rebuildTable throws the table of what gets traffic away, which is a projection of the ledger, and writes it anew:
// slots, digests and instances as the ledger has them, addresses as the engines do. An edge that runs sends requests
// on where it did meanwhile.
func (s *Service) rebuildTable(ctx context.Context) error {
	table := discovery.Open(s.rt.Ledger)
	entries, err := table.List(ctx)
	for p := range entries {
		if err == nil {
			err = table.Clear(ctx, p)
		}
		for err == nil && !s.promoter.turns.forgetSwitch(Place{p.App, p.Env}) {
			err = pause.For(ctx, turnPause)
		}
	}
	if err == nil {
		err = s.settleAll(ctx)
	}
	if err != nil {
		return fmt.Errorf("rebuilding the table of what gets traffic: %w", err)
	}
	s.healAll(ctx)
	return nil
}

// turnPause is the pause after which it is looked again whether a place is free.
const turnPause = 20 * time.Millisecond

// lookAround looks at everything when the service starts, and then every LookEvery: the ledger may say
// what nobody has carried out, and engines may have lost what was. It looks again soon where that has to tell whether
// something was changed behind our back.
func (s *Service) lookAround(ctx context.Context) {
	for {
		for _, a := range s.rt.Fold.Apps() {
			for _, env := range Environments(a) {
				s.promoter.turns.retryCleaning(Place{a.Name, env})
			}
		}
		if err := s.settleEverything(ctx); err != nil && ctx.Err() == nil {
			s.rt.Logger.Warn("looking around: not all could be done, to be tried again", "err", err)
		}
		s.healAll(ctx)
		s.sweep(ctx)
		s.reconcileCatalog(ctx)
		if err := s.settleEnvironments(ctx); err != nil && ctx.Err() == nil {
			s.rt.Logger.Warn("looking around: an environment is left to the next look", "err", err)
		}
		wait := s.cfg.LookEvery
		if s.promoter.turns.unsure() {
			wait = min(wait, fresh)
		}
		if s.rest(ctx, wait) != nil {
			return
		}
	}
}

// endingPause is how often environments are looked at that are being destroyed.
const endingPause = 5 * time.Second

// rest waits for the next look around. What is being destroyed is looked at meanwhile: nothing tells when its settings are
// gone where the gateway was killed over removing them.
func (s *Service) rest(ctx context.Context, wait time.Duration) error {
	for end := time.Now().Add(wait); ; {
		if err := pause.For(ctx, min(time.Until(end), endingPause)); err != nil || !time.Now().Before(end) {
			return err
		}
		if !slices.ContainsFunc(s.rt.Fold.Environments(), func(e *fold.Environment) bool { return e.Ending != nil && !e.Gone }) {
			continue
		}
		if err := s.settleEnvironments(ctx); err != nil && ctx.Err() == nil {
			s.rt.Logger.Warn("an environment is not gone yet, to be looked at again", "err", err)
		}
	}
}

func (s *Service) healAll(ctx context.Context) {
	for _, a := range s.rt.Fold.Apps() {
		for _, env := range Environments(a) {
			if ctx.Err() != nil {
				return
			}
			if err := s.promoter.heal(ctx, Place{a.Name, env}); err != nil && ctx.Err() == nil {
				s.rt.Logger.Warn("looking after replicas, to be tried again", "app", a.Name, "env", env, "err", err)
			}
		}
	}
}

// sweep takes away what a process that was behind has brought up in environments that were gone by then, or has published
// of them.
func (s *Service) sweep(ctx context.Context) {
	var gone []events.Slug
	for _, e := range s.rt.Fold.Environments() {
		if e.Gone {
			gone = append(gone, e.Name)
		}
	}
	if len(gone) == 0 {
		return
	}
	left, err := s.promoter.effects.Left(ctx, gone)
	for _, env := range left {
		last := map[events.Slug]int{}
		for _, app := range s.everIn(env) {
			if e := s.rt.Fold.App(app).Env(env); e.Gone { // and not made again meanwhile
				last[app] = e.Slots.Len()
			}
		}
		err = errors.Join(err, s.promoter.effects.Raze(ctx, env, last))
	}
	if err != nil && ctx.Err() == nil {
		s.rt.Logger.Warn("looking after environments that are gone, to be tried again", "err", err)
	}
}

// reconcileCatalog has Consul's catalog catch up with the table, and takes out of it what a crash has left.
func (s *Service) reconcileCatalog(ctx context.Context) {
	if s.catalog == nil {
		return
	}
	if err := s.catalog.Reconcile(ctx); err != nil && ctx.Err() == nil {
		s.rt.Logger.Warn("looking after Consul's catalog, to be tried again", "err", err)
	}
}

// follower is the ledger as the runtime follows it.
type follower struct{ rt *worker.Runtime }

// App implements Ledger.
func (f follower) App(name events.Slug) *fold.App { return f.rt.Fold.App(name) }

// Append implements Ledger.
func (f follower) Append(ctx context.Context, s events.Subject, e events.Event) (ledger.Record, error) {
	return f.rt.Append(ctx, s, e)
}

// Undecided implements Ledger.
func (f follower) Undecided(ctx context.Context, at Place, slot int) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for seq := uint64(0); ; {
			a, err := f.rt.Fold.WaitApp(ctx, at.App, seq)
			if err != nil {
				return
			}
			seq = a.Seq
			if s := a.Env(at.Env).Slot(slot); s != nil && s.Decision != "" {
				cancel(errDecided)
				return
			}
		}
	})
	return ctx, func() {
		cancel(context.Canceled)
		watching.Wait()
	}
}
