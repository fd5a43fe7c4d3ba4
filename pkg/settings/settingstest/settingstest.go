// Package settingstest says what every settings.Provider guarantees, as a suite that each one's tests run: the
// embedded one, Consul's and Vault's, against the real servers.
package settingstest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/settings"
)

// Run runs the suite. provider is of the kind given and empty; a second process's view of the same data is other.
func Run(t *testing.T, kind settings.Kind, provider, other settings.Provider) {
	s := suite{kind, provider, other}
	for _, test := range []struct {
		name string
		run  func(t *testing.T, at settings.Place)
	}{
		{"a key without a value", s.missing},
		{"versions", s.versions},
		{"compare and swap", s.swap},
		{"one of many writers wins", s.race},
		{"deletion", s.deletion},
		{"deletion beside others", s.beside},
		{"many keys", s.many},
		{"keys with dots and hyphens", s.dotted},
		{"listing", s.listing},
		{"apps and environments are apart", s.apart},
		{"values as they were", s.values},
		{"values that cannot be", s.limits},
		{"many large values", s.together},
		{"watching", s.watching},
		{"an ended context", s.ended},
	} {
		t.Run(test.name, func(t *testing.T) {
			app := events.Slug(strings.ReplaceAll(test.name, " ", "-"))
			test.run(t, settings.Place{Kind: kind, Env: "qa", App: app, Key: "GREETING"})
		})
	}
}

type suite struct {
	kind     settings.Kind
	provider settings.Provider
	other    settings.Provider
}

func (s suite) set(t *testing.T, at settings.Place, value string) uint64 {
	t.Helper()
	version, err := s.provider.Set(t.Context(), at, value, nil)
	if err != nil || version == 0 {
		t.Fatalf("setting %s: version %d, %v", at, version, err)
	}
	return version
}

// holds checks that the other process reads this value and version.
func (s suite) holds(t *testing.T, at settings.Place, value string, version uint64) {
	t.Helper()
	got, gotVersion, err := s.other.Get(t.Context(), at)
	if err != nil || got != value || gotVersion != version {
		t.Errorf("%s is %q, version %d (%v), want %q, version %d", at, got, gotVersion, err, value, version)
	}
}

func (s suite) missing(t *testing.T, at settings.Place) {
	if value, version, err := s.provider.Get(t.Context(), at); !errors.Is(err, settings.ErrNotSet) || value != "" || version != 0 {
		t.Errorf("a key that was never set is %q, version %d (%v)", value, version, err)
	}
	if _, err := s.provider.GetAt(t.Context(), at, 1<<40); !errors.Is(err, settings.ErrNotSet) {
		t.Errorf("a version that never was: %v", err)
	}
	if _, _, err := s.provider.Delete(t.Context(), at); !errors.Is(err, settings.ErrNotSet) {
		t.Errorf("deleting it: %v", err)
	}
	if items, err := s.provider.List(t.Context(), at.Env, at.App); err != nil || len(items) != 0 {
		t.Errorf("an app without settings lists %v (%v)", items, err)
	}
}

func (s suite) versions(t *testing.T, at settings.Place) {
	first := s.set(t, at, "one")
	if again := s.set(t, at, "one"); again != first {
		t.Errorf("the same value has versions %d and %d", first, again)
	}
	second := s.set(t, at, "two")
	if second <= first {
		t.Errorf("version %d follows %d", second, first)
	}
	back := s.set(t, at, "one")
	if back <= second {
		t.Errorf("version %d follows %d", back, second)
	}
	s.holds(t, at, "one", back)
	for version, want := range map[uint64]string{first: "one", second: "two", back: "one"} {
		if value, err := s.other.GetAt(t.Context(), at, version); err != nil || value != want {
			t.Errorf("version %d is %q (%v), want %q", version, value, err, want)
		}
	}
	sibling := at
	sibling.Key = "OTHER"
	s.set(t, sibling, "else")
	s.holds(t, at, "one", back)
}

func (s suite) swap(t *testing.T, at settings.Place) {
	expect := func(v uint64) *uint64 { return &v }
	if _, err := s.provider.Set(t.Context(), at, "x", expect(7)); !errors.Is(err, settings.ErrChanged) {
		t.Errorf("a write that expects a version of a key that is not set: %v", err)
	}
	first, err := s.provider.Set(t.Context(), at, "one", expect(0))
	if err != nil {
		t.Fatalf("a write that expects nothing: %v", err)
	}
	if _, err := s.provider.Set(t.Context(), at, "other", expect(0)); !errors.Is(err, settings.ErrChanged) {
		t.Errorf("a write that expects nothing, of a key that is set: %v", err)
	}
	if _, err := s.provider.Set(t.Context(), at, "one", expect(0)); !errors.Is(err, settings.ErrChanged) {
		t.Errorf("a write that expects nothing, of a key that has the same value: %v", err)
	}
	second, err := s.provider.Set(t.Context(), at, "two", &first)
	if err != nil || second <= first {
		t.Fatalf("a write that expects what is there: version %d, %v", second, err)
	}
	if again, err := s.provider.Set(t.Context(), at, "two", &first); err != nil || again != second {
		t.Errorf("the same write again, as its writer does whom no answer reached: version %d, %v", again, err)
	}
	if _, err := s.provider.Set(t.Context(), at, "three", &first); !errors.Is(err, settings.ErrChanged) {
		t.Errorf("a write that expects an older version: %v", err)
	}
	s.holds(t, at, "two", second)
}

// race has many writers expect the same version: one wins, whose value is there.
func (s suite) race(t *testing.T, at settings.Place) {
	base := s.set(t, at, "base")
	const writers = 16
	var (
		mu   sync.Mutex
		won  []string
		over sync.WaitGroup
	)
	for i := range writers {
		over.Go(func() {
			value := fmt.Sprintf("writer %d", i)
			provider := s.provider
			if i%2 == 1 {
				provider = s.other
			}
			_, err := provider.Set(t.Context(), at, value, &base)
			if err != nil && !errors.Is(err, settings.ErrChanged) {
				t.Errorf("%s: %v", value, err)
			}
			if err == nil {
				mu.Lock()
				won = append(won, value)
				mu.Unlock()
			}
		})
	}
	over.Wait()
	value, _, err := s.other.Get(t.Context(), at)
	if err != nil || len(won) != 1 || won[0] != value {
		t.Errorf("winners %q, the value is %q (%v)", won, value, err)
	}
}

func (s suite) deletion(t *testing.T, at settings.Place) {
	first := s.set(t, at, "one")
	gone, left, err := s.provider.Delete(t.Context(), at)
	if err != nil || gone <= first || left != "" {
		t.Errorf("deleting version %d is version %d, and left %q (%v)", first, gone, left, err)
	}
	if value, _, err := s.other.Get(t.Context(), at); !errors.Is(err, settings.ErrNotSet) {
		t.Errorf("a deleted key is %q (%v)", value, err)
	}
	if items, err := s.other.List(t.Context(), at.Env, at.App); err != nil || len(items) != 0 {
		t.Errorf("a deleted key is listed: %v (%v)", items, err)
	}
	if _, _, err := s.provider.Delete(t.Context(), at); !errors.Is(err, settings.ErrNotSet) {
		t.Errorf("deleting again: %v", err)
	}
	if value, err := s.other.GetAt(t.Context(), at, first); s.kind == settings.Config && (err != nil || value != "one") {
		t.Errorf("version %d after deletion is %q (%v); a rollback needs it", first, value, err)
	} else if s.kind == settings.Secrets && !errors.Is(err, settings.ErrNotSet) {
		t.Errorf("version %d of a deleted secret: %v; its owner wanted it gone", first, err)
	}
	zero := uint64(0)
	back, err := s.provider.Set(t.Context(), at, "back", &zero)
	if err != nil || back <= gone {
		t.Errorf("set again, expecting nothing: version %d after %d (%v)", back, gone, err)
	}
}

// beside deletes a key among others: no version of theirs goes with it, the older ones that rollbacks need included.
func (s suite) beside(t *testing.T, at settings.Place) {
	gone, kept := at, at
	gone.Key, kept.Key = "GONE", "KEPT"
	old := s.set(t, gone, "one")
	first := s.set(t, kept, "one")
	s.set(t, gone, "two")
	second := s.set(t, kept, "two")
	deleted, _, err := s.provider.Delete(t.Context(), gone)
	if err != nil || deleted <= old {
		t.Fatalf("deleting %s: version %d (%v)", gone, deleted, err)
	}
	s.holds(t, kept, "two", second)
	for version, want := range map[uint64]string{first: "one", second: "two"} {
		if value, err := s.other.GetAt(t.Context(), kept, version); err != nil || value != want {
			t.Errorf("version %d of the key that stays is %q (%v), want %q", version, value, err, want)
		}
	}
	if _, _, err := s.provider.Delete(t.Context(), gone); !errors.Is(err, settings.ErrNotSet) {
		t.Errorf("deleting again: %v", err)
	}
	back := s.set(t, gone, "back")
	third := s.set(t, kept, "three")
	s.holds(t, gone, "back", back)
	s.holds(t, kept, "three", third)
	if value, err := s.other.GetAt(t.Context(), gone, old); s.kind == settings.Secrets && !errors.Is(err, settings.ErrNotSet) {
		t.Errorf("version %d of a deleted secret is %d bytes (%v); its owner wanted it gone", old, len(value), err)
	}
	if value, err := s.other.GetAt(t.Context(), kept, first); err != nil || value != "one" {
		t.Errorf("version %d of the key that stays is %q (%v) after later writes", first, value, err)
	}
}

// dotted are keys as Spring's users have them, of which one begins like another.
func (s suite) dotted(t *testing.T, at settings.Place) {
	versions := map[string]uint64{}
	for _, key := range []string{"spring", "spring.datasource", "spring.datasource.url", "spring.jpa.open-in-view", "server.port", "SERVER_PORT"} {
		at.Key = key
		first := s.set(t, at, "before of "+key)
		versions[key] = s.set(t, at, "value of "+key)
		s.holds(t, at, "value of "+key, versions[key])
		if value, err := s.other.GetAt(t.Context(), at, first); err != nil || value != "before of "+key {
			t.Errorf("version %d of %s is %q (%v)", first, key, value, err)
		}
	}
	at.Key = "spring.datasource"
	if _, _, err := s.provider.Delete(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	delete(versions, at.Key)
	items, err := s.other.List(t.Context(), at.Env, at.App)
	if err != nil || len(items) != len(versions) {
		t.Errorf("listed %v (%v), want %v", items, err, versions)
	}
	for _, item := range items {
		if item.Version != versions[item.Key] {
			t.Errorf("%s has version %d, want %d", item.Key, item.Version, versions[item.Key])
		}
	}
}

// many sets one key among many: that is a change of no other.
func (s suite) many(t *testing.T, at settings.Place) {
	versions := map[string]uint64{}
	for i := range manyKeys {
		at.Key = fmt.Sprintf("A_KEY_WITH_A_NAME_AS_LONG_AS_THEY_ARE_%03d", i)
		versions[at.Key] = s.set(t, at, "one")
	}
	versions[at.Key] = s.set(t, at, "two")
	items, err := s.other.List(t.Context(), at.Env, at.App)
	if err != nil || len(items) != manyKeys {
		t.Fatalf("listed %d (%v), want %d", len(items), err, manyKeys)
	}
	for _, item := range items {
		if item.Version != versions[item.Key] {
			t.Errorf("%s has version %d once another was set, want %d", item.Key, item.Version, versions[item.Key])
		}
	}
}

// manyKeys is more than Vault takes texts of metadata for a path.
const manyKeys = 70

func (s suite) listing(t *testing.T, at settings.Place) {
	want := map[string]uint64{}
	for _, key := range []string{"ZULU", "ALPHA", "MIKE_2"} {
		p := at
		p.Key = key
		want[key] = s.set(t, p, "value of "+key)
	}
	items, err := s.other.List(t.Context(), at.Env, at.App)
	if err != nil || len(items) != len(want) {
		t.Fatalf("listed %v (%v)", items, err)
	}
	for i, item := range items {
		if i > 0 && items[i-1].Key >= item.Key {
			t.Errorf("%s comes after %s", item.Key, items[i-1].Key)
		}
		value := "value of " + item.Key
		if s.kind == settings.Secrets {
			value = ""
		}
		if item.Version != want[item.Key] || item.Value != value || item.Shared {
			t.Errorf("listed %+v, want version %d, value %q", item, want[item.Key], value)
		}
	}
}

func (s suite) apart(t *testing.T, at settings.Place) {
	s.set(t, at, "mine")
	near := []settings.Place{at, at, at}
	near[0].App += "-2"
	near[1].Env = "qa-2"
	near[2].Key += "_2"
	for _, p := range near {
		if value, _, err := s.provider.Get(t.Context(), p); !errors.Is(err, settings.ErrNotSet) {
			t.Errorf("%s is %q (%v)", p, value, err)
		}
	}
	for _, p := range near[:2] {
		if items, err := s.provider.List(t.Context(), p.Env, p.App); err != nil || len(items) != 0 {
			t.Errorf("%s of %s lists %v (%v)", p.App, p.Env, items, err)
		}
	}
}

func (s suite) values(t *testing.T, at settings.Place) {
	values := []string{"", " ", "a = b\n\n", "Grüße, 世界 \U0001F6A2", `{"json": ["a", 1]}`, "tab\tquote\"back\\slash", strings.Repeat("x", settings.MaxValue)}
	if s.kind == settings.Secrets {
		values = append(values, "\x00", "\xff\xfe\x00 binary \x80", strings.Repeat("\x00\xff", settings.MaxValue/2))
	}
	for _, value := range values {
		version := s.set(t, at, value)
		s.holds(t, at, value, version)
		if got, err := s.other.GetAt(t.Context(), at, version); err != nil || got != value {
			t.Errorf("version %d has %d bytes (%v), want %d", version, len(got), err, len(value))
		}
	}
}

// limits: what no app can be handed is refused by every provider alike, and leaves nothing behind.
func (s suite) limits(t *testing.T, at settings.Place) {
	values := map[string]string{strings.Repeat("x", settings.MaxValue+1): "the value has 65537 bytes, allowed are 65536"}
	if s.kind == settings.Config {
		values["\xff\xfe"] = "configuration must be UTF-8 without zero bytes; keep it as a secret, which is a file"
		values["a\x00b"] = values["\xff\xfe"]
	}
	for value, why := range values {
		version, err := s.provider.Set(t.Context(), at, value, nil)
		if !errors.Is(err, settings.ErrInvalid) || version != 0 || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), at.String()) {
			t.Errorf("%d bytes: version %d, %v, want %q", len(value), version, err, why)
		}
		if _, _, err := s.other.Get(t.Context(), at); !errors.Is(err, settings.ErrNotSet) {
			t.Errorf("%d bytes that were refused: %v", len(value), err)
		}
	}
}

// together are large values of one app: each is kept, or refused as too much with what to do, and no other is lost.
func (s suite) together(t *testing.T, at settings.Place) {
	kept := map[string]uint64{}
	for i := range 20 {
		at.Key = fmt.Sprintf("LARGE_%02d", i)
		version, err := s.provider.Set(t.Context(), at, strings.Repeat(string(rune('a'+i)), settings.MaxValue), nil)
		switch {
		case err == nil:
			kept[at.Key] = version
		case !errors.Is(err, settings.ErrInvalid) || !strings.Contains(err.Error(), "too large"):
			t.Fatalf("%s, after %d others: %v", at.Key, len(kept), err)
		}
	}
	if len(kept) < 10 {
		t.Errorf("%d values of %d bytes are kept", len(kept), settings.MaxValue)
	}
	for i := range 20 {
		at.Key = fmt.Sprintf("LARGE_%02d", i)
		if version, is := kept[at.Key]; is {
			s.holds(t, at, strings.Repeat(string(rune('a'+i)), settings.MaxValue), version)
		} else if _, _, err := s.other.Get(t.Context(), at); !errors.Is(err, settings.ErrNotSet) {
			t.Errorf("%s, which was refused: %v", at.Key, err)
		}
	}
}

// watching: a first look answers at once, a change wakes, and what is there already does not wake for ever.
func (s suite) watching(t *testing.T, at settings.Place) {
	mark, err := s.other.Watch(t.Context(), at.Env, at.App, 0)
	if err != nil || mark == 0 {
		t.Fatalf("the first look: mark %d, %v", mark, err)
	}
	for _, change := range []func(){
		func() { s.set(t, at, "one") },
		func() { s.set(t, at, "two") },
		func() {
			if _, _, err := s.provider.Delete(t.Context(), at); err != nil {
				t.Error(err)
			}
		},
	} {
		var (
			next  uint64
			woken = make(chan error, 1)
		)
		go func() {
			var err error
			next, err = s.other.Watch(t.Context(), at.Env, at.App, mark)
			woken <- err
		}()
		change()
		select {
		case err := <-woken:
			if err != nil || next == mark {
				t.Fatalf("woken with mark %d after %d (%v)", next, mark, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a change woke nobody within 20 s")
		}
		mark = s.settle(t, at, next)
	}
}

// settle follows until nothing changes for a moment: one change may wake twice, but no more than a few times.
func (s suite) settle(t *testing.T, at settings.Place, mark uint64) uint64 {
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		next, _ := s.other.Watch(ctx, at.Env, at.App, mark)
		cancel()
		if next == mark || next == 0 {
			return mark
		}
		mark = next
	}
	t.Fatalf("watching %s of %s wakes for ever", at.App, at.Env)
	return 0
}

func (s suite) ended(t *testing.T, at settings.Place) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.provider.Get(ctx, at); err == nil || errors.Is(err, settings.ErrNotSet) {
		t.Errorf("reading with an ended context: %v", err)
	}
	if _, err := s.provider.Set(ctx, at, "x", nil); err == nil {
		t.Error("writing with an ended context succeeded")
	}
}
