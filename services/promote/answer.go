package promote

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
)

// answersAtOnce bounds how many questions about one thing are answered at a time.
const answersAtOnce = 4

// answer answers what others ask of promote on a subject, until the function that it returns is called. busy is the answer
// where there are too many questions at once. It changes nothing.
func (s *Service) answer(ctx context.Context, subject string, busy any, reply func(ctx context.Context, question []byte) any) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	places := make(chan struct{}, answersAtOnce)
	var answering sync.WaitGroup
	subscription, err := s.rt.Ledger.Conn().QueueSubscribe(subject, string(events.Promote), func(m *nats.Msg) {
		select {
		case places <- struct{}{}:
		default:
			s.respond(m, busy)
			return
		}
		answering.Go(func() {
			defer func() { <-places }()
			s.respond(m, reply(ctx, m.Data))
		})
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("promote: listening for questions on %s: %w", subject, err)
	}
	return func() { subscription.Unsubscribe(); cancel(); answering.Wait() }, nil
}

func (s *Service) respond(m *nats.Msg, answer any) {
	data, err := json.Marshal(answer)
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil {
		s.rt.Logger.Warn("a question was not answered", "subject", m.Subject, "err", err)
	}
}
