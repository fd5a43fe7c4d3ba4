package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/pause"
)

// Deps are what the service works with.
type Deps struct {
	Ledger *ledger.Client // opened as identity "edge"; only its bucket and its connection are used
	Logger *slog.Logger
	// Ready, where not nil, is called with the address once requests are taken.
	Ready func(net.Addr)
}

// Service is the edge.
type Service struct {
	cfg    Config
	deps   Deps
	table  *table
	health *checker
	proxy  *proxy
}

// New validates and does no IO.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if deps.Logger == nil {
		deps.Logger = slog.Default()
	}
	health := newChecker(cfg, deps.Logger)
	t := newTable(health.watch)
	health.table = t
	return &Service{cfg: cfg, deps: deps, table: t, health: health, proxy: newProxy(t, cfg, deps.Logger)}, nil
}

// Run takes requests until ctx ends, then lets those under way finish.
func (s *Service) Run(ctx context.Context) error {
	listener, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("edge: listening for requests to apps: %w; free the port or choose another address", err)
	}
	drains, err := s.answerDrains()
	if err != nil {
		listener.Close()
		return fmt.Errorf("edge: listening for drain requests: %w", err)
	}
	defer drains()
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	var follower sync.WaitGroup
	follower.Go(func() { s.follow(following) })
	defer follower.Wait()
	defer stop()

	server := &http.Server{
		Handler: s.proxy, ReadHeaderTimeout: s.cfg.HeaderTimeout, IdleTimeout: s.cfg.IdleTimeout,
		MaxHeaderBytes: s.cfg.MaxHeader, ErrorLog: slog.NewLogLogger(s.deps.Logger.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	if s.deps.Ready != nil {
		s.deps.Ready(listener.Addr())
	}
	select {
	case err := <-ended:
		return fmt.Errorf("edge: taking requests: %w", err)
	case <-ctx.Done():
	}
	// The table is followed until the last request is done: an older replica still has to be drained.
	finishing, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainTimeout)
	defer cancel()
	if err := server.Shutdown(finishing); err != nil {
		s.deps.Logger.Warn("requests were cut off", "after", s.cfg.DrainTimeout, "err", err)
		server.Close()
	}
	return nil
}

// follow keeps the table current. Without the bus the last one stays.
func (s *Service) follow(ctx context.Context) {
	log := s.deps.Logger
	for ctx.Err() == nil {
		err := discovery.Open(s.deps.Ledger).Watch(ctx, s.table.markLoaded,
			func(p discovery.Place, e discovery.Entry) {
				log.Info("route", "app", p.App, "env", p.Env, "slot", e.Slot, "run", e.Run, "instances", len(e.Instances))
				s.table.set(p, e)
			},
			func(key string, err error) {
				log.Error("route cannot be read; the last one stays", "key", key, "err", err)
			})
		if ctx.Err() != nil {
			return
		}
		log.Error("routes are not followed; the last ones stay", "err", err)
		if errors.Is(err, nats.ErrConnectionClosed) {
			return
		}
		if pause.For(ctx, time.Second) != nil {
			return
		}
	}
}

// drainsAtOnce bounds how many drain requests are waited on at a time.
const drainsAtOnce = 256

// answerDrains answers discovery.DrainRequests until the function that it returns is called.
func (s *Service) answerDrains() (stop func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	places := make(chan struct{}, drainsAtOnce)
	subscription, err := s.deps.Ledger.Conn().Subscribe(events.DrainSubject, func(m *nats.Msg) {
		select {
		case places <- struct{}{}:
		default:
			s.reply(m, discovery.DrainReply{Error: "too many drain requests at once; ask again"})
			return
		}
		go func() {
			defer func() { <-places }()
			s.reply(m, s.drain(ctx, m.Data))
		}()
	})
	if err != nil {
		cancel()
		return nil, err
	}
	return func() { subscription.Unsubscribe(); cancel() }, nil
}

func (s *Service) drain(ctx context.Context, data []byte) discovery.DrainReply {
	var request discovery.DrainRequest
	if err := json.Unmarshal(data, &request); err != nil {
		return discovery.DrainReply{Error: "unreadable request: " + err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, max(0, min(request.Timeout, discovery.MaxDrain)))
	defer cancel()
	return s.table.drain(ctx, discovery.Place{Env: request.Env, App: request.App}, request.Slot)
}

func (s *Service) reply(m *nats.Msg, r discovery.DrainReply) {
	data, err := json.Marshal(r)
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil {
		s.deps.Logger.Warn("drain request was not answered", "err", err)
	}
}
