package promote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/settings"
	"towpath.dev/services/promote/deploy"
)

// engines carries out effects on Docker Engines, in the table of what gets traffic, and at the edge.
type engines struct {
	install  string
	deployer *deploy.Deployer
	table    discovery.Table
	settings *settings.Store
	registry *registry.Client
	ledger   *ledger.Client
	logger   *slog.Logger
}

// Prepare implements Effects.
func (e *engines) Prepare(ctx context.Context, v Version) ([]events.Instance, error) {
	if instances, whole := e.comeBack(ctx, v); whole {
		return instances, nil
	}
	spec, err := e.spec(ctx, v)
	if err != nil {
		return nil, err
	}
	log := e.log(v)
	defer log.Close()
	instances, err := e.bringUp(ctx, spec, log)
	if err == nil && v.Slot.Kind == events.KindDeploy && len(spec.Release) > 0 {
		err = e.release(ctx, spec, log)
	}
	return instances, err
}

// comeBack returns the replicas of a version that comes back by itself where they all still run: they have their settings,
// so that no store of settings has to answer.
func (e *engines) comeBack(ctx context.Context, v Version) ([]events.Instance, bool) {
	if v.From == nil {
		return nil, false
	}
	spec, err := e.bare(v)
	if err != nil {
		return nil, false
	}
	return e.deployer.ComeBack(ctx, spec)
}

func (e *engines) bringUp(ctx context.Context, spec deploy.Spec, log io.Writer) ([]events.Instance, error) {
	fmt.Fprintf(log, "slot %d: %d replicas of %s\n", spec.Slot, spec.Replicas, spec.Digest)
	instances, err := e.deployer.Prepare(ctx, spec)
	var unhealthy *deploy.UnhealthyError
	switch {
	case errors.As(err, &unhealthy):
		fmt.Fprintf(log, "not healthy: %s\n", unhealthy)
		return nil, &UnfitError{Blame: BlameVersion, Trouble: unhealthy.Trouble()}
	case err != nil:
		fmt.Fprintf(log, "not ready yet: %s\n", settings.Redact(err.Error(), spec.Hidden()...))
		return nil, err
	}
	for _, i := range instances {
		fmt.Fprintf(log, "healthy: %s %s\n", i.ID, i.Address)
	}
	return instances, nil
}

func (e *engines) release(ctx context.Context, spec deploy.Spec, log io.Writer) error {
	fmt.Fprintf(log, "release command: %q\n", spec.Release)
	released, err := e.deployer.Release(ctx, spec)
	for _, line := range released.Log {
		fmt.Fprintf(log, "  %s\n", line)
	}
	var failed *deploy.ReleaseError
	if errors.As(err, &failed) {
		fmt.Fprintf(log, "release command: %s\n", failed.Why)
		return &UnfitError{Blame: BlameRelease, Trouble: failed.Trouble()}
	}
	return err
}

// Switch implements Effects.
func (e *engines) Switch(ctx context.Context, v Version) error {
	place := discovery.Place{Env: v.Env, App: v.App}
	entry, err := e.table.Get(ctx, place)
	older := err == nil && entry.Slot < v.Slot.N && len(entry.Instances) > 0
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err == nil && entry.Slot >= v.Slot.N:
		// Where replicas answer may have changed since the slot was decided; the table knows better.
		if v.Slot.Deployed {
			return nil
		}
		older = true
		if v.Slot.Kind != events.KindRemove {
			err = e.deployer.Show(ctx, place)
		}
	default:
		err = e.publish(ctx, place, v)
	}
	if err != nil {
		return err
	}
	timeout := 10 * time.Second
	if v.Run != nil {
		timeout = time.Duration(v.Run.Definition.Service.DrainTimeout)
	}
	left, err := e.deployer.Drain(ctx, place, v.Slot.N, timeout)
	switch {
	case err != nil && older:
		return &UndrainedError{err}
	case err != nil:
		e.logger.Debug("nobody to ask whether the traffic is switched, and nothing that it could leave", "place", place.String(), "err", err)
	case left > 0:
		e.logger.Warn("requests are still at older replicas after the drain timeout", "place", place.String(), "requests", left, "timeout", timeout)
	}
	return ctx.Err()
}

// publish writes the table's entry. A greater slot there is as good: this one had its time.
func (e *engines) publish(ctx context.Context, place discovery.Place, v Version) error {
	var err error
	if v.Slot.Kind == events.KindRemove {
		err = e.deployer.Withdraw(ctx, place, v.Slot.N)
	} else {
		spec := deploy.Spec{Place: place, Slot: v.Slot.N, Run: v.Run.Name(), Digest: v.Slot.Digest, HealthPath: v.Run.Definition.Service.Health.Path}
		err = e.deployer.Switch(ctx, spec, v.Slot.Instances)
	}
	var stale *discovery.StaleError
	if errors.As(err, &stale) {
		return nil
	}
	return err
}

// Clean implements Effects.
func (e *engines) Clean(ctx context.Context, p Place, keep []*fold.Slot, upTo int) error {
	var kept []deploy.Kept
	for _, slot := range keep {
		kept = append(kept, deploy.Kept{Slot: slot.N, Containers: names(slot)})
	}
	return e.deployer.Retire(ctx, discovery.Place{Env: p.Env, App: p.App}, upTo, kept...)
}

// names are of the containers that carry a slot's version.
func names(s *fold.Slot) []string {
	var all []string
	for _, i := range s.Instances {
		all = append(all, i.ID)
	}
	return all
}

// Heal implements Effects.
func (e *engines) Heal(ctx context.Context, v Version) error {
	place := discovery.Place{Env: v.Env, App: v.App}
	gone, err := e.deployer.Reconcile(ctx, place)
	if err == nil && gone == 0 {
		if own := e.issuer(v); own != nil {
			err = e.deployer.Refresh(ctx, place, own)
		}
	}
	if err != nil || gone == 0 {
		return err
	}
	e.logger.Warn("replicas are gone from the engine and are made again", "place", place.String(), "slot", v.Slot.N, "gone", gone)
	spec, err := e.spec(ctx, v)
	if err != nil {
		return err
	}
	instances, err := e.bringUp(ctx, spec, io.Discard)
	if err != nil {
		return err
	}
	healed := *v.Slot
	healed.Instances = instances
	v.Slot = &healed
	return e.publish(ctx, place, v)
}

// bare is what a slot asks of its engine, without its settings and what is needed to get its image.
func (e *engines) bare(v Version) (deploy.Spec, error) {
	d := v.Run.Definition
	env, ok := d.Environment(v.Slot.Defined())
	if !ok {
		return deploy.Spec{}, fmt.Errorf("the definition of %s names no environment %s", v.Run.Name(), v.Slot.Defined())
	}
	spec := deploy.Spec{
		Place: discovery.Place{Env: v.Env, App: v.App}, Slot: v.Slot.N, Run: v.Run.Name(), Attempt: v.Slot.Attempt,
		Repository: v.Slot.Repository, Digest: v.Slot.Digest,
		Port: d.Service.Port, HealthPath: d.Service.Health.Path, HealthCommand: d.Service.Health.Command,
		Replicas: env.Replicas, HealthTimeout: time.Duration(d.Service.HealthTimeout), Release: d.Release,
	}
	if v.From != nil {
		spec.Adopt = names(v.From)
	}
	return spec, nil
}

// spec is what a slot asks of its engine.
func (e *engines) spec(ctx context.Context, v Version) (deploy.Spec, error) {
	spec, err := e.bare(v)
	if err != nil {
		return deploy.Spec{}, err
	}
	resolved, err := e.resolve(ctx, v)
	if err != nil {
		return deploy.Spec{}, err
	}
	spec.Config, spec.Secrets = variables(resolved.Config), resolved.Secrets
	if err := e.discover(ctx, v, &spec); err != nil {
		return deploy.Spec{}, err
	}
	spec.Credentials, err = e.credentials(ctx, v.Slot.Repository)
	return spec, err
}

// variables are settings by the names that they have in a container.
func variables(config map[string]string) map[string]string {
	env := make(map[string]string, len(config))
	for key, value := range config {
		env[pipeline.Variable(key)] = value
	}
	return env
}

// resolve reads the settings that the slot is pinned to. A version that comes back by itself does so with
// what can still be had: where its replicas run on, they have it all. What an app finds itself may be otherwise, too.
func (e *engines) resolve(ctx context.Context, v Version) (settings.Resolved, error) {
	resolved, err := e.settings.ResolveAt(ctx, v.Env, v.App, v.Slot.Pins)
	if !errors.Is(err, settings.ErrNotSet) && !errors.Is(err, settings.ErrInvalid) {
		return resolved, err
	}
	if v.Slot.Kind != events.KindRollback {
		_, err := e.settings.ResolveAt(ctx, v.Env, v.App, e.handed(v))
		switch {
		case errors.Is(err, settings.ErrNotSet), errors.Is(err, settings.ErrInvalid):
			return resolved, &UnfitError{Blame: BlameSettings, Trouble: events.Trouble{
				What: "reading the settings", On: v.Run.Name() + " in " + string(v.Env), Why: err.Error(),
			}}
		case err != nil:
			return resolved, err
		}
	}
	left := events.Pins{
		Config: map[string]uint64{}, ConfigStore: v.Slot.Pins.ConfigStore,
		Secrets: map[string]uint64{}, SecretStore: e.settings.Name(v.Env, settings.Secrets),
	}
	for key, version := range v.Slot.Pins.Config {
		if _, err := e.settings.GetConfigAt(ctx, v.Env, v.App, key, v.Slot.Pins.ConfigStore, version); err == nil {
			left.Config[key] = version
		}
	}
	for key := range v.Slot.Pins.Secrets {
		if _, version, err := e.settings.GetSecret(ctx, v.Env, v.App, key); err == nil {
			left.Secrets[key] = version
		}
	}
	return e.settings.ResolveAt(ctx, v.Env, v.App, left)
}

// handed are the pins of those settings of a slot that its containers are given, and do not find themselves.
func (e *engines) handed(v Version) events.Pins {
	pins := v.Slot.Pins
	if v.Run.Definition.Discover {
		pins.Config = nil
		if e.settings.Access(v.Env, settings.Secrets) != nil {
			pins.Secrets = nil
		}
	}
	return pins
}

func (e *engines) credentials(ctx context.Context, repository string) (engine.Credentials, error) {
	r, err := registry.ParseRepository(repository)
	if err != nil {
		return engine.Credentials{}, err
	}
	user, password, err := e.registry.Credentials(ctx, r)
	return engine.Credentials{Username: user, Password: password}, err
}

// log is the output of the run's promotion; what brings an earlier version back is no part of one.
func (e *engines) log(v Version) io.WriteCloser {
	if v.Slot.Kind != events.KindDeploy {
		return discard{}
	}
	return e.ledger.Log(ledger.LogKey{
		Service: string(events.Promote), App: v.App, Run: v.Run.N, Env: v.Env, Stage: "promote", Attempt: v.Slot.Attempt,
	})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

// Left implements Effects.
func (e *engines) Left(ctx context.Context, among []events.Slug) ([]events.Slug, error) {
	left, err := e.deployer.Left(ctx, among)
	entries, listed := e.table.List(ctx)
	for p := range entries {
		if slices.Contains(among, p.Env) && !slices.Contains(left, p.Env) {
			left = append(left, p.Env)
		}
	}
	return left, errors.Join(err, listed)
}

// Raze implements Effects.
func (e *engines) Raze(ctx context.Context, env events.Slug, apps map[events.Slug]int) error {
	return e.deployer.Raze(ctx, env, apps)
}
