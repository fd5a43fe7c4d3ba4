package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"towpath.dev/pkg/pause"
	"towpath.dev/services/gateway/view"
)

// EventQuery chooses events. The zero value is all of them.
type EventQuery struct {
	App    string
	Run    int
	Env    string
	Type   string // "slot", "slot.taken", or in full
	Digest string // or its beginning
	Actor  string // id, email address, or "me"
	Since  time.Time
	Until  time.Time
	After  uint64 // sequence
	Limit  int    // at most so many; 0: all
	Last   int    // only so many of the last; 0: all
	Follow bool   // go on for ever, or until there were Limit
}

func (q EventQuery) values() url.Values {
	values := url.Values{}
	set(values, "app", q.App)
	set(values, "env", q.Env)
	set(values, "type", q.Type)
	set(values, "digest", q.Digest)
	set(values, "actor", q.Actor)
	for key, n := range map[string]int{"run": q.Run, "limit": q.Limit, "last": q.Last} {
		if n > 0 {
			values.Set(key, strconv.Itoa(n))
		}
	}
	for key, at := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !at.IsZero() {
			values.Set(key, at.UTC().Format(time.RFC3339Nano))
		}
	}
	if q.After > 0 {
		values.Set("after", strconv.FormatUint(q.After, 10))
	}
	if q.Follow {
		values.Set("follow", "1")
	}
	return values
}

// maxEventLine bounds one line of the answer, in bytes.
const maxEventLine = 1 << 20

// Events calls each with every event that fits, in order, until there are no more, each returns an error, or ctx ends.
// One that follows goes on where it was when the gateway comes back within 30 s: each event is seen once.
func (c *Client) Events(ctx context.Context, q EventQuery, each func(e view.EventLine) error) error {
	return c.eventLines(ctx, q, "", func(line []byte) (uint64, error) {
		var e view.EventLine
		if err := json.Unmarshal(line, &e); err != nil {
			return 0, c.unreadable(err)
		}
		return e.Seq, each(e)
	})
}

// CloudEvents is Events with each event as a line of JSON in CloudEvents' structured mode.
func (c *Client) CloudEvents(ctx context.Context, q EventQuery, each func(line []byte) error) error {
	return c.eventLines(ctx, q, "cloudevents", func(line []byte) (uint64, error) {
		var e struct {
			Sequence uint64 `json:"sequence,string"`
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return 0, c.unreadable(err)
		}
		return e.Sequence, each(line)
	})
}

func (c *Client) unreadable(err error) error {
	return &Error{What: "reading an event of the gateway's answer", On: c.base, Why: err.Error(), Code: CodeFailed}
}

// eventLines calls each with every line, which returns the sequence of its event.
func (c *Client) eventLines(ctx context.Context, q EventQuery, as string, each func(line []byte) (uint64, error)) error {
	gone, bounded := time.Time{}, q.Limit > 0
	for {
		stopped, err := c.readEvents(ctx, q, as, func(line []byte) error {
			gone = time.Time{}
			seq, err := each(line)
			q.After, q.Last = max(q.After, seq), 0
			q.Limit--
			return err
		})
		var e *Error
		switch lost := errors.As(err, &e) && e.Code == CodeUnreachable; {
		case stopped, !q.Follow, ctx.Err() != nil, err != nil && !lost, bounded && q.Limit <= 0:
			return err
		case gone.IsZero():
			gone = time.Now()
		case time.Since(gone) > away && lost:
			return err
		}
		_ = pause.For(ctx, 500*time.Millisecond) // the next call ends with ctx
	}
}

// readEvents reads one answer to its end; stopped reports that each wanted no more.
func (c *Client) readEvents(ctx context.Context, q EventQuery, as string, each func(line []byte) error) (stopped bool, err error) {
	values := q.values()
	set(values, "as", as)
	body, err := c.open(ctx, request{method: http.MethodGet, path: []string{"v1", "events"}, query: values})
	if err != nil {
		return false, err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxEventLine)
	for lines.Scan() {
		if err := each(lines.Bytes()); err != nil {
			return true, err
		}
	}
	if err := lines.Err(); err != nil {
		return false, c.unreachable(ctx, err)
	}
	return false, nil
}
