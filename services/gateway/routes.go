package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger/fold"
)

// route is one way in. Every request that is not open passes authenticate and identity.Authorize, in enter, before do
// is called; there is no other way to do.
type route struct {
	pattern string // of http.ServeMux: "GET /v1/runs"
	// open says why nobody has to be known; empty: somebody has to.
	open string
	// verb is what Authorize is asked about the app, environment and run in the path.
	verb identity.Verb
	// about takes the place of verb where the request's body or query says what is wanted.
	about func(*call) (identity.Verb, identity.Object, error)
	do    func(*call) error
}

// routes are all ways in, in the order of the API's description.
func routes() []route {
	return []route{
		{pattern: "GET /healthz", open: "says nothing but that the gateway answers", do: doHealth},
		{pattern: "GET /openapi.json", open: "describes the API", do: doDescription},
		{pattern: "GET /{$}", open: "the URL holds a capability", do: doIndexPage},
		{pattern: "GET /runs/{app}/{run}", open: "the URL holds a capability", do: doRunPage},
		{pattern: "GET /runs/{app}/{run}/part", open: "the URL holds a capability", do: doRunPart},
		{pattern: "GET /runs/{app}/{run}/log", open: "the URL holds a capability", do: doRunLog},

		{pattern: "GET /v1/runs", verb: identity.Read, do: doRuns},
		{pattern: "GET /v1/apps/{app}/runs/{run}", verb: identity.Read, do: doRun},
		{pattern: "GET /v1/apps/{app}/runs/{run}/logs", verb: identity.Read, do: doLogs},
		{pattern: "GET /v1/apps", verb: identity.Read, do: doApps},
		{pattern: "POST /v1/apps", about: aboutAddApp, do: doAddApp},
		{pattern: "POST /v1/submit", about: aboutSubmit, do: doSubmit},
		{pattern: "POST /v1/commands", about: aboutCommand, do: doCommand},
		{pattern: "GET /v1/replays/{id}", verb: identity.Read, do: doReplays},
		{pattern: "POST /v1/events", about: aboutSaying, do: doSaying},
		{pattern: "GET /v1/settings/{env}/{app}", verb: identity.Read, do: doConfig},
		{pattern: "PUT /v1/settings/{env}/{app}/{key}", verb: identity.SetConfig, do: doSetConfig},
		{pattern: "DELETE /v1/settings/{env}/{app}/{key}", verb: identity.SetConfig, do: doDeleteConfig},
		{pattern: "GET /v1/secrets/{env}/{app}", verb: identity.Read, do: doSecrets},
		{pattern: "PUT /v1/secrets/{env}/{app}/{key}", verb: identity.SetSecret, do: doSetSecret},
		{pattern: "DELETE /v1/secrets/{env}/{app}/{key}", verb: identity.SetSecret, do: doDeleteSecret},
		{pattern: "GET /v1/environments", verb: identity.Read, do: doEnvironments},
		{pattern: "POST /v1/environments", about: aboutCreateEnvironment, do: doCreateEnvironment},
		{pattern: "GET /v1/environments/{env}", verb: identity.Read, do: doEnvironment},
		{pattern: "GET /v1/environments/{env}/state", verb: identity.Read, do: doEnvironmentState},
		{pattern: "GET /v1/environments/{env}/diff", verb: identity.Read, do: doEnvironmentDiff},
		{pattern: "DELETE /v1/environments/{env}", verb: identity.ManageEnvironments, do: doDestroyEnvironment},
		{pattern: "GET /v1/stuck", verb: identity.Read, do: doStuck},
		{pattern: "GET /v1/alarms", verb: identity.Read, do: doAlarms},
		{pattern: "GET /v1/messages", verb: identity.Read, do: doMessages},
		{pattern: "GET /v1/events", verb: identity.Read, do: doEvents},
		{pattern: "GET /v1/actors", verb: identity.ManageActors, do: doActors},
		{pattern: "POST /v1/actors", verb: identity.ManageActors, do: doAddActor},
		{pattern: "DELETE /v1/actors/{actor}", verb: identity.ManageActors, do: doErase},
		{pattern: "PUT /v1/actors/{actor}/roles", verb: identity.ManageActors, do: doSetRoles},
		{pattern: "POST /v1/actors/{actor}/tokens", verb: identity.ManageActors, do: doIssueToken},
		{pattern: "DELETE /v1/actors/{actor}/tokens", verb: identity.ManageActors, do: doRevokeTokens},
		{pattern: "POST /v1/actors/{actor}/external", verb: identity.ManageActors, do: doMap},
		{pattern: "DELETE /v1/actors/{actor}/external", verb: identity.ManageActors, do: doUnmap},
		{pattern: "GET /v1/audit/story", about: aboutStory, do: doStory},
		{pattern: "GET /v1/audit/report/{env}", verb: identity.Audit, do: doReport},
		{pattern: "GET /v1/audit/coverage/{env}", verb: identity.Audit, do: doCoverage},
		{pattern: "GET /v1/audit/checkpoint", verb: identity.Read, do: doCheckpoint},
		{pattern: "GET /v1/audit/export", verb: identity.Read, do: doExport},
		{pattern: "POST /v1/rebuild", verb: identity.Rebuild, do: doRebuild},
		{pattern: "GET /v1/doctor", verb: identity.Read, do: doDoctor},

		{pattern: "GET /git/{repository}/info/refs", about: aboutGit, do: doGit},
		{pattern: "POST /git/{repository}/git-upload-pack", about: aboutGit, do: doGit},
		{pattern: "POST /git/{repository}/git-receive-pack", about: aboutGit, do: doGit},
	}
}

const (
	// maxBody is the largest body of an API request, in bytes: a secret of the largest size, escaped.
	maxBody = 1 << 20
	// patience is how long a request's body may take to arrive, and each piece of an answer to be taken.
	patience = 30 * time.Second
)

// call is one request on its way through a route.
type call struct {
	s     *Service
	w     http.ResponseWriter
	r     *http.Request
	actor identity.Actor
	app   events.Slug
	env   events.Slug
	run   int
	body  any // what about has decoded
}

// handler is all routes behind one entry.
func (s *Service) handler() http.Handler {
	mux := http.NewServeMux()
	for _, one := range routes() {
		mux.HandleFunc(one.pattern, func(w http.ResponseWriter, r *http.Request) {
			c := &call{s: s, w: w, r: r}
			if err := one.enter(c); err != nil {
				c.fail(err)
			}
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer s.survive(w, r)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if _, pattern := mux.Handler(r); pattern == "" {
			noRoute(mux, r).write(w)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// survive turns a panic into an answer and a line in the log.
func (s *Service) survive(w http.ResponseWriter, r *http.Request) {
	cause := recover()
	if cause == nil || cause == http.ErrAbortHandler {
		return
	}
	s.panics.Add(1)
	s.logger.Error("a request made the gateway panic", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(cause))
	problemOf(errors.New("the gateway made a mistake")).write(w)
}

// noRoute says whether the path is wrong, or only the method.
func noRoute(mux *http.ServeMux, r *http.Request) *problem {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		probe := r.Clone(r.Context())
		probe.Method = method
		if _, pattern := mux.Handler(probe); pattern != "" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) > 0 {
		return &problem{
			Status: http.StatusMethodNotAllowed, What: "asking the gateway", On: r.URL.Path, Why: r.Method + " is not done here",
			Do: "use " + strings.Join(allowed, " or "), Code: codeMethod,
		}
	}
	return notFound("asking the gateway", r.URL.Path, "there is no such path", "GET /openapi.json describes the API")
}

// enter is the one entry: who asks, what about, may they, and only then do.
func (one route) enter(c *call) error {
	control := http.NewResponseController(c.w)
	control.SetWriteDeadline(time.Time{}) // of the request before on this connection
	control.SetReadDeadline(time.Time{})
	if one.about == nil || !strings.HasPrefix(c.r.URL.Path, "/git/") {
		c.r.Body = http.MaxBytesReader(c.w, c.r.Body, maxBody)
	}
	if err := c.readPath(); err != nil {
		return err
	}
	if one.open != "" {
		return one.do(c)
	}
	// Who asks is found out before a body is read, so that nobody unknown makes the gateway work.
	actor, authenticated := c.authenticateService()
	if !authenticated {
		var err error
		if actor, err = c.s.authenticate(c.r); err != nil {
			return err
		}
	}
	c.actor = actor
	verb, object := one.verb, identity.Object{App: c.app, Env: c.env, Run: c.run}
	if one.about != nil {
		var err error
		if verb, object, err = one.about(c); err != nil {
			return err
		}
	}
	if err := identity.Authorize(c.actor, verb, object); err != nil {
		return err
	}
	return one.do(c)
}

// authenticateService lets services of this installation fetch from hosted repositories, and do nothing else.
func (c *call) authenticateService() (identity.Actor, bool) {
	name, ok := strings.CutSuffix(c.r.PathValue("repository"), ".git")
	app, err := events.ParseSlug(name)
	if !ok || err != nil || c.gitService() != "git-upload-pack" {
		return identity.Actor{}, false
	}
	return c.s.asService(c.r, app)
}

// readPath reads the names in the path.
func (c *call) readPath() error {
	for name, to := range map[string]*events.Slug{"app": &c.app, "env": &c.env} {
		text := c.r.PathValue(name)
		if text == "" {
			continue
		}
		slug, err := events.ParseSlug(text)
		if err != nil {
			return notFound("finding the "+name, fmt.Sprintf("%.80q", text), "a name has lower-case letters, digits and inner hyphens, 1–63 long", "")
		}
		*to = slug
	}
	if text := c.r.PathValue("run"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return notFound("finding the run", fmt.Sprintf("%s/%.40s", c.app, text), "a run's number counts from 1", "")
		}
		c.run = n
	}
	return nil
}

// fail tells the client, and the log where it is the gateway's own trouble.
func (c *call) fail(err error) {
	if c.r.Context().Err() != nil {
		return // the client is gone
	}
	p := problemOf(err)
	if p.Status >= http.StatusInternalServerError {
		c.s.logger.Error("a request failed", "method", c.r.Method, "path", c.r.URL.Path, "actor", c.actor.ID, "status", p.Status, "err", err)
	}
	if p.Status == http.StatusUnauthorized && strings.HasPrefix(c.r.URL.Path, "/git/") {
		c.w.Header().Set("WWW-Authenticate", `Basic realm="Towpath: any user name, the token as password"`)
	}
	if strings.HasPrefix(c.r.URL.Path, "/git/") {
		http.Error(c.w, "towpath: "+p.Error()+" ("+p.Do+")", p.Status) // git shows the text of an error
		return
	}
	p.write(c.w)
}

// decode reads the body, which must be one JSON object with nothing but known keys.
func (c *call) decode(into any) error {
	control := http.NewResponseController(c.w)
	control.SetReadDeadline(time.Now().Add(patience))
	defer control.SetReadDeadline(time.Time{}) // one that passes later would end the request
	decoder := json.NewDecoder(c.r.Body)
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err == nil && decoder.Decode(&struct{}{}) != io.EOF {
		err = errors.New("something follows the JSON object")
	}
	var large *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &large):
		return err
	}
	return invalid("reading the request", "", strings.TrimPrefix(err.Error(), "json: "), "GET /openapi.json describes it")
}

// found returns the app and the run that the path names.
func (c *call) found() (*fold.App, *fold.Run, error) {
	app := c.s.fold().App(c.app)
	if app == nil {
		return nil, nil, c.s.noApp(c.app)
	}
	run := app.Run(c.run)
	if run == nil {
		return nil, nil, notFound("finding run", fold.Name(c.app, c.run), "there is no such run", fmt.Sprintf("towpath runs --app %s lists them", c.app))
	}
	return app, run, nil
}

// noApp says that an app is unknown, and which names are near.
func (s *Service) noApp(name events.Slug) *problem {
	var near []string
	for _, app := range s.fold().Apps() {
		if strings.Contains(string(app.Name), string(name)) || strings.Contains(string(name), string(app.Name)) {
			near = append(near, string(app.Name))
		}
	}
	do := "a first push makes it: git push " + s.hostedURL(name) + " main"
	if len(near) > 0 {
		slices.Sort(near)
		do = "did you mean " + strings.Join(near, " or ") + "? Otherwise " + do
	}
	return notFound("finding app", string(name), "there is no such app", do)
}
