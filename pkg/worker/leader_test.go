package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/worker"
)

const (
	// leaderLives is how long a leader is left, and leaderAway how long it then stays dead.
	leaderLives = 5 * time.Second
	leaderAway  = leaderLives / 2
	// answerBound is how long a caller waits for one answer before it is told that nobody knows.
	answerBound = 2 * time.Second
	// drainBound is how long after the last death everything that was begun may take.
	drainBound = 2 * time.Minute
)

// TestALeaderKilledEveryFiveSeconds: on three servers, while writers append, contend for subjects and give up waiting,
// nothing that was acknowledged is missing on any server, nothing was acknowledged twice, and a service that followed
// all the while has the state that a fresh reading gives.
func TestALeaderKilledEveryFiveSeconds(t *testing.T) {
	t.Parallel()
	deaths := 12
	if testing.Short() {
		deaths = 3
	}
	l := ledgertest.Start(t, ledgertest.Clustered())
	follower, _ := reopen(t, l, "vet", t.TempDir())
	defer follower.Close()
	began := time.Now()
	p := &publishers{t: t, stop: make(chan struct{})}
	for range 4 {
		p.work.Go(func() { p.write(l.Connect("gateway")) })
	}
	p.work.Go(func() { p.contend(l.Connect("gateway"), l.Connect("gateway")) })
	for range deaths {
		again := l.KillLeader()
		<-time.After(leaderAway)
		again()
		<-time.After(leaderLives - leaderAway)
	}
	close(p.stop)
	stopped := time.Now()
	p.await(drainBound)
	l.Whole()
	all := map[string]ledger.Record{}
	head := p.compare("the bus", l.Client("build"), all)
	ctx, cancel := context.WithDeadline(t.Context(), stopped.Add(drainBound))
	defer cancel()
	if err := follower.Ledger.Await(ctx, head); err != nil {
		t.Errorf("%s after the last death the follower is at %d of %d: %v", time.Since(stopped), follower.Ledger.Applied(), head, err)
	}
	drained := time.Since(stopped)
	if r := done(t, follower, worker.DoCheck); !same(r) || r.Seq != head {
		t.Errorf("what the follower has is not what the ledger gives: %+v", r)
	}
	l.EachAlone(func(server string, c *ledger.Client) { p.compare(server, c, all) })
	if p.unanswered == 0 {
		t.Error("every append was answered at once: no death was noticed, so that nothing was tried")
	}
	t.Logf("%d deaths in %s: %d events acknowledged, %d tries without an answer, the longest wait %s, %d subjects contended for; drained %s after", deaths,
		time.Since(began).Round(time.Second), len(p.acked), p.unanswered, p.longest.Round(time.Millisecond), p.contended, drained.Round(time.Millisecond))
}

// publishers append until they are stopped, and remember what they were told.
type publishers struct {
	t    *testing.T
	stop chan struct{}
	work sync.WaitGroup

	mu         sync.Mutex
	acked      []ledger.Record
	unanswered int // tries
	contended  int
	longest    time.Duration // until an append was answered
}

func (p *publishers) stopped() bool {
	select {
	case <-p.stop:
		return true
	default:
		return false
	}
}

// write appends event after event, each until it is known to be stored.
func (p *publishers) write(c *ledger.Client) {
	for !p.stopped() {
		if err := p.append(c, "", nil); err != nil {
			p.t.Error(err)
			return
		}
	}
}

// contend has two write different events to the same subject at once: one is told that it is stored, the other who won.
func (p *publishers) contend(clients ...*ledger.Client) {
	for !p.stopped() {
		app := events.Key(events.NewID())
		answers := make([]error, len(clients))
		bodies := make([][]byte, len(clients))
		var both sync.WaitGroup
		for i, c := range clients {
			both.Go(func() { answers[i] = p.append(c, app, &bodies[i]) })
		}
		both.Wait()
		won, lost := 0, 1
		if answers[0] != nil {
			won, lost = 1, 0
		}
		var exists *ledger.ExistsError
		if answers[won] != nil || !errors.As(answers[lost], &exists) || !bytes.Equal(exists.Winner.Body, bodies[won]) {
			p.t.Errorf("two wrote %s, and were told %v and %v", app, answers[0], answers[1])
			return
		}
		p.mu.Lock()
		p.contended++
		p.mu.Unlock()
	}
}

// append stores one event as a caller does who waits answerBound and then tries the very same again.
func (p *publishers) append(c *ledger.Client, app events.Slug, body *[]byte) error {
	if app == "" {
		app = events.Key(events.NewID())
	}
	s, e := ledgertest.AppCreated(app)
	if body != nil {
		var err error
		if *body, err = e.Encode(); err != nil {
			return err
		}
	}
	for began := time.Now(); ; {
		ctx, cancel := context.WithTimeout(context.Background(), answerBound)
		r, err := c.Append(ctx, s, e)
		cancel()
		p.mu.Lock()
		if err == nil {
			p.acked, p.longest = append(p.acked, r), max(p.longest, time.Since(began))
		}
		if unknown := errors.Is(err, context.DeadlineExceeded); !unknown {
			p.mu.Unlock()
			return err
		}
		p.unanswered++
		p.mu.Unlock()
		if time.Since(began) > drainBound {
			return fmt.Errorf("appending to %s: not answered within %s: %w", s, drainBound, err)
		}
	}
}

// await waits until the writers have ended.
func (p *publishers) await(bound time.Duration) {
	p.t.Helper()
	ended := make(chan struct{})
	go func() { p.work.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(bound):
		p.t.Fatalf("writers have not ended within %s", bound)
	}
}

// compare reads everything and looks that what was acknowledged is there, where it was said to be and as it was
// written, and that all is what others read. It returns the head.
func (p *publishers) compare(where string, c *ledger.Client, all map[string]ledger.Record) uint64 {
	p.t.Helper()
	got := map[string]ledger.Record{}
	head, err := c.Read(p.t.Context(), 0, func(r ledger.Record) error {
		if before, ok := got[r.Subject.String()]; ok {
			p.t.Errorf("%s holds %s as %d and as %d", where, r.Subject, before.Seq, r.Seq)
		}
		got[r.Subject.String()] = r
		return nil
	})
	if err != nil {
		p.t.Fatalf("reading %s: %v", where, err)
	}
	for _, want := range p.acked {
		if r, ok := got[want.Subject.String()]; !ok || r.Seq != want.Seq || !bytes.Equal(r.Body, want.Body) {
			p.t.Errorf("%s: %s was acknowledged as %d, and is there as %d", where, want.Subject, want.Seq, r.Seq)
		}
	}
	if len(all) > 0 && len(all) != len(got) {
		p.t.Errorf("%s holds %d events, all together %d", where, len(got), len(all))
	}
	for subject, r := range got {
		if other, ok := all[subject]; ok && (other.Seq != r.Seq || !bytes.Equal(other.Body, r.Body)) {
			p.t.Errorf("%s has another %s than the others", where, subject)
		}
		all[subject] = r
	}
	return head
}
