package vet

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/ledger/fold/foldtest/simulation"
)

const simApp events.Slug = "hello"

// blindness is what a broken vet does not see, so that the checker can be seen to notice.
type blindness int

const (
	seeing       blindness = iota
	toCancelling           // it takes up runs that were cancelled
	toHolds                // it begins although the app is held
	toReplays              // it takes each attempt for the first
	toArtifacts            // it goes on judging an image that the run no longer has
	toTheEnd               // it does not see that an attempt has ended
)

func TestSimulation(t *testing.T) {
	simulation.Check(t, 1500, simulated(seeing), "call failed", "delivered twice", "success", "error", "cancel", "replayed", "rebuilt", "given up")
}

func TestSimulationNoticesBrokenGuards(t *testing.T) {
	for name, b := range map[string]blindness{
		"cancelled": toCancelling, "held": toHolds, "replayed": toReplays, "another image": toArtifacts, "ended": toTheEnd,
	} {
		t.Run(name, func(t *testing.T) { simulation.Notices(t, simulated(b)) })
	}
}

// model is a vet service around the real decisions and the real recorder.
type model struct {
	blind   blindness
	images  int          // that build made
	waiting map[int]bool // runs whose image came while the app was held, and that were not let go since
}

func simulated(b blindness) func(*simulation.World) simulation.Service {
	return func(w *simulation.World) simulation.Service {
		m := &model{blind: b, waiting: map[int]bool{}}
		w.Story.Push(foldtest.Definition("app: hello\nservice: {port: 8080}\nenvironments: [{name: dev}]\n"), "")
		return simulation.Service{
			Writer: events.Vet, Handle: m.handle, GiveUp: m.giveUp, Others: m.others, Settle: m.letGo, Stored: m.stored, Rest: m.rest,
		}
	}
}

// look returns the app and the run as the blind service sees them.
func (m *model) look(p *simulation.Process, n int) (*fold.App, *fold.Run) {
	a, r := *p.App(simApp), *p.App(simApp).Run(n)
	switch m.blind {
	case toCancelling:
		r.Cancelled = nil
	case toHolds:
		a.Hold = nil
	case toReplays:
		r.Vet.Attempt = 1
	case toTheEnd:
		r.Vet.Outcome = ""
	}
	return &a, &r
}

func (m *model) handle(p *simulation.Process, r ledger.Record) error {
	a := p.App(simApp)
	for _, n := range woken(a, r.Event, r.Subject.Run) {
		if err := m.advance(p, n); err != nil {
			return err
		}
	}
	return nil
}

// advance takes the steps of Service.advance.
func (m *model) advance(p *simulation.Process, n int) error {
	a, run := m.look(p, n)
	d := decide(a, run)
	record := recorder{book: p, run: run, attempt: d.attempt}
	switch d.action {
	case judge:
		err := m.attempt(p, record, d)
		if errors.Is(err, errFenced) {
			return m.advance(p, n)
		}
		return err
	case stop:
		return record.ended(context.Background(), events.Cancel, events.Trouble{What: "vetting the image", Why: d.why})
	}
	return nil
}

// fenced reports whether the ledger says, as far as the process knows, that the attempt is not to go on.
func (m *model) fenced(p *simulation.Process, record recorder) bool {
	a, run := m.look(p, record.run.N)
	if m.blind == toArtifacts {
		run.ArtifactID = record.run.ArtifactID
	}
	return overtaken(record.attempt, record.run, a, run)
}

// attempt takes the steps of Service.attempt.
func (m *model) attempt(p *simulation.Process, record recorder, d decision) error {
	ctx := context.Background()
	if err := record.started(ctx, d.replay); err != nil {
		return err
	}
	if m.fenced(p, record) {
		return errFenced
	}
	err := p.Effect(func() {})
	switch {
	case m.fenced(p, record):
		return errFenced
	case err != nil:
		return err
	}
	var v verdict
	v.report.Verdicts = []events.EnvironmentVerdict{{Environment: "dev", Verdict: events.Pass}}
	return record.judged(ctx, v)
}

// giveUp takes the steps of Service.giveUp.
func (m *model) giveUp(p *simulation.Process, r ledger.Record, last error) error {
	for _, n := range woken(p.App(simApp), r.Event, r.Subject.Run) {
		a, run := m.look(p, n)
		d := decide(a, run)
		if d.action != judge {
			continue
		}
		record := recorder{book: p, run: run, attempt: d.attempt}
		if err := record.ended(context.Background(), events.Error, events.Trouble{What: "vetting the image", Why: last.Error()}); err != nil {
			return err
		}
	}
	return nil
}

// others lets people, gateway and build do one thing.
func (m *model) others(w *simulation.World) {
	a := w.Truth.App(simApp)
	run := a.Run(1 + w.Rand.IntN(a.Runs.Len()))
	switch w.Rand.IntN(8) {
	case 0:
		if a.Runs.Len() < 3 {
			w.Story.Push(run.Definition, "")
		}
	case 1, 2, 3:
		if !run.Build.Ended() && run.Cancelled == nil {
			m.images++
			m.waiting[run.N] = a.Hold != nil && run.Build.Attempt == 1
			w.Story.Built(simApp, run.N, run.Build.Attempt, foldtest.Digest(fmt.Sprint("image", m.images)))
		}
	case 4:
		if a.Hold == nil {
			w.Story.Command(events.Command{Verb: events.VerbHold, App: simApp})
		}
	case 5:
		if a.Hold != nil {
			m.resume(w)
		}
	case 6:
		if !run.Status().Ended() {
			w.Story.Command(events.Command{Verb: events.VerbCancel, App: simApp, Run: run.N})
		}
	case 7:
		stage := fold.StageVet
		if w.Rand.IntN(2) == 0 {
			stage = fold.StageBuild
		}
		if s, _ := run.Stage(stage, ""); s.Status != fold.Pending {
			w.Story.Replay(simApp, run.N, stage, "")
			delete(m.waiting, run.N)
			w.Seen[map[string]string{fold.StageVet: "replayed", fold.StageBuild: "rebuilt"}[stage]]++
		}
	}
}

func (m *model) resume(w *simulation.World) {
	w.Story.Command(events.Command{Verb: events.VerbResume, App: simApp})
	m.waiting = map[int]bool{}
}

// letGo lets a hold that outlasts the schedule stand in half of them.
func (m *model) letGo(w *simulation.World) bool {
	a := w.Truth.App(simApp)
	if a.Hold == nil || a.Seq%2 == 0 {
		return false
	}
	m.resume(w)
	return true
}

// stored checks one event of vet's.
func (m *model) stored(w *simulation.World, _ *simulation.Process, r ledger.Record) error {
	of := func(t events.Type, key events.Slug) (ledger.Record, bool) {
		return w.Story.Has(events.VetSubject(foldtest.Epoch, t, simApp, r.Subject.Run, key, r.Subject.Attempt))
	}
	run := w.Truth.App(simApp).Run(r.Subject.Run)
	switch b := r.Event.Body.(type) {
	case *events.ArtifactSigned:
		// Who judges has read the ledger as far as the attempt's beginning.
		started, ok := of(events.TypeVetRunStarted, "")
		if !ok || run.Cancelled != nil && run.Cancelled.Seq < started.Seq {
			return fmt.Errorf("%s was cancelled, and judged all the same", run.Name())
		}
	case *events.VetRunFinished:
		w.Seen[string(b.Outcome)]++
		if _, signed := of(events.TypeArtifactSigned, "verdict"); b.Outcome == events.Success && !signed {
			return errors.New("a verdict that nobody has signed")
		}
	}
	return nil
}

// rest checks every run once all is quiet.
func (m *model) rest(w *simulation.World) error {
	a := w.Truth.App(simApp)
	for run := range a.Runs.All() {
		s := run.Vet
		_, begun := w.Story.Has(events.VetSubject(foldtest.Epoch, events.TypeVetRunStarted, simApp, run.N, "", s.Attempt))
		switch {
		case run.Artifact == nil:
			if s.Ended() && s.Outcome == events.Success {
				return fmt.Errorf("%s was judged without an image", run.Name())
			}
		case s.Ended():
			if _, ok := run.VerdictFor("dev"); s.Outcome == events.Success && !ok {
				return fmt.Errorf("%s has no verdict on %s", run.Name(), run.ArtifactID)
			}
		case run.Cancelled != nil:
			if begun {
				return fmt.Errorf("%s was cancelled and its vetting never ended", run.Name())
			}
		case a.Hold == nil:
			return fmt.Errorf("%s was never judged: %+v", run.Name(), s)
		}
		if m.waiting[run.N] && a.Hold != nil && begun {
			return fmt.Errorf("%s began although the app was held before its image came", run.Name())
		}
		if begun && s.Replay != nil && s.Replay.Stage == fold.StageVet && !s.Replayed {
			return fmt.Errorf("%s: attempt %d does not say what it repeats", run.Name(), s.Attempt)
		}
	}
	return nil
}
