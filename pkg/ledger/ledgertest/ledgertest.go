// Package ledgertest gives tests a real ledger: an in-process nats-server with Towpath's accounts, its
// streams on disk, and an open door. Its conformance suite holds any bus, in this process or elsewhere,
// to what package ledger promises.
package ledgertest

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/freeport"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/bus"
	"towpath.dev/pkg/ledger/door"
)

// Ledger is a running ledger. Its clients and servers end with the test.
type Ledger struct {
	// Keys is the folder with the keys of every identity.
	Keys string
	// URL is the server's address for clients; "" when it is in-process only.
	URL string
	// Epoch is the open one.
	Epoch int

	t          testing.TB
	dir        string
	begin      func(listen string) (running, error)
	server     running
	logger     *slog.Logger
	ackWait    time.Duration
	maxDeliver int
	// replicas is on how many servers streams are kept; 0: on the one that there is.
	replicas int
	routes   []string // of a cluster's servers

	change func(conf string) string // what Loosened was given
	disk   *disk                    // of OnDisk; nil: the machine's

	stopDoor func()
	mu       sync.Mutex
	clients  map[string]*ledger.Client
}

// Option changes what Start makes.
type Option func(*Ledger)

// Logging sends the log lines of the server, the door and the clients to a logger instead of nowhere.
func Logging(logger *slog.Logger) Option { return func(l *Ledger) { l.logger = logger } }

// AckWait is how long workers may be silent about a message, instead of 10 s.
func AckWait(d time.Duration) Option { return func(l *Ledger) { l.ackWait = d } }

// MaxDeliver is after how many deliveries the bus stops to deliver a message to a worker, instead of 2000.
func MaxDeliver(n int) Option { return func(l *Ledger) { l.maxDeliver = n } }

// Start makes a ledger in the test's temporary folder, with a TCP listener on a free loopback port.
func Start(t testing.TB, options ...Option) *Ledger {
	t.Helper()
	l := &Ledger{
		t: t, dir: t.TempDir(), Epoch: 1, clients: map[string]*ledger.Client{},
		logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	l.begin = l.startInProcess
	for _, o := range options {
		o(l)
	}
	l.Keys = filepath.Join(l.dir, "keys")
	if err := identity.Init(l.Keys); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.stop)
	listen, err := freeport.Address("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	l.startServer(listen)
	l.Provision()
	l.OpenDoor()
	return l
}

// Provision makes the streams, buckets and consumers, which Start has done already.
func (l *Ledger) Provision() {
	l.t.Helper()
	o := l.Options(string(events.Operator))
	o.AckWait, o.MaxDeliver, o.Replicas = l.ackWait, l.maxDeliver, l.replicas
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := ledger.Provision(ctx, o); err != nil {
		l.t.Fatal(err)
	}
}

func (l *Ledger) startServer(listen string) {
	l.t.Helper()
	server, err := l.begin(listen)
	if err != nil {
		l.t.Fatal(err)
	}
	l.server, l.URL = server, server.URL()
}

func (l *Ledger) startInProcess(listen string) (running, error) {
	return bus.Start(bus.Config{
		StoreDir: filepath.Join(l.dir, "nats"), Listen: listen, Keys: l.Keys, Epoch: l.Epoch, Logger: l.logger,
	})
}

// Options returns what opens the bus as an identity.
func (l *Ledger) Options(service string) ledger.Options {
	return ledger.Options{URL: l.URL, Service: service, Keys: l.Keys, Epoch: l.Epoch, Logger: l.logger}
}

// Client returns the test's connection as an identity, the same one each time.
func (l *Ledger) Client(service string) *ledger.Client {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.clients[service]; c != nil {
		return c
	}
	c := l.connect(service)
	l.clients[service] = c
	return c
}

// Connect returns a further connection as an identity.
func (l *Ledger) Connect(service string) *ledger.Client {
	l.t.Helper()
	c := l.connect(service)
	l.t.Cleanup(c.Close)
	return c
}

func (l *Ledger) connect(service string) *ledger.Client {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := ledger.Connect(ctx, l.Options(service))
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// OpenDoor starts the door, which Start has done already.
func (l *Ledger) OpenDoor() {
	l.t.Helper()
	c := l.connect(string(events.Ledger))
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	d := &door.Door{Conn: c.Conn(), Trust: c.Trust(), Epoch: l.Epoch, Logger: l.logger}
	go func() { done <- d.Serve(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		l.t.Fatalf("opening the door: %v", err)
	}
	l.stopDoor = func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("closing the door: %v", err)
		}
		c.Close()
	}
}

// CloseDoor stops the door: appends wait until OpenDoor.
func (l *Ledger) CloseDoor() {
	if l.stopDoor != nil {
		l.stopDoor()
		l.stopDoor = nil
	}
}

// Stop stops the server, as an outage does. Restart brings it back.
func (l *Ledger) Stop() {
	if l.server != nil {
		l.server.Shutdown()
		l.server = nil
	}
}

// Wipe takes the server's streams away while it is stopped, so that it comes back with none.
func (l *Ledger) Wipe() {
	l.t.Helper()
	if err := os.RemoveAll(filepath.Join(l.dir, "nats")); err != nil {
		l.t.Fatal(err)
	}
}

// Restart stops the server and starts it again on the same store and address. Clients and the door find
// it again by themselves.
func (l *Ledger) Restart() {
	l.t.Helper()
	l.Stop()
	l.startServer(strings.TrimPrefix(l.URL, "nats://"))
}

// Rotate changes keys as `towpath keys rotate` does, and has a server in this process read them.
func (l *Ledger) Rotate(c identity.Change) []identity.Rotation {
	l.t.Helper()
	done, err := identity.Prepare(l.Keys, c)
	if err == nil {
		err = identity.Switch(l.Keys)
	}
	if server, ok := l.server.(interface{ Reload() (bool, error) }); ok && err == nil {
		_, err = server.Reload()
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return done
}

// Ask sends one append to the door as it is signed now, whoever may write it, and returns the answer.
func Ask(t testing.TB, c *ledger.Client, s events.Subject, e events.Event) ledger.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	reply, err := c.Conn().RequestMsgWithContext(ctx, request(t, c.Signer(), s, e))
	if err != nil {
		t.Fatal(err)
	}
	var a ledger.Answer
	if err := json.Unmarshal(reply.Data, &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// Soon waits until a condition holds, and fails the test after 30 s.
func Soon(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// InProcess returns the server for connections without TCP; nil with Separate.
func (l *Ledger) InProcess() nats.InProcessConnProvider {
	if server, ok := l.server.(*bus.Server); ok {
		return server
	}
	return nil
}

func (l *Ledger) stop() {
	for _, c := range l.clients {
		c.Close()
	}
	l.CloseDoor()
	l.Stop()
}
