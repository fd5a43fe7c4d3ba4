package towpath

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/bus"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/registry/registryserver"
	"towpath.dev/pkg/wholefile"
	"towpath.dev/pkg/worker"
)

// Deps are what the process works with.
type Deps struct {
	Logger *slog.Logger
	// Ready, where not nil, is called once everything answers.
	Ready func(Place)
}

// Service is everything in one process.
type Service struct {
	cfg   Config
	deps  Deps
	group *group

	platform *policy.Platform
	bus      *bus.Server
	entry    *operatorsEntry
	registry *registryserver.Server
	runtimes []*worker.Runtime
	clients  []*ledger.Client
	fold     *fold.Fold      // the gateway's
	trust    *identity.Trust // of all services: a signature that one has verified the others need not verify again
	place    Place
}

// New validates and does no IO.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Logger == nil {
		deps.Logger = slog.Default()
	}
	return &Service{cfg: cfg.withDefaults(), deps: deps, group: newGroup(deps.Logger)}, nil
}

// Run starts everything and blocks until ctx ends or a part fails; then it drains. The error is an
// *InUseError where another process has the data folder.
func (s *Service) Run(ctx context.Context) error {
	if err := os.MkdirAll(s.cfg.Data, 0o700); err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	release, err := lock(s.cfg.Data, s.cfg.lockFile())
	if err != nil {
		return err
	}
	defer release()
	err = s.start(ctx)
	if err == nil {
		if s.deps.Ready != nil {
			s.deps.Ready(s.place)
		}
		select {
		case <-ctx.Done():
		case err = <-s.group.failed:
			s.deps.Logger.Error("a part ended; stopping the others", "err", err)
		}
	} else if ctx.Err() != nil {
		err = nil // told to stop before everything was up
	}
	return errors.Join(err, s.stop())
}

// start brings the parts up in the order in which they need each other.
func (s *Service) start(ctx context.Context) error {
	began := time.Now()
	for _, step := range []func(context.Context) error{s.prepare, s.startBus, s.startRegistry, s.startServices, s.announce} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	s.deps.Logger.Info("everything runs", "data", s.cfg.Data, "gateway", s.cfg.Listen, "edge", s.cfg.EdgeListen,
		"registry", s.place.Registry, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// prepare settles what needs no other part: addresses, keys, the platform file.
func (s *Service) prepare(context.Context) error {
	if err := s.cfg.settleAddresses(); err != nil {
		return err
	}
	if err := identity.Init(s.cfg.keys()); err != nil {
		return err
	}
	trust, err := identity.LoadTrust(filepath.Join(s.cfg.keys(), identity.TrustFile))
	if err != nil {
		return err
	}
	s.trust = trust
	path := filepath.Join(s.cfg.Data, policy.FileName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := wholefile.Write(path, []byte(FirstPlatform()), 0o600); err != nil {
			return err
		}
	}
	platform, err := policy.Load(path)
	s.platform = platform
	return err
}

func (s *Service) startBus(ctx context.Context) error {
	server, err := bus.Start(bus.Config{StoreDir: s.cfg.busStore(), Listen: s.cfg.BusListen, Keys: s.cfg.keys(), Logger: s.deps.Logger})
	if err != nil {
		return err
	}
	s.bus = server
	if err := s.openOperatorsEntry(); err != nil {
		return err
	}
	s.group.start("bus", func(ctx context.Context) error { server.KeepUp(ctx); return nil })
	return ledger.Provision(ctx, ledger.Options{
		InProcess: server, Service: string(events.Operator), Keys: s.cfg.keys(), Logger: s.deps.Logger, AckWait: s.cfg.AckWait,
	})
}

// startRegistry runs the registry inside, unless the platform names one elsewhere.
func (s *Service) startRegistry(context.Context) error {
	s.place.Registry = s.platform.Registry.Address
	if s.place.Registry != "" {
		return nil
	}
	server, err := registryserver.Start(registryserver.Config{Dir: s.cfg.registryStore(), Listen: s.cfg.RegistryListen, Logger: s.deps.Logger})
	if err != nil {
		return err
	}
	s.registry = server
	s.place.Registry = server.Addr()
	platform := *s.platform
	platform.Registry.Address = server.Addr()
	s.platform = &platform
	return nil
}

// installDigits is how much of the ledger's id names the installation on Engines.
const installDigits = 8

// announce writes down where everything is, the URL last: whoever finds that finds the rest.
func (s *Service) announce(context.Context) error {
	s.place.Data, s.place.URL, s.place.Listen = s.cfg.Data, s.url(), map[string]string{}
	for _, a := range s.cfg.addresses() {
		s.place.Listen[a.name] = *a.address
	}
	s.place.Install = s.fold.LedgerID()[:installDigits]
	if err := s.place.write(s.cfg.Data); err != nil {
		return err
	}
	return wholefile.Write(s.cfg.urlFile(), []byte(s.place.URL+"\n"), 0o600)
}

// stop drains the parts in the reverse order: nothing new comes in, what has begun is finished, and the
// edge serves until the last worker that may want it has ended.
func (s *Service) stop() error {
	err := s.group.drain(s.cfg.DrainTimeout,
		[]string{"gateway"}, []string{"build", "vet", "promote", "verify", "watch", "notify"}, []string{"edge"}, []string{"ledger"})
	for _, rt := range s.runtimes {
		rt.Close()
	}
	for _, c := range s.clients {
		c.Close()
	}
	if s.registry != nil {
		ctx, cancel := context.WithTimeout(context.Background(), s.cfg.DrainTimeout)
		defer cancel()
		err = errors.Join(err, s.registry.Close(ctx))
	}
	if s.entry != nil {
		err = errors.Join(err, s.entry.Close())
	}
	if s.bus != nil {
		s.bus.Shutdown()
	}
	return err
}

// open connects an identity, with its own fold of the ledger.
func (s *Service) open(ctx context.Context, id events.Writer) (*worker.Runtime, error) {
	rt, err := worker.Open(ctx, worker.Options{
		Service: string(id), InProcess: s.bus, Keys: s.cfg.keys(), Trust: s.trust, Platform: s.platform, State: s.cfg.snapshots(), Logger: s.deps.Logger,
	})
	if err == nil {
		s.runtimes = append(s.runtimes, rt)
	}
	return rt, err
}
