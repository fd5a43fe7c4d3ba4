package demo

import (
	"context"
	"errors"
	"fmt"
	"os"

	"towpath.dev/pkg/engine"
)

// remove takes away everything that the demo created, whatever became of it: containers, networks,
// volumes, images, and its folder. It makes sure that nothing is left.
func (d *demo) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, removeBound)
	defer cancel()
	d.tell.gap()
	err := d.system.stop()
	if d.engine != nil && d.system != nil && d.system.install != "" {
		err = errors.Join(err, d.removeFromEngine(ctx), d.engine.Close())
	}
	err = errors.Join(err, os.RemoveAll(d.dir))
	if err != nil {
		return fmt.Errorf("removing what the demo created: %w", err)
	}
	d.tell.holds("removed: containers, images, networks and its folder (the Engine's build cache stays)")
	return nil
}

func (d *demo) removeFromEngine(ctx context.Context) error {
	mine := map[string]string{labelInstall: d.system.install}
	containers, err := d.engine.List(ctx, mine)
	if err != nil {
		return err
	}
	var faults []error
	for _, c := range containers {
		faults = append(faults, d.engine.Remove(ctx, c.ID))
	}
	networks, err := d.engine.Networks(ctx, mine)
	faults = append(faults, err)
	for _, n := range networks {
		faults = append(faults, d.engine.RemoveNetwork(ctx, n.Name))
	}
	volumes, err := d.engine.Volumes(ctx, mine)
	faults = append(faults, err)
	for _, v := range volumes {
		faults = append(faults, d.engine.RemoveVolume(ctx, v.Name))
	}
	for name := range d.images {
		if err := d.engine.RemoveImage(ctx, name); err != nil && !errors.Is(err, engine.ErrNotFound) {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
