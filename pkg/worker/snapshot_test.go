package worker_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/ledger/snapshot"
	"towpath.dev/pkg/worker"
)

// reopen starts a service's runtime, and returns it with what it logged.
func reopen(t *testing.T, l *ledgertest.Ledger, service, state string) (*worker.Runtime, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	rt, err := worker.Open(t.Context(), worker.Options{
		Service: service, Bus: l.URL, Keys: l.Keys, State: state, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return rt, &log
}

func appendApps(t *testing.T, l *ledgertest.Ledger, names ...string) {
	t.Helper()
	for _, name := range names {
		s, e := ledgertest.AppCreated(events.Slug(name))
		if _, err := l.Client("gateway").Append(t.Context(), s, e); err != nil {
			t.Fatal(err)
		}
	}
}

// wantApps checks that the fold is the one that reading everything gives.
func wantApps(t *testing.T, rt *worker.Runtime, l *ledgertest.Ledger) {
	t.Helper()
	fresh := fold.New()
	last, err := l.Client("build").Read(t.Context(), 0, fresh.Apply)
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Ledger.Await(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if got := rt.Fold.State(); !bytes.Equal(got.Encode(), fresh.State().Encode()) {
		path, here, there := got.Difference(fresh.State())
		t.Fatalf("%s is %s, a fresh fold has %s", path, here, there)
	}
}

func TestAStartGoesOnFromItsSnapshot(t *testing.T) {
	l, state := ledgertest.Start(t), t.TempDir()
	appendApps(t, l, "one", "two")
	rt, _ := reopen(t, l, "vet", state)
	if rt.Resumed() != 0 {
		t.Errorf("the first start resumed at %d", rt.Resumed())
	}
	rt.Close()
	appendApps(t, l, "three")
	for _, want := range []uint64{2, 3} {
		rt, log := reopen(t, l, "vet", state)
		if rt.Resumed() != want {
			t.Errorf("resumed at %d, want %d: %s", rt.Resumed(), want, log)
		}
		wantApps(t, rt, l)
		rt.Close()
	}
}

// TestAStartAfterAKillGoesOnFromASnapshot: one that never gets to end in order keeps snapshots too, or each of its starts
// would read more than the one before.
func TestAStartAfterAKillGoesOnFromASnapshot(t *testing.T) {
	l, state := ledgertest.Start(t), t.TempDir()
	var names []string
	for i := range 600 {
		names = append(names, fmt.Sprintf("app-%d", i))
	}
	appendApps(t, l, names...)
	killed, _ := reopen(t, l, "vet", state)
	defer killed.Close() // after the other has started
	ledgertest.Soon(t, "a snapshot is kept", func() bool {
		_, err := os.Stat(snapshot.File(state, "vet"))
		return err == nil
	})
	rt, log := reopen(t, l, "vet", state)
	defer rt.Close()
	if rt.Resumed() != 600 {
		t.Errorf("resumed at %d, want 600: %s", rt.Resumed(), log)
	}
	wantApps(t, rt, l)
}

// TestASnapshotThatIsNotMineIsThrownAway: whatever stands in the file, the start succeeds, says why it reads
// everything, and comes to the same state.
func TestASnapshotThatIsNotMineIsThrownAway(t *testing.T) {
	l, state := ledgertest.Start(t), t.TempDir()
	appendApps(t, l, "one", "two")
	for _, service := range []string{"vet", "build"} {
		rt, _ := reopen(t, l, service, state)
		rt.Close()
	}
	file := snapshot.File(state, "vet")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(snapshot.File(state, "build"))
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitN(good, []byte("\n"), 3)
	older := bytes.Replace(good, []byte(fold.Format()), []byte("0-"+strings.Repeat("0", 16)), 1)
	for name, data := range map[string][]byte{
		"another service's": foreign,
		"one bit":           flipped(good, len(good)/2),
		"one bit of header": flipped(good, len(lines[0])+20),
		"one bit of seal":   flipped(good, len(good)-1),
		"cut off":           good[:len(good)-7],
		"empty":             nil,
		"older format":      resealed(t, l, "vet", older),
		"noise":             bytes.Repeat([]byte("noise\n"), 100),
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
			rt, log := reopen(t, l, "vet", state)
			defer rt.Close()
			if rt.Resumed() != 0 || !strings.Contains(log.String(), "thrown away") {
				t.Errorf("resumed at %d: %s", rt.Resumed(), log)
			}
			wantApps(t, rt, l)
		})
	}
}

func flipped(data []byte, at int) []byte {
	out := bytes.Clone(data)
	out[at] ^= 1
	return out
}

// resealed seals changed bytes as the service would.
func resealed(t *testing.T, l *ledgertest.Ledger, service string, data []byte) []byte {
	t.Helper()
	body := data[:len(data)-32]
	seal, err := l.Client(service).Signer().Seal("snapshot", body)
	if err != nil {
		t.Fatal(err)
	}
	return append(bytes.Clone(body), seal[:]...)
}

// TestAnotherLedgerIsNotResumed: with the same keys and another history the snapshot is of no use, be it that the
// ledger is shorter, or that it holds other events.
func TestAnotherLedgerIsNotResumed(t *testing.T) {
	for name, after := range map[string][]string{"other events": {"three", "four"}, "shorter": {"one"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, state := ledgertest.Start(t), t.TempDir()
			appendApps(t, l, "one", "two")
			rt, _ := reopen(t, l, "vet", state)
			rt.Close()
			l.Stop()
			l.Wipe()
			l.Restart()
			l.Provision()
			appendApps(t, l, after...)
			rt, log := reopen(t, l, "vet", state)
			defer rt.Close()
			if rt.Resumed() != 0 || !strings.Contains(log.String(), "another history") {
				t.Errorf("resumed at %d: %s", rt.Resumed(), log)
			}
			wantApps(t, rt, l)
		})
	}
}

// TestAKeyThatIsGoneCoversNothing: a snapshot of events whose signer is not trusted any more is not believed.
func TestAKeyThatIsGoneCoversNothing(t *testing.T) {
	l, state := ledgertest.Start(t), t.TempDir()
	appendApps(t, l, "one", "two")
	rt, _ := reopen(t, l, "vet", state)
	rt.Close()
	path := filepath.Join(l.Keys, "trust.json")
	var trust struct {
		Keys []map[string]any `json:"keys"`
	}
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &trust)
	}
	if err != nil {
		t.Fatal(err)
	}
	kept := trust.Keys[:0]
	for _, k := range trust.Keys {
		if fmt.Sprint(k["writer"]) != string(events.Gateway) {
			kept = append(kept, k)
		}
	}
	trust.Keys = kept
	if data, err = json.Marshal(trust); err == nil {
		err = os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	rt, log := reopen(t, l, "vet", state)
	defer rt.Close()
	if rt.Resumed() != 0 || rt.Fold.App("one") != nil {
		t.Errorf("resumed at %d with %v: %s", rt.Resumed(), rt.Fold.App("one"), log)
	}
}
