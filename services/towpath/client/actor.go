package client

import (
	"context"
	"net/http"
	"net/url"

	"towpath.dev/services/gateway/view"
)

// Actors lists everybody.
func (c *Client) Actors(ctx context.Context) ([]view.Actor, error) {
	var list []view.Actor
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "actors"}, bound: quick}, &list)
	return list, err
}

// AddActor makes an actor.
func (c *Client) AddActor(ctx context.Context, a view.NewActor) (view.Actor, error) {
	var made view.Actor
	err := c.call(ctx, request{method: http.MethodPost, path: []string{"v1", "actors"}, body: a, bound: quick}, &made)
	return made, err
}

// SetRoles replaces an actor's roles.
func (c *Client) SetRoles(ctx context.Context, id string, roles []string) (view.Actor, error) {
	var changed view.Actor
	err := c.call(ctx, request{
		method: http.MethodPut, path: []string{"v1", "actors", id, "roles"}, bound: quick,
		body: struct {
			Roles []string `json:"roles"`
		}{roles},
	}, &changed)
	return changed, err
}

// IssueToken makes a token for an actor; it cannot be read again.
func (c *Client) IssueToken(ctx context.Context, id string) (string, error) {
	var made struct{ Token string }
	err := c.call(ctx, request{method: http.MethodPost, path: []string{"v1", "actors", id, "tokens"}, bound: quick}, &made)
	return made.Token, err
}

// RevokeTokens takes all tokens of an actor away.
func (c *Client) RevokeTokens(ctx context.Context, id string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: []string{"v1", "actors", id, "tokens"}, bound: quick}, nil)
}

// MapActor gives a person an external name.
func (c *Client) MapActor(ctx context.Context, external, id string) error {
	return c.call(ctx, request{
		method: http.MethodPost, path: []string{"v1", "actors", id, "external"}, bound: quick,
		body: struct {
			External string `json:"external"`
		}{external},
	}, nil)
}

// UnmapActor takes an external name away.
func (c *Client) UnmapActor(ctx context.Context, external, id string) error {
	return c.call(ctx, request{
		method: http.MethodDelete, path: []string{"v1", "actors", id, "external"}, query: url.Values{"external": {external}}, bound: quick,
	}, nil)
}

// EraseActor takes everything but the id away.
func (c *Client) EraseActor(ctx context.Context, id string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: []string{"v1", "actors", id}, bound: quick}, nil)
}
