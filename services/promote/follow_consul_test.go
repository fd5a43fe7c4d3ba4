package promote_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings/consul/consultest"
	"towpath.dev/services/promote"
)

// looked keeps what was in Consul when it was last looked whether something was changed.
type looked struct {
	*fakeEngine
	agent *consultest.Agent
	found atomic.Value
}

func (l *looked) Look(ctx context.Context, v promote.Version, env *fold.Env, tidy bool) ([]promote.Finding, error) {
	if pair, _, err := l.agent.API.KV().Get("config/dev/hello/KEY", nil); err == nil && pair != nil {
		l.found.Store(string(pair.Value))
	}
	return l.fakeEngine.Look(ctx, v, env, tidy)
}

// What somebody sets in Consul lets a stage that waits for it go on, and what somebody changes there is looked at, long
// before the next look around; also where Consul was away meanwhile.
func TestWhatChangesInConsulIsSeen(t *testing.T) {
	agent := consultest.Start(t)
	s := newStage(t)
	platform := policy.Default()
	platform.Settings = map[events.Slug]policy.Stores{"dev": {Consul: &policy.Consul{Address: agent.URL, Path: "config/{env}/{app}/{key}"}}}
	engine := &looked{fakeEngine: s.engine, agent: agent}
	s.platform = platform
	s.startWith(promote.Config{LookEvery: time.Hour}, promote.Deps{Effects: engine})
	s.ready(hello, 1)
	s.until("1 waits for its key", func(a *fold.App) bool { return a.Run(1) != nil && a.Run(1).Env("dev").Waiting != nil })
	agent.Put("config/dev/hello/KEY", "a")
	s.until("1 is verified in dev", func(a *fold.App) bool { return a.Run(1).Env("dev").Verified })

	look := func(what, value string) {
		t.Helper()
		agent.Put("config/dev/hello/KEY", value)
		for bound := time.After(60 * time.Second); engine.found.Load() != value; {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-bound:
				t.Fatalf("%s: nobody looked", what)
			}
		}
	}
	look("a key was changed", "b")
	agent.Kill()
	agent.Start()
	agent.AwaitLeader()
	look("a key was changed after Consul had been away", "c")
}
