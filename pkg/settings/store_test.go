package settings

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/pipeline"
)

// canary must never be seen outside of a Secret.
const canary = "canary-7f3a-do-not-print"

func open(t *testing.T, l *ledgertest.Ledger, service events.Writer) *Store {
	t.Helper()
	key, err := identity.LoadSettingsKey(l.Keys)
	if err != nil {
		t.Fatal(err)
	}
	store, err := Open(l.Client(string(service)), key)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestSetGetDelete(t *testing.T) {
	l := ledgertest.Start(t)
	store, ctx := open(t, l, events.Gateway), t.Context()

	first, err := store.SetConfig(ctx, "qa", "hello", "GREETING", "hi = there\n")
	if err != nil {
		t.Fatal(err)
	}
	again, err := store.SetConfig(ctx, "qa", "hello", "GREETING", "hi = there\n")
	if err != nil || again != first {
		t.Errorf("the same value is version %d, then %d (%v)", first, again, err)
	}
	second, err := store.SetConfig(ctx, "qa", "hello", "GREETING", "good day")
	if err != nil || second <= first {
		t.Errorf("version %d after %d (%v)", second, first, err)
	}
	if value, version, err := store.GetConfig(ctx, "qa", "hello", "GREETING"); value != "good day" || version != second || err != nil {
		t.Errorf("got %q %d %v", value, version, err)
	}
	if value, err := store.GetConfigAt(ctx, "qa", "hello", "GREETING", "", first); value != "hi = there\n" || err != nil {
		t.Errorf("version %d is %q %v", first, value, err)
	}
	if _, err := store.SetConfigIf(ctx, "qa", "hello", "GREETING", "x", first); !errors.Is(err, ErrChanged) {
		t.Errorf("a write that expected an old version: %v", err)
	}
	if _, err := store.SetConfigIf(ctx, "qa", "hello", "NEW", "x", 0); err != nil {
		t.Errorf("a write that expected nothing: %v", err)
	}
	for _, other := range []struct{ env, app events.Slug }{{"prod", "hello"}, {"qa", "hello-2"}} {
		if _, _, err := store.GetConfig(ctx, other.env, other.app, "GREETING"); !errors.Is(err, ErrNotSet) {
			t.Errorf("%v: %v", other, err)
		}
	}
	gone, err := store.DeleteConfig(ctx, "qa", "hello", "GREETING")
	if err != nil || gone <= second {
		t.Errorf("deleting: version %d %v", gone, err)
	}
	if _, _, err := store.GetConfig(ctx, "qa", "hello", "GREETING"); !errors.Is(err, ErrNotSet) {
		t.Errorf("after deleting: %v", err)
	}
	if _, err := store.DeleteConfig(ctx, "qa", "hello", "GREETING"); !errors.Is(err, ErrNotSet) {
		t.Errorf("deleting twice: %v", err)
	}
	if value, err := store.GetConfigAt(ctx, "qa", "hello", "GREETING", "", first); value != "hi = there\n" || err != nil {
		t.Errorf("a pinned version after deleting: %q %v", value, err)
	}
	items, err := store.ListConfig(ctx, "qa", "hello")
	if err != nil || len(items) != 1 || items[0].Key != "NEW" || items[0].Value != "x" || items[0].Set.IsZero() {
		t.Errorf("list %+v %v", items, err)
	}
	if back, err := store.SetConfig(ctx, "qa", "hello", "GREETING", "back"); err != nil || back <= gone {
		t.Errorf("setting again: version %d %v", back, err)
	}
}

func TestSecrets(t *testing.T) {
	l := ledgertest.Start(t)
	store, ctx := open(t, l, events.Gateway), t.Context()
	first, err := store.SetSecret(ctx, "prod", "hello", "PASSWORD", NewSecret(canary))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := store.SetSecret(ctx, "prod", "hello", "PASSWORD", NewSecret(canary)); again != first || err != nil {
		t.Errorf("the same secret has versions %d, %d (%v)", first, again, err)
	}
	binary := NewSecret("\x00\xff\xfe binary")
	second, err := store.SetSecret(ctx, "prod", "hello", "PASSWORD", binary)
	if err != nil {
		t.Fatal(err)
	}
	reader := open(t, l, events.Promote)
	if value, version, err := reader.GetSecret(ctx, "prod", "hello", "PASSWORD"); value != binary || version != second || err != nil {
		t.Errorf("promote reads %q at %d: %v", value.Reveal(), version, err)
	}
	if value, err := reader.GetSecretAt(ctx, "prod", "hello", "PASSWORD", "", first); value.Reveal() != canary || err != nil {
		t.Errorf("promote reads version %d: %v", first, err)
	}
	items, err := store.ListSecrets(ctx, "prod", "hello")
	if err != nil || len(items) != 1 || items[0].Key != "PASSWORD" || items[0].Value != "" || items[0].Version != second {
		t.Errorf("list %+v %v", items, err)
	}

	bucket := l.Client(string(events.Gateway)).Bucket(events.BucketSecrets)
	stored, err := bucket.GetRevision(ctx, "prod.hello.PASSWORD", first)
	if err != nil || bytes.Contains(stored, []byte(canary)) || bytes.Contains(stored, []byte("canary")) {
		t.Errorf("the bucket holds %q %v", stored, err)
	}
	if _, err := bucket.Put(ctx, "dev.hello.PASSWORD", stored); err != nil {
		t.Fatal(err)
	}
	if _, _, err := store.GetSecret(ctx, "dev", "hello", "PASSWORD"); err == nil {
		t.Error("a sealed value opened at another key than its own")
	}
	stranger, err := Open(l.Client(string(events.Gateway)), make([]byte, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := stranger.GetSecret(ctx, "prod", "hello", "PASSWORD"); err == nil || !strings.Contains(err.Error(), "settings.key") {
		t.Errorf("another key: %v", err)
	}

	if _, _, err := store.DeleteSecret(ctx, "prod", "hello", "PASSWORD"); err != nil {
		t.Fatal(err)
	}
	for _, version := range []uint64{first, second} {
		if _, err := store.GetSecretAt(ctx, "prod", "hello", "PASSWORD", "", version); !errors.Is(err, ErrNotSet) {
			t.Errorf("version %d after deleting: %v", version, err)
		}
	}
}

// The bus's files hold no secret: the key that opens them is elsewhere.
func TestSecretsAreEncryptedAtRest(t *testing.T) {
	l := ledgertest.Start(t)
	store, ctx := open(t, l, events.Gateway), t.Context()
	const plain = "plain-7f3a-to-be-found"
	if _, err := store.SetConfig(ctx, "prod", "hello", "GREETING", plain); err != nil {
		t.Fatal(err)
	}
	if _, err := store.SetSecret(ctx, "prod", "hello", "PASSWORD", NewSecret(canary)); err != nil {
		t.Fatal(err)
	}
	key, err := identity.LoadSettingsKey(l.Keys)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	err = filepath.WalkDir(filepath.Join(filepath.Dir(l.Keys), "nats"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		for name, text := range map[string][]byte{"the configuration": []byte(plain), "the secret": []byte(canary), "the key": key} {
			seen[name] = seen[name] || bytes.Contains(content, text)
		}
		return err
	})
	if err != nil || seen["the secret"] || seen["the key"] || !seen["the configuration"] {
		t.Errorf("seen in the bus's files: %v (%v), want only the configuration, which is not secret", seen, err)
	}
}

func TestResolve(t *testing.T) {
	l := ledgertest.Start(t)
	store, ctx := open(t, l, events.Gateway), t.Context()
	definition, err := pipeline.Parse(pipeline.FileName, []byte("app: hello\nconfig: [GREETING, DATABASE_URL]\nsecrets: [PASSWORD]\nenvironments: [{name: qa}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.SetConfig(ctx, "qa", "hello", "GREETING", "hi"); err != nil {
		t.Fatal(err)
	}
	lacking, err := store.Missing(ctx, "qa", definition)
	if err != nil {
		t.Fatal(err)
	}
	want := []MissingKey{
		{"qa", "hello", Config, "DATABASE_URL", "", "towpath config set qa hello DATABASE_URL=…"},
		{"qa", "hello", Secrets, "PASSWORD", "", "towpath secret set qa hello PASSWORD"},
	}
	if fmt.Sprint(lacking) != fmt.Sprint(want) {
		t.Errorf("missing %v, want %v", lacking, want)
	}
	if _, again, err := store.Pin(ctx, "qa", definition); err != nil || fmt.Sprint(again) != fmt.Sprint(want) {
		t.Errorf("pinning says %v %v", again, err)
	}
	if _, err := store.SetConfig(ctx, "qa", "hello", "DATABASE_URL", "postgres://"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.SetSecret(ctx, "qa", "hello", "PASSWORD", NewSecret(canary)); err != nil {
		t.Fatal(err)
	}
	pins, again, err := store.Pin(ctx, "qa", definition)
	if err != nil || len(again) > 0 {
		t.Fatal(pins, again, err)
	}
	resolved, err := store.ResolveAt(ctx, "qa", "hello", pins)
	if err != nil || resolved.Config["DATABASE_URL"] != "postgres://" || resolved.Secrets["PASSWORD"].Reveal() != canary {
		t.Fatalf("resolved %+v %v", resolved, err)
	}
	if present, again, err := store.Present(ctx, "qa", definition); err != nil || len(again) > 0 || !present.Equal(pins) {
		t.Errorf("present are %v %v %v, want %v", present, again, err, pins)
	}
	if _, err := store.SetConfig(ctx, "qa", "hello", "GREETING", "other"); err != nil {
		t.Fatal(err)
	}
	pinned, err := store.ResolveAt(ctx, "qa", "hello", resolved.Pins)
	if err != nil || pinned.Config["GREETING"] != "hi" || pinned.SecretValues()[0].Reveal() != canary {
		t.Errorf("at the pins %+v %v", pinned, err)
	}
}

func TestNewest(t *testing.T) {
	l := ledgertest.Start(t)
	store, ctx := open(t, l, events.Gateway), t.Context()
	for n := range 5 {
		if _, err := store.SetConfig(ctx, "qa", "hello", fmt.Sprint("K", n), "x"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.SetSecret(ctx, "dev", "other", "S", NewSecret(canary)); err != nil {
		t.Fatal(err)
	}
	version, _, err := store.DeleteSecret(ctx, "dev", "other", "S")
	if err != nil {
		t.Fatal(err)
	}
	changes, err := store.Newest(ctx, 2)
	if err != nil || len(changes) != 3 || changes[0].Key != "K4" || changes[1].Key != "K3" ||
		changes[2] != (Change{Secrets, "dev", "other", "S", events.StoreEmbedded, version, true}) {
		t.Errorf("newest %+v %v", changes, err)
	}
}

func TestRefusals(t *testing.T) {
	l := ledgertest.Start(t)
	store, ctx := open(t, l, events.Gateway), t.Context()
	for name, set := range map[string]func() (uint64, error){
		"environment": func() (uint64, error) { return store.SetConfig(ctx, "qa.x", "hello", "A", "") },
		"app":         func() (uint64, error) { return store.SetConfig(ctx, "qa", "*", "A", "") },
		"key":         func() (uint64, error) { return store.SetConfig(ctx, "qa", "hello", "A..B", "") },
		"reserved":    func() (uint64, error) { return store.SetConfig(ctx, "qa", "hello", "TOWPATH_X", "") },
		"zero byte":   func() (uint64, error) { return store.SetConfig(ctx, "qa", "hello", "A", "a\x00") },
		"no UTF-8":    func() (uint64, error) { return store.SetConfig(ctx, "qa", "hello", "A", "\xff") },
		"large": func() (uint64, error) {
			return store.SetSecret(ctx, "qa", "hello", "A", NewSecret(strings.Repeat("x", MaxValue+1)))
		},
	} {
		if version, err := set(); !errors.Is(err, ErrInvalid) || version != 0 {
			t.Errorf("%s: version %d, %v", name, version, err)
		}
	}
	if _, err := store.SetSecret(ctx, "qa", "hello", "A", NewSecret(strings.Repeat("x", MaxValue))); err != nil {
		t.Errorf("the largest value: %v", err)
	}
	if _, err := Open(l.Client(string(events.Gateway)), []byte("short")); err == nil {
		t.Error("a short key was accepted")
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := open(t, l, events.Promote).SetConfig(short, "qa", "hello", "A", "x"); err == nil {
		t.Error("an ended context was no error")
	}
}

// Many writers of one key: every version that a writer is told of holds what it wrote.
func TestConcurrentWriters(t *testing.T) {
	l := ledgertest.Start(t)
	store, ctx := open(t, l, events.Gateway), t.Context()
	var group sync.WaitGroup
	var mu sync.Mutex
	versions := map[uint64]string{}
	for n := range 20 {
		group.Go(func() {
			value := fmt.Sprint("value ", n)
			version, err := store.SetConfig(ctx, "dev", "hello", "A", value)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if other, ok := versions[version]; ok {
				t.Errorf("version %d is %q and %q", version, other, value)
			}
			versions[version] = value
		})
	}
	group.Wait()
	for version, value := range versions {
		if got, err := store.GetConfigAt(ctx, "dev", "hello", "A", events.StoreEmbedded, version); got != value || err != nil {
			t.Errorf("version %d is %q, want %q (%v)", version, got, value, err)
		}
	}
}

// Promote may read settings and never write them.
func TestPromoteMayNotWrite(t *testing.T) {
	l := ledgertest.Start(t)
	if _, err := open(t, l, events.Promote).SetConfig(t.Context(), "qa", "hello", "A", "x"); err == nil {
		t.Error("promote wrote a setting")
	}
}
