package promote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"towpath.dev/events"
	"towpath.dev/pkg/settings"
)

// answerRedactions takes secrets out of what apps printed that find them themselves, for verify, which may not read
// them, until stop is called.
func (s *Service) answerRedactions(ctx context.Context) (stop func(), err error) {
	busy := settings.RedactReply{Error: "promote redacts too much at once; ask again"}
	return s.answer(ctx, events.RedactSubject, busy, func(ctx context.Context, question []byte) any {
		text, err := s.redact(ctx, question)
		if err != nil {
			return settings.RedactReply{Error: err.Error()}
		}
		return settings.RedactReply{Text: text}
	})
}

func (s *Service) redact(ctx context.Context, question []byte) ([]byte, error) {
	var r settings.RedactRequest
	if err := json.Unmarshal(question, &r); err != nil {
		return nil, fmt.Errorf("unreadable request: %w", err)
	}
	a := s.rt.Fold.App(r.App)
	if a == nil || a.Env(r.Env).Slot(r.Slot) == nil {
		return nil, fmt.Errorf("promote knows no slot %d of %s in %s yet", r.Slot, r.App, r.Env)
	}
	var hidden []settings.Secret
	pins := a.Env(r.Env).Slot(r.Slot).Pins
	for key, version := range pins.Secrets {
		pinned, err := s.settings.GetSecretAt(ctx, r.Env, r.App, key, pins.SecretStore, version)
		if err == nil {
			hidden = append(hidden, pinned)
		}
		present, _, errPresent := s.settings.GetSecret(ctx, r.Env, r.App, key)
		if errPresent == nil {
			hidden = append(hidden, present)
		}
		for _, err := range []error{err, errPresent} {
			if err != nil && !errors.Is(err, settings.ErrNotSet) {
				return nil, err
			}
		}
	}
	return []byte(settings.Redact(string(r.Text), hidden...)), nil
}
