package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"towpath.dev/pkg/pause"
)

// Status is what a stage or a whole run is doing, in the words that people see.
type Status string

// The statuses. Pending and Skipped are of stages only.
const (
	Pending      Status = "pending"
	Queued       Status = "queued"
	Running      Status = "running"
	Waiting      Status = "waiting"
	Stuck        Status = "stuck"
	RunFailed    Status = "failed"
	RunRefused   Status = "refused"
	Superseded   Status = "superseded"
	Cancelled    Status = "cancelled"
	Done         Status = "done"
	Skipped      Status = "skipped"
	StageBuild          = "build"
	StageVet            = "vet"
	StagePromote        = "promote"
	StageVerify         = "verify"
)

// Ended reports whether nothing more happens without somebody acting.
func (s Status) Ended() bool {
	switch s {
	case Stuck, RunFailed, RunRefused, Superseded, Cancelled, Done:
		return true
	}
	return false
}

// Through reports whether a stage holds nothing up any more.
func (s Status) Through() bool { return s == Done || s == Skipped }

// Run is one change of one app on its way.
type Run struct {
	App      string     `json:"app"`
	Run      string     `json:"run"` // "hello/1"
	Number   int        `json:"number"`
	Commit   string     `json:"commit,omitempty"` // empty for an image that was built elsewhere
	Ref      string     `json:"ref,omitempty"`
	Digest   string     `json:"digest,omitempty"` // sha256:…, once there is an artifact
	Status   Status     `json:"status"`
	Detail   string     `json:"detail,omitempty"`  // why it is in that status
	For      string     `json:"for,omitempty"`     // who has to act: "an approver"
	Command  string     `json:"command,omitempty"` // what ends the wait
	Created  time.Time  `json:"created"`
	Finished *time.Time `json:"finished,omitempty"`
	URL      string     `json:"url,omitempty"` // page for people
	Stages   []Stage    `json:"stages"`
	Seq      uint64     `json:"seq"` // of the last event that changed it
}

// Stage is one stage of a run, in its present attempt.
type Stage struct {
	Stage    string     `json:"stage"`         // build, vet, promote, verify
	Env      string     `json:"env,omitempty"` // promote and verify
	Attempt  int        `json:"attempt"`
	Status   Status     `json:"status"`
	Started  *time.Time `json:"started,omitempty"`
	Finished *time.Time `json:"finished,omitempty"`
	Detail   string     `json:"detail,omitempty"`
	For      string     `json:"for,omitempty"`      // who has to act
	Command  string     `json:"command,omitempty"`  // what they type
	Replay   *Asked     `json:"replay,omitempty"`   // who asked for this attempt; nil for the first
	Skipped  *Asked     `json:"skipped,omitempty"`  // of verify: who skipped it
	Replaced *Asked     `json:"replaced,omitempty"` // of promote: who brought another version back in its place
	Tries    int        `json:"tries,omitempty"`    // that failed, of one that is tried again by itself
	Next     *time.Time `json:"nextTry,omitempty"`  // when it is
}

// Asked is who asked for something, and why.
type Asked struct {
	Actor  string     `json:"actor"`
	Reason string     `json:"reason,omitempty"`
	Run    string     `json:"run,omitempty"`    // whose version came back
	Parent string     `json:"parent,omitempty"` // id of the command that this was a part of
	At     *time.Time `json:"at,omitempty"`
}

// Took is how long the stage has been at work, until it finished or until now; 0 before it began.
func (s Stage) Took(now time.Time) time.Duration {
	switch {
	case s.Started == nil:
		return 0
	case s.Finished != nil:
		return s.Finished.Sub(*s.Started)
	}
	return max(0, now.Sub(*s.Started))
}

// Stage returns a stage of the run; env is empty for build and vet.
func (r Run) Stage(name, env string) (Stage, bool) {
	for _, s := range r.Stages {
		if s.Stage == name && s.Env == env {
			return s, true
		}
	}
	return Stage{}, false
}

// Envs are the run's environments, in its order.
func (r Run) Envs() []string {
	var names []string
	for _, s := range r.Stages {
		if s.Stage == StagePromote {
			names = append(names, s.Env)
		}
	}
	return names
}

// Runs lists runs, newest first. Empty app and state mean all.
func (c *Client) Runs(ctx context.Context, app, state string) ([]Run, error) {
	q := url.Values{}
	set(q, "app", app)
	set(q, "state", state)
	var runs []Run
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "runs"}, query: q, bound: quick}, &runs)
	return runs, err
}

// Run returns a run as it is now.
func (c *Client) Run(ctx context.Context, app string, number int) (Run, error) {
	var run Run
	err := c.call(ctx, request{method: http.MethodGet, path: runPath(app, number), bound: quick}, &run)
	return run, err
}

// longPoll is how long the gateway holds a question about a run that does not change.
const longPoll = 25 * time.Second

// RunAfter returns a run once an event later than seq has changed it, or as it is after 25 s. It
// returns earlier, with an *Error, when ctx ends.
func (c *Client) RunAfter(ctx context.Context, app string, number int, seq uint64) (Run, error) {
	q := url.Values{"after": {strconv.FormatUint(seq, 10)}, "timeout": {longPoll.String()}}
	var run Run
	err := c.call(ctx, request{method: http.MethodGet, path: runPath(app, number), query: q, bound: longPoll + quick}, &run)
	return run, err
}

// away is how long Follow waits for a gateway that does not answer: it may be starting again.
const away = 30 * time.Second

// Follow calls seen with a run and with each later state of it, until enough says so or seen returns an
// error, and returns the last state. A gateway that is away for less than 30 s is waited for.
func (c *Client) Follow(ctx context.Context, run Run, seen func(Run) error, enough func(Run) bool) (Run, error) {
	for {
		if err := seen(run); err != nil {
			return run, err
		}
		if enough(run) {
			return run, nil
		}
		next, err := c.patiently(ctx, run)
		if err != nil {
			return run, err
		}
		run = next
	}
}

func (c *Client) patiently(ctx context.Context, run Run) (Run, error) {
	var gone time.Time
	for {
		next, err := c.RunAfter(ctx, run.App, run.Number, run.Seq)
		var e *Error
		if err == nil || !errors.As(err, &e) || e.Code != CodeUnreachable || ctx.Err() != nil {
			return next, err
		}
		if gone.IsZero() {
			gone = time.Now()
		}
		if time.Since(gone) > away {
			return next, err
		}
		_ = pause.For(ctx, 500*time.Millisecond) // the next call ends with ctx
	}
}

func runPath(app string, number int) []string {
	return []string{"v1", "apps", app, "runs", strconv.Itoa(number)}
}

// LogOptions choose a log. The zero value is everything that the run has logged.
type LogOptions struct {
	Stage   string
	Env     string
	Attempt int  // 0: the present one
	Follow  bool // go on until the stage ends
}

// Log copies a run's output to w as it comes.
func (c *Client) Log(ctx context.Context, app string, number int, o LogOptions, w io.Writer) error {
	q := url.Values{}
	set(q, "stage", o.Stage)
	set(q, "env", o.Env)
	if o.Attempt > 0 {
		q.Set("attempt", strconv.Itoa(o.Attempt))
	}
	if o.Follow {
		q.Set("follow", "1")
	}
	body, err := c.open(ctx, request{method: http.MethodGet, path: append(runPath(app, number), "logs"), query: q})
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(w, body); err != nil {
		return c.unreachable(ctx, err)
	}
	return nil
}

func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}
