package watch

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/ledger/fold/foldtest/simulation"
	"towpath.dev/pkg/policy"
)

// blindness is what a broken watch does not see, so that the checker can be seen to notice.
type blindness int

const (
	seeing     blindness = iota
	toErrors             // it does not report an attempt that ended in an error
	toStarts             // it counts from when the run came, not from when the attempt began
	toReplays            // it does not see that an attempt was asked for just now
	toHolds              // it reports what is held
	toResumes            // it counts the time of a hold
	toWaiting            // it reports what waits for a person
	toSilence            // it reports only what ended
	toClockAll           // it takes every deadline for passed
)

func TestSimulation(t *testing.T) {
	simulation.Check(t, 1500, simulated(seeing), "error", "silence", "replayed", "waiting", "held", "resumed")
}

func TestSimulationNoticesBrokenGuards(t *testing.T) {
	for name, b := range map[string]blindness{
		"errors": toErrors, "starts": toStarts, "replays": toReplays, "holds": toHolds, "resumes": toResumes, "waiting": toWaiting, "silence": toSilence, "clock": toClockAll,
	} {
		t.Run(name, func(t *testing.T) { simulation.Notices(t, simulated(b)) })
	}
}

// model is a watch service around the real decisions, and the workers that it watches.
type model struct {
	blind  blindness
	policy policy.Policy
	late   bool // the settled world has waited for longer than any deadline
	// known is what a process knew when it decided to write an event.
	known map[events.Subject]*fold.App
}

func simulated(b blindness) func(*simulation.World) simulation.Service {
	return func(w *simulation.World) simulation.Service {
		m := &model{blind: b, policy: policy.Default().Policy, known: map[events.Subject]*fold.App{}}
		w.Story.Push(foldtest.Definition(twoEnvironments), "")
		w.Budget *= 3
		return simulation.Service{
			Writer: events.Watch, Looks: true, Handle: m.handle, Others: m.others, Settle: m.settle, Stored: m.stored, Rest: m.rest,
		}
	}
}

// look returns the app as the blind service sees it.
func (m *model) look(p *simulation.Process) *fold.App {
	a := *p.App("hello")
	switch m.blind {
	case toHolds:
		a.Hold = nil
	case toResumes:
		a.Resumed = time.Time{}
	}
	for run := range a.Runs.All() {
		r := *run
		r.Envs = nil
		stages := []*fold.Stage{&r.Build, &r.Vet}
		for _, e := range run.Envs {
			copied := *e
			r.Envs = append(r.Envs, &copied)
			stages = append(stages, &copied.Promote, &copied.Verify)
		}
		for _, s := range stages {
			switch {
			case m.blind == toErrors && s.Outcome == events.Error:
				s.Outcome = events.Failure
			case m.blind == toStarts:
				s.Started = time.Time{}
			case m.blind == toReplays:
				s.Replay = nil
			case m.blind == toWaiting && s.Status == fold.Waiting:
				s.Status = fold.Running
			}
		}
		a.Runs = a.Runs.With(&r)
	}
	return &a
}

// handle takes the steps of Service.look.
func (m *model) handle(p *simulation.Process, _ ledger.Record) error {
	if p.App("hello") == nil {
		return nil
	}
	now, known := p.World.Story.Now(), p.App("hello")
	for _, d := range decide(m.look(p), nil, m.policy) {
		if d.at.After(now) && m.blind != toClockAll || m.blind == toSilence && d.at != d.since {
			continue
		}
		body := d.stuck()
		subject := events.StuckSubject(p.Epoch(), d.run.App, d.run.N, d.env, d.stage, d.attempt, d.nth)
		m.known[subject] = known
		_, err := p.Append(context.Background(), subject, events.New(events.Watch, now, d.run.ChainID, body))
		var exists *ledger.ExistsError
		if err != nil && !errors.As(err, &exists) {
			return err
		}
	}
	return nil
}

// others lets time pass, a worker go on, or a person act.
func (m *model) others(w *simulation.World) {
	a := w.Truth.App("hello")
	run := a.Run(1 + w.Rand.IntN(a.Runs.Len()))
	switch w.Rand.IntN(12) {
	case 0, 1:
		w.Story.Pass(time.Duration(w.Rand.IntN(40)) * time.Minute)
	case 2:
		if a.Runs.Len() < 3 {
			w.Story.Push(run.Definition, "")
		}
	case 3:
		w.Seen["held"]++
		c := events.Command{Verb: events.VerbHold, App: "hello"}
		all := w.Rand.IntN(2) == 0
		if a.Hold != nil {
			w.Seen["resumed"]++
			c.Verb, all = events.VerbResume, a.Hold.All
		}
		if all {
			c.App = ""
		}
		w.Story.Command(c)
	case 4:
		if !run.Status().Ended() {
			w.Story.Command(events.Command{Verb: events.VerbCancel, App: "hello", Run: run.N})
		}
	case 5, 6:
		m.replay(w, run)
	default:
		if run.Cancelled == nil && run.SupersededBy == 0 {
			m.work(w, a, run)
		}
	}
}

func (m *model) replay(w *simulation.World, run *fold.Run) {
	for _, at := range places(run) {
		if s, _ := run.Stage(at.stage, at.env); s.Status == fold.Stuck && run.SupersededBy == 0 {
			w.Seen["replayed"]++
			w.Story.Replay("hello", run.N, at.stage, at.env)
			return
		}
	}
}

type place struct {
	stage string
	env   events.Slug
}

func places(run *fold.Run) []place {
	all := []place{{fold.StageBuild, ""}, {fold.StageVet, ""}}
	for _, e := range run.Envs {
		all = append(all, place{fold.StagePromote, e.Name}, place{fold.StageVerify, e.Name})
	}
	return all
}

// work lets the worker whose turn it is go on: begin, end well, or end in an error.
func (m *model) work(w *simulation.World, a *fold.App, run *fold.Run) {
	good := w.Rand.IntN(3) > 0
	digest := foldtest.Digest(fmt.Sprint("run", run.N))
	switch next := run.Next(); {
	case !run.Build.Ended() && run.Build.Status == fold.Pending && w.Rand.IntN(2) == 0:
		b := &events.BuildStarted{About: events.About{ID: run.Name()}}
		w.Story.Write(events.BuildSubject(foldtest.Epoch, b.Type(), "hello", run.N, "", run.Build.Attempt), run.ChainID, b)
	case !run.Build.Ended() && good:
		w.Story.Built("hello", run.N, run.Build.Attempt, digest)
	case !run.Build.Ended():
		b := &events.TaskRunFinished{About: events.About{ID: run.Name()}, TaskName: "build", Outcome: events.Error, Errors: "engine is away"}
		w.Story.Write(events.BuildSubject(foldtest.Epoch, b.Type(), "hello", run.N, "", run.Build.Attempt), run.ChainID, b)
	case run.Artifact == nil || run.Build.Outcome != events.Success:
	case !run.Vet.Ended():
		w.Story.Vetted("hello", run.N, run.Vet.Attempt, digest, []events.Slug{"dev", "prod"})
	case next == nil:
	case next.Slot == 0 && !next.Promote.Ended():
		m.promote(w, a, run, next, good)
	default:
		m.verify(w, a, run, next, good)
	}
}

func (m *model) promote(w *simulation.World, a *fold.App, run *fold.Run, e *fold.RunEnv, good bool) {
	last := a.Env(e.Name).Last()
	switch {
	case !good && e.Promote.Status == fold.Pending:
		w.Seen["waiting"]++
		b := &events.PipelineRunQueued{Waiting: events.Waiting{Environment: e.Name, Attempt: e.Promote.Attempt, Reason: "0 of 1", For: "an approver"}}
		b.ID = run.Name()
		w.Story.Write(events.PromoteSubject(foldtest.Epoch, b.Type(), "hello", run.N, e.Name, "why", e.Promote.Attempt), run.ChainID, b)
	case last == nil || !last.Open():
		n := a.Env(e.Name).Slots.Len() + 1
		b := &events.SlotTaken{Slot: n, Run: run.N, Attempt: e.Promote.Attempt, Digest: run.Artifact.Digest, Kind: events.KindDeploy, Environment: e.Name}
		b.ID = fmt.Sprintf("hello/%s/%d", e.Name, n)
		w.Story.Write(events.SlotSubject(foldtest.Epoch, b.Type(), "hello", e.Name, n), run.ChainID, b)
	}
}

func (m *model) verify(w *simulation.World, a *fold.App, run *fold.Run, e *fold.RunEnv, good bool) {
	s := a.Env(e.Name).Slot(e.Slot)
	about := func(n int) events.About { return events.About{ID: fmt.Sprintf("hello/%s/%d", e.Name, n)} }
	switch {
	case s == nil:
	case s.Decision == "":
		b := &events.SlotDecided{About: about(s.N), Slot: s.N, Decision: events.Live, Environment: e.Name}
		w.Story.Write(events.SlotSubject(foldtest.Epoch, b.Type(), "hello", e.Name, s.N), run.ChainID, b)
	case s.Decision == events.Live && s.Trial == nil && s.Open():
		o := events.Success
		if !good {
			o = events.Error
		}
		w.Story.Verified("hello", run.N, e.Name, s.N, e.Verify.Attempt, o)
	case s.Trial != nil && s.Trial.Outcome == events.Success && s.Open():
		b := &events.SlotClosed{About: about(s.N), Slot: s.N, Closing: events.Verified, Environment: e.Name}
		w.Story.Write(events.SlotSubject(foldtest.Epoch, b.Type(), "hello", e.Name, s.N), run.ChainID, b)
	}
}

// settle waits for longer than any deadline, once.
func (m *model) settle(w *simulation.World) bool {
	if m.late {
		return false
	}
	m.late = true
	w.Story.Pass(24 * time.Hour)
	return true
}

// stored checks that what is reported is overdue, as far as the process that reports it can know.
func (m *model) stored(w *simulation.World, _ *simulation.Process, r ledger.Record) error {
	b := r.Event.Body.(*events.StageStuck)
	a := m.known[r.Subject]
	run := a.Run(r.Subject.Run)
	s, _ := run.Stage(b.Stage, b.Environment)
	switch {
	case s.Outcome == events.Error:
		w.Seen["error"]++
		return nil
	case s.Status == fold.Waiting && len(run.Env(b.Environment).Responses) == 0:
		return fmt.Errorf("%s %s waits for a person", run.Name(), b.Stage)
	case a.Hold != nil:
		return fmt.Errorf("%s is held", run.Name())
	case s.Outcome != "" && b.Stage != fold.StagePromote:
		return fmt.Errorf("%s %s has ended", run.Name(), b.Stage)
	}
	w.Seen["silence"]++
	asked := s.Started
	if s.Replay != nil && s.Replay.At.After(asked) {
		asked = s.Replay.At
	}
	asked = later(asked, a.Resumed)
	if limit := m.policy.Deadline(b.Stage); r.Event.Time.Sub(asked) < limit {
		return fmt.Errorf("%s %s was asked for or begun at %s and is reported after %s of %s", run.Name(), b.Stage, asked, r.Event.Time.Sub(asked), limit)
	}
	return nil
}

// rest checks that silence was reported, and nothing else is left.
func (m *model) rest(w *simulation.World) error {
	a := w.Truth.App("hello")
	for run := range a.Runs.All() {
		for _, at := range places(run) {
			if s, _ := run.Stage(at.stage, at.env); s.Outcome == events.Error && s.Stuck == nil && run.Cancelled == nil {
				return fmt.Errorf("%s %s %s ended in an error, and nobody was told", run.Name(), at.stage, at.env)
			}
		}
		switch status := run.Status(); {
		case a.Hold != nil, status.Ended(), status == fold.Waiting:
		default:
			return fmt.Errorf("%s is %s for a day, and nobody was told: %+v", run.Name(), status, *run)
		}
	}
	return nil
}
