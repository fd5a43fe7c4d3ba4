package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"towpath.dev/services/gateway/view"
)

// making bounds a request that copies the settings of a whole environment.
const making = 5 * time.Minute

// CreateEnvironment has an environment made, or renewed.
func (c *Client) CreateEnvironment(ctx context.Context, e view.NewEnvironment) (view.EnvironmentAnswer, error) {
	var answer view.EnvironmentAnswer
	err := c.call(ctx, request{method: http.MethodPost, path: []string{"v1", "environments"}, body: e, bound: making}, &answer)
	return answer, err
}

// DestroyEnvironment has an environment that somebody made destroyed.
func (c *Client) DestroyEnvironment(ctx context.Context, id, name, reason string) (view.EnvironmentAnswer, error) {
	var answer view.EnvironmentAnswer
	err := c.call(ctx, request{
		method: http.MethodDelete, path: []string{"v1", "environments", name}, query: url.Values{"id": {id}, "reason": {reason}}, bound: quick,
	}, &answer)
	return answer, err
}

// EnvironmentState returns how an environment is, once an event later than after has come, or after some seconds; with
// 0 at once.
func (c *Client) EnvironmentState(ctx context.Context, name string, after uint64) (view.Environment, error) {
	var e view.Environment
	r := request{method: http.MethodGet, path: []string{"v1", "environments", name, "state"}, bound: quick}
	if after > 0 {
		r.query = url.Values{"after": {strconv.FormatUint(after, 10)}, "timeout": {"10s"}}
	}
	err := c.call(ctx, r, &e)
	return e, err
}

// DiffEnvironments says what differs between two environments.
func (c *Client) DiffEnvironments(ctx context.Context, left, right string) (view.EnvironmentDiff, error) {
	var d view.EnvironmentDiff
	err := c.call(ctx, request{
		method: http.MethodGet, path: []string{"v1", "environments", left, "diff"}, query: url.Values{"with": {right}}, bound: quick,
	}, &d)
	return d, err
}

// Environments lists the environments that any app has.
func (c *Client) Environments(ctx context.Context) ([]view.Environment, error) {
	var list []view.Environment
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "environments"}, bound: quick}, &list)
	return list, err
}

// Environment lists what runs in an environment.
func (c *Client) Environment(ctx context.Context, name string) ([]view.Deployment, error) {
	var list []view.Deployment
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "environments", name}, bound: quick}, &list)
	return list, err
}

// Alarms lists what a person must look into.
func (c *Client) Alarms(ctx context.Context) ([]view.Alarm, error) {
	var list []view.Alarm
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "alarms"}, bound: quick}, &list)
	return list, err
}

// Stuck lists the stages that wait for an operator.
func (c *Client) Stuck(ctx context.Context) ([]view.StuckStage, error) {
	var list []view.StuckStage
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "stuck"}, bound: quick}, &list)
	return list, err
}

// Check is one thing that doctor looked at.
type Check struct {
	Name   string `json:"name"`
	Status string `json:"status"` // ok, warning, broken
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

// Doctor asks the gateway to look at what it needs.
func (c *Client) Doctor(ctx context.Context) ([]Check, error) {
	var list []Check
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "doctor"}, bound: 2 * quick}, &list)
	return list, err
}
