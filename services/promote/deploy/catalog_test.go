package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/discovery/catalog"
	"towpath.dev/pkg/engine/enginetest"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/settings/consul/consultest"
)

// withConsul gives the Deployer a catalog on a Consul of its own.
func (b *bench) withConsul(agent *consultest.Agent) *catalog.Catalog {
	b.Helper()
	platform := policy.Default()
	platform.Settings = map[events.Slug]policy.Stores{policy.DefaultEnvironment: {
		Consul: &policy.Consul{Address: agent.URL, Path: "config/{env}/{app}/{key}", Register: true, Service: "{app}-{env}"},
	}}
	b.deps.Catalog = catalog.New(b.cfg.Install, "localhost", platform, b.deps.Table)
	return b.deps.Catalog
}

// registered returns the ids of hello's instances that Consul tells of, those that pass alone or all.
func registered(t *testing.T, agent *consultest.Agent, passing bool) []string {
	t.Helper()
	entries, _, err := agent.API.Health().Service("hello-dev", "", passing, nil)
	if err != nil {
		t.Fatal(err)
	}
	ids := []string{}
	for _, e := range entries {
		ids = append(ids, e.Service.ID)
	}
	slices.Sort(ids)
	return ids
}

// await returns when Consul tells of these instances; the agent brings its changes into the catalog a moment later.
func awaitRegistered(t *testing.T, agent *consultest.Agent, passing bool, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		got := registered(t, agent, passing)
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("Consul tells of %q, want %q", got, want)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func TestCatalogFollowsTheTraffic(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	b := start(t)
	b.withConsul(agent)
	ctx := t.Context()
	one := b.spec(1, serving())
	one.Replicas = 2
	first := b.prepare(one)
	if got := registered(t, agent, false); len(got) != 0 {
		t.Errorf("before it is live Consul tells of %q", got)
	}
	if err := b.Switch(ctx, one, first); err != nil {
		t.Fatal(err)
	}
	awaitRegistered(t, agent, true, first[0].ID, first[1].ID)
	entries, _, err := agent.API.Health().Service("hello-dev", "", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		want := map[string]string{
			catalog.MetaInstall: b.cfg.Install, catalog.MetaApp: "hello", catalog.MetaEnvironment: "dev",
			catalog.MetaRun: "hello/1", catalog.MetaDigest: one.Digest, catalog.MetaSlot: "1",
		}
		if !maps.Equal(e.Service.Meta, want) {
			t.Errorf("metadata %v, want %v", e.Service.Meta, want)
		}
		if address := fmt.Sprintf("%s:%d", e.Service.Address, e.Service.Port); address != first[0].Address && address != first[1].Address {
			t.Errorf("it is said to be at %s", address)
		}
	}
	two := b.spec(2, serving())
	second := b.prepare(two)
	if err := b.Switch(ctx, two, second); err != nil {
		t.Fatal(err)
	}
	awaitRegistered(t, agent, false, second[0].ID)
	if len(b.ids(hello)) != 3 {
		t.Error("the version before is to be taken out of Consul before its containers go")
	}
	if err := b.Withdraw(ctx, hello, 3); err != nil {
		t.Fatal(err)
	}
	awaitRegistered(t, agent, false)
}

// Consul asks the instances itself: one that does not answer gets nothing from whoever finds services there.
func TestConsulChecksInstances(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	b := start(t)
	b.withConsul(agent)
	s := b.spec(1, serving())
	s.Replicas = 2
	instances := b.prepare(s)
	if err := b.Switch(t.Context(), s, instances); err != nil {
		t.Fatal(err)
	}
	awaitRegistered(t, agent, true, instances[0].ID, instances[1].ID)
	if err := b.engine.Stop(t.Context(), instances[0].ID, 0); err != nil {
		t.Fatal(err)
	}
	awaitRegistered(t, agent, true, instances[1].ID)
}

func TestStaleInstancesAreReaped(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	b := start(t)
	c := b.withConsul(agent)
	ctx := t.Context()
	s := b.spec(1, serving())
	s.Replicas = 2
	instances := b.prepare(s)
	// The process died between the table and the catalog.
	if err := b.deps.Table.Publish(ctx, hello, discovery.Entry{Slot: 1, Digest: s.Digest, Run: s.Run, Instances: instances, Health: s.HealthPath}); err != nil {
		t.Fatal(err)
	}
	// An earlier one left an instance behind; a place that nobody knows, and somebody else, have theirs.
	left := map[string]string{
		catalog.MetaInstall: b.cfg.Install, catalog.MetaApp: "hello", catalog.MetaEnvironment: "dev", catalog.MetaSlot: "0",
	}
	unknown := maps.Clone(left)
	unknown[catalog.MetaApp] = "unknown"
	stranger := maps.Clone(left)
	stranger[catalog.MetaInstall] = "ffffffff"
	for id, meta := range map[string]map[string]string{"left": left, "unknown": unknown, "stranger": stranger, "theirs": nil} {
		if err := agent.API.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: "hello-dev", Meta: meta}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Reconcile(ctx); err != nil {
		t.Fatal(err)
	}
	awaitRegistered(t, agent, false, "stranger", "theirs", instances[0].ID, instances[1].ID, "unknown")
	awaitRegistered(t, agent, true, "stranger", "theirs", instances[0].ID, instances[1].ID, "unknown") // its own checks find them well

	// Somebody removed a container.
	if err := b.engine.Remove(ctx, instances[0].ID); err != nil {
		t.Fatal(err)
	}
	if missing, err := b.Reconcile(ctx, hello); err != nil || missing != 1 {
		t.Fatalf("%d missing, %v", missing, err)
	}
	awaitRegistered(t, agent, false, "stranger", "theirs", instances[1].ID, "unknown")
}

// A Consul that does not answer is said to be away, within the bound, after the traffic was switched where it can be; it
// catches up as soon as it answers, by the same switch or by whoever looks around.
func TestCatalogCatchesUpWithConsul(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	b := start(t)
	c := b.withConsul(agent)
	ctx := t.Context()
	s := b.spec(1, enginetest.App{Args: []string{"serve"}})
	instances := b.prepare(s)
	for name, fault := range map[string]struct{ begin, end func() }{
		"frozen": {agent.Freeze, agent.Thaw},
		"killed": {agent.Kill, func() { agent.Start(); agent.AwaitLeader() }},
	} {
		s.Slot++
		fault.begin()
		begun := time.Now()
		var away *settings.UnavailableError
		if err := b.Switch(ctx, s, instances); !errors.As(err, &away) || !strings.Contains(err.Error(), agent.URL) {
			t.Errorf("%s: %v", name, err)
		}
		if entry, err := b.deps.Table.Get(ctx, hello); err != nil || entry.Slot != s.Slot {
			t.Errorf("%s: the table says %+v, %v", name, entry, err)
		}
		if took := time.Since(begun); took > catalog.Bound+2*time.Second {
			t.Errorf("%s: the switch took %s", name, took)
		}
		if err := c.Reconcile(ctx); err == nil || !strings.Contains(err.Error(), agent.URL) {
			t.Errorf("%s: %v", name, err)
		}
		fault.end()
		catchUp := c.Reconcile
		if name == "killed" {
			catchUp = func(ctx context.Context) error { return b.Switch(ctx, s, instances) }
		}
		if err := catchUp(ctx); err != nil {
			t.Fatalf("%s, then well again: %v", name, err)
		}
		awaitRegistered(t, agent, true, instances[0].ID)
		services, err := agent.API.Agent().Services()
		if err != nil || services[instances[0].ID].Meta[catalog.MetaSlot] != fmt.Sprint(s.Slot) {
			t.Errorf("%s: %v, %v", name, services, err)
		}
	}
}
