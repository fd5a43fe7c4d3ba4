package gateway

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings/consul/consultest"
	"towpath.dev/pkg/settings/vault/vaulttest"
)

// Doctor says of each environment how its Consul and its Vault are, and what to do about them.
func TestDoctorLooksAtStores(t *testing.T) {
	agent, vault := consultest.StartWithACLs(t), vaulttest.Start(t, vaulttest.Options{})
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	platform, err := policy.Parse("platform.yaml", []byte(`
settings:
  qa:
    consul: {address: "`+agent.URL+`", tokenFile: `+file("token", agent.Token("qa", `key_prefix "config/qa/" { policy = "write" }`))+`}
  prod:
    consul: {address: "`+agent.URL+`", tokenFile: `+file("token", agent.Token("prod", `key_prefix "config/prod/" { policy = "read" }`))+`}
    vault: {address: "`+vault.Address+`", tokenFile: `+file("token", vault.Root)+`}
`))
	if err != nil {
		t.Fatal(err)
	}
	s := &station{t: t, ledger: ledgertest.Start(t), platform: platform}
	s.start(Config{Listen: "127.0.0.1:0", Data: t.TempDir()})
	t.Cleanup(func() { s.end() })
	expect := func(want map[string]string, details ...string) {
		t.Helper()
		got, said := map[string]string{}, ""
		for _, c := range get[[]check](s, "GET", "/v1/doctor", nil) {
			if strings.HasPrefix(c.Name, "configuration of ") || strings.HasPrefix(c.Name, "secrets of ") {
				got[c.Name] = c.Status
				said += c.Name + ": " + c.Detail + " → " + c.Fix + "\n"
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("%v, want %v:\n%s", got, want, said)
		}
		contains(t, said, details...)
		for _, secret := range []string{vault.Root, consultest.Master} {
			if strings.Contains(said, secret) {
				t.Error("it shows a token")
			}
		}
	}
	expect(map[string]string{"configuration of qa": checkOK, "configuration of prod": checkBroken, "secrets of prod": checkOK},
		`lacks key:write on "config/prod/"`, "towpath settings rules prod", "unsealed", "leader", "token without an end", "gateway has the rights")
	if err := vault.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	agent.Kill()
	expect(map[string]string{"configuration of qa": checkBroken, "configuration of prod": checkBroken, "secrets of prod": checkBroken},
		"it is sealed → unseal it", "it is not reached")
}
