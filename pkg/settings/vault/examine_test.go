package vault_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
)

// examined checks what a service is told of its Vault.
func (s *store) examined(t *testing.T, cfg policy.Vault, service string, says ...string) settings.Examination {
	t.Helper()
	e := s.provider(t, cfg, "qa", service).Examine(t.Context(), "qa")
	for _, want := range says {
		if !slices.ContainsFunc(e.Says, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("%s is told %q, and not %q (%v)", service, e.Says, want, e.Err)
		}
	}
	return e
}

func TestExamine(t *testing.T) {
	for _, path := range []string{pathPerKey, pathPerApp} {
		t.Run(path, func(t *testing.T) {
			s := start(t, path)
			cfg := s.follow(t, "qa", false)
			for _, service := range []string{"gateway", "promote"} {
				e := s.examined(t, cfg, service, "Vault 1.", "unsealed", "leader http", "loopback", "renewed before", "secret id for the next login until", service+" has the rights")
				if e.Err != nil || len(e.Doubts) > 0 {
					t.Errorf("%s: %v, %v", service, e.Err, e.Doubts)
				}
			}
		})
	}
}

// What is wrong is said with what to do about it.
func TestExamineFindsWhatIsWrong(t *testing.T) {
	s := start(t, pathPerKey)
	ctx := t.Context()
	own := func(rules string) policy.Vault {
		t.Helper()
		if _, err := s.Write(ctx, "sys/policies/acl/own", map[string]any{"policy": rules}); err != nil {
			t.Fatal(err)
		}
		made, err := s.Write(ctx, "auth/token/create-orphan", map[string]any{"policies": []string{"own"}, "no_default_policy": true, "ttl": "1h"})
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.cfg
		cfg.RoleIDFile, cfg.SecretIDFile, cfg.TokenFile = "", "", filepath.Join(t.TempDir(), "token")
		write(t, cfg.TokenFile, made.Auth.ClientToken)
		return cfg
	}
	const self = `path "auth/token/lookup-self" { capabilities = ["read"] }
`
	cfg := own(self + `path "kv/data/qa/+/+" { capabilities = ["create"] }
path "sys/capabilities-self" { capabilities = ["update"] }`)
	e := s.examined(t, cfg, "gateway", "unless somebody renews it")
	unavailable(t, e.Err, "gateway lacks", "update on kv/data/qa/", "list on kv/metadata/qa/", "towpath settings rules qa")
	if strings.Contains(e.Err.Error(), "create on") {
		t.Errorf("it misses what is there: %v", e.Err)
	}
	if e = s.examined(t, own(self), "gateway"); e.Err != nil || len(e.Doubts) != 1 || !strings.Contains(e.Doubts[0].Why, "is not known") {
		t.Errorf("%v, %v", e.Err, e.Doubts)
	}

	// A login holds, and there is none after it.
	cfg = s.follow(t, "qa", false)
	p := s.provider(t, cfg, "qa", "promote")
	if e := p.Examine(ctx, "qa"); e.Err != nil {
		t.Fatal(e.Err)
	}
	file := strings.ReplaceAll(cfg.SecretIDFile, policy.ServicePlaceholder, "promote")
	write(t, file, "hvs.x 2020-01-01T00:00:00Z\n")
	if e := p.Examine(ctx, "qa"); e.Err != nil || len(e.Doubts) != 1 || !strings.Contains(e.Doubts[0].Do, "vault write -f") {
		t.Errorf("%v, %v", e.Err, e.Doubts)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if e := p.Examine(ctx, "qa"); e.Err != nil || len(e.Doubts) != 1 || !strings.Contains(e.Doubts[0].Why, "cannot be read") {
		t.Errorf("%v, %v", e.Err, e.Doubts)
	}
	if err := s.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	e = s.examined(t, cfg, "gateway", "Vault 1.")
	unavailable(t, e.Err, "it is sealed", "vault operator unseal")
	s.Kill()
	unavailable(t, s.examined(t, cfg, "gateway").Err, "it is not reached")
}
