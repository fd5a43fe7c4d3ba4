package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"towpath.dev/pkg/seal"
)

// Checkpoint says how far the ledger is sealed and witnessed.
func (c *Client) Checkpoint(ctx context.Context) (seal.Status, error) {
	var status seal.Status
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "audit", "checkpoint"}, bound: quick}, &status)
	return status, err
}

// ProofQuery says what is to be proven: a run, what runs in an app's environment, or an image.
type ProofQuery struct {
	App     string
	Run     int    // 0: not by run
	Env     string // "": not by environment
	Digest  string // "": not by image
	Whole   bool   // up to the newest checkpoint, however many events that are
	Extends uint64 // size of an older checkpoint; 0: none
}

// Proof copies the file that proves a deploy.
func (c *Client) Proof(ctx context.Context, q ProofQuery, to io.Writer) error {
	query := url.Values{}
	for name, value := range map[string]string{"app": q.App, "env": q.Env, "digest": q.Digest} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if q.Run > 0 {
		query.Set("run", strconv.Itoa(q.Run))
	}
	if q.Whole {
		query.Set("whole", "1")
	}
	if q.Extends > 0 {
		query.Set("extends", strconv.FormatUint(q.Extends, 10))
	}
	body, err := c.open(ctx, request{method: http.MethodGet, path: []string{"v1", "audit", "export"}, query: query})
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(to, body); err != nil {
		return c.unreachable(ctx, err)
	}
	return nil
}
