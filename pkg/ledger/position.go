package ledger

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"towpath.dev/events"
)

// position is how far a client's Follow has come, and what others want of it: to be told when it
// reaches a sequence, and to have it look again.
type position struct {
	look  chan struct{} // look at the head now
	taken atomic.Bool   // Follow was called
	check atomic.Bool   // the connection was lost: is it still the same history?
	ready chan struct{} // closed once the head was reached for the first time

	mu      sync.Mutex
	mark    Mark
	reached chan struct{} // closed and replaced whenever the mark moves
}

func newPosition() *position {
	return &position{look: make(chan struct{}, 1), ready: make(chan struct{}), reached: make(chan struct{})}
}

// wake asks the follower to read to the head now.
func (p *position) wake() {
	select {
	case p.look <- struct{}{}:
	default:
	}
}

func (p *position) reconnected() {
	p.check.Store(true)
	p.wake()
}

// advance tells how far the follower has come. Its mark's map and slice are only ever added to, so that they are
// copied when somebody asks for them and not at each event.
func (p *position) advance(m *Mark, s opened, signature string, w events.Writer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m.next(s, signature, w)
	p.mark = *m
	close(p.reached)
	p.reached = make(chan struct{})
}

func (p *position) at() (seq uint64, reached <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mark.Seq, p.reached
}

// patience is how long a waiter trusts the live messages before it has the follower read for itself.
const patience = 25 * time.Millisecond

// await returns when the follower has applied seq, or with ctx's error.
func (p *position) await(ctx context.Context, seq uint64) error {
	var look *time.Timer
	for {
		at, reached := p.at()
		if at >= seq {
			return nil
		}
		if look == nil {
			look = time.NewTimer(patience)
			defer look.Stop()
		}
		select {
		case <-reached:
		case <-look.C:
			p.wake()
			look.Reset(patience)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
