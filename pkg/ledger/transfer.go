package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
)

// StreamCopy is what a stream is, beside the bytes of what it holds: the server's own words, so that it comes back as it
// was, sequences and times included.
type StreamCopy struct {
	Name   string          `json:"name"`
	Config json.RawMessage `json:"config"`
	State  json.RawMessage `json:"state"` // when the copy began; what came in meanwhile may be in it as well
}

// Streams are the names of the streams that hold what cannot be had again: the ledger, the buckets, and the output of
// stages. Timers are derived from the ledger.
func (c *Client) Streams() []string {
	names := []string{events.StreamName(c.epoch)}
	for _, b := range bucketStreams() {
		names = append(names, b.Name)
	}
	return append(names, events.LogStream)
}

// apiError is how the JetStream API says no.
type apiError struct {
	Code        int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return fmt.Sprintf("%s (%d)", e.Description, e.Code) }

// Bounds of a stream's copy.
const (
	transferChunk   = 128 << 10
	transferWindow  = 64               // pieces under way
	transferSilence = 30 * time.Second // between two pieces, and for each answer
)

// SaveStream writes a copy of a stream to w while others go on writing to it. Consumers are left out: what they had
// acknowledged may be later than what the copy holds, and then they would pass over events after it came back; made anew,
// they see everything again, which changes nothing. It needs the operator's identity.
func (c *Client) SaveStream(ctx context.Context, name string, w io.Writer) (StreamCopy, error) {
	saved := StreamCopy{Name: name}
	fail := func(err error) (StreamCopy, error) { return saved, fmt.Errorf("copying stream %s: %w", name, err) }
	inbox := c.conn.NewInbox()
	sub, err := c.conn.SubscribeSync(inbox)
	if err != nil {
		return fail(err)
	}
	defer sub.Unsubscribe()
	var answer struct {
		Error  *apiError       `json:"error"`
		Config json.RawMessage `json:"config"`
		State  json.RawMessage `json:"state"`
	}
	question := map[string]any{"deliver_subject": inbox, "no_consumers": true, "chunk_size": transferChunk, "window_size": transferWindow * transferChunk, "jsck": true}
	if err := c.ask(ctx, ".STREAM.SNAPSHOT."+name, question, &answer); err != nil {
		return fail(err)
	}
	if answer.Error != nil {
		return fail(answer.Error)
	}
	saved.Config, saved.State = answer.Config, answer.State
	for {
		m, err := nextWithin(ctx, sub, transferSilence)
		if err != nil {
			return fail(err)
		}
		if len(m.Data) == 0 {
			if status := lastValue(m.Header, headerStatus); status != "" && status != "204" {
				return fail(fmt.Errorf("the bus says %s %s", status, lastValue(m.Header, headerStatusMsg)))
			}
			return saved, nil
		}
		if _, err := w.Write(m.Data); err != nil {
			return fail(err)
		}
		if m.Reply == "" {
			continue
		}
		if err := c.conn.Publish(m.Reply, nil); err != nil {
			return fail(err)
		}
	}
}

// LoadStream makes a stream out of a copy; it must not be there yet. It needs the operator's identity.
func (c *Client) LoadStream(ctx context.Context, saved StreamCopy, r io.Reader) error {
	fail := func(err error) error { return fmt.Errorf("bringing stream %s back: %w", saved.Name, err) }
	var answer struct {
		Error   *apiError `json:"error"`
		Deliver string    `json:"deliver_subject"`
	}
	question := map[string]any{"config": saved.Config, "state": saved.State}
	if err := c.ask(ctx, ".STREAM.RESTORE."+saved.Name, question, &answer); err != nil {
		return fail(err)
	}
	if answer.Error != nil {
		return fail(answer.Error)
	}
	chunk := make([]byte, transferChunk)
	for {
		n, readErr := io.ReadFull(r, chunk)
		if readErr != nil && readErr != io.EOF && readErr != io.ErrUnexpectedEOF {
			return fail(readErr)
		}
		// An empty piece is the end; its answer says whether the stream stands.
		reply, err := c.within(ctx, transferSilence, answer.Deliver, chunk[:n])
		if err != nil {
			return fail(err)
		}
		var result struct {
			Error *apiError `json:"error"`
		}
		if len(reply.Data) > 0 {
			if err := json.Unmarshal(reply.Data, &result); err != nil {
				return fail(err)
			}
		}
		if result.Error != nil {
			return fail(result.Error)
		}
		if n == 0 {
			return nil
		}
	}
}

// ask sends a request to the JetStream API and reads its answer.
func (c *Client) ask(ctx context.Context, subject string, question, answer any) error {
	data, err := json.Marshal(question)
	if err != nil {
		return err
	}
	reply, err := c.within(ctx, transferSilence, c.prefix+subject, data)
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: the bus gave no answer; does it run with JetStream, and was its configuration written by this version (towpath bus config)?", err)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(reply.Data, answer)
}

func (c *Client) within(ctx context.Context, d time.Duration, subject string, data []byte) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return c.conn.RequestWithContext(ctx, subject, data)
}

func nextWithin(ctx context.Context, sub *nats.Subscription, d time.Duration) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return sub.NextMsgWithContext(ctx)
}
