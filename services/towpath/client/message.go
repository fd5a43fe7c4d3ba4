package client

import (
	"context"
	"net/http"

	"towpath.dev/services/gateway/view"
)

// Messages lists the messages that are tried again, and those that nobody acts on.
func (c *Client) Messages(ctx context.Context) ([]view.Message, error) {
	var list []view.Message
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "messages"}, bound: quick}, &list)
	return list, err
}
