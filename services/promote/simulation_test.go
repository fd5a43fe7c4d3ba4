package promote

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/worker"
)

// The simulation runs the real decisions and the real loop around them, several processes at once, against
// a ledger and an engine in memory. Each call that leaves the process is a point where it may be overtaken,
// cut off or killed; folds lag behind the ledger; messages come late, twice, in any order and to any
// process. A checker that knows nothing of decide watches the ledger, the traffic and the replicas.
var (
	schedules = flag.Int("schedules", schedulesFromEnvironment(), "how many schedules the simulation runs (TOWPATH_SCHEDULES)")
	firstSeed = flag.Uint64("seed", 1, "the simulation's first seed; a failure names the one that shows it")
	narrate   = flag.Bool("narrate", false, "print what happens in the simulation: for one schedule")
)

func schedulesFromEnvironment() int {
	n, err := strconv.Atoi(os.Getenv("TOWPATH_SCHEDULES"))
	if err != nil {
		return 800
	}
	return n
}

// sabotage breaks one guard, so that the checker can be seen to notice.
type sabotage int

const (
	nothing         sabotage = iota
	noCommitPoint            // traffic is switched as soon as the replicas are ready, before the slot is decided
	noGreaterSlot            // traffic may go back to a smaller slot
	noWriteOnce              // a decision may be written over
	cleansTooMuch            // what an unknown newer slot needs is removed too
	adoptsAnything           // a replica is taken over by its name although its digest is another
	razesEarly               // an environment is razed although something of it may come up
	forgetsSettings          // an environment is said to be gone although it has settings
	endsUnfenced             // an environment is taken for empty when nothing runs, without a slot that says so
	razesLater               // what is razed goes with all that came later
	guessesSettings          // a run whose settings cannot be read is let in all the same
)

func TestSimulation(t *testing.T) {
	begun := time.Now()
	failed, seen := simulate(*schedules, nothing, false)
	if len(failed) > 0 {
		for _, f := range failed[:min(3, len(failed))] {
			t.Errorf("seed %d: %v", f.seed, f.err)
		}
		t.Fatalf("%d of %d schedules went wrong; see one with -run TestSimulation -schedules 1 -narrate -seed %d",
			len(failed), *schedules, failed[0].seed)
	}
	t.Logf("%d schedules, 0 wrong, %.0f/s; seen: %v", *schedules, float64(*schedules)/time.Since(begun).Seconds(), seen)
	for _, what := range simMustSee {
		if seen[what] == 0 && *schedules >= 800 {
			t.Errorf("no schedule came to %q: the simulation says nothing of it", what)
		}
	}
}

// simMustSee is what the schedules have to come to, to say anything.
var simMustSee = []string{
	"take deploy", "take rollback", "take restore", "take remove", "take create", "live", "created", "modified", "expired", "deleted", "created again",
	"abandoned cancel", "abandoned failure", "abandoned error",
	"close verified", "close rejected", "close superseded",
	"finished success", "finished failure", "finished error", "finished cancel",
	"queued", "requested", "approved", "denied", "replayed", "deployed", "upgraded", "rolledback", "removed",
	"process killed", "given up", "taken while settings cannot be read", "slot decided by two", "effect cut off", "several processes",
}

func TestSimulationNoticesBrokenGuards(t *testing.T) {
	for name, s := range map[string]sabotage{
		"traffic before the commit point": noCommitPoint, "traffic may go back": noGreaterSlot,
		"decisions may be written over": noWriteOnce, "cleaning removes what is newer": cleansTooMuch,
		"adopting without looking": adoptsAnything, "razing early": razesEarly, "forgetting settings": forgetsSettings,
		"ending without a slot": endsUnfenced, "razing what came later": razesLater, "guessing settings": guessesSettings,
	} {
		t.Run(name, func(t *testing.T) {
			if *schedules > 10_000 {
				failed, _ := simulate(10_000, s, false)
				t.Logf("noticed in %d of 10000 schedules", len(failed))
			}
			failed, _ := simulate(100_000, s, true)
			if len(failed) == 0 {
				t.Fatal("the checker saw nothing in 100,000 schedules")
			}
			t.Logf("noticed first with seed %d: %v", failed[0].seed, failed[0].err)
		})
	}
}

type failure struct {
	seed uint64
	err  error
}

// simulate runs n schedules and returns those that went wrong, and how often what was seen; where one is
// enough, it stops there.
func simulate(n int, s sabotage, one bool) (failed []failure, seen map[string]int) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	var next atomic.Uint64
	var mu sync.Mutex
	seen = map[string]int{}
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= uint64(n) {
					return
				}
				m := newSim(*firstSeed+i, s)
				err := m.run()
				mu.Lock()
				for what, times := range m.seen {
					seen[what] += times
				}
				if err != nil {
					failed = append(failed, failure{*firstSeed + i, err})
					if one {
						next.Store(uint64(n))
					}
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	slices.SortFunc(failed, func(a, b failure) int { return int(a.seed) - int(b.seed) })
	return failed, seen
}

const simApp events.Slug = "hello"

// sim is one schedule.
type sim struct {
	rng      *rand.Rand
	sabotage sabotage
	story    *foldtest.Ledger
	truth    *fold.Fold // of everything that is stored
	followed uint64     // how much of it was checked
	world    *world
	oracle   *oracle
	procs    []*proc
	mail     []*message
	current  *task
	chaos    bool // faults may happen
	outage   bool // the engine is away
	unread   bool // the store of settings is
	budget   int  // how much people still do
	orders   int  // how much they still do to environments as a whole
	policy   string
	defs     []pipeline.Definition
	bad      map[string]events.Outcome // digests whose replicas never become healthy, or fail verification
	sick     map[string]bool
	missing  map[events.Slug]bool // environments where a setting has no value
	left     map[events.Slug]bool // environments that have settings of their own
	seen     map[string]int
	err      error
}

var simDefinitions = func() []pipeline.Definition {
	var all []pipeline.Definition
	for _, text := range []string{"", "onNewer: queue\n", "release: [migrate]\n"} {
		all = append(all, foldtest.Definition("app: hello\n"+text+
			"service: {port: 8080, replicas: 2}\nconfig: [KEY]\nenvironments: [{name: dev}, {name: prod, approvals: 1}]\n"))
	}
	return all
}()

func newSim(seed uint64, s sabotage) *sim {
	m := &sim{
		rng: rand.New(rand.NewPCG(seed, 7)), sabotage: s, story: foldtest.New(), truth: fold.New(),
		bad: map[string]events.Outcome{}, sick: map[string]bool{}, missing: map[events.Slug]bool{}, left: map[events.Slug]bool{},
		chaos: true, seen: map[string]int{},
	}
	m.world = newWorld(m)
	m.oracle = &oracle{sim: m, discovery: map[events.Slug]int{}}
	m.policy = m.story.Policy(1, "{}")
	m.defs = []pipeline.Definition{simDefinitions[m.rng.IntN(len(simDefinitions))]}
	m.budget, m.orders = 4+m.rng.IntN(14), m.rng.IntN(10)
	if m.rng.IntN(4) == 0 {
		m.opening()
	}
	n := 1 + m.rng.IntN(3)
	m.seen["several processes"] = n - 1
	for i := range n {
		m.procs = append(m.procs, &proc{sim: m, id: i, fold: fold.New()})
		m.procs[i].start()
	}
	return m
}

// opening has a run verified in dev, and an environment made from there, before any process starts.
func (m *sim) opening() {
	m.push(nil)
	m.story.Built(simApp, 1, 1, foldtest.Digest("run1-1"))
	m.story.Vetted(simApp, 1, 1, foldtest.Digest("run1-1"), []events.Slug{"dev", "prod"})
	run := m.story.App(simApp).Run(1)
	slot := func(b events.Body) {
		m.story.Write(events.SlotSubject(foldtest.Epoch, b.Type(), simApp, "dev", 1), run.ChainID, b)
	}
	about, instances := events.About{ID: "hello/dev/1"}, []events.Instance{{ID: "dev-1-0"}, {ID: "dev-1-1"}}
	slot(&events.SlotTaken{
		About: about, Slot: 1, Run: 1, Attempt: 1, Kind: events.KindDeploy, Environment: "dev",
		ArtifactID: run.ArtifactID, Repository: run.Artifact.Repository, Digest: run.Artifact.Digest, Pins: events.Pins{Config: map[string]uint64{"KEY": 1}},
	})
	for _, i := range instances {
		m.world.containers[i.ID] = replica{"dev", 1, run.Artifact.Digest}
	}
	slot(&events.SlotDecided{About: about, Slot: 1, Decision: events.Live, Environment: "dev", Instances: instances})
	m.sync()
	m.world.discover("dev", 1, instances)
	m.story.Verified(simApp, 1, "dev", 1, 1, events.Success)
	slot(&events.SlotClosed{About: about, Slot: 1, Closing: events.Verified, Environment: "dev"})
	m.sync()
	m.orders += 5
	m.environment(m.truth.App(simApp))
}

func (m *sim) run() error {
	defer m.stop()
	for step := 0; m.err == nil && (m.budget > 0 || step < 50); step++ {
		m.act()
	}
	m.settleDown()
	if m.err == nil {
		m.err = m.oracle.rest()
	}
	return m.err
}

func (m *sim) stop() {
	for _, p := range m.procs {
		p.kill()
	}
}

func (m *sim) say(format string, a ...any) {
	if *narrate {
		fmt.Printf(format+"\n", a...)
	}
}

func (m *sim) fail(format string, a ...any) {
	if m.err == nil {
		m.err = fmt.Errorf("after event %d: "+format, append([]any{m.followed}, a...)...)
		m.say("WRONG: %v", m.err)
	}
}

// act lets one thing happen.
func (m *sim) act() {
	p := m.procs[min(m.rng.IntN(len(m.procs)), m.rng.IntN(len(m.procs)))] // some processes are slow
	switch n := m.rng.IntN(100); {
	case n < 60:
		p.step()
	case n < 72:
		m.deliver(p)
	case n < 82:
		p.follow(p.fold.Seq() + uint64(m.rng.IntN(4)))
	case n < 90:
		if m.rng.IntN(4) > 0 || !m.clears() {
			m.verifies()
		}
	case n < 98 || !m.chaos:
		m.people()
	case n < 99:
		m.say("process %d is killed", p.id)
		m.seen["process killed"]++
		p.kill()
		p.start()
	case m.rng.IntN(3) == 0:
		m.outage = !m.outage
	case m.rng.IntN(3) == 0:
		m.unread = !m.unread
	default:
		if len(m.story.Records(0)) > 1 { // an event is delivered again, although it was acknowledged
			records := m.story.Records(0)
			m.post(records[m.rng.IntN(len(records))])
		}
	}
}

// settleDown ends the faults and lets everything finish.
func (m *sim) settleDown() {
	m.chaos = false
	for _, p := range m.procs {
		p.kill()
		p.start()
	}
	for round := 0; m.err == nil; round++ {
		busy := len(m.mail) > 0
		for _, p := range m.procs {
			p.follow(m.truth.Seq())
			m.deliver(p)
			for len(p.tasks) > 0 && m.err == nil {
				busy = true
				p.step()
			}
		}
		if m.verifies() || m.clears() {
			busy = true
		}
		if !busy {
			return
		}
		if round > 500 {
			m.fail("it never comes to rest")
		}
	}
}

// sync lets what was stored take effect: on the truth, the checker, and whom it wakes.
func (m *sim) sync() {
	for _, r := range m.story.Records(m.followed) {
		m.followed = r.Seq
		m.say("%4d %s %+v", r.Seq, r.Subject, r.Event.Body)
		m.oracle.before(r)
		if err := m.truth.Apply(r); err != nil {
			m.fail("event contradicts the contract: %v", err)
		}
		m.oracle.after(r)
		m.post(r)
		m.note(r)
	}
}

// note counts what schedules come to.
func (m *sim) note(r ledger.Record) {
	if r.Subject.Writer != events.Promote {
		return
	}
	what := r.Subject.Predicate
	switch b := r.Event.Body.(type) {
	case *events.SlotTaken:
		what = "take " + string(b.Kind)
	case *events.SlotDecided:
		what = strings.TrimSpace(string(b.Decision) + " " + string(b.Outcome))
	case *events.SlotClosed:
		what = "close " + string(b.Closing)
	case *events.PipelineRunFinished:
		what = "finished " + string(b.Outcome)
	}
	m.seen[what]++
}

// message is an event on its way to a process that it wakes.
type message struct {
	record   ledger.Record
	open     int // tasks that are not done
	failed   *StepError
	untidy   bool // something of an environment as a whole could not be done
	last     bool // the environments as a whole are looked at, after all places
	failures int
}

func (m *sim) post(r ledger.Record) {
	for _, c := range events.Consumers {
		if c.Service == events.Promote && slices.Contains(c.Wakes, r.Event.Body.Type()) {
			m.mail = append(m.mail, &message{record: r})
		}
	}
}

// deliver hands a message to a process.
func (m *sim) deliver(p *proc) {
	if len(m.mail) == 0 {
		return
	}
	i := 0
	if m.chaos {
		i = m.rng.IntN(len(m.mail))
	}
	msg := m.mail[i]
	m.mail = slices.Delete(m.mail, i, i+1)
	p.follow(msg.record.Seq)
	if p.fold.App(simApp) == nil {
		return
	}
	m.say("     process %d handles event %d", p.id, msg.record.Seq)
	msg.failed = nil
	p.handle(msg)
}

// proc is one promote process.
type proc struct {
	sim      *sim
	id       int
	fold     *fold.Fold
	promoter *promoter
	tasks    []*task
	watches  []*watch
}

type watch struct {
	at     Place
	slot   int
	cancel context.CancelCauseFunc
}

func (p *proc) start() {
	p.follow(p.sim.truth.Seq())
	p.promoter = &promoter{
		epoch: foldtest.Epoch, url: "http://gateway", ledger: p, effects: p, gates: p, turns: newTurns(),
		logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if p.fold.App(simApp) != nil { // what it does when it starts
		p.begin(&message{last: true}, p.sweep)
		p.handle(&message{})
	}
}

// handle begins what Service.Handle does: all places, and then the environments as a whole, which come first as well where
// the message is about no app.
func (p *proc) handle(msg *message) {
	msg.last = false
	places := func() {
		for _, env := range Environments(p.fold.App(simApp)) {
			p.spawn(msg, Place{simApp, env}, nil)
		}
	}
	if msg.record.Subject.App != "" {
		places()
		return
	}
	p.begin(msg, func() error {
		err := p.settleEnvironments()
		places()
		return err
	})
}

// kill cuts every task off. What was not acknowledged is delivered again.
func (p *proc) kill() {
	for _, t := range p.tasks {
		t.stop()
	}
	for _, t := range p.tasks {
		if t.msg.open > 0 && t.msg.record.Seq > 0 {
			p.sim.mail = append(p.sim.mail, t.msg)
			t.msg.open = 0
		}
	}
	p.tasks, p.watches = nil, nil
}

func (p *proc) follow(to uint64) {
	for _, r := range p.sim.story.Records(p.fold.Seq()) {
		if r.Seq > to {
			return
		}
		_ = p.fold.Apply(r) // the truth reports what contradicts the contract
		if b, ok := r.Event.Body.(*events.SlotDecided); ok {
			for _, w := range p.watches {
				if w.at.Env == b.Environment && w.slot == b.Slot {
					w.cancel(errDecided)
				}
			}
		}
	}
}

// task is one call of settle, which can be cut off wherever it leaves the process.
type task struct {
	msg  *message
	next func() (struct{}, bool)
	stop func()
	wait func(struct{}) bool
	err  error
}

// killed unwinds a task of a process that was killed.
type killed struct{}

func (p *proc) spawn(msg *message, at Place, giveUp *StepError) {
	p.begin(msg, func() error {
		if giveUp != nil {
			if err := p.promoter.giveUp(context.Background(), giveUp); err != nil {
				return err
			}
		}
		return p.promoter.settle(context.Background(), at, func() {
			for _, env := range Environments(p.fold.App(simApp)) {
				if env != at.Env {
					p.spawn(msg, Place{simApp, env}, nil)
				}
			}
		})
	})
}

// begin begins a part of handling a message.
func (p *proc) begin(msg *message, do func() error) {
	t := &task{msg: msg}
	msg.open++
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		defer func() {
			if v := recover(); v != nil && v != (killed{}) {
				panic(v)
			}
		}()
		t.wait = yield
		t.err = do()
	})
	p.tasks = append(p.tasks, t)
}

// settleEnvironments does what the service's method does.
func (p *proc) settleEnvironments() error {
	var errs []error
	for _, e := range p.fold.Environments() {
		if !e.Gone && (!e.Created || e.Ending != nil) {
			errs = append(errs, p.settleEnvironment(e.Name))
		}
	}
	return errors.Join(errs...)
}

// settleEnvironment takes the steps of the service's method.
func (p *proc) settleEnvironment(name events.Slug) error {
	whole := Place{Env: name}
	if _, ok := p.promoter.turns.begin(whole); !ok {
		return nil
	}
	for {
		var err error
		switch e := p.fold.Environment(name); {
		case e == nil:
		case e.Ending != nil:
			err = p.dissolve(e)
		case !e.Created:
			err = p.announce(e)
		}
		if !p.promoter.turns.end(whole) {
			return err
		}
	}
}

func (p *proc) announce(e *fold.Environment) error {
	about := events.About{ID: string(e.Name)}
	made := events.Made{From: e.Made.From, Command: e.Made.ID}
	if e.Since.Before(e.Made.At) {
		return p.sayOfEnvironment(e.Name, &events.EnvironmentModified{About: about, Name: string(e.Name), Made: made}, e.Made.ID)
	}
	return p.sayOfEnvironment(e.Name, &events.EnvironmentCreated{About: about, Name: string(e.Name), Made: made}, e.Made.ID)
}

// dissolve takes the steps of the service's method, with the service's own guards.
func (p *proc) dissolve(e *fold.Environment) error {
	s := &Service{rt: &worker.Runtime{Fold: p.fold, Logger: p.promoter.logger}, promoter: p.promoter}
	free, release := s.occupy(e.Name)
	if free {
		free = s.vacated(e.Name) || p.sim.sabotage == razesEarly || p.sim.sabotage == endsUnfenced && idle(p.fold.App(simApp).Env(e.Name))
	}
	var err error
	if free {
		err = p.promoter.effects.Raze(context.Background(), e.Name, s.slotsIn(e.Name))
	}
	release(context.Background())
	if !free || err != nil {
		return err
	}
	if err := p.fails(); err != nil || p.sim.left[e.Name] && p.sim.sabotage != forgetsSettings {
		return err
	}
	b := &events.EnvironmentDeleted{About: events.About{ID: string(e.Name)}, Name: string(e.Name), Made: events.Made{From: e.Made.From, Command: e.Ending.ID}}
	return p.sayOfEnvironment(e.Name, b, e.Ending.ID)
}

// sweep takes the steps of the service's method.
func (p *proc) sweep() error {
	if env := p.fold.App(simApp).Env(simMade); env.Gone {
		left, err := p.Left(context.Background(), []events.Slug{simMade})
		if err != nil || len(left) == 0 {
			return err
		}
		return p.Raze(context.Background(), simMade, map[events.Slug]int{simApp: env.Slots.Len()})
	}
	return nil
}

// idle reports whether nothing runs or comes up, as far as one process knows.
func idle(env *fold.Env) bool {
	live, last := env.Live(), env.Last()
	return (last == nil || !last.Open()) && (live == nil || live.Kind == events.KindRemove)
}

func (p *proc) sayOfEnvironment(env events.Slug, b events.Body, command string) error {
	e := events.New(events.Promote, p.sim.story.Now(), "", b)
	_, err := p.Append(context.Background(), events.EnvironmentSubject(foldtest.Epoch, events.Promote, b.Type(), env, command), e)
	if errors.As(err, new(*ledger.ExistsError)) {
		return nil
	}
	return err
}

// pause is where a task leaves the process.
func (p *proc) pause() {
	if t := p.sim.current; !t.wait(struct{}{}) {
		panic(killed{})
	}
}

// step lets one task go on to its next call.
func (p *proc) step() {
	if len(p.tasks) == 0 {
		return
	}
	i := p.sim.rng.IntN(len(p.tasks))
	if p.sim.chaos { // some tasks are slow
		i = max(i, p.sim.rng.IntN(len(p.tasks)))
	}
	t := p.tasks[i]
	p.sim.current = t
	_, going := t.next()
	p.sim.current = nil
	p.sim.sync()
	p.sim.oracle.traffic()
	if going {
		return
	}
	p.tasks = slices.Delete(p.tasks, slices.Index(p.tasks, t), slices.Index(p.tasks, t)+1)
	p.settleMessage(t)
}

// settleMessage does what package worker does: a message whose handling failed comes again, and after
// some failures is given up.
func (p *proc) settleMessage(t *task) {
	var failed *StepError
	if errors.As(t.err, &failed) {
		t.msg.failed = failed
	}
	t.msg.untidy = t.msg.untidy || t.err != nil && failed == nil
	if t.msg.open--; t.msg.open > 0 {
		return
	}
	if !t.msg.last {
		t.msg.last = true
		p.begin(t.msg, p.settleEnvironments)
		return
	}
	if t.msg.failed == nil {
		if t.msg.untidy && t.msg.record.Seq > 0 {
			t.msg.untidy = false
			p.sim.mail = append(p.sim.mail, t.msg)
		}
		return
	}
	t.msg.failures++
	if t.msg.failures >= 4 {
		failed, t.msg.failed, t.msg.failures = t.msg.failed, nil, 0
		p.sim.say("     process %d gives up: %v", p.id, failed)
		p.sim.seen["given up"]++
		t.msg.last = false
		p.spawn(t.msg, failed.Place, failed)
		return
	}
	p.sim.mail = append(p.sim.mail, t.msg)
}

// App implements Ledger.
func (p *proc) App(name events.Slug) *fold.App { return p.fold.App(name) }

// Append implements Ledger.
func (p *proc) Append(_ context.Context, s events.Subject, e events.Event) (ledger.Record, error) {
	p.pause()
	r, err := p.sim.story.Append(s, e)
	var exists *ledger.ExistsError
	if errors.As(err, &exists) {
		if p.sim.sabotage == noWriteOnce && s.Predicate == "decided" {
			again := s
			again.Attempt = len(p.sim.story.Records(0))
			r, err = p.sim.story.Append(again, e)
		} else {
			r = exists.Winner
		}
		if s.Predicate == "decided" {
			p.sim.seen["slot decided by two"]++
		}
	}
	p.sim.sync()
	p.pause() // stored, but not known to be
	p.follow(r.Seq)
	return r, err
}

// Undecided implements Ledger.
func (p *proc) Undecided(ctx context.Context, at Place, slot int) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if s := p.fold.App(at.App).Env(at.Env).Slot(slot); s == nil || s.Decision != "" {
		cancel(errDecided)
	}
	w := &watch{at, slot, cancel}
	p.watches = append(p.watches, w)
	return ctx, func() {
		p.watches = slices.DeleteFunc(p.watches, func(other *watch) bool { return other == w })
		cancel(context.Canceled)
	}
}

// Gate implements Gates.
func (p *proc) Gate(_ context.Context, at Place, run *fold.Run) (Gate, error) {
	p.pause()
	env, _ := run.Definition.Environment(at.Env)
	g := Gate{Approval: policy.Approval{Count: env.Approvals, AuthorMayApprove: true}}
	if p.sim.chaos && p.sim.unread {
		if p.sim.sabotage == guessesSettings {
			return g, nil
		}
		return g, errUnread
	}
	g.Pins = events.Pins{Config: map[string]uint64{"KEY": 1}, Secrets: map[string]uint64{"SECRET": 1}}
	if p.sim.missing[at.Env] {
		g.Missing = []settings.MissingKey{{Key: "KEY", Command: "towpath config set"}}
	}
	return g, nil
}

var errUnread = &settings.UnavailableError{Store: "Consul", What: "reading", Why: "it is not reached", Do: "start it"}

// Present implements Gates.
func (p *proc) Present(_ context.Context, _ Place, pins events.Pins) (events.Pins, error) {
	p.pause()
	if p.sim.chaos && p.sim.unread && len(pins.Secrets) > 0 {
		return events.Pins{}, errUnread
	}
	return events.Pins{Secrets: map[string]uint64{"SECRET": 2}}, nil
}

// fails reports whether a call fails for a technical reason.
func (p *proc) fails() error {
	p.pause()
	if p.sim.chaos && (p.sim.outage || p.sim.rng.IntN(25) == 0) {
		return errors.New("the engine does not answer")
	}
	return nil
}

// Prepare implements Effects.
func (p *proc) Prepare(ctx context.Context, v Version) ([]events.Instance, error) {
	w := p.sim.world
	var instances []events.Instance
	for replica := range 2 {
		if err := p.fails(); err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			p.sim.seen["effect cut off"]++
			return nil, context.Cause(ctx)
		}
		instances = append(instances, w.start(v, replica))
	}
	if err := p.fails(); err != nil {
		return nil, err
	}
	if p.sim.sick[v.Slot.Digest] {
		return nil, &UnfitError{Blame: BlameVersion, Trouble: events.Trouble{What: "starting", Why: "it exits"}}
	}
	if p.sim.sabotage == noCommitPoint {
		w.discover(v.Env, v.Slot.N, instances)
	}
	if err := p.fails(); err != nil { // the release command
		return nil, err
	}
	return instances, context.Cause(ctx)
}

// Switch implements Effects.
func (p *proc) Switch(_ context.Context, v Version) error {
	if err := p.fails(); err != nil {
		return err
	}
	p.sim.world.discover(v.Env, v.Slot.N, v.Slot.Instances)
	if err := p.fails(); err != nil {
		return &UndrainedError{err}
	}
	return nil
}

// Clean implements Effects.
func (p *proc) Clean(_ context.Context, at Place, keep []*fold.Slot, upTo int) error {
	w := p.sim.world
	if err := p.fails(); err != nil {
		return err
	}
	serving := slices.Clone(w.traffic[at.Env].instances)
	for _, k := range keep {
		serving = append(serving, k.Instances...)
	}
	kept := func(slot int) bool {
		return slices.ContainsFunc(keep, func(k *fold.Slot) bool { return k.N == slot })
	}
	for _, c := range slices.Sorted(maps.Keys(w.containers)) {
		env, slot := w.containers[c].env, w.containers[c].slot
		if env != at.Env || kept(slot) || p.sim.sabotage != cleansTooMuch && slot > upTo ||
			slices.ContainsFunc(serving, func(i events.Instance) bool { return i.ID == c }) {
			continue
		}
		if err := p.fails(); err != nil {
			return err
		}
		delete(w.containers, c)
		p.sim.say("     %s is removed", c)
	}
	return nil
}

// Heal implements Effects.
func (p *proc) Heal(context.Context, Version) error { return nil }

// Left implements Effects.
func (p *proc) Left(_ context.Context, among []events.Slug) ([]events.Slug, error) {
	if err := p.fails(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(among), func(env events.Slug) bool {
		for _, c := range p.sim.world.containers {
			if c.env == env {
				return false
			}
		}
		_, routed := p.sim.world.traffic[env]
		return !routed
	}), nil
}

// Raze implements Effects.
func (p *proc) Raze(_ context.Context, env events.Slug, apps map[events.Slug]int) error {
	w, upTo := p.sim.world, apps[simApp]
	if err := p.fails(); err != nil {
		return err
	}
	p.sim.oracle.razed(env, upTo)
	if p.sim.sabotage == razesLater {
		upTo = math.MaxInt
	}
	for _, c := range slices.Sorted(maps.Keys(w.containers)) {
		if r := w.containers[c]; r.env == env && r.slot <= upTo {
			if err := p.fails(); err != nil {
				return err
			}
			delete(w.containers, c)
			p.sim.say("     %s is removed", c)
		}
	}
	if err := p.fails(); err != nil {
		return err
	}
	if w.traffic[env].slot <= upTo {
		delete(w.traffic, env)
	}
	return nil
}

func (p *proc) Look(context.Context, Version, *fold.Env, bool) ([]Finding, error) { return nil, nil }

// world is what is outside of the ledger: replicas and the table of what gets traffic.
type world struct {
	sim        *sim
	containers map[string]replica
	traffic    map[events.Slug]route
}

type replica struct {
	env    events.Slug
	slot   int
	digest string
}

type route struct {
	slot      int
	instances []events.Instance
}

func newWorld(m *sim) *world {
	return &world{sim: m, containers: map[string]replica{}, traffic: map[events.Slug]route{}}
}

// start adopts a replica or makes it.
func (w *world) start(v Version, n int) events.Instance {
	names := []string{fmt.Sprintf("%s-%d-%d", v.Env, v.Slot.N, n)}
	if v.From != nil {
		names = append([]string{v.From.Instances[n].ID}, names...)
	}
	for _, name := range names {
		if c, ok := w.containers[name]; ok && (c.digest == v.Slot.Digest || w.sim.sabotage == adoptsAnything) {
			return events.Instance{ID: name}
		}
	}
	name := names[len(names)-1]
	digest := v.Slot.Digest
	if w.sim.sabotage == adoptsAnything && v.Slot.From > 0 {
		digest = "whatever was there"
	}
	w.containers[name] = replica{v.Env, v.Slot.N, digest}
	w.sim.say("     %s is started", name)
	return events.Instance{ID: name}
}

// discover is the compare and swap of the table: a greater slot stays.
func (w *world) discover(env events.Slug, slot int, instances []events.Instance) {
	if w.traffic[env].slot > slot && w.sim.sabotage != noGreaterSlot {
		return
	}
	w.traffic[env] = route{slot, instances}
	w.sim.say("     traffic of %s goes to slot %d", env, slot)
}

// verifies lets verify finish with a slot that waits for it.
func (m *sim) verifies() bool {
	a := m.truth.App(simApp)
	if a == nil {
		return false
	}
	for _, env := range Environments(a) {
		s := a.Env(env).Last()
		if s == nil || s.Decision != events.Live || !s.Open() || s.Trial != nil || s.Kind == events.KindRemove {
			continue
		}
		o := events.Success
		if bad, ok := m.bad[s.Digest]; ok {
			o = bad
		}
		m.story.Verified(simApp, s.Run, env, s.N, s.TrialAttempt, o)
		m.sync()
		return true
	}
	return false
}

// people lets somebody push, approve, cancel and so on, or the stages before promote get on.
func (m *sim) people() {
	a := m.truth.App(simApp)
	if a != nil {
		for r := range a.Runs.All() { // build and vet come to their end in any order
			if r.Verdict == nil && m.rng.IntN(2) == 0 {
				m.buildAndVet(r)
				return
			}
		}
	}
	if a != nil && m.orders > 0 && m.rng.IntN(3) == 0 && m.environment(a) {
		m.orders--
		return
	}
	if m.budget--; a == nil || a.Runs.Len() < 4 && m.rng.IntN(3) == 0 {
		m.push(a)
		return
	}
	r := a.Run(1 + m.rng.IntN(a.Runs.Len()))
	env := r.Envs[m.rng.IntN(len(r.Envs))].Name
	command := func(verb string) {
		c := events.Command{Verb: verb, App: simApp, Run: r.N, Environment: env, Actor: []string{"ann", "bob"}[m.rng.IntN(2)]}
		if r.Artifact != nil {
			c.Digest = r.Artifact.Digest
		}
		m.story.Command(c)
	}
	switch m.rng.IntN(16) {
	case 0, 1, 2, 3, 4:
		env = "prod"
		command(events.VerbApprove)
	case 5:
		command(events.VerbCancel)
	case 6, 7:
		m.story.Replay(simApp, r.N, fold.StagePromote, env)
	case 8:
		m.story.Replay(simApp, r.N, fold.StageVerify, env)
	case 9, 10:
		c := events.Command{Verb: events.VerbRollback, App: simApp, Environment: env}
		if m.rng.IntN(3) == 0 {
			c.Run = r.N
		}
		m.story.Command(c)
	case 11:
		command(events.VerbPromote)
	case 12:
		m.story.Command(events.Command{Verb: events.VerbHold, App: simApp})
	case 13:
		m.story.Command(events.Command{Verb: events.VerbResume, App: simApp})
	case 14:
		m.missing[env] = !m.missing[env]
		b := &events.SettingChanged{Key: "KEY", App: simApp, Environment: env, Version: m.followed}
		b.ID = string(env) + "/hello/KEY"
		m.story.Write(events.SettingSubject(1, b.Type(), simApp, env, "KEY", "", m.followed), "", b)
	case 15:
		command(events.VerbDeny)
	}
	m.sync()
}

// simMade is the environment that people make, and destroy.
const simMade events.Slug = "demo"

// environment lets somebody make or renew an environment, bring a version back there, or end it, as far as the gateway lets
// them; it reports whether anybody did.
func (m *sim) environment(a *fold.App) bool {
	e := m.truth.Environment(simMade)
	from := []events.Slug{"dev", "prod"}[m.rng.IntN(2)]
	if e != nil {
		from = e.Made.From
	}
	slot := a.Env(from).Live()
	if slot != nil && !slot.Closing.Stands() {
		slot = a.Env(from).Good(slot.N)
	}
	n := m.rng.IntN(10)
	switch {
	case e != nil && e.Ending != nil:
		return false
	case e != nil && n < 2:
		m.story.Command(events.Command{Verb: events.VerbDestroyEnvironment, Environment: simMade})
	case e != nil && n < 4:
		b := &events.EnvironmentExpired{About: events.About{ID: string(simMade)}, Environment: simMade, Command: e.Made.ID}
		m.story.Write(events.EnvironmentSubject(foldtest.Epoch, events.Watch, b.Type(), simMade, e.Made.ID), "", b)
		m.seen["expired"]++
	case e != nil && n < 5, e == nil && a.Env(simMade).Gone && n == 0: // or a gateway that has not heard of its end
		if a.Env(simMade).Live() == nil {
			return false // it brings nothing back where nothing has run
		}
		m.story.Command(events.Command{Verb: events.VerbRollback, App: simApp, Environment: simMade})
	case slot == nil || slot.Kind == events.KindRemove:
		return false
	default:
		if e == nil && a.Env(simMade).Gone {
			m.seen["created again"]++
		}
		m.left[simMade] = true
		m.story.Command(events.Command{
			Verb: events.VerbCreateEnvironment, Environment: simMade, From: from,
			Apps: []events.EnvironmentApp{{App: simApp, Slot: slot.N, Pins: events.Pins{Config: map[string]uint64{"KEY": m.followed}}}},
		})
	}
	m.sync()
	return true
}

// clears lets the gateway remove the settings of an environment that ends.
func (m *sim) clears() bool {
	if e := m.truth.Environment(simMade); e == nil || e.Ending == nil || !m.left[simMade] {
		return false
	}
	m.left[simMade] = false
	b := &events.SettingChanged{About: events.About{ID: "demo/hello/KEY"}, Key: "KEY", App: simApp, Environment: simMade, Version: m.followed, Deleted: true}
	m.story.Write(events.SettingSubject(1, b.Type(), simApp, simMade, "KEY", "", m.followed), "", b)
	m.sync()
	return true
}

func (m *sim) push(a *fold.App) {
	n := 1
	if a != nil {
		n = a.Runs.Len() + 1
	}
	m.story.PushNumber(m.defs[0], m.policy, n)
	m.sync()
}

func (m *sim) buildAndVet(r *fold.Run) {
	digest := foldtest.Digest(fmt.Sprintf("run%d-%d", r.N, r.Build.Attempt))
	if r.Artifact == nil {
		switch m.rng.IntN(8) {
		case 0:
			m.sick[digest] = true
		case 1, 2:
			m.bad[digest] = events.Failure
		case 3:
			m.bad[digest] = events.Error
		}
		m.story.Built(simApp, r.N, r.Build.Attempt, digest)
	} else {
		var fail []events.Slug
		if m.rng.IntN(10) == 0 {
			fail = append(fail, "prod")
		}
		m.story.Vetted(simApp, r.N, r.Vet.Attempt, r.Artifact.Digest, r.Definition.EnvironmentNames(), fail...)
	}
	m.sync()
}

// oracle checks what is promised, from the ledger's events and the world alone.
type oracle struct {
	sim       *sim
	discovery map[events.Slug]int // greatest slot that had traffic
}

// before checks an event against what was there when it was stored.
func (o *oracle) before(r ledger.Record) {
	a := o.sim.truth.App(simApp)
	switch b := r.Event.Body.(type) {
	case *events.SlotTaken:
		o.taken(a, b)
	case *events.SlotDecided:
		if s := a.Env(b.Environment).Slot(b.Slot); s == nil || s.Decision != "" {
			o.sim.fail("slot %d of %s is decided twice", b.Slot, b.Environment)
		}
	case *events.SlotClosed:
		s := a.Env(b.Environment).Slot(b.Slot)
		if s != nil && b.Closing == events.Verified && s.Kind != events.KindRemove && !o.succeeded(b) {
			o.sim.fail("slot %d of %s is closed as verified, and was not", b.Slot, b.Environment)
		}
	case *events.EnvironmentDeleted:
		o.gone(r.Subject.Env)
	}
}

// razed checks that nothing of an environment's slots up to one may come up any more when all of them is removed.
func (o *oracle) razed(name events.Slug, upTo int) {
	env := o.sim.truth.App(simApp).Env(name)
	if s := env.Slot(upTo); s != nil && s.Open() {
		o.sim.fail("%s is razed while slot %d is open", name, s.N)
	}
	if live := env.Live(); live != nil && live.Kind != events.KindRemove && live.N <= upTo {
		o.sim.fail("%s is razed while slot %d is live", name, live.N)
	}
}

// gone checks that nothing of an environment is left when that is said.
func (o *oracle) gone(name events.Slug) {
	o.razed(name, o.sim.truth.App(simApp).Env(name).Slots.Len())
	if o.sim.left[name] {
		o.sim.fail("%s is gone, and has settings", name)
	}
	for c, r := range o.sim.world.containers {
		if r.env == name && len(o.sim.procs) == 1 { // else one that is behind may be about to find out
			o.sim.fail("%s is gone, and %s is there", name, c)
		}
	}
}

// succeeded reports whether any verification of the slot was a success: one that was asked for again may
// come too late.
func (o *oracle) succeeded(b *events.SlotClosed) bool {
	for _, r := range o.sim.story.Records(0) {
		t, ok := r.Event.Body.(*events.TestSuiteRunFinished)
		if ok && t.Trial.Slot == b.Slot && r.Subject.Env == b.Environment && t.Outcome == events.Success {
			return true
		}
	}
	return false
}

// taken checks that a slot is taken for something that may have it.
func (o *oracle) taken(a *fold.App, b *events.SlotTaken) {
	m, env := o.sim, a.Env(b.Environment)
	if env.Gone {
		m.fail("slot %d of %s is taken, which is gone", b.Slot, b.Environment)
	}
	if last := env.Last(); b.Slot != env.Slots.Len()+1 || last != nil && last.Open() {
		m.fail("slot %d of %s is taken while %d is open", b.Slot, b.Environment, env.Slots.Len())
	}
	if b.From > 0 {
		if from := env.Slot(b.From); from == nil || from.Digest != b.Digest || from.Run != b.Run {
			m.fail("slot %d of %s does not hold the version of %d", b.Slot, b.Environment, b.From)
		}
	}
	if b.Kind == events.KindRestore && b.From > 0 && len(env.Slot(b.From).Pins.Secrets) > 0 && b.Pins.Secrets["SECRET"] != 2 {
		m.fail("slot %d of %s comes back with %+v, not with the secret of today", b.Slot, b.Environment, b.Pins)
	}
	if b.Kind == events.KindDeploy && b.Pins.Config["KEY"] == 0 {
		m.fail("slot %d of %s is taken without its settings", b.Slot, b.Environment)
	}
	if m.unread && m.chaos {
		m.seen["taken while settings cannot be read"]++
	}
	if b.Kind == events.KindCreate {
		o.furnished(env, b)
	}
	if b.Kind != events.KindDeploy {
		return
	}
	run := a.Run(b.Run)
	place := run.Env(b.Environment)
	if place.Promote.Attempt == b.Attempt { // else it was fenced meanwhile, and gets no traffic
		if run.Artifact == nil || run.Artifact.Digest != b.Digest || run.Verdict == nil || run.Verdict.ArtifactID != b.ArtifactID {
			m.fail("slot %d of %s holds %s, which is not what was vetted", b.Slot, b.Environment, b.Digest)
		}
		for _, no := range place.Denials(b.Digest) {
			if again := place.Promote.Replay; again != nil && no.Seq < again.Seq {
				m.fail("slot %d of %s holds what %s denied before the attempt was asked for", b.Slot, b.Environment, no.Actor)
			}
		}
		if v, ok := run.VerdictFor(b.Environment); ok && v.Verdict == events.Fail {
			m.fail("slot %d of %s holds what vetting refused", b.Slot, b.Environment)
		}
		proven := slices.ContainsFunc(slices.Collect(a.Env("dev").Slots.All()), func(s *fold.Slot) bool {
			return s.Run == b.Run && s.Closing == events.Verified && s.Digest == b.Digest
		})
		if b.Environment == "prod" && (!proven || len(place.Approvals) == 0) {
			m.fail("slot %d of prod holds what was not verified in dev or not approved", b.Slot)
		}
	}
	o.order(a, env, b, run)
}

// furnished checks that an environment which somebody made gets what they asked for.
func (o *oracle) furnished(env *fold.Env, b *events.SlotTaken) {
	for s := range env.Slots.All() {
		if s.Command == b.Command {
			o.sim.fail("slots %d and %d of %s are both taken for %s", s.N, b.Slot, b.Environment, b.Command)
		}
	}
	for _, r := range o.sim.story.Records(0) {
		c, ok := r.Event.Body.(*events.CommandReceived)
		if !ok || c.ID != b.Command {
			continue
		}
		from := o.sim.truth.App(simApp).Env(c.From).Slot(c.Apps[0].Slot)
		if from.Digest != b.Digest || from.Run != b.Run || !maps.Equal(c.Apps[0].Pins.Config, b.Pins.Config) || from.Defined() != b.Like {
			o.sim.fail("slot %d of %s holds %+v, asked for was slot %d of %s", b.Slot, b.Environment, b, from.N, c.From)
		}
		return
	}
	o.sim.fail("slot %d of %s is taken, and nobody asked for it", b.Slot, b.Environment)
}

// order checks that nobody is replaced who must not be: a newer run, or what an operator brought back,
// unless somebody asked for it since.
func (o *oracle) order(a *fold.App, env *fold.Env, b *events.SlotTaken, run *fold.Run) {
	live := env.Live()
	if live == nil || live.Kind == events.KindRemove {
		return
	}
	asked := uint64(0)
	for _, r := range o.sim.story.Records(0) {
		c, ok := r.Event.Body.(*events.CommandReceived)
		if ok && c.Run == b.Run && c.Environment == b.Environment && (c.Verb == events.VerbPromote || c.Verb == events.VerbApprove) {
			asked = r.Seq
		}
	}
	if asked > live.TakenSeq {
		return
	}
	if run.N < live.Run {
		o.sim.fail("slot %d of %s lets %d replace the newer %d", b.Slot, b.Environment, b.Run, live.Run)
	}
	if live.Kind == events.KindRestore {
		o.sim.fail("slot %d of %s replaces what an operator brought back", b.Slot, b.Environment)
	}
}

// after checks what an event made of the ledger.
func (o *oracle) after(ledger.Record) { o.traffic() }

// traffic checks that requests go to live slots only, never back, and to replicas that are there and are
// what their slot says.
func (o *oracle) traffic() {
	m := o.sim
	a := m.truth.App(simApp)
	if a == nil {
		return
	}
	for env, to := range m.world.traffic {
		s := a.Env(env).Slot(to.slot)
		if s == nil || s.Decision != events.Live {
			m.fail("traffic of %s goes to slot %d, which is not live", env, to.slot)
			return
		}
		if to.slot < o.discovery[env] && !a.Env(env).Gone { // where it was taken away, nothing remembers how far it was
			m.fail("traffic of %s goes back from slot %d to %d", env, o.discovery[env], to.slot)
		}
		o.discovery[env] = max(o.discovery[env], to.slot)
		if s.Kind != events.KindRemove && len(to.instances) != 2 {
			m.fail("traffic of %s in slot %d goes to %d replicas", env, to.slot, len(to.instances))
		}
		for _, i := range to.instances {
			if a.Env(env).Gone {
				break // taken away, and published by somebody who is behind; it is taken away again
			}
			if c, ok := m.world.containers[i.ID]; !ok || c.digest != s.Digest {
				m.fail("traffic of %s goes to %s, which is gone or not of slot %d (%s)", env, i.ID, to.slot, c.digest)
			}
		}
	}
}

// rest checks what must hold once nothing is left to do.
func (o *oracle) rest() error {
	m := o.sim
	a := m.truth.App(simApp)
	if a == nil {
		return nil
	}
	for _, env := range Environments(a) {
		o.restIn(a, a.Env(env), m.world.traffic[env])
	}
	for _, e := range m.truth.Environments() {
		if !e.Gone && (!e.Created || e.Ending != nil) {
			m.fail("environment %s was left half made, or half destroyed: %+v", e.Name, *e)
		}
	}
	return m.err
}

func (o *oracle) restIn(a *fold.App, env *fold.Env, to route) {
	m := o.sim
	live, last := env.Live(), env.Last()
	want := 0
	if live != nil {
		want = live.N
	}
	if (env.Gone || live != nil && live.Kind == events.KindRemove) && len(to.instances) == 0 {
		to.slot = want // its entry was removed, or says that nothing is there
	}
	for name, c := range m.world.containers {
		if env.Gone && c.env == env.Name {
			m.fail("%s was left behind in %s, which is gone", name, env.Name)
		}
	}
	if to.slot != want {
		m.fail("traffic of %s rests on slot %d, not on %d", env.Name, to.slot, want)
	}
	if last != nil && last.Open() && (last.Decision == "" || last.Trial == nil || last.Trial.Outcome != events.Error) {
		m.fail("slot %d of %s was left open: %+v", last.N, env.Name, last)
	}
	if last != nil && last.Open() && last.Kind == events.KindDeploy && a.Run(last.Run).Cancelled != nil {
		m.fail("slot %d of %s is held by a cancelled run", last.N, env.Name)
	}
	if live != nil && live.Kind == events.KindDeploy && live.Closing != "" && live.Closing != events.Verified &&
		!slices.ContainsFunc(slices.Collect(env.Slots.All())[live.N:], func(s *fold.Slot) bool { return s.Kind != events.KindDeploy }) {
		m.fail("slot %d of %s was rejected, and nothing was brought back", live.N, env.Name)
	}
	if live != nil && live.Kind == events.KindCreate && live.Closing == events.Rejected && last.N == live.N {
		m.fail("slot %d of %s was rejected, and nothing took its place", live.N, env.Name)
	}
	if env.Plan != nil && env.Carrier() == nil && (last == nil || !last.Open()) && a.Hold == nil {
		m.fail("%s was never furnished", env.Name)
	}
	if len(env.Rollbacks) > 0 && !last.Open() {
		m.fail("a rollback of %s was not answered", env.Name)
	}
	if live != nil && (last.Decision != "" && !last.Open()) {
		for name, c := range m.world.containers {
			if c.env == env.Name && !slices.ContainsFunc(to.instances, func(i events.Instance) bool { return i.ID == name }) &&
				live.Closing == events.Verified {
				m.fail("%s was left behind, the traffic goes to slot %d", name, live.N)
			}
		}
	}
	o.concluded(a, env)
}

// concluded checks that every promotion that was begun was said to have ended, and that nobody waits who
// could go.
func (o *oracle) concluded(a *fold.App, env *fold.Env) {
	for r := range a.Runs.All() {
		e := r.Env(env.Name)
		if e == nil {
			continue
		}
		if s := env.Slot(e.Slot); s != nil && !s.Open() && !e.Concluded {
			o.sim.fail("%s had slot %d of %s, and nobody said how it ended", r.Name(), s.N, env.Name)
		}
		ready := e.Slot == 0 && !e.Promote.Ended() && !e.Verified && !r.Status().Ended() && r.Verdict != nil && r.Artifact != nil
		if last := env.Last(); ready && (last == nil || !last.Open()) && env.Name == "dev" && e.Waiting == nil {
			o.sim.fail("%s could go to dev and does not, and nobody says why", r.Name())
		}
	}
}

// String names what is broken in failures.
func (s sabotage) String() string {
	return strings.Split("nothing,no commit point,no greater slot,no write once,cleans too much,adopts anything,razes early,forgets settings,ends unfenced,razes later,guesses settings", ",")[s]
}
