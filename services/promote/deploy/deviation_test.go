package deploy

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"towpath.dev/pkg/engine"
)

// What somebody does on the engine who goes around Towpath is found, and what is as it should be is not.
func TestDeviations(t *testing.T) {
	t.Parallel()
	b := start(t)
	ctx := t.Context()
	docker, err := client.NewClientWithOpts(client.FromEnv, client.WithHost(b.engine.Host().URL), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { docker.Close() })
	s := b.spec(2, serving())
	s.Replicas, s.Config = 2, map[string]string{"GREETING": "ahoy"}
	instances := b.prepare(s)
	found := func(s Spec, tidy bool) string {
		t.Helper()
		all, err := b.Deviations(ctx, s, instances, tidy)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, d := range all {
			what := strings.Replace(d.What, "towpath-"+b.cfg.Install+"-", "", 1)
			lines = append(lines, fmt.Sprintf("%s: %s, expected %s, gone %t", what, d.Found, d.Expected, d.Gone))
		}
		return strings.Join(lines, "\n")
	}
	expect := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
		}
	}
	expect("as it was made", found(s, true), "")
	other := s
	other.Config = map[string]string{"GREETING": "moin"}
	expect("another value is pinned", found(other, true), "container hello.dev-2-1: another value, or none, expected variable GREETING as it is pinned, gone false\n"+
		"container hello.dev-2-2: another value, or none, expected variable GREETING as it is pinned, gone false")

	double := engine.Container{Name: "double-" + b.cfg.Install, Image: b.imageOf(t, instances[0].ID), Labels: b.labels(s, roleReplica)}
	id, err := b.engine.Create(ctx, double)
	if err == nil {
		err = b.engine.Start(ctx, id)
	}
	if err != nil {
		t.Fatal(err)
	}
	expect("a double, while old versions may be there", found(s, false), "")
	expect("a double", found(s, true), "container "+double.Name+": running image "+double.Image+", expected none, gone false")
	if err := b.engine.Remove(ctx, id); err != nil {
		t.Fatal(err)
	}

	update := func(c container.UpdateConfig) {
		t.Helper()
		if _, err := docker.ContainerUpdate(ctx, instances[0].ID, c); err != nil {
			t.Fatal(err)
		}
	}
	always := container.RestartPolicy{Name: container.RestartPolicyAlways}
	update(container.UpdateConfig{RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled}})
	expect("not kept running", found(s, true), "container hello.dev-2-1: restart policy no, expected restart policy always, gone false")
	update(container.UpdateConfig{RestartPolicy: always, Resources: container.Resources{Memory: 64 << 20, MemorySwap: 128 << 20}})
	expect("limited", found(s, true), "container hello.dev-2-1: memory 67108864, expected no limits, gone false")

	if err := b.engine.Stop(ctx, instances[0].ID, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.engine.Remove(ctx, instances[1].ID); err != nil {
		t.Fatal(err)
	}
	expect("stopped, and removed", found(s, true), "container hello.dev-2-1: exited, expected running, gone true\ncontainer hello.dev-2-2: gone, expected running, gone true")
}

// imageOf is the id of a container's image.
func (b *bench) imageOf(t *testing.T, name string) string {
	t.Helper()
	state, err := b.engine.Inspect(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	return state.Image
}
