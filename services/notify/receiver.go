package notify

import (
	"slices"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
)

const (
	// maxPending is how many notices may wait for one receiver; beyond it the oldest are left out.
	maxPending = 1000
	// maxSent is how many ids of what was sent are kept, so that one thing that several events tell of is told once.
	maxSent = 256
)

// progress is how far a receiver is, as it is kept on the bus.
type progress struct {
	Ledger string        `json:"ledger"` // id of the history that Seq counts in
	Seq    uint64        `json:"seq"`    // everything up to this event was sent, given up or of no interest
	Sent   []events.Slug `json:"sent,omitempty"`
	Left   int           `json:"leftOut,omitempty"` // notices that were left out, which the receiver was not told of yet
}

// receiver is one webhook: what waits for it, and how far it is. It is safe for concurrent use.
type receiver struct {
	policy.Receiver

	mu      sync.Mutex
	done    progress
	read    uint64 // everything up to this event was offered
	pending []notice
	wake    chan struct{}
}

func newReceiver(r policy.Receiver) *receiver {
	return &receiver{Receiver: r, wake: make(chan struct{}, 1)}
}

// resume goes on from the progress that was kept, if any was and it is of this ledger, whose id and last sequence are given;
// else the receiver hears of what comes from now on.
func (r *receiver) resume(kept progress, known bool, head uint64, ledger string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// An empty ledger has no id yet: whatever came then is its history.
	if !known || kept.Seq > head || kept.Ledger != ledger && kept.Ledger != "" {
		kept = progress{Seq: head}
	}
	kept.Ledger = ledger
	r.done, r.read = kept, kept.Seq
}

// offer hands a notice over, unless the receiver does not want its kind or knows it already.
func (r *receiver) offer(n notice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n.Seq <= r.done.Seq || !slices.Contains(r.Kinds, n.Kind) || slices.Contains(r.done.Sent, n.ID) {
		return
	}
	if i := slices.IndexFunc(r.pending, func(p notice) bool { return p.ID == n.ID }); i >= 0 {
		r.pending[i].At = n.At // an earlier event of the run told of it because it was read late: it is as young as this one
		return
	}
	if r.pending = append(r.pending, n); len(r.pending) > maxPending {
		r.pending = slices.Delete(r.pending, 0, 1)
		r.done.Left++
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// offered says that all events up to seq have been looked at.
func (r *receiver) offered(seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read = max(r.read, seq)
}

// next is what is to be sent now: the oldest notice that is young enough, or a word about those that were not.
func (r *receiver) next(now time.Time, maxAge time.Duration) (notice, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.pending) > 0 && now.Sub(r.pending[0].At) > maxAge {
		r.done.Seq = max(r.done.Seq, r.pending[0].Seq)
		r.pending = slices.Delete(r.pending, 0, 1)
		r.done.Left++
	}
	if r.done.Left > 0 {
		n := leftOut(r.done.Left, r.done.Seq)
		n.ID = events.Key(n.Kind, r.Name, r.done.Ledger, n.Text, now.UTC().Truncate(maxAge).Format(time.RFC3339))
		return n, true
	}
	if len(r.pending) == 0 {
		return notice{}, false
	}
	return r.pending[0], true
}

// settle says that a notice was sent, or given up.
func (r *receiver) settle(n notice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n.Kind == KindLeftOut {
		r.done.Left -= n.left
		return
	}
	r.pending = slices.DeleteFunc(r.pending, func(p notice) bool { return p.ID == n.ID })
	if r.done.Sent = append(r.done.Sent, n.ID); len(r.done.Sent) > maxSent {
		r.done.Sent = r.done.Sent[len(r.done.Sent)-maxSent:]
	}
}

// reached is the progress to keep: up to the event before the oldest notice that waits.
func (r *receiver) reached() progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done.Seq = max(r.done.Seq, r.read)
	if len(r.pending) > 0 {
		r.done.Seq = r.pending[0].Seq - 1
	}
	p := r.done
	p.Sent = slices.Clone(p.Sent)
	return p
}
