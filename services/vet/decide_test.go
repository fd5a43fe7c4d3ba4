package vet

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
)

const hello = events.Slug("hello")

var definition = foldtest.Definition("app: hello\nservice: {port: 8080, health: /}\nenvironments: [{name: dev}, {name: qa}, {name: prod}]\n")

// started writes that an attempt at vetting a run has begun.
func started(l *foldtest.Ledger, run, attempt int) {
	b := &events.VetRunStarted{ArtifactID: "x", Policy: "x"}
	b.ID = fold.Name(hello, run)
	l.Write(events.VetSubject(foldtest.Epoch, b.Type(), hello, run, "", attempt), foldtest.Chain(hello, run), b)
}

// ended writes that an attempt at vetting a run has ended without a verdict.
func ended(l *foldtest.Ledger, run, attempt int, o events.Outcome) {
	b := &events.VetRunFinished{Outcome: o}
	b.ID, b.Result.Attempt = fold.Name(hello, run), attempt
	l.Write(events.VetSubject(foldtest.Epoch, b.Type(), hello, run, "", attempt), foldtest.Chain(hello, run), b)
}

func TestDecide(t *testing.T) {
	digest := foldtest.Digest("one")
	built := func(l *foldtest.Ledger) { l.Push(definition, "p"); l.Built(hello, 1, 1, digest) }
	for _, c := range []struct {
		name    string
		story   func(l *foldtest.Ledger)
		action  action
		attempt int
		replay  bool
	}{
		{"pushed", func(l *foldtest.Ledger) { l.Push(definition, "p") }, rest, 1, false},
		{"built", built, judge, 1, false},
		{"begun", func(l *foldtest.Ledger) { built(l); started(l, 1, 1) }, judge, 1, false},
		{"judged", func(l *foldtest.Ledger) { built(l); l.Vetted(hello, 1, 1, digest, nil) }, rest, 1, false},
		{"ended in an error", func(l *foldtest.Ledger) { built(l); started(l, 1, 1); ended(l, 1, 1, events.Error) }, rest, 1, false},
		{"replayed after an error", func(l *foldtest.Ledger) {
			built(l)
			ended(l, 1, 1, events.Error)
			l.Replay(hello, 1, fold.StageVet, "")
		}, judge, 2, true},
		{"replayed while it runs", func(l *foldtest.Ledger) { built(l); started(l, 1, 1); l.Replay(hello, 1, fold.StageVet, "") }, judge, 2, true},
		{"late result of the first attempt", func(l *foldtest.Ledger) {
			built(l)
			started(l, 1, 1)
			l.Replay(hello, 1, fold.StageVet, "")
			ended(l, 1, 1, events.Success)
		}, judge, 2, true},
		{"build replayed", func(l *foldtest.Ledger) {
			built(l)
			l.Vetted(hello, 1, 1, digest, nil)
			l.Replay(hello, 1, fold.StageBuild, "")
		}, rest, 2, false},
		{"built again", func(l *foldtest.Ledger) {
			built(l)
			l.Vetted(hello, 1, 1, digest, nil)
			l.Replay(hello, 1, fold.StageBuild, "")
			l.Built(hello, 1, 2, foldtest.Digest("two"))
		}, judge, 2, true},
		{"held", func(l *foldtest.Ledger) { built(l); l.Command(events.Command{Verb: events.VerbHold, App: hello}) }, rest, 1, false},
		{"everything held", func(l *foldtest.Ledger) { built(l); l.Command(events.Command{Verb: events.VerbHold}) }, rest, 1, false},
		{"held while it runs", func(l *foldtest.Ledger) {
			built(l)
			started(l, 1, 1)
			l.Command(events.Command{Verb: events.VerbHold, App: hello})
		}, judge, 1, false},
		{"resumed", func(l *foldtest.Ledger) {
			built(l)
			l.Command(events.Command{Verb: events.VerbHold, App: hello})
			l.Command(events.Command{Verb: events.VerbResume, App: hello})
		}, judge, 1, false},
		{"cancelled before", func(l *foldtest.Ledger) {
			built(l)
			l.Command(events.Command{Verb: events.VerbCancel, App: hello, Run: 1})
		}, rest, 1, false},
		{"cancelled while it runs", func(l *foldtest.Ledger) {
			built(l)
			started(l, 1, 1)
			l.Command(events.Command{Verb: events.VerbCancel, App: hello, Run: 1})
		}, stop, 1, false},
		{"cancelled and so recorded", func(l *foldtest.Ledger) {
			built(l)
			started(l, 1, 1)
			l.Command(events.Command{Verb: events.VerbCancel, App: hello, Run: 1})
			ended(l, 1, 1, events.Cancel)
		}, rest, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := foldtest.New()
			c.story(l)
			a := l.App(hello)
			d := decide(a, a.Run(1))
			if d.action != c.action || d.attempt != c.attempt || (d.replay != nil) != c.replay {
				t.Errorf("action %d, attempt %d, replay %v (%s); want %d, %d, %v", d.action, d.attempt, d.replay, d.why, c.action, c.attempt, c.replay)
			}
			if d.action != judge && d.why == "" {
				t.Error("it does not say why")
			}
		})
	}
}

func TestWoken(t *testing.T) {
	l := foldtest.New()
	l.Push(definition, "p")
	l.Built(hello, 1, 1, foldtest.Digest("one"))
	l.Push(definition, "p")
	l.Push(definition, "p")
	l.Built(hello, 3, 1, foldtest.Digest("three"))
	a := l.App(hello)
	published := events.Event{ID: a.Run(2).StartEvent, Body: &events.ArtifactPublished{}}
	for _, c := range []struct {
		name  string
		event events.Event
		run   int
		want  []int
	}{
		{"an image of a run", published, 1, []int{1}},
		{"an image that starts a run", published, 0, []int{2}},
		{"a replay", events.Event{Body: &events.ReplayRequested{Stage: fold.StageVet}}, 1, []int{1}},
		{"a cancellation", events.Event{Body: &events.CommandReceived{Command: events.Command{Verb: events.VerbCancel, Run: 3}}}, 3, []int{3}},
		{"a resume", events.Event{Body: &events.CommandReceived{Command: events.Command{Verb: events.VerbResume}}}, 0, []int{1, 3}},
		{"anything else", events.Event{Body: &events.BuildStarted{}}, 1, nil},
	} {
		if got := woken(a, c.event, c.run); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestDecideAbsorbs: whatever happens to a run, an attempt that has ended is not made again, and only a
// replay begins another.
func TestDecideAbsorbs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := foldtest.New()
		l.Push(definition, "p")
		builds, replays := 0, 0
		done := map[int]bool{}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			a := l.App(hello)
			run := a.Run(1)
			d := decide(a, run)
			if d.action == judge && done[d.attempt] {
				t.Fatalf("attempt %d is made again", d.attempt)
			}
			if d.attempt > replays+1 {
				t.Fatalf("attempt %d after %d replays", d.attempt, replays)
			}
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				if !run.Build.Ended() {
					builds++
					l.Built(hello, 1, run.Build.Attempt, foldtest.Digest(fmt.Sprint(builds)))
				}
			case 1:
				if d.action == judge {
					l.Vetted(hello, 1, d.attempt, run.Artifact.Digest, nil)
					done[d.attempt] = true
				}
			case 2:
				if d.action != rest {
					ended(l, 1, d.attempt, events.Error)
					done[d.attempt] = true
				}
			case 3:
				l.Replay(hello, 1, rapid.SampledFrom([]string{fold.StageVet, fold.StageBuild}).Draw(t, "stage"), "")
				replays++
			case 4:
				l.Command(events.Command{Verb: events.VerbCancel, App: hello, Run: 1})
			case 5:
				l.Command(events.Command{Verb: rapid.SampledFrom([]string{events.VerbHold, events.VerbResume}).Draw(t, "verb"), App: hello})
			}
		}
	})
}
