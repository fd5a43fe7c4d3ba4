package consul_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/settings/consul"
	"towpath.dev/pkg/settings/consul/consultest"
	"towpath.dev/pkg/settings/settingstest"
)

const defaultPath = "config/{env}/{app}/{key}"

var greeting = settings.Place{Kind: settings.Config, Env: "qa", App: "hello", Key: "GREETING"}

func provider(t *testing.T, cfg policy.Consul) *consul.Provider {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = defaultPath
	}
	p, err := consul.New(cfg, "qa", "promote")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Where keys lie, with a shared level or without, makes no difference to what a provider guarantees.
func TestConsulIsAProvider(t *testing.T) {
	agent := consultest.Start(t)
	for name, cfg := range map[string]policy.Consul{
		"own folder": {Path: defaultPath},
		"spring":     {Path: "spring/{app},{env}/{key}", Shared: "spring/application,{env}/{key}"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Address = agent.URL
			l := ledgertest.Start(t)
			settingstest.Run(t, settings.Config,
				settings.NewArchived(l.Client(string(events.Gateway)), provider(t, cfg)),
				settings.NewArchived(l.Client(string(events.Gateway)), provider(t, cfg)))
		})
	}
}

func get(t *testing.T, p settings.Provider, at settings.Place) (string, uint64) {
	t.Helper()
	value, version, err := p.Get(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	return value, version
}

// A tree that people have kept for years is read as it is.
func TestAdoptedTree(t *testing.T) {
	agent := consultest.Start(t)
	for key, value := range map[string]string{
		"config/hello,qa/GREETING": "own", "config/hello,qa/server.port": "8080", "config/hello,qa/nested/DEEP": "x", "config/hello,qa/": "",
		"config/hello,prod/GREETING": "of prod", "config/hello-2,qa/GREETING": "of another app", "config/hello,qa/BINARY": "\xff\xfe",
		"config/application,qa/GREETING": "shared", "config/application,qa/LOG_LEVEL": "info", "config/hello,qa/LONG": strings.Repeat("x", settings.MaxValue+1),
	} {
		agent.Put(key, value)
	}
	p := provider(t, policy.Consul{Address: agent.URL, Path: "config/{app},{env}/{key}", Shared: "config/application,{env}/{key}", ReadOnly: true})
	items, err := p.List(t.Context(), "qa", "hello")
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, item := range items {
		one := item.Key + "=" + item.Value[:min(len(item.Value), 40)]
		if item.Shared {
			one += " (shared)"
		}
		if item.Version == 0 {
			t.Errorf("%s has no version", item.Key)
		}
		said = append(said, one)
	}
	want := "BINARY=(2 bytes that are not UTF-8); GREETING=own; LOG_LEVEL=info (shared); LONG=" + strings.Repeat("x", 40) + "; server.port=8080"
	if got := strings.Join(said, "; "); got != want {
		t.Errorf("listed %s\nwant   %s", got, want)
	}
	level := greeting
	level.Key = "LOG_LEVEL"
	if value, _ := get(t, p, level); value != "info" {
		t.Errorf("the shared level is %q", value)
	}
	if value, _ := get(t, p, greeting); value != "own" {
		t.Errorf("the app's own key gives way to the shared one: %q", value)
	}
	for _, key := range []string{"BINARY", "LONG"} {
		at := greeting
		at.Key = key
		if _, _, err := p.Get(t.Context(), at); !errors.Is(err, settings.ErrInvalid) || !strings.Contains(err.Error(), "config/hello,qa/"+key) {
			t.Errorf("%s: %v", key, err)
		}
	}
	if _, err := p.Set(t.Context(), greeting, "x", nil); !errors.Is(err, settings.ErrReadOnly) {
		t.Errorf("writing to what may only be read: %v", err)
	}
	if _, _, err := p.Delete(t.Context(), greeting); !errors.Is(err, settings.ErrReadOnly) {
		t.Errorf("deleting what may only be read: %v", err)
	}
}

func TestSharedLevelIsBeneath(t *testing.T) {
	agent := consultest.Start(t)
	agent.Put("config/qa/shared/GREETING", "everybody's")
	p := provider(t, policy.Consul{Address: agent.URL, Shared: "config/{env}/shared/{key}"})
	value, shared := get(t, p, greeting)
	if value != "everybody's" {
		t.Fatalf("%q", value)
	}
	if _, _, err := p.Delete(t.Context(), greeting); !errors.Is(err, settings.ErrReadOnly) {
		t.Errorf("one app deletes what all share: %v", err)
	}
	own, err := p.Set(t.Context(), greeting, "mine", &shared)
	if err != nil || own <= shared {
		t.Fatalf("version %d after %d: %v", own, shared, err)
	}
	if pair, _, err := agent.API.KV().Get("config/qa/shared/GREETING", nil); err != nil || string(pair.Value) != "everybody's" {
		t.Errorf("the shared key was written: %v, %v", pair, err)
	}
	if _, _, err := p.Delete(t.Context(), greeting); err != nil {
		t.Fatal(err)
	}
	if value, _ := get(t, p, greeting); value != "everybody's" {
		t.Errorf("without its own key it has %q", value)
	}
	mark, err := p.Watch(t.Context(), "qa", "hello", 0)
	if err != nil {
		t.Fatal(err)
	}
	woken := make(chan error, 1)
	go func() {
		next, err := p.Watch(t.Context(), "qa", "hello", mark)
		if err == nil && next == mark {
			err = errors.New("nothing is said to have changed")
		}
		woken <- err
	}()
	agent.Put("config/qa/shared/GREETING", "changed")
	select {
	case err := <-woken:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("a change of the shared level woke nobody")
	}
}

// What others write at the same time is never lost, and what they keep beside a value stays.
func TestWritersBesideTowpath(t *testing.T) {
	agent := consultest.Start(t)
	p := provider(t, policy.Consul{Address: agent.URL})
	if _, err := agent.API.KV().Put(&api.KVPair{Key: "config/qa/hello/GREETING", Value: []byte("theirs"), Flags: 42}, nil); err != nil {
		t.Fatal(err)
	}
	_, seen := get(t, p, greeting)
	agent.Put("config/qa/other/GREETING", "else")
	version, err := p.Set(t.Context(), greeting, "ours", &seen)
	if err != nil {
		t.Fatal(err)
	}
	pair, _, err := agent.API.KV().Get("config/qa/hello/GREETING", nil)
	if err != nil || pair.ModifyIndex != version || pair.Flags != 42 {
		t.Errorf("%+v, %v; the version is %d", pair, err, version)
	}
	agent.Put("config/qa/hello/GREETING", "theirs again")
	if _, err := p.Set(t.Context(), greeting, "ours again", &version); !errors.Is(err, settings.ErrChanged) {
		t.Errorf("a write over what another wrote meanwhile: %v", err)
	}
	if value, _ := get(t, p, greeting); value != "theirs again" {
		t.Errorf("%q", value)
	}
}

func TestTooLargeForConsul(t *testing.T) {
	agent := consultest.Start(t)
	p := provider(t, policy.Consul{Address: agent.URL})
	if _, err := p.Set(t.Context(), greeting, strings.Repeat("x", 600<<10), nil); !errors.Is(err, settings.ErrInvalid) {
		t.Errorf("600 KiB: %v", err)
	}
}
