package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/ledger/fold/foldtest/simulation"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/policy"
	"towpath.dev/services/gateway/git"
	"towpath.dev/services/gateway/view"
)

// blindness is what a broken gateway does not see, so that the checker can be seen to notice.
type blindness int

const (
	seeing     blindness = iota
	toAuthors            // it lets authors approve
	toRoles              // it lets anybody approve
	toDigests            // it takes an answer about one image for one about another
	toEnds               // it takes orders about runs that have ended
	toHolds              // it holds what is held
	toClosings           // it rolls back to what was never verified
	toAttempts           // it takes each attempt for the first
	toSkips              // it skips what policy does not let be skipped
	toIDs                // it gives each order that comes in an id of its own
	toAnswers            // it does not look whether an order was followed before
	toPushes             // it does not know a push again
	toFailures           // it goes on replaying where replays fail alike
	toWork               // it does not count the replays under way
	toNewer              // it goes on with a replay of all that is stuck, although a newer one took its place
)

func TestSimulation(t *testing.T) {
	simulation.Check(t, 1500, simulated(seeing), "call failed", "approve", "deny", "cancel", "hold", "resume", "rollback", "skip", "promote",
		"replay", "replay all", "part", "finished", "refused", "said twice", "said again", "pushed", "stopped again")
}

func TestSimulationNoticesBrokenGuards(t *testing.T) {
	for name, b := range map[string]blindness{
		"authors": toAuthors, "roles": toRoles, "digests": toDigests, "ends": toEnds, "holds": toHolds, "closings": toClosings,
		"attempts": toAttempts, "skips": toSkips, "ids": toIDs, "answers": toAnswers, "pushes": toPushes, "failures": toFailures,
		"work": toWork, "newer": toNewer,
	} {
		t.Run(name, func(t *testing.T) { simulation.NoticesWithin(t, 500, simulated(b)) })
	}
}

// simApps are the apps of a schedule.
var simApps = []events.Slug{"a", "b", "c", "d", "e", "f"}

// approval is what every policy of a schedule asks for in prod.
var approval = policy.Approval{Count: 1, Approvers: []string{identity.RoleApprover}}

// life is a process from one start to the next: what it keeps in memory.
type life struct {
	process *simulation.Process
	start   int
}

// model is a gateway around its real desk: people and bots say things at any of its doors, again and again until they
// are answered, and what was pushed waits until it is recorded.
type model struct {
	blind   blindness
	desks   map[life]*desk
	house   *simulation.Process // has the repositories: they are in one gateway's data folder
	pushing map[events.Slug]bool
	// replaying is what the processes that replay what is stuck know; each does one such thing at a time.
	replaying map[*simulation.Process]*knowledge
	begun     []change        // pushes that git has taken in, oldest first
	said      map[string]asks // by id
	waiting   []string        // ids of what is not answered yet, once for each time that it was said
	next      int
	answers   map[string]view.Answer
	known     map[string][]*fold.App    // what processes knew when they judged the order with that id
	effects   map[string]events.Subject // by the id of an order
}

// knowledge is what a process knows when it chooses which replays come next.
type knowledge struct {
	open  []fold.Command
	apps  map[events.Slug]*fold.App
	begun int // replays that were chosen by it, so far
}

// asks is somebody's order.
type asks struct {
	order order
	by    identity.Actor
}

func simulated(b blindness) func(*simulation.World) simulation.Service {
	return func(w *simulation.World) simulation.Service {
		m := &model{
			blind: b, desks: map[life]*desk{}, pushing: map[events.Slug]bool{}, replaying: map[*simulation.Process]*knowledge{}, said: map[string]asks{},
			answers: map[string]view.Answer{}, known: map[string][]*fold.App{}, effects: map[string]events.Subject{},
		}
		policyDigest := w.Story.Policy(1, "{}")
		for _, app := range simApps[:1+w.Rand.IntN(len(simApps))] {
			w.Story.Push(simDefinition(app), policyDigest)
		}
		if n := w.Rand.IntN(2 * len(openings)); n < len(openings) {
			openings[n](m, w)
		}
		w.Budget *= 8
		return simulation.Service{
			Writer: events.Gateway, Looks: true, Handle: m.handle, Others: m.others, Settle: m.settle, Stored: m.stored, Rest: m.rest,
		}
	}
}

// openings are what a schedule may begin with, so that somebody asks at once for what is refused only when all has gone
// a certain way before.
var openings = []func(*model, *simulation.World){
	// Somebody approves or denies an image, and the run has another one by now.
	func(m *model, w *simulation.World) {
		m.advance(w, func(run *fold.Run) bool { return run.Artifact != nil })
		w.Story.Replay("a", 1, fold.StageBuild, "")
		m.advance(w, func(run *fold.Run) bool { return run.Build.Attempt == 2 && run.Vet.Outcome == events.Success })
		m.say(order{Verb: events.VerbApprove, App: "a", Run: 1, Env: "prod", Digest: simDigest(1, 1)}, people[2])
		m.say(order{Verb: events.VerbDeny, App: "a", Run: 1, Env: "prod", Digest: simDigest(1, 1)}, people[1])
	},
	// Somebody wants a version back that failed its verification.
	func(m *model, w *simulation.World) {
		m.advance(w, func(run *fold.Run) bool { return run.Env("dev").Slot > 0 && w.Story.App("a").Env("dev").Live() != nil })
		w.Story.Verified("a", 1, "dev", 1, 1, events.Failure)
		m.close(w, "dev", 1, events.Rejected)
		w.Story.Push(simDefinition("a"), w.Story.App("a").Run(1).Policy)
		m.advance(w, func(run *fold.Run) bool { return run.N == 2 && run.Env("dev").Verified })
		m.say(order{Verb: events.VerbRollback, App: "a", Env: "dev"}, people[1])
		m.say(order{Verb: events.VerbRollback, App: "a", Env: "dev", Run: 1}, people[1])
	},
	// Somebody wants the verification in prod skipped, where policy does not let them.
	func(m *model, w *simulation.World) {
		m.advance(w, func(run *fold.Run) bool { return run.Env("dev").Verified })
		w.Story.Command(events.Command{Verb: events.VerbApprove, App: "a", Run: 1, Environment: "prod", Digest: simDigest(1, 1), Actor: "eve"})
		m.advance(w, func(run *fold.Run) bool {
			return run.Env("prod").Slot > 0 && w.Story.App("a").Env("prod").Live() != nil
		})
		w.Story.Verified("a", 1, "prod", 1, 1, events.Error)
		m.say(order{Verb: events.VerbSkip, App: "a", Run: 1, Stage: fold.StageVerify, Env: "prod", Reason: "why"}, people[1])
		m.say(order{Verb: events.VerbSkip, App: "a", Run: 1, Stage: fold.StageVerify, Reason: "why"}, people[1])
	},
}

// advance has the workers go on well with app a's newest run until it has come where it is wanted.
func (m *model) advance(w *simulation.World, there func(*fold.Run) bool) {
	for {
		a := w.Story.App("a")
		run := a.Newest()
		if there(run) {
			return
		}
		before := len(w.Story.Records(0))
		m.goOn(w, a, run, true)
		if len(w.Story.Records(0)) == before {
			panic(fmt.Sprintf("%s never comes there: %+v", run.Name(), *run))
		}
	}
}

// simDigest is of the image that an attempt at building a run makes.
func simDigest(run, attempt int) string { return foldtest.Digest(fmt.Sprint("run", run, "-", attempt)) }

func simDefinition(app events.Slug) pipeline.Definition {
	return foldtest.Definition(fmt.Sprintf("app: %s\nservice: {port: 8080}\nenvironments: [{name: dev}, {name: prod}]\n", app))
}

// door is one process's way to the ledger, which may fail.
type door struct {
	*simulation.Process
	m *model
}

func (d door) Append(ctx context.Context, s events.Subject, e events.Event) (ledger.Record, error) {
	if err := d.Effect(func() {}); err != nil {
		return ledger.Record{}, err
	}
	return d.Process.Append(ctx, s, e)
}

func (d door) Written(ctx context.Context, s events.Subject) (ledger.Record, bool, error) {
	if d.m.blind == toAnswers {
		return ledger.Record{}, false, nil
	}
	return d.Process.Written(ctx, s)
}

// App returns an app as the blind gateway sees it.
func (d door) App(name events.Slug) *fold.App {
	a := d.Process.App(name)
	if a == nil || d.m.blind == seeing {
		return a
	}
	seen := *a
	if d.m.blind == toHolds {
		seen.Hold = nil
	}
	for run := range a.Runs.All() {
		r := *run
		r.Envs = nil
		stages := []*fold.Stage{&r.Build, &r.Vet}
		for _, e := range run.Envs {
			env := *e
			r.Envs = append(r.Envs, &env)
			stages = append(stages, &env.Promote, &env.Verify)
		}
		for _, s := range stages {
			switch {
			case d.m.blind == toAttempts:
				s.Attempt = 1
			case d.m.blind == toFailures && s.Attempt > 1 && s.Status == fold.Stuck:
				s.Status, s.Outcome = fold.Done, events.Success
			case d.m.blind == toWork && s.Attempt > 1 && (s.Status == fold.Pending || s.Status == fold.Running):
				s.Status = fold.Waiting
			}
		}
		if d.m.blind == toEnds {
			r.Cancelled = nil
		}
		seen.Runs = seen.Runs.With(&r)
	}
	if d.m.blind == toClosings {
		seen.Envs = map[events.Slug]*fold.Env{}
		for name, env := range a.Envs {
			copied := *env
			for slot := range env.Slots.All() {
				s := *slot
				if s.Decision == events.Live {
					s.Closing = events.Verified
				}
				copied.Slots = copied.Slots.With(&s)
			}
			seen.Envs[name] = &copied
		}
	}
	return &seen
}

func (d door) Replays() []fold.Command {
	all := d.Process.Replays()
	now := &knowledge{open: all, apps: map[events.Slug]*fold.App{}}
	for _, a := range d.Process.Apps() {
		now.apps[a.Name] = a
	}
	d.m.replaying[d.Process] = now
	if d.m.blind == toNewer && len(all) > 1 {
		return all[:1]
	}
	return all
}

func (d door) noApp(name events.Slug) *problem { return notFound("finding app", string(name), "", "") }

func (d door) scope(_ context.Context, o order, app *fold.App, actor identity.Actor) (scope, error) {
	d.m.known[o.ID] = append(d.m.known[o.ID], d.Process.App(o.App))
	rule := approval
	switch d.m.blind {
	case toAuthors:
		rule.AuthorMayApprove = true
	case toRoles:
		rule.Approvers = nil
	}
	rules := func(env events.Slug) policy.Approval {
		if env == "prod" {
			return rule
		}
		return policy.Approval{}
	}
	in := scope{
		app: app, held: d.Held(), actor: actor.ID, roles: actor.Roles, newest: d.CurrentPolicy().Digest,
		rule:    func(_ *fold.Run, env events.Slug) policy.Approval { return rules(env) },
		ruleBy:  func(_ string, _ *fold.Run, env events.Slug) policy.Approval { return rules(env) },
		maySkip: func(_ *fold.Run, env events.Slug) bool { return env == "dev" || d.m.blind == toSkips },
	}
	if o.AllStuck {
		in.apps = nil
		for _, a := range d.Process.Apps() {
			in.apps = append(in.apps, d.App(a.Name))
		}
	}
	return in, nil
}

// desk is the one of a process.
func (m *model) desk(p *simulation.Process) *desk {
	now := life{p, p.Starts}
	if m.desks[now] == nil || m.blind == toAnswers {
		d := door{p, m}
		m.desks[now] = &desk{book: d, grounds: d, logger: slog.New(slog.DiscardHandler)}
	}
	if m.house == nil {
		m.house = p
	}
	return m.desks[now]
}

// handle lets one process do one of the things that it has to do.
func (m *model) handle(p *simulation.Process, _ ledger.Record) error {
	d := m.desk(p)
	ctx := context.Background()
	switch n := p.World.Rand.IntN(4); {
	case n == 0:
		if m.replaying[p] != nil {
			return nil
		}
		defer delete(m.replaying, p)
		_, err := d.replayNext(ctx)
		return err
	case n == 1 && p == m.house && len(m.begun) > 0:
		return m.push(ctx, p, d)
	case len(m.waiting) > 0:
		return m.answer(ctx, p, d, m.waiting[p.World.Rand.IntN(len(m.waiting))])
	}
	return nil
}

// push takes the steps of Service.start, for the oldest push of its app that is not recorded.
func (m *model) push(ctx context.Context, p *simulation.Process, d *desk) error {
	c := m.begun[0]
	if m.pushing[c.app] {
		return nil
	}
	m.pushing[c.app] = true
	defer delete(m.pushing, c.app)
	p.CatchUp()
	if m.blind == toPushes {
		c.id, c.rebuild = "", true
	}
	begun, err := d.start(ctx, c, policy.Policy{})
	if err != nil {
		return err
	}
	p.World.Seen["pushed"]++
	// Git's log is looked at again after a crash, and has it again.
	if p.World.Rand.IntN(3) > 0 || p.World.Budget == 0 {
		m.begun = slices.DeleteFunc(m.begun, func(one change) bool { return one.now == c.now })
	}
	if begun.run.Start.SHA != string(c.now) {
		return fmt.Errorf("the push of %s is run %s", c.now, begun.run.Name())
	}
	return nil
}

// answer follows an order that somebody waits for.
func (m *model) answer(ctx context.Context, p *simulation.Process, d *desk, id string) error {
	asked := m.said[id]
	o := asked.order
	if m.blind == toIDs {
		m.next++
		o.ID = fmt.Sprintf("%s-%d", id, m.next)
		m.said[o.ID] = asks{o, asked.by}
	}
	if m.blind == toDigests {
		o.Digest = ""
	}
	_, followed := m.effects[id]
	got, err := d.command(ctx, speaker{actor: asked.by, channel: "http"}, o)
	var why *problem
	switch {
	case errors.As(err, &why):
		p.World.Seen["refused"]++
		// Said at two doors at the same moment, it may be refused at one of them; but never later.
		if followed {
			return m.wrong(p, fmt.Errorf("order %s %+v was followed, and is refused now: %w", id, o, why))
		}
	case err != nil:
		return err // they say it again
	default:
		if first, told := m.answers[id]; told && first != got {
			return m.wrong(p, fmt.Errorf("order %s %+v was answered with %+v, and with %+v now", id, o, first, got))
		}
		m.answers[id] = got
	}
	if i := slices.Index(m.waiting, id); i >= 0 {
		m.waiting = slices.Delete(m.waiting, i, i+1)
	}
	return nil
}

func (m *model) wrong(p *simulation.Process, err error) error {
	p.World.Fail(err)
	return nil
}

// people are who gives orders: ann writes every change.
var people = []identity.Actor{
	{ID: "ann", Roles: []string{identity.RoleApprover}}, {ID: "bob", Roles: []string{identity.RoleOperator}},
	{ID: "eve", Roles: []string{identity.RoleApprover}},
}

// say has somebody give an order.
func (m *model) say(o order, by identity.Actor) {
	o.ID = fmt.Sprintf("order-%04d", len(m.said)+1)
	m.said[o.ID] = asks{o, by}
	m.waiting = append(m.waiting, o.ID)
}

// others lets somebody push, say something, or say it again, and lets the workers go on.
func (m *model) others(w *simulation.World) {
	apps := w.Truth.Apps()
	app := apps[w.Rand.IntN(len(apps))]
	run := app.Run(1 + w.Rand.IntN(app.Runs.Len()))
	switch n := w.Rand.IntN(16); {
	case n == 0:
		if app.Runs.Len()+len(m.begun) < 4 {
			sha := git.Commit(fmt.Sprintf("%040x", 1000+len(m.begun)+app.Runs.Len()*10+w.Rand.IntN(1<<20)<<8))
			m.begun = append(m.begun, change{
				app: app.Name, ref: "refs/heads/main", now: sha, definition: simDefinition(app.Name), actor: "ann", authors: []string{"ann"}, id: "push-" + string(sha),
			})
		}
	case n == 1 && len(m.said) > 0:
		w.Seen["said twice"]++
		m.waiting = append(m.waiting, fmt.Sprintf("order-%04d", 1+w.Rand.IntN(m.orders())))
	case n < 9:
		o := order{App: app.Name, Run: run.N, Reason: "why"}
		o.Verb = verbs[w.Rand.IntN(len(verbs))]
		if w.Rand.IntN(2) == 0 {
			o.Env = []events.Slug{"dev", "prod"}[w.Rand.IntN(2)]
		}
		switch o.Verb {
		case events.VerbHold, events.VerbResume:
			o.Run, o.Env = 0, ""
		case events.VerbRollback:
			o.Run = 0
		case events.VerbSkip:
			o.Stage = fold.StageVerify
		case events.VerbApprove, events.VerbDeny:
			if run.Artifact != nil && w.Rand.IntN(2) == 0 {
				o.Digest = simDigest(run.N, 1+w.Rand.IntN(run.Build.Attempt)) // where they looked at an old page
			}
		case events.VerbReplay:
			switch w.Rand.IntN(4) {
			case 0:
				o.Stage, o.Env = fold.StageBuild, ""
			case 1, 2:
				o = order{Verb: events.VerbReplay, AllStuck: true, Reason: "after the outage"}
			}
		}
		m.say(o, people[w.Rand.IntN(len(people))])
	default:
		m.work(w, app, run)
	}
}

// orders counts what people said.
func (m *model) orders() int {
	n := 0
	for id := range m.said {
		if len(id) == len("order-0001") {
			n++
		}
	}
	return n
}

// work lets the worker whose turn it is go on: end well, or end in an error.
func (m *model) work(w *simulation.World, a *fold.App, run *fold.Run) {
	if run.Cancelled != nil || run.SupersededBy != 0 {
		return
	}
	m.goOn(w, a, run, w.Rand.IntN(3) > 0)
}

func (m *model) goOn(w *simulation.World, a *fold.App, run *fold.Run, good bool) {
	digest := simDigest(run.N, run.Build.Attempt)
	switch next := run.Next(); {
	case !run.Build.Ended() && good:
		w.Story.Built(a.Name, run.N, run.Build.Attempt, digest)
	case !run.Build.Ended():
		b := &events.TaskRunFinished{About: events.About{ID: run.Name()}, TaskName: "build", Outcome: events.Error, Errors: "the engine is away"}
		w.Story.Write(events.BuildSubject(foldtest.Epoch, b.Type(), a.Name, run.N, "", run.Build.Attempt), run.ChainID, b)
	case run.Artifact == nil || run.Build.Outcome != events.Success:
	case !run.Vet.Ended():
		w.Story.Vetted(a.Name, run.N, run.Vet.Attempt, run.Artifact.Digest, []events.Slug{"dev", "prod"})
	case next == nil:
	case next.Slot == 0 && !next.Promote.Ended():
		m.promote(w, a, run, next, good)
	default:
		m.verify(w, a, run, next, good)
	}
}

func (m *model) promote(w *simulation.World, a *fold.App, run *fold.Run, e *fold.RunEnv, good bool) {
	last := a.Env(e.Name).Last()
	approved := slices.ContainsFunc(e.Responses, func(c fold.Command) bool { return c.Verb == events.VerbApprove })
	switch {
	case e.Name == "prod" && !approved && e.Requested == nil:
		b := &events.PipelineRunQueued{Waiting: events.Waiting{Environment: e.Name, Attempt: e.Promote.Attempt, Reason: "0 of 1", For: "an approver"}}
		b.ID = run.Name()
		subject := events.PromoteSubject(foldtest.Epoch, b.Type(), a.Name, run.N, e.Name, "why", e.Promote.Attempt)
		if _, there := w.Story.Has(subject); !there {
			w.Story.Write(subject, run.ChainID, b)
		}
	case !good:
		b := &events.PipelineRunFinished{About: events.About{ID: run.Name()}, Outcome: events.Error}
		b.Result = events.Result{Environment: e.Name, Attempt: e.Promote.Attempt, Trouble: &events.Trouble{What: "deploying", Why: "no engine"}}
		w.Story.Write(events.PromoteSubject(foldtest.Epoch, b.Type(), a.Name, run.N, e.Name, "", e.Promote.Attempt), run.ChainID, b)
	case last == nil || !last.Open():
		n := a.Env(e.Name).Slots.Len() + 1
		b := &events.SlotTaken{Slot: n, Run: run.N, Attempt: e.Promote.Attempt, Digest: run.Artifact.Digest, ArtifactID: run.ArtifactID, Kind: events.KindDeploy, Environment: e.Name}
		b.ID = fmt.Sprintf("%s/%s/%d", a.Name, e.Name, n)
		w.Story.Write(events.SlotSubject(foldtest.Epoch, b.Type(), a.Name, e.Name, n), run.ChainID, b)
	}
}

// close says what became of a slot of app a.
func (m *model) close(w *simulation.World, env events.Slug, n int, c events.Closing) {
	b := &events.SlotClosed{About: events.About{ID: fmt.Sprintf("a/%s/%d", env, n)}, Slot: n, Closing: c, Environment: env}
	w.Story.Write(events.SlotSubject(foldtest.Epoch, b.Type(), "a", env, n), "", b)
}

func (m *model) verify(w *simulation.World, a *fold.App, run *fold.Run, e *fold.RunEnv, good bool) {
	s := a.Env(e.Name).Slot(e.Slot)
	about := func(n int) events.About { return events.About{ID: fmt.Sprintf("%s/%s/%d", a.Name, e.Name, n)} }
	switch {
	case s == nil:
	case s.Decision == "":
		b := &events.SlotDecided{About: about(s.N), Slot: s.N, Decision: events.Live, Environment: e.Name}
		w.Story.Write(events.SlotSubject(foldtest.Epoch, b.Type(), a.Name, e.Name, s.N), run.ChainID, b)
	case s.Decision == events.Live && s.Trial == nil && s.Open():
		o := events.Success
		if !good {
			o = events.Error
		}
		w.Story.Verified(a.Name, run.N, e.Name, s.N, e.Verify.Attempt, o)
	case s.Trial != nil && s.Trial.Outcome == events.Success && s.Open():
		b := &events.SlotClosed{About: about(s.N), Slot: s.N, Closing: events.Verified, Environment: e.Name}
		w.Story.Write(events.SlotSubject(foldtest.Epoch, b.Type(), a.Name, e.Name, s.N), run.ChainID, b)
	}
}

// settle has whoever got no answer ask until there is one, and the workers end what was replayed.
func (m *model) settle(w *simulation.World) bool {
	if len(m.waiting) > 0 || len(m.begun) > 0 {
		return true
	}
	for _, id := range slices.Sorted(maps.Keys(m.effects)) {
		if _, told := m.answers[id]; !told && m.blind != toIDs {
			m.waiting = append(m.waiting, id)
			return true
		}
	}
	for _, c := range w.Truth.Replays() {
		for _, g := range c.Groups {
			for _, t := range g.Stages {
				if r, _ := became(c.ID, t, w.Truth.App(t.App)); r == view.UnderWay {
					m.work(w, w.Truth.App(t.App), w.Truth.App(t.App).Run(t.Run))
					return true
				}
			}
		}
	}
	return len(w.Truth.Replays()) > 0
}

// stored checks what the gateway writes, as far as the process that wrote it can know.
func (m *model) stored(w *simulation.World, p *simulation.Process, r ledger.Record) error {
	switch b := r.Event.Body.(type) {
	case *events.ChangeMerged:
		a := w.Truth.App(r.Subject.App)
		for run := range a.Runs.All() {
			if run.Start.SHA == b.Run.SHA {
				return fmt.Errorf("%s was pushed once and is %s, and another run", b.Run.SHA, run.Name())
			}
		}
	case *events.CommandReceived:
		if err := m.once(r.Subject, b.SubjectID()); err != nil {
			return err
		}
		w.Seen[b.Verb]++
		if b.Repeats != "" {
			w.Seen["said again"]++
		}
		if b.Verb == events.VerbReplay {
			w.Seen["replay all"]++
			return nil
		}
		return m.judged(b.SubjectID(), func(a *fold.App) error { return m.sensible(a, b.SubjectID(), b.Command) })
	case *events.ReplayRequested:
		if b.Parent != "" {
			return m.part(w, p, r.Subject, b)
		}
		w.Seen["replay"]++
		if err := m.once(r.Subject, b.SubjectID()); err != nil {
			return err
		}
		return m.judged(b.SubjectID(), func(a *fold.App) error {
			run := a.Run(r.Subject.Run)
			if run == nil {
				return fmt.Errorf("%s of a run that is not known is replayed", b.Stage)
			}
			stage, _ := run.Stage(b.Stage, b.Environment)
			switch {
			case b.Attempt != stage.Attempt:
				return fmt.Errorf("attempt %d of %s %s is replayed, and it is in attempt %d", b.Attempt, run.Name(), b.Stage, stage.Attempt)
			case run.SupersededBy != 0:
				return fmt.Errorf("%s is replayed, and another took its place", run.Name())
			case b.Stage == fold.StagePromote && len(denialsOf(run, run.Env(b.Environment))) > 0:
				return fmt.Errorf("%s is replayed for %s, and was denied", run.Name(), b.Environment)
			}
			return nil
		})
	case *events.CommandFinished:
		w.Seen["finished"]++
	}
	return nil
}

// once checks that what was said once has one effect.
func (m *model) once(subject events.Subject, id string) error {
	said := id[:min(len(id), len("order-0001"))]
	if first, ok := m.effects[said]; ok {
		return fmt.Errorf("order %s has the effects %s and %s", said, first, subject)
	}
	m.effects[said] = subject
	return nil
}

// judged checks an order that was followed against what a process knew: any of those at which it was said.
func (m *model) judged(id string, check func(*fold.App) error) (err error) {
	for _, a := range m.known[id] {
		if err = check(a); err == nil {
			return nil
		}
	}
	return err
}

// sensible checks an order that was followed against what a process knew.
func (m *model) sensible(a *fold.App, id string, c events.Command) error {
	asked := m.said[id[:min(len(id), len("order-0001"))]]
	run := a.Run(c.Run)
	if run == nil && c.Run > 0 {
		return fmt.Errorf("%s of a run that is not known", c.Verb)
	}
	if c.Actor != asked.by.ID || c.Verb != asked.order.Verb {
		return fmt.Errorf("%s %s is recorded, and %s said %s", c.Actor, c.Verb, asked.by.ID, asked.order.Verb)
	}
	if c.Repeats != "" {
		if !slices.ContainsFunc(run.Env(c.Environment).Responses, func(r fold.Command) bool {
			return r.ID == c.Repeats && r.Verb == c.Verb && r.Actor == c.Actor && r.Digest == c.Digest
		}) {
			return fmt.Errorf("%s %s again, as in %s, and did not", c.Actor, c.Verb, c.Repeats)
		}
		return nil
	}
	switch c.Verb {
	case events.VerbHold, events.VerbResume:
		if (c.Verb == events.VerbHold) == (a.Hold != nil) {
			return fmt.Errorf("%s of %s, which has the hold %+v", c.Verb, a.Name, a.Hold)
		}
		return nil
	case events.VerbRollback:
		if slot := a.Env(c.Environment).Slot(c.Slot); slot == nil || slot.Closing != events.Verified && slot.Closing != events.Unverified || slot.Digest != c.Digest {
			return fmt.Errorf("%s goes back to slot %d of %s: %+v", a.Name, c.Slot, c.Environment, slot)
		}
		return nil
	case events.VerbPromote:
		if no := denialsOf(run, run.Env(c.Environment)); len(no) > 0 {
			return fmt.Errorf("%s promotes %s to %s, which %s denied", c.Actor, run.Name(), c.Environment, no[0].Actor)
		}
	case events.VerbApprove, events.VerbDeny:
		takenBack := c.Verb == events.VerbApprove && (c.Environment != "prod" || slices.Contains(asked.by.Roles, identity.RoleApprover)) &&
			slices.ContainsFunc(denialsOf(run, run.Env(c.Environment)), func(no fold.Command) bool { return no.Actor == c.Actor })
		switch {
		case run.Artifact == nil || c.Digest != run.Artifact.Digest, asked.order.Digest != "" && asked.order.Digest != c.Digest:
			return fmt.Errorf("%s of %s for %s, they looked at %s, and it is %+v", c.Verb, run.Name(), c.Digest, asked.order.Digest, run.Artifact)
		case takenBack:
			return nil // whatever became of the run, and whoever wrote it
		case c.Verb == events.VerbApprove && slices.Contains(run.Start.Authors, c.Actor):
			return fmt.Errorf("%s approves what they wrote", c.Actor)
		case c.Verb == events.VerbApprove && !slices.Contains(asked.by.Roles, identity.RoleApprover):
			return fmt.Errorf("%s, who is no approver, approves", c.Actor)
		}
	case events.VerbSkip:
		if c.Environment != "dev" {
			return fmt.Errorf("the verification of %s in %s is skipped", run.Name(), c.Environment)
		}
	}
	if c.Verb != events.VerbPromote && (run.Cancelled != nil || run.SupersededBy != 0) {
		return fmt.Errorf("%s of %s, which has ended", c.Verb, run.Name())
	}
	return nil
}

// part checks one replay of all that are asked for after an outage.
func (m *model) part(w *simulation.World, p *simulation.Process, s events.Subject, b *events.ReplayRequested) error {
	w.Seen["part"]++
	now := m.replaying[p]
	open := now.open
	i := slices.IndexFunc(open, func(c fold.Command) bool { return c.ID == b.Parent })
	if i < 0 {
		return fmt.Errorf("a part of %s, which is not open", b.Parent)
	}
	if i < len(open)-1 {
		return fmt.Errorf("a part of %s, after which %s came", b.Parent, open[len(open)-1].ID)
	}
	under, alike := now.begun, 0
	now.begun++
	for _, g := range open[i].Groups {
		failed := 0
		mine := false
		for _, t := range g.Stages {
			app, run := now.apps[t.App], now.apps[t.App].Run(t.Run)
			stage, _ := run.Stage(t.Stage, t.Environment)
			mine = mine || t.App == s.App && t.Run == s.Run
			if stage.Replay == nil || stage.Replay.Parent != b.Parent || stage.Attempt != t.Attempt+1 {
				continue
			}
			// Somebody may have begun an earlier stage of the run anew meanwhile, where it stopped.
			status := run.Status()
			overtaken := status == fold.Stuck || status == fold.Failed || status == fold.Refused
			switch {
			case stage.Status == fold.Stuck:
				w.Seen["stopped again"]++
				failed++
			case stage.Status == fold.Pending, stage.Status == fold.Running:
				if app.Hold == nil && run.Cancelled == nil && run.SupersededBy == 0 && !overtaken {
					under++
				}
			}
		}
		if mine {
			alike = failed
		}
	}
	switch {
	case under >= 2:
		return fmt.Errorf("%d replays are under way, and another begins", under)
	case alike >= 3:
		return fmt.Errorf("%d failed alike, and another is tried", alike)
	}
	return nil
}

// rest checks that everything that was said was answered, everything pushed is one run, and what was begun has ended.
func (m *model) rest(w *simulation.World) error {
	for id, answer := range m.answers {
		if len(id) != len("order-0001") || answer.Seq == 0 {
			return fmt.Errorf("order %s was answered with %+v", id, answer)
		}
	}
	for id, subject := range m.effects {
		if _, told := m.answers[id]; !told && m.blind != toIDs {
			return fmt.Errorf("order %s was followed (%s), and nobody was told", id, subject)
		}
	}
	for _, a := range w.Truth.Apps() {
		for run := range a.Runs.All() {
			if run.Start.Predecessor != run.N-1 {
				return fmt.Errorf("%s follows run %d", run.Name(), run.Start.Predecessor)
			}
		}
	}
	if open := w.Truth.Replays(); len(open) > 0 {
		return fmt.Errorf("a replay of all that is stuck never ends: %+v", open)
	}
	return nil
}
