package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/pause"
	"towpath.dev/pkg/worker"
	"towpath.dev/pkg/worker/boundary"
)

// Deps are what the service works with.
type Deps struct {
	Runtime *worker.Runtime // opened as identity "notify"
}

// Service tells people.
type Service struct {
	cfg       Config
	rt        *worker.Runtime
	http      *http.Client
	receivers []*receiver
}

// New validates and does no IO.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg.withDefaults(), rt: deps.Runtime, http: newClient()}
	for _, r := range deps.Runtime.Platform.Notify {
		s.receivers = append(s.receivers, newReceiver(r))
	}
	return s, nil
}

// Run tells until ctx ends. What was being sent then is sent again at the next start.
func (s *Service) Run(ctx context.Context) error {
	if len(s.receivers) == 0 {
		<-ctx.Done()
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	from, err := s.begin(ctx)
	if err != nil {
		return nil // ctx has ended
	}
	// Nothing is sent before everything is read that came meanwhile, so that what is too old is counted as a whole.
	var work sync.WaitGroup
	read := make(chan struct{})
	for _, r := range s.receivers {
		work.Go(func() {
			select {
			case <-read:
				s.serve(ctx, r)
			case <-ctx.Done():
			}
		})
	}
	err = s.follow(ctx, from, sync.OnceFunc(func() { close(read) }))
	stop()
	work.Wait()
	return err
}

// begin is resume, tried until the bus answers or ctx ends: it may go away right after the runtime was opened.
func (s *Service) begin(ctx context.Context) (from uint64, err error) {
	for wait := retryPause; ; wait = min(2*wait, maxRetry) {
		try, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		from, err = s.resume(try)
		cancel()
		if err == nil || ctx.Err() != nil {
			return from, ctx.Err()
		}
		s.rt.Logger.Warn("notifications do not begin yet; tried again", "err", err, "after", wait)
		_ = pause.For(ctx, wait) // the next try ends with ctx
	}
}

// resume reads how far each receiver is, and returns the least of it. One that is new hears of what comes from now on.
func (s *Service) resume(ctx context.Context) (from uint64, err error) {
	from = s.rt.Fold.Seq()
	for _, r := range s.receivers {
		p, known, err := s.load(ctx, r)
		if err != nil {
			return 0, err
		}
		r.resume(p, known, s.head(ctx, p.Seq), s.rt.Fold.LedgerID())
		if err := s.save(ctx, r); err != nil {
			return 0, err
		}
		from = min(from, r.read)
	}
	return from, nil
}

// headBound is how long the fold may take to come to where a receiver is. Only another process of notify that still runs
// can be ahead of it, and not by much; a ledger that was restored never comes there.
const headBound = 2 * time.Second

// head is the last event of the ledger, where it is known that one more was there.
func (s *Service) head(ctx context.Context, known uint64) uint64 {
	wait, cancel := context.WithTimeout(ctx, headBound)
	defer cancel()
	_ = s.rt.Fold.Wait(wait, known) // what it came to in that time counts
	return s.rt.Fold.Seq()
}

func (s *Service) bucket() *ledger.Bucket { return s.rt.Ledger.Bucket(events.BucketNotify) }

func (s *Service) load(ctx context.Context, r *receiver) (p progress, known bool, err error) {
	value, _, err := s.bucket().Get(ctx, r.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return p, false, nil
	case err != nil:
		return p, false, fmt.Errorf("reading how far notifications to %s are: %w", r.Name, err)
	}
	if err := json.Unmarshal(value, &p); err != nil {
		s.rt.Logger.Error("how far notifications were cannot be read; the receiver hears of what comes from now on", "receiver", r.Name, "err", err)
		return progress{}, false, nil
	}
	return p, true, nil
}

func (s *Service) save(ctx context.Context, r *receiver) error {
	value, err := json.Marshal(r.reached())
	if err == nil {
		_, err = s.bucket().Put(ctx, r.Name, value)
	}
	if err != nil {
		return fmt.Errorf("keeping how far notifications to %s are: %w", r.Name, err)
	}
	return nil
}

const (
	keepEvery  = 30 * time.Second // how often progress is kept though nothing was sent
	retryPause = time.Second      // after a read that failed
)

// follow reads every event after from, and hands what it gives to the receivers. It calls read when it is through for
// the first time.
func (s *Service) follow(ctx context.Context, from uint64, read func()) error {
	for {
		last, err := s.rt.Ledger.Read(ctx, from, func(r ledger.Record) error {
			if err := s.rt.Fold.Wait(ctx, r.Seq); err != nil {
				return err
			}
			s.offer(r)
			return nil
		})
		from = last
		for _, r := range s.receivers {
			r.offered(from)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case s.rt.Broken().Err() != nil:
			return context.Cause(s.rt.Broken())
		case err != nil:
			s.rt.Logger.Warn("reading the ledger, again in a moment", "err", err)
			if pause.For(ctx, retryPause) != nil {
				return nil
			}
			continue
		}
		read()
		s.await(ctx, from+1)
	}
}

// await returns when there is a further event. While there is none, it keeps how far everybody is.
func (s *Service) await(ctx context.Context, seq uint64) {
	wait, cancel := context.WithTimeout(ctx, keepEvery)
	defer cancel()
	if s.rt.Fold.Wait(wait, seq) == nil || ctx.Err() != nil {
		return
	}
	for _, r := range s.receivers {
		keep, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		if err := s.save(keep, r); err != nil && ctx.Err() == nil {
			s.rt.Logger.Warn("notifications may be sent again after a restart", "receiver", r.Name, "err", err)
		}
		cancel()
	}
}

func (s *Service) offer(r ledger.Record) {
	n, ok := decide(s.rt.Fold.App(r.Subject.App), r.Seq, r.Subject, r.Event)
	if !ok {
		return
	}
	for _, receiver := range s.receivers {
		receiver.offer(n)
	}
}

// serve sends to one receiver until ctx ends.
func (s *Service) serve(ctx context.Context, r *receiver) {
	look := time.NewTicker(keepEvery)
	defer look.Stop()
	for ctx.Err() == nil {
		n, ok := r.next(time.Now(), s.cfg.MaxAge)
		if !ok {
			select {
			case <-r.wake:
			case <-look.C:
			case <-ctx.Done():
			}
			continue
		}
		boundary.Reached(events.Notify, boundary.Received, n.App)
		if !s.deliver(ctx, r, n) {
			continue
		}
		boundary.Reached(events.Notify, boundary.Effect, n.App)
		r.settle(n)
		// Also when ctx has ended meanwhile: what was taken need not be sent again.
		keep, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Timeout)
		if err := s.save(keep, r); err != nil {
			s.rt.Logger.Warn("a notification may be sent again after a restart", "receiver", r.Name, "err", err)
		}
		cancel()
		boundary.Reached(events.Notify, boundary.Ack, n.App)
		_ = pause.For(ctx, s.cfg.Pace) // it ends with ctx, and so does the loop
	}
}

// maxRetry is the longest pause between two tries.
const maxRetry = time.Minute

// deliver tries until the receiver has taken the notice or refused it. It gives up when the notice is too old.
func (s *Service) deliver(ctx context.Context, r *receiver, n notice) (settled bool) {
	said := false
	for wait := s.cfg.Retry; ; wait = min(2*wait, maxRetry) {
		err := s.post(ctx, r.Receiver, n)
		var refused *refusedError
		var busy *busyError
		switch {
		case err == nil:
			s.rt.Logger.Info("notified", "receiver", r.Name, "kind", n.Kind, "app", n.App, "run", n.Run, "env", n.Env)
			return true
		case ctx.Err() != nil:
			return false
		case errors.As(err, &refused):
			s.rt.Logger.Error("a receiver refuses a notification; it is given up", "receiver", r.Name, "kind", n.Kind, "app", n.App, "run", n.Run, "status", refused.status)
			return true
		case errors.As(err, &busy):
			wait = max(wait, busy.after)
		}
		if !said {
			s.rt.Logger.Warn("a receiver does not take notifications; tried again", "receiver", r.Name, "kind", n.Kind, "err", err)
			said = true
		}
		if pause.For(ctx, wait) != nil || n.Kind != KindLeftOut && time.Since(n.At) > s.cfg.MaxAge {
			return false
		}
	}
}
