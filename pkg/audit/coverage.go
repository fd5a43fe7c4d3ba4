package audit

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
)

// InventoryRequest asks promote, which alone reaches the Engines, what runs on an environment's.
type InventoryRequest struct {
	Environment events.Slug `json:"environment"`
}

// Inventory is promote's answer.
type Inventory struct {
	Engine     string      `json:"engine"` // its address
	At         time.Time   `json:"at"`
	Containers []Container `json:"containers"`
	More       int         `json:"more,omitempty"`  // that did not fit into the answer
	Error      string      `json:"error,omitempty"` // why there is none
}

// Labels of the containers that promote makes.
const (
	LabelInstall = "towpath.install"
	LabelApp     = "towpath.app"
	LabelEnv     = "towpath.env"
	LabelSlot    = "towpath.slot"
	LabelRole    = "towpath.role"
)

// Container is one that runs on an Engine, whoever started it.
type Container struct {
	ID      string            `json:"id"`
	Name    string            `json:"name"`
	Image   string            `json:"image"`             // as it was started
	Digests []string          `json:"digests,omitempty"` // by which the Engine knows the image
	Keeper  bool              `json:"keeper,omitempty"`  // its image is that of the containers that hold secrets in memory
	Labels  map[string]string `json:"labels,omitempty"`  // those of Towpath
	Status  string            `json:"status"`
	Created time.Time         `json:"created"`
}

// Coverage says which containers of an environment's Engine the ledger explains.
type Coverage struct {
	Environment string    `json:"environment"`
	Engine      string    `json:"engine"`
	At          time.Time `json:"at"`
	Explained   []Covered `json:"explained"`
	Unexplained []Covered `json:"unexplained"`
	Missing     []Covered `json:"missing"`        // replicas of live slots that do not run
	More        int       `json:"more,omitempty"` // containers that were not looked at
}

// Covered is a container and why it runs, or why nobody knows.
type Covered struct {
	Container string `json:"container"`
	Image     string `json:"image,omitempty"`
	Digest    string `json:"digest,omitempty"`
	App       string `json:"app,omitempty"`
	Run       string `json:"run,omitempty"`
	Slot      int    `json:"slot,omitempty"`
	Why       string `json:"why"`
}

// Cover compares what runs on an environment's Engine with the live slots of all apps. A container of another environment
// that shares the Engine is left out where its own slots explain it.
func Cover(apps []*fold.App, ledgerID string, env events.Slug, found Inventory) Coverage {
	c := Coverage{
		Environment: string(env), Engine: found.Engine, At: found.At, More: found.More,
		Explained: []Covered{}, Unexplained: []Covered{}, Missing: []Covered{},
	}
	byName := map[events.Slug]*fold.App{}
	for _, a := range apps {
		byName[a.Name] = a
	}
	running := map[string]bool{}
	for _, one := range found.Containers {
		running[one.Name] = true
		covered, explained := explain(byName, ledgerID, one)
		switch {
		case !explained:
			c.Unexplained = append(c.Unexplained, covered)
		case one.Labels[LabelEnv] == string(env):
			c.Explained = append(c.Explained, covered)
		}
	}
	for _, a := range apps {
		live := a.Env(env).Live()
		if live == nil || live.Kind == events.KindRemove || found.More > 0 {
			continue
		}
		for _, i := range live.Instances {
			if !running[i.ID] {
				c.Missing = append(c.Missing, Covered{
					Container: i.ID, Digest: live.Digest, App: string(a.Name), Run: fold.Name(a.Name, live.Run), Slot: live.N,
					Why: fmt.Sprintf("slot %d is live with it, and it does not run", live.N),
				})
			}
		}
	}
	for _, list := range [][]Covered{c.Explained, c.Unexplained, c.Missing} {
		slices.SortFunc(list, func(a, b Covered) int { return cmp.Compare(a.Container, b.Container) })
	}
	return c
}

// installDigits is how much of the ledger's id promote labels its containers with.
const installDigits = 8

// explain finds the slot that a container runs for.
func explain(apps map[events.Slug]*fold.App, ledgerID string, c Container) (Covered, bool) {
	covered := Covered{Container: c.Name, Image: c.Image, Digest: strings.Join(digests(c), ", ")}
	no := func(format string, a ...any) (Covered, bool) {
		covered.Why = fmt.Sprintf(format, a...)
		return covered, false
	}
	install := c.Labels[LabelInstall]
	switch {
	case install == "":
		return no("it has no label of Towpath: somebody started it beside Towpath")
	case len(ledgerID) < installDigits || install != ledgerID[:installDigits]:
		return no("its label names another installation, %.40q", install)
	}
	app, env := apps[events.Slug(c.Labels[LabelApp])], events.Slug(c.Labels[LabelEnv])
	covered.App = c.Labels[LabelApp]
	if app == nil {
		return no("its label names an app that the ledger does not know, %.70q", covered.App)
	}
	n, _ := strconv.Atoi(c.Labels[LabelSlot])
	slot := reason(app.Env(env), c.Name, n)
	if slot == nil && app.Env(env).Slot(n) == nil {
		return no("the ledger has no slot %.20q of %s in %.70q", c.Labels[LabelSlot], app.Name, string(env))
	}
	if slot == nil {
		covered.Slot = n
		return no("slot %d of %s in %s is over, and the container should be gone", n, app.Name, env)
	}
	covered.Slot, covered.Run = slot.N, fold.Name(app.Name, slot.Run)
	if !c.Keeper && !slices.Contains(digests(c), slot.Digest) {
		return no("slot %d is for %s, and the container's image is another", slot.N, slot.Digest)
	}
	covered.Digest = slot.Digest
	switch {
	case slot.Decision == "":
		covered.Why = fmt.Sprintf("slot %d is being brought up", slot.N)
	case slot == app.Env(env).Live():
		covered.Why = fmt.Sprintf("slot %d is live", slot.N)
	default:
		covered.Why = fmt.Sprintf("slot %d is kept until the one after it is verified", slot.N)
	}
	return covered, true
}

// reason returns the slot for which a container of slot n may run, or nil: the live one, which may have taken containers
// of an earlier one over; one that is being brought up; and, while the last is not closed, the one that would come back.
func reason(e *fold.Env, name string, n int) *fold.Slot {
	live, last := e.Live(), e.Last()
	if live != nil && live.Kind != events.KindRemove &&
		(live.N == n || slices.ContainsFunc(live.Instances, func(i events.Instance) bool { return i.ID == name })) {
		return live
	}
	if last == nil || !last.Open() {
		return nil
	}
	if last.N == n {
		return last
	}
	good := e.Good(last.N)
	if good != nil && (good.N == n || slices.ContainsFunc(good.Instances, func(i events.Instance) bool { return i.ID == name })) {
		return good
	}
	return nil
}

// digests are those of the container's image, without the repositories.
func digests(c Container) []string {
	var list []string
	for _, d := range c.Digests {
		if _, digest, ok := strings.Cut(d, "@"); ok && !slices.Contains(list, digest) {
			list = append(list, digest)
		}
	}
	return list
}
