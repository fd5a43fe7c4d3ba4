package promote

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/audit"
	"towpath.dev/services/promote/deploy"
)

// looksAtOnce bounds how many inventories are taken at a time.
const looksAtOnce = 4

// answerInventories tells whoever may ask what runs on environments' engines, until the function that it returns is
// called. It reads and changes nothing.
func (s *Service) answerInventories(ctx context.Context, deployer *deploy.Deployer) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	places := make(chan struct{}, looksAtOnce)
	var looking sync.WaitGroup
	subscription, err := s.rt.Ledger.Conn().QueueSubscribe(events.InventorySubject, "promote", func(m *nats.Msg) {
		select {
		case places <- struct{}{}:
		default:
			s.reply(m, audit.Inventory{Error: "too many such questions at once; ask again"})
			return
		}
		looking.Go(func() {
			defer func() { <-places }()
			s.reply(m, inventory(ctx, deployer, m.Data))
		})
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("promote: listening for questions about engines: %w", err)
	}
	return func() { subscription.Unsubscribe(); cancel(); looking.Wait() }, nil
}

func inventory(ctx context.Context, deployer *deploy.Deployer, data []byte) audit.Inventory {
	var request audit.InventoryRequest
	if err := json.Unmarshal(data, &request); err != nil {
		return audit.Inventory{Error: "unreadable request: " + err.Error()}
	}
	list, err := deployer.Inventory(ctx, request.Environment)
	if err != nil {
		return audit.Inventory{Error: err.Error()}
	}
	return list
}

func (s *Service) reply(m *nats.Msg, list audit.Inventory) {
	data, err := json.Marshal(list)
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil {
		s.rt.Logger.Warn("a question about an engine was not answered", "err", err)
	}
}
