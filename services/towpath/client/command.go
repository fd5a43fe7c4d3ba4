package client

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"time"
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
	// Policy is what a replay is judged by: "pinned" (also where it is empty) or "current".
	Policy string `json:"policy,omitempty"`
	// AllStuck is a replay of everything that is stuck, of App or, where that is empty, of all apps.
	AllStuck bool `json:"allStuck,omitempty"`
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
	Text    string   `json:"text"`              // "2 effects already done are kept, 1 will run, no rebuild"
	Attempt int      `json:"attempt,omitempty"` // the number of the new one
	Kept    []string `json:"kept,omitempty"`    // effects that stay as they are
	Runs    []string `json:"runs,omitempty"`    // effects that run (again)
	// Pins are what the new attempt uses as it is.
	Pins *struct {
		Digest     string `json:"digest,omitempty"`
		Definition string `json:"definition"`
		Policy     string `json:"policy"`
		PolicyWas  string `json:"policyWas,omitempty"` // where it is another now
	} `json:"pins,omitempty"`
	Settings  []SettingChange `json:"settings,omitempty"`
	Approvals []Approval      `json:"approvals,omitempty"`
	Groups    []StuckGroup    `json:"groups,omitempty"` // of a replay of all that is stuck
}

// SettingChange is a setting that is not as the attempt before had it.
type SettingChange struct {
	Key     string `json:"key"`
	Kind    string `json:"kind"` // config or secret
	Was     uint64 `json:"was,omitempty"`
	Is      uint64 `json:"is,omitempty"`
	Missing bool   `json:"missing,omitempty"`
}

// Approval is what becomes of an approval that was given.
type Approval struct {
	Env   string `json:"env"`
	Actor string `json:"actor"`
	Kept  bool   `json:"kept"`
	Why   string `json:"why,omitempty"`
}

// StuckGroup is stages that are stuck for the same cause.
type StuckGroup struct {
	Cause  string        `json:"cause"`
	Stages []ReplayStage `json:"stages"`
}

// ReplayStage is a stage of a replay of all that is stuck, and what became of it.
type ReplayStage struct {
	Run     string `json:"run"`
	Stage   string `json:"stage"`
	Env     string `json:"env,omitempty"`
	Attempt int    `json:"attempt"`           // that was stuck
	Result  string `json:"result,omitempty"`  // untried, under way, went on, stopped, taken over
	Why     string `json:"why,omitempty"`     // of one that stopped again
	Command string `json:"command,omitempty"` // what replays one that is left
}

// Replays is how far a replay of all that is stuck is.
type Replays struct {
	ID       string       `json:"id"`
	Actor    string       `json:"actor"`
	Reason   string       `json:"reason,omitempty"`
	At       time.Time    `json:"at"`
	Finished bool         `json:"finished"`
	Why      string       `json:"why,omitempty"` // it ended before everything was tried
	Groups   []StuckGroup `json:"groups"`
	Seq      uint64       `json:"seq"`
}

// Replays returns how far a replay of all that is stuck is; id is that of its command.
func (c *Client) Replays(ctx context.Context, id string) (Replays, error) {
	var r Replays
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "replays", id}, bound: quick}, &r)
	return r, err
}

// Preview says what a command would do, and records nothing.
func (c *Client) Preview(ctx context.Context, cmd Command) (Preview, error) {
	var p Preview
	err := c.call(ctx, request{
		method: http.MethodPost, path: []string{"v1", "commands"}, query: url.Values{"dryRun": {"1"}}, body: cmd, bound: quick,
	}, &p)
	return p, err
}
