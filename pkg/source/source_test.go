package source

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"towpath.dev/pkg/identity"
)

func TestPassword(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	for _, d := range []string{dir, other} {
		if err := identity.Init(d); err != nil {
			t.Fatal(err)
		}
	}
	trust, err := identity.LoadTrust(filepath.Join(dir, identity.TrustFile))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := identity.LoadSigner(dir, "build")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := identity.LoadSigner(other, "build")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	good := Password(signer, "hello", now)
	if service, err := Verify(trust, "hello", good, now.Add(Lifetime)); service != "build" || err != nil {
		t.Fatalf("got %q, %v", service, err)
	}
	for name, c := range map[string]struct {
		password string
		at       time.Time
	}{
		"late":        {good, now.Add(time.Hour)},
		"early":       {good, now.Add(-time.Hour)},
		"another app": {Password(signer, "other", now), now},
		"another key": {Password(stranger, "hello", now), now},
		"empty":       {"", now},
		"cut":         {good[:len(good)-4], now},
		"changed":     {"A" + good[1:], now},
		"no base64":   {"tp_§", now},
	} {
		if service, err := Verify(trust, "hello", c.password, c.at); !errors.Is(err, ErrPassword) || service != "" {
			t.Errorf("%s: %q, %v", name, service, err)
		}
	}
	if got := URL("http://127.0.0.1:7070/", "hello"); got != "http://127.0.0.1:7070/git/hello.git" {
		t.Error(got)
	}
}

func FuzzVerify(f *testing.F) {
	dir := f.TempDir()
	if err := identity.Init(dir); err != nil {
		f.Fatal(err)
	}
	trust, err := identity.LoadTrust(filepath.Join(dir, identity.TrustFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("eyJwYXlsb2FkIjoiIn0")
	f.Fuzz(func(t *testing.T, password string) {
		if _, err := Verify(trust, "hello", password, time.Unix(0, 0)); err == nil {
			t.Fatalf("%q is accepted", password)
		}
	})
}
