package gateway

import (
	"cmp"
	"fmt"
	"slices"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/services/gateway/view"
)

// Bounds of a replay of all that is stuck.
const (
	maxAtOnce   = 2   // replays under way at a time
	maxAlike    = 3   // failures, after which a group, or everything, is left alone
	maxAllStuck = 500 // stages of one command: its event names them all
	maxGroups   = 100 // causes of one command, for the same reason
)

// causeOf is why a stage stopped, without what is only this run's: the same text for the same cause.
func causeOf(run *fold.Run, name string, s fold.Stage) string {
	cause := run.Cause(s)
	if cause == "" {
		cause = "no cause is known"
	}
	return name + ": " + cause
}

// groupStuck groups what is stuck by its cause: the largest group first, and in each what is stuck the longest. more is
// how many stages one command has no room for.
func groupStuck(apps []*fold.App) (groups []events.StuckGroup, more int) {
	type one struct {
		events.StuckStage
		cause string
		since int64
	}
	var all []one
	for _, app := range apps {
		for run := range app.Open() {
			if app.StatusOf(run) != fold.Stuck {
				continue
			}
			name, env := stopped(run, "")
			stage, ok := run.Stage(name, env)
			if !ok || stage.Status != fold.Stuck {
				continue
			}
			all = append(all, one{
				events.StuckStage{App: run.App, Run: run.N, Stage: name, Environment: env, Attempt: stage.Attempt},
				causeOf(run, name, stage), stage.Since.UnixNano(),
			})
		}
	}
	slices.SortStableFunc(all, func(a, b one) int { return cmp.Compare(a.since, b.since) })
	if len(all) > maxAllStuck {
		more = len(all) - maxAllStuck
		all = all[:maxAllStuck]
	}
	for _, s := range all {
		i := slices.IndexFunc(groups, func(g events.StuckGroup) bool { return g.Cause == s.cause })
		if i < 0 && len(groups) == maxGroups {
			more++
			continue
		}
		if i < 0 {
			i = len(groups)
			groups = append(groups, events.StuckGroup{Cause: s.cause})
		}
		groups[i].Stages = append(groups[i].Stages, s.StuckStage)
	}
	slices.SortStableFunc(groups, func(a, b events.StuckGroup) int { return len(b.Stages) - len(a.Stages) })
	return groups, more
}

// shownStage is a stuck stage for people and programs.
func shownStage(s events.StuckStage) view.ReplayStage {
	return view.ReplayStage{Run: fold.Name(s.App, s.Run), Stage: s.Stage, Env: string(s.Environment), Attempt: s.Attempt}
}

func decideAllStuck(o order, s scope, d decision) (decision, *problem) {
	groups, more := groupStuck(s.apps)
	if len(groups) == 0 {
		what := "everything"
		if o.App != "" {
			what = string(o.App)
		}
		return d, conflict("replaying", "all of "+what, "nothing is stuck", "")
	}
	d.command.Groups = groups
	n := 0
	for _, g := range groups {
		shown := view.StuckGroup{Cause: g.Cause}
		for _, one := range g.Stages {
			shown.Stages = append(shown.Stages, shownStage(one))
		}
		n += len(g.Stages)
		d.preview.Groups = append(d.preview.Groups, shown)
	}
	d.text = fmt.Sprintf("%s in %s: one of each first, %d at a time, until %d alike have failed", plural(n, "stuck stage"), plural(len(groups), "group"), maxAtOnce, maxAlike)
	if more > 0 {
		d.text += fmt.Sprintf("; %d more are left to another command", more)
	}
	return d, nil
}

// became says what a stage of a replay of all that is stuck has come to, and why where it stopped again.
func became(parent string, target events.StuckStage, app *fold.App) (view.Result, string) {
	if app == nil || app.Run(target.Run) == nil {
		return view.TakenOver, ""
	}
	run := app.Run(target.Run)
	stage, ok := run.Stage(target.Stage, target.Environment)
	switch {
	case !ok || run.Cancelled != nil || run.SupersededBy != 0:
		return view.TakenOver, ""
	case stage.Attempt == target.Attempt && stage.Status == fold.Stuck:
		return view.Untried, ""
	case stage.Attempt != target.Attempt+1 || stage.Replay == nil || stage.Replay.Parent != parent:
		return view.TakenOver, ""
	}
	watched := []fold.Stage{stage}
	if env := run.Env(target.Environment); env != nil {
		if env.Verified {
			return view.WentOn, ""
		}
		watched = []fold.Stage{env.Promote, env.Verify}
	}
	done := true
	for _, s := range watched {
		if halted(s) {
			return view.StopAgain, causeOf(run, target.Stage, s)
		}
		if s.Status == fold.Waiting {
			return view.WentOn, ""
		}
		done = done && s.Ended()
	}
	switch status := run.Status(); {
	case done, app.Hold != nil && stage.Status == fold.Pending:
		return view.WentOn, ""
	case stage.Status == fold.Pending && (status == fold.Stuck || status == fold.Failed || status == fold.Refused):
		return view.TakenOver, "" // it stopped at an earlier stage, which somebody began anew meanwhile
	}
	return view.UnderWay, ""
}

// groupState is how far one group of a replay of all that is stuck is.
type groupState struct {
	results []view.Result
	causes  []string // of those that stopped again
	count   map[view.Result]int
}

// proven reports whether one of the group was tried to its end; so does a group of which nothing can be tried any more.
func (g groupState) proven() bool {
	return g.count[view.WentOn]+g.count[view.StopAgain] > 0 || g.count[view.Untried]+g.count[view.UnderWay] == 0
}

// room reports whether another of the group may be tried: its failures and what may become one are fewer than three.
func (g groupState) room() bool {
	return g.count[view.Untried] > 0 && g.count[view.StopAgain]+g.count[view.UnderWay] < maxAlike
}

func stateOf(c fold.Command, app func(events.Slug) *fold.App) []groupState {
	states := make([]groupState, len(c.Groups))
	for i, group := range c.Groups {
		states[i] = groupState{count: map[view.Result]int{}}
		for _, target := range group.Stages {
			r, cause := became(c.ID, target, app(target.App))
			states[i].results = append(states[i].results, r)
			states[i].count[r]++
			if r == view.StopAgain {
				states[i].causes = append(states[i].causes, cause)
			}
		}
	}
	return states
}

// alikeAcross is how many replays stopped for the same cause where that befell more than one group: then it is not the
// groups' own cause.
func alikeAcross(states []groupState) (most int, cause string) {
	counts, groups := map[string]int{}, map[string]map[int]bool{}
	for i, s := range states {
		for _, c := range s.causes {
			if counts[c]++; groups[c] == nil {
				groups[c] = map[int]bool{}
			}
			groups[c][i] = true
		}
	}
	for c, n := range counts {
		if len(groups[c]) > 1 && (n > most || n == most && c < cause) {
			most, cause = n, c
		}
	}
	return most, cause
}

// decideReplays says what a replay of all that is stuck does next: which stages to replay now, or that it has finished.
// Neither means that it waits for those under way. superseded says that a newer such command took its place.
//
// One of each group comes first. Only when each group was tried do the others follow, those of groups that go on before
// those of groups that stopped again. A group is left alone after three failures, and everything is after three alike in
// more than one group.
func decideReplays(c fold.Command, app func(events.Slug) *fold.App, superseded bool) (replay []events.StuckStage, finished *events.CommandFinished) {
	states := stateOf(c, app)
	total := map[view.Result]int{}
	for _, s := range states {
		for r, n := range s.count {
			total[r] += n
		}
	}
	across, cause := alikeAcross(states)
	why := ""
	switch {
	case superseded:
		why = "a newer replay of all that is stuck took its place"
	case across >= maxAlike:
		why = fmt.Sprintf("%d stopped again for the same cause: %s", across, cause)
	default:
		replay = choose(c, states, min(maxAtOnce, maxAlike-across)-total[view.UnderWay])
	}
	if len(replay) > 0 || total[view.UnderWay] > 0 && !superseded {
		return replay, nil
	}
	if left := total[view.Untried]; why == "" && left > 0 {
		why = fmt.Sprintf("%d alike stopped again in each group that is left", maxAlike)
	}
	return nil, &events.CommandFinished{
		About: events.About{ID: c.ID}, Verb: c.Verb, Why: why,
		WentOn: total[view.WentOn], Stopped: total[view.StopAgain], TakenOver: total[view.TakenOver], Left: total[view.Untried] + total[view.UnderWay],
	}
}

// choose picks up to free stages to replay.
func choose(c fold.Command, states []groupState, free int) []events.StuckStage {
	order := make([]int, len(states))
	allProven := true
	for i, s := range states {
		order[i] = i
		allProven = allProven && s.proven()
	}
	if allProven {
		slices.SortStableFunc(order, func(a, b int) int {
			if x, y := states[a].count[view.WentOn] > 0, states[b].count[view.WentOn] > 0; x != y {
				if x {
					return -1
				}
				return 1
			}
			return states[a].count[view.StopAgain] - states[b].count[view.StopAgain]
		})
	}
	var chosen []events.StuckStage
	for _, i := range order {
		s := states[i]
		if !allProven && (s.proven() || s.count[view.UnderWay] > 0) {
			continue
		}
		for n, r := range s.results {
			if len(chosen) >= free || !s.room() {
				break
			}
			if r == view.Untried {
				chosen = append(chosen, c.Groups[i].Stages[n])
				s.count[view.Untried]--
				s.count[view.UnderWay]++
				if !allProven {
					break
				}
			}
		}
	}
	return chosen
}
