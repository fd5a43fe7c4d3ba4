package notify

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/ledger/fold/foldtest/simulation"
	"towpath.dev/pkg/policy"
)

// blindness is what a broken notify does not see, so that the checker can be seen to notice.
type blindness int

const (
	seeing     blindness = iota
	toKinds              // it sends everybody everything
	toSettled            // it tells of what was over when it read of it
	toAge                // it sends what is too old
	toLeftOut            // it does not say that something was left out
	toFailures           // it takes a post that failed for one that was taken
	toPending            // it keeps the position of what it has read, not of what it has sent
	toKept               // it begins with what comes after its start
	toSent               // it forgets at a start what it has told
	toSettling           // it does not remember what it has just sent
)

func TestSimulation(t *testing.T) {
	simulation.Check(t, 600, simulated(seeing), "call failed", "refused", "left out", "told again", "over when it was read", "went on",
		policy.NoticeApproval, policy.NoticeStuck, policy.NoticeFailed, policy.NoticeDone, policy.NoticeDrift)
}

func TestSimulationNoticesBrokenGuards(t *testing.T) {
	for name, b := range map[string]blindness{
		"kinds": toKinds, "settled": toSettled, "age": toAge, "left out": toLeftOut, "failures": toFailures, "pending": toPending,
		"kept": toKept, "sent": toSent, "settling": toSettling,
	} {
		t.Run(name, func(t *testing.T) { simulation.NoticesWithin(t, 1000, simulated(b)) })
	}
}

// maxAge is how old a notification may become.
const maxAge = time.Hour

// model is notify around its real decisions, what it posts to, and the workers of which it tells.
type model struct {
	blind blindness
	world *simulation.World
	lives map[life]*telling
	chats []*chat
	past  *fold.Fold
	apps  []*fold.App            // after each event
	known map[events.Slug]uint64 // by id: up to which event a process knew the ledger when it last found the notice
}

// life is a process from one start to the next: what it keeps in memory.
type life struct {
	process *simulation.Process
	start   int
}

// chat is one receiver's other side, and how far notify is with it.
type chat struct {
	policy.Receiver
	kept  *progress // on the bus; nil: nothing
	since uint64    // what came after this event is for it
	got   []notice
	gone  []notice // that it refused
	left  int      // how many it was told were left out
}

func (c *chat) has(id events.Slug) bool {
	return slices.ContainsFunc(slices.Concat(c.got, c.gone), func(n notice) bool { return n.ID == id })
}

// telling is one process of notify.
type telling struct {
	ready     bool
	through   bool // it has read once what was there
	reading   bool
	from      uint64
	receivers []*receiver
	outboxes  map[*receiver]*outbox
}

// outbox is what a process has to do with one receiver.
type outbox struct {
	*chat
	of    *telling
	began progress // what was kept when it began
	busy  bool
	taken map[events.Slug]bool // ids of what was sent and known to be taken
	due   []notice             // of what it read
}

func simulated(b blindness) func(*simulation.World) simulation.Service {
	return func(w *simulation.World) simulation.Service {
		m := &model{blind: b, world: w, lives: map[life]*telling{}, known: map[events.Slug]uint64{}, past: fold.New()}
		for name, kinds := range map[string][]string{"all": policy.NoticeKinds, "pager": {policy.NoticeStuck, policy.NoticeDrift}} {
			m.chats = append(m.chats, &chat{Receiver: policy.Receiver{Name: name, Kinds: kinds}})
		}
		slices.SortFunc(m.chats, func(a, b *chat) int { return len(b.Kinds) - len(a.Kinds) })
		w.Story.Push(foldtest.Definition(definition), "")
		if n := w.Rand.IntN(2 * len(openings)); n < len(openings) {
			openings[n](m, w)
		}
		w.Budget *= 4
		return simulation.Service{Writer: events.Notify, Looks: true, Handle: m.handle, Others: m.others, Settle: m.settle, Rest: m.rest}
	}
}

// openings are what a schedule may begin with: what came while notify was down.
var openings = []func(*model, *simulation.World){
	// It was down for a moment.
	func(m *model, w *simulation.World) {
		m.down(1)
		buildEnds(w.Story, events.Error)
		isStuck(w.Story, 1)
	},
	// It was down for long.
	func(m *model, w *simulation.World) {
		m.down(1)
		buildEnds(w.Story, events.Error)
		isStuck(w.Story, 1)
		w.Story.Pass(2 * maxAge)
	},
	// It had told of a failure of which another event tells as well.
	func(m *model, w *simulation.World) {
		goesOn := func(how events.Outcome) {
			a := w.Story.App("hello")
			goOn(w, a, a.Run(1), how)
		}
		for w.Story.App("hello").Env("dev").Live() == nil {
			goesOn(events.Success)
		}
		goesOn(events.Failure)
		n, _ := last(w.Story)
		m.known[n.ID] = n.Seq
		m.down(n.Seq, n)
		goesOn(events.Success)
	},
}

// down is how far notify had come, and what it had told, when it ended.
func (m *model) down(seq uint64, told ...notice) {
	for _, c := range m.chats {
		c.since, c.kept = 1, &progress{Seq: seq}
		for _, n := range told {
			if slices.Contains(c.Kinds, n.Kind) {
				c.kept.Sent, c.got = append(c.kept.Sent, n.ID), append(c.got, n)
			}
		}
	}
}

// handle lets a process take one of the steps of Service.Run.
func (m *model) handle(p *simulation.Process, _ ledger.Record) error {
	now := life{p, p.Starts}
	t := m.lives[now]
	if t == nil {
		t = &telling{outboxes: map[*receiver]*outbox{}}
		m.lives[now] = t
		if err := m.begin(p, t); err != nil {
			delete(m.lives, now)
			return err
		}
		t.ready = true
	}
	if !t.ready {
		return nil
	}
	if n := m.world.Rand.IntN(1 + len(t.receivers)); n > 0 && t.through {
		return m.serve(p, t.receivers[n-1], t.outboxes[t.receivers[n-1]])
	}
	return m.read(p, t)
}

// begin takes the steps of Service.resume.
func (m *model) begin(p *simulation.Process, t *telling) error {
	p.CatchUp()
	t.from = p.Seq()
	for _, c := range m.chats {
		r := newReceiver(c.Receiver)
		if m.blind == toKinds {
			r.Kinds = policy.NoticeKinds
		}
		var kept *progress
		if err := p.Effect(func() { kept = c.kept }); err != nil {
			return err
		}
		p.CatchUp()
		head := p.Seq()
		box := &outbox{chat: c, of: t, taken: map[events.Slug]bool{}}
		if kept == nil {
			c.since = head
			kept = &progress{Seq: head}
			r.resume(progress{}, false, head, p.LedgerID())
		} else {
			m.world.Seen["went on"]++
			known := *kept
			if m.blind == toSent {
				known.Sent = nil
			}
			r.resume(known, m.blind != toKept, head, p.LedgerID())
		}
		box.began = *kept
		t.outboxes[r] = box
		if err := m.save(p, r, box); err != nil {
			return err
		}
		t.receivers = append(t.receivers, r)
		t.from = min(t.from, r.read)
	}
	return nil
}

// save takes the step of Service.save.
func (m *model) save(p *simulation.Process, r *receiver, box *outbox) error {
	reached := r.reached()
	if m.blind == toPending {
		reached.Seq = r.read
	}
	return p.Effect(func() {
		box.kept = &reached
		m.behind(box, reached.Seq)
	})
}

// behind checks that a position which is kept is behind what was sent.
func (m *model) behind(box *outbox, seq uint64) {
	if seq > max(box.of.from, box.began.Seq) {
		m.world.Fail(fmt.Errorf("%s is said to be at %d, and only what comes up to %d was read", box.Name, seq, box.of.from))
	}
	for _, n := range box.due {
		if n.Seq <= seq && n.Seq > box.began.Seq && !box.has(n.ID) && !m.old(n) {
			m.world.Fail(fmt.Errorf("%s is said to be at %d, and was never sent %s of %d", box.Name, seq, n.Kind, n.Seq))
		}
	}
}

func (m *model) old(n notice) bool { return m.world.Story.Now().Sub(n.At) > maxAge }

// read takes the steps of Service.follow.
func (m *model) read(p *simulation.Process, t *telling) (err error) {
	if t.reading {
		return nil
	}
	t.reading = true
	for _, record := range m.world.Story.Records(t.from) {
		if record.Seq > p.Seq() { // it waits for its fold
			break
		}
		if record.Seq%4 == 0 { // batches
			if err = p.Effect(func() {}); err != nil {
				break
			}
		}
		m.offer(p, t, record)
		t.from = record.Seq
	}
	t.reading = false
	for _, r := range t.receivers {
		r.offered(t.from)
	}
	t.through = t.through || err == nil && t.from >= p.Seq()
	return err
}

// offer takes the step of Service.offer.
func (m *model) offer(p *simulation.Process, t *telling, record ledger.Record) {
	app := p.App(record.Subject.App)
	seen := app
	if m.blind == toSettled {
		seen = m.at(record)
	}
	n, ok := decide(seen, record.Seq, record.Subject, record.Event)
	if at := m.at(record); !ok && at != nil {
		if _, then := decide(at, record.Seq, record.Subject, record.Event); then {
			m.world.Seen["over when it was read"]++
		}
	}
	if !ok {
		return
	}
	m.known[n.ID] = max(m.known[n.ID], p.Seq())
	if err := stands(app, n); err != nil {
		m.world.Fail(fmt.Errorf("event %d makes it tell %q: %w", record.Seq, n.Text, err))
	}
	for _, r := range t.receivers {
		if box := t.outboxes[r]; slices.Contains(box.chat.Kinds, n.Kind) {
			box.due = append(box.due, n)
		}
		r.offer(n)
	}
}

// at is an app as it was when an event came.
func (m *model) at(record ledger.Record) *fold.App {
	for _, r := range m.world.Story.Records(m.past.Seq()) {
		_ = m.past.Apply(r) // the truth reports what contradicts the contract
		m.apps = append(m.apps, m.past.App("hello"))
	}
	return m.apps[record.Seq-1]
}

// stands checks that what a notice tells is so.
func stands(a *fold.App, n notice) error {
	run := a.Run(n.Run)
	if run == nil {
		return fmt.Errorf("there is no run %d", n.Run)
	}
	stage, _ := run.Stage(n.Stage, n.Env)
	status := run.Status()
	switch n.Kind {
	case policy.NoticeApproval:
		if e := run.Env(n.Env); e.Waiting == nil || e.Waiting.For != "an approver" || status.Ended() {
			return fmt.Errorf("%s waits for nobody in %s", run.Name(), n.Env)
		}
	case policy.NoticeStuck:
		if stage.Stuck == nil {
			return fmt.Errorf("%s %s is %s", run.Name(), n.Stage, stage.Status)
		}
	case policy.NoticeFailed:
		if status != fold.Failed && status != fold.Refused {
			return fmt.Errorf("%s is %s", run.Name(), status)
		}
	case policy.NoticeDone:
		if status != fold.Done {
			return fmt.Errorf("%s is %s", run.Name(), status)
		}
	}
	return nil
}

var errRefused = errors.New("it refuses")

// serve takes the steps of Service.serve, up to the next post.
func (m *model) serve(p *simulation.Process, r *receiver, box *outbox) error {
	if box.busy {
		return nil
	}
	box.busy = true
	defer func() { box.busy = false }()
	age := maxAge
	if m.blind == toAge {
		age = 1000 * time.Hour
	}
	if m.blind == toLeftOut {
		r.done.Left = 0
	}
	n, ok := r.next(m.world.Story.Now(), age)
	if !ok || m.blind == toLeftOut && n.Kind == KindLeftOut {
		return m.save(p, r, box)
	}
	if n.Kind != KindLeftOut && m.old(n) {
		m.world.Fail(fmt.Errorf("%s is sent %s of %s, which is too old", box.Name, n.Kind, n.At))
	}
	switch err := m.post(p, box, n); {
	case err == nil:
		box.taken[n.ID] = true
	case !errors.Is(err, errRefused) && m.blind != toFailures:
		return err // it is tried again
	}
	if m.blind == toSettling {
		r.pending = slices.DeleteFunc(r.pending, func(p notice) bool { return p.ID == n.ID })
	} else {
		r.settle(n)
	}
	_ = m.save(p, r, box) // where that fails, it may be sent again after a restart
	return nil
}

// post sends a notice. The receiver may take it and its answer be lost.
func (m *model) post(p *simulation.Process, box *outbox, n notice) error {
	refused := false
	err := p.Effect(func() {
		if refused = m.world.Rand.IntN(20) == 0 && n.Kind != KindLeftOut; refused {
			m.world.Seen["refused"]++
			box.gone = append(box.gone, n)
			return
		}
		m.get(box, n)
	})
	if err == nil {
		err = p.Effect(func() {})
	}
	if err == nil && refused {
		err = errRefused
	}
	return err
}

// get checks what a receiver gets.
func (m *model) get(box *outbox, n notice) {
	m.world.Seen[n.Kind]++
	if n.Kind == KindLeftOut {
		m.world.Seen["left out"]++
		box.left += n.left
		return
	}
	switch {
	case !slices.Contains(box.Kinds, n.Kind):
		m.world.Fail(fmt.Errorf("%s gets %s, which it does not want", box.Name, n.Kind))
	case n.Seq <= box.began.Seq || slices.Contains(box.began.Sent, n.ID):
		m.world.Fail(fmt.Errorf("%s gets %q again, which was on record as sent when the process began", box.Name, n.Text))
	case box.taken[n.ID]:
		m.world.Fail(fmt.Errorf("%s gets %q twice from a process that was told that it was taken", box.Name, n.Text))
	}
	if box.has(n.ID) {
		m.world.Seen["told again"]++
	}
	box.got = append(box.got, n)
}

// settle waits until every process has read all and sent what there is.
func (m *model) settle(*simulation.World) bool {
	busy := true
	for now, t := range m.lives {
		if now.process.Starts != now.start {
			continue
		}
		if busy = !t.ready || t.from < m.world.Truth.Seq(); busy {
			return true
		}
		for _, r := range t.receivers {
			if len(r.pending) > 0 || r.done.Left > 0 && m.blind != toLeftOut {
				return true
			}
		}
	}
	return busy
}

// rest checks that everybody was told of what stands, or that something was left out which was too old.
func (m *model) rest(w *simulation.World) error {
	a := w.Truth.App("hello")
	for _, r := range w.Story.Records(0) {
		run := a.Run(r.Subject.Run)
		switch b := r.Event.Body.(type) {
		case *events.StageStuck:
			if stage, _ := run.Stage(b.Stage, b.Environment); stage.Stuck != nil && stage.Attempt == b.Attempt {
				m.told(r, policy.NoticeStuck, run, b.Stage, b.Environment)
			}
		case *events.DriftDetected:
			m.told(r, policy.NoticeDrift, nil, "", b.Environment)
		}
	}
	for run := range a.Runs.All() {
		last := m.last(run)
		switch run.Status() {
		case fold.Done:
			m.told(last, policy.NoticeDone, run, "", "")
		case fold.Failed, fold.Refused:
			m.told(last, policy.NoticeFailed, run, "", "")
		}
		for _, e := range run.Envs {
			if e.Waiting != nil && e.Waiting.For == "an approver" && e.Promote.Status == fold.Waiting && !run.Status().Ended() {
				m.told(last, policy.NoticeApproval, run, fold.StagePromote, e.Name)
			}
		}
	}
	return nil
}

// last is the last event that made a run what it is, orders apart.
func (m *model) last(run *fold.Run) (last ledger.Record) {
	for _, r := range m.world.Story.Records(0) {
		switch r.Event.Body.(type) {
		case *events.CommandReceived, *events.ReplayRequested, *events.StageStuck, *events.DriftDetected:
		default:
			if r.Event.ChainID == run.ChainID {
				last = r
			}
		}
	}
	return last
}

// told checks that whoever wants it has heard of what an event made of a run, since it was replayed last.
func (m *model) told(r ledger.Record, kind string, run *fold.Run, stage string, env events.Slug) {
	var anew uint64
	for _, earlier := range m.world.Story.Records(0) {
		if _, ok := earlier.Event.Body.(*events.ReplayRequested); ok && run != nil && earlier.Subject.Run == run.N && kind != policy.NoticeDone {
			anew = earlier.Seq
		}
	}
	for _, c := range m.chats {
		if !slices.Contains(c.Kinds, kind) || r.Seq <= c.since {
			continue
		}
		heard := slices.ContainsFunc(slices.Concat(c.got, c.gone), func(n notice) bool {
			if run == nil {
				return n.Seq == r.Seq
			}
			return n.Kind == kind && m.known[n.ID] > anew && n.Run == run.N && (stage == "" || n.Stage == stage) && (env == "" || n.Env == env)
		})
		late := c.left > 0 && m.world.Story.Now().Sub(r.Event.Time) > maxAge
		if !heard && !late {
			m.world.Fail(fmt.Errorf("%s never heard of %s: %s %s (event %d)", c.Name, kind, stage, env, r.Seq))
		}
	}
}

// others lets time pass, a worker go on, or a person act.
func (m *model) others(w *simulation.World) {
	a := w.Truth.App("hello")
	run := a.Run(1 + w.Rand.IntN(a.Runs.Len()))
	switch w.Rand.IntN(16) {
	case 0, 1:
		w.Story.Pass(time.Duration(w.Rand.IntN(30)) * time.Minute)
	case 2:
		if w.Rand.IntN(4) == 0 {
			w.Story.Pass(2 * maxAge)
		}
	case 3:
		if a.Runs.Len() < 4 {
			w.Story.Push(run.Definition, "")
		}
	case 4:
		verb := events.VerbHold
		if a.Hold != nil {
			verb = events.VerbResume
		}
		w.Story.Command(events.Command{Verb: verb, App: "hello"})
	case 5:
		if w.Rand.IntN(3) == 0 && !run.Status().Ended() {
			w.Story.Command(events.Command{Verb: events.VerbCancel, App: "hello", Run: run.N})
		}
	case 6:
		drifts(w, a)
	case 7, 8:
		replays(w, run)
	case 9, 10:
		reports(w, run)
	default:
		if run.Cancelled == nil && run.SupersededBy == 0 {
			works(w, a, run)
		}
	}
}

// drifts has something changed behind Towpath's back.
func drifts(w *simulation.World, a *fold.App) {
	for _, name := range []events.Slug{"dev", "prod"} {
		e := a.Env(name)
		if live := e.Live(); live != nil && w.Rand.IntN(3) == 0 {
			b := &events.DriftDetected{Drift: events.Drift{What: "container", Environment: name, Found: "gone", Expected: "there"}}
			b.ID = "hello/" + string(name) + "/container"
			w.Story.Write(events.DriftSubject(foldtest.Epoch, b.Type(), "hello", name, e.DriftCount+1), a.Run(live.Run).ChainID, b)
			return
		}
	}
}

type stageIn struct {
	stage string
	env   events.Slug
}

func places(run *fold.Run) []stageIn {
	all := []stageIn{{fold.StageBuild, ""}, {fold.StageVet, ""}}
	for _, e := range run.Envs {
		all = append(all, stageIn{fold.StagePromote, e.Name}, stageIn{fold.StageVerify, e.Name})
	}
	return all
}

// replays has an operator ask for another attempt at what has stopped.
func replays(w *simulation.World, run *fold.Run) {
	for _, at := range places(run) {
		if s, _ := run.Stage(at.stage, at.env); s.Ended() && s.Outcome != events.Success && run.SupersededBy == 0 && run.Cancelled == nil {
			w.Story.Replay("hello", run.N, at.stage, at.env)
			return
		}
	}
}

// reports has watch say what is stuck.
func reports(w *simulation.World, run *fold.Run) {
	for _, at := range places(run) {
		if s, _ := run.Stage(at.stage, at.env); s.Outcome == events.Error && s.Stuck == nil {
			b := &events.StageStuck{Stage: at.stage, Environment: at.env, Attempt: s.Attempt, LastError: "the engine is away", Command: run.ReplayCommand(at.stage, at.env)}
			b.ID = run.Name() + "/" + at.stage
			say(w, run, events.StuckSubject(foldtest.Epoch, "hello", run.N, at.env, at.stage, s.Attempt, s.Reported+1), b)
			return
		}
	}
}

// say writes an event of a run, unless it is there.
func say(w *simulation.World, run *fold.Run, s events.Subject, b events.Body) {
	if _, there := w.Story.Has(s); !there {
		w.Story.Write(s, run.ChainID, b)
	}
}

// works lets the worker whose turn it is go on, in one of the ways in which its stage may end.
func works(w *simulation.World, a *fold.App, run *fold.Run) {
	goOn(w, a, run, []events.Outcome{events.Success, events.Success, events.Success, events.Failure, events.Error}[w.Rand.IntN(5)])
}

func goOn(w *simulation.World, a *fold.App, run *fold.Run, how events.Outcome) {
	digest := foldtest.Digest(fmt.Sprint("run", run.N, "-", run.Build.Attempt))
	switch next := run.Next(); {
	case !run.Build.Ended() && how == events.Success:
		w.Story.Built("hello", run.N, run.Build.Attempt, digest)
	case !run.Build.Ended():
		b := &events.TaskRunFinished{About: events.About{ID: run.Name()}, TaskName: "build", Outcome: how, Errors: "it does not build"}
		say(w, run, events.BuildSubject(foldtest.Epoch, b.Type(), "hello", run.N, "", run.Build.Attempt), b)
	case run.Artifact == nil || run.Build.Outcome != events.Success:
	case !run.Vet.Ended():
		w.Story.Vetted("hello", run.N, run.Vet.Attempt, run.Artifact.Digest, []events.Slug{"dev", "prod"})
	case next == nil:
	case next.Slot == 0 && !next.Promote.Ended():
		promotes(w, a, run, next, how)
	case next.Slot != 0:
		verifies(w, a, run, next, how)
	}
}

func promotes(w *simulation.World, a *fold.App, run *fold.Run, e *fold.RunEnv, how events.Outcome) {
	about := func(n int) events.About { return events.About{ID: fmt.Sprintf("hello/%s/%d", e.Name, n)} }
	slot := func(n int, b events.Body) {
		w.Story.Write(events.SlotSubject(foldtest.Epoch, b.Type(), "hello", e.Name, n), run.ChainID, b)
	}
	subject := func(t events.Type, key events.Slug) events.Subject {
		return events.PromoteSubject(foldtest.Epoch, t, "hello", run.N, e.Name, key, e.Promote.Attempt)
	}
	last := a.Env(e.Name).Last()
	switch {
	case last != nil && last.Decision == "":
		slot(last.N, &events.SlotDecided{About: about(last.N), Slot: last.N, Decision: events.Abandoned, Outcome: events.Cancel, Environment: e.Name})
	case last != nil && last.Open() && last.Trial != nil:
		slot(last.N, &events.SlotClosed{About: about(last.N), Slot: last.N, Closing: events.Superseded, Environment: e.Name})
	case last != nil && last.Open():
	case e.Name == "prod" && e.Promote.Status == fold.Pending:
		b := &events.PipelineRunQueued{Waiting: events.Waiting{Environment: e.Name, Attempt: e.Promote.Attempt, Reason: "0 of 1", For: "an approver"}}
		b.ID = run.Name()
		say(w, run, subject(b.Type(), "approver"), b)
	case how == events.Failure && e.Waiting != nil:
		b := &events.PromotionDenied{Promotion: events.Promotion{ArtifactID: run.ArtifactID, Environment: e.Name, Responder: "eve", Decision: "denied"}}
		b.ID = run.Name()
		say(w, run, subject(b.Type(), "eve"), b)
	case how != events.Success:
		b := &events.PipelineRunFinished{About: events.About{ID: run.Name()}, Outcome: how}
		b.Result = events.Result{Environment: e.Name, Attempt: e.Promote.Attempt, Trouble: &events.Trouble{What: "deploying", Why: "it does not start"}}
		say(w, run, subject(b.Type(), ""), b)
	default:
		n := a.Env(e.Name).Slots.Len() + 1
		slot(n, &events.SlotTaken{About: about(n), Slot: n, Run: run.N, Attempt: e.Promote.Attempt, Digest: run.Artifact.Digest, ArtifactID: run.ArtifactID, Kind: events.KindDeploy, Environment: e.Name})
	}
}

func verifies(w *simulation.World, a *fold.App, run *fold.Run, e *fold.RunEnv, how events.Outcome) {
	s := a.Env(e.Name).Slot(e.Slot)
	about := events.About{ID: fmt.Sprintf("hello/%s/%d", e.Name, s.N)}
	slot := func(b events.Body) {
		w.Story.Write(events.SlotSubject(foldtest.Epoch, b.Type(), "hello", e.Name, s.N), run.ChainID, b)
	}
	switch {
	case s.Decision == "":
		slot(&events.SlotDecided{About: about, Slot: s.N, Decision: events.Live, Environment: e.Name})
	case s.Decision != events.Live || !s.Open():
	case s.Trial == nil:
		w.Story.Verified("hello", run.N, e.Name, s.N, e.Verify.Attempt, how)
	case s.Trial.Outcome == events.Success:
		slot(&events.SlotClosed{About: about, Slot: s.N, Closing: events.Verified, Environment: e.Name})
	case s.Trial.Outcome == events.Failure:
		slot(&events.SlotClosed{About: about, Slot: s.N, Closing: events.Rejected, Environment: e.Name})
	}
}
