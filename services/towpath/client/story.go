package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"towpath.dev/pkg/audit"
)

// patient bounds a call that reads much of the ledger.
const patient = 5 * time.Minute

// Story tells how a run, what serves in an environment (app@env), or an image came to run: one story, or for an image one
// for each run that carried it.
func (c *Client) Story(ctx context.Context, of string) ([]audit.Story, error) {
	var stories []audit.Story
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "audit", "story"}, query: url.Values{"of": {of}}, bound: patient}, &stories)
	return stories, err
}

// Report lists every change of an environment from a moment on and before another.
func (c *Client) Report(ctx context.Context, env string, from, to time.Time) (audit.Report, error) {
	var report audit.Report
	period := url.Values{"from": {from.UTC().Format(time.RFC3339)}, "to": {to.UTC().Format(time.RFC3339)}}
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "audit", "report", env}, query: period, bound: patient}, &report)
	return report, err
}

// Coverage lists what runs in an environment, and which of it no run explains.
func (c *Client) Coverage(ctx context.Context, env string) (audit.Coverage, error) {
	var coverage audit.Coverage
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "audit", "coverage", env}, bound: 2 * quick}, &coverage)
	return coverage, err
}
