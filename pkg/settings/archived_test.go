package settings_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/settings"
)

// recounted is a provider that lost its data and gives the versions of before to other values.
type recounted struct {
	settings.Provider
	value   string
	version uint64
}

func (r *recounted) Get(context.Context, settings.Place) (string, uint64, error) {
	return r.value, r.version, nil
}

func (r *recounted) GetAt(context.Context, settings.Place, uint64) (string, error) {
	return "", settings.ErrNotSet
}

func TestVersionsThatAreCountedAnew(t *testing.T) {
	l := ledgertest.Start(t)
	at := settings.Place{Kind: settings.Config, Env: "qa", App: "hello", Key: "GREETING"}
	provider := &recounted{value: "before", version: 7}
	archived := settings.NewArchived(l.Client(string(events.Gateway)), provider)
	for range 2 {
		if _, _, err := archived.Get(t.Context(), at); err != nil {
			t.Fatal(err)
		}
	}
	provider.value = "after"
	for _, process := range []*settings.Archived{archived, settings.NewArchived(l.Client(string(events.Gateway)), provider)} {
		if value, _, err := process.Get(t.Context(), at); err == nil || !strings.Contains(err.Error(), "counted anew") {
			t.Errorf("version 7 is %q now (%v)", value, err)
		}
		if value, err := process.GetAt(t.Context(), at, 7); err != nil || value != "before" {
			t.Errorf("version 7 was %q (%v)", value, err)
		}
	}
	provider.version = 8
	if value, _, err := archived.Get(t.Context(), at); err != nil || value != "after" {
		t.Errorf("version 8 is %q (%v)", value, err)
	}
	if _, err := archived.GetAt(t.Context(), at, 9); !errors.Is(err, settings.ErrNotSet) {
		t.Errorf("a version that never was: %v", err)
	}
}
