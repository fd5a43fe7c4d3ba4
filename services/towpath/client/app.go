package client

import (
	"context"
	"net/http"
	"time"

	"towpath.dev/services/gateway/view"
)

// Apps lists the apps by name.
func (c *Client) Apps(ctx context.Context) ([]view.App, error) {
	var apps []view.App
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "apps"}, bound: quick}, &apps)
	return apps, err
}

// AddApp makes an app known: with a repository elsewhere, or hosted by the gateway.
func (c *Client) AddApp(ctx context.Context, app view.App) (view.App, error) {
	var made view.App
	err := c.call(ctx, request{method: http.MethodPost, path: []string{"v1", "apps"}, body: app, bound: time.Minute}, &made)
	return made, err
}

// Submit starts a run.
func (c *Client) Submit(ctx context.Context, s view.Submission) (view.Submitted, error) {
	var answer view.Submitted
	err := c.call(ctx, request{method: http.MethodPost, path: []string{"v1", "submit"}, body: s, bound: 5 * time.Minute}, &answer)
	return answer, err
}
