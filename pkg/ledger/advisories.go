package ledger

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"towpath.dev/events"
)

// AdvisoryDurable is the durable consumer on events.AdvisoryStream that tells watch.
const AdvisoryDurable = "advisories"

// advisoryStream keeps the bus's advisories that a message is no longer delivered, until watch has acted
// on them. Only the server itself writes them: no identity may publish below $JS.EVENT.
func advisoryStream() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        events.AdvisoryStream,
		Description: "messages that reached MaxDeliver, for watch",
		Subjects:    []string{events.AdvisorySubjects},
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardOld,
		MaxAge:      30 * 24 * time.Hour,
		MaxBytes:    16 << 20,
	}
}

// Stopped is the bus's word that it no longer delivers a message to a consumer.
type Stopped struct {
	Stream     string `json:"stream"`
	Consumer   string `json:"consumer"`
	Seq        uint64 `json:"stream_seq"` // of the message
	Deliveries int    `json:"deliveries"`
}

// ReadStopped reads a message of events.AdvisoryStream. The error wraps ErrSetAside.
func ReadStopped(data []byte) (Stopped, error) {
	var s Stopped
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("advisory %w: %w", ErrSetAside, err)
	}
	if s.Stream == "" || s.Consumer == "" || s.Seq == 0 {
		return s, fmt.Errorf("advisory %w: it names no message: %.200q", ErrSetAside, data)
	}
	return s, nil
}
