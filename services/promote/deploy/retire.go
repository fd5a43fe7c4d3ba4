package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strconv"
	"sync"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/engine"
)

// stopsAtOnce bounds how many containers of one place are stopped at a time.
const stopsAtOnce = 8

// Kept is a slot that Retire leaves alone.
type Kept struct {
	Slot int
	// Containers are the names of its instances. A version that came back has some of an earlier slot.
	Containers []string
}

// Retire stops and removes what belongs to slots of a place up to upTo, containers and secrets, but the
// slots to be kept and what has the traffic: the old version, a slot that lost, all of it after
// Withdraw. Later slots are left alone, because another process may be at work on them. A container gets
// SIGTERM and Config.Grace. Whatever is gone already is fine; what could not be removed is in the error,
// and the rest is gone.
func (d *Deployer) Retire(ctx context.Context, p discovery.Place, upTo int, keep ...Kept) error {
	e, err := d.deps.Engines.Environment(ctx, string(p.Env))
	if err != nil {
		return err
	}
	stays, err := d.serving(ctx, p)
	if err != nil {
		return err
	}
	containers, err := e.List(ctx, d.placeLabels(p))
	if err != nil {
		return err
	}
	slots := map[int]bool{}
	for _, k := range keep {
		slots[k.Slot] = true
		for _, name := range k.Containers {
			stays[name] = true
		}
	}
	secrets := maps.Clone(slots)
	for _, c := range containers {
		if stays[c.Name] {
			secrets[slotOf(c.Labels)] = true
		}
	}
	var retired []engine.State
	for _, c := range containers {
		slot := slotOf(c.Labels)
		if slot <= upTo && !slots[slot] && !stays[c.Name] && !(c.Labels[LabelRole] == roleSecrets && secrets[slot]) {
			retired = append(retired, c)
		}
	}
	if err := d.removeContainers(ctx, e, retired); err != nil {
		return fmt.Errorf("retiring %s: %w", p, err)
	}
	if err := d.removeSecrets(ctx, e, p, upTo, secrets); err != nil {
		return fmt.Errorf("retiring %s: %w", p, err)
	}
	if len(retired) == len(containers) {
		if err := d.removeNetwork(ctx, e, p.Env); err != nil {
			return err
		}
	}
	return d.revoke(ctx, p, upTo, secrets)
}

// revoke takes away what slots up to upTo were granted to find their settings themselves, but those to be kept.
func (d *Deployer) revoke(ctx context.Context, p discovery.Place, upTo int, keep map[int]bool) error {
	if d.deps.Access == nil {
		return nil
	}
	var errs []error
	for _, access := range d.deps.Access(p.Env) {
		errs = append(errs, access.Revoke(ctx, d.cfg.Install, p.Env, p.App, func(slot int) bool { return slot > upTo || keep[slot] }))
	}
	return errors.Join(errs...)
}

// removeNetwork takes an environment's network away once its last app is gone. While another app is about
// to start it stays, for a later call.
func (d *Deployer) removeNetwork(ctx context.Context, e *engine.Engine, env events.Slug) error {
	if !d.joining.TryLock() {
		return nil
	}
	defer d.joining.Unlock()
	networks, err := e.Networks(ctx, d.envLabels(env))
	if err != nil {
		return err
	}
	for _, n := range networks {
		if err := e.RemoveNetwork(ctx, n.ID); err != nil && !errors.Is(err, engine.ErrInUse) {
			return err
		}
	}
	return nil
}

// serving returns the names of the containers that have the traffic.
func (d *Deployer) serving(ctx context.Context, p discovery.Place) (map[string]bool, error) {
	entry, err := d.deps.Table.Get(ctx, p)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	names := map[string]bool{}
	for _, i := range entry.Instances {
		names[i.ID] = true
	}
	return names, nil
}

// slotOf returns the slot that something belongs to; 0 for none.
func slotOf(labels map[string]string) int {
	slot, _ := strconv.Atoi(labels[LabelSlot])
	return slot
}

func (d *Deployer) removeContainers(ctx context.Context, e *engine.Engine, containers []engine.State) error {
	places := make(chan struct{}, stopsAtOnce)
	errs := make([]error, len(containers))
	var work sync.WaitGroup
	for i, c := range containers {
		work.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			if c.Labels[LabelRole] != roleSecrets { // which has nothing to finish
				errs[i] = e.Stop(ctx, c.ID, d.cfg.Grace)
			}
			if errs[i] == nil {
				errs[i] = e.Remove(ctx, c.ID)
			}
			if errs[i] == nil {
				d.deps.Logger.Info("container removed", "container", c.Name)
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}
