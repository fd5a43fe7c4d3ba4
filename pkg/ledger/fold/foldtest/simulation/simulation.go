// Package simulation runs the decisions of one service under seeded schedules. Several processes of the
// service work at once, on folds that lag behind the ledger; messages come late, twice and in any order;
// calls fail; and a process can be killed wherever its work leaves it. The rest of the system is a model
// that the test gives, as is the checker, which must know nothing of the decisions.
//
// The same seed gives the same schedule. TOWPATH_SCHEDULES says how many are run, TOWPATH_SEED which is
// the first, and TOWPATH_NARRATE=1 has each event printed.
package simulation

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
)

// Service is what is simulated.
type Service struct {
	// Writer is the service; its durable consumers say which events wake it.
	Writer events.Writer
	// Looks has Handle called at any time, with a zero record: for a service that no consumer wakes.
	Looks bool
	// Handle does what the service does about an event. It reads the process's fold, and leaves the process
	// only through the methods of Process.
	Handle func(p *Process, r ledger.Record) error
	// GiveUp records that handling an event has failed too often; nil: such a message is dropped.
	GiveUp func(p *Process, r ledger.Record, last error) error
	// Others lets the rest of the system do one thing, through Story.
	Others func(w *World)
	// Settle lets the rest of the system finish what keeps the service waiting; it reports whether it did
	// anything. nil: nothing.
	Settle func(w *World) bool
	// Stored checks an event of the service before it counts. p is the process that wrote it. nil: it writes none.
	Stored func(w *World, p *Process, r ledger.Record) error
	// Rest checks what must hold when nothing is left to do.
	Rest func(w *World) error
}

// World is one schedule.
type World struct {
	Rand  *rand.Rand
	Story *foldtest.Ledger
	Truth *fold.Fold // of everything that is stored
	// Budget is how many things the rest of the system still does.
	Budget int
	// Seen counts what the schedule came to.
	Seen map[string]int

	service  Service
	chaos    bool // faults may happen
	outage   bool // every effect fails
	procs    []*Process
	mail     []*message
	followed uint64
	writing  *Process
	current  *task
	err      error
}

// message is an event on its way to a process that it wakes.
type message struct {
	record   ledger.Record
	again    bool // it was delivered before
	failures int
}

// Process is one process of the service.
type Process struct {
	World *World
	// Starts is how often it was started again: what it keeps in memory is of one start.
	Starts int
	fold   *fold.Fold
	tasks  []*task
}

// task is the handling of one message, which can be cut off wherever it leaves the process.
type task struct {
	process *Process
	msg     *message
	next    func() (struct{}, bool)
	stop    func()
	wait    func(struct{}) bool
	givesUp bool
	err     error
}

// killed unwinds a task of a process that was killed.
type killed struct{}

// maxSteps is how many calls may follow the last fault until nothing is left to do.
const maxSteps = 3000

// maxFailures is how often handling a message fails before it is given up.
const maxFailures = 4

var narrate = os.Getenv("TOWPATH_NARRATE") != ""

func number(name string, otherwise uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
		return n
	}
	return otherwise
}

// Check runs schedules, otherwise many unless the environment says how many, fails t with the seeds of
// those that went wrong, and fails it too when no schedule came to one of must, killed a process or, of a service that
// writes events, had two of them write the same.
func Check(t *testing.T, otherwise int, build func(*World) Service, must ...string) {
	t.Helper()
	n := int(number("TOWPATH_SCHEDULES", uint64(otherwise)))
	begun := time.Now()
	failed, seen := run(n, build, false)
	if len(failed) > 0 {
		for _, f := range failed[:min(3, len(failed))] {
			t.Errorf("seed %d: %v", f.seed, f.err)
		}
		t.Fatalf("%d of %d schedules went wrong; see one with TOWPATH_SCHEDULES=1 TOWPATH_NARRATE=1 TOWPATH_SEED=%d", len(failed), n, failed[0].seed)
	}
	t.Logf("%d schedules, 0 wrong, %.0f/s; seen: %v", n, float64(n)/time.Since(begun).Seconds(), seen)
	must = append(must, "process killed")
	if seen["written"] > 0 {
		must = append(must, "written by two")
	}
	for _, what := range must {
		if seen[what] == 0 && n >= otherwise {
			t.Errorf("no schedule came to %q: the simulation says nothing of it", what)
		}
	}
}

// Notices fails t unless one of the first schedules of a service with a broken guard goes wrong.
func Notices(t *testing.T, build func(*World) Service) {
	t.Helper()
	NoticesWithin(t, 20_000, build)
}

// NoticesWithin is Notices for schedules that provoke what the guard is there for: one of the first most goes wrong.
func NoticesWithin(t *testing.T, most int, build func(*World) Service) {
	t.Helper()
	failed, _ := run(most, build, true)
	if len(failed) == 0 {
		t.Fatalf("the checker saw nothing wrong in %d schedules", most)
	}
	t.Logf("noticed with seed %d: %v", failed[0].seed, failed[0].err)
}

type failure struct {
	seed uint64
	err  error
}

// run runs n schedules and returns those that went wrong; where one is enough, it stops there.
func run(n int, build func(*World) Service, one bool) (failed []failure, seen map[string]int) {
	first := number("TOWPATH_SEED", 1)
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
				w := newWorld(first+i, build)
				err := w.run()
				mu.Lock()
				for what, times := range w.Seen {
					seen[what] += times
				}
				if err != nil {
					failed = append(failed, failure{first + i, err})
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

func newWorld(seed uint64, build func(*World) Service) *World {
	w := &World{
		Rand: rand.New(rand.NewPCG(seed, 11)), Story: foldtest.New(), Truth: fold.New(), Seen: map[string]int{}, chaos: true,
	}
	w.Budget = 4 + w.Rand.IntN(12)
	w.service = build(w)
	w.sync()
	for range 1 + w.Rand.IntN(3) {
		w.procs = append(w.procs, &Process{World: w, fold: fold.New()})
	}
	return w
}

func (w *World) run() error {
	for step := 0; w.err == nil && (w.Budget > 0 || step < 50); step++ {
		w.act()
	}
	w.settle()
	for _, p := range w.procs {
		p.kill()
	}
	if w.err == nil {
		w.Fail(w.service.Rest(w))
	}
	return w.err
}

// Fail says that the schedule went wrong, where the first such error counts.
func (w *World) Fail(err error) {
	if w.err == nil && err != nil {
		w.err = fmt.Errorf("after event %d: %w", w.followed, err)
	}
}

func (w *World) say(format string, a ...any) {
	if narrate {
		fmt.Printf(format+"\n", a...)
	}
}

// act lets one thing happen.
func (w *World) act() {
	p := w.procs[w.Rand.IntN(len(w.procs))]
	switch n := w.Rand.IntN(100); {
	case n < 55:
		p.step()
	case n < 70:
		w.deliver(p)
	case n < 82:
		p.follow(p.fold.Seq() + uint64(w.Rand.IntN(4)))
	case n < 95:
		if w.Budget > 0 {
			w.Budget--
			w.service.Others(w)
			w.sync()
		}
	case n < 97:
		w.Seen["process killed"]++
		w.say("     a process is killed")
		p.kill()
	case n < 98:
		w.outage = !w.outage
	default:
		if all := w.Story.Records(0); len(all) > 0 { // delivered again, although it was acknowledged
			w.Seen["delivered twice"]++
			w.post(all[w.Rand.IntN(len(all))])
		}
	}
}

// settle ends the faults and lets everything finish.
func (w *World) settle() {
	w.chaos, w.outage = false, false
	for _, p := range w.procs {
		p.kill()
	}
	steps := 0
	for w.err == nil {
		before := w.followed
		busy := len(w.mail) > 0
		for _, p := range w.procs {
			p.follow(w.Truth.Seq())
			w.deliver(p)
			for len(p.tasks) > 0 && w.err == nil {
				busy = true
				p.step()
				if steps++; steps > maxSteps {
					w.Fail(errors.New("it never comes to rest"))
				}
			}
		}
		if w.service.Settle != nil && w.service.Settle(w) {
			w.sync()
			continue
		}
		if !busy || w.service.Looks && len(w.mail) == 0 && w.followed == before {
			return
		}
	}
}

// sync lets what was stored take effect: on the checker, the truth, and whom it wakes.
func (w *World) sync() {
	for _, r := range w.Story.Records(w.followed) {
		w.followed = r.Seq
		w.say("%4d %s %+v", r.Seq, r.Subject, r.Event.Body)
		if w.writing != nil {
			w.Seen["written"]++
			w.Fail(w.service.Stored(w, w.writing, r))
		}
		if err := w.Truth.Apply(r); err != nil {
			w.Fail(fmt.Errorf("event contradicts the contract: %w", err))
		}
		w.post(r)
	}
}

func (w *World) post(r ledger.Record) {
	for _, c := range events.Consumers {
		if c.Service == w.service.Writer && slices.Contains(c.Wakes, r.Event.Body.Type()) {
			w.mail = append(w.mail, &message{record: r})
		}
	}
}

// deliver hands a message to a process.
func (w *World) deliver(p *Process) {
	if w.service.Looks {
		p.spawn(&message{}, nil)
		return
	}
	if len(w.mail) == 0 {
		return
	}
	i := 0
	if w.chaos {
		i = w.Rand.IntN(len(w.mail))
	}
	msg := w.mail[i]
	w.mail = slices.Delete(w.mail, i, i+1)
	p.follow(msg.record.Seq)
	if msg.again { // as package worker does: who had it before may have written since
		p.follow(w.Truth.Seq())
	}
	msg.again = true
	w.say("     event %d is handled at %d", msg.record.Seq, p.fold.Seq())
	p.spawn(msg, nil)
}

// spawn begins to handle a message or, where last is not nil, to give it up.
func (p *Process) spawn(msg *message, last error) {
	t := &task{process: p, msg: msg, givesUp: last != nil}
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		defer func() {
			if v := recover(); v != nil && v != (killed{}) {
				panic(v)
			}
		}()
		t.wait = yield
		if t.givesUp {
			t.err = p.World.service.GiveUp(p, msg.record, last)
			return
		}
		t.err = p.World.service.Handle(p, msg.record)
	})
	p.tasks = append(p.tasks, t)
}

// step lets one task go on to its next call.
func (p *Process) step() {
	if len(p.tasks) == 0 {
		return
	}
	w := p.World
	i := w.Rand.IntN(len(p.tasks))
	t := p.tasks[i]
	w.current = t
	_, going := t.next()
	w.current = nil
	if going {
		return
	}
	p.tasks = slices.Delete(p.tasks, i, i+1)
	w.settleMessage(t)
}

// settleMessage does what package worker does: a message whose handling failed comes again, and after
// some failures is given up; where that fails as well, it comes again.
func (w *World) settleMessage(t *task) {
	m := t.msg
	w.say("     event %d was handled: %v", m.record.Seq, t.err)
	if t.err == nil || m.record.Seq == 0 {
		return
	}
	if m.failures++; m.failures < maxFailures || t.givesUp {
		w.mail = append(w.mail, m)
		return
	}
	w.Seen["given up"]++
	if w.service.GiveUp != nil {
		t.process.spawn(m, t.err)
	}
}

// kill cuts every task off, and starts the process again. What was not acknowledged is delivered again.
func (p *Process) kill() {
	for _, t := range p.tasks {
		t.stop()
		if t.msg.record.Seq > 0 {
			p.World.mail = append(p.World.mail, t.msg)
		}
	}
	p.tasks = nil
	p.Starts++
}

func (p *Process) follow(to uint64) {
	for _, r := range p.World.Story.Records(p.fold.Seq()) {
		if r.Seq > to {
			return
		}
		_ = p.fold.Apply(r) // the truth reports what contradicts the contract
	}
}

// leave is where the process's work leaves it.
func (p *Process) leave() {
	if !p.World.current.wait(struct{}{}) {
		panic(killed{})
	}
}

// App returns an app as the process knows it.
func (p *Process) App(name events.Slug) *fold.App { return p.fold.App(name) }

// CurrentPolicy returns the newest policy that the process knows.
func (p *Process) CurrentPolicy() fold.PolicyVersion { return p.fold.CurrentPolicy() }

// Replays returns the replays of all that is stuck which have not finished, as far as the process knows.
func (p *Process) Replays() []fold.Command { return p.fold.Replays() }

// Held returns the hold on everything that the process knows of, or nil.
func (p *Process) Held() *fold.Hold { return p.fold.Held() }

// Apps returns every app as the process knows it.
func (p *Process) Apps() []*fold.App { return p.fold.Apps() }

// Seq is the last event that the process knows.
func (p *Process) Seq() uint64 { return p.fold.Seq() }

// LedgerID is the id of the ledger that the process knows; empty: it knows no event.
func (p *Process) LedgerID() string { return p.fold.LedgerID() }

// Written reads the event of a subject from the ledger, as ledger.Client's method does.
func (p *Process) Written(_ context.Context, s events.Subject) (ledger.Record, bool, error) {
	p.leave()
	r, ok := p.World.Story.Has(s)
	return r, ok, nil
}

// CatchUp brings the process to the ledger's head, as a start does.
func (p *Process) CatchUp() { p.follow(p.World.Truth.Seq()) }

// Epoch returns the epoch of the ledger.
func (p *Process) Epoch() int { return foldtest.Epoch }

// Append stores an event, as worker.Runtime's method does. Its time is that of the story.
func (p *Process) Append(_ context.Context, s events.Subject, e events.Event) (ledger.Record, error) {
	w := p.World
	p.leave()
	e.Time = w.Story.Now()
	r, err := w.Story.Append(s, e)
	seq := r.Seq
	var exists *ledger.ExistsError
	if errors.As(err, &exists) {
		seq = exists.Winner.Seq
		w.Seen["written by two"]++
	}
	w.writing = p
	w.sync()
	w.writing = nil
	p.leave() // stored, but not known to be
	p.follow(seq)
	return r, err
}

// ErrAway is what an effect fails with.
var ErrAway = errors.New("it does not answer")

// Effect is a call to something outside that may fail, or take effect without its caller living to know.
func (p *Process) Effect(do func()) error {
	w := p.World
	p.leave()
	if w.chaos && (w.outage || w.Rand.IntN(12) == 0) {
		w.Seen["call failed"]++
		return ErrAway
	}
	do()
	p.leave()
	return nil
}
