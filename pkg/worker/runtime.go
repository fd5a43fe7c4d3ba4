// Package worker is the runtime of every service: it connects an identity to the bus, follows the
// ledger into one fold, delivers the messages of a durable consumer to a handler, and settles each of
// them in one place.
//
// It guarantees that a handler sees a verified event whose effects are in the fold, that a message is
// acknowledged only after its handler succeeded, that work which takes long is not given to another
// while this process lives, and that what has begun is finished, or given back, before it returns. A
// handler may see a message more than once: it must find its own events and skip.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/worker/boundary"
)

// Options say as whom a service runs and where its bus is.
type Options struct {
	// Service is the identity, such as "build".
	Service string
	// Bus is the URL of the bus. Not used with InProcess.
	Bus string
	// CA is a PEM file with the authorities that may vouch for a bus with a "tls://" URL; empty means the
	// machine's own.
	CA string
	// InProcess is a server in this process; nil means Bus.
	InProcess nats.InProcessConnProvider
	// Keys is the keys folder.
	Keys string
	// Trust are the keys that are accepted; nil means trust.json in Keys. Services of one process should
	// share it, so that each signature is verified once.
	Trust *identity.Trust
	// Epoch of the ledger; 0 means 1.
	Epoch int
	// State is a folder on this machine's disk where the service keeps what it may throw away: its snapshot of
	// the fold. Services may share it. Empty: none is kept, and each start reads the whole ledger.
	State string
	// Platform is the platform's configuration; nil means policy.Default.
	Platform *policy.Platform
	// Logger is handed to everything; nil means slog.Default.
	Logger *slog.Logger
}

// Runtime is one service's place in the installation. It is safe for concurrent use.
type Runtime struct {
	Ledger   *ledger.Client
	Fold     *fold.Fold
	Platform *policy.Platform // never nil
	Logger   *slog.Logger
	Keys     string // the keys folder

	service   events.Writer
	process   string // an id of this start
	state     string // the folder of the snapshot; empty: none
	kept      kept
	notes     *notes
	upkeep    upkeep
	following sync.WaitGroup
	stop      context.CancelCauseFunc
	broken    context.Context // ends when following does, with the cause
}

// errClosed is the cause of a runtime that was closed on purpose.
var errClosed = errors.New("the runtime was closed")

// Open connects to the bus, waiting for it until ctx ends, starts to follow the ledger, and returns once
// the fold has reached the head.
func Open(ctx context.Context, o Options) (*Runtime, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Logger = o.Logger.With("service", o.Service)
	if o.Platform == nil {
		o.Platform = policy.Default()
	}
	rt := &Runtime{Platform: o.Platform, Logger: o.Logger, Keys: o.Keys, service: events.Writer(o.Service), process: events.NewID(), state: o.State}
	client, err := ledger.Connect(ctx, ledger.Options{
		URL: o.Bus, CA: o.CA, InProcess: o.InProcess, Service: o.Service, Keys: o.Keys, Trust: o.Trust, Epoch: o.Epoch, Logger: o.Logger,
		SetAside: rt.passOver,
	})
	if err != nil {
		return nil, err
	}
	rt.Ledger, rt.notes = client, newNotes(client, o.Logger)
	rt.broken, rt.stop = context.WithCancelCause(context.Background())
	if rt.Fold, err = rt.resume(ctx); err != nil {
		rt.Close()
		return nil, fmt.Errorf("reading the ledger as %s: %w", o.Service, err)
	}
	rt.following.Go(rt.follow)
	rt.following.Go(func() { rt.notes.keepAsides(rt.broken) })
	select {
	case <-client.CaughtUp():
		if err = rt.answerState(); err == nil {
			rt.following.Go(rt.keepSnapshots)
			return rt, nil
		}
	case <-rt.broken.Done():
		err = context.Cause(rt.broken)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	rt.Close()
	return nil, fmt.Errorf("reading the ledger as %s: %w", o.Service, err)
}

func (rt *Runtime) follow() {
	err := rt.Ledger.Follow(rt.broken, func(r ledger.Record) error {
		rt.upkeep.applying.Lock()
		defer rt.upkeep.applying.Unlock()
		if err := rt.Fold.Apply(r); err != nil {
			rt.Logger.Error("event contradicts the contract", "seq", r.Seq, "subject", r.Subject.String(), "err", err)
		}
		return nil
	})
	if err == nil {
		err = errClosed
	}
	rt.stop(err)
}

// passOver moves the fold past a message that was set aside, so that nobody waits for it, and has it noted.
func (rt *Runtime) passOver(a ledger.Aside) {
	rt.upkeep.applying.Lock()
	rt.Fold.Skip(a.Seq)
	rt.upkeep.applying.Unlock()
	rt.notes.passedOver(a)
}

// Broken ends, with its cause, when the ledger can be followed no further: another history
// (*ledger.HistoryError) or Close. A service whose fold no longer moves must stop.
func (rt *Runtime) Broken() context.Context { return rt.broken }

// Append stores an event and returns once the runtime's own fold has it. On *ledger.ExistsError the
// fold is past the winner, so that the caller can decide afresh at once. Other errors are those of
// ledger.Client.Append.
func (rt *Runtime) Append(ctx context.Context, s events.Subject, e events.Event) (ledger.Record, error) {
	r, err := rt.Ledger.Append(ctx, s, e)
	seq := r.Seq
	var exists *ledger.ExistsError
	if errors.As(err, &exists) {
		seq = exists.Winner.Seq
	} else if err != nil {
		return r, err
	}
	boundary.Reached(rt.service, boundary.Event, s.App)
	if late := rt.await(ctx, seq); late != nil {
		return r, errors.Join(err, late)
	}
	return r, err
}

// Epoch returns the epoch that the runtime writes and follows.
func (rt *Runtime) Epoch() int { return rt.Ledger.Epoch() }

// await returns when the fold has reached seq.
func (rt *Runtime) await(ctx context.Context, seq uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(rt.broken, func() { cancel(context.Cause(rt.broken)) })()
	return rt.Ledger.Await(ctx, seq)
}

// Close keeps a snapshot, stops following and closes the connection. Consume must have returned.
func (rt *Runtime) Close() {
	rt.stop(errClosed)
	rt.following.Wait()
	rt.Ledger.Close()
}
