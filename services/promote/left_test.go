package promote

import (
	"context"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/worker"
)

// shelf is a store with one key of every app.
type shelf struct {
	settings.Provider
	readOnly bool
	item     settings.Item
}

func (s shelf) ReadOnly() bool { return s.readOnly }

func (s shelf) List(context.Context, events.Slug, events.Slug) ([]settings.Item, error) {
	return []settings.Item{s.item}, nil
}

// An environment is gone once its own settings are: what all apps share, or may only be read, is not its own.
func TestSettingsLeft(t *testing.T) {
	l := foldtest.New()
	l.Policy(1, "{}")
	l.Ready(foldtest.Definition("app: hello\nenvironments: [{name: dev}]\n"), "")
	taken := &events.SlotTaken{About: events.About{ID: "hello/dev/1"}, Slot: 1, Run: 1, Attempt: 1, Kind: events.KindDeploy, Environment: "dev"}
	l.Write(events.SlotSubject(1, taken.Type(), "hello", "dev", 1), "", taken)
	store, err := settings.Open(ledgertest.Start(t).Client(string(events.Promote)), make([]byte, settings.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{settings: store, rt: &worker.Runtime{Fold: l.Fold()}}
	for _, kind := range []settings.Kind{settings.Config, settings.Secrets} {
		for _, c := range []struct {
			shelf shelf
			left  bool
		}{
			{shelf{item: settings.Item{Key: "KEY", Version: 1}}, true},
			{shelf{item: settings.Item{Key: "KEY", Version: 1, Shared: true}}, false},
			{shelf{item: settings.Item{Key: "KEY", Version: 1}, readOnly: true}, false},
		} {
			store.Use("dev", kind, c.shelf)
			if left, err := s.settingsLeft(t.Context(), "dev"); err != nil || left != c.left {
				t.Errorf("%s: with %+v left is %t (%v), want %t", kind, c.shelf, left, err, c.left)
			}
		}
	}
}
