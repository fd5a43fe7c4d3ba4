package towpath

import (
	"context"
	"net"
	"os/exec"
	"os/user"
	"strings"
	"sync"

	"towpath.dev/events"
	ledgerclient "towpath.dev/pkg/ledger"
	"towpath.dev/pkg/worker"
	"towpath.dev/services/build"
	"towpath.dev/services/edge"
	"towpath.dev/services/gateway"
	"towpath.dev/services/ledger"
	"towpath.dev/services/notify"
	"towpath.dev/services/promote"
	"towpath.dev/services/verify"
	"towpath.dev/services/vet"
	"towpath.dev/services/watch"
)

// startServices starts every service in the order in which they need each other: the door, through which
// the others write; the edge, so that what is deployed is served at once; the gateway, from which builds fetch their
// source and which writes down what comes in before there are workers for it; the workers.
func (s *Service) startServices(ctx context.Context) error {
	for _, start := range []func(context.Context) error{s.startLedger, s.startEdge, s.startGateway, s.startBuild, s.startVet, s.startPromote, s.startVerify, s.startWatch, s.startNotify} {
		if err := start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// signal is a channel and what closes it, once.
func signal() (ready chan struct{}, done func()) {
	ready = make(chan struct{})
	return ready, sync.OnceFunc(func() { close(ready) })
}

func (s *Service) startLedger(ctx context.Context) error {
	rt, err := s.open(ctx, events.Ledger)
	if err != nil {
		return err
	}
	ready, done := signal()
	door, err := ledger.New(ledger.Config{
		State: s.cfg.seals(), Witness: s.platform.Witness.URL, WitnessKey: s.platform.Witness.Key,
	}, ledger.Deps{Runtime: rt, Ready: done})
	if err != nil {
		return err
	}
	return s.group.wait(ctx, s.group.start("ledger", door.Run), ready)
}

func (s *Service) startEdge(ctx context.Context) error {
	logger := s.deps.Logger.With("service", events.Edge)
	client, err := ledgerclient.Connect(ctx, ledgerclient.Options{
		InProcess: s.bus, Service: string(events.Edge), Keys: s.cfg.keys(), Trust: s.trust, Logger: logger,
	})
	if err != nil {
		return err
	}
	s.clients = append(s.clients, client)
	ready, done := signal()
	entry, err := edge.New(edge.Config{Listen: s.cfg.EdgeListen, DrainTimeout: s.cfg.DrainTimeout}, edge.Deps{
		Ledger: client, Logger: logger, Ready: func(a net.Addr) { s.place.Edge = a.String(); done() },
	})
	if err != nil {
		return err
	}
	return s.group.wait(ctx, s.group.start("edge", entry.Run), ready)
}

// runner is a service as every one of them is.
type runner interface{ Run(context.Context) error }

// startWorker runs a service that works on the ledger's events.
func (s *Service) startWorker(ctx context.Context, id events.Writer, make func(*worker.Runtime) (runner, error)) error {
	rt, err := s.open(ctx, id)
	if err != nil {
		return err
	}
	r, err := make(rt)
	if err != nil {
		return err
	}
	s.group.start(string(id), r.Run)
	return nil
}

func (s *Service) startBuild(ctx context.Context) error {
	return s.startWorker(ctx, events.Build, func(rt *worker.Runtime) (runner, error) {
		return build.New(build.Config{Gateway: s.url(), Work: s.cfg.sources()}, build.Deps{Runtime: rt})
	})
}

func (s *Service) startVet(ctx context.Context) error {
	return s.startWorker(ctx, events.Vet, func(rt *worker.Runtime) (runner, error) {
		return vet.New(vet.Config{Work: s.cfg.images()}, vet.Deps{Runtime: rt})
	})
}

func (s *Service) startPromote(ctx context.Context) error {
	return s.startWorker(ctx, events.Promote, func(rt *worker.Runtime) (runner, error) {
		return promote.New(promote.Config{Gateway: s.url()}, promote.Deps{Runtime: rt})
	})
}

func (s *Service) startVerify(ctx context.Context) error {
	return s.startWorker(ctx, events.Verify, func(rt *worker.Runtime) (runner, error) {
		return verify.New(verify.Config{}, verify.Deps{Runtime: rt})
	})
}

func (s *Service) startWatch(ctx context.Context) error {
	return s.startWorker(ctx, events.Watch, func(rt *worker.Runtime) (runner, error) {
		return watch.New(watch.Config{}, watch.Deps{Runtime: rt})
	})
}

func (s *Service) startNotify(ctx context.Context) error {
	return s.startWorker(ctx, events.Notify, func(rt *worker.Runtime) (runner, error) {
		return notify.New(notify.Config{}, notify.Deps{Runtime: rt})
	})
}

// startGateway starts the way in. It makes the first administrator and the token, and takes up pushes
// that a crash kept from the ledger.
func (s *Service) startGateway(ctx context.Context) error {
	rt, err := s.open(ctx, events.Gateway)
	if err != nil {
		return err
	}
	s.fold = rt.Fold
	admin := localPerson(ctx)
	s.place.Name, s.place.Email = admin.Name, admin.Email
	ready, done := signal()
	way, err := gateway.New(gateway.Config{
		Listen: s.cfg.Listen, Data: s.cfg.Data, URL: s.url(), Edge: "http://" + reachable(s.cfg.EdgeListen),
		TokenFile: s.cfg.tokenFile(), Admin: admin, DrainTimeout: s.cfg.DrainTimeout,
	}, gateway.Deps{Runtime: rt, Ready: func(string) { done() }})
	if err != nil {
		return err
	}
	err = s.group.wait(ctx, s.group.start("gateway", way.Run), ready)
	if err == nil {
		s.place.Runs = way.IndexURL()
	}
	return err
}

// url is the gateway's, as this machine reaches it.
func (s *Service) url() string { return "http://" + reachable(s.cfg.Listen) }

// reachable puts the loopback address in the place of "every address", which nobody can connect to.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// localPerson is who git says that this machine's user is.
func localPerson(ctx context.Context) gateway.Admin {
	ask := func(name string) string {
		text, err := exec.CommandContext(ctx, "git", "config", "--get", name).Output()
		if err != nil {
			return "" // git knows nobody, or is not there, which doctor says
		}
		return strings.TrimSpace(string(text))
	}
	person := gateway.Admin{Name: ask("user.name"), Email: ask("user.email")}
	if person.Name == "" {
		if u, err := user.Current(); err == nil {
			person.Name = u.Username
		}
	}
	return person
}
