package client

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
)

// Command asks for something to be done. The verb says which of the other fields it uses.
type Command struct {
	ID      string `json:"id"` // the same id sent again is the same command
	Verb    string `json:"verb"`
	App     string `json:"app,omitempty"`
	Run     int    `json:"run,omitempty"`
	Stage   string `json:"stage,omitempty"`
	Env     string `json:"env,omitempty"`
	Digest  string `json:"digest,omitempty"` // approve, deny: what was looked at
	Reason  string `json:"reason,omitempty"`
	Rebuild bool   `json:"rebuild,omitempty"`
}

// NewCommandID returns an id that nobody else uses.
func NewCommandID() string { return rand.Text() }

// Answer is what became of a command.
type Answer struct {
	ID   string `json:"id"`
	Text string `json:"text"` // for people
	Seq  uint64 `json:"seq"`  // of its event
}

// Command records a command.
func (c *Client) Command(ctx context.Context, cmd Command) (Answer, error) {
	var answer Answer
	err := c.call(ctx, request{method: http.MethodPost, path: []string{"v1", "commands"}, body: cmd, bound: quick}, &answer)
	return answer, err
}

// Preview is what a command would do.
type Preview struct {
	Text string   `json:"text"`           // "3 effects kept, 1 will run, no rebuild"
	Kept []string `json:"kept,omitempty"` // effects that stay as they are
	Runs []string `json:"runs,omitempty"` // effects that run (again)
}

// Preview says what a command would do, and records nothing.
func (c *Client) Preview(ctx context.Context, cmd Command) (Preview, error) {
	var p Preview
	err := c.call(ctx, request{
		method: http.MethodPost, path: []string{"v1", "commands"}, query: url.Values{"dryRun": {"1"}}, body: cmd, bound: quick,
	}, &p)
	return p, err
}
