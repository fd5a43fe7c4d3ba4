package vault_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/settings/settingstest"
	"towpath.dev/pkg/settings/vault"
	"towpath.dev/pkg/settings/vault/vaulttest"
)

// seeded returns a store with a secret, and what promote of qa logs in with.
func seeded(t *testing.T) (*store, policy.Vault, settings.Place, uint64) {
	t.Helper()
	s := start(t, pathPerKey)
	cfg, at := s.follow(t, "qa", false), place("qa", "hello", "PASSWORD")
	version, err := s.root(t).Set(t.Context(), at, "secret", nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, cfg, at, version
}

func secretIDFile(cfg policy.Vault, service string) string {
	return strings.ReplaceAll(cfg.SecretIDFile, policy.ServicePlaceholder, service)
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func reads(p *vault.Provider, at settings.Place) func(context.Context) error {
	return func(ctx context.Context) error {
		_, _, err := p.Get(ctx, at)
		return err
	}
}

// Each start uses up a secret id and leaves the next ones, in a file of mode 0600; two providers may share a file.
func TestEachLoginLeavesTheNextSecretID(t *testing.T) {
	s, cfg, at, _ := seeded(t)
	file := secretIDFile(cfg, "promote")
	seen := map[string]bool{strings.TrimSpace(read(t, file)): true}
	for range 3 {
		if _, _, err := s.provider(t, cfg, "qa", "promote").Get(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(read(t, file)) {
			token, _, _ := strings.Cut(line, " ")
			if seen[token] {
				t.Errorf("a wrapping token stands there twice")
			}
			seen[token] = true
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the file's mode is %v (%v)", info.Mode(), err)
		}
	}
	if len(seen) != 7 {
		t.Errorf("3 logins left %d wrapping tokens, want 2 each", len(seen)-1)
	}
	both := []*vault.Provider{s.provider(t, cfg, "qa", "promote"), s.provider(t, cfg, "qa", "promote")}
	errs := make(chan error, len(both))
	for _, p := range both {
		go func() { errs <- reads(p, at)(t.Context()) }()
	}
	for range both {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for line := range strings.Lines(s.log.String() + read(t, filepath.Join(s.Folder, "vault.log"))) {
		for token := range seen {
			if strings.Contains(line, token) {
				t.Errorf("a wrapping token is logged")
			}
		}
	}
}

func TestAUsedWrappingTokenIsAnAlarm(t *testing.T) {
	s, cfg, at, _ := seeded(t)
	file := secretIDFile(cfg, "promote")
	thief, err := s.Client(strings.TrimSpace(read(t, file)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := thief.Logical().Unwrap(""); err != nil {
		t.Fatal(err)
	}
	p := s.provider(t, cfg, "qa", "promote")
	_, _, err = p.Get(t.Context(), at)
	if u := unavailable(t, err, "used already", file, "who read the file", "-wrap-ttl=72h auth/approle/role/towpath-qa-promote/secret-id"); !u.Alarm {
		t.Error("it is no alarm")
	}
	if !strings.Contains(s.log.String(), "level=ERROR") || !strings.Contains(s.log.String(), "ALARM") {
		t.Errorf("nothing loud was logged: %s", s.log)
	}
	next, err := s.WrapSecretID(t.Context(), "approle", "towpath-qa-promote", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, next)
	within(t, 30*time.Second, "with a new secret id it resumes", reads(p, at))
}

// Somebody who unwrapped the secret id and wrapped it again cannot hide it.
func TestAnExchangedWrappingTokenIsAnAlarm(t *testing.T) {
	s, cfg, at, _ := seeded(t)
	file := secretIDFile(cfg, "promote")
	thief, err := s.Client(strings.TrimSpace(read(t, file)))
	if err != nil {
		t.Fatal(err)
	}
	stolen, err := thief.Logical().Unwrap("")
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Write(t.Context(), "sys/wrapping/wrap", stolen.Data)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, again.WrapInfo.Token)
	_, _, err = s.provider(t, cfg, "qa", "promote").Get(t.Context(), at)
	if u := unavailable(t, err, "exchanged", "sys/wrapping/wrap"); !u.Alarm {
		t.Error("it is no alarm")
	}
}

// A login that was cut short has used up a wrapping token of its own: that is no alarm, and the spare one serves.
func TestALoginThatWasCutShortIsNoAlarm(t *testing.T) {
	s, cfg, at, _ := seeded(t)
	file := secretIDFile(cfg, "promote")
	if _, _, err := s.provider(t, cfg, "qa", "promote").Get(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(read(t, file), "\n")
	write(t, file, first+" used\n"+rest)
	token, _, _ := strings.Cut(first, " ")
	used, err := s.Client(token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := used.Logical().Unwrap(""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.provider(t, cfg, "qa", "promote").Get(t.Context(), at); err != nil {
		t.Error(err)
	}
	if strings.Contains(s.log.String(), "ALARM") {
		t.Error(s.log)
	}
}

// A secret id that nobody used in time is no alarm.
func TestAnExpiredWrappingTokenSaysSo(t *testing.T) {
	s, cfg, at, _ := seeded(t)
	file := secretIDFile(cfg, "promote")
	write(t, file, "hvs.gone 2026-01-02T03:04:05Z\n")
	_, _, err := s.provider(t, cfg, "qa", "promote").Get(t.Context(), at)
	if u := unavailable(t, err, "expired at 2026-01-02T03:04:05Z", "put a new one there"); u.Alarm {
		t.Error("it is an alarm")
	}
}

// Run renews the token, logs in anew when it cannot be renewed, replaces the secret ids at half of their time, and
// revokes the token at the end.
func TestRunKeepsTheLogin(t *testing.T) {
	s, cfg, at, _ := seeded(t)
	role := "auth/approle/role/towpath-qa-promote"
	if _, err := s.Write(t.Context(), role, map[string]any{"token_ttl": "2s", "token_max_ttl": "5s"}); err != nil {
		t.Fatal(err)
	}
	wrapped, err := s.WrapSecretID(t.Context(), "approle", "towpath-qa-promote", 4*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	file := secretIDFile(cfg, "promote")
	write(t, file, wrapped)
	p := s.provider(t, cfg, "qa", "promote")
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		p.Run(ctx)
	}()
	// Ten seconds: five lives of a token, two of what it can be renewed to, two of a wrapped secret id.
	seen := map[string]bool{}
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); {
		if _, _, err := p.Get(ctx, at); err != nil {
			t.Fatal(err)
		}
		seen[read(t, file)] = true
	}
	cancel()
	<-over
	if len(seen) < 4 {
		t.Errorf("the secret ids were replaced %d times in 10 s, at half of 4 s each", len(seen)-1)
	}
	if strings.Contains(s.log.String(), "level=ERROR") {
		t.Error(s.log)
	}
	if left, err := s.Tokens(t.Context(), "auth/approle/login"); err != nil || left != 0 {
		t.Errorf("%d tokens are left (%v)", left, err)
	}
	if _, _, err := s.provider(t, cfg, "qa", "promote").Get(t.Context(), at); err != nil {
		t.Errorf("the next start: %v", err)
	}
}

func TestARevokedTokenIsReplaced(t *testing.T) {
	s, cfg, at, _ := seeded(t)
	p := s.provider(t, cfg, "qa", "promote")
	if _, _, err := p.Get(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	if err := s.RevokeLogins(t.Context(), "auth/approle/login"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Get(t.Context(), at); err != nil {
		t.Error(err)
	}
}

func TestATokenFromAFile(t *testing.T) {
	s, cfg, at, _ := seeded(t)
	cfg.RoleIDFile, cfg.SecretIDFile, cfg.TokenFile = "", "", filepath.Join(t.TempDir(), "{service}.token")
	file := strings.ReplaceAll(cfg.TokenFile, policy.ServicePlaceholder, "promote")
	p := s.provider(t, cfg, "qa", "promote")
	_, _, err := p.Get(t.Context(), at)
	unavailable(t, err, "tokenFile cannot be read", file)
	write(t, file, "hvs.no-such-token")
	within(t, 10*time.Second, "an unknown token is named", func(ctx context.Context) error {
		_, _, err := p.Get(ctx, at)
		if err == nil || !strings.Contains(err.Error(), "expired or was revoked") {
			return errors.Join(errors.New("not named"), err)
		}
		return nil
	})
	write(t, file, s.Root)
	within(t, 10*time.Second, "a good one is taken", reads(p, at))
}

func TestASealedVaultWaitsAndResumes(t *testing.T) {
	s, cfg, at, version := seeded(t)
	p := s.provider(t, cfg, "qa", "promote")
	for _, logged := range []bool{false, true} {
		if err := s.Seal(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, _, err := p.Get(t.Context(), at)
		unavailable(t, err, "sealed", "vault operator unseal", "Vault of qa")
		_, err = p.Set(t.Context(), at, "x", nil)
		unavailable(t, err, "sealed")
		if err := s.Unseal(t.Context()); err != nil {
			t.Fatal(err)
		}
		within(t, 30*time.Second, "it resumes", func(ctx context.Context) error {
			value, got, err := p.Get(ctx, at)
			if err == nil && (value != "secret" || got != version) {
				t.Errorf("%q, version %d (logged in before: %v)", value, got, logged)
			}
			return err
		})
	}
	if strings.Contains(s.log.String(), "ALARM") {
		t.Error(s.log)
	}
}

func TestAVaultThatIsGoneOrHangsIsBounded(t *testing.T) {
	s, cfg, at, _ := seeded(t)
	p := s.provider(t, cfg, "qa", "promote")
	if _, _, err := p.Get(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	for _, fault := range []struct {
		name, words string
		begin       func() error
		end         func() error
	}{
		{"stopped", "did not answer in time", s.Pause, s.Resume},
		{"killed", "not reached", func() error { s.Kill(); return nil }, func() error { return s.Restart(t.Context()) }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			if err := fault.begin(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_, _, err := p.Get(t.Context(), at)
			unavailable(t, err, fault.words, s.Address)
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %s to say so", took)
			}
			if err := fault.end(); err != nil {
				t.Fatal(err)
			}
			within(t, 30*time.Second, "it resumes", reads(p, at))
		})
	}
}

func TestTheServersCertificateIsChecked(t *testing.T) {
	folder := t.TempDir()
	cert, key := settingstest.Certificate(t, folder, "server")
	other, _ := settingstest.Certificate(t, folder, "other")
	s := vaulttest.Start(t, vaulttest.Options{Cert: cert, Key: key, CA: cert})
	if err := s.Mount(t.Context(), "kv"); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(folder, "token")
	write(t, token, s.Root)
	at := place("qa", "hello", "PASSWORD")
	st := &store{Server: s, log: &record{}}
	cfg := policy.Vault{Address: s.Address, Mount: "kv", Path: pathPerKey, TokenFile: token, CA: cert}
	if _, err := st.provider(t, cfg, "qa", "root").Set(t.Context(), at, "x", nil); err != nil {
		t.Error(err)
	}
	for _, ca := range []string{other, ""} {
		cfg.CA = ca
		_, _, err := st.provider(t, cfg, "qa", "root").Get(t.Context(), at)
		unavailable(t, err, "certificate is not trusted", "correct ca in platform.yaml")
	}
	cfg.CA = filepath.Join(folder, "missing.pem")
	_, _, err := st.provider(t, cfg, "qa", "root").Get(t.Context(), at)
	unavailable(t, err, "missing.pem")
	cfg.CA, cfg.Mount = cert, "elsewhere"
	_, _, err = st.provider(t, cfg, "qa", "root").Get(t.Context(), at)
	unavailable(t, err, "nothing is mounted there")
}

// Where Vault asks who connects, a service shows the certificate that platform.yaml names.
func TestClientCertificate(t *testing.T) {
	folder := t.TempDir()
	cert, key := settingstest.Certificate(t, folder, "server")
	own, ownKey := settingstest.Certificate(t, folder, "promote")
	other, otherKey := settingstest.Certificate(t, folder, "other")
	s := vaulttest.Start(t, vaulttest.Options{Cert: cert, Key: key, CA: cert, ClientCert: own, ClientKey: ownKey})
	if err := s.Mount(t.Context(), "kv"); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(folder, "token")
	write(t, token, s.Root)
	at := place("qa", "hello", "PASSWORD")
	st := &store{Server: s, log: &record{}}
	named := policy.Vault{
		Address: s.Address, Mount: "kv", Path: pathPerKey, TokenFile: token, CA: cert,
		Cert: filepath.Join(folder, "{service}.pem"), Key: filepath.Join(folder, "{service}.key"),
	}
	if _, err := st.provider(t, named, "qa", "promote").Set(t.Context(), at, "x", nil); err != nil {
		t.Error(err)
	}
	for _, c := range []struct{ cert, key, why, do string }{
		{"", "", "it does not take what this service shows of itself", "as cert and key of that Vault in platform.yaml"},
		{other, otherKey, "it does not take what this service shows of itself", "as cert and key of that Vault in platform.yaml"},
		{own, otherKey, "private key does not match public key", "may read"},
		{filepath.Join(folder, "missing.pem"), ownKey, "missing.pem", "may read"},
	} {
		cfg := named
		cfg.Cert, cfg.Key = c.cert, c.key
		_, _, err := st.provider(t, cfg, "qa", "promote").Get(t.Context(), at)
		unavailable(t, err, c.why, c.do)
	}
}
