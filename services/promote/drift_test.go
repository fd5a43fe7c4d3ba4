package promote

import (
	"fmt"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/settings"
)

func TestKeyFindings(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(version uint64, age time.Duration) []settings.Item {
		return []settings.Item{{Key: "KEY", Version: version, Set: now.Add(-age)}}
	}
	said := func(version uint64, deleted bool) map[string]fold.Setting {
		return map[string]fold.Setting{"KEY": {Version: version, Deleted: deleted}}
	}
	moved := "[config: moved from Consul (one) to Consul (other): promote it again to have it from there, expected in Consul (one), fresh false]"
	for name, c := range map[string]struct {
		known   map[string]fold.Setting
		present []settings.Item
		want    string
	}{
		"said of another store":          {map[string]fold.Setting{"KEY": {Store: "Consul (one)", Version: 9}}, at(4, time.Hour), "[]"},
		"as pinned":                      {nil, at(4, time.Hour), "[]"},
		"as said since":                  {said(5, false), at(5, time.Hour), "[]"},
		"a rollback's own":               {said(5, false), at(4, time.Hour), "[]"},
		"changed":                        {said(4, false), at(6, time.Hour), "[config KEY: version 6, expected version 4, fresh false]"},
		"changed, adopted":               {nil, at(6, time.Hour), "[config KEY: version 6, expected version 4, fresh false]"},
		"changed a moment ago":           {said(4, false), at(6, time.Second), "[config KEY: version 6, expected version 4, fresh true]"},
		"changed, nobody knows when":     {said(4, false), []settings.Item{{Key: "KEY", Version: 6}}, "[config KEY: version 6, expected version 4, fresh true]"},
		"gone":                           {said(4, false), nil, "[config KEY: gone, expected version 4, fresh true]"},
		"gone, as was said":              {said(7, true), nil, "[]"},
		"gone, and all apps share one":   {said(7, true), []settings.Item{{Key: "KEY", Version: 8, Shared: true}}, "[]"},
		"back, though it was to be gone": {said(7, true), at(8, time.Hour), "[config KEY: version 8, expected none, fresh false]"},
	} {
		var got []string
		for _, f := range keyFindings(settings.Config, map[string]uint64{"KEY": 4}, "", events.StoreEmbedded, c.known, c.present, now) {
			got = append(got, fmt.Sprintf("%s: %s, expected %s, fresh %t", f.What, f.Found, f.Expected, f.Fresh))
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
		got = nil
		for _, f := range keyFindings(settings.Config, map[string]uint64{"KEY": 4}, "Consul (one)", "Consul (other)", c.known, c.present, now) {
			got = append(got, fmt.Sprintf("%s: %s, expected %s, fresh %t", f.What, f.Found, f.Expected, f.Fresh))
		}
		if fmt.Sprint(got) != moved {
			t.Errorf("%s, in another store: %v, want %s", name, got, moved)
		}
	}
}

// Each drift is said once when it is found, and once when it is over; one that comes again is another.
func TestEachDriftIsSaidOnce(t *testing.T) {
	l := foldtest.New()
	l.Policy(1, "{}")
	l.Ready(foldtest.Definition("app: hello\nenvironments: [{name: prod}]\n"), "")
	look := func(found ...Finding) (said []string) {
		for _, s := range newView(l.App("hello"), "prod", Facts{Epoch: foldtest.Epoch}).drifts(1, found) {
			l.Write(s.Subject, "", s.Body)
			said = append(said, fmt.Sprintf("%s %d", s.Body.Type().Predicate(), s.Subject.Attempt))
		}
		return said
	}
	one, other := Finding{What: "container a", Expected: "running", Found: "gone"}, Finding{What: "config KEY", Expected: "version 1", Found: "version 2"}
	for i, c := range []struct {
		found []Finding
		want  string
	}{
		{nil, "[]"},
		{[]Finding{one}, "[detected 1]"},
		{[]Finding{one}, "[]"},
		{[]Finding{one, other}, "[detected 2]"},
		{[]Finding{other}, "[resolved 1]"},
		{[]Finding{one, other}, "[detected 3]"},
		{nil, "[resolved 2 resolved 3]"},
		{nil, "[]"},
	} {
		if got := fmt.Sprint(look(c.found...)); got != c.want {
			t.Errorf("look %d: %s, want %s", i, got, c.want)
		}
	}
	if n := len(l.App("hello").Env("prod").Drifts); n != 0 {
		t.Errorf("%d drifts are left", n)
	}
	if l.App("hello").Env("prod").DriftCount != 3 {
		t.Errorf("%d drifts were counted", l.App("hello").Env("prod").DriftCount)
	}
}

// An environment that somebody made: its apps get a slot for each plan, once, and destroying it ends what runs, whatever
// is in flight. What was destroyed is left alone, and its slots count on when it is made again.
func TestEnvironmentsThatSomebodyMade(t *testing.T) {
	l := foldtest.New()
	policy := l.Policy(1, "{}")
	l.Ready(foldtest.Definition("app: hello\nenvironments: [{name: prod, replicas: 3}]\n"), policy)
	next := func(env events.Slug, facts Facts) Step {
		facts.Epoch, facts.Gates = foldtest.Epoch, map[int]Gate{1: {}}
		return decide(l.App("hello"), env, facts)
	}
	say := func(env events.Slug, facts Facts) string {
		t.Helper()
		s, ok := next(env, facts).(Say)
		if !ok {
			t.Fatalf("not said in %s: %+v", env, next(env, facts))
		}
		l.Write(s.Subject, s.Chain, s.Body)
		return s.Body.Type().Subject() + "." + s.Body.Type().Predicate()
	}
	live := func(env events.Slug) {
		t.Helper()
		d, ok := next(env, Facts{}).(Deploy)
		if !ok {
			t.Fatalf("not deployed to %s: %+v", env, next(env, Facts{}))
		}
		v := newView(l.App("hello"), env, Facts{Epoch: foldtest.Epoch})
		s := v.live(d.Slot, []events.Instance{{ID: "a"}})
		l.Write(s.Subject, s.Chain, s.Body)
		say(env, Facts{Switched: d.Slot.N})
		l.Verified("hello", 1, env, d.Slot.N, 1, events.Success)
		say(env, Facts{Switched: d.Slot.N}) // closed
	}
	made := func(verb string, b events.Body) string {
		id := l.Command(events.Command{Verb: verb, Environment: "demo", From: "prod", Apps: []events.EnvironmentApp{{App: "hello", Slot: 1, Pins: events.Pins{Config: map[string]uint64{"KEY": 9}}}}})
		if b != nil {
			l.Write(events.EnvironmentSubject(foldtest.Epoch, events.Promote, b.Type(), "demo", id), "", b)
		}
		return id
	}
	say("prod", Facts{})
	live("prod")

	if s := next("demo", Facts{}); s != nil {
		t.Fatalf("nobody made it, and %+v", s)
	}
	made(events.VerbCreateEnvironment, &events.EnvironmentCreated{About: events.About{ID: "demo"}})
	say("demo", Facts{})
	slot := l.App("hello").Env("demo").Slot(1)
	if slot.Kind != events.KindCreate || slot.Defined() != "prod" || slot.Digest != l.App("hello").Env("prod").Slot(1).Digest || slot.Pins.Config["KEY"] != 9 {
		t.Fatalf("slot %+v", slot)
	}
	live("demo")
	tidy := Facts{Switched: 1, Cleaned: Cleaned{Last: 1, Live: 1, Closed: true}}
	if s := next("demo", tidy); s != nil {
		t.Errorf("its plan is carried out, and %+v", s)
	}

	// Renewed with the same, nothing is done; destroyed while it is renewed otherwise, the new slot is given up.
	made(events.VerbCreateEnvironment, &events.EnvironmentModified{About: events.About{ID: "demo"}})
	if s := next("demo", tidy); s != nil {
		t.Errorf("renewed with the same, and %+v", s)
	}
	destroyed := made(events.VerbDestroyEnvironment, nil)
	if got := say("demo", tidy); got != "slot.taken" {
		t.Errorf("destroyed, and %s", got)
	}
	if got := say("demo", tidy); got != "slot.decided" {
		t.Errorf("emptied, and %s", got)
	}
	for facts := (Facts{Switched: 2, Cleaned: Cleaned{Last: 1}}); l.App("hello").Env("demo").Last().Open(); {
		say("demo", facts)
	}
	if !vacated(l.App("hello").Env("demo")) {
		t.Error("something can still come up")
	}
	gone := &events.EnvironmentDeleted{About: events.About{ID: "demo"}}
	l.Write(events.EnvironmentSubject(foldtest.Epoch, events.Promote, gone.Type(), "demo", destroyed), "", gone)
	if s := next("demo", Facts{}); s != nil {
		t.Errorf("it is gone, and %+v", s)
	}
	made(events.VerbCreateEnvironment, &events.EnvironmentCreated{About: events.About{ID: "demo"}})
	say("demo", Facts{})
	if n := l.App("hello").Env("demo").Last().N; n != 3 {
		t.Errorf("made again, it begins at slot %d", n)
	}
}
