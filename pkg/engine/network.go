package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
)

// EnsureNetwork makes sure that a bridge network of that name exists, and returns its id, by which to use
// it: engines let two requests at once make two networks of one name. Its containers reach each other by
// name, and the outside as the engine lets them.
func (e *Engine) EnsureNetwork(ctx context.Context, name string, labels map[string]string) (id string, err error) {
	e.networks.Lock()
	defer e.networks.Unlock()
	err = e.do(ctx, changeBound, "making network "+name, func(ctx context.Context) error {
		if id, err = e.oldestNetwork(ctx, name); err != nil || id != "" {
			return err
		}
		made, err := e.api.NetworkCreate(ctx, name, network.CreateOptions{Driver: "bridge", Labels: labels})
		if err != nil && !errdefs.IsConflict(err) {
			return err
		}
		// Another process may have made one as well: the oldest stays.
		if id, err = e.oldestNetwork(ctx, name); err != nil || id == made.ID || made.ID == "" {
			return err
		}
		return e.api.NetworkRemove(ctx, made.ID)
	})
	return id, err
}

// oldestNetwork returns the id of the network of that name that was made first, "" for none.
func (e *Engine) oldestNetwork(ctx context.Context, name string) (string, error) {
	found, err := e.api.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("name", name))})
	if err != nil {
		return "", err
	}
	// The engine's filter finds parts of names too.
	found = slices.DeleteFunc(found, func(n network.Summary) bool { return n.Name != name })
	if len(found) == 0 {
		return "", nil
	}
	return slices.MinFunc(found, func(a, b network.Summary) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	}).ID, nil
}

// Network is a network that the engine has.
type Network struct {
	ID     string
	Name   string
	Labels map[string]string
}

// Networks returns the networks that carry every given label with its value; an empty value asks for the
// label alone.
func (e *Engine) Networks(ctx context.Context, labels map[string]string) (networks []Network, err error) {
	err = e.do(ctx, readBound, "listing networks", func(ctx context.Context) error {
		found, err := e.api.NetworkList(ctx, network.ListOptions{Filters: labelFilter(labels)})
		for _, n := range found {
			networks = append(networks, Network{ID: n.ID, Name: n.Name, Labels: n.Labels})
		}
		return err
	})
	return networks, err
}

// ErrInUse is wrapped by RemoveNetwork and RemoveVolume while a container uses them.
var ErrInUse = errors.New("in use")

// RemoveNetwork removes a network by id. Absence is no error; the error wraps ErrInUse while
// containers are on it.
func (e *Engine) RemoveNetwork(ctx context.Context, id string) error {
	err := e.do(ctx, changeBound, "removing network "+id, func(ctx context.Context) error {
		err := e.api.NetworkRemove(ctx, id)
		if errdefs.IsPermissionDenied(err) || errdefs.IsConflict(err) {
			return fmt.Errorf("%w: %w", ErrInUse, err)
		}
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
