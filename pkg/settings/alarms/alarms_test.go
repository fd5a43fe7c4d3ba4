package alarms

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/worker"
)

func login(env events.Slug, why string) events.Alarm {
	return events.Alarm{Environment: env, What: "login of promote at Vault of " + string(env), Why: why, Do: "look"}
}

func ofApp(env events.Slug) events.Alarm {
	return events.Alarm{Environment: env, App: "hello", What: "token", Why: "taken", Do: "look"}
}

func TestDecide(t *testing.T) {
	known := func(n int, by events.Writer, a events.Alarm) fold.Alarm { return fold.Alarm{N: n, By: by, Alarm: a} }
	for name, c := range map[string]struct {
		known    []fold.Alarm
		raised   int
		standing []events.Alarm
		unsure   []events.Slug
		want     string
	}{
		"nothing": {want: "[]"},
		"two are found": {standing: []events.Alarm{login("qa", "used"), ofApp("qa")}, raised: 4,
			want: "[5 raised qa/login of promote at Vault of qa 6 raised qa/token]"},
		"found twice at once":          {standing: []events.Alarm{ofApp("qa"), {Environment: "qa", App: "hello", What: "token", Why: "again"}}, want: "[1 raised qa/token]"},
		"known, for another reason":    {known: []fold.Alarm{known(1, events.Promote, login("qa", "used"))}, raised: 1, standing: []events.Alarm{login("qa", "exchanged")}, want: "[]"},
		"another's is no word of ours": {known: []fold.Alarm{known(1, events.Gateway, login("qa", "used"))}, standing: []events.Alarm{login("qa", "used")}, want: "[1 raised qa/login of promote at Vault of qa]"},
		"another's does not end":       {known: []fold.Alarm{known(1, events.Gateway, login("qa", "used"))}, want: "[]"},
		"over":                         {known: []fold.Alarm{known(2, events.Promote, login("qa", "used"))}, raised: 7, want: "[2 resolved qa/login of promote at Vault of qa]"},
		"nobody knows whether it is":   {known: []fold.Alarm{known(2, events.Promote, login("qa", "used"))}, unsure: []events.Slug{"dev", "qa"}, want: "[]"},
		"it is, of another nobody does": {known: []fold.Alarm{known(2, events.Promote, login("qa", "used"))}, unsure: []events.Slug{"dev"},
			want: "[2 resolved qa/login of promote at Vault of qa]"},
		"an app's ends when all is known": {known: []fold.Alarm{known(2, events.Promote, ofApp("qa"))}, unsure: []events.Slug{"default"}, want: "[]"},
	} {
		var got []string
		for _, s := range decide(events.Promote, c.known, c.raised, c.standing, c.unsure) {
			got = append(got, fmt.Sprintf("%d %s %s", s.nth, s.body.Type().Predicate(), s.body.SubjectID()))
		}
		if text := "[" + strings.Join(got, " ") + "]"; text != c.want {
			t.Errorf("%s: %s, want %s", name, text, c.want)
		}
	}
}

// What stands is raised once in the ledger, also by two processes of a service, and is over once it is resolved.
func TestTell(t *testing.T) {
	l := ledgertest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	open := func(service events.Writer) *worker.Runtime {
		rt, err := worker.Open(ctx, worker.Options{Service: string(service), Bus: l.URL, Keys: l.Keys})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(rt.Close)
		return rt
	}
	one, other, gateway := open(events.Promote), open(events.Promote), open(events.Gateway)
	say := func(rt *worker.Runtime, as events.Writer, standing ...events.Alarm) {
		t.Helper()
		if err := tell(ctx, rt, as, standing, nil); err != nil {
			t.Fatal(err)
		}
	}
	stand := func(want ...string) {
		t.Helper()
		if err := gateway.Fold.Wait(ctx, max(one.Fold.Seq(), other.Fold.Seq())); err != nil {
			t.Fatal(err)
		}
		standing, _ := gateway.Fold.Alarms(events.Gateway)
		var got []string
		for _, a := range standing {
			got = append(got, fmt.Sprintf("%s %d %s", a.By, a.N, a.What))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q stand, want %q", got, want)
		}
	}
	stolen := login("qa", "used")
	for range 2 {
		say(one, events.Promote, stolen)
		say(other, events.Promote, stolen)
	}
	stand("promote 1 " + stolen.What)
	say(gateway, events.Gateway, stolen)
	stand("promote 1 "+stolen.What, "gateway 1 "+stolen.What)
	if err := other.Fold.Wait(ctx, gateway.Fold.Seq()); err != nil {
		t.Fatal(err)
	}
	say(other, events.Promote)
	stand("gateway 1 " + stolen.What)
	if err := one.Fold.Wait(ctx, other.Fold.Seq()); err != nil {
		t.Fatal(err)
	}
	say(one, events.Promote)
	say(one, events.Promote, stolen, ofApp("qa"))
	stand("gateway 1 "+stolen.What, "promote 2 "+stolen.What, "promote 3 token")
}
