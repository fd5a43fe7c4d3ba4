package client

import (
	"context"
	"net/http"

	"towpath.dev/services/gateway/view"
)

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
