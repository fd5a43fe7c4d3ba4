package catalog_test

import (
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/discovery/catalog"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings/consul/consultest"
)

// A Consul that does not answer holds up what is shown in no other, nor longer than Bound what is to be shown in itself.
func TestOneConsulHoldsUpNoOther(t *testing.T) {
	dead, well := consultest.Start(t), consultest.Start(t)
	platform := &policy.Platform{Settings: map[events.Slug]policy.Stores{}}
	for env, agent := range map[events.Slug]*consultest.Agent{"dev": dead, "prod": well} {
		platform.Settings[env] = policy.Stores{Consul: &policy.Consul{Address: agent.URL, Register: true, Service: "{app}-{env}"}}
	}
	table := discovery.Open(ledgertest.Start(t).Client(string(events.Promote)))
	ctx := t.Context()
	for _, env := range []events.Slug{"dev", "prod"} {
		entry := discovery.Entry{Slot: 1, Digest: "sha256:" + string(env), Run: "hello/1", Instances: []events.Instance{{ID: "hello-" + string(env), Address: "127.0.0.1:9"}}}
		if err := table.Publish(ctx, discovery.Place{Env: env, App: "hello"}, entry); err != nil {
			t.Fatal(err)
		}
	}
	c := catalog.New("0123abcd", "localhost", platform, table)
	dead.Freeze()
	defer dead.Thaw()
	begun := time.Now()
	reconciled := make(chan error, 1)
	go func() { reconciled <- c.Reconcile(ctx) }()
	shown := 0
	for ; len(reconciled) == 0; shown++ { // all the while that the dead one is waited for
		if err := c.Project(ctx, discovery.Place{Env: "prod", App: "hello"}); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begun); shown < 2 || took < catalog.Bound/2 {
		t.Errorf("%d projections in the %s that the dead Consul was waited for", shown, took)
	}
	if err := <-reconciled; err == nil {
		t.Error("the dead Consul is shown what runs")
	}
	services, err := well.API.Agent().Services()
	if err != nil || services["hello-prod"] == nil {
		t.Errorf("%v (%v)", services, err)
	}
}
