package deploy

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/engine/enginetest"
	"towpath.dev/pkg/settings"
)

// Each environment on an engine of its own: the same digest goes through all three, and each has only
// what is its own.
func TestThreeEngines(t *testing.T) {
	t.Parallel()
	names := []events.Slug{"dev", "qa", "prod"}
	engines := make([]*enginetest.Dockerd, len(names))
	begun := time.Now()
	for i := range engines {
		engines[i] = enginetest.StartDockerd(t)
	}
	t.Logf("three engines answer after %s", time.Since(begun).Round(time.Millisecond))
	hosts := map[string]engine.Host{}
	for i, name := range names {
		hosts[string(name)] = engines[i].Host
	}
	b := onEngine(t, enginetest.EnsureEngine(t), hosts)
	s := b.spec(1, serving())
	s.Replicas = 2
	s.Secrets = map[string]settings.Secret{"TOKEN": settings.NewSecret("x")}
	addresses := map[string]bool{}
	for _, name := range names {
		s.Place.Env = name
		begun := time.Now()
		for _, i := range b.prepare(s) {
			b.get(i.Address, "/health")
			addresses[i.Address] = true
		}
		t.Logf("%s: 2 replicas healthy after %s, pull included", name, time.Since(begun).Round(time.Millisecond))
	}
	if len(addresses) != 6 {
		t.Errorf("engines share addresses: %v", addresses)
	}
	for i, name := range names {
		containers, err := engines[i].Engine.List(t.Context(), map[string]string{LabelInstall: b.cfg.Install, LabelRole: roleReplica})
		if err != nil || len(containers) != 2 {
			t.Errorf("%s: %v, %v", name, containers, err)
		}
		for _, c := range containers {
			if c.Labels[LabelEnv] != string(name) {
				t.Errorf("%s has %s", name, c.Name)
			}
		}
	}
	if ids := b.ids(hello); len(ids) != 0 {
		t.Errorf("the machine's own engine has %v", ids)
	}

	engines[2].Stop()
	s.Place.Env, s.Slot = "prod", 2
	begun = time.Now()
	if _, err := b.Prepare(t.Context(), s); !engine.IsUnreachable(err) || time.Since(begun) > 30*time.Second {
		t.Errorf("prod's engine is down, after %s: %v", time.Since(begun), err)
	}
	s.Place.Env = "dev"
	b.prepare(s)
	engines[2].Start()
	s.Place.Env = "prod"
	b.prepare(s)
	for _, name := range names {
		if err := b.Retire(t.Context(), discovery.Place{Env: name, App: "hello"}, 2); err != nil {
			t.Error(err)
		}
	}
}

// ways are how containers get files: from a folder on the machine's tmpfs, and from a volume on tmpfs.
var ways = []string{"folder", "volume"}

// onEngineBy is onEngine where containers get files in one of the ways.
func onEngineBy(t *testing.T, e *engine.Engine, way string) *bench {
	t.Helper()
	b := onEngine(t, e, nil)
	if way == "volume" {
		b.memory = ""
	}
	return b
}

// An engine that is started again gives every app its own address back, secrets and all.
func TestEngineIsStartedAgain(t *testing.T) {
	t.Parallel()
	d := enginetest.StartDockerd(t)
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			b := onEngineBy(t, d.Engine, way)
			ctx := t.Context()
			s := b.spec(1, serving())
			s.Replicas = 3
			s.Secrets = map[string]settings.Secret{"TOKEN": settings.NewSecret("still here")}
			instances := b.prepare(s)
			if err := b.Switch(ctx, s, instances); err != nil {
				t.Fatal(err)
			}
			if missing, err := b.Reconcile(ctx, hello); missing != 0 || err != nil {
				t.Fatalf("%d, %v", missing, err)
			}
			if way == "folder" {
				d.Kill()
			} else {
				d.Stop()
			}
			if _, err := b.Reconcile(ctx, hello); !engine.IsUnreachable(err) {
				t.Errorf("%v", err)
			}
			d.Start()
			b.engine = d.Engine
			if way == "volume" {
				// The memory of the engine is empty: this is noticed, and Prepare fills it.
				if missing, err := b.Reconcile(ctx, hello); missing != 3 || err != nil {
					t.Errorf("%d, %v", missing, err)
				}
			} else {
				enginetest.Eventually(t, 20*time.Second, "all run again", func() bool {
					missing, err := b.Reconcile(ctx, hello)
					return missing == 0 && err == nil
				})
			}
			again := b.prepare(s)
			for n, i := range again {
				if way == "folder" && i != instances[n] {
					t.Errorf("%v is now %v", instances[n], i)
				}
				if text := b.get(i.Address, "/secrets/TOKEN"); text != "still here" {
					t.Errorf("%s reads %q", i.ID, text)
				}
			}
			if err := b.Switch(ctx, s, again); err != nil {
				t.Fatal(err)
			}

			if err := b.engine.Remove(ctx, again[1].ID); err != nil {
				t.Fatal(err)
			}
			if missing, err := b.Reconcile(ctx, hello); missing != 1 || err != nil {
				t.Errorf("one is gone: %d, %v", missing, err)
			}
			if entry, err := b.deps.Table.Get(ctx, hello); err != nil || len(entry.Instances) != 2 || entry.Slot != 1 {
				t.Errorf("%+v, %v", entry, err)
			}
			if err := b.Switch(ctx, s, b.prepare(s)); err != nil {
				t.Fatal(err)
			}
			if entry, err := b.deps.Table.Get(ctx, hello); err != nil || len(entry.Instances) != 3 {
				t.Errorf("%+v, %v", entry, err)
			}
			if err := errors.Join(b.Withdraw(ctx, hello, 2), b.Retire(ctx, hello, 2)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Apps that start at once do not get each other's ports.
func TestPortsAreGivenOnce(t *testing.T) {
	t.Parallel()
	b := start(t)
	s := b.spec(1, serving())
	b.cfg.FirstPort, b.cfg.LastPort = 32100, 32104
	var apps sync.WaitGroup
	var mu sync.Mutex
	addresses := map[string]bool{}
	for n := range 5 {
		apps.Go(func() {
			one := s
			one.Place.App = events.Slug(fmt.Sprintf("app-%d", n))
			instances, err := b.Prepare(t.Context(), one)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			addresses[instances[0].Address] = true
			mu.Unlock()
		})
	}
	apps.Wait()
	if len(addresses) != 5 {
		t.Errorf("%v", addresses)
	}
	s.Place.App = "one-too-many"
	if _, err := b.Prepare(t.Context(), s); err == nil {
		t.Error("a sixth port of five")
	} else {
		t.Log(err)
	}
}
