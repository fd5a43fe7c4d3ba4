package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/ledgertest"
)

var (
	powerCuts = flag.Int("cuts", 5, "how often TestNoAcknowledgedEventIsLostInAPowerCut cuts the power")
	powerSeed = flag.Uint64("power-seed", 1, "gives the moments at which the power is cut")
)

// TestNoAcknowledgedEventIsLostInAPowerCut: what was written and not synced is really dropped, by ext4 itself.
func TestNoAcknowledgedEventIsLostInAPowerCut(t *testing.T) {
	t.Parallel()
	l := ledgertest.Start(t, ledgertest.OnDisk())
	began := time.Now()
	w := cutAgainAndAgain(t, l, *powerCuts)
	for _, fault := range w.faults {
		t.Error(fault)
	}
	if n := len(w.acked); n < *powerCuts {
		t.Errorf("%d events were acknowledged between %d cuts: hardly anything was tried", n, *powerCuts)
	}
	t.Logf("seed %d: %d power cuts in %s, %d events acknowledged, %d faults", *powerSeed, *powerCuts, time.Since(began).Round(time.Second), len(w.acked), len(w.faults))
}

// TestAPowerCutTakesWhatIsNotSynced: where the bus may acknowledge before it syncs, acknowledged events are lost, and the
// test above would say so.
func TestAPowerCutTakesWhatIsNotSynced(t *testing.T) {
	t.Parallel()
	l := ledgertest.Start(t, ledgertest.Loosened(func(conf string) string {
		lazy := strings.Replace(conf, "sync_interval: always", "sync_interval: 1h", 1)
		if lazy == conf {
			t.Fatal("the configuration does not sync always")
		}
		return lazy
	}), ledgertest.OnDisk())
	if w := cutAgainAndAgain(t, l, 3); len(w.faults) == 0 {
		t.Errorf("%d events were acknowledged without being synced, and all survived: the cut drops nothing", len(w.acked))
	}
}

// writers append until they are stopped, and know what they were told.
type writers struct {
	mu     sync.Mutex
	acked  []ledger.Record
	faults []string
}

func (w *writers) fault(format string, a ...any) {
	w.faults = append(w.faults, fmt.Sprintf(format, a...))
}

// cutAgainAndAgain cuts the power of a ledger that is written to, and looks each time whether what was acknowledged
// before is there.
func cutAgainAndAgain(t *testing.T, l *ledgertest.Ledger, cuts int) *writers {
	t.Helper()
	w := &writers{}
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for range 4 {
		c := l.Connect("gateway")
		work.Go(func() {
			for ctx.Err() == nil {
				s, e := ledgertest.AppCreated(events.Key(events.NewID()))
				r, err := c.Append(ctx, s, e)
				w.mu.Lock()
				if err == nil {
					w.acked = append(w.acked, r)
				} else if ctx.Err() == nil {
					w.fault("appending %s: %v", s, err)
				}
				w.mu.Unlock()
			}
		})
	}
	random := rand.New(rand.NewPCG(*powerSeed, uint64(cuts)))
	checked := 0
	for n := range cuts {
		<-time.After(time.Duration(5+random.IntN(150)) * time.Millisecond)
		l.CutPower()
		w.mu.Lock()
		before := w.acked[:len(w.acked):len(w.acked)] // while the power is off nothing more is acknowledged
		w.mu.Unlock()
		l.Restart()
		l.Provision()
		w.compare(t, l, n+1, before[checked:])
		checked = len(before)
		if (n+1)%50 == 0 {
			t.Logf("%d cuts: %d events acknowledged, %d faults", n+1, checked, len(w.faults))
		}
	}
	stop()
	work.Wait()
	w.compare(t, l, cuts, w.acked)
	return w
}

// compare looks whether all of a list is there, each where it was said to be.
func (w *writers) compare(t *testing.T, l *ledgertest.Ledger, cut int, list []ledger.Record) {
	t.Helper()
	if len(list) == 0 {
		return
	}
	from := list[0].Seq
	for _, r := range list {
		from = min(from, r.Seq)
	}
	var there map[uint64]ledger.Record
	ledgertest.Soon(t, fmt.Sprintf("the ledger can be read after cut %d", cut), func() bool {
		there = map[uint64]ledger.Record{}
		_, err := l.Client("build").Read(t.Context(), from-1, func(r ledger.Record) error { there[r.Seq] = r; return nil })
		var history *ledger.HistoryError // a gap: what is missing is found below
		return err == nil || errors.As(err, &history)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, want := range list {
		if got, ok := there[want.Seq]; !ok || !bytes.Equal(got.Body, want.Body) {
			w.fault("after cut %d: event %d, acknowledged as %s, is not there", cut, want.Seq, want.Subject)
		}
	}
}
