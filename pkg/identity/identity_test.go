package identity_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
)

// installation returns a keys folder and what it trusts.
func installation(t *testing.T) (dir string, trust *identity.Trust) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "keys")
	if err := identity.Init(dir); err != nil {
		t.Fatal(err)
	}
	return dir, loadTrust(t, dir)
}

func loadTrust(t *testing.T, dir string) *identity.Trust {
	t.Helper()
	trust, err := identity.LoadTrust(filepath.Join(dir, identity.TrustFile))
	if err != nil {
		t.Fatal(err)
	}
	return trust
}

func signer(t *testing.T, dir, id string) *identity.Signer {
	t.Helper()
	s, err := identity.LoadSigner(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestInitKeepsWhatExistsAndHidesPrivateKeys(t *testing.T) {
	dir, _ := installation(t)
	before := signer(t, dir, "build").Sign("s", nil)
	if err := identity.Init(dir); err != nil {
		t.Fatal(err)
	}
	if after := signer(t, dir, "build").Sign("s", nil); after != before {
		t.Error("a second Init made a new signing key")
	}
	for _, id := range identity.IDs {
		for _, suffix := range []string{".nk", ".key"} {
			info, err := os.Stat(filepath.Join(dir, id+suffix))
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %o", info.Name(), info.Mode().Perm())
			}
		}
	}
	if _, err := identity.LoadSettingsKey(dir); err != nil {
		t.Error(err)
	}
}

func TestRotatedKeysAreTrustedBesideTheOld(t *testing.T) {
	dir, _ := installation(t)
	old := signer(t, dir, "build").Sign("s", []byte("b"))
	if err := os.Remove(filepath.Join(dir, "build.key")); err != nil {
		t.Fatal(err)
	}
	if err := identity.Init(dir); err != nil {
		t.Fatal(err)
	}
	trust := loadTrust(t, dir)
	for _, signature := range []string{old, signer(t, dir, "build").Sign("s", []byte("b"))} {
		if w, err := trust.Verify("s", []byte("b"), signature); err != nil || w != "build" {
			t.Errorf("verified as %q: %v", w, err)
		}
	}
}

func TestSignatureBindsSubjectBodyAndWriter(t *testing.T) {
	dir, trust := installation(t)
	good := signer(t, dir, "vet").Sign("event.1.vet.a", []byte("body"))
	if w, err := trust.Verify("event.1.vet.a", []byte("body"), good); err != nil || w != "vet" {
		t.Fatalf("verified as %q: %v", w, err)
	}
	stranger, _ := installation(t)
	edge := signer(t, dir, "edge").Sign("event.1.vet.a", []byte("body"))
	for name, c := range map[string]struct{ subject, body, signature string }{
		"another subject":  {"event.1.vet.b", "body", good},
		"another body":     {"event.1.vet.a", "bodY", good},
		"moved boundary":   {"event.1.vet", ".a\nbody", good},
		"unknown key":      {"event.1.vet.a", "body", signer(t, stranger, "vet").Sign("event.1.vet.a", []byte("body"))},
		"no writer's key":  {"event.1.vet.a", "body", edge},
		"empty":            {"event.1.vet.a", "body", ""},
		"no key id":        {"event.1.vet.a", "body", good[17:]},
		"not base64":       {"event.1.vet.a", "body", good[:17] + "!!!"},
		"truncated":        {"event.1.vet.a", "body", good[:len(good)-4]},
		"something behind": {"event.1.vet.a", "body", good + " x"},
	} {
		if w, err := trust.Verify(c.subject, []byte(c.body), c.signature); !errors.Is(err, identity.ErrSignature) || w != "" {
			t.Errorf("%s: verified as %q: %v", name, w, err)
		}
	}
}

func TestEnvelope(t *testing.T) {
	dir, trust := installation(t)
	e := signer(t, dir, "build").SignPayload("application/vnd.in-toto+json", []byte("{}"))
	payload, writer, err := trust.VerifyPayload(e)
	if err != nil || string(payload) != "{}" || writer != "build" {
		t.Fatalf("%q by %q: %v", payload, writer, err)
	}
	e.PayloadType = "text/plain"
	if _, _, err := trust.VerifyPayload(e); !errors.Is(err, identity.ErrSignature) {
		t.Errorf("payload type changed: %v", err)
	}
}

func TestTrustFileIsChecked(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"no json":        `{`,
		"short key":      `{"keys":[{"id":"x","public":"AAAA","writer":"build"}]}`,
		"id of another":  `{"keys":[{"id":"0123456789abcdef","public":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","writer":"build"}]}`,
		"writes nothing": `{"keys":[{"id":"66687aadf862bd77","public":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","writer":"edge"}]}`,
	} {
		path := filepath.Join(dir, "trust.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := identity.LoadTrust(path); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestEveryWriterIsTrusted(t *testing.T) {
	dir, trust := installation(t)
	for _, w := range events.Writers {
		if got, err := trust.Verify("s", nil, signer(t, dir, string(w)).Sign("s", nil)); err != nil || got != string(w) {
			t.Errorf("%s verified as %q: %v", w, got, err)
		}
	}
}
