package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
)

// Running is a container whose processes are alive, whoever started it.
type Running struct {
	ID      string
	Name    string
	Image   string   // as it was started: a name, or an id
	ImageID string   // "sha256:…" of its configuration
	Digests []string // repository@digest, by which the engine knows the image
	Labels  map[string]string
	Status  string // running, paused, restarting
	Created time.Time
}

// Running lists every container that runs on the engine, its own and everybody else's, by name. What
// disappears while being looked at is left out.
func (e *Engine) Running(ctx context.Context) ([]Running, error) {
	var found []container.Summary
	err := e.do(ctx, readBound, "listing containers", func(ctx context.Context) (err error) {
		found, err = e.api.ContainerList(ctx, container.ListOptions{})
		return err
	})
	if err != nil {
		return nil, err
	}
	digests := map[string][]string{}
	list := make([]Running, 0, len(found))
	for _, c := range found {
		known, ok := digests[c.ImageID]
		if !ok {
			image, err := e.inspectImage(ctx, c.ImageID)
			if err != nil && !errors.Is(err, ErrNotFound) {
				return nil, err
			}
			known = image.RepoDigests
			digests[c.ImageID] = known
		}
		one := Running{
			ID: c.ID, Image: c.Image, ImageID: c.ImageID, Digests: known, Labels: c.Labels,
			Status: c.State, Created: time.Unix(c.Created, 0).UTC(),
		}
		if len(c.Names) > 0 {
			one.Name = strings.TrimPrefix(c.Names[0], "/")
		}
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b Running) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}
