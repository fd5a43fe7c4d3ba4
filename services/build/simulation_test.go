package build

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
	"towpath.dev/pkg/registry"
)

const simApp events.Slug = "hello"

// blindness is what a broken build does not see, or do, so that the checker can be seen to notice.
type blindness int

const (
	seeing       blindness = iota
	toCancelling           // it takes up runs that were cancelled
	toTheEnd               // it does not see that an attempt has ended
	toHolds                // it begins although the app is held
	toReplays              // it takes each attempt for the first
	toOthers               // it publishes its own image where another try has named one
	toImages               // it builds what was built elsewhere
)

func TestSimulation(t *testing.T) {
	simulation.Check(t, 1500, simulated(seeing), "call failed", "delivered twice", "published", "failed", "cancelled", "replayed", "given up", "other image")
}

func TestSimulationNoticesBrokenGuards(t *testing.T) {
	for name, b := range map[string]blindness{
		"cancelled": toCancelling, "ended": toTheEnd, "held": toHolds, "replayed": toReplays, "packaged by another": toOthers, "built elsewhere": toImages,
	} {
		t.Run(name, func(t *testing.T) { simulation.Notices(t, simulated(b)) })
	}
}

// model is a build service around the real decisions and the real recorder, and what it makes.
type model struct {
	blind  blindness
	made   map[string]bool // images in the registry
	broken map[int]bool    // runs whose Dockerfile fails
	begins map[int]bool    // runs that were pushed while the app was held, and never let go
}

func simulated(b blindness) func(*simulation.World) simulation.Service {
	return func(w *simulation.World) simulation.Service {
		m := &model{blind: b, made: map[string]bool{}, broken: map[int]bool{}, begins: map[int]bool{}}
		return simulation.Service{
			Writer: events.Build, Handle: m.handle, GiveUp: m.giveUp, Others: m.others, Settle: letGo, Stored: m.stored, Rest: m.rest,
		}
	}
}

// look returns the app and the run as the blind service sees them.
func (m *model) look(p *simulation.Process, n int) (*fold.App, *fold.Run) {
	a, r := *p.App(simApp), *p.App(simApp).Run(n)
	switch m.blind {
	case toCancelling:
		r.Cancelled = nil
	case toTheEnd:
		r.Build.Outcome, r.Build.Status = "", fold.Running
	case toHolds:
		a.Hold = nil
	case toReplays:
		r.Build.Attempt = 1
	case toImages:
		if r.Image {
			r.Image, r.Build = false, fold.Stage{Attempt: 1, Status: fold.Pending}
		}
	}
	return &a, &r
}

func (m *model) handle(p *simulation.Process, r ledger.Record) error {
	a := p.App(simApp)
	if a == nil {
		return nil
	}
	if m.blind == toHolds {
		unheld := *a
		unheld.Hold = nil
		a = &unheld
	}
	runs := woken(a, r.Event, r.Subject.Run)
	if m.blind == toImages {
		runs = append(runs, a.Runs.Len())
	}
	for _, n := range runs {
		if err := m.advance(p, n); err != nil {
			return err
		}
	}
	return nil
}

// advance takes the steps of Service.advance.
func (m *model) advance(p *simulation.Process, n int) error {
	for {
		a, run := m.look(p, n)
		d := decide(a, run)
		record := recorder{book: p, run: run, attempt: d.attempt}
		var err error
		switch d.action {
		case rest:
			return nil
		case finish:
			return record.finished(context.Background(), d.outcome, run.ArtifactID)
		case stop:
			err = record.ended(context.Background(), events.Cancel, events.Trouble{What: "building the image", Why: d.why})
		case make_:
			err = m.attempt(p, record, d)
		}
		if err != nil && !errors.Is(err, errFenced) {
			return err
		}
	}
}

// fenced reports whether the ledger says, as far as the process knows, that the attempt is not to go on.
func (m *model) fenced(p *simulation.Process, record recorder) bool {
	a, run := m.look(p, record.run.N)
	return decide(a, run).overtaken(record.attempt)
}

// attempt takes the steps of Service.attempt.
func (m *model) attempt(p *simulation.Process, record recorder, d decision) error {
	ctx := context.Background()
	w := p.World
	if w.Rand.IntN(4) == 0 {
		if err := record.queued(ctx); err != nil {
			return err
		}
	}
	if err := record.started(ctx, d.replay); err != nil {
		return err
	}
	if m.fenced(p, record) {
		return errFenced
	}
	digest := foldtest.Digest(fmt.Sprintf("%d-%d-%d", record.run.N, record.attempt, w.Rand.IntN(2)))
	err := p.Effect(func() { m.made[digest] = true })
	switch {
	case m.fenced(p, record):
		return errFenced
	case err != nil:
		return err
	case m.broken[record.run.N]:
		return record.ended(ctx, events.Failure, events.Trouble{What: "building the image", Why: "RUN false"})
	}
	made := product{artifact: registry.Artifact{Repository: simRepository, Digest: registry.Digest(digest)}}
	fixed, err := record.packaged(ctx, made.artifact, "here")
	if errors.Is(err, errOtherPackaged) {
		w.Seen["other image"]++
		if m.blind != toOthers {
			made.artifact = fixed
		}
		err = nil
	}
	if err != nil {
		return err
	}
	return record.published(ctx, made)
}

var simRepository = func() registry.Repository {
	r, err := registry.ParseRepository("registry.example.org/hello")
	if err != nil {
		panic(err)
	}
	return r
}()

// giveUp takes the steps of Service.giveUp.
func (m *model) giveUp(p *simulation.Process, r ledger.Record, last error) error {
	for _, n := range woken(p.App(simApp), r.Event, r.Subject.Run) {
		a, run := m.look(p, n)
		d := decide(a, run)
		if d.action != make_ {
			continue
		}
		record := recorder{book: p, run: run, attempt: d.attempt}
		if err := record.ended(context.Background(), events.Error, events.Trouble{What: "building the image", Why: last.Error()}); err != nil {
			return err
		}
		if err := record.finished(context.Background(), events.Error, ""); err != nil {
			return err
		}
	}
	return nil
}

// others lets people, gateway, promote and watch do one thing.
func (m *model) others(w *simulation.World) {
	a := w.Truth.App(simApp)
	if a == nil || a.Runs.Len() < 3 && w.Rand.IntN(3) == 0 {
		m.push(w, a)
		return
	}
	run := a.Run(1 + w.Rand.IntN(a.Runs.Len()))
	switch w.Rand.IntN(6) {
	case 0:
		if !run.Status().Ended() {
			w.Story.Command(events.Command{Verb: events.VerbCancel, App: simApp, Run: run.N})
			w.Seen["cancelled"]++
		}
	case 1:
		if a.Hold == nil {
			w.Story.Command(events.Command{Verb: events.VerbHold, App: simApp})
		}
	case 2:
		if a.Hold != nil {
			w.Story.Command(events.Command{Verb: events.VerbResume, App: simApp})
			m.begins = map[int]bool{}
		}
	case 3, 4:
		if !run.Image && run.SupersededBy == 0 && run.Build.Status != fold.Pending && run.Build.Status != fold.Queued {
			w.Story.Replay(simApp, run.N, fold.StageBuild, "")
			delete(m.broken, run.N)
			w.Seen["replayed"]++
		}
	case 5:
		if run.Build.Status == fold.Running && run.Build.Stuck == nil {
			b := &events.StageStuck{About: events.About{ID: run.Name()}, Stage: fold.StageBuild, Attempt: run.Build.Attempt, LastError: "late"}
			w.Story.Write(events.StuckSubject(foldtest.Epoch, simApp, run.N, "", fold.StageBuild, run.Build.Attempt, run.Build.Reported+1), run.ChainID, b)
		}
	}
}

func (m *model) push(w *simulation.World, a *fold.App) {
	d := foldtest.Definition("app: hello\nservice: {port: 8080}\nenvironments: [{name: dev}]\n")
	n := 1
	if a != nil {
		n = a.Runs.Len() + 1
		m.begins[n] = a.Hold != nil
	}
	m.broken[n] = w.Rand.IntN(4) == 0
	if w.Rand.IntN(5) > 0 {
		w.Story.PushNumber(d, "", n)
		return
	}
	b := &events.ArtifactPublished{Published: events.Published{
		Artifact: events.Artifact{Repository: "elsewhere/hello", Digest: foldtest.Digest("elsewhere")},
		Run:      &events.RunStart{App: simApp, Predecessor: n - 1, Definition: d.Canonical(), DefinitionDigest: d.Digest(), Actor: "ann"},
	}}
	b.ID = foldtest.ArtifactID(simApp, b.Published.Artifact.Digest)
	w.Story.Write(events.RunStartSubject(foldtest.Epoch, b.Type(), simApp, "", "image", n-1, b.ID), foldtest.Chain(simApp, n), b)
}

// letGo lets a hold that outlasts the schedule stand in half of them.
func letGo(w *simulation.World) bool {
	a := w.Truth.App(simApp)
	if a == nil || a.Hold == nil || a.Seq%2 == 0 {
		return false
	}
	w.Story.Command(events.Command{Verb: events.VerbResume, App: simApp})
	return true
}

// stored checks one event of build's.
func (m *model) stored(w *simulation.World, _ *simulation.Process, r ledger.Record) error {
	of := func(t events.Type) (ledger.Record, bool) {
		return w.Story.Has(events.BuildSubject(foldtest.Epoch, t, simApp, r.Subject.Run, "", r.Subject.Attempt))
	}
	run := w.Truth.App(simApp).Run(r.Subject.Run)
	if run.Image {
		return fmt.Errorf("%s is about an image that was built elsewhere", r.Subject)
	}
	switch b := r.Event.Body.(type) {
	case *events.ArtifactPackaged:
		// Who makes an image has read the ledger as far as the attempt's beginning.
		if started, ok := of(events.TypeBuildStarted); !ok || run.Cancelled != nil && run.Cancelled.Seq < started.Seq {
			return fmt.Errorf("%s was cancelled at event %d, and an image was made all the same", run.Name(), run.Cancelled.Seq)
		}
	case *events.ArtifactPublished:
		w.Seen["published"]++
		packaged, ok := of(events.TypeArtifactPackaged)
		if !ok || packaged.Event.Body.SubjectID() != b.ID {
			return fmt.Errorf("published %s, packaged was %v", b.ID, packaged.Event.Body)
		}
		if !m.made[b.Published.Artifact.Digest] {
			return fmt.Errorf("published %s, which nobody has made", b.ID)
		}
	case *events.TaskRunFinished:
		w.Seen[map[bool]string{true: "succeeded", false: "failed"}[b.Outcome == events.Success]]++
		if _, published := of(events.TypeArtifactPublished); b.Outcome == events.Success && !published {
			return errors.New("a success without an image")
		}
	case *events.BuildFinished:
		if s := run.Build; s.Attempt == r.Subject.Attempt && !s.Ended() {
			return errors.New("finished before it ended")
		}
	}
	return nil
}

// rest checks every run once all is quiet.
func (m *model) rest(w *simulation.World) error {
	a := w.Truth.App(simApp)
	if a == nil {
		return nil
	}
	for run := range a.Runs.All() {
		s := run.Build
		has := func(t events.Type) bool {
			_, ok := w.Story.Has(events.BuildSubject(foldtest.Epoch, t, simApp, run.N, "", s.Attempt))
			return ok
		}
		begun := has(events.TypeBuildStarted)
		switch {
		case run.Image:
		case s.Ended():
			if !has(events.TypeTaskRunFinished) || !has(events.TypeBuildFinished) {
				return fmt.Errorf("%s ended and does not say so", run.Name())
			}
			if has(events.TypeArtifactPublished) != (s.Outcome == events.Success) && run.Cancelled == nil && s.Replay == nil {
				return fmt.Errorf("%s: outcome %s, published %t", run.Name(), s.Outcome, has(events.TypeArtifactPublished))
			}
		case run.Cancelled != nil:
			if begun {
				return fmt.Errorf("%s was cancelled and its build never ended", run.Name())
			}
		case a.Hold == nil:
			return fmt.Errorf("%s was never built: %+v", run.Name(), s)
		}
		if m.begins[run.N] && a.Hold != nil && begun {
			return fmt.Errorf("%s began although the app was held before it came", run.Name())
		}
		if begun && s.Replay != nil && !s.Replayed {
			return fmt.Errorf("%s: attempt %d does not say what it repeats", run.Name(), s.Attempt)
		}
	}
	return nil
}
