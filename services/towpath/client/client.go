// Package client speaks the gateway's HTTP API: what `towpath` needs of it, typed.
//
// It guarantees that every failure is an *Error which says what failed, on what, why and what to do,
// and that no call outlives its context. It keeps no state between calls and repeats none of them:
// commands carry an id of the caller's, so that sending one again is safe.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxAnswer bounds a JSON answer that is read whole, in bytes.
const maxAnswer = 32 << 20

// Client is one gateway and who asks. It is safe for concurrent use.
type Client struct {
	base  string // without a slash at the end
	token string
	http  *http.Client
}

// New returns a client for the gateway at base ("http://127.0.0.1:7070"), asking as the owner of token.
func New(base, token string) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, &Error{
			What: "using the gateway's URL", On: base, Why: "it is not http://host:port or https://host:port",
			Do: "set TOWPATH_URL to what `towpath up` printed", Code: CodeInvalid,
		}
	}
	return &Client{base: strings.TrimRight(base, "/"), token: token, http: &http.Client{}}, nil
}

// URL is the gateway's, without a slash at the end.
func (c *Client) URL() string { return c.base }

// Token is the one that the client asks with.
func (c *Client) Token() string { return c.token }

// request is one call. Body, when not nil, is sent as JSON.
type request struct {
	method string
	path   []string // escaped and joined with slashes
	query  url.Values
	body   any
	bound  time.Duration // 0: none but the context's
}

// bound of a call that only looks something up or records something.
const quick = 30 * time.Second

// call sends a request and decodes its JSON answer into answer, unless that is nil.
func (c *Client) call(ctx context.Context, r request, answer any) error {
	if r.bound > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.bound)
		defer cancel()
	}
	body, err := c.open(ctx, r)
	if err != nil {
		return err
	}
	defer body.Close()
	if answer == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(answer); err != nil {
		var broken net.Error
		if ctx.Err() != nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &broken) {
			return c.unreachable(ctx, err)
		}
		return &Error{What: "reading the gateway's answer", On: c.base, Why: err.Error(),
			Do: "see whether another version of Towpath runs there", Code: CodeFailed}
	}
	return nil
}

// open sends a request and returns the body of a good answer. The caller closes it.
func (c *Client) open(ctx context.Context, r request) (io.ReadCloser, error) {
	var body io.Reader
	if r.body != nil {
		data, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("encoding a request to the gateway: %w", err)
		}
		body = bytes.NewReader(data)
	}
	escaped := make([]string, len(r.path))
	for i, p := range r.path {
		escaped[i] = url.PathEscape(p)
	}
	target := c.base + "/" + strings.Join(escaped, "/")
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, fmt.Errorf("making a request to the gateway: %w", err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, c.refusal(resp)
	}
	return resp.Body, nil
}

// unreachable explains a call that got no answer.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		e := &Error{What: "asking the gateway", On: c.base, Why: "no answer in time", Do: "try again", Code: CodeTimeout, cause: ctx.Err()}
		if errors.Is(ctx.Err(), context.Canceled) {
			e.Why, e.Code = "interrupted", CodeFailed
		}
		return e
	}
	var failed *url.Error
	if errors.As(err, &failed) {
		err = failed.Err
	}
	return &Error{
		What: "reaching the gateway", On: c.base, Why: err.Error(),
		Do: "start it with `towpath up`, or set TOWPATH_URL to where it runs", Code: CodeUnreachable, cause: err,
	}
}

// refusal reads an answer that is not a success.
func (c *Client) refusal(resp *http.Response) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var answer struct{ Error *Error }
	if err == nil && json.Unmarshal(data, &answer) == nil && answer.Error != nil && answer.Error.What != "" {
		answer.Error.Status = resp.StatusCode
		return answer.Error
	}
	e := &Error{Status: resp.StatusCode, What: "asking the gateway", On: c.base, Why: resp.Status}
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		e.Do = "check TOWPATH_TOKEN"
	case http.StatusNotFound:
		e.Do = "see whether TOWPATH_URL is a Towpath gateway"
	default:
		e.Do = "see the gateway's log"
	}
	return e
}
