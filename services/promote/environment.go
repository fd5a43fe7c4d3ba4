package promote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/worker/boundary"
)

// settleEnvironments does what there is to do for environments that somebody made, besides what each app's place is
// about: it says that one is made, and takes away what is left of one that ends.
func (s *Service) settleEnvironments(ctx context.Context) error {
	var errs []error
	for _, e := range s.rt.Fold.Environments() {
		if e.Gone || (e.Created || e.Preparing) && e.Ending == nil {
			continue
		}
		if err := s.settleEnvironment(ctx, e.Name); err != nil {
			errs = append(errs, fmt.Errorf("environment %s: %w", e.Name, err))
		}
	}
	return errors.Join(errs...)
}

// settleEnvironment works on one environment, unless another goroutine does: then that one looks again.
func (s *Service) settleEnvironment(ctx context.Context, name events.Slug) error {
	whole := Place{Env: name}
	if _, ok := s.promoter.turns.begin(whole); !ok {
		return nil
	}
	for {
		err := s.workOn(ctx, name)
		if !s.promoter.turns.end(whole) {
			return err
		}
	}
}

func (s *Service) workOn(ctx context.Context, name events.Slug) error {
	e := s.rt.Fold.Environment(name)
	switch {
	case e == nil:
		return nil
	case e.Ending != nil:
		return s.dissolve(ctx, e)
	case !e.Created && !e.Preparing:
		return s.announceEnvironment(ctx, e)
	}
	return nil
}

// announceEnvironment gives the apps of an environment their plans.
func (s *Service) announceEnvironment(ctx context.Context, e *fold.Environment) error {
	made := events.Made{From: e.Made.From, Actor: e.Made.Actor, Command: e.Made.ID, Expires: e.Made.Expires}
	about := events.About{ID: string(e.Name)}
	var b events.Body = &events.EnvironmentCreated{About: about, Name: string(e.Name), Made: made}
	if e.Since.Before(e.Made.At) {
		b = &events.EnvironmentModified{About: about, Name: string(e.Name), Made: made}
	}
	return s.sayOfEnvironment(ctx, e.Name, b, e.Made.ID)
}

// dissolve takes away what is left of an environment once nothing in it can come up any more, and says that it is gone
// once its settings, which the gateway removes, are gone too.
func (s *Service) dissolve(ctx context.Context, e *fold.Environment) error {
	free, release := s.occupy(e.Name)
	if free {
		free = s.vacated(e.Name)
	}
	var err error
	if free {
		err = s.promoter.effects.Raze(ctx, e.Name, s.slotsIn(e.Name))
	}
	release(ctx)
	if !free || err != nil {
		return err
	}
	boundary.Reached(events.Promote, boundary.Effect, "")
	left, err := s.settingsLeft(ctx, e.Name)
	if err != nil || left {
		return err
	}
	made := events.Made{From: e.Made.From, Actor: e.Ending.Actor, Command: e.Ending.ID}
	b := &events.EnvironmentDeleted{About: events.About{ID: string(e.Name)}, Name: string(e.Name), Made: made}
	return s.sayOfEnvironment(ctx, e.Name, b, e.Ending.ID)
}

// occupy takes the turns at all places of an environment, so that nothing comes up meanwhile. Where one is taken, it is
// not free: whoever has it looks at the environment afterwards.
func (s *Service) occupy(env events.Slug) (free bool, release func(context.Context)) {
	var held []Place
	release = func(ctx context.Context) {
		for _, at := range held {
			if !s.promoter.turns.end(at) {
				continue
			}
			if err := s.promoter.finish(ctx, at, s.promoter.turns.mine(at), func() {}); err != nil && ctx.Err() == nil {
				s.rt.Logger.Warn("left to the next look", "app", at.App, "env", at.Env, "err", err)
			}
		}
	}
	for _, app := range s.everIn(env) {
		at := Place{app, env}
		if _, ok := s.promoter.turns.begin(at); !ok {
			return false, release
		}
		held = append(held, at)
	}
	return true, release
}

// everIn are the apps that ever had anything in an environment.
func (s *Service) everIn(env events.Slug) []events.Slug {
	var apps []events.Slug
	for _, a := range s.rt.Fold.Apps() {
		if _, there := a.Envs[env]; there {
			apps = append(apps, a.Name)
		}
	}
	return apps
}

// slotsIn are the last slots of those apps.
func (s *Service) slotsIn(env events.Slug) map[events.Slug]int {
	last := map[events.Slug]int{}
	for _, app := range s.everIn(env) {
		last[app] = s.rt.Fold.App(app).Env(env).Slots.Len()
	}
	return last
}

// vacated reports whether nothing of an environment can come up any more.
func (s *Service) vacated(env events.Slug) bool {
	for _, a := range s.rt.Fold.Apps() {
		if !vacated(a.Env(env)) {
			return false
		}
	}
	return true
}

// settingsLeft reports whether any app has a setting in an environment that is the environment's own. What may only be
// read is somebody else's, and stays.
func (s *Service) settingsLeft(ctx context.Context, env events.Slug) (bool, error) {
	for _, app := range s.everIn(env) {
		for kind, list := range map[settings.Kind]func(context.Context, events.Slug, events.Slug) ([]settings.Item, error){
			settings.Config: s.settings.ListConfig, settings.Secrets: s.settings.ListSecrets,
		} {
			if s.settings.ReadOnly(env, kind) {
				continue
			}
			items, err := list(ctx, env, app)
			if err != nil {
				return false, err
			}
			if slices.ContainsFunc(items, func(item settings.Item) bool { return !item.Shared }) {
				return true, nil
			}
		}
	}
	return false, nil
}

func (s *Service) sayOfEnvironment(ctx context.Context, env events.Slug, b events.Body, command string) error {
	subject := events.EnvironmentSubject(s.rt.Epoch(), events.Promote, b.Type(), env, command)
	_, err := s.rt.Append(ctx, subject, events.New(events.Promote, time.Now(), "", b))
	var exists *ledger.ExistsError
	if errors.As(err, &exists) {
		return nil
	}
	return err
}
