package ledgertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
)

func buckets(t *testing.T, l *Ledger) {
	ctx := t.Context()
	writer, reader := l.Client("gateway").Bucket(events.BucketConfig), l.Client("promote").Bucket(events.BucketConfig)
	env := string(fresh())
	key := env + ".hello.GREETING"
	if _, _, err := reader.Get(ctx, key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent key: %v", err)
	}
	first, err := writer.Create(ctx, key, []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Create(ctx, key, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created twice: %v", err)
	}
	second, err := writer.Update(ctx, key, []byte("two"), first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := writer.Update(ctx, key, []byte("three"), first); !errors.Is(err, fs.ErrExist) {
		t.Errorf("updated from an old revision: %v", err)
	}
	// A read right after a write may ask a replica that has it a moment later.
	Soon(t, "the second version is read", func() bool {
		v, revision, err := reader.Get(ctx, key)
		return err == nil && string(v) == "two" && revision == second
	})
	Soon(t, "the first version is read", func() bool {
		v, err := reader.GetRevision(ctx, key, first)
		return err == nil && string(v) == "one"
	})
	if _, err := reader.GetRevision(ctx, env+".other.KEY", first); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another key at that revision: %v", err)
	}
	if _, err := reader.Put(shortly(t), key, nil); err == nil {
		t.Error("promote wrote configuration")
	}
	watched := watch(t, reader, env)
	if e := <-watched; e.Key != key || string(e.Value) != "one" {
		t.Errorf("watched %+v", e)
	}
	if e := <-watched; string(e.Value) != "two" {
		t.Errorf("watched %+v", e)
	}
	if _, err := writer.Put(ctx, env+".hello.PORT", []byte("80")); err != nil {
		t.Fatal(err)
	}
	if e := <-watched; string(e.Value) != "80" {
		t.Errorf("watched %+v", e)
	}
	if err := writer.Delete(ctx, key); err != nil {
		t.Fatal(err)
	}
	if e := <-watched; e.Key != key || !e.Deleted {
		t.Errorf("watched %+v", e)
	}
	Soon(t, "the deleted key is no longer listed", func() bool {
		list, err := reader.List(ctx, env+".hello")
		return err == nil && len(list) == 1 && string(list[0].Value) == "80"
	})
	if _, err := writer.Create(ctx, key, []byte("again")); err != nil {
		t.Errorf("created after a deletion: %v", err)
	}
	for _, stranger := range []string{"build", "vet", "verify", "watch", "edge"} {
		if _, _, err := l.Client(stranger).Bucket(events.BucketConfig).Get(shortly(t), key); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s read configuration: %v", stranger, err)
		}
	}
	for _, bad := range []string{"", ".", "a..b", "a.*", "a.>", "a b", "a.", "é"} {
		if _, err := writer.Put(ctx, bad, nil); err == nil {
			t.Errorf("key %q was taken", bad)
		}
	}
}

// shortly is a context for what is expected to be left without an answer.
func shortly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func watch(t *testing.T, b *ledger.Bucket, prefix string) <-chan ledger.Entry {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	entries, synced := make(chan ledger.Entry, 100), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- b.Watch(ctx, prefix, func() { close(synced) }, func(e ledger.Entry) error { entries <- e; return nil })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-synced
	return entries
}

func logs(t *testing.T, l *Ledger) {
	key := ledger.LogKey{Service: "build", App: fresh(), Run: 7, Stage: "build", Attempt: 1}
	w := l.Client("build").Log(key)
	var followed writer
	followed.some = make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() { done <- l.Client("gateway").ReadLog(t.Context(), key, true, &followed) }()
	fmt.Fprintln(w, "first")
	followed.await(t, "first\n")
	var want strings.Builder
	want.WriteString("first\n")
	for i := range 20_000 {
		fmt.Fprintf(w, "line %d\n", i)
		fmt.Fprintf(&want, "line %d\n", i)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if followed.String() != want.String() {
		t.Errorf("followed %d bytes, written %d", len(followed.String()), want.Len())
	}
	var read bytes.Buffer
	Soon(t, "the whole log is read", func() bool {
		read.Reset()
		err := l.Client("gateway").ReadLog(t.Context(), key, false, &read)
		return err == nil && read.String() == want.String()
	})
	if err := l.Client("vet").ReadLog(shortly(t), key, false, &read); err == nil {
		t.Error("vet read build's log")
	}
}

// writer is a buffer on which a test can wait.
type writer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
	some   chan struct{}
}

func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case w.some <- struct{}{}:
	default:
	}
	return w.buffer.Write(p)
}

func (w *writer) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buffer.String()
}

func (w *writer) await(t *testing.T, want string) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for w.String() != want {
		select {
		case <-w.some:
		case <-timeout:
			t.Fatalf("log is %q, want %q", w.String(), want)
		}
	}
}

// timers schedules, reschedules, and lets nobody else do so.
func timers(t *testing.T, l *Ledger) {
	c := l.Client("watch")
	late, soon := fresh(), fresh()
	at := time.Now().Add(time.Second)
	for key, first := range map[events.Slug]time.Time{late: at, soon: at.Add(time.Hour)} {
		if err := c.Schedule(t.Context(), key, first, []byte("first")); err != nil {
			t.Fatal(err)
		}
	}
	for key, second := range map[events.Slug]time.Time{late: at.Add(time.Hour), soon: at} {
		if err := c.Schedule(t.Context(), key, second, []byte("second")); err != nil {
			t.Fatal(err)
		}
	}
	k, err := c.JetStream().Consumer(t.Context(), events.TimerStream, ledger.TimerDurable)
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := k.Next()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(m.Subject(), string(late)) {
			t.Error("a timer fired that was moved to a later time")
		}
		if !strings.HasSuffix(m.Subject(), string(soon)) {
			continue
		}
		if early := time.Until(at); early > 0 || string(m.Data()) != "second" {
			t.Errorf("fired %s early with %q", early, m.Data())
		}
		break
	}
	for _, id := range readers {
		if id != "watch" && id != "ledger" && l.Client(id).Schedule(shortly(t), fresh(), at, nil) == nil {
			t.Errorf("%s scheduled a timer", id)
		}
	}
}

// reconnects breaks the connection of a follower and of a writer while events are appended.
func reconnects(t *testing.T, l *Ledger) {
	follower, gateway := l.Connect("build"), l.Connect("gateway")
	ctx, cancel := context.WithCancel(t.Context())
	var seen []uint64
	done := make(chan error, 1)
	go func() {
		done <- follower.Follow(ctx, func(r ledger.Record) error { seen = append(seen, r.Seq); return nil })
	}()
	var last uint64
	for i := range 200 {
		if i%20 == 10 {
			if err := errors.Join(follower.Conn().ForceReconnect(), gateway.Conn().ForceReconnect()); err != nil {
				t.Fatal(err)
			}
		}
		last = appendFresh(t, gateway).Seq
	}
	if err := follower.Await(ctx, last); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for i, seq := range seen {
		if seq != uint64(i+1) {
			t.Fatalf("place %d has %d", i+1, seq)
		}
	}
	if uint64(len(seen)) != last {
		t.Errorf("%d records up to %d", len(seen), last)
	}
}
