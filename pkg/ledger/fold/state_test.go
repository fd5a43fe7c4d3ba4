package fold_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
)

// TestAStateGoesOnAsIfNothingHadHappened: from any event on, a fold that was restored from the bytes of a state comes
// to the same bytes as one that was given everything, and as one whose apps somebody looked at on the way.
func TestAStateGoesOnAsIfNothingHadHappened(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := drawStory(t).Records(0)
		want := apply(t, records).State()
		cut := rapid.IntRange(0, len(records)).Draw(t, "cut")
		kept, err := fold.DecodeState(apply(t, records[:cut]).State().Encode())
		if err != nil {
			t.Fatal(err)
		}
		resumed, err := fold.Restore(kept)
		if err != nil {
			t.Fatal(err)
		}
		looked := fold.New()
		for i, r := range records {
			if i >= cut {
				if err := resumed.Apply(r); err != nil && !errors.Is(err, fold.ErrSlotOrder) {
					t.Fatal(err)
				}
			}
			if err := looked.Apply(r); err != nil && !errors.Is(err, fold.ErrSlotOrder) {
				t.Fatal(err)
			}
			if rapid.Bool().Draw(t, "look") {
				looked.Apps()
			}
		}
		for name, f := range map[string]*fold.Fold{"resumed": resumed, "looked at": looked} {
			got := f.State()
			if path, here, there := want.Difference(got); path != "" {
				t.Fatalf("%s: %s is %s, want %s", name, path, there, here)
			}
			if !bytes.Equal(got.Encode(), want.Encode()) {
				t.Fatalf("%s: other bytes, though no field differs", name)
			}
		}
	})
}

// TestUnsettledLeavesOutOnlyWhatIsOver: a run that is not listed has ended, and waits for no operator.
func TestUnsettledLeavesOutOnlyWhatIsOver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStory()
		for range rapid.IntRange(1, 60).Draw(t, "length") {
			s.random(t)
			a := s.App("hello")
			if !slices.IsSorted(a.Unsettled) {
				t.Fatalf("out of order: %v", a.Unsettled)
			}
			for run := range a.Runs.All() {
				open := !run.Status().Ended() || run.Status() == fold.Stuck
				if listed := slices.Contains(a.Unsettled, run.N); open && !listed {
					t.Fatalf("run %d is %s and not listed", run.N, run.Status())
				} else if listed && run.Status() == fold.Done && run.Build.Concluded {
					t.Fatalf("run %d is done and listed", run.N)
				}
			}
		}
	})
}

func TestADifferenceNamesItsField(t *testing.T) {
	tell := func(outcome events.Outcome, more ...func(story)) fold.State {
		s := newStory()
		s.Policy(1, `{"a":1}`)
		s.Ready(hello, "policy")
		s.take("dev", 1, 1, 1, events.KindDeploy, foldtest.Digest("run1"))
		s.decide("dev", 1, events.Live)
		s.Verified("hello", 1, "dev", 1, 1, outcome)
		for _, f := range more {
			f(s)
		}
		return s.Fold().State()
	}
	all := tell(events.Success)
	for path, other := range map[string]fold.State{
		"Apps[hello].Runs[0].Envs[0].Verify.Status": tell(events.Failure),
		"Seq": tell(events.Success, func(s story) { s.Command(events.Command{App: "hello", Verb: events.VerbHold}) }),
	} {
		got, here, there := all.Difference(other)
		if got != path || here == there {
			t.Errorf("differs in %q (%s, %s), want %q", got, here, there, path)
		}
	}
	changed := all
	changed.Policies = nil
	if got, here, there := all.Difference(changed); !strings.HasPrefix(got, "Policies[sha256:") || here != "there" || there != "nothing" {
		t.Errorf("differs in %q (%s, %s)", got, here, there)
	}
	if got, _, _ := all.Difference(tell(events.Success)); got != "" {
		t.Errorf("the same story differs in %s", got)
	}
}

// FuzzDecodeState: damaged bytes are an error, take little memory, and never make a panic. What is read can be written.
func FuzzDecodeState(f *testing.F) {
	s := newStory()
	s.Policy(1, `{"a":1}`)
	s.Ready(hello, "policy")
	good := s.Fold().State().Encode()
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := fold.DecodeState(data)
		if err != nil {
			return
		}
		if again, err := fold.DecodeState(state.Encode()); err != nil || !bytes.Equal(again.Encode(), state.Encode()) {
			t.Errorf("what was read cannot be written and read again: %v", err)
		}
		if _, err := fold.Restore(state); err != nil {
			return
		}
	})
}
