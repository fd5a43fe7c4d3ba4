package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/settings/alarms"
	"towpath.dev/pkg/settings/providers"
	"towpath.dev/pkg/worker"
	"towpath.dev/services/gateway/git"
	"towpath.dev/services/gateway/page"
)

// Deps are what the service works with.
type Deps struct {
	Runtime *worker.Runtime // opened as identity "gateway"
	// Ready, where not nil, is called with the gateway's URL once it answers.
	Ready func(url string)
}

// Service is the gateway.
type Service struct {
	cfg      Config
	rt       *worker.Runtime
	ready    func(url string)
	logger   *slog.Logger
	actors   *identity.Actors
	settings *settings.Store
	// keepStores keeps the logins of the stores of settings alive.
	keepStores func() (leave func())
	git        *git.Store
	pages      *page.Pages
	evidence   *registry.Client

	url         string // without a slash at the end
	socket      string // where git's hooks find the gateway
	pushes      pushes
	journal     *journal
	polling     *polling
	starting    locks           // one start of a run at a time for each app
	reconciling locks           // one look at git's log at a time for each app
	making      locks           // one change of an environment as a whole at a time
	stopping    context.Context // ends when no new work is taken
	panics      atomic.Int64    // requests that made the gateway panic
	desk        *desk
	noted       noted
}

// New validates and does no IO.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Ready == nil {
		deps.Ready = func(string) {}
	}
	s := &Service{
		cfg: cfg.withDefaults(), rt: deps.Runtime, ready: deps.Ready, logger: deps.Runtime.Logger,
		actors:   identity.NewActors(deps.Runtime.Ledger.Bucket(events.BucketActors)),
		evidence: registry.New(registry.Options{}),
		journal:  newJournal(), polling: newPolling(),
	}
	s.desk = &desk{book: runtimeBook{deps.Runtime, deps.Runtime.Fold}, grounds: s, logger: s.logger}
	return s, nil
}

func (s *Service) fold() *fold.Fold { return s.rt.Fold }
func (s *Service) epoch() int       { return s.rt.Ledger.Epoch() }

// Timeouts of connections; requests have their own.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 32 << 10
)

// Run opens everything, answers until ctx ends, and then lets the pushes end that have begun.
func (s *Service) Run(ctx context.Context) error {
	var stop context.CancelFunc
	s.stopping, stop = context.WithCancel(ctx)
	defer stop()
	release, err := s.claim()
	if err != nil {
		return err
	}
	defer release()
	if err := s.open(ctx); err != nil {
		return err
	}
	defer s.keepStores()()
	hooks, clean, err := s.listenForHooks()
	if err != nil {
		return err
	}
	defer clean()
	listener, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("the gateway cannot listen on %s: %w", s.cfg.Listen, err)
	}
	if s.url = s.cfg.URL; s.url == "" {
		s.url = "http://" + listener.Addr().String()
	}
	if err := s.settle(ctx); err != nil {
		listener.Close()
		return err
	}
	return s.serve(ctx, hooks, listener)
}

// claim takes the repositories for this gateway alone, until release.
func (s *Service) claim() (release func(), err error) {
	if err := os.MkdirAll(s.cfg.repositories(), 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	path := filepath.Join(s.cfg.repositories(), "claim")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("claiming the repositories: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("another gateway has the repositories in %s (%w): stop it, or choose another data folder", s.cfg.repositories(), err)
	}
	return func() { file.Close() }, nil
}

// open reads keys and folders.
func (s *Service) open(ctx context.Context) error {
	key, err := identity.LoadSettingsKey(s.rt.Keys)
	if err != nil {
		return err
	}
	s.settings, s.keepStores, err = providers.Open(providers.Options{
		Client: s.rt.Ledger, Key: key, Platform: s.rt.Platform, Service: events.Gateway, Logger: s.logger,
	})
	if err != nil {
		return err
	}
	viewKey, err := s.viewKey()
	if err != nil {
		return err
	}
	s.pages = page.New(viewKey)
	command, err := s.cfg.hookCommand()
	if err != nil {
		return err
	}
	s.git, err = git.Open(ctx, git.Options{Dir: s.cfg.repositories(), MaxPush: s.rt.Platform.Limits.Push, Hook: command})
	return err
}

// viewKey is what the pages' capabilities are made with: among the keys, or in the data folder where the keys cannot
// be added to.
func (s *Service) viewKey() ([]byte, error) {
	key, err := page.LoadKey(filepath.Join(s.rt.Keys, page.KeyFile))
	if err == nil {
		return key, nil
	}
	key, second := page.LoadKey(filepath.Join(s.cfg.Data, page.KeyFile))
	if second != nil {
		return nil, errors.Join(err, second)
	}
	return key, nil
}

// settle brings the ledger up to what is on disk, before anybody is let in.
func (s *Service) settle(ctx context.Context) error {
	if err := s.ensureAdmin(ctx); err != nil {
		return err
	}
	if _, err := s.desk.publishPolicy(ctx, s.rt.Platform.Policy); err != nil {
		return err
	}
	if err := s.reconcileSettings(ctx); err != nil {
		return err
	}
	return s.reconcileAll(ctx)
}

// serve answers until ctx ends or a listener fails.
func (s *Service) serve(ctx context.Context, hooks, listener net.Listener) error {
	hearing, err := s.listenOnBus()
	if err != nil {
		return err
	}
	working, stopWork := context.WithCancel(ctx)
	defer stopWork()
	var work sync.WaitGroup
	work.Go(func() { s.keepReconciling(working) })
	work.Go(func() { s.keepPolling(working) })
	work.Go(func() { hearing(working) })
	work.Go(func() { s.keepReplaying(working) })
	work.Go(func() { s.keepClearing(working) })
	work.Go(func() { alarms.Keep(working, s.rt, s.settings, events.Gateway) })
	for _, bucket := range noteBuckets {
		work.Go(func() { s.keepNotes(working, bucket) })
	}
	requests, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	servers := []*http.Server{s.server(requests, s.handler()), s.server(requests, s.hooks())}
	ended := make(chan error, len(servers))
	for i, l := range []net.Listener{listener, hooks} {
		work.Go(func() { ended <- servers[i].Serve(l) })
	}
	s.logger.Info("the gateway answers", "url", s.url)
	s.ready(s.url)
	select {
	case <-ctx.Done():
	case err = <-ended:
	}
	stopWork()
	// The way in is closed first; hooks answer until the last push has ended.
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainTimeout)
	defer cancel()
	for _, server := range servers {
		if drainErr := server.Shutdown(drain); drainErr != nil {
			s.logger.Warn("requests were cut off", "err", drainErr)
			abandon()
			server.Close()
		}
	}
	work.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *Service) server(requests context.Context, handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return requests },
		ErrorLog:    slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
}

// URL is where the gateway answers, once it does.
func (s *Service) URL() string { return s.url }

// IndexURL is the page that lists runs, with the capability to see it.
func (s *Service) IndexURL() string { return s.url + s.pages.IndexPath() }

// runURL is the page of a run, with the capability to see it.
func (s *Service) runURL(app events.Slug, run int) string { return s.url + s.pages.RunPath(app, run) }
