package client

import (
	"context"
	"net/http"

	"towpath.dev/pkg/seal"
)

// Checkpoint says how far the ledger is sealed and witnessed.
func (c *Client) Checkpoint(ctx context.Context) (seal.Status, error) {
	var status seal.Status
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "audit", "checkpoint"}, bound: quick}, &status)
	return status, err
}
