package view

import (
	"fmt"
	"net/url"
	"slices"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
)

// App is one deployable service.
type App struct {
	App        string     `json:"app"`
	Repository string     `json:"repository,omitempty"` // URL; empty: hosted by the gateway
	Branch     string     `json:"branch,omitempty"`
	Poll       int        `json:"poll,omitempty"` // seconds between looks; 0: never
	Runs       int        `json:"runs"`
	Held       string     `json:"held,omitempty"`
	Created    *time.Time `json:"created,omitempty"`
	Git        string     `json:"git,omitempty"`     // where to push
	Trouble    string     `json:"trouble,omitempty"` // why its repository could not be read at the last look
}

// NewApp shows an app. git is where it would be pushed to, if the gateway hosts it.
func NewApp(app *fold.App, git string) App {
	v := App{
		App: string(app.Name), Repository: app.Repository, Branch: app.Branch, Poll: int(app.Poll / time.Second),
		Runs: app.Runs.Len(), Created: moment(app.Created),
	}
	v.Held, _, _ = Held(app)
	if app.Repository == "" {
		v.Git = git
	}
	return v
}

// Environment is one environment and the apps that go there.
type Environment struct {
	Name string   `json:"name"`
	Apps []string `json:"apps"`
	Made *Made    `json:"made,omitempty"` // of one that somebody made; absent: a stage of pipelines
	// Stale are the apps of which settings were changed since they were deployed there, and Drifts how much there is
	// otherwise than the ledger says.
	Stale  []string `json:"stale,omitempty"`
	Drifts int      `json:"drifts,omitempty"`
	Seq    uint64   `json:"seq,omitempty"` // up to which event this is so
}

// Made is how an environment is that somebody made.
type Made struct {
	From    string      `json:"from"`
	Actor   string      `json:"actor"`
	Since   time.Time   `json:"since"`
	Expires *time.Time  `json:"expires,omitempty"`
	State   string      `json:"state"` // preparing, creating, up, incomplete or ending
	Up      int         `json:"up"`
	Of      int         `json:"of"`
	Failed  []FailedApp `json:"failed,omitempty"`
}

// FailedApp is an app that did not come up in an environment that somebody made.
type FailedApp struct {
	App string `json:"app"`
	Why string `json:"why"`
}

// Environments lists the environments of all apps: those of their newest pipelines, in that order, then those where
// something of theirs was ever deployed, then those that somebody made.
func Environments(apps []*fold.App, made []*fold.Environment) []Environment {
	list := []Environment{}
	add := func(name events.Slug, app *fold.App) {
		i := slices.IndexFunc(list, func(e Environment) bool { return e.Name == string(name) })
		if i < 0 {
			list = append(list, Environment{Name: string(name)})
			i = len(list) - 1
		}
		if !slices.Contains(list[i].Apps, string(app.Name)) {
			list[i].Apps = append(list[i].Apps, string(app.Name))
			list[i].look(app)
		}
	}
	for _, app := range apps {
		if run := app.Newest(); run != nil {
			for _, name := range run.Definition.EnvironmentNames() {
				add(name, app)
			}
		}
	}
	for _, app := range apps {
		for _, name := range sortedKeys(app.Envs) {
			add(name, app)
		}
	}
	for _, e := range made {
		if e.Gone {
			continue
		}
		i := slices.IndexFunc(list, func(v Environment) bool { return v.Name == string(e.Name) })
		if i < 0 {
			list = append(list, Environment{Name: string(e.Name), Apps: []string{}})
			i = len(list) - 1
		}
		list[i].Made = newMade(e, apps)
	}
	return list
}

// look adds what is not as it should be about one app.
func (e *Environment) look(app *fold.App) {
	env := app.Env(events.Slug(e.Name))
	if live := env.Live(); live != nil && live.Kind != events.KindRemove && len(env.Stale(live)) > 0 {
		e.Stale = append(e.Stale, string(app.Name))
	}
	e.Drifts += len(env.Drifts)
}

func newMade(e *fold.Environment, apps []*fold.App) *Made {
	m := &Made{
		From: string(e.Made.From), Actor: e.Made.Actor, Since: e.Since, Expires: e.Made.Expires, State: StateCreating, Of: len(e.Made.Apps),
	}
	for _, one := range e.Made.Apps {
		i := slices.IndexFunc(apps, func(a *fold.App) bool { return a.Name == one.App })
		if i < 0 || !e.Created {
			continue
		}
		switch s := apps[i].Env(e.Name).Carrier(); {
		case s == nil:
		case s.Decision == events.Abandoned || s.Closing == events.Rejected:
			m.Failed = append(m.Failed, FailedApp{string(one.App), s.Why})
		case s.Trial != nil && s.Trial.Outcome == events.Error && s.Closing == "":
			m.Failed = append(m.Failed, FailedApp{string(one.App), s.Trial.Reason})
		case s.Closing != "":
			m.Up++
		}
	}
	switch {
	case e.Ending != nil:
		m.State = StateEnding
	case e.Preparing:
		m.State = StatePreparing
	case m.Up == m.Of:
		m.State = StateUp
	case m.Up+len(m.Failed) == m.Of:
		m.State = StateIncomplete
	}
	return m
}

func sortedKeys(envs map[events.Slug]*fold.Env) []events.Slug {
	var names []events.Slug
	for name, env := range envs {
		if env.Slots.Len() > 0 && !env.Gone {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Deployment is what runs of one app in an environment.
type Deployment struct {
	App       string    `json:"app"`
	Digest    string    `json:"digest"`
	Run       string    `json:"run"`
	Endpoints []string  `json:"endpoints"`
	Since     time.Time `json:"since"`
	Skipped   *Asked    `json:"skipped,omitempty"` // who skipped its verification: it was never verified there
	// Stale are settings that were changed since: what was verified is not what its next start would use.
	Stale  []Stale `json:"stale,omitempty"`
	Drifts []Drift `json:"drifts,omitempty"` // what is otherwise there than the ledger says
}

// Stale is a setting that is no longer the one that a deployment is pinned to.
type Stale struct {
	Key     string `json:"key"`
	Kind    string `json:"kind"` // config or secret
	Pinned  uint64 `json:"pinned"`
	Present uint64 `json:"present,omitempty"` // 0: it is gone
	From    string `json:"from,omitempty"`    // the store that Pinned is a version of, where Present is of another
}

// Drift is something that was changed behind Towpath's back.
type Drift struct {
	What     string    `json:"what"`
	Expected string    `json:"expected"`
	Found    string    `json:"found"`
	Since    time.Time `json:"since"`
}

// String says it in one line.
func (s Stale) String() string {
	now := fmt.Sprintf("version %d", s.Present)
	if s.Present == 0 {
		now = "gone"
	}
	if s.From != "" {
		return fmt.Sprintf("stale: %s %s is %s now, moved from %s, and was verified with version %d of that", s.Kind, s.Key, now, s.From, s.Pinned)
	}
	return fmt.Sprintf("stale: %s %s is %s now, and was verified with version %d", s.Kind, s.Key, now, s.Pinned)
}

func newDrift(d fold.Drift) Drift {
	return Drift{What: d.What, Expected: d.Expected, Found: d.Found, Since: d.At}
}

// String says it in one line.
func (d Drift) String() string {
	return fmt.Sprintf("drift: %s: %s, expected %s", d.What, d.Found, d.Expected)
}

// Deployments lists what runs in an environment. edge is the edge's URL.
func Deployments(apps []*fold.App, env events.Slug, edge string) []Deployment {
	list := []Deployment{}
	for _, app := range apps {
		slot := app.Env(env).Live()
		if slot == nil || slot.Kind == events.KindRemove {
			continue
		}
		d := Deployment{
			App: string(app.Name), Digest: slot.Digest, Run: fold.Name(app.Name, slot.Run), Since: slot.DecidedAt, Endpoints: []string{},
		}
		for _, one := range app.Env(env).Stale(slot) {
			d.Stale = append(d.Stale, Stale(one))
		}
		for _, one := range app.Env(env).Drifts {
			d.Drifts = append(d.Drifts, newDrift(one))
		}
		if by := skippedIn(app.Env(env), slot); by != nil {
			d.Skipped = &Asked{Actor: by.Actor, Reason: by.Reason}
		}
		if run := app.Run(slot.Run); run == nil || run.Definition.Service.Port > 0 {
			if endpoint := Endpoint(edge, app.Name, env); endpoint != "" {
				d.Endpoints = append(d.Endpoints, endpoint)
			}
		}
		list = append(list, d)
	}
	return list
}

// skippedIn says who skipped the verification of the version that a slot holds; nil: nobody.
func skippedIn(env *fold.Env, slot *fold.Slot) *events.Skip {
	for slot.Skipped == nil && slot.From != 0 && slot.Closing != events.Verified && env.Slot(slot.From) != nil {
		slot = env.Slot(slot.From)
	}
	return slot.Skipped
}

// Endpoint is where the edge serves an app of an environment; empty where the edge's URL is not known.
func Endpoint(edge string, app, env events.Slug) string {
	u, err := url.Parse(edge)
	if err != nil || u.Host == "" {
		return ""
	}
	host := fmt.Sprintf("%s.%s.localhost", app, env)
	if port := u.Port(); port != "" {
		host += ":" + port
	}
	return u.Scheme + "://" + host + "/"
}

// StuckStage is a stage that an operator has to look at.
type StuckStage struct {
	Run     string    `json:"run"`
	Stage   string    `json:"stage"`
	Env     string    `json:"env,omitempty"`
	Since   time.Time `json:"since"`
	Why     string    `json:"why"`
	Attempt int       `json:"attempt"`
	Tries   int       `json:"tries,omitempty"` // within the attempt, where they were counted
	Cause   string    `json:"cause"`           // Why without what differs from run to run
	Command string    `json:"command"`
}

// Stuck lists the stages that wait for an operator, the longest first.
func Stuck(apps []*fold.App) []StuckStage {
	list := []StuckStage{}
	for _, app := range apps {
		for run := range app.Open() {
			if app.StatusOf(run) != fold.Stuck {
				continue
			}
			for _, s := range NewRun(app, run, "").Stages {
				if s.Status == fold.Stuck {
					one := StuckStage{
						Run: run.Name(), Stage: s.Stage, Env: s.Env, Since: since(run, s), Why: s.Detail, Attempt: s.Attempt, Command: s.Command,
					}
					if stage, ok := run.Stage(s.Stage, events.Slug(s.Env)); ok {
						one.Tries, one.Cause = stage.Tried(), run.Cause(stage)
					}
					list = append(list, one)
				}
			}
		}
	}
	slices.SortStableFunc(list, func(a, b StuckStage) int { return a.Since.Compare(b.Since) })
	return list
}

// Alarm is something that a person must look into, whether or not everything works.
type Alarm struct {
	Env   string    `json:"env,omitempty"` // default: those that platform.yaml does not name
	App   string    `json:"app,omitempty"`
	What  string    `json:"what"`
	Why   string    `json:"why"`
	Do    string    `json:"do"`
	Since time.Time `json:"since,omitzero"`
}

// Alarms lists alarms that stand.
func Alarms(standing []fold.Alarm) []Alarm {
	list := []Alarm{}
	for _, a := range standing {
		list = append(list, Alarm{Env: string(a.Environment), App: string(a.App), What: a.What, Why: a.Why, Do: a.Do, Since: a.At})
	}
	return list
}

// since is when a stage last did anything.
func since(run *fold.Run, s Stage) time.Time {
	stage, ok := run.Stage(s.Stage, events.Slug(s.Env))
	switch {
	case !ok || stage.Since.IsZero() && stage.Stuck == nil:
		return run.Created
	case stage.Since.IsZero():
		return stage.Stuck.Since
	}
	return stage.Since
}
