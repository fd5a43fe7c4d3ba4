package system

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
)

// StartBeside starts a container on an Engine as somebody would who goes around Towpath: of an image that runs there
// already, and without a label.
func StartBeside(ctx context.Context, host, name string) error {
	d, err := openDocker(ctx, host)
	if err != nil {
		return err
	}
	defer d.close()
	running, err := d.list(ctx, false)
	if err != nil {
		return err
	}
	if len(running) == 0 {
		return errors.New("nothing runs there whose image could be used")
	}
	created, err := d.api.ContainerCreate(ctx, &container.Config{Image: running[0].ImageID}, nil, nil, nil, name)
	if err == nil {
		err = d.api.ContainerStart(ctx, created.ID, container.StartOptions{})
	}
	if err != nil {
		return fmt.Errorf("starting %s beside Towpath: %w", name, err)
	}
	return nil
}

// StartDouble starts a container on an Engine that has another's image and labels, as if it were one of its replicas. name
// is what the other's ends with; its own is "double".
func StartDouble(ctx context.Context, host, name string) error {
	return onContainer(ctx, host, name, func(d *docker, c container.Summary) error {
		created, err := d.api.ContainerCreate(ctx, &container.Config{Image: c.ImageID, Labels: c.Labels}, nil, nil, nil, "double")
		if err != nil {
			return err
		}
		return d.api.ContainerStart(ctx, created.ID, container.StartOptions{})
	})
}

// RemoveContainer removes a container whose name ends with name, whatever it does.
func RemoveContainer(ctx context.Context, host, name string) error {
	return onContainer(ctx, host, name, func(d *docker, c container.Summary) error {
		return d.api.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true})
	})
}

// StopContainer stops a container whose name ends with name, as docker stop does.
func StopContainer(ctx context.Context, host, name string) error {
	return onContainer(ctx, host, name, func(d *docker, c container.Summary) error {
		return d.api.ContainerStop(ctx, c.ID, container.StopOptions{})
	})
}

// LimitContainer gives a container whose name ends with name a limit of 64 MiB of memory, as docker update does.
func LimitContainer(ctx context.Context, host, name string) error {
	return onContainer(ctx, host, name, func(d *docker, c container.Summary) error {
		limit := container.Resources{Memory: 64 << 20, MemorySwap: 128 << 20}
		_, err := d.api.ContainerUpdate(ctx, c.ID, container.UpdateConfig{Resources: limit, RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyAlways}})
		return err
	})
}

// onContainer does something to the one container of an Engine whose name ends with name.
func onContainer(ctx context.Context, host, name string, do func(*docker, container.Summary) error) error {
	d, err := openDocker(ctx, host)
	if err != nil {
		return err
	}
	defer d.close()
	all, err := d.list(ctx, true)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(c container.Summary) bool { return !strings.HasSuffix(c.Names[0], name) })
	if len(all) != 1 {
		return fmt.Errorf("%d containers have a name that ends with %s, not 1", len(all), name)
	}
	if err := do(d, all[0]); err != nil {
		return fmt.Errorf("beside Towpath, to %s: %w", all[0].Names[0], err)
	}
	return nil
}
