package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
)

// Mark is how far a process has read and verified a ledger, such that it can tell later whether it is the same
// ledger, and which of its events it need not verify again. The zero Mark is the beginning.
//
// Chain covers every message up to Seq with its subject, body and signature. A process that keeps its own Mark where
// nobody else can change it knows of any message that gives the same Chain again that it is one which it has verified
// itself: that is the proof, not that the message is there.
type Mark struct {
	Ledger string                   `json:"ledger"` // Record.ID of the first event
	Seq    uint64                   `json:"seq"`
	Hash   Hash                     `json:"hash"`  // of the event at Seq
	Chain  Hash                     `json:"chain"` // over all events up to Seq
	Keys   map[string]events.Writer `json:"keys"`  // by id, those whose signatures were verified
	// Aside are the sequences that were set aside. They are verified each time: a later build may know their type.
	Aside []uint64 `json:"aside,omitempty"`
}

// maxAside bounds a Mark. The door lets nothing in that would be set aside, but for what an older build cannot read.
const maxAside = 1000

// Clone returns a Mark that shares nothing.
func (m Mark) Clone() Mark {
	m.Keys, m.Aside = maps.Clone(m.Keys), slices.Clone(m.Aside)
	return m
}

// next moves the mark past a message. w is who signed it; "" where it was set aside.
func (m *Mark) next(s opened, signature string, w events.Writer) {
	sum := s.sum
	if s.seq == 1 {
		m.Ledger = idOf(sum)
	}
	var room [512]byte
	link := append(append(room[:0], m.Chain[:]...), sum[:]...)
	link = append(binary.BigEndian.AppendUint64(link, uint64(len(signature))), signature...)
	m.Seq, m.Hash, m.Chain = s.seq, sum, sha256.Sum256(link)
	if w == "" {
		m.Aside = append(m.Aside, s.seq)
		return
	}
	id, _, _ := strings.Cut(signature, " ") // it was verified, so that it has one
	if m.Keys[id] == w {
		return
	}
	if m.Keys == nil {
		m.Keys = map[string]events.Writer{}
	}
	m.Keys[id] = w
}

// usable says why a mark cannot stand for signatures any more.
func (m Mark) usable(trust *identity.Trust) error {
	if len(m.Aside) > maxAside {
		return fmt.Errorf("%d events were set aside", len(m.Aside))
	}
	for id, w := range m.Keys {
		if !trust.Holds(id, w) {
			return fmt.Errorf("key %.32q of %s is not trusted any more", id, w)
		}
	}
	return nil
}

// Resume lets Follow begin after a mark instead of at the beginning of the ledger, and must be called before it. The
// error is a *HistoryError where the ledger does not hold what the mark says, which takes up to 10 s where it lacks
// the event: a replica may lag. A message that was set aside and can be read by now is one, too.
func (c *Client) Resume(ctx context.Context, m Mark) error {
	if err := m.usable(c.trust); err != nil {
		return &HistoryError{Seq: m.Seq, Why: err.Error()}
	}
	f := &follower{client: c, stream: events.StreamName(c.epoch), mark: m.Clone()}
	if err := f.sameHistory(ctx); err != nil {
		return err
	}
	first, err := f.held(ctx, 1)
	if err != nil {
		return err
	}
	if id := idOf(hash(first.subject, first.body)); id != m.Ledger {
		return &HistoryError{Seq: m.Seq, Why: fmt.Sprintf("its first event is %.16s, not %.16s", id, m.Ledger)}
	}
	for _, seq := range m.Aside {
		s, err := f.held(ctx, seq)
		if err != nil {
			return err
		}
		if _, err := c.record(s); err == nil {
			return &HistoryError{Seq: m.Seq, Why: fmt.Sprintf("event %d was set aside and can be read now", seq)}
		}
	}
	c.position.resume(m)
	return nil
}

// Position returns how far Follow has come.
func (c *Client) Position() Mark { return c.position.markNow() }

// Replay says what Client.Replay reads.
type Replay struct {
	From Mark   // it begins after this; the zero value: at the beginning
	UpTo uint64 // the last sequence; 0: the head at the moment when it gets there
	// Known is how far this process has verified the same ledger before: up to there signatures are not verified
	// again, and instead it is an error (ErrOtherChain) where the events are not those of then. nil: all are verified.
	Known *Mark
	// SetAside, where not nil, is told of messages that are passed over.
	SetAside func(seq uint64)
}

// ErrOtherChain is wrapped by Replay where the ledger does not hold what Replay.Known says, and by then apply was
// given events that nobody has verified: what it made of them must be thrown away.
var ErrOtherChain = errors.New("the events are not those that were verified before")

// Replay hands the records of a part of the ledger to apply, each once and in order, and returns the mark at their
// end. Signatures are verified, and bodies read, on all processors at once. It is of no account to Follow.
func (c *Client) Replay(ctx context.Context, r Replay, apply func(Record) error) (Mark, error) {
	f := &follower{
		client: c, apply: apply, stream: events.StreamName(c.epoch), private: true,
		mark: r.From.Clone(), upTo: r.UpTo, aside: r.SetAside,
	}
	if r.Known != nil && r.Known.Seq > r.From.Seq {
		if err := r.Known.usable(c.trust); err != nil {
			return f.mark, fmt.Errorf("%w: %w", ErrOtherChain, err)
		}
		f.known = r.Known
	}
	for more := true; more; {
		var err error
		if more, err = f.readBatch(ctx); err != nil {
			return f.mark, unwrapApply(err)
		}
		if f.upTo > 0 && f.mark.Seq >= f.upTo {
			break
		}
	}
	if f.upTo > 0 && f.mark.Seq < f.upTo {
		return f.mark, fmt.Errorf("reading the ledger: it ends at %d, before %d", f.mark.Seq, f.upTo)
	}
	if f.known != nil && f.mark.Seq < f.known.Seq {
		return f.mark, fmt.Errorf("%w: the reading ended at %d, before %d", ErrOtherChain, f.mark.Seq, f.known.Seq)
	}
	return f.mark, nil
}

// opened is a stored message that was verified and read.
type opened struct {
	stored
	sum    Hash // over subject and body
	record Record
	err    error // why it was set aside
}

// open verifies and reads messages, all processors at once.
func (f *follower) open(all []opened) {
	workers := min(runtime.GOMAXPROCS(0), (len(all)+openAtOnce-1)/openAtOnce)
	var next sync.Mutex
	at := 0
	take := func() (from, to int) {
		next.Lock()
		defer next.Unlock()
		from = at
		at = min(at+openAtOnce, len(all))
		return from, at
	}
	work := func() {
		for from, to := take(); from < to; from, to = take() {
			for i := from; i < to; i++ {
				all[i].sum = hash(all[i].subject, all[i].body)
				all[i].record, all[i].err = f.record(all[i].stored)
			}
		}
	}
	if workers <= 1 {
		work()
		return
	}
	var group sync.WaitGroup
	for range workers {
		group.Go(work)
	}
	group.Wait()
}

// openAtOnce is how many messages one processor takes at a time.
const openAtOnce = 16

// record verifies and reads one message. Up to the mark that is known its signature is not verified again, unless it
// was set aside then.
func (f *follower) record(s stored) (Record, error) {
	if f.known == nil || s.seq > f.known.Seq {
		return f.client.record(s)
	}
	if _, aside := slices.BinarySearch(f.known.Aside, s.seq); aside {
		return f.client.record(s)
	}
	return readRecord(s)
}

// prefetch is a batch that was read. It is verified and decoded while the one before is handled and the one after is
// read.
type prefetch struct {
	messages []opened
	opened   <-chan struct{} // closed once they are
	more     bool
	err      error
}

// fetch reads the batch after a sequence.
func (f *follower) fetch(ctx context.Context, after uint64) prefetch {
	messages := make([]opened, 0, batchMessages)
	more, err := f.client.batch(ctx, f.stream, directGet{Seq: after + 1}, func(s stored) error {
		messages = append(messages, opened{stored: s})
		return nil
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.open(messages)
	}()
	return prefetch{messages, done, more, err}
}

// readBatch handles the next batch. The one after it is asked for meanwhile, where there is one.
func (f *follower) readBatch(ctx context.Context) (more bool, err error) {
	var p prefetch
	if f.ahead != nil {
		p = <-f.ahead
		f.ahead = nil
	}
	if p.messages == nil || p.err == nil && len(p.messages) > 0 && p.messages[0].seq != f.mark.Seq+1 {
		p = f.fetch(ctx, f.mark.Seq)
	}
	if p.more && p.err == nil && len(p.messages) > 0 {
		last := p.messages[len(p.messages)-1].seq
		if f.upTo == 0 || last < f.upTo {
			f.ahead = make(chan prefetch, 1)
			go func(ahead chan<- prefetch) { ahead <- f.fetch(ctx, last) }(f.ahead)
		}
	}
	<-p.opened
	for _, o := range p.messages {
		if f.upTo > 0 && o.seq > f.upTo {
			return false, nil
		}
		if err := f.one(o); err != nil {
			return false, err
		}
	}
	return p.more, p.err
}

// Hash is a SHA-256 that is written as hexadecimal digits.
type Hash [sha256.Size]byte

// MarshalText writes the digits.
func (h Hash) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%x", h[:]), nil }

// UnmarshalText reads the digits.
func (h *Hash) UnmarshalText(text []byte) error {
	var b []byte
	if _, err := fmt.Sscanf(string(text), "%x", &b); err != nil || len(b) != len(h) {
		return fmt.Errorf("%.80q is no SHA-256", text)
	}
	copy(h[:], b)
	return nil
}

// String returns the digits.
func (h Hash) String() string { return fmt.Sprintf("%x", h[:]) }

// resume begins at a mark.
func (p *position) resume(m Mark) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mark = m.Clone()
}

func (p *position) markNow() Mark {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mark.Clone()
}
