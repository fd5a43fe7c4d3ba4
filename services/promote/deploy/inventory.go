package deploy

import (
	"context"
	"errors"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/audit"
	"towpath.dev/pkg/engine"
)

// mostListed bounds an inventory, so that it fits into one message of the bus.
const mostListed = 1000

// Inventory tells what runs on an environment's engine, whoever started it.
func (d *Deployer) Inventory(ctx context.Context, env events.Slug) (audit.Inventory, error) {
	e, err := d.deps.Engines.Environment(ctx, string(env))
	if err != nil {
		return audit.Inventory{}, err
	}
	running, err := e.Running(ctx)
	if err != nil {
		return audit.Inventory{}, err
	}
	keeper, err := e.Image(ctx, keeperName)
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return audit.Inventory{}, err
	}
	list := audit.Inventory{
		Engine: e.Host().URL, At: time.Now().UTC(), Containers: []audit.Container{}, More: max(0, len(running)-mostListed),
	}
	for _, c := range running[:min(len(running), mostListed)] {
		one := audit.Container{
			ID: c.ID[:min(12, len(c.ID))], Name: c.Name, Image: c.Image, Digests: c.Digests,
			Keeper: keeper.ID != "" && c.ImageID == keeper.ID, Labels: map[string]string{}, Status: c.Status, Created: c.Created,
		}
		for name, value := range c.Labels {
			if strings.HasPrefix(name, "towpath.") && len(value) <= 200 {
				one.Labels[name] = value
			}
		}
		list.Containers = append(list.Containers, one)
	}
	return list, nil
}
