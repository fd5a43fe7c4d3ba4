package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/bus"
	"towpath.dev/pkg/ledger/door"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/worker"
)

const epoch = 1

// installation is a bus with an open door, in this process, as `towpath up` has them.
type installation struct {
	keys   string
	trust  *identity.Trust // which the services share, as they do in one process
	server *bus.Server
	logger *slog.Logger
	close  []func()
}

func openInstallation(ctx context.Context) (*installation, error) { return openFilled(ctx, 0) }

// openFilled opens an installation whose ledger has so many events.
func openFilled(ctx context.Context, total int) (*installation, error) {
	folder, err := os.MkdirTemp("", "towpath-bench-")
	if err != nil {
		return nil, err
	}
	in := &installation{keys: filepath.Join(folder, "keys"), logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	in.close = append(in.close, func() { os.RemoveAll(folder) })
	if err := in.open(ctx, folder, total); err != nil {
		in.Close()
		return nil, err
	}
	return in, nil
}

func (in *installation) open(ctx context.Context, folder string, total int) error {
	if err := identity.Init(in.keys); err != nil {
		return err
	}
	var err error
	if in.trust, err = identity.LoadTrust(filepath.Join(in.keys, identity.TrustFile)); err != nil {
		return err
	}
	config := bus.Config{StoreDir: filepath.Join(folder, "nats"), Keys: in.keys, Epoch: epoch, Logger: in.logger}
	if total > 0 {
		if err := in.fill(ctx, config, total); err != nil {
			return fmt.Errorf("filling the ledger: %w", err)
		}
	}
	server, err := bus.Start(config)
	if err != nil {
		return err
	}
	in.server = server
	in.close = append(in.close, server.Shutdown)
	if err := ledger.Provision(ctx, in.options(events.Operator)); err != nil {
		return err
	}
	client, err := ledger.Connect(ctx, in.options(events.Ledger))
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	d := &door.Door{Conn: client.Conn(), Trust: in.trust, Epoch: epoch, Logger: in.logger}
	go func() { done <- d.Serve(serving, func() { close(ready) }) }()
	in.close = append(in.close, func() { stop(); <-done; client.Close() })
	select {
	case <-ready:
		return nil
	case err := <-done:
		return err
	}
}

// Close ends everything, in the reverse order of its start.
func (in *installation) Close() {
	for i := len(in.close) - 1; i >= 0; i-- {
		in.close[i]()
	}
}

func (in *installation) options(service events.Writer) ledger.Options {
	return in.optionsOn(in.server, service)
}

func (in *installation) optionsOn(server nats.InProcessConnProvider, service events.Writer) ledger.Options {
	return ledger.Options{InProcess: server, Service: string(service), Keys: in.keys, Epoch: epoch, Logger: in.logger}
}

func (in *installation) runtime(ctx context.Context, service events.Writer) (*worker.Runtime, error) {
	return worker.Open(ctx, worker.Options{Service: string(service), InProcess: in.server, Keys: in.keys, Trust: in.trust, Epoch: epoch, Logger: in.logger})
}

// runStart is the first event of a run of an app.
func runStart(app events.Slug, n int) (events.Subject, events.Event, error) {
	definition, err := pipeline.Parse("towpath.yaml", []byte(fmt.Sprintf(
		"app: %s\nservice: {port: 8080}\nenvironments: [{name: dev}, {name: qa}, {name: prod}]\n", app)))
	if err != nil {
		return events.Subject{}, events.Event{}, err
	}
	sha := fmt.Sprintf("%040x", n)
	body := &events.ChangeMerged{
		About:      events.About{ID: sha},
		Repository: events.Reference{ID: string(app), Source: "/git/" + string(app)},
		Run: events.RunStart{
			App: app, Ref: "refs/heads/main", SHA: sha, Predecessor: n - 1, Definition: definition.Canonical(),
			DefinitionDigest: definition.Digest(), PolicyDigest: definition.Digest(), Actor: "bench",
		},
	}
	subject := events.RunStartSubject(epoch, body.Type(), app, string(app), body.Run.Ref, n-1, sha)
	return subject, events.New(events.Gateway, time.Now(), events.NewID(), body), nil
}

// arrival notes when each message reaches its handler.
type arrival struct {
	mu sync.Mutex
	at map[uint64]time.Time
	ch chan uint64
}

func (a *arrival) Handle(_ context.Context, m worker.Message) error {
	now := time.Now()
	a.mu.Lock()
	a.at[m.Record.Seq] = now
	a.mu.Unlock()
	a.ch <- m.Record.Seq
	return nil
}

// handlerLatency measures from the call that appends an event to the moment when the next worker's handler
// begins, one event at a time on an idle installation; and the bus's own share of that, a synced publish to a
// stream and its delivery, on a stream beside it in the same server.
func handlerLatency(ctx context.Context, o options) ([]figure, error) {
	in, err := openInstallation(ctx)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	gateway, err := in.runtime(ctx, events.Gateway)
	if err != nil {
		return nil, err
	}
	defer gateway.Close()
	build, err := in.runtime(ctx, events.Build)
	if err != nil {
		return nil, err
	}
	defer build.Close()

	handled := &arrival{at: map[uint64]time.Time{}, ch: make(chan uint64, 1)}
	consuming, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- build.Consume(consuming, worker.Consumer{Durable: "build", Concurrency: 4}, handled) }()
	defer func() { stop(); <-done }()

	var took, appended []time.Duration
	const warmup = 50
	for n := 1; n <= o.events+warmup; n++ {
		subject, event, err := runStart(events.Slug("app-"+strconv.Itoa(n)), 1)
		if err != nil {
			return nil, err
		}
		begin := time.Now()
		record, err := gateway.Ledger.Append(ctx, subject, event)
		if err != nil {
			return nil, err
		}
		acknowledged := time.Since(begin)
		select {
		case seq := <-handled.ch:
			if seq != record.Seq {
				return nil, fmt.Errorf("event %d was handled, %d appended", seq, record.Seq)
			}
		case err := <-done:
			return nil, fmt.Errorf("consuming ended: %w", err)
		case <-time.After(10 * time.Second):
			return nil, fmt.Errorf("event %d has not reached its handler within 10 s", record.Seq)
		}
		if n > warmup {
			handled.mu.Lock()
			took = append(took, handled.at[record.Seq].Sub(begin))
			handled.mu.Unlock()
			appended = append(appended, acknowledged)
		}
	}
	p50, p99 := share(took, 0.5), share(took, 0.99)
	a50 := share(appended, 0.5)
	return []figure{
		{"from an event's append to the next worker's handler, p50", ms(p50), "≤ 3 ms", p50 <= 3*time.Millisecond},
		{"from an event's append to the next worker's handler, p99", ms(p99), "≤ 10 ms", p99 <= 10*time.Millisecond},
		{"  of which until the append is acknowledged (door, disk), p50", ms(a50), "", true},
		{"  append to handler ÷ append alone, p50", ratio(p50, a50), "", true},
	}, nil
}

// rebuild measures how long it takes to read the whole ledger and fold it, against reading the same messages with the
// client library's own ordered consumer and doing nothing with them: with every signature verified, as a process does
// that never saw the ledger before; with the mark of an earlier reading, as a process rebuilds that did; and from a
// snapshot, as it starts.
func rebuild(ctx context.Context, o options) ([]figure, error) {
	total := o.large / 2
	in, err := openFilled(ctx, total)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	gateway, err := ledger.Connect(ctx, in.options(events.Gateway))
	if err != nil {
		return nil, err
	}
	defer gateway.Close()
	plain, err := openPlain(ctx, gateway, total)
	if err != nil {
		return nil, err
	}
	defer plain.close()
	var all, known, raw, snapshots []time.Duration
	for range 3 {
		// A client of its own remembers no signature of the reading before.
		reader, err := ledger.Connect(ctx, in.options(events.Gateway))
		if err != nil {
			return nil, err
		}
		f, begin := fold.New(), time.Now()
		mark, err := reader.Replay(ctx, ledger.Replay{}, f.Apply)
		if err != nil {
			return nil, err
		}
		all = append(all, time.Since(begin))
		g, begin := fold.New(), time.Now()
		if _, err := reader.Replay(ctx, ledger.Replay{Known: &mark}, g.Apply); err != nil {
			return nil, err
		}
		known = append(known, time.Since(begin))
		reader.Close()
		begin = time.Now()
		if err := plain.read(ctx, total); err != nil {
			return nil, err
		}
		raw = append(raw, time.Since(begin))
		data := f.State().Encode()
		if string(data) != string(g.State().Encode()) {
			return nil, errors.New("two rebuilds came to different bytes")
		}
		begin = time.Now()
		state, err := fold.DecodeState(data)
		if err == nil {
			_, err = fold.Restore(state)
		}
		if err != nil {
			return nil, err
		}
		snapshots = append(snapshots, time.Since(begin))
	}
	a, k, r, s := share(all, 0.5), share(known, 0.5), share(raw, 0.5), share(snapshots, 0.5)
	return []figure{
		{fmt.Sprintf("raw ordered-consumer replay of %d events", total), ms(r), "", true},
		{"reading and folding them, verified before by the same process", ms(k), "", true},
		{"  the same ÷ raw replay", ratio(k, r), "≤ 1.5", float64(k) <= 1.5*float64(r)},
		{"reading and folding them, every signature verified", ms(a), "", true},
		{"  the same ÷ raw replay", ratio(a, r), "≤ 1.5", float64(a) <= 1.5*float64(r)},
		{"taking up the state of a snapshot instead", ms(s), "", true},
	}, nil
}

// plain is a nats-server without accounts that holds the same messages: what raw replay is measured on.
type plain struct {
	js    jetstream.JetStream
	close func()
}

const plainStream = "PLAIN"

func openPlain(ctx context.Context, from *ledger.Client, total int) (*plain, error) {
	folder, err := os.MkdirTemp("", "towpath-bench-")
	if err != nil {
		return nil, err
	}
	s, err := server.NewServer(&server.Options{DontListen: true, JetStream: true, StoreDir: folder, NoSigs: true})
	if err != nil {
		return nil, err
	}
	s.Start()
	p := &plain{close: func() { s.Shutdown(); s.WaitForShutdown(); os.RemoveAll(folder) }}
	if err := p.copy(ctx, s, from, total); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *plain) copy(ctx context.Context, s *server.Server, from *ledger.Client, total int) error {
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("the plain server is not ready after 10 s")
	}
	conn, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		return err
	}
	if p.js, err = jetstream.New(conn); err != nil {
		return err
	}
	if _, err := p.js.CreateStream(ctx, jetstream.StreamConfig{Name: plainStream, Subjects: []string{"event.>"}}); err != nil {
		return err
	}
	_, err = from.Read(ctx, 0, func(r ledger.Record) error {
		m := &nats.Msg{Subject: r.Subject.String(), Data: r.Body, Header: nats.Header{}}
		for name, value := range r.Event.Headers() {
			m.Header[name] = []string{value}
		}
		m.Header[events.SignatureName] = []string{r.Signature}
		_, err := p.js.PublishMsgAsync(m)
		return err
	})
	if err != nil {
		return err
	}
	select {
	case <-p.js.PublishAsyncComplete():
		return nil
	case <-time.After(time.Minute):
		return fmt.Errorf("the plain server has not acknowledged %d messages within a minute", total)
	}
}

// read reads every message once, with the client library's own ordered consumer.
func (p *plain) read(ctx context.Context, total int) error {
	consumer, err := p.js.OrderedConsumer(ctx, plainStream, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	for range total {
		if _, err := messages.Next(jetstream.NextMaxWait(10 * time.Second)); err != nil {
			return fmt.Errorf("raw replay: %w", err)
		}
	}
	return nil
}

// share returns the value below which that share of the durations lies.
func share(durations []time.Duration, of float64) time.Duration {
	sorted := slices.Sorted(slices.Values(durations))
	return sorted[int(of*float64(len(sorted)-1))]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }

func ratio(a, b time.Duration) string { return fmt.Sprintf("%.2f", float64(a)/float64(b)) }
