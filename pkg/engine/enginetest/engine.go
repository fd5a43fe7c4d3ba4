// Package enginetest gives tests real Docker Engines, a registry, and images of an application that
// behaves as told. Nothing in it skips: what is missing fails the test and says what to do.
package enginetest

import (
	"context"
	"os"
	"testing"

	"towpath.dev/pkg/engine"
)

// EnsureEngine returns the Engine of this machine (DOCKER_HOST, else the usual socket).
func EnsureEngine(t testing.TB) *engine.Engine {
	t.Helper()
	return connect(t, os.Getenv("DOCKER_HOST"))
}

func connect(t testing.TB, url string) *engine.Engine {
	t.Helper()
	e, err := engine.Connect(context.Background(), engine.Host{URL: url})
	if err != nil {
		t.Fatalf("these tests need a Docker Engine (deployments/engine.sh gets one): %v", err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// RemoveAll removes every container, volume and network that carries the labels, when the test ends.
func RemoveAll(t testing.TB, e *engine.Engine, labels map[string]string) {
	t.Helper()
	t.Cleanup(func() {
		ctx := context.Background()
		containers, err := e.List(ctx, labels)
		if err != nil {
			t.Errorf("cleaning up: %v", err)
		}
		for _, c := range containers {
			if err := e.Remove(ctx, c.ID); err != nil {
				t.Errorf("cleaning up: %v", err)
			}
		}
		volumes, err := e.Volumes(ctx, labels)
		if err != nil {
			t.Errorf("cleaning up: %v", err)
		}
		for _, v := range volumes {
			if err := e.RemoveVolume(ctx, v.Name); err != nil {
				t.Errorf("cleaning up: %v", err)
			}
		}
		networks, err := e.Networks(ctx, labels)
		if err != nil {
			t.Errorf("cleaning up: %v", err)
		}
		for _, n := range networks {
			if err := e.RemoveNetwork(ctx, n.ID); err != nil {
				t.Errorf("cleaning up: %v", err)
			}
		}
	})
}

// RemoveImages removes the images that the function which it returns is told of, when the test ends. Call
// it before RemoveAll: what is registered first is done last, and a container's image cannot be removed.
func RemoveImages(t testing.TB, e *engine.Engine) (also func(reference string)) {
	t.Helper()
	var references []string
	t.Cleanup(func() {
		for _, r := range references {
			if err := e.RemoveImage(context.Background(), r); err != nil {
				t.Errorf("cleaning up: %v", err)
			}
		}
	})
	return func(reference string) { references = append(references, reference) }
}
