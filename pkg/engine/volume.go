package engine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/volume"
)

// EnsureMemoryVolume makes sure that a volume of that name exists which lives in memory (tmpfs) and holds
// at most size bytes. It has content only while a container that mounts it runs.
func (e *Engine) EnsureMemoryVolume(ctx context.Context, name string, size int64, labels map[string]string) error {
	return e.do(ctx, changeBound, "making volume "+name, func(ctx context.Context) error {
		_, err := e.api.VolumeCreate(ctx, volume.CreateOptions{
			Name: name, Driver: "local", Labels: labels,
			DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": fmt.Sprintf("size=%d,mode=0755,noexec,nosuid,nodev", size)},
		})
		return err
	})
}

// Volume is a volume that the engine has.
type Volume struct {
	Name   string
	Labels map[string]string
}

// Volumes returns the volumes that carry every given label with its value; an empty value asks for the
// label alone.
func (e *Engine) Volumes(ctx context.Context, labels map[string]string) (volumes []Volume, err error) {
	err = e.do(ctx, readBound, "listing volumes", func(ctx context.Context) error {
		found, err := e.api.VolumeList(ctx, volume.ListOptions{Filters: labelFilter(labels)})
		for _, v := range found.Volumes {
			volumes = append(volumes, Volume{Name: v.Name, Labels: v.Labels})
		}
		return err
	})
	return volumes, err
}

// RemoveVolume removes a volume. Absence is no error; the error wraps ErrInUse while a container,
// running or not, mounts it.
func (e *Engine) RemoveVolume(ctx context.Context, name string) error {
	err := e.do(ctx, changeBound, "removing volume "+name, func(ctx context.Context) error {
		err := e.api.VolumeRemove(ctx, name, false)
		if errdefs.IsConflict(err) {
			return fmt.Errorf("%w: %w", ErrInUse, err)
		}
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// CopyTo unpacks a tar stream into a folder of a container. Into a volume of a running container it
// arrives in the volume; into a --tmpfs mount it would not.
func (e *Engine) CopyTo(ctx context.Context, id, folder string, files io.Reader) error {
	return e.do(ctx, changeBound, "copying files to container "+id, func(ctx context.Context) error {
		return e.api.CopyToContainer(ctx, id, folder, files, container.CopyToContainerOptions{})
	})
}

// ReadFiles returns the files directly in a folder of a container, those of its mounts included, by
// name. It reads at most limit bytes in all. A folder that is not there has none.
func (e *Engine) ReadFiles(ctx context.Context, id, folder string, limit int64) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := e.do(ctx, changeBound, "reading "+folder+" of container "+id, func(ctx context.Context) error {
		content, _, err := e.api.CopyFromContainer(ctx, id, folder)
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		defer content.Close()
		archive := tar.NewReader(io.LimitReader(content, limit))
		for {
			header, err := archive.Next()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			if header.Typeflag != tar.TypeReg {
				continue
			}
			data, err := io.ReadAll(archive)
			if err != nil {
				return err
			}
			files[path.Base(header.Name)] = data
		}
	})
	return files, err
}
