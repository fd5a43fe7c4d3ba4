package edge

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
)

// table is where requests go: the routes, and what is under way at each replica. One lock guards it all,
// so that a request is either counted at a replica before a drain looks at it, or goes to a newer one.
type table struct {
	mu      sync.Mutex
	loaded  bool
	routes  map[discovery.Place]*route
	changed chan struct{} // closed and replaced whenever a drain may have become true
	watch   func(*replica) (stop func())
}

// route is one place: its entry and its replicas.
type route struct {
	entry    discovery.Entry
	replicas []*replica
	last     int // whose turn was last
	// leaving are replicas that the entry does not hold any more and that still answer requests.
	leaving []*replica
}

// replica is one instance. Its fields are guarded by the table's lock, but for the first two.
type replica struct {
	events.Instance
	place discovery.Place

	condition condition
	inFlight  int
	stop      func() // ends its health checks; nil without
}

func newTable(watch func(*replica) func()) *table {
	return &table{routes: map[discovery.Place]*route{}, changed: make(chan struct{}), watch: watch}
}

// signal wakes whoever waits for a drain. The lock is held.
func (t *table) signal() {
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *table) markLoaded() {
	t.mu.Lock()
	t.loaded = true
	t.mu.Unlock()
}

// set puts an entry into force. Replicas that stay keep what is known of them.
func (t *table) set(p discovery.Place, e discovery.Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.signal()
	before := t.routes[p]
	if before == nil {
		before = &route{}
	}
	if before.entry.Slot > e.Slot {
		return
	}
	next := &route{entry: e, leaving: before.leaving}
	for _, i := range e.Instances {
		if i.Address == "" || e.Removed {
			continue
		}
		next.replicas = append(next.replicas, t.take(p, e, before, i))
	}
	for _, r := range before.replicas {
		if slices.Contains(next.replicas, r) {
			continue
		}
		if r.stop != nil {
			r.stop()
		}
		if r.inFlight > 0 {
			next.leaving = append(next.leaving, r)
		}
	}
	t.routes[p] = next
}

// take returns the replica of an instance: the one that is there, or a new one.
func (t *table) take(p discovery.Place, e discovery.Entry, before *route, i events.Instance) *replica {
	for _, r := range before.replicas {
		if r.Instance == i && before.entry.Health == e.Health {
			return r
		}
	}
	// One that comes back while it is being left is a new replica: what it still answers belongs to
	// the older slot, and a drain of that waits for it.
	r := &replica{Instance: i, place: p}
	if e.Health != "" {
		r.stop = t.watch(r)
	}
	return r
}

// noReplicaError says why a request can be given to nobody.
type noReplicaError struct {
	place   discovery.Place
	known   bool // the place is in the table
	loading bool // the table has not been read yet
	entry   discovery.Entry
	whys    []string
}

func (e *noReplicaError) Error() string {
	switch {
	case !e.known && e.loading:
		return "the edge has not read its table from the bus yet"
	case !e.known || e.entry.Removed:
		return fmt.Sprintf("nothing runs as %s", e.place)
	case len(e.entry.Instances) > 0 && e.entry.Instances[0].Address == "":
		return fmt.Sprintf("%s takes no requests: it has no port in towpath.yaml", e.place)
	case len(e.whys) == 0:
		return fmt.Sprintf("%s has no replicas", e.place)
	}
	return fmt.Sprintf("no replica of %s is healthy: %s", e.place, strings.Join(e.whys, "; "))
}

// acquire gives a request to the next healthy replica that was not tried, and counts it there until
// release. The error is a *noReplicaError.
func (t *table) acquire(p discovery.Place, tried []*replica, now time.Time) (*replica, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.routes[p]
	if r == nil {
		return nil, &noReplicaError{place: p, loading: !t.loaded}
	}
	conditions, used := make([]condition, len(r.replicas)), make([]bool, len(r.replicas))
	for i, one := range r.replicas {
		conditions[i], used[i] = one.condition, slices.Contains(tried, one)
	}
	i := -1
	if len(r.replicas) > 0 {
		i = choose(conditions, used, r.last, now)
	}
	if i < 0 {
		none := &noReplicaError{place: p, known: true, entry: r.entry}
		for _, one := range r.replicas {
			none.whys = append(none.whys, one.ID+": "+one.condition.why)
		}
		return nil, none
	}
	r.last = i
	r.replicas[i].inFlight++
	return r.replicas[i], nil
}

// release ends what acquire began.
func (t *table) release(r *replica) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.inFlight--
	if r.inFlight > 0 {
		return
	}
	if route := t.routes[r.place]; route != nil {
		if i := slices.Index(route.leaving, r); i >= 0 {
			route.leaving = slices.Delete(route.leaving, i, i+1)
			t.signal()
		}
	}
}

// judge replaces what is known of a replica and reports whether it went up (+1) or down (-1).
func (t *table) judge(r *replica, now time.Time, change func(condition) condition) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := r.condition.up(now)
	r.condition = change(r.condition)
	switch after := r.condition.up(now); {
	case before && !after:
		return -1
	case !before && after:
		return +1
	}
	return 0
}

// health returns the path that a place's replicas are checked at.
func (t *table) health(p discovery.Place) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.routes[p]; r != nil {
		return r.entry.Health
	}
	return ""
}

// places returns what can be reached, sorted.
func (t *table) places() []discovery.Place {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []discovery.Place
	for p, r := range t.routes {
		if len(r.replicas) > 0 {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b discovery.Place) int { return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Env, b.Env)) })
	return all
}

// drain waits until slot, or a later one, has a place's requests to itself, or ctx ends, and says how
// it is then.
func (t *table) drain(ctx context.Context, p discovery.Place, slot int) discovery.DrainReply {
	for {
		t.mu.Lock()
		var reply discovery.DrainReply
		if r := t.routes[p]; r != nil {
			reply.Slot = r.entry.Slot
			for _, old := range r.leaving {
				reply.InFlight += old.inFlight
			}
		}
		changed := t.changed
		t.mu.Unlock()
		if reply.Drained(slot) {
			return reply
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return reply
		}
	}
}
