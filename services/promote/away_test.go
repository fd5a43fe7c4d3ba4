package promote_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery/catalog"
	"towpath.dev/pkg/engine/enginetest"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings/consul/consultest"
	"towpath.dev/services/promote"
	"towpath.dev/services/promote/deploy"
)

// noted waits until promote says what it tries again, and why.
func (s *stage) noted(why string) {
	s.t.Helper()
	bound := time.After(30 * time.Second)
	for {
		notes, err := s.gateway.Ledger.Notes(s.t.Context(), events.BucketTries, events.Promote)
		if err == nil && slices.ContainsFunc(notes, func(n ledger.Note) bool { return strings.Contains(n.Why, why) }) {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-bound:
			s.t.Fatalf("nothing says %q: %v, %v", why, notes, err)
		}
	}
}

// judge does what verify does with the slot of a place that waits for it.
func (s *stage) judge(n int, o events.Outcome) {
	s.t.Helper()
	a := s.until(fmt.Sprintf("slot %d waits for its verification", n), func(a *fold.App) bool {
		slot := a.Env("dev").Slot(n)
		return slot != nil && slot.Deployed
	})
	slot := a.Env("dev").Slot(n)
	s.outcomes[slot.Digest] = o
	s.verified(s.t.Context(), "dev", slot)
}

// A run waits for the Consul of its environment, which is away. What runs there and is rejected is taken back meanwhile:
// its replicas from before have all they need. What Consul's catalog still names stays until it can be told, and Consul is
// told soon after it is back.
func TestTakenBackWhileConsulIsAway(t *testing.T) {
	e := enginetest.EnsureEngine(t)
	used := enginetest.RemoveImages(t, e)
	registry := enginetest.Registry(t)
	agent := consultest.Start(t)
	agent.Put("config/dev/hello/KEY", "a")
	s := newBareStage(t)
	s.verify = s.open("verify")
	s.platform = policy.Default()
	s.platform.Settings = map[events.Slug]policy.Stores{"dev": {
		Consul: &policy.Consul{Address: agent.URL, Path: "config/{env}/{app}/{key}", Register: true, Service: "{app}-{env}"},
	}}
	install := s.gateway.Fold.LedgerID()[:8]
	enginetest.RemoveAll(t, e, map[string]string{deploy.LabelInstall: install})
	edge := freeAddress(t)
	s.process("edge", "--listen", edge)
	s.startWith(promote.Config{LookEvery: time.Hour}, promote.Deps{})
	d := foldtest.Definition(`
app: hello
service: {port: 8080, health: /health, replicas: 2, healthTimeout: 20s}
config: [KEY]
environments: [{name: dev}]
`)
	version := func(n int) {
		t.Helper()
		repository, digest := enginetest.Push(t, registry, "hello", enginetest.App{Args: []string{"serve", "-text", fmt.Sprint("version ", n)}})
		used(repository + "@" + digest)
		s.readyImage(d, n, repository, digest)
	}
	containers := func() []string {
		t.Helper()
		found, err := e.List(t.Context(), map[string]string{deploy.LabelInstall: install, deploy.LabelRole: "replica"})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, c := range found {
			names = append(names, c.Name)
		}
		slices.Sort(names)
		return names
	}

	version(1)
	s.judge(1, events.Success)
	version(2)
	s.until("2 is deployed", func(a *fold.App) bool { return a.Env("dev").Slot(2) != nil && a.Env("dev").Slot(2).Deployed })
	ask(t, edge, "dev", "version 2 GET")

	agent.Kill()
	version(3)
	s.noted("Consul of dev (" + agent.URL + "): reading config/dev/hello/KEY")
	all := containers()
	s.judge(2, events.Failure)
	a := s.until("1 is live again", func(a *fold.App) bool {
		live := a.Env("dev").Live()
		return live != nil && live.N == 3
	})
	live := a.Env("dev").Live()
	if live.Kind != events.KindRollback || a.Env("dev").Slot(2).Closing != events.Rejected ||
		!slices.Equal(live.Instances, a.Env("dev").Slot(1).Instances) {
		t.Errorf("slot 3 is %+v", live)
	}
	ask(t, edge, "dev", "version 1 GET")
	s.noted("showing in Consul's catalog where hello.dev runs")
	if now := containers(); !slices.Equal(now, all) || len(now) != 4 {
		t.Errorf("while the catalog names the replicas of slot 2 there are %v, want %v", now, all)
	}
	if s.gateway.Fold.App("hello").Env("dev").Slot(3).Deployed {
		t.Error("slot 3 is said to be deployed, and the catalog names slot 2")
	}

	agent.Start()
	agent.AwaitLeader()
	begun := time.Now()
	s.judge(3, events.Success)
	if took := time.Since(begun); took > 30*time.Second {
		t.Errorf("it went on %s after Consul was back", took)
	} else {
		t.Logf("it went on %s after Consul was back", took.Round(time.Millisecond))
	}
	s.judge(4, events.Success) // the run that waited
	ask(t, edge, "dev", "version 3 GET")
	services, err := agent.API.Agent().Services()
	if err != nil {
		t.Fatal(err)
	}
	for id, service := range services {
		if service.Meta[catalog.MetaSlot] != "4" {
			t.Errorf("the catalog names %s of slot %s", id, service.Meta[catalog.MetaSlot])
		}
	}
	if len(services) != 2 {
		t.Errorf("the catalog names %d instances", len(services))
	}
}
