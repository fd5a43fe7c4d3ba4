package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/pkg/pause"
)

const (
	// publishTimeout bounds one write to a stream other than the ledger.
	publishTimeout = 5 * time.Second
	// publishPause is the pause before a write is tried again that nobody was there to take.
	publishPause = 50 * time.Millisecond
)

// storeError is JetStream's refusal to store a message.
type storeError struct {
	Code        int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *storeError) Error() string {
	return fmt.Sprintf("the bus refused: %s (%d)", e.Description, e.Code)
}

// publish stores a message and returns its sequence. *storeError says that it was not stored; any other
// error leaves that unknown.
func (c *Client) publish(ctx context.Context, m *nats.Msg) (seq uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	reply, err := c.conn.RequestMsgWithContext(ctx, m)
	for errors.Is(err, nats.ErrNoResponders) { // nobody has it: no door is open, or the stream has no leader
		if stop := pause.For(ctx, publishPause); stop != nil {
			break
		}
		reply, err = c.conn.RequestMsgWithContext(ctx, m)
	}
	if err != nil {
		return 0, err
	}
	var ack struct {
		Seq   uint64      `json:"seq"`
		Error *storeError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &ack); err != nil {
		return 0, fmt.Errorf("unreadable acknowledgement: %w", err)
	}
	if ack.Error != nil {
		return 0, ack.Error
	}
	return ack.Seq, nil
}
