package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/services/gateway/git"
	"towpath.dev/services/gateway/view"
)

func doApps(c *call) error {
	list := []view.App{}
	for _, app := range c.s.fold().Apps() {
		if app.Created.IsZero() && app.Runs.Len() == 0 {
			continue // only a setting or a command has named it
		}
		list = append(list, c.s.viewApp(app))
	}
	writeJSON(c.w, http.StatusOK, list)
	return nil
}

func (s *Service) viewApp(app *fold.App) view.App {
	v := view.NewApp(app, s.hostedURL(app.Name))
	v.Trouble = s.polling.trouble(app.Name)
	return v
}

// Bounds of how often a repository is looked at.
const (
	shortestPollPause = time.Second
	longestPollPause  = 24 * time.Hour
)

// aboutAddApp reads the app as `GET /v1/apps` would show it.
func aboutAddApp(c *call) (identity.Verb, identity.Object, error) {
	var body view.App
	if err := c.decode(&body); err != nil {
		return "", identity.Object{}, err
	}
	c.body = body
	return identity.CreateApp, identity.Object{App: events.Slug(body.App)}, nil
}

func doAddApp(c *call) error {
	body := c.body.(view.App)
	poll := time.Duration(body.Poll) * time.Second
	if body.Poll < 0 || body.Poll > 0 && (poll < shortestPollPause || poll > longestPollPause) {
		return invalid("adding app", body.App, fmt.Sprintf("poll is %d s", body.Poll), fmt.Sprintf("it must be 0 or %s–%s", shortestPollPause, longestPollPause))
	}
	if body.Repository == "" {
		return c.addHosted(body)
	}
	remote, err := c.s.remote(body.Repository)
	if err != nil {
		return err
	}
	branch := body.Branch
	if branch == "" {
		branch = pipeline.DefaultBranch
	}
	ref, err := refOf(branch)
	if err != nil {
		return err
	}
	tip, err := c.s.git.Tip(c.r.Context(), remote, ref)
	if err != nil {
		return remoteProblem("adding branch "+branch, remote, err)
	}
	what, err := c.s.elsewhere(c.r.Context(), remote, ref, tip, body.App)
	if err != nil {
		return err
	}
	return c.addApp(&events.AppCreated{
		About: events.About{ID: string(what.app)}, Repository: remote.String(), Branch: branch, Poll: body.Poll, Actor: c.actor.ID,
	})
}

// addHosted makes an app known before its first push.
func (c *call) addHosted(body view.App) error {
	if _, err := events.ParseSlug(body.App); err != nil {
		return invalid("adding app", fmt.Sprintf("%.80q", body.App), "a name has lower-case letters, digits and inner hyphens", "name the app, or add --repo URL")
	}
	if body.Poll > 0 {
		return invalid("adding app", body.App, "what is pushed here needs no polling", "add --repo URL to follow a repository elsewhere")
	}
	branch := body.Branch
	if branch == "" {
		branch = pipeline.DefaultBranch
	}
	return c.addApp(&events.AppCreated{About: events.About{ID: body.App}, Branch: branch, Actor: c.actor.ID})
}

// addApp records the app. One that is known already must be the same.
func (c *call) addApp(body *events.AppCreated) error {
	name := events.Slug(body.ID)
	known := c.s.fold().App(name) != nil
	if err := c.s.desk.appendApp(context.WithoutCancel(c.r.Context()), body); err != nil {
		return err
	}
	app := c.s.fold().App(name)
	if app.Repository != body.Repository || app.Branch != body.Branch || app.Poll != time.Duration(body.Poll)*time.Second {
		return conflict("adding app", body.ID, fmt.Sprintf("it is known already: %s, branch %s, poll %s", belongs(app), app.Branch, app.Poll), "an app stays as it was added")
	}
	c.s.polling.look(name)
	status := http.StatusCreated
	if known {
		status = http.StatusOK
	}
	writeJSON(c.w, status, c.s.viewApp(app))
	return nil
}

// pollOnce looks at an app's repository and starts a run if its branch has moved. It returns the problem, if any, that
// somebody has to mend.
func (s *Service) pollOnce(ctx context.Context, app *fold.App) error {
	remote, err := git.ParseRemote(app.Repository)
	if err != nil {
		return err
	}
	ref := git.Heads + app.Branch
	tip, err := s.git.Tip(ctx, remote, ref)
	if err != nil {
		return remoteProblem("looking at "+app.Branch, remote, err)
	}
	if latest := app.Latest(app.Repository, ref); latest != nil && latest.Start.SHA == string(tip) {
		return nil
	}
	what, err := s.elsewhere(ctx, remote, ref, tip, string(app.Name))
	if err != nil {
		return err
	}
	what.actor = string(events.Gateway)
	if len(what.authors) > 0 {
		what.actor = what.authors[0]
	}
	one, err := s.start(ctx, what)
	if err == nil && one.fresh {
		s.logger.Info("a repository has moved", "run", one.run.Name(), "commit", tip.Short())
	}
	return err
}

// isRefusal reports whether trying again without a new commit is of no use.
func isRefusal(err error) bool {
	var p *problem
	return errors.As(err, &p) && p.Status < http.StatusInternalServerError
}
