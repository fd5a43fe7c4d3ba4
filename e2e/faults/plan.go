package faults

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/worker/boundary"
)

// order says at which boundary a process is to die, and the how manieth time that it gets there.
type order struct {
	service events.Writer
	at      boundary.Boundary
	nth     int
}

func (o order) String() string { return fmt.Sprintf("%s:%s:%d", o.service, o.at, o.nth) }

// victim is a service that is killed at boundaries: which ones it passes, how far into a life it is let, and how often
// its turn comes where one process holds all.
type victim struct {
	service events.Writer
	passes  []boundary.Boundary
	reach   int // the largest nth: so far that what is in hand gets on, for a message may outlive a dozen deaths only
	turns   int
}

// victims are the services that write events, and notify, which writes none. The door has no effect but the event; watch
// is told by timers seldom, and looks at the fold by itself.
var victims = []victim{
	{events.Ledger, []boundary.Boundary{boundary.Received, boundary.Decided, boundary.Event, boundary.Ack}, 240, 2},
	{events.Gateway, boundary.All, 8, 2},
	{events.Build, boundary.All, 5, 2},
	{events.Vet, boundary.All, 12, 3},
	{events.Promote, boundary.All, 60, 4},
	{events.Verify, boundary.All, 8, 3},
	{events.Notify, []boundary.Boundary{boundary.Received, boundary.Effect, boundary.Ack}, 6, 1},
	{events.Watch, []boundary.Boundary{boundary.Effect, boundary.Decided, boundary.Event}, 12, 1},
}

// source gives the random numbers of one part of a campaign: the same seed gives each part the same, whatever the
// others have drawn.
func source(seed uint64, part string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(part))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// orders is the schedule of one program's deaths, one for each life.
type orders struct {
	random  *rand.Rand
	victims []victim // with as many entries as they have turns
	all     bool     // the program holds all services
	left    map[events.Writer][]boundary.Boundary
}

// ordersFor is the schedule of a program, which holds one of the victims or all. nil: it is none.
func ordersFor(seed uint64, program string, all bool) *orders {
	o := &orders{random: source(seed, "orders of "+program), all: all, left: map[events.Writer][]boundary.Boundary{}}
	for _, v := range victims {
		if all || string(v.service) == program {
			for range v.turns {
				o.victims = append(o.victims, v)
			}
		}
	}
	if len(o.victims) == 0 {
		return nil
	}
	return o
}

// atOnce is how many services are told to die where many live together, so that a life does not wait for one that has
// nothing to do.
const atOnce = 5

// life is what the next life is told: one order, or where many services live together one for some of them, all at the
// same boundary, so that those which are met seldom are not always forestalled.
func (o *orders) life() string {
	if !o.all {
		v := o.victims[o.random.IntN(len(o.victims))]
		return o.order(v, o.next(v.service, v.passes)).String()
	}
	at := o.next("", boundary.All)
	var list []string
	for len(list) < atOnce {
		if v := o.victims[o.random.IntN(len(o.victims))]; slices.Contains(v.passes, at) {
			list = append(list, o.order(v, at).String())
		}
	}
	return strings.Join(list, ",")
}

// next is the boundary of the next death: one after the other in an order of chance, and then again.
func (o *orders) next(whose events.Writer, all []boundary.Boundary) boundary.Boundary {
	left := o.left[whose]
	if len(left) == 0 {
		left = slices.Clone(all)
		o.random.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
	}
	o.left[whose] = left[1:]
	return left[0]
}

// order has a service die at a boundary, the how manieth time by chance.
func (o *orders) order(v victim, at boundary.Boundary) order {
	reach := v.reach
	if at == boundary.Received || at == boundary.Ack {
		reach = (reach + 3) / 4 // a message meets these once, the others several times
	}
	return order{v.service, at, 1 + o.random.IntN(reach)}
}

// blow is a kill that comes from outside, at no particular point.
type blow struct {
	after   time.Duration // since the blow before
	program string
}

// blows is a schedule of kills of any program.
type blows struct {
	random   *rand.Rand
	programs []string
	mean     time.Duration
}

func (b *blows) next() blow {
	after := time.Duration((0.2 + b.random.ExpFloat64()) * float64(b.mean) / 1.2)
	return blow{after, b.programs[b.random.IntN(len(b.programs))]}
}

// behaviour is what becomes of a change of an app.
type behaviour string

const (
	good       behaviour = "good"
	sick       behaviour = "sick"        // never healthy
	badRelease behaviour = "bad release" // its release command fails, which an operator has to mend
)

// ends is the status that a run of a behaviour must come to.
func (b behaviour) ends() string {
	switch b {
	case good:
		return "done"
	case badRelease:
		return "stuck"
	}
	return "failed"
}

// program is how an app is told what to do in a container.
type program struct{ release, badRelease string } // a list as YAML has it

// The programs of images that are handed over, and of those that are built.
var (
	elsewhere = program{`["/testapp", "print", "released"]`, `["/testapp", "print", "refused", "3"]`}
	built     = program{`["/sample", "say", "released"]`, `["/sample", "bad"]`}
)

// application is what an app is like, for good.
type application struct {
	name     string
	pushed   bool // its changes are pushed and built; else images are handed over
	replicas int
	envs     []string
	release  bool
	checked  bool // it has a check of its own
}

func applications(seed uint64, n int) []application {
	r := source(seed, "apps")
	var all []application
	for i := range n {
		a := application{name: fmt.Sprintf("app%d", i+1), pushed: i%4 == 3, replicas: 1, envs: []string{"dev"}}
		if r.IntN(4) == 0 {
			a.envs = append(a.envs, "qa")
		}
		if r.IntN(4) == 0 {
			a.replicas = 2
		}
		a.release, a.checked = r.IntN(3) == 0, r.IntN(2) == 0
		all = append(all, a)
	}
	return all
}

// changes are what an app's runs are about, one after the other.
type changes struct {
	random *rand.Rand
	app    application
}

func changesOf(seed uint64, a application) *changes {
	return &changes{source(seed, "changes of "+a.name), a}
}

func (c *changes) next() behaviour {
	switch n := c.random.IntN(20); {
	case n == 0:
		return sick
	case n == 1 && c.app.release:
		return badRelease
	}
	return good
}

// definition is the towpath.yaml of a change.
func (a application) definition(b behaviour) string {
	p := elsewhere
	if a.pushed {
		p = built
	}
	text := fmt.Sprintf("app: %s\nservice: {port: 8080, health: /health, healthTimeout: %s, replicas: %d, drainTimeout: 1s}\n",
		a.name, map[bool]string{true: "3s", false: "60s"}[b == sick], a.replicas)
	if a.release {
		command := p.release
		if b == badRelease {
			command = p.badRelease
		}
		text += "release: " + command + "\n"
	}
	text += "environments:\n"
	for _, env := range a.envs {
		text += "  - name: " + env + "\n"
		if a.checked {
			text += "    verify: [{http: {path: /, status: 200}}]\n"
		}
	}
	return text
}
