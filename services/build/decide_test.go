package build

import (
	"testing"

	"pgregory.net/rapid"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
)

func runWith(s fold.Stage) *fold.Run {
	if s.Attempt == 0 {
		s.Attempt = 1
	}
	return &fold.Run{App: "hello", N: 7, StartEvent: "start", Build: s}
}

func TestDecide(t *testing.T) {
	held := &fold.App{Name: "hello", Hold: &fold.Hold{}}
	app := &fold.App{Name: "hello"}
	cancelled := func(r *fold.Run) *fold.Run { r.Cancelled = &fold.Command{}; return r }
	superseded := func(r *fold.Run) *fold.Run { r.SupersededBy = 8; return r }
	image := func(r *fold.Run) *fold.Run { r.Image = true; return r }
	rebuild := func(r *fold.Run) *fold.Run { r.Start.Rebuild = true; return r }
	replay := &fold.Replay{EventID: "replay"}
	pending := fold.Stage{Status: fold.Pending}
	running := fold.Stage{Status: fold.Running}
	queued := fold.Stage{Status: fold.Queued}
	stuck := fold.Stage{Status: fold.Stuck, Stuck: &events.StageStuck{}}
	done := fold.Stage{Status: fold.Done, Outcome: events.Success}
	failed := fold.Stage{Status: fold.Failed, Outcome: events.Failure}
	for name, tc := range map[string]struct {
		app     *fold.App
		run     *fold.Run
		action  action
		outcome events.Outcome
		fresh   bool
		replay  bool
	}{
		"new":                          {app, runWith(pending), make_, "", false, false},
		"new, on hold":                 {held, runWith(pending), rest, "", false, false},
		"new, cancelled":               {app, cancelled(runWith(pending)), rest, "", false, false},
		"new, superseded":              {app, superseded(runWith(pending)), rest, "", false, false},
		"image from elsewhere":         {app, image(runWith(fold.Stage{Status: fold.Skipped})), rest, "", false, false},
		"rebuild asked":                {app, rebuild(runWith(pending)), make_, "", true, false},
		"queued":                       {app, runWith(queued), make_, "", false, false},
		"queued, on hold":              {held, runWith(queued), make_, "", false, false},
		"queued, cancelled":            {app, cancelled(runWith(queued)), stop, events.Cancel, false, false},
		"running":                      {app, runWith(running), make_, "", false, false},
		"running, on hold":             {held, runWith(running), make_, "", false, false},
		"running, cancelled":           {app, cancelled(runWith(running)), stop, events.Cancel, false, false},
		"running, superseded":          {app, superseded(runWith(running)), stop, events.Cancel, false, false},
		"past its deadline":            {app, runWith(stuck), make_, "", false, false},
		"past its deadline, cancelled": {app, cancelled(runWith(stuck)), stop, events.Cancel, false, false},
		"done":                         {app, runWith(done), finish, events.Success, false, false},
		"done, cancelled":              {app, cancelled(runWith(done)), finish, events.Success, false, false},
		"failed":                       {app, runWith(failed), finish, events.Failure, false, false},
		"failed, on hold":              {held, runWith(failed), finish, events.Failure, false, false},
		"replayed":                     {app, runWith(fold.Stage{Attempt: 2, Status: fold.Pending, Replay: replay}), make_, "", false, true},
		"replayed, taken up":           {app, runWith(fold.Stage{Attempt: 2, Status: fold.Running, Replay: replay, Replayed: true}), make_, "", false, false},
		"replayed to rebuild": {app, runWith(fold.Stage{Attempt: 2, Status: fold.Pending,
			Replay: &fold.Replay{ReplayRequested: events.ReplayRequested{Rebuild: true}}}), make_, "", true, true},
	} {
		d := decide(tc.app, tc.run)
		if d.action != tc.action || d.outcome != tc.outcome || d.fresh != tc.fresh || (d.replay != nil) != tc.replay || d.attempt != tc.run.Build.Attempt {
			t.Errorf("%s: %+v, want action %d, outcome %q", name, d, tc.action, tc.outcome)
		}
		if (d.action == rest || d.action == stop) && d.why == "" {
			t.Errorf("%s: no reason", name)
		}
	}
}

// TestDecideProperties: an attempt that ended stays so, and one that is not to begin, or to go on, is never
// built.
func TestDecideProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		status := rapid.SampledFrom([]fold.Status{fold.Pending, fold.Queued, fold.Running, fold.Stuck, fold.Done, fold.Failed, fold.CancelledRun}).Draw(t, "status")
		outcome := rapid.SampledFrom([]events.Outcome{"", events.Success, events.Failure, events.Error, events.Cancel}).Draw(t, "outcome")
		r := runWith(fold.Stage{Attempt: rapid.IntRange(1, 5).Draw(t, "attempt"), Status: status, Outcome: outcome})
		r.Image = rapid.Bool().Draw(t, "image")
		if rapid.Bool().Draw(t, "cancelled") {
			r.Cancelled = &fold.Command{}
		}
		r.SupersededBy = rapid.SampledFrom([]int{0, 8}).Draw(t, "superseded")
		a := &fold.App{Name: "hello"}
		if rapid.Bool().Draw(t, "held") {
			a.Hold = &fold.Hold{}
		}
		d := decide(a, r)
		if d.action == make_ && (r.Image || outcome != "" || r.Cancelled != nil || r.SupersededBy != 0) {
			t.Fatalf("decided to build: %+v", r)
		}
		if d.action == stop && outcome != "" {
			t.Fatalf("decided to end an attempt that had ended: %+v", r)
		}
		if !r.Image && outcome != "" && (d.action != finish || d.outcome != outcome) {
			t.Fatalf("an attempt that had ended with %s: %+v", outcome, d)
		}
		if again := decide(a, r); again != d {
			t.Fatalf("decided %+v, then %+v", d, again)
		}
	})
}

func TestWoken(t *testing.T) {
	a := &fold.App{Name: "hello", Unsettled: []int{2, 3, 4}, Runs: fold.Runs{}.With(
		&fold.Run{App: "hello", N: 1, StartEvent: "one", Build: fold.Stage{Status: fold.Done, Outcome: events.Success, Concluded: true}},
		&fold.Run{App: "hello", N: 2, StartEvent: "two", Build: fold.Stage{Status: fold.Pending}},
		&fold.Run{App: "hello", N: 3, StartEvent: "three", Build: fold.Stage{Status: fold.Running}},
		&fold.Run{App: "hello", N: 4, StartEvent: "four", Build: fold.Stage{Status: fold.Failed, Outcome: events.Failure}},
	)}
	command := func(verb string, run int) events.Body {
		return &events.CommandReceived{Command: events.Command{Verb: verb, Run: run}}
	}
	for name, tc := range map[string]struct {
		body events.Body
		id   string
		run  int
		want []int
	}{
		"a change":            {&events.ChangeMerged{}, "two", 0, []int{2}},
		"a change of another": {&events.ChangeMerged{}, "elsewhere", 0, nil},
		"a replay":            {&events.ReplayRequested{Stage: fold.StageBuild}, "", 1, []int{1}},
		"a replay of vet":     {&events.ReplayRequested{Stage: fold.StageVet}, "", 1, nil},
		"a cancellation":      {command(events.VerbCancel, 3), "", 3, []int{3}},
		"a resumption":        {command(events.VerbResume, 0), "", 0, []int{2, 3, 4}},
		"an approval":         {command(events.VerbApprove, 3), "", 3, nil},
		"another service's":   {&events.ArtifactPublished{}, "", 3, nil},
	} {
		got := woken(a, events.Event{ID: tc.id, Body: tc.body}, tc.run)
		if len(got) != len(tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
			continue
		}
		for i := range got {
			if got[i] != tc.want[i] {
				t.Errorf("%s: %v, want %v", name, got, tc.want)
			}
		}
	}
}
