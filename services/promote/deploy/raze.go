package deploy

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
)

// Raze removes all that is left of an environment in which these apps ever were: containers, volumes, networks, secrets,
// what slots were granted to find their settings themselves, and its entries in the catalog and in the table of what gets
// traffic. Containers get SIGTERM and Config.Grace. Nothing of the environment may be under way. Whatever is gone already
// is fine.
func (d *Deployer) Raze(ctx context.Context, env events.Slug, apps []events.Slug) error {
	err := d.raze(ctx, env)
	if err == nil {
		err = d.withdrawAll(ctx, env, apps)
	}
	if err != nil {
		return fmt.Errorf("removing what is left of %s: %w", env, err)
	}
	return nil
}

// raze removes what is left on the engine.
func (d *Deployer) raze(ctx context.Context, env events.Slug) error {
	e, err := d.deps.Engines.Environment(ctx, string(env))
	if err != nil {
		return err
	}
	containers, err := e.List(ctx, d.envLabels(env))
	if err != nil {
		return err
	}
	if err := d.removeContainers(ctx, e, containers); err != nil {
		return err
	}
	volumes, err := e.Volumes(ctx, d.envLabels(env))
	if err != nil {
		return err
	}
	for _, v := range volumes {
		if err := e.RemoveVolume(ctx, v.Name); err != nil {
			return err
		}
	}
	if d.memory != "" {
		if err := os.RemoveAll(filepath.Join(d.memory, string(env))); err != nil {
			return err
		}
		os.Remove(d.memory) // goes with its last folder
	}
	d.joining.Lock()
	defer d.joining.Unlock()
	networks, err := e.Networks(ctx, d.envLabels(env))
	if err != nil {
		return err
	}
	for _, n := range networks {
		if err := e.RemoveNetwork(ctx, n.ID); err != nil {
			return err
		}
	}
	return nil
}

// withdrawAll removes what others were told of an environment's apps, and what those were granted. The table's entries go
// last.
func (d *Deployer) withdrawAll(ctx context.Context, env events.Slug, apps []events.Slug) error {
	entries, err := d.deps.Table.List(ctx)
	if err != nil {
		return err
	}
	for _, app := range apps {
		p := discovery.Place{Env: env, App: app}
		if err := d.revoke(ctx, p, math.MaxInt, nil); err != nil {
			return err
		}
		if d.deps.Catalog != nil {
			if err := d.deps.Catalog.Remove(ctx, p); err != nil {
				return err
			}
		}
		if _, there := entries[p]; !there {
			continue
		}
		if err := d.deps.Table.Clear(ctx, p); err != nil {
			return err
		}
	}
	return nil
}
