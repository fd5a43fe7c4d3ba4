package ledger

import (
	"context"
	"crypto/sha256"
	"sync"
	"sync/atomic"
	"time"
)

// position is how far a client's Follow has come, and what others want of it: to be told when it
// reaches a sequence, and to have it look again.
type position struct {
	look  chan struct{} // look at the head now
	taken atomic.Bool   // Follow was called
	check atomic.Bool   // the connection was lost: is it still the same history?
	ready chan struct{} // closed once the head was reached for the first time

	mu      sync.Mutex
	seq     uint64
	hash    [sha256.Size]byte
	reached chan struct{} // closed and replaced whenever seq grows
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

func (p *position) advance(seq uint64, hash [sha256.Size]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seq, p.hash = seq, hash
	close(p.reached)
	p.reached = make(chan struct{})
}

func (p *position) at() (seq uint64, hash [sha256.Size]byte, reached <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seq, p.hash, p.reached
}

// patience is how long a waiter trusts the live messages before it has the follower read for itself.
const patience = 25 * time.Millisecond

// await returns when the follower has applied seq, or with ctx's error.
func (p *position) await(ctx context.Context, seq uint64) error {
	var look *time.Timer
	for {
		at, _, reached := p.at()
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
