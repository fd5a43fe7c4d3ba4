package providers_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
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
	resolved, missing, err := store.Resolve(t.Context(), "prod", definition)
	if err != nil || len(missing) > 0 {
		t.Fatalf("missing %v, %v", missing, err)
	}
	if resolved.Config["GREETING"] != "hello from Consul" || resolved.Config["REGION"] != "shared by all" || resolved.Secrets["PASSWORD"].Reveal() != "in Vault" {
		t.Errorf("resolved %v", resolved.Config)
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
	if _, _, err := store.Resolve(t.Context(), "prod", definition); !errors.As(err, &away) {
		t.Errorf("without Consul: %v", err)
	}
}
