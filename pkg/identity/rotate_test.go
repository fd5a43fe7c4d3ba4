package identity_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"towpath.dev/pkg/identity"
)

// rotate changes keys as the command does.
func rotate(t *testing.T, dir string, c identity.Change) []identity.Rotation {
	t.Helper()
	done, err := identity.Prepare(dir, c)
	if err == nil {
		err = identity.Switch(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// soon waits for a condition that a file brings about.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(10 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestRotationReachesThoseWhoRun(t *testing.T) {
	dir, trust := installation(t)
	build, vet := signer(t, dir, "build"), signer(t, dir, "vet")
	body, now := []byte("b"), time.Now()
	old, other := build.Sign("s", body), vet.Sign("s", body)
	thief := filepath.Join(t.TempDir(), "build.key")
	stolen, err := os.ReadFile(filepath.Join(dir, "build.key"))
	if err == nil {
		err = os.WriteFile(thief, stolen, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	done := rotate(t, dir, identity.Change{Identities: []string{"build"}, Now: now, Actor: "u-1", Reason: "it leaked"})
	if len(done) != 1 || done[0].Identity != "build" || done[0].Key == done[0].Replaces || done[0].BusKey != "" {
		t.Fatalf("rotated %+v", done)
	}
	soon(t, "the signer has the new key", func() bool { return build.Sign("s", body) != old })
	fresh := build.Sign("s", body)
	for _, c := range []struct {
		name, signature string
		at              time.Time
		mayBeNew, holds bool
	}{
		{"new key", fresh, now, true, true},
		{"old key, stored before", old, now.Add(-time.Minute), true, true},
		{"old key, stored after", old, now.Add(time.Second), false, true},
		{"old key, stored long after", old, now.Add(2 * time.Hour), false, false},
		{"stolen key signs something new", signer(t, filepath.Dir(thief), "build").Sign("s", body), now.Add(time.Minute), false, true},
		{"another's key", other, now.Add(time.Hour), true, true},
	} {
		soon(t, c.name, func() bool {
			_, err := trust.VerifyNew("s", body, c.signature, c.at)
			return err == nil == c.mayBeNew && (err == nil || errors.Is(err, identity.ErrKey) && errors.Is(err, identity.ErrSignature))
		})
		if _, err := trust.VerifyAt("s", body, c.signature, c.at); err == nil != c.holds {
			t.Errorf("%s: for a reader: %v", c.name, err)
		}
	}
	if all := trust.Rotations(); len(all) != 1 || all[0] != done[0] {
		t.Errorf("the list tells of %+v", all)
	}
}

func TestOverlapLetsTheOldKeySignOn(t *testing.T) {
	dir, trust := installation(t)
	now := time.Now()
	old := signer(t, dir, "vet").Sign("s", nil)
	password := signer(t, dir, "vet").SignPayload("text/plain", nil)
	rotate(t, dir, identity.Change{Identities: []string{"vet"}, Now: now, Overlap: time.Minute})
	soon(t, "the list is read again", func() bool { return len(trust.Rotations()) == 1 })
	for at, want := range map[time.Time]bool{now.Add(59 * time.Second): true, now.Add(time.Minute): false} {
		if _, err := trust.VerifyNew("s", nil, old, at); err == nil != want {
			t.Errorf("%s after: %v", at.Sub(now), err)
		}
		if _, _, err := trust.VerifyPayloadNew(password, at); err == nil != want {
			t.Errorf("password, %s after: %v", at.Sub(now), err)
		}
	}
	if _, _, err := trust.VerifyPayload(password); err != nil {
		t.Errorf("a statement of the old key: %v", err)
	}
	// A second rotation, at once this time, cuts the first one's overlap short.
	rotate(t, dir, identity.Change{Identities: []string{"vet"}, Now: now.Add(time.Second)})
	soon(t, "the list is read again", func() bool { return len(trust.Rotations()) == 2 })
	if _, err := trust.VerifyNew("s", nil, old, now.Add(2*time.Second)); !errors.Is(err, identity.ErrKey) {
		t.Errorf("the first key after the second rotation: %v", err)
	}
}

func TestEveryKeyRotates(t *testing.T) {
	dir, trust := installation(t)
	before := map[string]string{}
	for _, id := range identity.IDs {
		key, err := identity.LoadBusKey(dir, id)
		if err != nil {
			t.Fatal(err)
		}
		before[id] = key.Public
	}
	for _, r := range rotate(t, dir, identity.Change{Bus: true, Now: time.Now()}) {
		key, err := identity.LoadBusKey(dir, r.Identity)
		if err != nil || key.Public != r.BusKey || r.ReplacesBus != before[r.Identity] || r.BusKey == r.ReplacesBus {
			t.Errorf("%+v: the key in use is %v: %v", r, key, err)
		}
	}
	if n := len(trust.Rotations()); n != 0 && n != len(identity.IDs) {
		t.Errorf("%d rotations were seen", n)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.next"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A rotation that was broken off at any point leaves keys with which everything goes on.
func TestBrokenRotationIsFinished(t *testing.T) {
	t.Run("before the list was written", func(t *testing.T) {
		dir, trust := installation(t)
		stray := signer(t, dir, "gateway")
		text, err := os.ReadFile(filepath.Join(dir, "vet.key")) // any key that the list names nowhere as a successor
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "gateway.key.next"), text, 0o600)
		}
		if err == nil {
			err = identity.Init(dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		if w, err := trust.VerifyNew("s", nil, stray.Sign("s", nil), time.Now()); err != nil || w != "gateway" {
			t.Errorf("verified as %q: %v", w, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "gateway.key.next")); err == nil {
			t.Error("the stray key is still there")
		}
	})
	t.Run("before the keys were in place", func(t *testing.T) {
		dir, trust := installation(t)
		done, err := identity.Prepare(dir, identity.Change{Identities: []string{"gateway"}, Bus: true, Now: time.Now()})
		if err == nil {
			err = identity.Init(dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		s := signer(t, dir, "gateway")
		if s.Refresh() != done[0].Key {
			t.Errorf("%s signs, %s should", s.Refresh(), done[0].Key)
		}
		soon(t, "the new key is trusted", func() bool {
			_, err := trust.VerifyNew("s", nil, s.Sign("s", nil), time.Now())
			return err == nil
		})
		if key, err := identity.LoadBusKey(dir, "gateway"); err != nil || key.Public != done[0].BusKey {
			t.Errorf("bus key %v: %v", key, err)
		}
	})
}

// A list that cannot be read for a moment, as while it is copied, takes nobody's trust away.
func TestBrokenListLeavesWhatWasKnown(t *testing.T) {
	dir, trust := installation(t)
	path := filepath.Join(dir, identity.TrustFile)
	whole, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, whole[:len(whole)/2], 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	stranger, _ := installation(t)
	soon(t, "the broken list is noticed", func() bool {
		_, err := trust.Verify("s", nil, signer(t, stranger, "vet").Sign("s", nil))
		return errors.Is(err, identity.ErrKey) && strings.Contains(err.Error(), path)
	})
	if _, err := trust.VerifyNew("s", nil, signer(t, dir, "vet").Sign("s", nil), time.Now()); err != nil {
		t.Errorf("a known key: %v", err)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	rotate(t, dir, identity.Change{Identities: []string{"vet"}, Now: time.Now()})
	soon(t, "the whole list is read", func() bool { return len(trust.Rotations()) == 1 })
}
