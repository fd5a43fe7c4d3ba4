package client

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

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
	Follow bool   // go on for ever
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
func (c *Client) Events(ctx context.Context, q EventQuery, each func(e view.EventLine) error) error {
	return c.eventLines(ctx, q.values(), func(line []byte) error {
		var e view.EventLine
		if err := json.Unmarshal(line, &e); err != nil {
			return &Error{What: "reading an event of the gateway's answer", On: c.base, Why: err.Error(), Code: CodeFailed}
		}
		return each(e)
	})
}

// CloudEvents is Events with each event as a line of JSON in CloudEvents' structured mode.
func (c *Client) CloudEvents(ctx context.Context, q EventQuery, each func(line []byte) error) error {
	values := q.values()
	values.Set("as", "cloudevents")
	return c.eventLines(ctx, values, each)
}

func (c *Client) eventLines(ctx context.Context, values url.Values, each func(line []byte) error) error {
	body, err := c.open(ctx, request{method: http.MethodGet, path: []string{"v1", "events"}, query: values})
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxEventLine)
	for lines.Scan() {
		if err := each(lines.Bytes()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return c.unreachable(ctx, err)
	}
	return nil
}
