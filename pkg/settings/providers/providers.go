// Package providers makes the store of settings that a platform file asks for: for each environment that it names,
// and for all others, Consul and Vault where it says so, and the embedded store else.
package providers

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/settings/consul"
	"towpath.dev/pkg/settings/vault"
)

// Options are what a store is made of.
type Options struct {
	Client   *ledger.Client
	Key      []byte // of the embedded store, settings.KeySize bytes
	Platform *policy.Platform
	Service  events.Writer // who asks: files of tokens may be its own
	Logger   *slog.Logger
}

// Open returns the store, and what keeps its logins alive from when it is called until leave is: as long as the store is
// used. Open does no IO; whether the stores answer is found out by who asks them.
func Open(o Options) (store *settings.Store, keep func() (leave func()), err error) {
	if store, err = settings.Open(o.Client, o.Key); err != nil {
		return nil, nil, err
	}
	var vaults []*vault.Provider
	for env, s := range o.Platform.Settings {
		store.Use(env, settings.Config, nil)
		store.Use(env, settings.Secrets, nil)
		if s.Consul != nil {
			p, err := consul.New(*s.Consul, env, string(o.Service))
			if err != nil {
				return nil, nil, fmt.Errorf("settings of %s: %w", env, err)
			}
			store.Use(env, settings.Config, settings.NewArchived(o.Client, p))
			store.UseAccess(env, settings.Config, p)
		}
		if s.Vault != nil {
			p, err := vault.New(*s.Vault, env, string(o.Service), o.Logger)
			if err != nil {
				return nil, nil, fmt.Errorf("settings of %s: %w", env, err)
			}
			store.Use(env, settings.Secrets, p)
			if o.Service == events.Promote { // which alone may see what was issued
				store.UseAccess(env, settings.Secrets, vault.NewAccess(p, o.Client.Bucket(events.BucketIssued)))
			}
			vaults = append(vaults, p)
		}
	}
	return store, func() (leave func()) {
		ctx, stop := context.WithCancel(context.Background())
		var running sync.WaitGroup
		for _, v := range vaults {
			running.Go(func() { v.Run(ctx) })
		}
		return func() {
			stop()
			running.Wait()
		}
	}, nil
}
