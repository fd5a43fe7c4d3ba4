// Package faults kills Towpath's processes with SIGKILL, again and again, while it carries changes of many apps, and
// then judges from the ledger and from the Docker Engine whether every run came to its end, once.
//
// Programs that are built with the tag "faults" die at named boundaries (towpath.dev/pkg/worker/boundary); others are
// killed from outside at any moment. A campaign is seeded: the same seed gives the same apps, the same changes and the
// same schedule of kills. What happens between them is the machine's affair.
package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath.dev/e2e/system"
	"towpath.dev/events"
	"towpath.dev/pkg/engine/enginetest"
	"towpath.dev/pkg/worker/boundary"
)

// ackWait is the bus's patience in campaigns, and resumeBound how long work may lie after the death of who was at it.
const (
	ackWait     = time.Second
	resumeBound = ackWait + 5*time.Second
)

// options are how much a campaign does.
type options struct {
	seed   uint64
	shape  system.Shape
	apps   int
	kills  int           // at each boundary, at least
	runs   int           // in all, at least
	mean   time.Duration // between two kills from outside
	outage time.Duration // that the bus is away once while services are killed; 0: it stays; separate shape only
	budget time.Duration // after which no more is begun, whatever was reached
	quota  bool          // less than kills and runs is a failure
	resume time.Duration // how long work may lie
}

// campaign is one that goes on.
type campaign struct {
	t       *testing.T
	o       options
	system  *system.System
	gateway *gateway
	trail   *trail
	people  *mailbox
	images  map[behaviour][]string // repository@digest
	sample  string
	began   time.Time

	armed   bool
	lives   int       // begun while armed
	resting time.Time // when the present one is to end, if it is let be
	plans   map[string]*orders
	pids    map[string]int
	blown   map[int]time.Time // when a process was killed from outside
	deaths  []death
	strange []string // processes that ended by themselves

	stop     chan struct{} // closed: no more changes
	mu       sync.Mutex
	asked    []asked
	broken   []error
	replayed []string // stages that an operator had to replay, and why
}

// run starts a system, troubles it, and judges what it left behind.
func run(t *testing.T, binaries system.Binaries, o options) {
	folder := t.TempDir()
	c := &campaign{
		t: t, o: o, sample: binaries.Sample, plans: map[string]*orders{}, pids: map[string]int{}, blown: map[int]time.Time{},
		images: map[behaviour][]string{}, stop: make(chan struct{}), began: time.Now(),
	}
	trailFile := filepath.Join(folder, "passed")
	var err error
	if c.trail, err = openTrail(trailFile); err != nil {
		t.Fatal(err)
	}
	defer c.trail.close()
	environment := func(program string) []string {
		env := []string{"TOWPATH_PASSED=" + trailFile}
		if plan := c.plans[program]; c.armed && plan != nil && !c.rests() {
			env = append(env, "TOWPATH_KILL="+plan.life())
		}
		return env
	}
	platform := ""
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		platform = fmt.Sprintf("engines: {build: {host: %q}, environments: {default: {host: %q}}}\n", host, host)
	}
	var told string
	if c.people, told, err = openMailbox(folder); err != nil {
		t.Fatal(err)
	}
	defer c.people.close()
	platform += told
	c.system, err = system.Start(t.Context(), system.Options{
		Platform: platform, Shape: o.shape, Folder: filepath.Join(folder, "system"), Binaries: binaries, AckWait: ackWait, Environment: environment,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	c.prepare()
	var working sync.WaitGroup
	for _, a := range applications(o.seed, o.apps) {
		working.Go(func() { c.work(a, filepath.Join(folder, "repositories", a.name)) })
	}
	c.trouble()
	close(c.stop)
	c.armed = false
	done, stopped := make(chan struct{}), time.Now()
	go func() { working.Wait(); close(done) }()
	c.keep("the runs under way end", func() bool { return closed(done) }, nil)
	if took := time.Since(stopped); took > drainBound {
		t.Errorf("the last runs took %s to end; at most %s is promised, also after the bus was away", took.Round(time.Second), drainBound)
	}
	c.judge()
}

// drainBound is how long it may take until all that is under way has ended.
const drainBound = 2 * time.Minute

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (c *campaign) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := c.system.Close(ctx); err != nil {
		c.t.Errorf("stopping: %v", err)
	}
	if c.t.Failed() {
		c.t.Logf("logs of the %s system:\n%s", c.o.shape, c.system.LogTail(15))
	}
}

// Where everything dies at once and is at work within a second, what takes longer than that would never come to its end:
// some lives are let be for a while.
const (
	restEvery = 10 // lives
	restFor   = 6 * time.Second
)

// rests reports whether the life that begins now is one of those.
func (c *campaign) rests() bool {
	if c.lives++; c.o.shape != system.AllInOne || c.lives%restEvery != 0 {
		return false
	}
	c.resting = time.Now().Add(restFor)
	return true
}

// wake ends a life that was let be.
func (c *campaign) wake() {
	if !c.resting.IsZero() && time.Now().After(c.resting) {
		c.resting = time.Time{}
		c.blow(c.system.Programs()[0])
	}
}

// prepare opens the way in and pushes the images that changes are made of.
func (c *campaign) prepare() {
	c.gateway = openGateway(c.system, c.o.outage)
	for _, program := range c.system.Programs() {
		c.pids[program] = c.system.Pid(program)
		if plan := ordersFor(c.o.seed, program, c.o.shape == system.AllInOne); plan != nil {
			c.plans[program] = plan
		}
	}
	registry := c.system.Variables()["REGISTRY"]
	for n := range 3 {
		for b, health := range map[behaviour]string{good: "200", sick: "500"} {
			app := enginetest.App{Args: []string{"serve", "-health", health}, Version: fmt.Sprint(b, n, registry)} // an image by which this system is known among others
			repository, digest := enginetest.Push(c.t, registry, "elsewhere/app", app)
			c.images[b] = append(c.images[b], repository+"@"+digest)
		}
	}
	c.images[badRelease] = c.images[good]
}

// work carries changes of one app, one after the other, until it is told to stop.
func (c *campaign) work(a application, folder string) {
	ctx := c.t.Context()
	plan, latest := changesOf(c.o.seed, a), ""
	var r *repository
	if a.pushed {
		var err error
		if r, err = c.gateway.openRepository(ctx, folder, a.name, c.sample); err != nil {
			c.break_(err)
			return
		}
	}
	for n := 1; !closed(c.stop); n++ {
		b := plan.next()
		one := asked{app: a.name, run: n, ends: b.ends(), envs: a.envs, replicas: a.replicas, release: a.release}
		var number int
		var err error
		if a.pushed {
			number, err = r.push(ctx, b, a.definition(b))
		} else {
			latest = other(c.images[b], latest)
			one.digest = latest[strings.Index(latest, "@")+1:]
			number, err = c.gateway.submit(ctx, a.name, latest, a.definition(b))
		}
		if err == nil && number != n {
			err = fmt.Errorf("change %d of %s became run %d", n, a.name, number)
		}
		if err == nil {
			one.status, err = c.outcome(ctx, a.name, n, b)
		}
		c.mu.Lock()
		c.asked = append(c.asked, one)
		c.mu.Unlock()
		if err != nil {
			c.break_(err)
			return
		}
	}
}

// maxReplays is how often an operator replays one run: where one process holds everything and dies once a second, a build
// seldom gets to its end before it is suspected to be what kills it.
const maxReplays = 20

// outcome waits for a run's end. A message over which too many processes died, or whose tries were used up by services
// that were not there yet, is given up, and its stage is stuck: an operator replays it. A release command that fails is
// stuck by its own fault, and stays so.
func (c *campaign) outcome(ctx context.Context, app string, run int, b behaviour) (string, error) {
	for n := 0; ; n++ {
		v, err := c.gateway.ended(ctx, app, run, endBound+c.o.outage)
		stage, env, why, stuck := v.stuck()
		if err != nil || v.Status != "stuck" || !stuck || n == maxReplays || b == badRelease && strings.Contains(why, "release command") {
			return v.Status, err
		}
		c.mu.Lock()
		c.replayed = append(c.replayed, fmt.Sprintf("%s/%d %s %s: %s", app, run, stage, env, why))
		c.mu.Unlock()
		if err := c.gateway.replay(ctx, app, run, stage, env); err != nil {
			return "", err
		}
	}
}

// endBound is how long one run may take while its workers are killed again and again, besides the time that the bus is away.
const endBound = 5 * time.Minute

// other is an image that is not the one before: the same again would be the same run.
func other(images []string, before string) string {
	at := slices.Index(images, before)
	return images[(at+1)%len(images)]
}

func (c *campaign) break_(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = append(c.broken, err)
}

func (c *campaign) runs() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked)
}

// trouble is the campaign's schedule: deaths at boundaries, then kills from outside, then the bus's absence.
func (c *campaign) trouble() {
	c.armed = true
	for _, program := range c.system.Programs() {
		if c.plans[program] != nil {
			c.blow(program) // its next life has an order
		}
	}
	begun := time.Now()
	share := begun.Add(c.o.budget * 2 / 3)
	c.keep("kills at boundaries", func() bool { return c.fewest() >= c.o.kills || time.Now().After(share) }, nil)
	c.armed = false
	c.keep("kills from outside", func() bool { return c.runs() >= c.o.runs || time.Since(begun) > c.o.budget },
		&blows{source(c.o.seed, "blows"), c.system.Programs(), c.o.mean})
	if c.o.outage > 0 && c.o.shape == system.Separate {
		c.withoutBus()
	}
}

// withoutBus kills the bus, then services while it is away.
func (c *campaign) withoutBus() {
	services := slices.DeleteFunc(c.system.Programs(), func(name string) bool { return name == "bus" })
	end := time.Now().Add(c.o.outage)
	c.blow("bus")
	c.keep("the bus is away", func() bool { return time.Now().After(end) }, &blows{source(c.o.seed, "blows without a bus"), services, c.o.mean}, "bus")
}

// blow kills a program from outside. One that has just ended is left as it is.
func (c *campaign) blow(program string) {
	if c.system.Kill(program) == nil {
		c.blown[c.pids[program]] = time.Now()
	}
}

// keep starts again what has ended, and deals blows, until it is enough.
func (c *campaign) keep(what string, enough func() bool, b *blows, down ...string) {
	begin, told := time.Now(), time.Now()
	var due blow
	var at time.Time
	if b != nil {
		due = b.next()
		at = begin.Add(due.after)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		c.revive(down)
		c.wake()
		if err := c.trail.read(); err != nil {
			c.break_(err)
			break
		}
		if enough() {
			break
		}
		if b != nil && time.Now().After(at) {
			c.blow(due.program)
			due = b.next()
			at = time.Now().Add(due.after)
		}
		if time.Since(told) > 20*time.Second {
			told = time.Now()
			c.say("%s: %d deaths, %d runs", what, len(c.deaths), c.runs())
		}
	}
	c.say("%s: over after %s; %d deaths, %d runs so far", what, time.Since(begin).Round(time.Second), len(c.deaths), c.runs())
}

func (c *campaign) say(format string, a ...any) {
	c.t.Logf("%6s  %s", time.Since(c.began).Round(time.Second), fmt.Sprintf(format, a...))
}

// revive starts what has ended, and writes down why it had.
func (c *campaign) revive(down []string) {
	revived, err := c.system.Revive(down...)
	if err != nil {
		c.break_(err)
	}
	if len(revived) > 0 {
		if err := c.trail.read(); err != nil {
			c.break_(err)
		}
	}
	for _, program := range revived {
		pid := c.pids[program]
		c.pids[program] = c.system.Pid(program)
		d := death{program: program, pid: pid, back: time.Now()}
		if p, ok := c.trail.killedAt(pid); ok {
			d.at, d.named = p.at, &p
		} else if at, ok := c.blown[pid]; ok {
			d.at = at
		} else {
			c.strange = append(c.strange, fmt.Sprintf("%s (process %d)", program, pid))
			d.at = time.Now()
		}
		c.deaths = append(c.deaths, d)
	}
}

// fewest is how many deaths there were at the boundary that had the fewest.
func (c *campaign) fewest() int {
	count := map[string]int{}
	for _, d := range c.deaths {
		if d.named != nil {
			count[d.named.boundary]++
		}
	}
	fewest := len(c.deaths)
	for _, b := range boundary.All {
		fewest = min(fewest, count[string(b)])
	}
	return fewest
}

// tidyBound is how long promote may take to remove what is not needed after the last run.
const tidyBound = time.Minute

// toldBound is how long the notifications that are still due at the end may take: one a second is what a chat takes.
const toldBound = 15 * time.Minute

// judge waits until the system has come to rest and says what is wrong with what it left behind.
func (c *campaign) judge() {
	var h history
	var faults, untold []fault
	begun := time.Now()
	for end := begun.Add(tidyBound); ; <-time.After(time.Second) {
		c.revive(nil)
		var err error
		before := len(untold)
		if h, err = c.history(); err == nil {
			untold = c.people.untold(c.asked)
			faults = append(check(h), untold...)
		}
		if err == nil && len(faults) == 0 {
			break
		}
		if len(untold) < before && time.Since(begun) < toldBound {
			end = time.Now().Add(tidyBound)
		}
		if time.Now().After(end) {
			if err != nil {
				c.t.Error(err)
			}
			break
		}
	}
	c.t.Logf("judged %s after the last run ended, %d not told", time.Since(begun).Round(time.Second), len(untold))
	for _, f := range faults {
		c.t.Errorf("%s", f)
	}
	for _, err := range c.broken {
		c.t.Error(err)
	}
	for _, s := range c.strange {
		c.t.Errorf("%s ended by itself", s)
	}
	resumed := resumptions(c.trail.all, c.deaths)
	for _, r := range resumed {
		if r.after > c.o.resume {
			c.t.Errorf("%s lay for %s after the death of %s at %s; at most %s is promised", r.what, r.after.Round(time.Millisecond), r.death.program, r.death.at.Format("15:04:05.000"), c.o.resume)
		}
	}
	if n := c.fewest(); c.o.quota && n < c.o.kills {
		c.t.Errorf("%d kills at one of the boundaries, not %d: the budget of %s was too small", n, c.o.kills, c.o.budget)
	}
	if c.o.quota && len(c.asked) < c.o.runs {
		c.t.Errorf("%d runs, not %d: the budget of %s was too small", len(c.asked), c.o.runs, c.o.budget)
	}
	if len(c.deaths) == 0 || len(c.trail.all) == 0 {
		c.t.Error("nobody died or nobody passed a boundary: nothing was tried")
	}
	c.t.Logf("\n%s", report(c.o, c.deaths, resumed, len(c.asked), len(h.records), c.replayed, faults, time.Since(c.began)))
}

// history gathers what there is to judge.
func (c *campaign) history() (history, error) {
	h := history{started: c.system.Started(regexp.MustCompile("")), asked: c.asked}
	list, err := c.system.Events(c.t.Context(), "")
	if err != nil {
		return h, err
	}
	for _, e := range list {
		s, err := events.ParseSubject(e.Subject)
		if err != nil {
			return h, err
		}
		event, err := events.Decode(e.Body)
		if err != nil {
			return h, fmt.Errorf("event %d: %w", e.Seq, err)
		}
		h.records = append(h.records, record{e.Seq, s, event})
	}
	lines, err := c.system.Containers(c.t.Context(), true, "", "")
	if err != nil {
		return h, err
	}
	for _, line := range lines {
		one, err := parseContainer(line)
		if err != nil {
			return h, err
		}
		h.containers = append(h.containers, one)
	}
	if len(h.records) == 0 || len(h.containers) == 0 || len(h.asked) == 0 {
		return h, errors.New("nothing is there to be judged")
	}
	return h, nil
}

// parseContainer reads a line of system.Containers: NAME STATE app= env= run= slot= image=
func parseContainer(line string) (container, error) {
	f := strings.Fields(line)
	if len(f) < 6 {
		return container{}, fmt.Errorf("%q describes no container", line)
	}
	one := container{name: f[0], state: f[1]}
	for _, pair := range f[2:] {
		name, value, _ := strings.Cut(pair, "=")
		switch name {
		case "app":
			one.app = value
		case "env":
			one.env = value
		case "slot":
			one.slot = value
		case "image":
			one.image = value
		}
	}
	return one, nil
}
