package gateway

import (
	"context"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
)

// longestBackoff is how long a repository that could not be read is left alone at most.
const longestBackoff = 10 * time.Minute

// polling follows the repositories that apps are followed from. What it knows is in the ledger: which branch, how often,
// and which commit was the last; so a restart only means one look at each.
type polling struct {
	mu       sync.Mutex
	troubles map[events.Slug]string
	wake     map[events.Slug]chan struct{}
}

func newPolling() *polling {
	return &polling{troubles: map[events.Slug]string{}, wake: map[events.Slug]chan struct{}{}}
}

func (p *polling) trouble(app events.Slug) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.troubles[app]
}

// note keeps what went wrong at the last look, and reports whether that is news.
func (p *polling) note(app events.Slug, err error) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
	}
	news = p.troubles[app] != text
	p.troubles[app] = text
	return news
}

// look wakes the follower of an app.
func (p *polling) look(app events.Slug) {
	select {
	case p.waker(app) <- struct{}{}:
	default:
	}
}

func (p *polling) waker(app events.Slug) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wake[app] == nil {
		p.wake[app] = make(chan struct{}, 1)
	}
	return p.wake[app]
}

// keepPolling follows every app that asks for it, until ctx ends.
func (s *Service) keepPolling(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	following := map[events.Slug]bool{}
	for seq := s.fold().Seq(); ; {
		for _, app := range s.fold().Apps() {
			if app.Poll > 0 && app.Repository != "" && !following[app.Name] {
				following[app.Name] = true
				group.Go(func() { s.follow(ctx, app) })
			}
		}
		// Every event is looked at, which costs a moment each; apps are few.
		if err := s.fold().Wait(ctx, seq+1); err != nil {
			return
		}
		seq = s.fold().Seq()
	}
}

// follow looks at one app's repository, at its interval, or less often while that fails.
func (s *Service) follow(ctx context.Context, app *fold.App) {
	pause := app.Poll
	wake := s.polling.waker(app.Name)
	for ctx.Err() == nil {
		err := s.pollOnce(ctx, s.fold().App(app.Name))
		if ctx.Err() != nil {
			return
		}
		if news := s.polling.note(app.Name, err); news && err != nil {
			s.logger.Warn("a repository could not be followed", "app", app.Name, "err", err)
		}
		switch {
		case err == nil || isRefusal(err):
			pause = app.Poll
		default:
			pause = min(2*pause, max(app.Poll, longestBackoff))
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}
