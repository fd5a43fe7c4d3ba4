package gateway

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/worker"
	"towpath.dev/services/gateway/view"
)

// TestRebuild: every service is asked, and one that does not answer is no success.
func TestRebuild(t *testing.T) {
	s, _ := pushed(t)
	vet, err := worker.Open(t.Context(), worker.Options{Service: "vet", Bus: s.ledger.URL, Keys: s.ledger.Keys, State: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer vet.Close()
	for _, body := range []rebuildRequest{{Check: true}, {}} {
		status, answer := s.ask(s.token, "POST", "/v1/rebuild", body)
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, answer)
		}
		got := map[string]projection{}
		for line := range strings.Lines(answer) {
			var p projection
			if err := json.Unmarshal([]byte(line), &p); err != nil {
				t.Fatal(err)
			}
			got[p.Projection] = p
		}
		if len(got) != len(stateful)+1 {
			t.Errorf("%d projections: %s", len(got), answer)
		}
		gateway, vet := got["fold of gateway"], got["fold of vet"]
		if gateway.Error+gateway.Difference+vet.Error+vet.Difference != "" || gateway.Live.SHA256 != vet.Live.SHA256 || vet.Rebuilt == body.Check || gateway.Seq < 2 {
			t.Errorf("check %t: gateway %+v, vet %+v", body.Check, gateway, vet)
		}
		if build := got["fold of build"]; !build.Absent || build.Error == "" {
			t.Errorf("build does not run: %+v", build)
		}
		if traffic := got["traffic"]; traffic.Error+traffic.Difference != "" || traffic.Places != 0 {
			t.Errorf("traffic %+v", traffic)
		}
	}
}

// TestRebuildAsksEveryProcess: of two processes of one service each proves its own state, whoever answers first.
func TestRebuildAsksEveryProcess(t *testing.T) {
	s, _ := pushed(t)
	for name, wrong := range map[string]bool{"right": false, "wrong": true} {
		rt, err := worker.Open(t.Context(), worker.Options{Service: "vet", Bus: s.ledger.URL, Keys: s.ledger.Keys, State: filepath.Join(t.TempDir(), name)})
		if err != nil {
			t.Fatal(err)
		}
		defer rt.Close()
		if wrong {
			rt.Fold.App("hello").Branch = "elsewhere"
		}
	}
	for range 5 {
		list := s.upkeep(t.Context(), events.Vet, worker.DoCheck)
		if len(list) != 2 || (list[0].Error+list[0].Difference == "") == (list[1].Error+list[1].Difference == "") || list[0].Process == list[1].Process || list[0].Projection != "fold of vet (1 of 2)" {
			t.Fatalf("one of two is wrong: %+v", list)
		}
	}
	for _, p := range s.upkeep(t.Context(), events.Vet, worker.DoRebuild) {
		if !p.Rebuilt {
			t.Errorf("not rebuilt: %+v", p)
		}
	}
	for _, p := range s.upkeep(t.Context(), events.Vet, worker.DoCheck) {
		if p.Error+p.Difference != "" {
			t.Errorf("after the rebuild: %+v", p)
		}
	}
}

func TestTrafficDifference(t *testing.T) {
	l := foldtest.New()
	d := foldtest.Definition("app: hello\nservice: {port: 80}\nenvironments: [{name: dev}]\n")
	l.Ready(d, "policy")
	digest := foldtest.Digest("run1")
	taken := &events.SlotTaken{About: events.About{ID: "hello/dev/1"}, Slot: 1, Run: 1, Attempt: 1, Kind: events.KindDeploy, Environment: "dev", Digest: digest}
	l.Write(events.SlotSubject(1, taken.Type(), "hello", "dev", 1), "", taken)
	decided := &events.SlotDecided{About: events.About{ID: "hello/dev/1"}, Slot: 1, Decision: events.Live, Environment: "dev", Instances: []events.Instance{{ID: "a", Address: "h:1"}}}
	l.Write(events.SlotSubject(1, decided.Type(), "hello", "dev", 1), "", decided)
	place := discovery.Place{Env: "dev", App: "hello"}
	good := discovery.Entry{Slot: 1, Digest: digest, Run: "hello/1", Instances: []events.Instance{{ID: "a", Address: "h:2"}}}
	with := func(change func(*discovery.Entry)) discovery.Entry { e := good; change(&e); return e }
	for want, table := range map[string]map[discovery.Place]discovery.Entry{
		"":                           {place: good},
		"hello.dev: the table lacks": {},
		"hello.dev: slot":            {place: with(func(e *discovery.Entry) { e.Slot = 2 })},
		"hello.dev: digest":          {place: with(func(e *discovery.Entry) { e.Digest = "other" })},
		"hello.dev: removed":         {place: with(func(e *discovery.Entry) { e.Removed = true })},
		"hello.dev: instances":       {place: with(func(e *discovery.Entry) { e.Instances = nil })},
		"other.dev: the table has":   {place: good, {Env: "dev", App: "other"}: good},
	} {
		_, got := view.TrafficDifference(l.Fold().Apps(), table, func(events.Slug) bool { return false })
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if _, got := view.TrafficDifference(l.Fold().Apps(), map[discovery.Place]discovery.Entry{}, func(env events.Slug) bool { return env == "dev" }); got != "" {
		t.Errorf("an environment that is being destroyed: %q", got)
	}
}
