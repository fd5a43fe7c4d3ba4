package verify

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

// blindness is what a broken verify does not see, so that the checker can be seen to notice.
type blindness int

const (
	seeing       blindness = iota
	toDecisions            // it verifies a slot that is not decided yet
	toClosing              // it verifies a slot that is closed
	toResults              // it verifies again what has a result
	toReplays              // it takes each attempt for the first
	toCancelling           // it verifies runs that were cancelled
	toFences               // it records a result although its slot was closed meanwhile
)

func TestSimulation(t *testing.T) {
	simulation.Check(t, 1500, simulated(seeing), "call failed", "delivered twice", "success", "failure", "error", "replayed", "closed verified", "closed rejected", "closed superseded", "abandoned", "rollback", "fenced", "given up")
}

func TestSimulationNoticesBrokenGuards(t *testing.T) {
	for name, b := range map[string]blindness{
		"decided": toDecisions, "closed": toClosing, "has a result": toResults, "replayed": toReplays, "cancelled": toCancelling, "fenced": toFences,
	} {
		t.Run(name, func(t *testing.T) { simulation.Notices(t, simulated(b)) })
	}
}

// model is a verify service around the real decisions and the real recorder, and the versions that it
// looks at.
type model struct {
	blind blindness
	bad   map[string]bool // digests that fail their checks
	wrong error           // what the service did that it must not
}

func simulated(b blindness) func(*simulation.World) simulation.Service {
	return func(w *simulation.World) simulation.Service {
		m := &model{blind: b, bad: map[string]bool{}}
		m.push(w)
		return simulation.Service{
			Writer: events.Verify, Handle: m.handle, GiveUp: m.giveUp, Others: m.others, Settle: m.settle, Stored: m.stored, Rest: m.rest,
		}
	}
}

// look returns the app as the blind service sees it.
func (m *model) look(p *simulation.Process) *fold.App {
	a := *p.App("hello")
	env := *a.Env("dev")
	last := env.Last()
	if last == nil {
		return &a
	}
	s := *last
	switch m.blind {
	case toDecisions:
		s.Decision = events.Live
	case toClosing:
		s.Closing, s.Trial = "", nil
	case toResults:
		s.Trial = nil
	case toReplays:
		s.TrialAttempt = 1
	case toCancelling:
		if run := a.Run(s.Run); run != nil {
			let := *run
			let.Cancelled = nil
			a.Runs = a.Runs.With(&let)
		}
	}
	env.Slots = env.Slots.With(&s)
	a.Envs = map[events.Slug]*fold.Env{"dev": &env}
	return &a
}

// fenced reports whether, as far as the process knows, the verification no longer counts.
func (m *model) fenced(p *simulation.Process, t trial) bool {
	now, ok := decide(m.look(p), "dev")
	return m.blind != toFences && (!ok || now.slot.N != t.slot.N || now.attempt != t.attempt)
}

// handle takes the steps of Service.Handle.
func (m *model) handle(p *simulation.Process, r ledger.Record) error {
	_, ok := concerns(r)
	if !ok && !(m.blind == toDecisions && p.App("hello").Env("dev").Last() != nil) {
		return nil
	}
	t, ok := decide(m.look(p), "dev")
	if !ok {
		return nil
	}
	ctx := context.Background()
	record := recorder{book: p, trial: t}
	if err := record.started(ctx); err != nil {
		return err
	}
	if m.fenced(p, t) {
		p.World.Seen["fenced"]++
		return nil
	}
	m.mayBegin(p, t)
	err := p.Effect(func() {})
	switch {
	case m.fenced(p, t):
		p.World.Seen["fenced"]++
		return nil
	case err != nil:
		return err
	}
	m.mayBegin(p, t)
	results := []result{{name: "health", outcome: events.Success}}
	if m.bad[t.slot.Digest] {
		results = append(results, result{name: "GET /", outcome: events.Failure, why: "answers 500"})
	}
	for n, r := range results {
		if err := record.checked(ctx, n+1, r); err != nil {
			return err
		}
	}
	outcome, trouble := t.conclude(results)
	return record.finished(ctx, outcome, trouble)
}

// mayBegin notes work on a slot of which the process knows that it needs none.
func (m *model) mayBegin(p *simulation.Process, t trial) {
	a := p.App("hello")
	s := a.Env("dev").Slot(t.slot.N)
	run := a.Run(s.Run)
	switch {
	case s.Decision != events.Live:
		m.wrong = fmt.Errorf("slot %d was verified before it was live", s.N)
	case s.Closing != "":
		m.wrong = fmt.Errorf("slot %d was verified after it was closed", s.N)
	case s.Trial != nil:
		m.wrong = fmt.Errorf("slot %d was verified after it had a result", s.N)
	case s.Kind == events.KindDeploy && run.Cancelled != nil:
		m.wrong = fmt.Errorf("slot %d was verified although its run was cancelled", s.N)
	}
}

// giveUp takes the steps of Service.giveUp.
func (m *model) giveUp(p *simulation.Process, r ledger.Record, last error) error {
	t, ok := decide(m.look(p), "dev")
	if _, about := concerns(r); !about || !ok {
		return nil
	}
	return recorder{book: p, trial: t}.finished(context.Background(), events.Error, &events.Trouble{What: "verifying", Why: last.Error()})
}

func (m *model) push(w *simulation.World) {
	n := w.Story.Ready(foldtest.Definition(definition), "")
	m.bad[foldtest.Digest(fmt.Sprint("run", n))] = w.Rand.IntN(3) == 0
}

// others lets people and promote do one thing.
func (m *model) others(w *simulation.World) {
	a := w.Truth.App("hello")
	last := a.Env("dev").Last()
	switch w.Rand.IntN(8) {
	case 0:
		if a.Runs.Len() < 4 {
			m.push(w)
		}
	case 1, 2, 3:
		switch {
		case last == nil || !last.Open():
			m.take(w, a)
		case last.Decision == "" && w.Rand.IntN(4) == 0:
			w.Seen["abandoned"]++
			decided(w.Story, last.N, events.Abandoned)
		case last.Decision == "":
			decided(w.Story, last.N, events.Live)
		default:
			m.close(w, last, w.Rand.IntN(4) == 0)
		}
	case 4:
		if last != nil && last.Open() {
			if run := a.Run(last.Run); run.Cancelled == nil && !run.Status().Ended() {
				w.Story.Command(events.Command{Verb: events.VerbCancel, App: "hello", Run: run.N})
			}
		}
	default:
		if last != nil && last.Kind == events.KindDeploy && last.Open() && a.Run(last.Run).Env("dev").Verify.Status != fold.Pending {
			w.Seen["replayed"]++
			w.Story.Replay("hello", last.Run, fold.StageVerify, "dev")
		}
	}
}

func (m *model) take(w *simulation.World, a *fold.App) {
	n := a.Env("dev").Slots.Len() + 1
	if good := a.Env("dev").Good(n); good != nil && w.Rand.IntN(3) == 0 {
		w.Seen["rollback"]++
		b := &events.SlotTaken{Slot: n, Run: good.Run, Digest: good.Digest, Kind: events.KindRollback, Environment: "dev"}
		b.ID = fmt.Sprintf("hello/dev/%d", n)
		w.Story.Write(events.SlotSubject(foldtest.Epoch, b.Type(), "hello", "dev", n), "", b)
		return
	}
	for run := range a.Runs.All() {
		if e := run.Env("dev"); run.Cancelled == nil && run.SupersededBy == 0 && e.Slot == 0 && !e.Verified {
			b := &events.SlotTaken{
				Slot: n, Run: run.N, Attempt: e.Promote.Attempt, Digest: run.Artifact.Digest, Kind: events.KindDeploy, Environment: "dev",
			}
			b.ID = fmt.Sprintf("hello/dev/%d", n)
			w.Story.Write(events.SlotSubject(foldtest.Epoch, b.Type(), "hello", "dev", n), run.ChainID, b)
			return
		}
	}
}

// close ends a live slot by its result, or by what takes its place.
func (m *model) close(w *simulation.World, s *fold.Slot, supersede bool) bool {
	run := w.Truth.App("hello").Run(s.Run)
	how := events.Superseded
	switch {
	case s.Trial != nil && s.Trial.Outcome == events.Success:
		how = events.Verified
	case s.Trial != nil && s.Trial.Outcome == events.Failure:
		how = events.Rejected
	case !supersede && run.Cancelled == nil:
		return false
	}
	w.Seen["closed "+string(how)]++
	closed(w.Story, s.N, how)
	return true
}

// settle lets promote act on what verify found.
func (m *model) settle(w *simulation.World) bool {
	last := w.Truth.App("hello").Env("dev").Last()
	return last != nil && last.Decision == events.Live && last.Open() && m.close(w, last, false)
}

// stored checks one event of verify's.
func (m *model) stored(w *simulation.World, _ *simulation.Process, r ledger.Record) error {
	b, ok := r.Event.Body.(*events.TestSuiteRunFinished)
	if !ok {
		return nil
	}
	w.Seen[string(b.Outcome)]++
	s := w.Truth.App("hello").Env("dev").Slot(b.Trial.Slot)
	_, begun := w.Story.Has(events.VerifySubject(foldtest.Epoch, events.TypeTestSuiteRunStarted, "hello", r.Subject.Run, "dev", s.N, 0, b.Trial.Attempt))
	switch {
	case !begun:
		return errors.New("a result of what never began")
	case b.Outcome != events.Error && (b.Outcome == events.Success) == m.bad[s.Digest]:
		return fmt.Errorf("slot %d is %s, its version is not", s.N, b.Outcome)
	}
	return nil
}

// rest checks the environment once all is quiet.
func (m *model) rest(w *simulation.World) error {
	if m.wrong != nil {
		return m.wrong
	}
	a := w.Truth.App("hello")
	last := a.Env("dev").Last()
	if last == nil || last.Decision != events.Live || !last.Open() || last.Trial != nil {
		return nil
	}
	return fmt.Errorf("slot %d is live and has no result: %+v", last.N, a.Run(last.Run).Env("dev").Verify)
}
