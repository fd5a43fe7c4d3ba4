package faults

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"towpath.dev/events"
)

// record is one event of the ledger.
type record struct {
	seq     uint64
	subject events.Subject
	event   events.Event
}

// asked is a run that somebody asked for and was told that it is one.
type asked struct {
	app      string
	run      int
	digest   string // of the image that was handed over; empty: it was built
	ends     string // the status that it must come to
	status   string // the status that it was seen to come to
	envs     []string
	replicas int
	release  bool
}

// container is one that the Engine has of ours.
type container struct {
	name, state, app, env, slot, image string
}

// history is all that a campaign has left behind.
type history struct {
	records    []record
	asked      []asked
	containers []container
	started    []string // names of containers, once for each start
}

// kind is what a fault is about.
type kind string

const (
	lost          kind = "lost"          // a run or a step of it did not happen
	doubled       kind = "doubled"       // something happened twice
	contradiction kind = "contradiction" // two events cannot both be true
	orphan        kind = "orphan"        // something is left that nothing accounts for
)

// fault is a promise that was broken.
type fault struct {
	kind kind
	text string
}

func (f fault) String() string { return string(f.kind) + ": " + f.text }

// check judges a history. It looks at events and at the Engine alone, and shares no code with what wrote them.
func check(h history) []fault {
	c := &checker{
		slots: map[place][]*slot{}, runs: map[string][]*journey{}, chains: map[string]*journey{},
		ends: map[string]uint64{}, subjects: map[string]uint64{},
	}
	for _, r := range h.records {
		c.read(r)
	}
	c.checkSlots()
	c.checkRuns(h.asked)
	c.checkEngine(h)
	return c.faults
}

type place struct{ app, env string }

// slot is what became of one slot of a place.
type slot struct {
	taken, decided, closed uint64 // sequences; 0: not written
	claim                  *events.SlotTaken
	decision               *events.SlotDecided
	closing                events.Closing
	deployed               int
}

func (s *slot) live() bool { return s.decision != nil && s.decision.Decision == events.Live }

// journey is what became of one run.
type journey struct {
	app     string
	n       int
	chain   string
	digest  string // of the image that was handed over or published
	outcome map[string]events.Outcome
}

type checker struct {
	faults   []fault
	last     uint64
	subjects map[string]uint64
	ends     map[string]uint64 // what can end once, and the event that did
	slots    map[place][]*slot
	runs     map[string][]*journey // by app, in their order
	chains   map[string]*journey
}

func (c *checker) fault(k kind, format string, a ...any) {
	c.faults = append(c.faults, fault{k, fmt.Sprintf(format, a...)})
}

func (c *checker) read(r record) {
	if r.seq <= c.last {
		c.fault(contradiction, "event %d comes after %d", r.seq, c.last)
	}
	c.last = r.seq
	subject := r.subject.String()
	if before, ok := c.subjects[subject]; ok {
		c.fault(doubled, "%s is written as event %d and again as %d", subject, before, r.seq)
	}
	c.subjects[subject] = r.seq
	app, env := string(r.subject.App), string(r.subject.Env)
	switch b := r.event.Body.(type) {
	case *events.ChangeMerged:
		c.begin(app, r, "")
	case *events.ArtifactPublished:
		if b.Published.Run != nil {
			c.begin(app, r, b.Published.Artifact.Digest)
		} else {
			c.published(r, b.Published.Artifact.Digest)
		}
	case *events.TaskRunFinished:
		c.once(r, string(r.subject.Writer)+" of %s/%d attempt %d is finished", app, r.subject.Run, r.subject.Attempt)
	case *events.BuildFinished:
		c.once(r, "build of %s/%d attempt %d is finished as a build", app, r.subject.Run, r.subject.Attempt)
	case *events.VetRunFinished:
		c.once(r, "vetting of %s/%d attempt %d is finished", app, r.subject.Run, r.subject.Attempt)
	case *events.PipelineRunFinished:
		c.once(r, "promotion of %s/%d to %s attempt %d is finished", app, r.subject.Run, env, r.subject.Attempt)
		if run := c.chains[r.event.ChainID]; run != nil {
			run.outcome[env] = b.Outcome
		}
	case *events.TestSuiteRunFinished:
		c.once(r, "verification of slot %d of %s in %s attempt %d is finished", b.Trial.Slot, app, env, r.subject.Attempt)
	case *events.SlotTaken:
		c.taken(place{app, env}, r.seq, b)
	case *events.SlotDecided:
		if s := c.slot(place{app, env}, b.Slot, "decided"); s != nil {
			if s.decided != 0 {
				c.fault(doubled, "slot %d of %s in %s is decided by event %d and by %d", b.Slot, app, env, s.decided, r.seq)
			}
			s.decided, s.decision = r.seq, b
		}
	case *events.SlotClosed:
		if s := c.slot(place{app, env}, b.Slot, "closed"); s != nil {
			if s.closed != 0 {
				c.fault(doubled, "slot %d of %s in %s is closed by event %d and by %d", b.Slot, app, env, s.closed, r.seq)
			}
			s.closed, s.closing = r.seq, b.Closing
		}
	case *events.ServiceDeployed:
		c.deployed(place{app, env}, b.Deployed.Slot)
	case *events.ServiceUpgraded:
		c.deployed(place{app, env}, b.Deployed.Slot)
	case *events.ServiceRolledback:
		c.deployed(place{app, env}, b.Deployed.Slot)
	}
}

// once reports what ended a second time.
func (c *checker) once(r record, format string, a ...any) {
	what := fmt.Sprintf(format, a...)
	if before, ok := c.ends[what]; ok {
		c.fault(doubled, "%s by event %d and by %d", what, before, r.seq)
	}
	c.ends[what] = r.seq
}

func (c *checker) begin(app string, r record, digest string) {
	if before := c.chains[r.event.ChainID]; before != nil {
		c.fault(doubled, "the chain of %s/%d begins a second run with event %d", before.app, before.n, r.seq)
		return
	}
	one := &journey{app: app, n: len(c.runs[app]) + 1, chain: r.event.ChainID, digest: digest, outcome: map[string]events.Outcome{}}
	c.runs[app] = append(c.runs[app], one)
	c.chains[one.chain] = one
}

func (c *checker) published(r record, digest string) {
	one := c.chains[r.event.ChainID]
	switch {
	case one == nil:
		c.fault(contradiction, "event %d publishes an image for a run that did not begin", r.seq)
	case one.digest != "" && one.digest != digest:
		c.fault(doubled, "%s/%d has two images, %s and %s", one.app, one.n, one.digest, digest)
	default:
		one.digest = digest
	}
}

func (c *checker) taken(p place, seq uint64, b *events.SlotTaken) {
	list := c.slots[p]
	if b.Slot != len(list)+1 {
		c.fault(contradiction, "slot %d of %s in %s is taken after slot %d", b.Slot, p.app, p.env, len(list))
		return
	}
	c.slots[p] = append(list, &slot{taken: seq, claim: b})
}

func (c *checker) slot(p place, n int, what string) *slot {
	if n < 1 || n > len(c.slots[p]) {
		c.fault(contradiction, "slot %d of %s in %s is %s and was not taken", n, p.app, p.env, what)
		return nil
	}
	return c.slots[p][n-1]
}

func (c *checker) deployed(p place, n int) {
	if s := c.slot(p, n, "deployed"); s != nil {
		if s.deployed++; s.deployed > 1 {
			c.fault(doubled, "slot %d of %s in %s is said to be deployed twice", n, p.app, p.env)
		}
	}
}

func (c *checker) checkSlots() {
	for p, list := range c.slots {
		attempts := map[[2]int]int{}
		for i, s := range list {
			n := i + 1
			if s.closed != 0 && !s.live() {
				c.fault(contradiction, "slot %d of %s in %s is closed without having been live", n, p.app, p.env)
			}
			if s.deployed > 0 && !s.live() {
				c.fault(contradiction, "slot %d of %s in %s is deployed without having been live", n, p.app, p.env)
			}
			free := s.closed
			if s.decision != nil && !s.live() {
				free = s.decided
			}
			if n < len(list) && (free == 0 || list[n].taken < free) {
				c.fault(contradiction, "slot %d of %s in %s is taken while slot %d is open", n+1, p.app, p.env, n)
			}
			if n == len(list) && free == 0 {
				c.fault(lost, "slot %d of %s in %s is still open", n, p.app, p.env)
			}
			if s.claim.Kind != events.KindDeploy {
				continue
			}
			attempt := [2]int{s.claim.Run, s.claim.Attempt}
			if before := attempts[attempt]; before != 0 {
				c.fault(doubled, "%s/%d attempt %d has slots %d and %d in %s", p.app, attempt[0], attempt[1], before, n, p.env)
			}
			attempts[attempt] = n
			if s.claim.Run < 1 || s.claim.Run > len(c.runs[p.app]) {
				c.fault(contradiction, "slot %d of %s in %s is for run %d, which did not begin", n, p.app, p.env, s.claim.Run)
			} else if want := c.runs[p.app][s.claim.Run-1].digest; s.claim.Digest != want {
				c.fault(contradiction, "slot %d of %s in %s is for %s, and run %d has %s", n, p.app, p.env, s.claim.Digest, s.claim.Run, want)
			}
		}
	}
}

func (c *checker) checkRuns(all []asked) {
	count := map[string]int{}
	for _, a := range all {
		count[a.app]++
		name := fmt.Sprintf("%s/%d", a.app, a.run)
		if a.run < 1 || a.run > len(c.runs[a.app]) {
			c.fault(lost, "%s was promised and did not begin", name)
			continue
		}
		one := c.runs[a.app][a.run-1]
		if a.digest != "" && one.digest != a.digest {
			c.fault(contradiction, "%s is about %s, and was asked for with %s", name, one.digest, a.digest)
		}
		switch {
		case a.status == "":
			c.fault(lost, "%s came to no end", name)
		case a.status != a.ends:
			c.fault(contradiction, "%s is %s, and must be %s", name, a.status, a.ends)
		}
		for _, env := range a.envs {
			c.checkRun(a, one, name, env)
		}
	}
	for app, runs := range c.runs {
		if len(runs) > count[app] {
			c.fault(doubled, "%s has %d runs, and %d were asked for", app, len(runs), count[app])
		}
	}
}

// checkRun compares what a run is said to have come to with its slot in an environment.
func (c *checker) checkRun(a asked, one *journey, name, env string) {
	var mine *slot
	for _, s := range c.slots[place{a.app, env}] {
		if s.claim.Run == a.run && s.claim.Kind == events.KindDeploy {
			mine = s
		}
	}
	closing := events.Closing("none")
	if mine != nil {
		closing = mine.closing
	}
	verified := closing == events.Verified
	if a.ends == "done" && !verified {
		c.fault(lost, "%s never got through %s", name, env)
	}
	if a.ends != "done" && verified && env == a.envs[0] {
		c.fault(contradiction, "%s is verified in %s, and nothing of it works", name, env)
	}
	if outcome, ok := one.outcome[env]; ok && verified != (outcome == events.Success) {
		c.fault(contradiction, "the promotion of %s to %s ended with %s, its slot with %q", name, env, outcome, closing)
	}
	if a.ends == "done" {
		if _, ok := one.outcome[env]; !ok {
			c.fault(lost, "the promotion of %s to %s has no end in the ledger", name, env)
		}
	}
}

// checkEngine compares what runs with the greatest live slot of each place, and what was started with what each slot
// needed.
func (c *checker) checkEngine(h history) {
	due := map[string]container{} // by name
	for p, list := range c.slots {
		for i, s := range slices.Backward(list) {
			if !s.live() {
				continue
			}
			for _, instance := range s.decision.Instances {
				due[instance.ID] = container{name: instance.ID, app: p.app, env: p.env, image: s.claim.Digest}
			}
			if want := replicasOf(h.asked, p.app); s.claim.Kind != events.KindRemove && want > 0 && len(s.decision.Instances) != want {
				c.fault(lost, "slot %d of %s in %s has %d replicas, not %d", i+1, p.app, p.env, len(s.decision.Instances), want)
			}
			break
		}
	}
	for _, is := range h.containers {
		_, role := roleOf(is.name)
		want, ok := due[is.name]
		switch {
		case !ok && role != "replica" && c.keeps(is):
		case !ok:
			c.fault(orphan, "container %s (%s) of slot %s of %s in %s belongs to nothing that is live", is.name, is.state, is.slot, is.app, is.env)
		case is.state != "running":
			c.fault(lost, "container %s is live and %s", is.name, is.state)
		case !strings.Contains(is.image, want.image):
			c.fault(contradiction, "container %s runs %s, not %s", is.name, is.image, want.image)
		}
		delete(due, is.name)
	}
	for _, name := range slices.Sorted(maps.Keys(due)) {
		c.fault(lost, "container %s is live and not there", name)
	}
	c.checkStarts(h)
}

// keeps reports whether a container that serves nobody goes with the slot that is live: its release, its secrets.
func (c *checker) keeps(is container) bool {
	list := c.slots[place{is.app, is.env}]
	for i, s := range slices.Backward(list) {
		if s.live() {
			return fmt.Sprint(i+1) == is.slot
		}
	}
	return false
}

func (c *checker) checkStarts(h history) {
	starts := map[string]int{}
	for _, name := range h.started {
		starts[name]++
	}
	for _, name := range slices.Sorted(maps.Keys(starts)) {
		if starts[name] > 1 {
			c.fault(doubled, "container %s was started %d times", name, starts[name])
		}
	}
	for _, a := range h.asked {
		if !a.release || a.ends != "done" {
			continue
		}
		for _, env := range a.envs {
			for i, s := range c.slots[place{a.app, env}] {
				if s.claim.Run != a.run || s.claim.Kind != events.KindDeploy || !s.live() {
					continue
				}
				end := fmt.Sprintf("-%s.%s-%d-release", a.app, env, i+1)
				if !slices.ContainsFunc(h.started, func(name string) bool { return strings.HasSuffix(name, end) }) {
					c.fault(lost, "the release command of %s/%d in %s never ran", a.app, a.run, env)
				}
			}
		}
	}
}

// replicasOf is how many replicas an app has in every environment; 0: it is not one of those that were asked for.
func replicasOf(all []asked, app string) int {
	for _, a := range all {
		if a.app == app {
			return a.replicas
		}
	}
	return 0
}

// roleOf takes a container's name apart: towpath-<install>-<app>.<env>-<slot>-<what>.
func roleOf(name string) (stem, role string) {
	for _, role := range []string{"release", "secrets"} {
		if stem, _, found := strings.Cut(name, "-"+role); found {
			return stem, role
		}
	}
	return name, "replica"
}
