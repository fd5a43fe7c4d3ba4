package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/worker"
)

// slots is how many messages each of the four workers handles at once.
const slots = 8

// stations are the four workers, each with what it appends for a message: the parts of a whole story.
//
//	change.merged ─> build ─> artifact.published ─> vet ─> vetrun.finished ─> promote ─> slot.decided ─> verify ─┐
//	                                                                            └── testsuiterun.finished <──────┘
type stations struct {
	stories map[events.Slug][]entry
	workers map[events.Writer]*worker.Runtime
	done    chan events.Slug
}

// Where each part of a story ends.
const (
	builtAt    = 6                   // after the start: started, packaged, signed, published, finished
	vettedAt   = builtAt + 2         // started, finished
	perEnv     = 6                   // taken, started, decided; tested; closed, finished
	decidedAt  = 3                   // of perEnv
	testedAt   = decidedAt + 1       // of perEnv
	storyParts = vettedAt + 3*perEnv // events of a whole run
)

// part is what a worker appends when it is woken by an event of a run.
func (s *stations) part(b events.Body, env events.Slug) (from, to int) {
	at := func(env events.Slug) int {
		for i, name := range benchEnvironments {
			if events.Slug(name) == env {
				return vettedAt + i*perEnv
			}
		}
		return storyParts
	}
	switch b.(type) {
	case *events.ChangeMerged:
		return 1, builtAt
	case *events.ArtifactPublished:
		return builtAt, vettedAt
	case *events.VetRunFinished:
		return vettedAt, vettedAt + decidedAt
	case *events.SlotDecided:
		return at(env) + decidedAt, at(env) + testedAt
	case *events.TestSuiteRunFinished:
		return at(env) + testedAt, min(at(env)+perEnv+decidedAt, storyParts)
	}
	return 0, 0
}

// handle is one worker: it looks at the fold, has no effect to carry out, and appends what
// follows.
func (s *stations) handle(rt *worker.Runtime) handlerFunc {
	return func(ctx context.Context, m worker.Message) error {
		app := m.Record.Subject.App
		if a := rt.Fold.App(app); a == nil || a.Newest() == nil {
			return fmt.Errorf("%s has no run", app)
		}
		from, to := s.part(m.Record.Event.Body, m.Record.Subject.Env)
		for _, e := range s.stories[app][from:to] {
			var exists *ledger.ExistsError // of a message that came again
			if _, err := rt.Append(ctx, e.subject, e.event); err != nil && !errors.As(err, &exists) {
				return err
			}
		}
		if to == storyParts && from < to {
			s.done <- app
		}
		return nil
	}
}

type handlerFunc func(context.Context, worker.Message) error

// Handle implements worker.Handler.
func (f handlerFunc) Handle(ctx context.Context, m worker.Message) error { return f(ctx, m) }

// advance measures how many runs per second four workers carry from the push to the end of prod, through the door and
// with every signature made and verified, while their effects are empty; against how many such events as many
// publishers store per second who do nothing but publish and wait for the bus.
func advance(ctx context.Context, o options) ([]figure, error) {
	in, err := openInstallation(ctx)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	s := &stations{stories: map[events.Slug][]entry{}, workers: map[events.Writer]*worker.Runtime{}, done: make(chan events.Slug, o.advanced)}
	var apps []events.Slug
	for n := range o.advanced {
		app := events.Slug("app-" + strconv.Itoa(n))
		if s.stories[app], err = wholeStory(app, 1); err != nil {
			return nil, err
		}
		if got := len(s.stories[app]); got != storyParts {
			return nil, fmt.Errorf("a story has %d events, not %d", got, storyParts)
		}
		apps = append(apps, app)
	}
	raw, err := rawAppends(ctx, o.advanced*storyParts/4, 4*slots)
	if err != nil {
		return nil, err
	}
	consuming, stop := context.WithCancel(ctx)
	ended := make(chan error, len(events.Consumers))
	for _, c := range events.Consumers {
		rt, err := in.runtime(ctx, c.Service)
		if err != nil {
			stop()
			return nil, err
		}
		defer rt.Close()
		go func() {
			ended <- rt.Consume(consuming, worker.Consumer{Durable: c.Durable, Concurrency: slots}, s.handle(rt))
		}()
	}
	defer func() {
		stop()
		for range events.Consumers {
			<-ended
		}
	}()
	took, err := s.carry(ctx, in, apps, ended)
	if err != nil {
		return nil, err
	}
	runs := float64(len(apps)) / took.Seconds()
	share := runs / (raw / storyParts)
	return []figure{
		{fmt.Sprintf("runs of %d events advanced per second, empty effects, %d workers × %d slots", storyParts, len(events.Consumers), slots), fmt.Sprintf("%.1f", runs), "", true},
		{fmt.Sprintf("raw appends per second, %d publishers", 4*slots), fmt.Sprintf("%.0f", raw), "", true},
		{"runs per second ÷ (raw appends per second ÷ events a run)", fmt.Sprintf("%.2f", share), "≥ 0.5", share >= 0.5},
	}, nil
}

// carry starts every run and waits until the last has ended.
func (s *stations) carry(ctx context.Context, in *installation, apps []events.Slug, ended chan error) (time.Duration, error) {
	gateway, err := ledger.Connect(ctx, in.options(events.Gateway))
	if err != nil {
		return 0, err
	}
	defer gateway.Close()
	begin, failed := time.Now(), make(chan error, 1)
	go func() {
		for _, app := range apps {
			first := s.stories[app][0]
			if _, err := gateway.Append(ctx, first.subject, first.event); err != nil {
				failed <- err
				return
			}
		}
	}()
	for range apps {
		select {
		case <-s.done:
		case err := <-failed:
			return 0, err
		case err := <-ended:
			ended <- err
			return 0, fmt.Errorf("a worker ended: %w", err)
		case <-time.After(2 * time.Minute):
			return 0, fmt.Errorf("no run has ended for 2 minutes, %d had", len(s.done))
		}
	}
	return time.Since(begin), nil
}

// rawAppends is how many events per second so many publishers store, each waiting for the bus before its next: on
// subjects of a ledger's stream, with the door's own rights, signed before the clock starts.
func rawAppends(ctx context.Context, total, publishers int) (perSecond float64, err error) {
	in, err := openInstallation(ctx) // of its own: nobody acts on these
	if err != nil {
		return 0, err
	}
	defer in.Close()
	client, err := ledger.Connect(ctx, in.options(events.Ledger))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	signers := map[events.Writer]*identity.Signer{}
	messages := make(chan *nats.Msg, total)
	for n := 0; len(messages) < total; n++ {
		story, err := wholeStory("raw-"+events.Slug(strconv.Itoa(n)), 1)
		if err != nil {
			return 0, err
		}
		for _, e := range story[1:min(len(story), 1+total-len(messages))] {
			m, err := in.stored(signers, e)
			if err != nil {
				return 0, err
			}
			messages <- m
		}
	}
	close(messages)
	var all sync.WaitGroup
	failed := make(chan error, publishers)
	begin := time.Now()
	for range publishers {
		all.Go(func() {
			for m := range messages {
				if _, err := client.Conn().RequestMsg(m, 10*time.Second); err != nil {
					failed <- fmt.Errorf("raw append: %w", err)
					return
				}
			}
		})
	}
	all.Wait()
	close(failed)
	return float64(total) / time.Since(begin).Seconds(), <-failed
}
