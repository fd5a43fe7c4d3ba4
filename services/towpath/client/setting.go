package client

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"time"
	"unicode/utf8"
)

// Setting is one key of an app in one environment. A secret has no value here.
type Setting struct {
	Key     string    `json:"key"`
	Value   *string   `json:"value,omitempty"`
	Version uint64    `json:"version"`
	Changed time.Time `json:"changed,omitzero"`
	Actor   string    `json:"actor,omitempty"`
	Warning string    `json:"warning,omitempty"` // of a key that nothing reads, or of a secret that was removed and is still held
}

// Store is one of the two kinds of settings.
type Store string

// The stores.
const (
	Config  Store = "settings"
	Secrets Store = "secrets"
)

// Settings lists the keys of an app in an environment.
func (c *Client) Settings(ctx context.Context, s Store, env, app string) ([]Setting, error) {
	var list []Setting
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", string(s), env, app}, bound: quick}, &list)
	return list, err
}

// SetSetting gives a key a new value.
func (c *Client) SetSetting(ctx context.Context, s Store, env, app, key, value string) (Setting, error) {
	var made Setting
	body := struct {
		Value    string `json:"value"`
		Encoding string `json:"encoding,omitempty"`
	}{Value: value}
	if !utf8.ValidString(value) { // JSON would replace what is not
		body.Value, body.Encoding = base64.StdEncoding.EncodeToString([]byte(value)), "base64"
	}
	err := c.call(ctx, request{method: http.MethodPut, path: []string{"v1", string(s), env, app, key}, body: body, bound: quick}, &made)
	return made, err
}

// DeleteSetting removes a key. One that a running version needs is removed with force alone.
func (c *Client) DeleteSetting(ctx context.Context, s Store, env, app, key string, force bool) (Setting, error) {
	var gone Setting
	r := request{method: http.MethodDelete, path: []string{"v1", string(s), env, app, key}, bound: quick}
	if force {
		r.query = url.Values{"force": {"1"}}
	}
	err := c.call(ctx, r, &gone)
	return gone, err
}
