package deploy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"towpath.dev/events"
)

// Raze removes all that is left of an environment: containers, volumes, networks, secrets, and its entries in the table
// of what gets traffic. Containers get SIGTERM and Config.Grace. Nothing of the environment may be under way. Whatever
// is gone already is fine.
func (d *Deployer) Raze(ctx context.Context, env events.Slug) error {
	if err := d.raze(ctx, env); err != nil {
		return fmt.Errorf("removing what is left of %s: %w", env, err)
	}
	return nil
}

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
	entries, err := d.deps.Table.List(ctx)
	if err != nil {
		return err
	}
	for p := range entries {
		if p.Env != env {
			continue
		}
		if err := d.deps.Table.Clear(ctx, p); err != nil {
			return err
		}
	}
	return nil
}
