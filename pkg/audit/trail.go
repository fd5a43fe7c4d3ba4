// Package audit tells, from the ledger's events alone, how what runs came to run: the story of one deploy,
// the changes of an environment over a time, and what runs there that no run explains.
//
// It guarantees that everything it tells was in an event, each named by its place in the ledger, and that
// the same events tell the same. It does no IO and checks no signatures: whoever reads the ledger has done
// that. People appear as the ledger knows them, by opaque ids; names are put in by whoever may see them.
package audit

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
)

// Trail is what the events of one app say, kept so that stories and reports can be told of it. Hand it the
// app's events, and those about every app, in their order; one that is no concern of the app is passed over.
type Trail struct {
	App     events.Slug
	runs    []*run // run n is at n-1
	envs    map[events.Slug]*environment
	general []fact // holds and the like, of the app or of everything
	set     map[setting]fact
}

// fact is one event, without the bytes that it was signed over.
type fact struct {
	seq     uint64
	at      time.Time
	writer  events.Writer
	env     events.Slug
	attempt int
	body    events.Body
}

func (f fact) mark() Mark { return Mark{Event: f.seq, At: f.at} }

// Mark says when something happened, and which event says so.
type Mark struct {
	Event uint64    `json:"event"` // its place in the ledger
	At    time.Time `json:"at"`
}

type run struct {
	n     int
	chain string
	start events.RunStart
	image bool // built elsewhere
	facts []fact
}

type environment struct {
	slots []*slot // slot n is at n-1
}

type slot struct {
	taken   events.SlotTaken
	at      Mark
	decided *events.SlotDecided
	when    Mark
	closed  *events.SlotClosed
	ended   Mark
	tests   []fact // testcaserun.finished and testsuiterun.finished
}

type setting struct {
	env     events.Slug
	key     string
	store   string
	version uint64
	secret  bool
}

// NewTrail returns the trail of an app of which nothing is known yet.
func NewTrail(app events.Slug) *Trail {
	return &Trail{App: app, envs: map[events.Slug]*environment{}, set: map[setting]fact{}}
}

// Apply takes an event in.
func (t *Trail) Apply(r ledger.Record) {
	if r.Subject.App != t.App && r.Subject.App != "" {
		return
	}
	f := fact{seq: r.Seq, at: r.Event.Time, writer: r.Subject.Writer, env: r.Subject.Env, attempt: r.Subject.Attempt, body: r.Event.Body}
	switch b := r.Event.Body.(type) {
	case *events.ChangeMerged:
		t.begin(r, f, b.Run, false)
		return
	case *events.ArtifactPublished:
		if b.Published.Run != nil {
			t.begin(r, f, *b.Published.Run, true)
			return
		}
	case *events.SlotTaken:
		if e := t.environment(b.Environment); b.Slot == len(e.slots)+1 {
			e.slots = append(e.slots, &slot{taken: *b, at: f.mark()})
		}
		return
	case *events.SlotDecided:
		if s := t.slot(b.Environment, b.Slot); s != nil && s.decided == nil {
			s.decided, s.when = b, f.mark()
		}
		return
	case *events.SlotClosed:
		if s := t.slot(b.Environment, b.Slot); s != nil && s.closed == nil {
			s.closed, s.ended = b, f.mark()
		}
		return
	case *events.TestCaseRunFinished:
		t.test(f, b.Trial)
		return
	case *events.TestCaseRunSkipped:
		t.test(f, b.Trial)
		return
	case *events.TestSuiteRunFinished:
		t.test(f, b.Trial)
		return
	case *events.SettingChanged:
		t.set[setting{b.Environment, b.Key, b.Store, b.Version, false}] = f
		return
	case *events.SecretChanged:
		t.set[setting{b.Environment, b.Key, b.Store, b.Version, true}] = f
		return
	}
	if r.Subject.App != "" && r.Subject.Run >= 1 && r.Subject.Run <= len(t.runs) {
		one := t.runs[r.Subject.Run-1]
		one.facts = append(one.facts, f)
		return
	}
	switch r.Event.Body.(type) {
	case *events.CommandReceived, *events.CommandRefused, *events.LedgerRestored, *events.AlarmEnded:
		t.general = append(t.general, f)
	}
}

func (t *Trail) begin(r ledger.Record, f fact, start events.RunStart, image bool) {
	start.Definition = nil // its digest says which one; a trail of many runs need not hold them all
	one := &run{n: len(t.runs) + 1, chain: r.Event.ChainID, start: start, image: image}
	if b, ok := f.body.(*events.ArtifactPublished); ok {
		short := *b
		short.Published.Run = nil
		f.body = &short
	} else {
		f.body = &events.ChangeMerged{About: events.About{ID: f.body.SubjectID()}}
	}
	one.facts = []fact{f}
	t.runs = append(t.runs, one)
}

func (t *Trail) test(f fact, trial events.Trial) {
	if s := t.slot(f.env, trial.Slot); s != nil {
		s.tests = append(s.tests, f)
	}
}

func (t *Trail) environment(name events.Slug) *environment {
	e := t.envs[name]
	if e == nil {
		e = &environment{}
		t.envs[name] = e
	}
	return e
}

func (t *Trail) slot(env events.Slug, n int) *slot {
	if e := t.envs[env]; e != nil && n >= 1 && n <= len(e.slots) {
		return e.slots[n-1]
	}
	return nil
}

// live returns the greatest live slot of an environment before slot n, or of all where n is 0; nil: none.
func (t *Trail) live(env events.Slug, n int) *slot {
	e := t.envs[env]
	if e == nil {
		return nil
	}
	for i := len(e.slots) - 1; i >= 0; i-- {
		if s := e.slots[i]; (n == 0 || s.taken.Slot < n) && s.decided != nil && s.decided.Decision == events.Live {
			return s
		}
	}
	return nil
}

// run returns run n, or nil.
func (t *Trail) run(n int) *run {
	if n < 1 || n > len(t.runs) {
		return nil
	}
	return t.runs[n-1]
}

// Live returns the run whose version serves in an environment; 0: none does.
func (t *Trail) Live(env events.Slug) int {
	s := t.live(env, 0)
	if s == nil || s.taken.Kind == events.KindRemove {
		return 0
	}
	return s.taken.Run
}

// Carrier is a run that carried an image.
type Carrier struct {
	Run    int
	Digest string
}

// Carriers returns the runs that carried an image whose digest begins so, oldest first; one that was built anew may carry
// several.
func (t *Trail) Carriers(digest string) []Carrier {
	var list []Carrier
	for _, one := range t.runs {
		for _, f := range one.facts {
			b, ok := f.body.(*events.ArtifactPublished)
			if !ok || !strings.HasPrefix(b.Published.Artifact.Digest, digest) {
				continue
			}
			if c := (Carrier{one.n, b.Published.Artifact.Digest}); !slices.Contains(list, c) {
				list = append(list, c)
			}
		}
	}
	return list
}

func (t *Trail) name(n int) string { return fmt.Sprintf("%s/%d", t.App, n) }
