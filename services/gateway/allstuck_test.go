package gateway

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
)

// outage is apps with one stuck run each, as the fold would have them.
type outage struct {
	apps    map[events.Slug]*fold.App
	command fold.Command
}

// newOutage has groups of so many apps, stuck at promoting to qa.
func newOutage(sizes ...int) *outage {
	o := &outage{apps: map[events.Slug]*fold.App{}}
	var all []*fold.App
	for g, size := range sizes {
		for i := range size {
			stage := fold.Stage{
				Attempt: 1, Status: fold.Stuck, Outcome: events.Error, Since: time.Unix(int64(i), 0),
				Stuck: &events.StageStuck{LastError: "cause " + strings.Repeat("x", g+1)},
			}
			app := &fold.App{Name: events.Slug(fmt.Sprintf("app-%c-%d", 'a'+g, i))}
			app.Runs = app.Runs.With(&fold.Run{App: app.Name, N: 1, Envs: []*fold.RunEnv{{Name: "qa", Promote: stage, Verify: fold.Stage{Attempt: 1, Status: fold.Pending}}}})
			app.Unsettled = []int{1}
			o.apps[app.Name] = app
			all = append(all, app)
		}
	}
	groups, _ := groupStuck(all)
	o.command = fold.Command{ID: "outage-1", Command: events.Command{Verb: events.VerbReplay, Groups: groups}}
	return o
}

func (o *outage) app(name events.Slug) *fold.App { return o.apps[name] }

func (o *outage) env(target events.StuckStage) *fold.RunEnv {
	return o.apps[target.App].Run(1).Envs[0]
}

// replay is what the fold does on replay.requested.
func (o *outage) replay(target events.StuckStage) {
	o.env(target).Promote = fold.Stage{Attempt: 2, Status: fold.Running, Replay: &fold.Replay{ReplayRequested: events.ReplayRequested{Parent: o.command.ID}}}
}

// end ends a replay: without a cause it goes through.
func (o *outage) end(target events.StuckStage, cause string) {
	env := o.env(target)
	if cause == "" {
		env.Promote.Status, env.Promote.Outcome, env.Verified = fold.Done, events.Success, true
		return
	}
	env.Promote.Status, env.Promote.Outcome, env.Promote.Stuck = fold.Stuck, events.Error, &events.StageStuck{LastError: cause}
}

func TestReplaysOfAllThatIsStuck(t *testing.T) {
	group := func(s events.StuckStage) byte { return s.App[4] } // a, b, …
	for name, c := range map[string]struct {
		sizes    []int
		cause    func(events.StuckStage) string // why a replay stops again
		finished events.CommandFinished
		why      string
	}{
		"all go on": {[]int{4, 2}, func(events.StuckStage) string { return "" }, events.CommandFinished{WentOn: 6}, ""},
		"one cause is mended": {[]int{6, 5}, func(s events.StuckStage) string {
			if group(s) == 'a' {
				return "still no registry"
			}
			return ""
		}, events.CommandFinished{WentOn: 5, Stopped: 3, Left: 3}, "3 alike stopped again in each group that is left"},
		"nothing is mended": {[]int{6, 5}, func(s events.StuckStage) string { return "no cause " + string(group(s)) },
			events.CommandFinished{Stopped: 6, Left: 5}, "3 alike stopped again in each group that is left"},
		"the same for all": {[]int{6, 5, 4}, func(events.StuckStage) string { return "the engine is away" },
			events.CommandFinished{Stopped: 3, Left: 12}, "3 stopped again for the same cause"},
		"one each":      {[]int{1, 1}, func(events.StuckStage) string { return "" }, events.CommandFinished{WentOn: 2}, ""},
		"a small group": {[]int{2}, func(events.StuckStage) string { return "still" }, events.CommandFinished{Stopped: 2}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOutage(c.sizes...)
			var going []events.StuckStage
			for range 1000 {
				replay, finished := decideReplays(o.command, o.app, false)
				for _, target := range replay {
					o.replay(target)
				}
				going = append(going, replay...)
				if finished != nil {
					got := *finished
					if !strings.HasPrefix(got.Why, c.why) || c.why == "" && got.Why != "" {
						t.Errorf("why %q, want %q", got.Why, c.why)
					}
					if got.WentOn != c.finished.WentOn || got.Stopped != c.finished.Stopped || got.Left != c.finished.Left || got.TakenOver != 0 {
						t.Errorf("finished with %+v, want %+v", got, c.finished)
					}
					return
				}
				if len(going) == 0 {
					t.Fatal("neither replays, nor waits for any, nor has finished")
				}
				o.end(going[0], c.cause(going[0]))
				going = going[1:]
			}
			t.Error("it never finishes")
		})
	}
	o := newOutage(3)
	if replay, finished := decideReplays(o.command, o.app, true); len(replay) > 0 || finished == nil || finished.Left != 3 {
		t.Errorf("a newer command took its place: %v %+v", replay, finished)
	}
}

// Whatever becomes of the replays and whoever interferes: never more than two at a time, none twice, one of each group
// before a second of any, no more than three failures in a group, and an end.
func TestReplaysProperties(t *testing.T) {
	for seed := range uint64(3000) {
		random := rand.New(rand.NewPCG(seed, 7))
		var sizes []int
		for range 1 + random.IntN(4) {
			sizes = append(sizes, 1+random.IntN(7))
		}
		o := newOutage(sizes...)
		groupOf := func(target events.StuckStage) int {
			return slices.IndexFunc(o.command.Groups, func(g events.StuckGroup) bool { return slices.Contains(g.Stages, target) })
		}
		var going []events.StuckStage
		tried := map[events.StuckStage]bool{}
		untouched, failed := map[int]int{}, map[int]int{}
		for i, g := range o.command.Groups {
			untouched[i] = len(g.Stages)
		}
		steps := 0
		for ; steps < 500; steps++ {
			replay, finished := decideReplays(o.command, o.app, false)
			if again, _ := decideReplays(o.command, o.app, false); !slices.Equal(again, replay) {
				t.Fatalf("seed %d: two answers to one state", seed)
			}
			if finished != nil {
				if len(going) > 0 || len(replay) > 0 {
					t.Fatalf("seed %d: finished while %d are under way", seed, len(going)+len(replay))
				}
				break
			}
			for _, target := range replay {
				g := groupOf(target)
				if tried[target] {
					t.Fatalf("seed %d: %v is tried twice", seed, target)
				}
				if triedIn(o, tried, g) > 0 {
					for other := range o.command.Groups {
						if untouched[other] > 0 && triedIn(o, tried, other) == 0 {
							t.Fatalf("seed %d: a second of group %d before the first of group %d", seed, g, other)
						}
					}
				}
				tried[target] = true
				untouched[g]--
				o.replay(target)
				going = append(going, target)
			}
			if len(going) > maxAtOnce {
				t.Fatalf("seed %d: %d at once", seed, len(going))
			}
			if len(going) == 0 {
				t.Fatalf("seed %d: neither replays, nor waits, nor has finished", seed)
			}
			i := random.IntN(len(going))
			target := going[i]
			going = slices.Delete(going, i, i+1)
			switch random.IntN(4) {
			case 0, 1:
				o.end(target, "")
			case 2:
				o.end(target, fmt.Sprintf("why %c", 'a'+rune(random.IntN(2))))
				g := groupOf(target)
				if failed[g]++; failed[g] > maxAlike {
					t.Fatalf("seed %d: %d failures in group %d", seed, failed[g], g)
				}
			case 3: // somebody replays it, or cancels it, by hand
				o.env(target).Promote.Attempt = 3
			}
			if random.IntN(5) == 0 { // somebody cancels one that was not tried
				for _, g := range o.command.Groups {
					for _, one := range g.Stages {
						if run := o.apps[one.App].Run(1); !tried[one] && run.Cancelled == nil && random.IntN(6) == 0 {
							run.Cancelled = &fold.Command{}
							tried[one] = true
							untouched[groupOf(one)]--
						}
					}
				}
			}
		}
		if steps == 500 {
			t.Fatalf("seed %d: it never finishes", seed)
		}
	}
}

// triedIn counts the replays of a group that nobody else has taken over.
func triedIn(o *outage, tried map[events.StuckStage]bool, g int) int {
	n := 0
	for _, target := range o.command.Groups[g].Stages {
		if tried[target] && o.apps[target.App].Run(1).Cancelled == nil && o.env(target).Promote.Attempt == 2 {
			n++
		}
	}
	return n
}

func TestGroupStuck(t *testing.T) {
	o := newOutage(2, 3)
	groups := o.command.Groups
	if len(groups) != 2 || len(groups[0].Stages) != 3 || groups[0].Cause == groups[1].Cause || !strings.HasPrefix(groups[0].Cause, "promote: ") {
		t.Fatalf("groups %+v", groups)
	}
	if first := groups[0].Stages[0]; first.App != "app-b-0" || first.Stage != "promote" || first.Environment != "qa" || first.Attempt != 1 {
		t.Errorf("what is stuck the longest comes first: %+v", first)
	}
	var many []*fold.App
	for range maxAllStuck + 5 {
		many = append(many, o.apps["app-a-0"])
	}
	if _, more := groupStuck(many); more != 5 {
		t.Errorf("%d more than one command has room for", more)
	}
	var different []int
	for range maxGroups + 2 {
		different = append(different, 1)
	}
	if groups := newOutage(different...).command.Groups; len(groups) != maxGroups {
		t.Errorf("%d groups in one command", len(groups))
	}
	if _, why := decideAllStuck(order{}, scope{}, decision{}); why == nil || why.Why != "nothing is stuck" {
		t.Errorf("nothing is stuck: %v", why)
	}
}
