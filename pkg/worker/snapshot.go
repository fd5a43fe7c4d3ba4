package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/snapshot"
)

// When a snapshot is kept: a start reads at most a tenth of the ledger besides it, within these bounds, or the events of
// so long a time.
const (
	snapshotFewest = 500
	snapshotMost   = 10_000
	snapshotEvery  = 10 * time.Minute
	// snapshotLook is how often it is looked whether one is due.
	snapshotLook = time.Second
)

// kept is the snapshot that was kept last.
type kept struct {
	mu      sync.Mutex
	seq     uint64
	at      time.Time
	resumed uint64 // that of the start
}

// Resumed is the sequence after which this start read the ledger, because it had a snapshot up to there; 0: none.
func (rt *Runtime) Resumed() uint64 { return rt.kept.resumed }

// resume returns the fold from which following goes on: that of the snapshot, or an empty one.
func (rt *Runtime) resume(ctx context.Context) (*fold.Fold, error) {
	rt.kept.at = time.Now()
	if rt.state == "" {
		return fold.New(), nil
	}
	f, err := rt.restore(ctx)
	var other *ledger.HistoryError
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, fs.ErrNotExist):
		return fold.New(), nil
	case errors.Is(err, snapshot.ErrUnusable), errors.As(err, &other):
		rt.Logger.Warn("the snapshot is thrown away, the whole ledger is read", "err", err)
		if err := os.Remove(rt.snapshotFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			rt.Logger.Warn("the snapshot could not be removed", "err", err)
		}
		return fold.New(), nil
	}
	return nil, err
}

func (rt *Runtime) snapshotFile() string { return snapshot.File(rt.state, rt.Ledger.Service()) }

// restore takes up the snapshot, if the ledger still holds what it was made of.
func (rt *Runtime) restore(ctx context.Context) (*fold.Fold, error) {
	began := time.Now()
	s, err := snapshot.Load(rt.snapshotFile(), rt.Ledger.Signer())
	if err != nil {
		return nil, err
	}
	f, err := fold.Restore(s.State)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", snapshot.ErrUnusable, err)
	}
	if err := rt.Ledger.Resume(ctx, s.Mark); err != nil {
		return nil, err
	}
	rt.kept.seq, rt.kept.resumed = s.Mark.Seq, s.Mark.Seq
	rt.Logger.Info("snapshot taken up", "seq", s.Mark.Seq, "took", time.Since(began).Round(time.Millisecond))
	return f, nil
}

// keepSnapshots keeps a snapshot whenever one is due, and a last one when the runtime is closed.
func (rt *Runtime) keepSnapshots() {
	if rt.state == "" {
		return
	}
	t := time.NewTicker(snapshotLook)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if rt.snapshotDue(time.Now()) {
				rt.keepSnapshot()
			}
		case <-rt.broken.Done():
			if errors.Is(context.Cause(rt.broken), errClosed) && rt.Fold.Seq() > rt.keptSeq() {
				rt.keepSnapshot()
			}
			return
		}
	}
}

func (rt *Runtime) keptSeq() uint64 {
	rt.kept.mu.Lock()
	defer rt.kept.mu.Unlock()
	return rt.kept.seq
}

func (rt *Runtime) snapshotDue(now time.Time) bool {
	seq := rt.Fold.Seq()
	rt.kept.mu.Lock()
	defer rt.kept.mu.Unlock()
	return seq >= rt.kept.seq+min(max(seq/10, snapshotFewest), snapshotMost) || seq > rt.kept.seq && now.Sub(rt.kept.at) >= snapshotEvery
}

// keepSnapshot writes one. A disk that is full is no reason to stop: the ledger holds everything.
func (rt *Runtime) keepSnapshot() {
	began := time.Now()
	s, ok := rt.Snapshot()
	if !ok {
		return // events come too fast; at the next look
	}
	size, err := snapshot.Save(rt.snapshotFile(), rt.Ledger.Signer(), s, began)
	if err != nil {
		rt.Logger.Warn("no snapshot was kept; the next start reads more of the ledger", "err", err)
		return
	}
	rt.kept.mu.Lock()
	rt.kept.seq, rt.kept.at = s.Mark.Seq, began
	rt.kept.mu.Unlock()
	rt.Logger.Debug("snapshot kept", "seq", s.Mark.Seq, "bytes", size, "took", time.Since(began).Round(time.Millisecond))
}

// snapshotTries bounds how often Snapshot looks for a moment in which no event comes.
const snapshotTries = 1000

// Snapshot returns the state of the fold and the place in the ledger that it belongs to. It is false where events
// come so fast that no moment was found.
func (rt *Runtime) Snapshot() (snapshot.Snapshot, bool) {
	for range snapshotTries {
		s := snapshot.Snapshot{Mark: rt.Ledger.Position(), State: rt.Fold.State()}
		if s.State.Seq == s.Mark.Seq {
			return s, true
		}
	}
	return snapshot.Snapshot{}, false
}
