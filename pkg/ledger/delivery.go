package ledger

import (
	"fmt"

	"github.com/nats-io/nats.go"
)

// Delivery is a message that a durable consumer delivered: which stored event, and for which time.
type Delivery struct {
	Record
	Delivered int   // 1 for the first delivery
	Aside     Aside // with ErrSetAside: what it is, and why
}

// Delivered verifies and decodes a message of a durable consumer on the events stream. The error wraps
// ErrSetAside for one that is no event this build can trust and read, and then Seq, Delivered and Aside
// are set all the same.
func (c *Client) Delivered(m *nats.Msg) (Delivery, error) {
	meta, err := m.Metadata()
	if err != nil {
		return Delivery{}, fmt.Errorf("message on %.200q %w: no delivery of a consumer: %w", m.Subject, ErrSetAside, err)
	}
	s := stored{
		seq: meta.Sequence.Stream, time: meta.Timestamp, stream: meta.Stream,
		subject: m.Subject, header: m.Header, body: m.Data,
	}
	r, err := c.record(s)
	r.Seq = s.seq
	d := Delivery{Record: r, Delivered: int(meta.NumDelivered)}
	if err != nil {
		d.Aside = asideOf(s, err)
	}
	return d, err
}
