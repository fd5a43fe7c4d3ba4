package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Fleet is the engines of one platform: the one for builds and those of its environments. It connects
// when an engine is first asked for and shares one connection between equal hosts. Safe for concurrent
// use.
type Fleet struct {
	build        Host
	environments map[string]Host
	fallback     Host

	mu        sync.Mutex
	connected map[Host]*Engine
}

// NewFleet returns a fleet in which an environment that environments does not name runs on fallback.
func NewFleet(build, fallback Host, environments map[string]Host) *Fleet {
	return &Fleet{build: build, fallback: fallback, environments: environments, connected: map[Host]*Engine{}}
}

// Build returns the engine that builds.
func (f *Fleet) Build(ctx context.Context) (*Engine, error) {
	e, err := f.connect(ctx, f.build)
	if err != nil {
		return nil, fmt.Errorf("build engine: %w", err)
	}
	return e, nil
}

// Environment returns the engine that the named environment runs on.
func (f *Fleet) Environment(ctx context.Context, name string) (*Engine, error) {
	host, ok := f.environments[name]
	if !ok {
		host = f.fallback
	}
	e, err := f.connect(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("engine of environment %s: %w", name, err)
	}
	return e, nil
}

func (f *Fleet) connect(ctx context.Context, host Host) (*Engine, error) {
	host = host.withDefaults()
	f.mu.Lock()
	e := f.connected[host]
	f.mu.Unlock()
	if e != nil {
		return e, nil
	}
	// Not under the lock: one engine that does not answer must not hold up the others.
	e, err := Connect(ctx, host)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if first := f.connected[host]; first != nil {
		return first, e.Close()
	}
	f.connected[host] = e
	return e, nil
}

// Close closes every connection.
func (f *Fleet) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for host, e := range f.connected {
		errs = append(errs, e.Close())
		delete(f.connected, host)
	}
	return errors.Join(errs...)
}
