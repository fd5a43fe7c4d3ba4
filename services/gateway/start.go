package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/worker/boundary"
	"towpath.dev/services/gateway/git"
)

// change is what starts a run.
type change struct {
	app        events.Slug
	repository string // URL that build fetches from; empty: hosted by this gateway, or an image
	ref        string
	old, now   git.Commit
	image      *registry.Artifact // built elsewhere; instead of a commit
	definition pipeline.Definition
	actor      string
	authors    []string
	rebuild    bool
	// id is the event's id where the change has a name of its own, such as a line in git's log: the same change found
	// again is then known by it. Else the newest run of repository and ref with the same commit is the same change.
	id string
}

// started is the run that a change has.
type started struct {
	run   *fold.Run
	fresh bool // it was recorded now
}

// appendBound is how long recording one event may take.
const appendBound = 30 * time.Second

// locks are one lock for each name.
type locks struct {
	mu     sync.Mutex
	byName map[events.Slug]*sync.Mutex
}

func (l *locks) lock(name events.Slug) (unlock func()) {
	l.mu.Lock()
	if l.byName == nil {
		l.byName = map[events.Slug]*sync.Mutex{}
	}
	m := l.byName[name]
	if m == nil {
		m = &sync.Mutex{}
		l.byName[name] = m
	}
	l.mu.Unlock()
	m.Lock()
	return m.Unlock
}

// start records a change as a run, once, and returns when the fold has it.
func (s *Service) start(ctx context.Context, c change) (started, error) {
	defer s.starting.lock(c.app)()
	return s.desk.start(ctx, c, s.rt.Platform.Policy)
}

// start records a change as a run that is judged by platform's policy.
func (s *desk) start(ctx context.Context, c change, platform policy.Policy) (started, error) {
	ctx, cancel := context.WithTimeout(ctx, appendBound)
	defer cancel()
	policyDigest, err := s.publishPolicy(ctx, platform)
	if err != nil {
		return started{}, err
	}
	if err := s.createApp(ctx, c); err != nil {
		return started{}, err
	}
	app := s.book.App(c.app)
	if run := c.recorded(app); run != nil {
		return started{run: run}, nil
	}
	body, subject := c.event(s.book.Epoch(), app, policyDigest)
	event := events.New(events.Gateway, time.Now(), events.NewID(), body)
	if c.id != "" {
		event.ID = c.id
	}
	boundary.Reached(events.Gateway, boundary.Decided, c.app)
	record, err := s.book.Append(ctx, subject, event)
	fresh := true
	var exists *ledger.ExistsError
	if errors.As(err, &exists) {
		record, fresh, err = exists.Winner, exists.Winner.Event.ID == event.ID, nil
	}
	if err != nil {
		return started{}, fmt.Errorf("recording the run of %s: %w", c.app, err)
	}
	if run := runStarted(s.book.App(c.app), record.Event.ID); run != nil {
		return started{run, fresh}, nil
	}
	return started{}, fmt.Errorf("event %d on %s started no run", record.Seq, record.Subject)
}

// recorded is the run that the change has already, or nil.
func (c change) recorded(app *fold.App) *fold.Run {
	if app == nil {
		return nil
	}
	if c.id != "" {
		return runStarted(app, c.id)
	}
	latest := app.Latest(c.repository, c.ref)
	if latest == nil || c.rebuild {
		return nil
	}
	if c.image == nil && latest.Start.SHA == string(c.now) || c.image != nil && latest.Artifact != nil && latest.Artifact.Digest == string(c.image.Digest) {
		return latest
	}
	return nil
}

// runStarted finds a run by its first event.
func runStarted(app *fold.App, eventID string) *fold.Run {
	if app == nil {
		return nil
	}
	return app.StartedBy(eventID)
}

// event is the run's first event and where it is stored.
func (c change) event(epoch int, app *fold.App, policyDigest string) (events.Body, events.Subject) {
	predecessor := 0
	if app != nil {
		if latest := app.Latest(c.repository, c.ref); latest != nil {
			predecessor = latest.N
		}
	}
	start := events.RunStart{
		App: c.app, RepositoryURL: c.repository, Ref: c.ref, SHA: string(c.now), Predecessor: predecessor,
		Definition: c.definition.Canonical(), DefinitionDigest: c.definition.Digest(), PolicyDigest: policyDigest,
		Actor: c.actor, Authors: c.authors, Rebuild: c.rebuild,
	}
	if !c.old.None() {
		start.OldSHA = string(c.old)
	}
	if c.image != nil {
		body := &events.ArtifactPublished{About: events.About{ID: c.image.PURL()}}
		body.Published = events.Published{
			Artifact: events.Artifact{Repository: c.image.Repository.String(), Digest: string(c.image.Digest)}, Run: &start,
		}
		return body, events.RunStartSubject(epoch, body.Type(), c.app, c.image.Repository.String(), c.ref, predecessor, string(c.image.Digest))
	}
	body := &events.ChangeMerged{
		About: events.About{ID: string(c.now)}, Repository: events.Reference{ID: c.repository, Source: c.repository}, Run: start,
	}
	if c.repository == "" {
		body.Repository = events.Reference{ID: string(c.app), Source: "/git/" + string(c.app) + ".git"}
	}
	return body, events.RunStartSubject(epoch, body.Type(), c.app, c.repository, c.ref, predecessor, string(c.now))
}

// createApp records the app at its first change.
func (s *desk) createApp(ctx context.Context, c change) error {
	if app := s.book.App(c.app); app != nil && !app.Created.IsZero() {
		return nil
	}
	return s.appendApp(ctx, &events.AppCreated{
		About: events.About{ID: string(c.app)}, Repository: c.repository, Branch: c.definition.Branch, Actor: c.actor,
	})
}

func (s *desk) appendApp(ctx context.Context, body *events.AppCreated) error {
	ctx, cancel := context.WithTimeout(ctx, appendBound)
	defer cancel()
	_, err := s.book.Append(ctx, events.AppSubject(s.book.Epoch(), events.Slug(body.ID)), events.New(events.Gateway, time.Now(), "", body))
	var exists *ledger.ExistsError
	if err != nil && !errors.As(err, &exists) {
		return fmt.Errorf("recording app %s: %w", body.ID, err)
	}
	return nil
}

// publishPolicy makes the platform's policy known where it is not the newest one already, and returns its digest.
func (s *desk) publishPolicy(ctx context.Context, platform policy.Policy) (digest string, err error) {
	digest = platform.Digest()
	for {
		current := s.book.CurrentPolicy()
		if current.Digest == digest {
			return digest, nil
		}
		body := &events.PolicyPublished{About: events.About{ID: digest}, Digest: digest, Text: platform.Text(), Actor: string(events.Gateway)}
		_, err := s.book.Append(ctx, events.PolicySubject(s.book.Epoch(), current.Serial+1), events.New(events.Gateway, time.Now(), "", body))
		var exists *ledger.ExistsError
		if err != nil && !errors.As(err, &exists) {
			return "", fmt.Errorf("publishing the platform's policy: %w", err)
		}
		if next := s.book.CurrentPolicy(); err == nil && next.Digest != digest {
			return "", fmt.Errorf("publishing the platform's policy: the ledger holds %s as its newest, not %s", next.Digest, digest)
		}
	}
}
