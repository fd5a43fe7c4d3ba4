package ledger_test

import (
	"errors"
	"fmt"
	"testing"

	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/ledgertest"
)

// TestWhatWasVerifiedNeedNotBeVerifiedAgain: with the mark of an earlier reading the same records come, and where the
// ledger is not the one of then, or an event in it, the reading fails.
func TestWhatWasVerifiedNeedNotBeVerifiedAgain(t *testing.T) {
	l := ledgertest.Start(t)
	for i := range 600 { // more than two batches
		s, e := appCreated(fmt.Sprint("app-", i))
		if err := l.Client("ledger").Conn().PublishMsg(ledgertest.Stored(t, l.Client("gateway").Signer(), s, e)); err != nil {
			t.Fatal(err)
		}
	}
	s, e := appCreated("last")
	if _, err := l.Client("gateway").Append(t.Context(), s, e); err != nil {
		t.Fatal(err)
	}
	c := l.Client("build")
	read := func(r ledger.Replay) ([]string, ledger.Mark, error) {
		var got []string
		mark, err := c.Replay(t.Context(), r, func(r ledger.Record) error {
			got = append(got, fmt.Sprint(r.Seq, " ", r.Subject, " ", r.Signature, " ", r.Event.ID))
			return nil
		})
		return got, mark, err
	}
	all, mark, err := read(ledger.Replay{})
	if err != nil || len(all) != 601 || mark.Seq != 601 {
		t.Fatal(len(all), mark.Seq, err)
	}
	again, same, err := read(ledger.Replay{Known: &mark})
	if err != nil || fmt.Sprint(again) != fmt.Sprint(all) || same.Chain != mark.Chain {
		t.Fatalf("%d records to %d: %v", len(again), same.Seq, err)
	}
	half, middle, err := read(ledger.Replay{UpTo: 300})
	if err != nil || len(half) != 300 {
		t.Fatal(len(half), err)
	}
	rest, end, err := read(ledger.Replay{From: middle, Known: &mark})
	if err != nil || len(rest) != 301 || end.Chain != mark.Chain || end.Hash != mark.Hash {
		t.Fatalf("%d records to %d: %v", len(rest), end.Seq, err)
	}
	for name, spoil := range map[string]func(*ledger.Mark){
		"another chain":  func(m *ledger.Mark) { m.Chain[0]++ },
		"beyond the end": func(m *ledger.Mark) { m.Seq++ },
		"an unknown key": func(m *ledger.Mark) { m.Keys["0123456789abcdef"] = "build" },
		"another writer": func(m *ledger.Mark) {
			for id := range m.Keys {
				m.Keys[id] = "build"
			}
		},
	} {
		other := mark.Clone()
		spoil(&other)
		if _, _, err := read(ledger.Replay{Known: &other}); !errors.Is(err, ledger.ErrOtherChain) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := read(ledger.Replay{UpTo: 602}); err == nil {
		t.Error("read up to an event that is not there")
	}
}

// TestAMarkIsTakenUpOnlyOnItsLedger: following goes on after the mark; one that the ledger does not bear out is refused.
func TestAMarkIsTakenUpOnlyOnItsLedger(t *testing.T) {
	l := ledgertest.Start(t)
	for _, name := range []string{"one", "two", "three"} {
		s, e := appCreated(name)
		if _, err := l.Client("gateway").Append(t.Context(), s, e); err != nil {
			t.Fatal(err)
		}
	}
	mark, err := l.Client("build").Replay(t.Context(), ledger.Replay{UpTo: 2}, func(ledger.Record) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*ledger.Mark){
		"another event":  func(m *ledger.Mark) { m.Hash[0]++ },
		"another ledger": func(m *ledger.Mark) { m.Ledger = "0" + m.Ledger[1:] + "x" },
		"an unknown key": func(m *ledger.Mark) { m.Keys["0123456789abcdef"] = "build" },
		"read by now":    func(m *ledger.Mark) { m.Aside = []uint64{1} },
	} {
		other := mark.Clone()
		spoil(&other)
		var history *ledger.HistoryError
		if err := l.Connect("vet").Resume(t.Context(), other); !errors.As(err, &history) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := l.Connect("vet")
	if err := c.Resume(t.Context(), mark); err != nil {
		t.Fatal(err)
	}
	got := make(chan uint64, 10)
	go c.Follow(t.Context(), func(r ledger.Record) error { got <- r.Seq; return nil })
	if seq := <-got; seq != 3 {
		t.Errorf("following went on with %d", seq)
	}
	if err := c.Await(t.Context(), 3); err != nil || c.Position().Chain == mark.Chain || c.Position().Ledger != mark.Ledger {
		t.Errorf("at %+v: %v", c.Position(), err)
	}
}
