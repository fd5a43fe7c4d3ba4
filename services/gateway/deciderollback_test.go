package gateway

import (
	"slices"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
)

// A rollback over a move to other stores says so, and takes no version of one for the same of another.
func TestRollbackOverAMove(t *testing.T) {
	pins := func(config, secrets string) events.Pins {
		return events.Pins{Config: map[string]uint64{"KEY": 4}, ConfigStore: config, Secrets: map[string]uint64{"WORD": 3}, SecretStore: secrets}
	}
	live, origin := &fold.Slot{N: 2}, &fold.Slot{N: 1}
	live.Run, live.Pins = 2, pins("Consul (x)", "Vault (x)")
	origin.Run, origin.Pins = 1, pins(events.StoreEmbedded, events.StoreEmbedded)
	s := scope{then: &then{
		values:  map[pinned]string{{"KEY", "Consul (x)", 4}: "now", {"KEY", events.StoreEmbedded, 4}: "before"},
		secrets: map[string]uint64{"WORD": 3}, store: "Vault (x)",
	}}
	p := s.foreseeRollback(order{}, live, origin, origin)
	if len(p.Settings) != 1 || p.Settings[0].Key != "KEY" || p.Settings[0].From != "Consul (x)" || *p.Settings[0].WasValue != "now" || *p.Settings[0].IsValue != "before" {
		t.Errorf("what changes: %+v", p.Settings)
	}
	if want := []string{"secret WORD as it is now, version 3 (moved from embedded to Vault (x))"}; !slices.Equal(p.Kept, want) {
		t.Errorf("what stays: %q, want %q", p.Kept, want)
	}
	p = s.foreseeRollback(order{WithSecrets: true}, live, origin, origin)
	if len(p.Settings) != 2 || p.Settings[1].Key != "WORD" || p.Settings[1].From != "Vault (x)" || len(p.Kept) != 0 {
		t.Errorf("with secrets: %+v, %q", p.Settings, p.Kept)
	}
	live.Pins = origin.Pins
	s.then.store = events.StoreEmbedded
	if p = s.foreseeRollback(order{}, live, origin, origin); len(p.Settings) != 0 || len(p.Kept) != 0 {
		t.Errorf("nothing was moved: %+v, %q", p.Settings, p.Kept)
	}
}
