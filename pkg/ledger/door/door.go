// Package door is the only writer of the ledger: it takes the services' requests to append an event,
// checks each one as if it came from an enemy, and stores what passes under the subject that was
// signed.
//
// It guarantees that what is in the stream was signed by the writer that its subject names, that its
// headers are made from its body and nothing else, and that no subject is written twice. It keeps no
// state: any number of doors may serve one bus.
package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/worker/boundary"
)

// Door answers append requests.
type Door struct {
	// Conn is a connection in the account that owns the bus, with the right to publish events.
	Conn *nats.Conn
	// Trust are the keys that are accepted.
	Trust *identity.Trust
	// Epoch is the one that is open, 1 and up.
	Epoch int
	// Logger receives one line for each refusal.
	Logger *slog.Logger
}

const (
	// inFlight is how many events may wait for the disk at once.
	inFlight = 256
	// storeTimeout bounds one write.
	storeTimeout = 1500 * time.Millisecond
	// queueGroup shares the requests among doors.
	queueGroup = "door"
)

// Serve answers requests until ctx ends, then finishes those that it has begun. ready, where not nil,
// is called once requests will be answered.
func (d *Door) Serve(ctx context.Context, ready func()) error {
	requests := make(chan *nats.Msg, inFlight)
	sub, err := d.Conn.ChanQueueSubscribe("append.>", queueGroup, requests)
	if err != nil {
		return fmt.Errorf("opening the ledger's door: %w", err)
	}
	puts, err := d.Conn.ChanQueueSubscribe("put.>", queueGroup, requests)
	if err != nil {
		return fmt.Errorf("opening the ledger's door: %w", err)
	}
	if err := d.Conn.FlushTimeout(storeTimeout); err != nil {
		return fmt.Errorf("opening the ledger's door: %w", err)
	}
	if ready != nil {
		ready()
	}
	var writers sync.WaitGroup
	slots := make(chan struct{}, inFlight)
	serve := func(m *nats.Msg) {
		slots <- struct{}{}
		writers.Go(func() {
			d.answer(context.WithoutCancel(ctx), m)
			<-slots
		})
	}
	for open := true; open; {
		select {
		case m := <-requests:
			serve(m)
		case <-ctx.Done():
			open = false
		}
	}
	// Draining keeps the subscription until the bus sends nothing more, so that no request is lost.
	if err = errors.Join(sub.Drain(), puts.Drain()); err == nil {
		err = d.Conn.FlushTimeout(storeTimeout)
	}
	if err != nil {
		d.Logger.Warn("the bus is away while the ledger's door closes; what was asked is asked again", "err", err)
	}
	for left := true; left; {
		select {
		case m := <-requests:
			serve(m)
		default:
			left = false
		}
	}
	writers.Wait()
	return nil
}

func (d *Door) answer(ctx context.Context, m *nats.Msg) {
	if strings.HasPrefix(m.Subject, "put.") {
		d.put(ctx, m)
		return
	}
	boundary.Reached(events.Ledger, boundary.Received, "")
	defer boundary.Reached(events.Ledger, boundary.Ack, "")
	a := d.decide(ctx, m)
	if a.Refused != "" {
		d.Logger.Warn("append refused", "subject", fmt.Sprintf("%.200s", m.Subject), "why", a.Refused)
	}
	if m.Reply == "" {
		return
	}
	reply, err := json.Marshal(a)
	if err == nil {
		err = m.Respond(reply)
	}
	if err != nil {
		d.Logger.Warn("append not answered", "subject", m.Subject, "err", err)
	}
}

func (d *Door) decide(ctx context.Context, m *nats.Msg) ledger.Answer {
	ok, err := check(d.Trust, d.Epoch, m, time.Now())
	if err != nil {
		return ledger.Answer{Refused: err.Error(), Key: errors.Is(err, identity.ErrKey)}
	}
	boundary.Reached(events.Ledger, boundary.Decided, "")
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	reply, err := d.Conn.RequestMsgWithContext(ctx, ok.message())
	if err != nil {
		return ledger.Answer{Unknown: fmt.Sprintf("the bus did not acknowledge: %v", err)}
	}
	boundary.Reached(events.Ledger, boundary.Event, "")
	return readAck(reply.Data)
}

// pubAck is JetStream's answer to a publish.
type pubAck struct {
	Stream string `json:"stream"`
	Seq    uint64 `json:"seq"`
	Error  *struct {
		Code        int    `json:"code"`
		ErrCode     int    `json:"err_code"`
		Description string `json:"description"`
	} `json:"error"`
}

// JetStream's codes for "this subject has a message": wrong last sequence, its replicated form, and
// the limit of one message for each subject.
const (
	errWrongLast         = 10071
	errMaxPerSubject     = 10077
	errWrongLastConstant = 10164
)

func readAck(data []byte) ledger.Answer {
	var ack pubAck
	if err := json.Unmarshal(data, &ack); err != nil {
		return ledger.Answer{Unknown: fmt.Sprintf("the bus's acknowledgement is unreadable: %v", err)}
	}
	if ack.Error == nil && ack.Seq > 0 {
		return ledger.Answer{Seq: ack.Seq}
	}
	if ack.Error == nil {
		return ledger.Answer{Unknown: "the bus acknowledged no sequence"}
	}
	switch ack.Error.ErrCode {
	case errWrongLast, errMaxPerSubject, errWrongLastConstant:
		return ledger.Answer{Exists: true}
	}
	return ledger.Answer{Unknown: fmt.Sprintf("the bus did not store it: %s (%d)", ack.Error.Description, ack.Error.ErrCode)}
}
