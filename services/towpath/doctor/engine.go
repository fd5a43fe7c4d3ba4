package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/policy"
	"towpath.dev/services/towpath/client"
)

// engineBound is how long one Engine may take to answer.
const engineBound = 25 * time.Second

// seen is what an Engine said of itself.
type seen struct {
	info engine.Info
	took time.Duration
	away time.Duration // how far its clock is ahead of this machine's
	err  error
}

// engineChecks looks at every Engine that the platform names, and at which are the same.
func engineChecks(ctx context.Context, platform *policy.Platform) []client.Check {
	roles := map[policy.Engine][]string{platform.Engines.Build: {"builds"}}
	for _, env := range slices.Sorted(maps.Keys(platform.Engines.Environments)) {
		e := platform.Engines.Environments[env]
		e.Dedicated = false
		role := string(env)
		if env == policy.DefaultEnvironment {
			role = "environments"
		}
		key := e
		if b := platform.Engines.Build; b.Host == e.Host && b.TLS == e.TLS {
			key = b
		}
		roles[key] = append(roles[key], role)
	}
	answers := ask(ctx, slices.Collect(maps.Keys(roles)))
	var checks []client.Check
	for e, r := range roles {
		checks = append(checks, engineCheck(e, r, answers[e]))
	}
	slices.SortFunc(checks, func(a, b client.Check) int { return strings.Compare(a.Name+a.Detail, b.Name+b.Detail) })
	return append(checks, clocks(answers), sharing(platform, answers))
}

// ask asks all Engines at once.
func ask(ctx context.Context, engines []policy.Engine) map[policy.Engine]seen {
	ctx, cancel := context.WithTimeout(ctx, engineBound)
	defer cancel()
	var mu sync.Mutex
	var asking sync.WaitGroup
	answers := map[policy.Engine]seen{}
	for _, e := range engines {
		asking.Go(func() {
			s := look(ctx, e)
			mu.Lock()
			defer mu.Unlock()
			answers[e] = s
		})
	}
	asking.Wait()
	return answers
}

func look(ctx context.Context, e policy.Engine) seen {
	connected, err := engine.Connect(ctx, engine.Host{
		URL: e.Host, TLS: engine.TLS{CA: e.TLS.CA, Cert: e.TLS.Cert, Key: e.TLS.Key}, Publish: e.Publish, Dedicated: e.Dedicated,
	})
	if err != nil {
		return seen{err: err}
	}
	defer connected.Close()
	began := time.Now()
	info, err := connected.Info(ctx)
	s := seen{info: info, took: time.Since(began), err: err}
	if !info.Time.IsZero() {
		s.away = info.Time.Sub(began.Add(s.took / 2))
	}
	return s
}

func engineCheck(e policy.Engine, roles []string, s seen) client.Check {
	name := "engine (" + strings.Join(roles, ", ") + ")"
	if s.err != nil {
		fix := "start it: systemctl start docker, or deployments/engine.sh, which also installs one"
		var away *engine.UnreachableError
		if !errors.As(s.err, &away) {
			fix = "see engines in platform.yaml"
		}
		return broken(name, fix, "%v", s.err)
	}
	detail := fmt.Sprintf("Docker Engine %s at %s, %d CPUs, %s", s.info.Version, e.Host, s.info.CPUs, size(s.info.Memory))
	if s.info.OS != "linux" {
		return broken(name, "use an Engine that runs Linux containers", "%s, which runs %s containers", detail, s.info.OS)
	}
	if s.info.LocksUp() {
		return warning(name, "use 20.10.27 or newer; systemctl restart docker wakes one that has locked up", "%s: this release can lock up for good when several containers end at once (moby/moby#46661)", detail)
	}
	if s.took > time.Second {
		return warning(name, "see what else it does; deploys wait for it", "%s, which took %s to answer", detail, s.took.Round(100*time.Millisecond))
	}
	return ok(name, "%s", detail)
}

// clockBound is how far clocks may be apart. Nothing is decided by them: events are ordered by sequence.
const clockBound = 5 * time.Second

// clocks says whether this machine and the Engines agree on the time, which people see and
// certificates depend on.
func clocks(answers map[policy.Engine]seen) client.Check {
	const fix = "keep the clocks right: apt-get install chrony"
	if year := time.Now().Year(); year < 2026 {
		return broken("clock", fix, "this machine thinks that it is %d", year)
	}
	var worst time.Duration
	var where string
	for e, s := range answers {
		if s.err == nil && s.away.Abs() > worst {
			worst, where = s.away.Abs(), e.Host
		}
	}
	if worst > clockBound {
		return warning("clock", fix, "the Engine at %s is %s away from this machine", where, worst.Round(100*time.Millisecond))
	}
	return ok("clock", "this machine and its Engines agree within %s", max(worst, time.Millisecond).Round(time.Millisecond))
}

// sharing says whether what is built runs on the machine that production runs on.
func sharing(platform *policy.Platform, answers map[policy.Engine]seen) client.Check {
	build := answers[platform.Engines.Build]
	prod := platform.Engine("prod")
	prod.Dedicated = false
	deployed, known := answers[prod]
	if !known {
		deployed = build // the same Engine, asked once
	}
	if build.err != nil || deployed.err != nil {
		return warning("builds and prod", "bring both Engines up, then look again", "whether they share an Engine is not known while one does not answer")
	}
	if build.info.ID == deployed.info.ID {
		return warning("builds and prod", "give builds an Engine of their own: engines.build in platform.yaml",
			"they share one Engine: a Dockerfile runs its commands next to production. Fine for trying out")
	}
	return ok("builds and prod", "they have Engines of their own")
}
