package promote

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pause"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
)

// What somebody changes in Consul or Vault themselves is in no event. Places whose settings are there are followed, so
// that a stage which waits for a key goes on at once, and a change behind our back is seen within seconds. It is a
// shortcut: what is not followed, or is missed, the next look around sees.

// followed is an app's settings of one kind in one environment.
type followed struct {
	at    Place
	kind  settings.Kind
	waits bool // a run does not go on there
}

// Bounds of following.
const (
	// mostConfig is how many places are followed in Consul: each is a connection that is held, or two with a shared level,
	// and a Consul takes 200 from one address. mostSecrets is how many are in Vault, which can only be asked again and again.
	mostConfig  = 32
	mostSecrets = 16
	followPause = time.Second // between two looks at what is to be followed, and after a change of one place
	awayPause   = 30 * time.Second
)

// follow returns what is to be followed: places where something runs, or waits to, that declare settings which an external
// store keeps; first those that wait.
func follow(apps []*fold.App, external func(events.Slug, settings.Kind) bool) []followed {
	var all []followed
	for _, a := range apps {
		for _, name := range Environments(a) {
			env := a.Env(name)
			if env.Gone || env.Ending != 0 {
				continue
			}
			var needs []pipeline.Definition
			if live := env.Live(); live != nil && live.Kind != events.KindRemove && a.Run(live.Run) != nil {
				needs = append(needs, a.Run(live.Run).Definition)
			}
			waits := false
			for _, n := range a.Unsettled {
				if e := a.Run(n).Env(name); e != nil && e.Waiting != nil {
					waits, needs = true, append(needs, a.Run(n).Definition)
				}
			}
			for kind, declared := range map[settings.Kind]func(pipeline.Definition) bool{
				settings.Config:  func(d pipeline.Definition) bool { return len(d.Config) > 0 },
				settings.Secrets: func(d pipeline.Definition) bool { return len(d.Secrets) > 0 },
			} {
				if slices.ContainsFunc(needs, declared) && external(name, kind) {
					all = append(all, followed{Place{a.Name, name}, kind, waits})
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b followed) int {
		switch {
		case a.waits && !b.waits:
			return -1
		case b.waits && !a.waits:
			return 1
		}
		return cmp.Or(cmp.Compare(a.at.App, b.at.App), cmp.Compare(a.at.Env, b.at.Env), cmp.Compare(a.kind, b.kind))
	})
	left := map[settings.Kind]int{settings.Config: mostConfig, settings.Secrets: mostSecrets}
	return slices.DeleteFunc(all, func(f followed) bool {
		left[f.kind]--
		return left[f.kind] < 0
	})
}

// followStores follows what is to be followed until ctx ends.
func (s *Service) followStores(ctx context.Context) {
	if !slices.ContainsFunc(slices.Collect(maps.Values(s.rt.Platform.Settings)), func(of policy.Stores) bool { return of.Consul != nil || of.Vault != nil }) {
		return // the embedded store is changed through the gateway, which says so
	}
	var work sync.WaitGroup
	defer work.Wait()
	running := map[followed]context.CancelFunc{}
	defer func() {
		for _, stop := range running {
			stop()
		}
	}()
	for {
		seq := s.rt.Fold.Seq()
		wanted := follow(s.rt.Fold.Apps(), s.settings.External)
		for f, stop := range running {
			if !slices.Contains(wanted, f) {
				stop()
				delete(running, f)
			}
		}
		for _, f := range wanted {
			if running[f] != nil {
				continue
			}
			following, stop := context.WithCancel(ctx)
			running[f] = stop
			work.Go(func() { s.followOne(following, f) })
		}
		if s.rt.Fold.Wait(ctx, seq+1) != nil || pause.For(ctx, followPause) != nil {
			return
		}
	}
}

// followOne looks at a place whenever its settings have changed, until ctx ends. A store that does not answer is asked
// again after a pause that grows.
func (s *Service) followOne(ctx context.Context, f followed) {
	var mark uint64
	for wait := followPause; ctx.Err() == nil; {
		next, err := s.settings.Watch(ctx, f.kind, f.at.Env, f.at.App, mark)
		if err != nil {
			if pause.For(ctx, wait) != nil {
				return
			}
			wait = min(2*wait, awayPause)
			continue
		}
		wait = followPause
		if next == mark {
			continue
		}
		// Also at first: what was changed before it was followed has no other witness.
		mark = next
		s.see(ctx, f.at)
		if pause.For(ctx, followPause) != nil {
			return
		}
	}
}

// see does what there is to do at a place whose settings have changed. What may only be about to be said in the ledger is
// looked at twice.
func (s *Service) see(ctx context.Context, at Place) {
	if err := s.settle(ctx, at.App); err != nil && ctx.Err() == nil {
		s.rt.Logger.Warn("settings have changed in their store: not all could be done, to be tried again", "app", at.App, "env", at.Env, "err", err)
	}
	for range 2 {
		if err := s.promoter.heal(ctx, at); err != nil && ctx.Err() == nil {
			s.rt.Logger.Warn("looking after replicas, to be tried again", "app", at.App, "env", at.Env, "err", err)
		}
		if !s.promoter.turns.unsure() || pause.For(ctx, fresh) != nil {
			return
		}
	}
}
