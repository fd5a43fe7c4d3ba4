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

func (r *recounted) Set(_ context.Context, _ settings.Place, value string, _ *uint64) (uint64, error) {
	r.value, r.version = value, r.version+1
	return r.version, nil
}

func (r *recounted) Name() string { return "a store that forgets" }

// A value that is set is set, whatever becomes of the archive; but it is handed to no app before it is archived.
func TestAWriteThatIsNotArchived(t *testing.T) {
	l := ledgertest.Start(t)
	at := settings.Place{Kind: settings.Config, Env: "qa", App: "hello", Key: "GREETING"}
	provider := &recounted{version: 7}
	mayNot := settings.NewArchived(l.Client(string(events.Watch)), provider)
	if version, err := mayNot.Set(t.Context(), at, "hi", nil); err != nil || version != 8 {
		t.Errorf("version %d, %v", version, err)
	}
	if _, _, err := mayNot.Get(t.Context(), at); err == nil || !strings.Contains(err.Error(), "archiving version 8") {
		t.Errorf("what is not archived is handed out: %v", err)
	}
	archived := settings.NewArchived(l.Client(string(events.Promote)), provider)
	if value, _, err := archived.Get(t.Context(), at); err != nil || value != "hi" {
		t.Errorf("%q, %v", value, err)
	}
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
