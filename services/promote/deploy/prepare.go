package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/settings"
)

// stage is what the containers of one slot share.
type stage struct {
	spec   Spec
	engine *engine.Engine
	image  engine.Image
	mounts []engine.Mount
	// emptied says that what containers of the slot had of their own is gone.
	emptied bool
	clock   func() time.Time // the engine's; nil: it did not say
}

// age is how long a container has been running, by its engine's clock; 0 where that is not known.
func (st *stage) age(state engine.State) time.Duration {
	if st.clock == nil || state.Started.IsZero() {
		return 0
	}
	return max(0, st.clock().Sub(state.Started))
}

// Prepare makes the version of s run, all replicas healthy, without any traffic, and returns them in
// order. Replicas that run already are adopted: those of s.Slot, and those that s.Adopt names. An app that
// does not become healthy is an *UnhealthyError; its containers are left for Retire.
func (d *Deployer) Prepare(ctx context.Context, s Spec) ([]events.Instance, error) {
	st, err := d.stage(ctx, s)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	instances := make([]events.Instance, st.spec.Replicas)
	var replicas sync.WaitGroup
	for i := range instances {
		replicas.Go(func() {
			var err error
			if instances[i], err = d.replica(ctx, st, i+1); err != nil {
				cancel(err) // the first failure is the answer; the others need not go on
			}
		})
	}
	replicas.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return instances, nil
}

// ComeBack returns the replicas that s.Adopt names where each of them still runs as the version of s and is healthy. It
// starts nothing and needs none of the settings of s.
func (d *Deployer) ComeBack(ctx context.Context, s Spec) (instances []events.Instance, whole bool) {
	s = s.withDefaults()
	if s.Validate() != nil || len(s.Adopt) < s.Replicas {
		return nil, false
	}
	e, err := d.deps.Engines.Environment(ctx, string(s.Place.Env))
	if err != nil {
		return nil, false
	}
	st := &stage{spec: s, engine: e}
	if _, err := st.look(ctx); err != nil {
		return nil, false
	}
	if st.image, err = e.Image(ctx, s.Repository+"@"+s.Digest); err != nil {
		return nil, false
	}
	for _, name := range s.Adopt[:s.Replicas] {
		state, err := e.Inspect(ctx, name)
		if err != nil || !state.Running() || !d.fits(st, state) {
			return nil, false
		}
		// Why one is not healthy is not said: it may hold what the app printed, and its secrets are not known here.
		if state, err = d.await(ctx, st, state.ID, name); err != nil || e.KeepRunning(ctx, state.ID) != nil {
			return nil, false
		}
		instances = append(instances, events.Instance{ID: name, Address: state.Addresses[s.Port], Engine: e.Host().URL})
	}
	return instances, true
}

// stage gets ready what containers of the slot need: image and secrets.
func (d *Deployer) stage(ctx context.Context, s Spec) (*stage, error) {
	s = s.withDefaults()
	if err := s.Validate(); err != nil {
		return nil, err
	}
	e, err := d.deps.Engines.Environment(ctx, string(s.Place.Env))
	if err != nil {
		return nil, err
	}
	st := &stage{spec: s, engine: e}
	if err = st.pull(ctx); err != nil {
		return nil, err
	}
	if st.mounts, st.emptied, err = d.placeSecrets(ctx, e, s); err != nil {
		return nil, err
	}
	return st, nil
}

// look asks the engine what it is, and for its clock.
func (st *stage) look(ctx context.Context) (engine.Info, error) {
	info, err := st.engine.Info(ctx)
	if err == nil && !info.Time.IsZero() {
		ahead := time.Until(info.Time)
		st.clock = func() time.Time { return time.Now().Add(ahead) }
	}
	return info, err
}

// pull makes sure that the engine has the image, by digest, and can run it.
func (st *stage) pull(ctx context.Context) error {
	s, e := st.spec, st.engine
	info, err := st.look(ctx)
	if err != nil {
		return err
	}
	wrong := func(why string) error {
		return &UnhealthyError{
			Reason: NoPlatform, On: s.Place.String(), Why: why,
			Do: "build the image for " + info.OS + "/" + info.Architecture,
		}
	}
	st.image, err = e.Pull(ctx, s.Repository, s.Digest, s.Credentials)
	if errors.Is(err, engine.ErrNoPlatform) {
		return wrong(fmt.Sprintf("the image %s has nothing for %s/%s", s.Digest, info.OS, info.Architecture))
	}
	if err != nil {
		return err
	}
	if st.image.OS != info.OS || !runs(info.Architecture, st.image.Architecture) {
		return wrong(fmt.Sprintf("the image %s is for %s/%s, the engine is %s/%s", s.Digest, st.image.OS, st.image.Architecture, info.OS, info.Architecture))
	}
	return nil
}

// runs reports whether a machine runs programs for an architecture by itself.
func runs(machine, program string) bool {
	return machine == program || machine == "amd64" && program == "386" || machine == "arm64" && program == "arm"
}

// join makes sure of the environment's network and returns its id. It stays until leave is called.
func (d *Deployer) join(ctx context.Context, st *stage) (network string, leave func(), err error) {
	d.joining.RLock()
	network, err = st.engine.EnsureNetwork(ctx, d.network(st.spec.Place), d.envLabels(st.spec.Place.Env))
	if err != nil {
		d.joining.RUnlock()
		return "", nil, err
	}
	return network, d.joining.RUnlock, nil
}

// container is what every container of the slot has in common.
func (d *Deployer) container(st *stage, role, name, network string) engine.Container {
	s := st.spec
	env := map[string]string{}
	maps.Copy(env, s.Env)
	maps.Copy(env, s.Config)
	for key := range s.Secrets {
		env[pipeline.Variable(key)+pipeline.FileSuffix] = secretsTarget + "/" + key
	}
	return engine.Container{
		Name: name, Image: st.image.ID, Env: env, Labels: d.labels(s, role),
		Network: network, Mounts: st.mounts, Gateway: len(s.Env) > 0,
	}
}

// replica returns replica n healthy: one that is there, or a new one.
func (d *Deployer) replica(ctx context.Context, st *stage, n int) (events.Instance, error) {
	if n <= len(st.spec.Adopt) {
		if instance, ok := d.comeBack(ctx, st, st.spec.Adopt[n-1]); ok {
			return instance, nil
		}
	}
	name := d.name(st.spec.Place, st.spec.Slot, strconv.Itoa(n))
	id, err := d.adopt(ctx, st, name)
	adopted := id != ""
	if err == nil && !adopted {
		id, err = d.start(ctx, st, name, strconv.Itoa(n))
	}
	if err != nil {
		return events.Instance{}, err
	}
	return d.healthy(ctx, st, id, name, adopted && st.emptied)
}

// comeBack returns the replica of an earlier slot where it is still there as it was and healthy.
func (d *Deployer) comeBack(ctx context.Context, st *stage, name string) (events.Instance, bool) {
	state, err := st.engine.Inspect(ctx, name)
	if err != nil || !state.Running() || !d.fits(st, state) {
		return events.Instance{}, false
	}
	instance, err := d.healthy(ctx, st, state.ID, name, false)
	if err != nil {
		d.deps.Logger.Warn("a replica of the earlier version cannot come back; a new one is started", "container", name, "err", err)
	}
	return instance, err == nil
}

// fits reports whether a container is a replica of this version, of whichever slot.
func (d *Deployer) fits(st *stage, state engine.State) bool {
	return d.ours(state.Labels, st.spec.Place) && state.Labels[LabelRole] == roleReplica &&
		state.Labels[LabelDigest] == st.spec.Digest && state.Image == st.image.ID
}

// adopt returns the id of the container that has the name where it may go on, "" where a new one has to
// be made. What has the name and does not fit, or has ended, is removed.
func (d *Deployer) adopt(ctx context.Context, st *stage, name string) (string, error) {
	state, err := st.engine.Inspect(ctx, name)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return "", nil
	case err != nil:
		return "", err
	case !d.ours(state.Labels, st.spec.Place):
		return "", fmt.Errorf("container %s is not of this installation, but has the name; remove it or rename it", name)
	case state.Running() && d.fits(st, state) && slotOf(state.Labels) == st.spec.Slot &&
		state.Labels[LabelRun] == st.spec.Run && state.Labels[LabelAttempt] == strconv.Itoa(st.spec.Attempt):
		d.deps.Logger.Info("container adopted", "container", name)
		return state.ID, nil
	}
	return "", st.engine.Remove(ctx, state.ID)
}

// start makes and starts a replica's container, on another port where the first is taken.
func (d *Deployer) start(ctx context.Context, st *stage, name, replica string) (string, error) {
	if !st.image.HasCommand {
		return "", &UnhealthyError{
			Reason: NotStartable, On: name, Why: "the image says neither ENTRYPOINT nor CMD",
			Do: "say in the Dockerfile what to run",
		}
	}
	network, leave, err := d.join(ctx, st)
	if err != nil {
		return "", err
	}
	defer leave()
	c := d.container(st, roleReplica, name, network)
	c.Aliases = []string{string(st.spec.Place.App)}
	if err := d.equip(ctx, st, &c, replica); err != nil {
		return "", err
	}
	for tries := 0; ; tries++ {
		if st.spec.Port > 0 {
			c.Port = st.spec.Port
			if c.HostPort, err = d.freePort(ctx, st.engine); err != nil {
				return "", err
			}
			c.Labels[LabelPort] = strconv.Itoa(c.HostPort)
		}
		id, err := st.engine.Create(ctx, c)
		if err != nil {
			return "", err
		}
		err = st.engine.Start(ctx, id)
		switch {
		case err == nil:
			return id, nil
		case errors.Is(err, engine.ErrPortTaken) && tries < portTries:
			if err := st.engine.Remove(ctx, id); err != nil {
				return "", err
			}
		case engine.IsUnreachable(err) || ctx.Err() != nil:
			return "", err
		default:
			return "", d.notStarted(ctx, st, id, name, err)
		}
	}
}

// healthy waits until a container is healthy, gives it what its next start needs, has the engine keep it running and
// returns it. lost says that what it had of its own is gone.
func (d *Deployer) healthy(ctx context.Context, st *stage, id, name string, lost bool) (events.Instance, error) {
	begun := time.Now()
	state, err := d.await(ctx, st, id, name)
	if err != nil {
		return events.Instance{}, err
	}
	if err := d.refresh(ctx, st.engine, st.spec.Own, st.spec.Place, state, lost); err != nil {
		return events.Instance{}, err
	}
	if err := st.engine.KeepRunning(ctx, id); err != nil {
		return events.Instance{}, err
	}
	d.deps.Logger.Debug("container is healthy", "container", name, "after", time.Since(begun))
	return events.Instance{ID: name, Address: state.Addresses[st.spec.Port], Engine: st.engine.Host().URL}, nil
}

// secretKeys returns the names of the secrets, sorted.
func secretKeys(secrets map[string]settings.Secret) []string {
	return slices.Sorted(maps.Keys(secrets))
}
