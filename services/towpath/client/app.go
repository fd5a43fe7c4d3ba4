package client

import (
	"context"
	"net/http"
	"time"
)

// App is one deployable service.
type App struct {
	App        string    `json:"app"`
	Repository string    `json:"repository,omitempty"` // URL; empty: hosted by the gateway
	Branch     string    `json:"branch,omitempty"`
	Poll       int       `json:"poll,omitempty"` // seconds between looks; 0: never
	Runs       int       `json:"runs"`
	Held       string    `json:"held,omitempty"` // why nothing of it begins
	Created    time.Time `json:"created,omitzero"`
	Git        string    `json:"git,omitempty"`     // where to push
	Trouble    string    `json:"trouble,omitempty"` // why its repository could not be read at the last look
}

// Apps lists the apps by name.
func (c *Client) Apps(ctx context.Context) ([]App, error) {
	var apps []App
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "apps"}, bound: quick}, &apps)
	return apps, err
}

// AddApp makes an app known: with a repository elsewhere, or hosted by the gateway.
func (c *Client) AddApp(ctx context.Context, app App) (App, error) {
	var made App
	err := c.call(ctx, request{method: http.MethodPost, path: []string{"v1", "apps"}, body: app, bound: time.Minute}, &made)
	return made, err
}

// Submission is a change, or an image that was built elsewhere.
type Submission struct {
	App    string `json:"app,omitempty"`
	Repo   string `json:"repo,omitempty"`
	Commit string `json:"commit,omitempty"`
	Ref    string `json:"ref,omitempty"`
	Image  string `json:"image,omitempty"` // repository@sha256:…
	// Definition is the text of a towpath.yaml, for an image. Without it, and without a repository that
	// holds it, the app's newest run says what its pipeline is.
	Definition string `json:"definition,omitempty"`
	Rebuild    bool   `json:"rebuild,omitempty"`
}

// Submitted is the run that a submission began.
type Submitted struct {
	Run      string   `json:"run"`
	URL      string   `json:"url"`
	Blockers []string `json:"blockers"` // what will keep it waiting later
}

// Submit starts a run.
func (c *Client) Submit(ctx context.Context, s Submission) (Submitted, error) {
	var answer Submitted
	err := c.call(ctx, request{method: http.MethodPost, path: []string{"v1", "submit"}, body: s, bound: 5 * time.Minute}, &answer)
	return answer, err
}
