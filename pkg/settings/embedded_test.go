package settings_test

import (
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/settings/settingstest"
)

func TestEmbeddedIsAProvider(t *testing.T) {
	for _, kind := range []settings.Kind{settings.Config, settings.Secrets} {
		t.Run(string(kind), func(t *testing.T) {
			l := ledgertest.Start(t)
			key, err := identity.LoadSettingsKey(l.Keys)
			if err != nil {
				t.Fatal(err)
			}
			var providers [2]settings.Provider
			for i := range providers {
				if providers[i], err = settings.NewEmbedded(l.Client(string(events.Gateway)), kind, key); err != nil {
					t.Fatal(err)
				}
			}
			settingstest.Run(t, kind, providers[0], providers[1])
		})
	}
}
