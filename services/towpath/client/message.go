package client

import (
	"context"
	"net/http"
	"net/url"

	"towpath.dev/services/gateway/view"
)

// Messages lists the messages that are tried again, and those that nobody acts on; all adds those that were dismissed.
func (c *Client) Messages(ctx context.Context, all bool) ([]view.Message, error) {
	var list []view.Message
	query := url.Values{}
	if all {
		query.Set("all", "1")
	}
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "messages"}, query: query, bound: quick}, &list)
	return list, err
}
