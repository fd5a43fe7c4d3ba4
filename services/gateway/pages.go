package gateway

import (
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/services/gateway/view"
)

// noCapability says nothing about whether there is such a run.
func noCapability() *problem {
	return forbidden("showing a page", "", "its address is not complete", "take the whole address, with its key, from the push's output or towpath show")
}

// shownRuns is how many runs the index lists.
const shownRuns = 200

func doIndexPage(c *call) error {
	if !c.s.pages.MaySeeIndex(c.r) {
		return noCapability()
	}
	runs := view.Runs(c.s.fold().Apps(), "", "", c.s.runURL)
	return c.s.pages.Index(c.w, runs[:min(len(runs), shownRuns)], time.Now())
}

func doRunPage(c *call) error {
	app, run, err := c.shown()
	if err != nil {
		return err
	}
	return c.s.pages.Run(c.w, c.s.show(c.r.Context(), app, run, ""), c.s.endpoints(run), time.Now())
}

// doRunPart answers when the run has changed since ?after=SEQ.
func doRunPart(c *call) error {
	app, run, err := c.shown()
	if err != nil {
		return err
	}
	after, timeout, err := pollOf(c.r)
	if err != nil {
		return err
	}
	app, run = c.changed(app, run, after, timeout)
	return c.s.pages.Part(c.w, c.s.show(c.r.Context(), app, run, ""), c.s.endpoints(run), time.Now())
}

func doRunLog(c *call) error {
	if _, _, err := c.shown(); err != nil {
		return err
	}
	return doLogs(c)
}

// shown returns what the page is about, for who holds its capability.
func (c *call) shown() (*fold.App, *fold.Run, error) {
	if !c.s.pages.MaySeeRun(c.r, c.app, c.run) {
		return nil, nil, noCapability()
	}
	return c.found()
}

// endpoints are where the environments of a run's app are reached, for those in which this run is.
func (s *Service) endpoints(run *fold.Run) map[string]string {
	at := map[string]string{}
	app := s.fold().App(run.App)
	if app == nil || run.Definition.Service.Port == 0 {
		return at
	}
	for _, env := range run.Envs {
		if live := app.Env(env.Name).Live(); live != nil && live.Run == run.N && live.Kind != events.KindRemove {
			at[string(env.Name)] = view.Endpoint(s.cfg.Edge, run.App, env.Name)
		}
	}
	return at
}
