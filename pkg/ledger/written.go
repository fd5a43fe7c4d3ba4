package ledger

import (
	"context"
	"errors"

	"towpath.dev/events"
)

// Written returns the event under a subject, and whether there is one. On a replicated bus "none" may mean
// that the server which answered does not have it yet: it is a hint, and Append the proof.
func (c *Client) Written(ctx context.Context, s events.Subject) (Record, bool, error) {
	stored, err := c.get(ctx, events.StreamName(s.Epoch), directGet{Last: s.String()})
	if errors.Is(err, errNotFound) {
		return Record{}, false, nil
	}
	if err != nil {
		return Record{}, false, err
	}
	r, err := c.record(stored)
	return r, err == nil, err
}
