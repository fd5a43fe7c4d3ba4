package promote

import (
	"context"
	"encoding/json"

	"towpath.dev/events"
	"towpath.dev/pkg/audit"
	"towpath.dev/services/promote/deploy"
)

// answerInventories tells whoever may ask what runs on environments' engines, until stop is called.
func (s *Service) answerInventories(ctx context.Context, deployer *deploy.Deployer) (stop func(), err error) {
	busy := audit.Inventory{Error: "too many such questions at once; ask again"}
	return s.answer(ctx, events.InventorySubject, busy, func(ctx context.Context, question []byte) any {
		return inventory(ctx, deployer, question)
	})
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
