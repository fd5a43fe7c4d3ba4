package bus_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger/bus"
)

// lines keeps what a server says.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.text.Bytes(), []byte(text))
}

// A stream that a full disk refused a write takes writes again once there is room, with all that it had.
func TestAFullDiskThatHasRoomAgain(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64m,mode=0755"); err != nil {
		t.Fatalf("mounting a small file system, which takes root: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, syscall.MNT_DETACH) })
	var said lines
	cfg := config(t)
	cfg.StoreDir, cfg.Logger = filepath.Join(disk, "nats"), slog.New(slog.NewTextHandler(&said, nil))
	server, err := bus.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	ctx, cancel := context.WithCancel(t.Context())
	var looking sync.WaitGroup
	looking.Go(func() { server.KeepUp(ctx) })
	t.Cleanup(func() { cancel(); looking.Wait() })
	open := func(id string) jetstream.JetStream {
		key, err := identity.LoadBusKey(cfg.Keys, id)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := nats.Connect("", nats.InProcessServer(server), nats.Nkey(key.Public, key.Sign), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		js, err := jetstream.New(conn)
		if err != nil {
			t.Fatal(err)
		}
		return js
	}
	operator, door := open("operator"), open("ledger")
	if _, err := operator.CreateStream(ctx, jetstream.StreamConfig{Name: "DISK", Subjects: []string{"log.>"}, Storage: jetstream.FileStorage, MaxBytes: 32 << 20}); err != nil {
		t.Fatal(err)
	}
	publish := func() error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := door.Publish(ctx, "log.disk", make([]byte, 32<<10))
		return err
	}
	stored := 0
	for ; stored < 10; stored++ {
		if err := publish(); err != nil {
			t.Fatal(err)
		}
	}
	ballast := filepath.Join(disk, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 1<<10))
	}
	f.Close()
	for i := 0; publish() == nil; i++ {
		if stored++; i > 100 {
			t.Fatal("the disk is full, and takes everything")
		}
	}
	if !said.has("ritical write error") {
		t.Fatal("the disk is full, and the server says nothing of it")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); publish() != nil; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("there is room again for 30 s, and nothing is taken")
		}
	}
	stream, err := operator.Stream(ctx, "DISK")
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n < uint64(stored)+1 {
		t.Errorf("%d messages are there, %d were acknowledged", n, stored+1)
	}
	if !said.has("started anew") {
		t.Error("it recovered by itself: mend is not needed any more")
	}
}
