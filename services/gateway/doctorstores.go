package gateway

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
)

// checkStores says how the Consul and the Vault of each environment are that platform.yaml names one for, as the gateway
// sees them.
func (s *Service) checkStores(ctx context.Context) []check {
	var environments []events.Slug
	for env, stores := range s.rt.Platform.Settings {
		if env != policy.DefaultEnvironment && (stores.Consul != nil || stores.Vault != nil) {
			environments = append(environments, env)
		}
	}
	if others := s.rt.Platform.Settings[policy.DefaultEnvironment]; others.Consul != nil || others.Vault != nil {
		for _, e := range s.environments() {
			if _, named := s.rt.Platform.Settings[events.Slug(e.Name)]; !named {
				environments = append(environments, events.Slug(e.Name))
			}
		}
	}
	slices.Sort(environments)
	checks := make([][]check, len(environments))
	var looking sync.WaitGroup
	for i, env := range environments {
		looking.Go(func() {
			for _, kind := range []settings.Kind{settings.Config, settings.Secrets} {
				if found, external := s.settings.Examine(ctx, env, kind); external {
					checks[i] = append(checks[i], storeCheck(env, kind, found))
				}
			}
		})
	}
	looking.Wait()
	return slices.Concat(checks...)
}

// storeCheck is what an examination comes to.
func storeCheck(env events.Slug, kind settings.Kind, found settings.Examination) check {
	c := check{Name: map[settings.Kind]string{settings.Config: "configuration of ", settings.Secrets: "secrets of "}[kind] + string(env), Status: checkOK}
	says, do := slices.Clone(found.Says), map[string]bool{}
	for _, d := range found.Doubts {
		c.Status, do[d.Do] = checkWarning, true
		says = append(says, d.Why)
	}
	if found.Err != nil {
		c.Status = checkBroken
		var away *settings.UnavailableError
		if errors.As(found.Err, &away) {
			do[away.Do] = true
			says = append(says, away.Store+": "+away.What+": "+away.Why)
		} else {
			says = append(says, found.Err.Error())
		}
	}
	c.Detail = strings.Join(says, "; ")
	if c.Status != checkOK {
		c.Fix = cmp.Or(strings.Join(slices.Sorted(maps.Keys(do)), "; "), "see the gateway's log")
	}
	return c
}
