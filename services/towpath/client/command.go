package client

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"

	"towpath.dev/services/gateway/view"
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
	Attempt int    `json:"attempt,omitempty"` // replay: the number that the new attempt had in a preview; refused where it is another by now
	Rebuild bool   `json:"rebuild,omitempty"`
	// Policy is what a replay is judged by: "pinned" (also where it is empty) or "current".
	Policy string `json:"policy,omitempty"`
	// AllStuck is a replay of everything that is stuck, of App or, where that is empty, of all apps.
	AllStuck bool `json:"allStuck,omitempty"`
	// WithSecrets is of a rollback: the secrets of that time come back too.
	WithSecrets bool `json:"withSecrets,omitempty"`
	// Message is of a dismissal: the sequence of a message that was set aside.
	Message uint64 `json:"message,omitempty"`
	// Overrule has an approval put an end to denials of people who may not approve there any more.
	Overrule bool `json:"overrule,omitempty"`
}

// NewCommandID returns an id that nobody else uses.
func NewCommandID() string { return rand.Text() }

// Command records a command.
func (c *Client) Command(ctx context.Context, cmd Command) (view.Answer, error) {
	var answer view.Answer
	err := c.call(ctx, request{method: http.MethodPost, path: []string{"v1", "commands"}, body: cmd, bound: quick}, &answer)
	return answer, err
}

// Replays returns how far a replay of all that is stuck is; id is that of its command.
func (c *Client) Replays(ctx context.Context, id string) (view.Replays, error) {
	var r view.Replays
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "replays", id}, bound: quick}, &r)
	return r, err
}

// Preview says what a command would do, and records nothing.
func (c *Client) Preview(ctx context.Context, cmd Command) (view.Preview, error) {
	var p view.Preview
	err := c.call(ctx, request{
		method: http.MethodPost, path: []string{"v1", "commands"}, query: url.Values{"dryRun": {"1"}}, body: cmd, bound: quick,
	}, &p)
	return p, err
}
