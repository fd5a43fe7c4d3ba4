package fold_test

import (
	"fmt"
	"regexp"
	"testing"

	"pgregory.net/rapid"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
)

// alarm raises the next alarm of a writer, or says that its last one is over.
func (s story) alarm(env events.Slug, by events.Writer, over bool) {
	_, raised := s.Fold().Alarms(by)
	about, alarm := events.About{ID: string(env) + "/login"}, events.Alarm{Environment: env, What: "login", Why: "used", Do: "look"}
	var body events.Body = &events.AlarmRaised{About: about, Alarm: alarm}
	if over && raised > 0 {
		body = &events.AlarmResolved{About: about, Alarm: alarm}
	} else {
		raised++
	}
	s.Write(events.AlarmSubject(foldtest.Epoch, by, body.Type(), "", env, raised), "", body)
}

// write draws an event that could come next, in or out of order, and writes it unless its subject is taken.
func (s story) random(t *rapid.T) {
	app := s.App("hello")
	if app == nil || app.Runs.Len() == 0 || rapid.IntRange(0, 12).Draw(t, "new run") == 0 {
		s.Push(hello, "policy")
		return
	}
	run := app.Run(rapid.IntRange(1, app.Runs.Len()).Draw(t, "run"))
	env := rapid.SampledFrom(hello.EnvironmentNames()).Draw(t, "env")
	outcome := rapid.SampledFrom([]events.Outcome{events.Success, events.Failure, events.Error, events.Cancel}).Draw(t, "outcome")
	place := run.Env(env)
	slots := app.Env(env)
	defer func() {
		// The subject was taken: a duplicate, which the ledger does not store.
		if v := recover(); v != nil {
			if _, ok := v.(*ledger.ExistsError); !ok {
				panic(v)
			}
		}
	}()
	switch rapid.SampledFrom([]string{
		"build", "conclude", "vet", "take", "take", "decide", "decide", "close", "close", "verify", "verify", "finish", "replay", "command", "alarm",
	}).Draw(t, "event") {
	case "alarm":
		s.alarm(env, rapid.SampledFrom([]events.Writer{events.Promote, events.Gateway}).Draw(t, "who"), rapid.Bool().Draw(t, "over"))
	case "build":
		s.Built("hello", run.N, attempt(t, run.Build.Attempt), foldtest.Digest(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "image")))
	case "conclude":
		s.conclude(run.N, attempt(t, run.Build.Attempt))
	case "vet":
		if run.Artifact != nil {
			s.Vetted("hello", run.N, attempt(t, run.Vet.Attempt), run.Artifact.Digest, hello.EnvironmentNames())
		}
	case "take":
		kind := rapid.SampledFrom([]events.Kind{events.KindDeploy, events.KindRollback, events.KindRestore, events.KindRemove}).Draw(t, "kind")
		if last := slots.Last(); last == nil || !last.Open() {
			s.take(env, slots.Slots.Len()+1, run.N, attempt(t, place.Promote.Attempt), kind, foldtest.Digest("a"))
		}
	case "decide":
		if last := slots.Last(); last != nil && last.Decision == "" {
			s.decide(env, last.N, rapid.SampledFrom([]events.Decision{events.Live, events.Abandoned}).Draw(t, "decision"))
		}
	case "close":
		if last := slots.Last(); last != nil && last.Decision == events.Live && last.Open() {
			s.close(env, last.N, rapid.SampledFrom([]events.Closing{events.Verified, events.Rejected, events.Superseded}).Draw(t, "closing"))
		}
	case "verify":
		if slots.Slots.Len() > 0 {
			slot := slots.Slot(rapid.IntRange(1, slots.Slots.Len()).Draw(t, "slot"))
			s.Verified("hello", slot.Run, env, slot.N, attempt(t, slot.TrialAttempt), outcome)
		}
	case "finish":
		s.finish(run.N, env, attempt(t, place.Promote.Attempt), outcome)
	case "replay":
		s.Replay("hello", run.N, rapid.SampledFrom([]string{fold.StageBuild, fold.StageVet, fold.StagePromote, fold.StageVerify}).Draw(t, "stage"), env)
	case "command":
		s.Command(events.Command{App: "hello", Run: run.N, Environment: env, Verb: rapid.SampledFrom([]string{
			events.VerbApprove, events.VerbDeny, events.VerbPromote, events.VerbRollback, events.VerbCancel, events.VerbHold, events.VerbResume,
		}).Draw(t, "verb")})
	}
}

// attempt draws the present attempt or one before it.
func attempt(t *rapid.T, present int) int { return rapid.IntRange(1, present).Draw(t, "attempt") }

// drawStory writes a story of some length.
func drawStory(t *rapid.T) story {
	s := newStory()
	for range rapid.IntRange(1, 60).Draw(t, "length") {
		s.random(t)
	}
	return s
}

// TestDuplicatesChangeNothing: whatever is delivered again, in whatever order, the state is that of each
// event once.
func TestDuplicatesChangeNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := drawStory(t).Records(0)
		want := dump(apply(t, records).App("hello"))
		f := fold.New()
		for i, r := range records {
			if err := f.Apply(r); err != nil {
				t.Fatal(err)
			}
			again := rapid.IntRange(0, i).Draw(t, "again")
			if err := f.Apply(records[again]); err != nil {
				t.Fatal(err)
			}
		}
		if got := dump(f.App("hello")); got != want {
			t.Fatalf("with duplicates\n%s\nwithout\n%s", got, want)
		}
	})
}

// TestSnapshotsNeverChange: what was given out stays as it was.
func TestSnapshotsNeverChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := fold.New()
		var apps []*fold.App
		var dumps []string
		for _, r := range drawStory(t).Records(0) {
			if err := f.Apply(r); err != nil {
				t.Fatal(err)
			}
			apps = append(apps, f.App("hello"))
			dumps = append(dumps, dump(f.App("hello")))
		}
		for i, a := range apps {
			if got := dump(a); got != dumps[i] {
				t.Fatalf("the app as of event %d became\n%s\nfrom\n%s", i+1, got, dumps[i])
			}
		}
	})
}

// TestFencedAttemptsChangeNothing: once a stage has another attempt, nothing that comes of an earlier one
// counts, whatever it says.
func TestFencedAttemptsChangeNothing(t *testing.T) {
	seqs := regexp.MustCompile(`"Seq":\d+`)
	state := func(f *fold.Fold) string { return seqs.ReplaceAllString(dump(f.App("hello")), `"Seq":0`) }
	rapid.Check(t, func(t *rapid.T) {
		s := drawStory(t)
		before := state(apply(t, s.Records(0)))
		for run := range s.App("hello").Runs.All() {
			s.late(run)
		}
		if after := state(apply(t, s.Records(0))); after != before {
			t.Fatalf("late events of fenced attempts made\n%s\nfrom\n%s", after, before)
		}
	})
}

// late writes for every fenced attempt of a run that ended in nothing so far that it ended after all.
func (s story) late(run *fold.Run) {
	try := func(f func()) {
		defer func() {
			if v := recover(); v != nil {
				if _, ok := v.(*ledger.ExistsError); !ok {
					panic(v)
				}
			}
		}()
		f()
	}
	for n := 1; n < run.Build.Attempt; n++ {
		try(func() { s.Built("hello", run.N, n, foldtest.Digest("late")) })
	}
	for n := 1; n < run.Vet.Attempt; n++ {
		try(func() { s.Vetted("hello", run.N, n, foldtest.Digest("late"), hello.EnvironmentNames(), "dev") })
	}
	for _, env := range run.Envs {
		for n := 1; n < env.Promote.Attempt; n++ {
			try(func() { s.finish(run.N, env.Name, n, events.Failure) })
		}
		for n := 1; n < env.Verify.Attempt; n++ {
			for slot := range s.App("hello").Env(env.Name).Slots.All() {
				if slot.Run == run.N && n < slot.TrialAttempt {
					try(func() { s.Verified("hello", run.N, env.Name, slot.N, n, events.Failure) })
				}
			}
		}
	}
}

// TestDoneAbsorbs: only somebody who acts brings a run back that is through.
func TestDoneAbsorbs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStory()
		s.Ready(hello, "policy")
		s.pass("dev", 1, 1)
		s.pass("qa", 1, 1)
		for range rapid.IntRange(1, 20).Draw(t, "length") {
			s.random(t)
			records := s.Records(0)
			switch b := records[len(records)-1].Event.Body.(type) {
			case *events.ReplayRequested:
				return
			case *events.CommandReceived:
				if b.Verb == events.VerbPromote {
					return
				}
			}
			if got := s.run(1).Status(); got != fold.Done {
				t.Fatalf("after %s: %s", records[len(records)-1].Subject, got)
			}
		}
	})
}

func BenchmarkApply(b *testing.B) {
	for _, runs := range []int{10, 1000} {
		b.Run(fmt.Sprint(runs, " runs"), func(b *testing.B) {
			s := newStory()
			for n := 1; n <= runs; n++ {
				s.PushNumber(hello, "policy", n)
			}
			f := s.Fold()
			for n := range b.N {
				body := &events.BuildStarted{}
				body.ID = "hello/1"
				r := ledger.Record{Seq: uint64(runs + n + 1), Subject: events.BuildSubject(1, body.Type(), "hello", 1, "", 1), Event: events.New(events.Build, foldtest.Start, "", body)}
				if err := f.Apply(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
