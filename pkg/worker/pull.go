package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
)

const (
	// pullExpiry is how long one pull waits at the bus; across accounts it must stay below
	// events.MaxPullExpiry.
	pullExpiry = 25 * time.Second
	// pullHeartbeat is how often the bus shows that a waiting pull is alive; twice that in silence and
	// the slot pulls again.
	pullHeartbeat = 5 * time.Second
	// ackPrefix begins the reply subject of every message that a consumer delivers.
	ackPrefix = "$JS.ACK."
)

// puller delivers the messages of one durable consumer to a number of slots. A slot asks for its next
// message only when it has settled the last, so that no message waits in this process while another
// could take it.
type puller struct {
	conn    *nats.Conn
	api     string // prefix of the JetStream API
	stream  string
	durable string
	slots   int
	// work handles and settles one message; it is called from several goroutines.
	work func(*nats.Msg)
}

// run pulls until ctx ends, and returns when every slot has finished what it had begun.
func (p *puller) run(ctx context.Context) error {
	var all sync.WaitGroup
	failures := make(chan error, p.slots)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for range p.slots {
		all.Go(func() {
			if err := p.slot(ctx); err != nil {
				failures <- fmt.Errorf("consuming %s: %w", p.durable, err)
				stop()
			}
		})
	}
	all.Wait()
	close(failures)
	return <-failures
}

// slot pulls and works on one message at a time.
func (p *puller) slot(ctx context.Context) error {
	inbox := p.conn.NewInbox()
	arrivals := make(chan *nats.Msg, 16)
	sub, err := p.conn.ChanSubscribe(inbox+".*", arrivals)
	if err != nil {
		return err
	}
	defer p.giveBack(sub, arrivals)
	connected := p.conn.StatusChanged(nats.CONNECTED)
	defer p.conn.RemoveStatusListener(connected)
	for n := 1; ctx.Err() == nil; n++ {
		reply := fmt.Sprintf("%s.%d", inbox, n)
		if err := p.ask(reply); errors.Is(err, nats.ErrConnectionClosed) {
			return err
		}
		// An ask that failed otherwise is repeated when the bus is back.
		m, err := p.next(ctx, reply, arrivals, connected)
		if err != nil {
			return err
		}
		switch {
		case m == nil:
		case ctx.Err() != nil:
			p.nak(m)
		default:
			p.work(m)
		}
	}
	return nil
}

// ask sends one pull request for one message.
func (p *puller) ask(reply string) error {
	request, err := json.Marshal(struct {
		Batch     int           `json:"batch"`
		Expires   time.Duration `json:"expires"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
	}{1, pullExpiry, pullHeartbeat})
	if err != nil {
		return err
	}
	return p.conn.PublishRequest(fmt.Sprintf("%s.CONSUMER.MSG.NEXT.%s.%s", p.api, p.stream, p.durable), reply, request)
}

// next returns the message that a pull brings, or nil when it is time to pull again.
func (p *puller) next(ctx context.Context, reply string, arrivals <-chan *nats.Msg, connected <-chan nats.Status) (*nats.Msg, error) {
	silence := time.NewTimer(2 * pullHeartbeat)
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case <-silence.C:
			return nil, nil
		case _, open := <-connected:
			if !open || p.conn.IsClosed() {
				return nil, nats.ErrConnectionClosed
			}
			return nil, nil
		case m := <-arrivals:
			if strings.HasPrefix(m.Reply, ackPrefix) {
				return m, nil
			}
			if m.Subject != reply {
				continue // about an earlier pull
			}
			again, err := control(m)
			if err != nil {
				return nil, err
			}
			if again {
				return nil, nil
			}
			silence.Reset(2 * pullHeartbeat)
		}
	}
}

// control reads the bus's word on a pull: whether it has ended. An error means that no pull will ever
// succeed.
func control(m *nats.Msg) (again bool, err error) {
	switch status := m.Header.Get("Status"); status {
	case "100": // heartbeat
		return false, nil
	case "409":
		if why := m.Header.Get("Description"); strings.Contains(why, "Consumer Deleted") {
			return false, fmt.Errorf("the bus says: %s; provision the bus again", why)
		}
	}
	return true, nil // 404, 408, 409: nothing came in time, or the leader changed
}

// giveBack ends a slot: what was delivered but not begun goes back at once. Draining keeps the
// subscription until the bus has seen that nobody listens any more, so that nothing is lost in between.
func (p *puller) giveBack(sub *nats.Subscription, arrivals <-chan *nats.Msg) {
	if sub.Drain() != nil || p.conn.FlushTimeout(time.Second) != nil {
		return // the bus is away: it delivers again after its ack wait
	}
	for {
		select {
		case m := <-arrivals:
			p.nak(m)
		default:
			return
		}
	}
}

func (p *puller) nak(m *nats.Msg) {
	if m != nil && strings.HasPrefix(m.Reply, ackPrefix) {
		_ = p.conn.Publish(m.Reply, []byte("-NAK"))
	}
}

// maxSlots keeps a consumer's slots far below what the bus lets be pending.
const maxSlots = events.MaxInHand
