package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/snapshot"
)

// What a service can be asked to do with its state.
const (
	DoCheck   = "check"   // prove that it is what the ledger gives
	DoRebuild = "rebuild" // throw it away and make it anew
	DoStatus  = "status"  // say how far that is
)

// Proof is a state that was come to in one way.
type Proof struct {
	After  uint64        `json:"after,omitempty"` // the sequence after which the ledger was read
	Bytes  int           `json:"bytes"`
	SHA256 ledger.Hash   `json:"sha256"`
	Took   time.Duration `json:"took"` // nanoseconds
}

// Report is what a check or a rebuild of one process's state came to.
type Report struct {
	Service string `json:"service"`
	Process string `json:"process,omitempty"` // an id that each start of the service has for itself
	Seq     uint64 `json:"seq"`               // of the state
	Format  string `json:"format,omitempty"`
	// Live is the state that the service works with, Fresh what reading the whole ledger gives, Resumed what reading on
	// from the newest snapshot gives; nil: there is no snapshot.
	Live    Proof  `json:"live"`
	Fresh   Proof  `json:"fresh"`
	Resumed *Proof `json:"resumed,omitempty"`
	// Verified says how the fresh state's signatures were checked: each one, or as those that the service has verified
	// before, by the chain over all messages.
	Verified string `json:"verified,omitempty"`
	// Difference is the first field in which they differ, with its values; empty: they are the same byte for byte.
	Difference string `json:"difference,omitempty"`
	Rebuilt    bool   `json:"rebuilt,omitempty"`
	Error      string `json:"error,omitempty"` // why it could not be found out
}

// StateAnswer answers a request about a service's state.
type StateAnswer struct {
	Process string  `json:"process"` // as in Report
	Running bool    `json:"running"`
	Report  *Report `json:"report,omitempty"` // of the last one that ended
}

// upkeep is what a runtime does with its state when it is asked.
type upkeep struct {
	mu        sync.Mutex
	running   bool
	report    *Report
	onRebuild []func(context.Context) error
	applying  sync.Mutex // held while an event is folded in
}

// OnRebuild has f called when the service's state is rebuilt: for a projection outside of the fold.
func (rt *Runtime) OnRebuild(f func(context.Context) error) {
	rt.upkeep.mu.Lock()
	defer rt.upkeep.mu.Unlock()
	rt.upkeep.onRebuild = append(rt.upkeep.onRebuild, f)
}

// AskState begins a check or a rebuild, unless one is under way, and says how far it is.
func (rt *Runtime) AskState(do string) StateAnswer {
	rt.upkeep.mu.Lock()
	defer rt.upkeep.mu.Unlock()
	if do != DoStatus && !rt.upkeep.running {
		rt.upkeep.running, rt.upkeep.report = true, nil
		go func() {
			work := rt.check
			if do == DoRebuild {
				work = rt.rebuild
			}
			report := Report{Service: rt.Ledger.Service(), Process: rt.process, Format: fold.Format()}
			if err := work(rt.broken, &report); err != nil {
				report.Error = err.Error()
			}
			rt.upkeep.mu.Lock()
			defer rt.upkeep.mu.Unlock()
			rt.upkeep.running, rt.upkeep.report = false, &report
		}()
	}
	return StateAnswer{Process: rt.process, Running: rt.upkeep.running, Report: rt.upkeep.report}
}

// answerState answers requests on the service's own subject, which the gateway alone may send.
func (rt *Runtime) answerState() error {
	_, err := rt.Ledger.Conn().Subscribe(events.StateSubject(rt.service), func(m *nats.Msg) {
		do := string(m.Data)
		if do != DoCheck && do != DoRebuild && do != DoStatus {
			return
		}
		data, err := json.Marshal(rt.AskState(do))
		if err == nil {
			err = m.Respond(data)
		}
		if err != nil {
			rt.Logger.Warn("a request about the state was not answered", "do", do, "err", err)
		}
	})
	if err != nil {
		return fmt.Errorf("listening for requests about the state: %w", err)
	}
	return nil
}

// check compares the live state at one sequence with a fresh one and with one that was resumed.
func (rt *Runtime) check(ctx context.Context, r *Report) error {
	began := time.Now()
	live, ok := rt.Snapshot()
	if !ok {
		return errors.New("events come so fast that no state could be taken; try again")
	}
	r.Seq = live.Mark.Seq
	want := live.State.Encode()
	r.Live = proof(0, want, began)
	r.Verified = fmt.Sprintf("as those that were verified before, by chain %.16s", live.Mark.Chain)

	fresh, err := rt.replay(ctx, snapshot.Snapshot{}, &live.Mark, r.Seq, &r.Fresh)
	if errors.Is(err, ledger.ErrOtherChain) {
		r.Difference = "the ledger: " + err.Error()
		return nil
	}
	if err != nil {
		return err
	}
	r.compare("a fresh fold", live.State, want, fresh)
	if rt.state == "" {
		return nil
	}
	kept, err := snapshot.Load(rt.snapshotFile(), rt.Ledger.Signer())
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && kept.Mark.Seq > r.Seq:
		return nil
	case err != nil:
		r.differ("the snapshot: " + err.Error())
		return nil
	}
	r.Resumed = &Proof{}
	resumed, err := rt.replay(ctx, kept, &live.Mark, r.Seq, r.Resumed)
	if errors.Is(err, ledger.ErrOtherChain) {
		r.differ("the snapshot: " + err.Error())
		return nil
	}
	if err == nil {
		r.compare("a fold resumed from the snapshot", live.State, want, resumed)
	}
	return err
}

// replay reads the ledger from a snapshot, or from its beginning, up to a sequence. known, where not nil, stands for
// the signatures.
func (rt *Runtime) replay(ctx context.Context, from snapshot.Snapshot, known *ledger.Mark, upTo uint64, p *Proof) (fold.State, error) {
	began := time.Now()
	f := fold.New()
	if from.Mark.Seq > 0 {
		var err error
		if f, err = fold.Restore(from.State); err != nil {
			return fold.State{}, err
		}
	}
	if _, err := rt.readInto(ctx, f, ledger.Replay{From: from.Mark, UpTo: upTo, Known: known}); err != nil {
		return fold.State{}, err
	}
	s := f.State()
	*p = proof(from.Mark.Seq, s.Encode(), began)
	return s, nil
}

// readInto folds a part of the ledger in.
func (rt *Runtime) readInto(ctx context.Context, f *fold.Fold, r ledger.Replay) (ledger.Mark, error) {
	if r.From.Seq >= r.UpTo {
		return r.From, nil
	}
	r.SetAside = f.Skip
	return rt.Ledger.Replay(ctx, r, func(record ledger.Record) error {
		// What contradicts the contract was logged when it was followed, and changes nothing here as there.
		_ = f.Apply(record)
		return nil
	})
}

// proof is that of a state's bytes.
func proof(after uint64, data []byte, began time.Time) Proof {
	return Proof{After: after, Bytes: len(data), SHA256: sha256.Sum256(data), Took: time.Since(began)}
}

// compare notes the first difference between the live state and another.
func (r *Report) compare(name string, live fold.State, want []byte, other fold.State) {
	if bytes.Equal(want, other.Encode()) {
		return
	}
	path, here, there := live.Difference(other)
	if path == "" {
		path, here, there = "the form of the bytes", "one", "another"
	}
	r.differ(fmt.Sprintf("%s: live %s, %s %s", path, here, name, there))
}

func (r *Report) differ(text string) {
	if r.Difference == "" {
		r.Difference = text
	}
}

// rebuild throws the snapshot away, reads the whole ledger, verifying every signature, and puts what comes of it in
// the place of the live state. Handlers go on meanwhile; events wait for the moment in which the two change places.
func (rt *Runtime) rebuild(ctx context.Context, r *Report) error {
	if rt.state != "" {
		if err := os.Remove(rt.snapshotFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the snapshot: %w", err)
		}
	}
	r.Verified = "each one"
	began := time.Now()
	fresh := fold.New()
	mark, err := rt.readInto(ctx, fresh, ledger.Replay{UpTo: rt.Fold.Seq()})
	if err != nil {
		return err
	}
	if err := rt.exchange(ctx, fresh, mark, r, began); err != nil {
		return err
	}
	if rt.state != "" {
		rt.keepSnapshot()
	}
	rt.upkeep.mu.Lock()
	hooks := rt.upkeep.onRebuild
	rt.upkeep.mu.Unlock()
	for _, hook := range hooks {
		if err := hook(ctx); err != nil {
			return err
		}
	}
	r.Rebuilt = true
	return nil
}

// exchange reads on to where the live state is, while it stands still, and puts the fresh one in its place.
func (rt *Runtime) exchange(ctx context.Context, fresh *fold.Fold, mark ledger.Mark, r *Report, began time.Time) error {
	rt.upkeep.applying.Lock()
	defer rt.upkeep.applying.Unlock()
	live := rt.Fold.State()
	if _, err := rt.readInto(ctx, fresh, ledger.Replay{From: mark, UpTo: live.Seq}); err != nil {
		return err
	}
	state, want := fresh.State(), live.Encode()
	r.Seq, r.Live, r.Fresh = live.Seq, proof(0, want, time.Now()), proof(0, state.Encode(), began)
	r.compare("a fresh fold", live, want, state)
	return rt.Fold.Replace(fresh)
}
