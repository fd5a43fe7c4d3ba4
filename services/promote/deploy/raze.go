package deploy

import (
	"context"
	"fmt"
	"slices"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/engine"
)

// Raze removes all that is left of an environment of these apps up to the slot that each is with: containers, volumes,
// secrets, what slots were granted to find their settings themselves, its entries in the catalog and in the table of what
// gets traffic, and networks that nothing is on. Containers get SIGTERM and Config.Grace. Nothing of those slots may be
// under way; later ones, of an environment that was made again, are left alone. Whatever is gone already is fine.
func (d *Deployer) Raze(ctx context.Context, env events.Slug, apps map[events.Slug]int) error {
	err := d.raze(ctx, env, apps)
	if err == nil {
		err = d.withdrawAll(ctx, env, apps)
	}
	if err != nil {
		return fmt.Errorf("removing what is left of %s: %w", env, err)
	}
	return nil
}

// Left returns those of these environments that have containers.
func (d *Deployer) Left(ctx context.Context, among []events.Slug) (left []events.Slug, err error) {
	seen := map[*engine.Engine]map[events.Slug]bool{}
	for _, env := range among {
		e, err := d.deps.Engines.Environment(ctx, string(env))
		if err != nil {
			return left, err
		}
		if seen[e] == nil {
			all, err := e.List(ctx, map[string]string{LabelInstall: d.cfg.Install})
			if err != nil {
				return left, err
			}
			seen[e] = map[events.Slug]bool{}
			for _, c := range all {
				seen[e][events.Slug(c.Labels[LabelEnv])] = true
			}
		}
		if seen[e][env] {
			left = append(left, env)
		}
	}
	return left, nil
}

// raze removes what is left on the engine.
func (d *Deployer) raze(ctx context.Context, env events.Slug, apps map[events.Slug]int) error {
	e, err := d.deps.Engines.Environment(ctx, string(env))
	if err != nil {
		return err
	}
	containers, err := e.List(ctx, d.envLabels(env))
	if err != nil {
		return err
	}
	over := slices.Clone(containers)
	over = slices.DeleteFunc(over, func(c engine.State) bool {
		return slotOf(c.Labels) > apps[events.Slug(c.Labels[LabelApp])]
	})
	if err := d.removeContainers(ctx, e, over); err != nil {
		return err
	}
	for app, upTo := range apps {
		if err := d.removeSecrets(ctx, e, discovery.Place{Env: env, App: app}, upTo, nil); err != nil {
			return err
		}
	}
	if len(over) < len(containers) {
		return nil
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
func (d *Deployer) withdrawAll(ctx context.Context, env events.Slug, apps map[events.Slug]int) error {
	entries, err := d.deps.Table.List(ctx)
	if err != nil {
		return err
	}
	for app, upTo := range apps {
		p := discovery.Place{Env: env, App: app}
		if err := d.revoke(ctx, p, upTo, nil); err != nil {
			return err
		}
		if entries[p].Slot > upTo {
			continue
		}
		if d.deps.Catalog != nil {
			if err := d.deps.Catalog.Remove(ctx, p); err != nil {
				return err
			}
		}
		cleared, err := d.deps.Table.ClearUpTo(ctx, p, upTo)
		if err == nil && !cleared { // it was made again meanwhile
			err = d.Show(ctx, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
