package ledger

import (
	"context"
	"errors"
	"fmt"

	"towpath.dev/events"
)

// ReadApp hands every record of one app that is stored now to apply, in order; with an empty app, those that
// belong to no app. Unreadable messages are logged and passed over. It reads nothing of other apps, so that
// its cost is that of the app's own past.
func (c *Client) ReadApp(ctx context.Context, app events.Slug, apply func(Record) error) error {
	token := string(app)
	if token == "" {
		token = "_"
	}
	stream := events.StreamName(c.epoch)
	filter := fmt.Sprintf("event.%d.*.%s.>", c.epoch, token)
	var after uint64
	take := func(s stored) error {
		after = s.seq
		r, err := c.record(s)
		if errors.Is(err, ErrSetAside) {
			c.logger.Error("event passed over", "service", c.service, "seq", s.seq, "err", err)
			return nil
		}
		if err == nil {
			err = apply(r)
		}
		return err
	}
	for more := true; more; {
		var err error
		if more, err = c.batch(ctx, stream, directGet{Seq: after + 1, Next: filter}, take); err != nil {
			return err
		}
	}
	return nil
}
