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
	"towpath.dev/services/gateway/view"
)

// Runs lists runs, newest first. Empty app and state mean all.
func (c *Client) Runs(ctx context.Context, app, state string) ([]view.Run, error) {
	q := url.Values{}
	set(q, "app", app)
	set(q, "state", state)
	var runs []view.Run
	err := c.call(ctx, request{method: http.MethodGet, path: []string{"v1", "runs"}, query: q, bound: quick}, &runs)
	return runs, err
}

// Run returns a run as it is now.
func (c *Client) Run(ctx context.Context, app string, number int) (view.Run, error) {
	var run view.Run
	err := c.call(ctx, request{method: http.MethodGet, path: runPath(app, number), bound: quick}, &run)
	return run, err
}

// longPoll is how long the gateway holds a question about a run that does not change.
const longPoll = 25 * time.Second

// RunAfter returns a run once an event later than seq has changed it, or as it is after 25 s. It
// returns earlier, with an *Error, when ctx ends.
func (c *Client) RunAfter(ctx context.Context, app string, number int, seq uint64) (view.Run, error) {
	q := url.Values{"after": {strconv.FormatUint(seq, 10)}, "timeout": {longPoll.String()}}
	var run view.Run
	err := c.call(ctx, request{method: http.MethodGet, path: runPath(app, number), query: q, bound: longPoll + quick}, &run)
	return run, err
}

// away is how long a gateway, or the ledger behind it, that does not answer is waited for: it may be starting again.
const away = 30 * time.Second

// Follow calls seen with a run and with each later state of it, until enough says so or seen returns an
// error, and returns the last state. A gateway or ledger that is away for less than 30 s is waited for.
func (c *Client) Follow(ctx context.Context, run view.Run, seen func(view.Run) error, enough func(view.Run) bool) (view.Run, error) {
	for {
		if err := seen(run); err != nil {
			return run, err
		}
		if enough(run) {
			return run, nil
		}
		next, err := patiently(ctx, func(ctx context.Context) (view.Run, error) { return c.RunAfter(ctx, run.App, run.Number, run.Seq) },
			func(e *Error) bool { return e.Code == CodeUnreachable || e.Status == http.StatusServiceUnavailable })
		if err != nil {
			return run, err
		}
		run = next
	}
}

// Patiently asks again for as long as the gateway says that the ledger does not answer (503), but for no more than 30 s;
// then it returns the last error. It is for questions: what is asked twice is done twice.
func Patiently[T any](ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	return patiently(ctx, ask, func(e *Error) bool { return e.Status == http.StatusServiceUnavailable })
}

func patiently[T any](ctx context.Context, ask func(context.Context) (T, error), passes func(*Error) bool) (T, error) {
	var gone time.Time
	for {
		answer, err := ask(ctx)
		var e *Error
		if err == nil || !errors.As(err, &e) || !passes(e) || ctx.Err() != nil {
			return answer, err
		}
		if gone.IsZero() {
			gone = time.Now()
		}
		if time.Since(gone) > away {
			return answer, err
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
