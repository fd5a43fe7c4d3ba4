package ledger

import (
	"context"
	"errors"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/worker"
)

// rotationsEvery is how often the list of trusted keys is looked at for rotations.
const rotationsEvery = time.Second

// recordRotations writes key.rotated for every rotation that the list of trusted keys tells of, until ctx
// ends. What the ledger has already, from an earlier start or from another process, is written once.
func recordRotations(ctx context.Context, rt *worker.Runtime) {
	ticker := time.NewTicker(rotationsEvery)
	defer ticker.Stop()
	recorded := 0
	for {
		for all := rt.Ledger.Trust().Rotations(); recorded < len(all); recorded++ {
			if err := recordRotation(ctx, rt, all[recorded]); err != nil {
				if ctx.Err() == nil {
					rt.Logger.Error("a rotation of keys is not in the ledger yet", "identity", all[recorded].Identity, "err", err)
				}
				break
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func recordRotation(ctx context.Context, rt *worker.Runtime, r identity.Rotation) error {
	body := &events.KeyRotated{
		About: events.About{ID: r.Identity + "/" + r.Key}, Identity: r.Identity, Key: r.Key, Replaces: r.Replaces,
		BusKey: r.BusKey, ReplacesBus: r.ReplacesBus, Retires: r.Retires, Actor: r.Actor, Reason: r.Reason,
	}
	_, err := rt.Append(ctx, events.KeyRotatedSubject(rt.Ledger.Epoch(), r.Identity, r.Key), events.New(events.Ledger, r.At, "", body))
	var exists *ledger.ExistsError
	if errors.As(err, &exists) {
		return nil
	}
	return err
}
