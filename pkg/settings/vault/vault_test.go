package vault_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/settings/settingstest"
	"towpath.dev/pkg/settings/vault"
	"towpath.dev/pkg/settings/vault/vaulttest"
)

// The two layouts.
const (
	pathPerKey = "{env}/{app}/{key}"
	pathPerApp = "apps/{env}/{app}"
)

// store is a Vault with a mount of KV version 2, and what the platform file would say about it.
type store struct {
	*vaulttest.Server
	cfg policy.Vault
	log *record
}

// record is what was logged.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func start(t *testing.T, path string) *store {
	t.Helper()
	s := &store{Server: vaulttest.Start(t, vaulttest.Options{}), log: &record{}}
	if err := s.Mount(t.Context(), "kv"); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	s.cfg = policy.Vault{
		Address: s.Address, Mount: "kv", Path: path, AppRole: "approle",
		RoleIDFile: filepath.Join(folder, "{service}.role-id"), SecretIDFile: filepath.Join(folder, "{service}.secret-id"),
	}
	return s
}

// root returns a provider that may do everything.
func (s *store) root(t *testing.T) *vault.Provider {
	t.Helper()
	cfg := s.cfg
	cfg.RoleIDFile, cfg.SecretIDFile, cfg.TokenFile = "", "", filepath.Join(t.TempDir(), "token")
	write(t, cfg.TokenFile, s.Root+"\n")
	return s.provider(t, cfg, "qa", "root")
}

func (s *store) provider(t *testing.T, cfg policy.Vault, env events.Slug, service string) *vault.Provider {
	t.Helper()
	p, err := vault.New(cfg, env, service, slog.New(slog.NewTextHandler(s.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// follow pastes the rules of an environment into a shell, as an administrator does.
func (s *store) follow(t *testing.T, env events.Slug, discover bool) policy.Vault {
	t.Helper()
	cfg := s.cfg
	cfg.RoleIDFile = strings.Replace(cfg.RoleIDFile, "{service}", string(env)+"-{service}", 1)
	cfg.SecretIDFile = strings.Replace(cfg.SecretIDFile, "{service}", string(env)+"-{service}", 1)
	rules, err := vault.Rules(cfg, env, discover)
	if err != nil {
		t.Fatal(err)
	}
	program, err := s.Program()
	if err != nil {
		t.Fatal(err)
	}
	shell := exec.CommandContext(t.Context(), "sh", "-euc", rules)
	shell.Env = []string{"PATH=" + filepath.Dir(program) + ":" + os.Getenv("PATH"), "VAULT_TOKEN=" + s.Root, "HOME=" + t.TempDir()}
	if out, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("%v:\n%s\n%s", err, rules, out)
	}
	return cfg
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func place(env, app events.Slug, key string) settings.Place {
	return settings.Place{Kind: settings.Secrets, Env: env, App: app, Key: key}
}

// unavailable checks that an error says that Vault cannot answer, and the words.
func unavailable(t *testing.T, err error, words ...string) *settings.UnavailableError {
	t.Helper()
	var u *settings.UnavailableError
	if !errors.As(err, &u) {
		t.Fatalf("want an UnavailableError, got %v", err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
	return u
}

func TestVaultIsAProvider(t *testing.T) {
	for _, path := range []string{pathPerKey, pathPerApp, "{app}/of/{env}/k-{key}-s/here"} {
		t.Run(path, func(t *testing.T) {
			s := start(t, path)
			settingstest.Run(t, settings.Secrets, s.root(t), s.root(t))
		})
	}
}

// What other tools wrote is read as it is, and what they do to one field is seen.
func TestTreesThatAreThereAreAdopted(t *testing.T) {
	s := start(t, pathPerApp)
	ctx, p := t.Context(), s.root(t)
	put := func(data map[string]any) {
		if _, err := s.Write(ctx, "kv/data/apps/qa/hello", map[string]any{"data": data}); err != nil {
			t.Fatal(err)
		}
	}
	put(map[string]any{"PASSWORD": "it's <plain> & simple", "PORT": 5432, "TLS": true, "JSON": map[string]any{"a": []int{1}}, "not a key": "x"})
	for key, want := range map[string]string{"PASSWORD": "it's <plain> & simple", "PORT": "5432", "TLS": "true", "JSON": `{"a":[1]}`} {
		if value, version, err := p.Get(ctx, place("qa", "hello", key)); err != nil || value != want || version != 1 {
			t.Errorf("%s is %q, version %d (%v), want %q", key, value, version, err, want)
		}
	}
	version, err := p.Set(ctx, place("qa", "hello", "PASSWORD"), "next", nil)
	if err != nil || version != 2 {
		t.Fatal(version, err)
	}
	if items, err := p.List(ctx, "qa", "hello"); err != nil || fmt.Sprint(versions(items)) != "map[JSON:1 PASSWORD:2 PORT:1 TLS:1]" {
		t.Errorf("after one was set: %v (%v)", versions(items), err)
	}
	put(map[string]any{"PASSWORD": "next", "PORT": 5433, "not a key": "x"})
	if items, err := p.List(ctx, "qa", "hello"); err != nil || fmt.Sprint(versions(items)) != "map[PASSWORD:3 PORT:3]" {
		t.Errorf("after another tool wrote: %v (%v)", versions(items), err)
	}
	got, err := s.Read(ctx, "kv/data/apps/qa/hello")
	if err != nil || got["not a key"] != "x" {
		t.Errorf("what is not Towpath's was not kept: %v (%v)", got, err)
	}
}

func versions(items []settings.Item) map[string]uint64 {
	m := map[string]uint64{}
	for _, item := range items {
		m[item.Key] = item.Version
	}
	return m
}

// A binary value is base64 in the field, which says so, and is text again once it is set to text.
func TestOtherToolsReadBinaryValues(t *testing.T) {
	for path, at := range map[string][2]string{pathPerKey: {"kv/data/qa/hello/CERT", "value"}, pathPerApp: {"kv/data/apps/qa/hello", "CERT"}} {
		t.Run(path, func(t *testing.T) {
			s := start(t, path)
			p := s.root(t)
			for _, one := range []struct {
				value string
				want  map[string]any
			}{
				{"\xff\x00", map[string]any{at[1]: "/wA=", at[1] + ".encoding": "base64"}},
				{"text", map[string]any{at[1]: "text"}},
			} {
				if _, err := p.Set(t.Context(), place("qa", "hello", "CERT"), one.value, nil); err != nil {
					t.Fatal(err)
				}
				got, err := s.Read(t.Context(), at[0])
				if err != nil || fmt.Sprint(got) != fmt.Sprint(one.want) {
					t.Errorf("%q is stored as %v (%v), want %v", one.value, got, err, one.want)
				}
			}
		})
	}
}

// The deletion of one field destroys the versions that hold it alone. Those that others share stay, and whoever deletes
// is told which, and how they are taken away.
func TestDeletingOneFieldKeepsTheOthers(t *testing.T) {
	s := start(t, pathPerApp)
	ctx, p := t.Context(), s.root(t)
	gone, kept := place("qa", "hello", "GONE"), place("qa", "hello", "KEPT")
	var versions []uint64
	for _, at := range []settings.Place{gone, kept, gone} {
		version, err := p.Set(ctx, at, time.Now().String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, version)
	}
	before, _, err := p.Get(ctx, kept)
	if err != nil {
		t.Fatal(err)
	}
	_, left, err := p.Delete(ctx, gone)
	if err != nil || !strings.Contains(left, "`vault kv destroy -mount=kv -versions=2,3 apps/qa/hello`") {
		t.Errorf("left is %q (%v)", left, err)
	}
	for i, why := range []string{"destroyed", "deleted since", "deleted since"} {
		if _, err := p.GetAt(ctx, gone, versions[i]); !errors.Is(err, settings.ErrNotSet) || !strings.Contains(err.Error(), why) {
			t.Errorf("version %d of the deleted one: %v, want %q", versions[i], err, why)
		}
	}
	if err := s.Destroyed(ctx, "kv", "apps/qa/hello", versions[0]); err != nil {
		t.Error(err)
	}
	if _, err := p.Set(ctx, kept, "changed", nil); err != nil {
		t.Fatal(err)
	}
	if value, err := p.GetAt(ctx, kept, versions[1]); err != nil || value != before {
		t.Errorf("what a rollback needs of the other is %q (%v), want %q", value, err, before)
	}
}

func TestADestroyedVersionSaysSo(t *testing.T) {
	s := start(t, pathPerKey)
	ctx, p, at := t.Context(), s.root(t), place("qa", "hello", "PASSWORD")
	for range 12 { // KV keeps ten
		if _, err := p.Set(ctx, at, time.Now().String(), nil); err != nil {
			t.Fatal(err)
		}
	}
	for path, version := range map[string]int{"kv/destroy/qa/hello/PASSWORD": 10, "kv/delete/qa/hello/PASSWORD": 11} {
		if _, err := s.Write(ctx, path, map[string]any{"versions": []int{version}}); err != nil {
			t.Fatal(err)
		}
	}
	for version, why := range map[uint64]string{1: "max_versions", 10: "was destroyed", 11: "vault kv undelete", 13: "the newest is 12"} {
		if _, err := p.GetAt(ctx, at, version); !errors.Is(err, settings.ErrNotSet) || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "set it again") {
			t.Errorf("version %d: %v, want %q and what to do", version, err, why)
		}
	}
}

func TestWhatMayOnlyBeReadIsNotWritten(t *testing.T) {
	s := start(t, pathPerKey)
	s.cfg.ReadOnly = true
	p := s.root(t)
	if _, err := p.Set(t.Context(), place("qa", "hello", "A"), "x", nil); !errors.Is(err, settings.ErrReadOnly) {
		t.Error(err)
	}
	if _, _, err := p.Delete(t.Context(), place("qa", "hello", "A")); !errors.Is(err, settings.ErrReadOnly) {
		t.Error(err)
	}
}

// With the rules pasted, each service can do its part in its environment, and none reaches into another.
func TestRulesGiveEachServiceItsPartAndNoMore(t *testing.T) {
	for _, path := range []string{pathPerKey, pathPerApp} {
		t.Run(path, func(t *testing.T) {
			s := start(t, path)
			ctx := t.Context()
			dev, prod := s.follow(t, "dev", false), s.follow(t, "prod", false)
			gateway, promote := s.provider(t, prod, "prod", "gateway"), s.provider(t, prod, "prod", "promote")
			at := place("prod", "hello", "PASSWORD")
			first, err := gateway.Set(ctx, at, "secret", nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := gateway.Set(ctx, place("prod", "hello", "OTHER"), "secret", nil); err != nil {
				t.Fatal(err)
			}
			if value, version, err := promote.Get(ctx, at); err != nil || value != "secret" || version != first {
				t.Errorf("promote reads %q, version %d (%v)", value, version, err)
			}
			for name, p := range map[string]*vault.Provider{"gateway": gateway, "promote": promote} {
				if items, err := p.List(ctx, "prod", "hello"); err != nil || len(items) != 2 || versions(items)["PASSWORD"] != first {
					t.Errorf("%s lists %v (%v)", name, items, err)
				}
			}
			_, _, err = gateway.Get(ctx, at)
			unavailable(t, err, "403", "gateway", "towpath settings rules prod")
			_, err = promote.Set(ctx, at, "other", nil)
			unavailable(t, err, "403", "promote")
			// promote of dev has nothing to look for in prod, nor has dev's gateway.
			foreign := prod
			foreign.RoleIDFile, foreign.SecretIDFile = dev.RoleIDFile, dev.SecretIDFile
			_, _, err = s.provider(t, foreign, "prod", "promote").Get(ctx, at)
			unavailable(t, err, "403", "promote is not allowed", "Vault of prod")
			_, err = s.provider(t, foreign, "prod", "gateway").Set(ctx, at, "x", nil)
			unavailable(t, err, "403")
			gone, _, err := gateway.Delete(ctx, at)
			if err != nil || gone <= first {
				t.Errorf("deleting: version %d (%v)", gone, err)
			}
			if _, err := promote.GetAt(ctx, at, first); !errors.Is(err, settings.ErrNotSet) {
				t.Errorf("after deletion: %v", err)
			}
			if strings.Contains(s.log.String(), "level=ERROR") {
				t.Error(s.log)
			}
		})
	}
}

func TestRulesThatCannotHoldAreNotPrinted(t *testing.T) {
	cfg := policy.Vault{Address: "http://127.0.0.1:1", Mount: "kv", Path: "{app}-{env}/{key}", TokenFile: "/x"}
	if rules, err := vault.Rules(cfg, "qa", false); err == nil || !strings.Contains(err.Error(), "give {env} a segment of its own") {
		t.Errorf("%s (%v)", rules, err)
	}
}

func within(t *testing.T, d time.Duration, what string, is func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var err error
	for {
		if err = is(ctx); err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s within %s: %v", what, d, err)
		case <-tick.C:
		}
	}
}
