package client

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Event is one event of the ledger.
type Event struct {
	Seq     uint64          `json:"seq"`
	Time    time.Time       `json:"time"`
	Subject string          `json:"subject"`
	Type    string          `json:"type"`
	Event   json.RawMessage `json:"event"` // the CDEvent, as it was signed
}

// EventQuery chooses events. The zero value is all of them.
type EventQuery struct {
	App    string
	Run    int
	Type   string
	After  uint64 // sequence
	Follow bool   // go on for ever
}

// maxEventLine bounds one line of the answer, in bytes.
const maxEventLine = 1 << 20

// Events calls each with every event that fits, in order, and with the line that it came on, until
// there are no more, each returns an error, or ctx ends.
func (c *Client) Events(ctx context.Context, q EventQuery, each func(e Event, line []byte) error) error {
	values := url.Values{}
	set(values, "app", q.App)
	set(values, "type", q.Type)
	if q.Run > 0 {
		values.Set("run", strconv.Itoa(q.Run))
	}
	if q.After > 0 {
		values.Set("after", strconv.FormatUint(q.After, 10))
	}
	if q.Follow {
		values.Set("follow", "1")
	}
	body, err := c.open(ctx, request{method: http.MethodGet, path: []string{"v1", "events"}, query: values})
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxEventLine)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return &Error{What: "reading an event of the gateway's answer", On: c.base, Why: err.Error(), Code: CodeFailed}
		}
		if err := each(e, lines.Bytes()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return c.unreachable(ctx, err)
	}
	return nil
}
