package client

import (
	"context"
	"net/http"
	"time"
)

// Environment is one environment and how many apps run there.
type Environment struct {
	Name string   `json:"name"`
	Apps []string `json:"apps"`
}

// Deployment is what runs of one app in an environment.
type Deployment struct {
	App       string    `json:"app"`
	Digest    string    `json:"digest"`
	Run       string    `json:"run"`
	Endpoints []string  `json:"endpoints"`
	Since     time.Time `json:"since"`
	Skipped   *Asked    `json:"skipped,omitempty"` // who skipped its verification: it was never verified there
}

// Environments lists the environments that any app has.
func (c *Client) Environments(ctx context.Context) ([]Environment, error) {
	var list []Environment
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "environments"}, bound: quick}, &list)
	return list, err
}

// Environment lists what runs in an environment.
func (c *Client) Environment(ctx context.Context, name string) ([]Deployment, error) {
	var list []Deployment
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "environments", name}, bound: quick}, &list)
	return list, err
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
	Command string    `json:"command"`         // what replays it
}

// Stuck lists the stages that wait for an operator.
func (c *Client) Stuck(ctx context.Context) ([]StuckStage, error) {
	var list []StuckStage
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
