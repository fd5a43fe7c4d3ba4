package system

import (
	"context"
	"errors"
	"fmt"

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

// RemoveContainer removes a container, whatever it does.
func RemoveContainer(ctx context.Context, host, name string) error {
	d, err := openDocker(ctx, host)
	if err != nil {
		return err
	}
	defer d.close()
	return d.api.ContainerRemove(ctx, name, container.RemoveOptions{Force: true})
}
