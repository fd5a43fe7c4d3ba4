package providers_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/settings/consul/consultest"
	"towpath.dev/pkg/settings/providers"
	"towpath.dev/pkg/settings/vault/vaulttest"
)

// TestOpen: each environment's settings are where the platform file says, and are resolved with their pins.
func TestOpen(t *testing.T) {
	consul, vault := consultest.Start(t), vaulttest.Start(t, vaulttest.Options{})
	if err := vault.Mount(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "gateway.token")
	if err := os.WriteFile(token, []byte(vault.Root), 0o600); err != nil {
		t.Fatal(err)
	}
	platform, err := policy.Parse("platform.yaml", []byte(`
settings:
  prod:
    consul: {address: "`+consul.URL+`", shared: "config/{env}/application/{key}"}
    vault: {address: "`+vault.Address+`", mount: secret, tokenFile: "`+filepath.Dir(token)+`/{service}.token"}
`))
	if err != nil {
		t.Fatal(err)
	}
	l := ledgertest.Start(t)
	key, err := identity.LoadSettingsKey(l.Keys)
	if err != nil {
		t.Fatal(err)
	}
	store, keep, err := providers.Open(providers.Options{
		Client: l.Client(string(events.Gateway)), Key: key, Platform: platform, Service: events.Gateway, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer keep()()
	for _, kind := range []settings.Kind{settings.Config, settings.Secrets} {
		if store.External("dev", kind) || !store.External("prod", kind) {
			t.Errorf("%s: dev and prod are not where the platform file says", kind)
		}
	}

	consul.Put("config/prod/hello/GREETING", "hello from Consul")
	consul.Put("config/prod/application/REGION", "shared by all")
	if _, err := store.SetSecret(t.Context(), "prod", "hello", "PASSWORD", settings.NewSecret("in Vault")); err != nil {
		t.Fatal(err)
	}
	definition := pipeline.Definition{App: "hello", Config: []string{"GREETING", "REGION"}, Secrets: []string{"PASSWORD"}}
	pins, missing, err := store.Pin(t.Context(), "prod", definition)
	if err != nil || len(missing) > 0 {
		t.Fatalf("missing %v, %v", missing, err)
	}
	resolved, err := store.ResolveAt(t.Context(), "prod", "hello", pins)
	if err != nil || resolved.Config["GREETING"] != "hello from Consul" || resolved.Config["REGION"] != "shared by all" || resolved.Secrets["PASSWORD"].Reveal() != "in Vault" {
		t.Errorf("resolved %v (%v)", resolved.Config, err)
	}
	consul.Put("config/prod/hello/GREETING", "changed")
	again, err := store.ResolveAt(t.Context(), "prod", "hello", resolved.Pins)
	if err != nil || again.Config["GREETING"] != "hello from Consul" {
		t.Errorf("at its pins it is %v (%v)", again.Config, err)
	}
	if missing, err := store.Missing(t.Context(), "dev", definition); err != nil || len(missing) != 3 {
		t.Errorf("dev lacks %v (%v), want all three", missing, err)
	}
	consul.Kill()
	var away *settings.UnavailableError
	if _, _, err := store.Pin(t.Context(), "prod", definition); !errors.As(err, &away) {
		t.Errorf("without Consul: %v", err)
	}
}

// stores opens the stores of one environment that a platform file names, nothing of it being embedded.
func stores(t *testing.T, l *ledgertest.Ledger, text string) *settings.Store {
	t.Helper()
	platform, err := policy.Parse("platform.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.LoadSettingsKey(l.Keys)
	if err != nil {
		t.Fatal(err)
	}
	store, _, err := providers.Open(providers.Options{
		Client: l.Client(string(events.Gateway)), Key: key, Platform: platform, Service: events.Gateway, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// Whoever checks whether all is there for a deploy reads no value of a secret, neither by what it may nor by what it does.
func TestPinningReadsNoSecret(t *testing.T) {
	for name, path := range map[string]string{"per key": "{env}/{app}/{key}", "per app": "{env}/{app}"} {
		t.Run(name, func(t *testing.T) {
			vault, ctx := vaulttest.Start(t, vaulttest.Options{}), t.Context()
			if err := vault.Mount(ctx, "secret"); err != nil {
				t.Fatal(err)
			}
			values := map[string]any{"value": "canary", "PASSWORD": "canary"}
			for _, at := range []string{"secret/data/prod/hello", "secret/data/prod/hello/PASSWORD"} {
				if _, err := vault.Write(ctx, at, map[string]any{"data": values}); err != nil {
					t.Fatal(err)
				}
			}
			rules := `path "secret/metadata/*" { capabilities = ["read", "list"] }
path "secret/subkeys/*" { capabilities = ["read"] }
path "secret/data/*" { capabilities = ["deny"] }`
			if _, err := vault.Write(ctx, "sys/policies/acl/presence", map[string]any{"policy": rules}); err != nil {
				t.Fatal(err)
			}
			made, err := vault.Write(ctx, "auth/token/create", map[string]any{"policies": []string{"presence"}})
			if err != nil {
				t.Fatal(err)
			}
			token := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(token, []byte(made.Auth.ClientToken), 0o600); err != nil {
				t.Fatal(err)
			}
			store := stores(t, ledgertest.Start(t), "settings:\n  prod:\n    vault: {address: \""+vault.Address+"\", mount: secret, path: \""+path+"\", tokenFile: \""+token+"\"}\n")
			before, err := os.ReadFile(filepath.Join(vault.Folder, "audit.log"))
			if err != nil {
				t.Fatal(err)
			}
			definition := pipeline.Definition{App: "hello", Secrets: []string{"PASSWORD", "OTHER"}}
			for name, check := range map[string]func() (events.Pins, []settings.MissingKey, error){
				"pin":     func() (events.Pins, []settings.MissingKey, error) { return store.Pin(ctx, "prod", definition) },
				"present": func() (events.Pins, []settings.MissingKey, error) { return store.Present(ctx, "prod", definition) },
			} {
				pins, lacking, err := check()
				if err != nil || pins.Secrets["PASSWORD"] != 1 || len(lacking) != 1 || lacking[0].Key != "OTHER" {
					t.Errorf("%s: %v, lacking %v (%v)", name, pins, lacking, err)
				}
			}
			asked := func() []byte {
				text, err := os.ReadFile(filepath.Join(vault.Folder, "audit.log"))
				if err != nil {
					t.Fatal(err)
				}
				return text[len(before):]
			}
			data, keys := []byte(`"path":"secret/data/`), []byte(`"path":"secret/subkeys/`)
			if bytes.Contains(asked(), data) || !bytes.Contains(asked(), keys) {
				t.Errorf("Vault was asked for values: %s", asked())
			}
			if _, err := store.ResolveAt(ctx, "prod", "hello", events.Pins{Secrets: map[string]uint64{"PASSWORD": 1}}); err == nil || !bytes.Contains(asked(), data) {
				t.Errorf("reading a value: %v; the audit log says %s", err, asked())
			}
		})
	}
}

// An environment whose stores are changed keeps what its pins name, where that can still be had, and never takes a version
// of one store for one of another.
func TestMovedStores(t *testing.T) {
	one, other, vault, ctx := consultest.Start(t), consultest.Start(t), vaulttest.Start(t, vaulttest.Options{}), t.Context()
	if err := vault.Mount(ctx, "secret"); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(vault.Root), 0o600); err != nil {
		t.Fatal(err)
	}
	l := ledgertest.Start(t)
	external := func(consul *consultest.Agent) *settings.Store {
		return stores(t, l, "settings:\n  prod:\n    consul: {address: \""+consul.URL+"\"}\n    vault: {address: \""+vault.Address+"\", mount: secret, tokenFile: \""+token+"\"}\n")
	}
	embedded, first, second := stores(t, l, "{}"), external(one), external(other)
	definition := pipeline.Definition{App: "hello", Config: []string{"GREETING"}, Secrets: []string{"PASSWORD"}}
	pins := map[*settings.Store]events.Pins{}
	for store, value := range map[*settings.Store]string{embedded: "embedded", first: "first", second: "second"} {
		if _, err := store.SetConfig(ctx, "prod", "hello", "GREETING", value); err != nil {
			t.Fatal(err)
		}
		if _, err := store.SetSecret(ctx, "prod", "hello", "PASSWORD", settings.NewSecret(value)); err != nil {
			t.Fatal(err)
		}
		var lacking []settings.MissingKey
		var err error
		if pins[store], lacking, err = store.Pin(ctx, "prod", definition); err != nil || len(lacking) > 0 {
			t.Fatal(lacking, err)
		}
	}
	stored := map[string]bool{}
	for _, p := range pins {
		stored[p.ConfigStore] = true
		if p.ConfigStore == "" || p.SecretStore == "" {
			t.Errorf("%+v names no store", p)
		}
	}
	if len(stored) != 3 {
		t.Errorf("three stores are called %v", stored)
	}
	for _, c := range []struct {
		from, to *settings.Store
		want     string
	}{{embedded, second, "embedded"}, {first, second, "first"}, {first, embedded, "first"}} {
		config := events.Pins{Config: pins[c.from].Config, ConfigStore: pins[c.from].ConfigStore}
		if got, err := c.to.ResolveAt(ctx, "prod", "hello", config); err != nil || got.Config["GREETING"] != c.want {
			t.Errorf("the configuration pinned in %s is %q after the move (%v)", config.ConfigStore, got.Config["GREETING"], err)
		}
	}
	secrets := events.Pins{Secrets: pins[embedded].Secrets, SecretStore: pins[embedded].SecretStore}
	if got, err := first.ResolveAt(ctx, "prod", "hello", secrets); err != nil || got.Secrets["PASSWORD"].Reveal() != "embedded" {
		t.Errorf("the embedded secret after the move: %v", err)
	}
	secrets = events.Pins{Secrets: pins[first].Secrets, SecretStore: pins[first].SecretStore}
	if _, err := embedded.ResolveAt(ctx, "prod", "hello", secrets); !errors.Is(err, settings.ErrNotSet) || !strings.Contains(err.Error(), "moved from Vault (") {
		t.Errorf("a secret of Vault, after it is not used any more: %v", err)
	}

	// Nothing of it outlasts the environment.
	for _, store := range []*settings.Store{embedded, first, second} {
		if _, err := store.DeleteConfig(ctx, "prod", "hello", "GREETING"); err != nil {
			t.Fatal(err)
		}
		if err := store.Forget(ctx, "prod", "hello"); err != nil {
			t.Fatal(err)
		}
		config := events.Pins{Config: pins[store].Config, ConfigStore: pins[store].ConfigStore}
		if got, err := store.ResolveAt(ctx, "prod", "hello", config); !errors.Is(err, settings.ErrNotSet) {
			t.Errorf("%s still has %v of what was forgotten (%v)", config.ConfigStore, got.Config, err)
		}
	}
	for _, bucket := range []string{events.BucketPinned, events.BucketConfig} {
		if left, err := l.Client(string(events.Gateway)).Bucket(bucket).List(ctx, "prod.hello"); err != nil || len(left) > 0 {
			t.Errorf("%s still has %d entries (%v)", bucket, len(left), err)
		}
	}
}

// What somebody keeps in Consul that no container can have is named with why, and is not taken for a value.
func TestValuesThatCannotBeDeployed(t *testing.T) {
	consul, ctx := consultest.Start(t), t.Context()
	store := stores(t, ledgertest.Start(t), "settings:\n  prod:\n    consul: {address: \""+consul.URL+"\"}\n")
	definition := pipeline.Definition{App: "hello"}
	for key, value := range map[string]string{"BINARY": "\xff\xfe", "ZERO": "a\x00b", "LONG": strings.Repeat("x", settings.MaxValue+1), "FINE": "fine"} {
		consul.Put("config/prod/hello/"+key, value)
	}
	definition.Config = []string{"BINARY", "ZERO", "LONG", "FINE", "NONE"}
	want := map[string]string{"BINARY": "must be UTF-8", "ZERO": "without zero bytes", "LONG": "allowed are 65536", "NONE": "NONE missing"}
	judge := func(want map[string]string) {
		t.Helper()
		for name, check := range map[string]func() (events.Pins, []settings.MissingKey, error){
			"pin":     func() (events.Pins, []settings.MissingKey, error) { return store.Pin(ctx, "prod", definition) },
			"present": func() (events.Pins, []settings.MissingKey, error) { return store.Present(ctx, "prod", definition) },
		} {
			pins, lacking, err := check()
			if err != nil || len(lacking) != len(want) || len(pins.Config) != len(definition.Config)-len(want) {
				t.Errorf("%s: %d pins, lacking %v (%v)", name, len(pins.Config), lacking, err)
			}
			for _, m := range lacking {
				if !strings.Contains(m.String(), want[m.Key]) || m.Command != "towpath config set prod hello "+m.Key+"=…" {
					t.Errorf("%s: %s → %s, want %q", name, m, m.Command, want[m.Key])
				}
			}
		}
	}
	judge(want)

	definition.Config = nil
	for _, letter := range "ABCDEFGHIJKLMNOPQ" { // 17 of 64 KiB are more than an environment takes
		key := "LARGE_" + string(letter)
		consul.Put("config/prod/hello/"+key, strings.Repeat("x", settings.MaxValue))
		definition.Config = append(definition.Config, key)
	}
	judge(map[string]string{"LARGE_A": "a container's environment takes", "LARGE_B": "a container's environment takes"})
	definition.Discover = true
	judge(nil)
}
