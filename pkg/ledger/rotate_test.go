package ledger_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/ledgertest"
)

// steal copies an identity's keys, with the list of the trusted, into a folder of a thief's own.
func steal(t *testing.T, keys, id string) (own string) {
	t.Helper()
	own = t.TempDir()
	for _, name := range []string{id + ".nk", id + ".key", identity.TrustFile} {
		data, err := os.ReadFile(filepath.Join(keys, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(own, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return own
}

// While events are appended and followed, every key of every identity changes three times. No append
// fails, nothing is missing, the server lets no old key in, and the door takes nothing that one signed.
func TestKeysRotateWhileEventsAreAppended(t *testing.T) {
	l := ledgertest.Start(t)
	stolen := l.Options("gateway")
	stolen.Keys = steal(t, l.Keys, "gateway")
	before := l.Client("gateway").Signer()
	followed := l.Follow(t, "watch")
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	var mu sync.Mutex
	appended := map[uint64]bool{}
	for range 4 {
		writers.Go(func() {
			for ctx.Err() == nil {
				s, e := ledgertest.AppCreated(events.Key(events.NewID()))
				r, err := l.Client("gateway").Append(t.Context(), s, e)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				appended[r.Seq] = true
				mu.Unlock()
			}
		})
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(appended) }
	more := func() {
		t.Helper()
		enough := count() + 50
		ledgertest.Soon(t, "50 more events", func() bool { return count() >= enough || t.Failed() })
	}
	more()
	for range 3 {
		l.Rotate(identity.Change{Bus: true, Now: time.Now()})
		more()
	}
	cancel()
	writers.Wait()
	key := before.Refresh() // it may have signed with the one before for half a second yet
	s, e := ledgertest.AppCreated("the-last")
	last, err := l.Client("gateway").Append(t.Context(), s, e)
	if err != nil {
		t.Fatal(err)
	}
	if key == "" || !strings.HasPrefix(last.Signature, key+" ") {
		t.Errorf("the last event was signed as %.16s, the key is %s", last.Signature, key)
	}
	for next := uint64(1); next <= last.Seq; next++ {
		select {
		case r := <-followed:
			if r.Seq != next {
				t.Fatalf("%d is followed by %d", next-1, r.Seq)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("event %d was not followed", next)
		}
	}
	// Whoever starts now reads everything, whichever key signed it.
	var read uint64
	end, err := l.Connect("vet").Read(t.Context(), 0, func(ledger.Record) error { read++; return nil })
	if err != nil || end != last.Seq || read != end {
		t.Errorf("read %d of %d events: %v", read, last.Seq, err)
	}
	if _, err := ledger.Connect(t.Context(), stolen); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("the bus let an old key in: %v", err)
	}
	// The thief has the new bus key and the old signing key.
	data, err := os.ReadFile(filepath.Join(l.Keys, "gateway.nk"))
	if err == nil {
		err = os.WriteFile(filepath.Join(stolen.Keys, "gateway.nk"), data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	thief, err := ledger.Connect(t.Context(), stolen)
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	s, e = ledgertest.AppCreated("forged")
	answer := ledgertest.Ask(t, thief, s, e)
	if answer.Refused == "" || !answer.Key || !strings.Contains(answer.Refused, "retired") {
		t.Errorf("an old key's event was answered %+v", answer)
	}
}
