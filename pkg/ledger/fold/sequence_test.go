package fold_test

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"towpath.dev/pkg/ledger/fold"
)

// TestBytesLoseNothing: whatever became of a run or slot, what is read from its bytes is what it was.
func TestBytesLoseNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := apply(t, drawStory(t).Records(0))
		a := f.App("hello")
		again := a.FromBytes()
		if kept := again.Runs.KeptAsBytes(); kept != a.Runs.Len() {
			t.Fatalf("%d of %d runs are bytes", kept, a.Runs.Len())
		}
		if got, want := dump(again), dump(a); got != want {
			t.Fatalf("from its bytes\n%s\nit was\n%s", got, want)
		}
		for run := range a.Runs.All() {
			other := again.Run(run.N)
			if !reflect.DeepEqual(other.Definition, run.Definition) || !reflect.DeepEqual(other.Envs, run.Envs) {
				t.Fatalf("run %d from its bytes\n%+v\nit was\n%+v", run.N, other, run)
			}
		}
	})
}

// TestWhatHasEndedIsKeptAsBytes: of many runs that were carried to the end a few are kept as they are, and each can be
// looked up by what started it.
func TestWhatHasEndedIsKeptAsBytes(t *testing.T) {
	s := newStory()
	const runs = 70
	for n := 1; n <= runs; n++ {
		s.Ready(hello, "policy")
		s.conclude(n, 1)
		for _, env := range hello.EnvironmentNames() {
			s.pass(env, n, n)
		}
	}
	a := s.App("hello")
	if kept := a.Runs.KeptAsBytes(); kept != runs-1 {
		t.Errorf("%d of %d runs are kept as bytes", kept, runs)
	}
	for _, env := range hello.EnvironmentNames() {
		if kept := a.Env(env).Slots.KeptAsBytes(); kept != runs-2 {
			t.Errorf("%d of %d slots of %s are kept as bytes", kept, runs, env)
		}
	}
	for run := range a.Runs.All() {
		if run.Status() != fold.Done {
			t.Fatalf("run %d is %s", run.N, run.Status())
		}
		if by, of := a.StartedBy(run.StartEvent), a.OfChain(run.ChainID); by == nil || by.N != run.N || of == nil || of.N != run.N {
			t.Fatalf("run %d: started by its event is %v, of its chain %v", run.N, by, of)
		}
	}
	if a.StartedBy("nobody") != nil || a.OfChain("nothing") != nil || a.Run(0) != nil || a.Run(runs+1) != nil {
		t.Error("a run that nobody started")
	}
	old := a.Run(7)
	s.Replay("hello", 7, fold.StageBuild, "")
	if now := s.App("hello").Run(7); now.Build.Attempt != 2 || old.Build.Attempt != 1 || a.Run(7).Build.Attempt != 1 {
		t.Errorf("after a replay attempt %d, what was given out before has %d and %d", now.Build.Attempt, old.Build.Attempt, a.Run(7).Build.Attempt)
	}
}
