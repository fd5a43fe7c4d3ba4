package deploy

import (
	"context"
	"errors"
	"io/fs"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/settings/consul/consultest"
)

// granted is what slots hold, and who it was taken away from.
type granted struct{ revoked []events.Slug }

func (g *granted) Grant(context.Context, settings.Holder) (settings.Grant, error) {
	return settings.Grant{}, nil
}

func (g *granted) Revoke(_ context.Context, _ string, _, app events.Slug, keep func(int) bool) error {
	if !keep(1) {
		g.revoked = append(g.revoked, app)
	}
	return nil
}

// While Consul does not answer, what it knows of an environment is not forgotten; then nothing is left, whatever a process
// that died had done already.
func TestRazeLeavesNothing(t *testing.T) {
	t.Parallel()
	agent := consultest.Start(t)
	b := start(t)
	b.withConsul(agent)
	g := &granted{}
	b.deps.Access = func(events.Slug) []settings.Access { return []settings.Access{g} }
	ctx := t.Context()
	s := b.spec(1, serving())
	s.Secrets = map[string]settings.Secret{"PASSWORD": settings.NewSecret("correct-horse")}
	instances := b.prepare(s)
	if err := b.Switch(ctx, s, instances); err != nil {
		t.Fatal(err)
	}
	awaitRegistered(t, agent, false, instances[0].ID)

	agent.Kill()
	err := b.Raze(ctx, "dev", []events.Slug{"hello"})
	var away *settings.UnavailableError
	if !errors.As(err, &away) {
		t.Fatalf("without Consul: %v", err)
	}
	agent.Start()
	agent.AwaitLeader()
	if err := b.deps.Table.Clear(ctx, hello); err != nil { // a process died after it
		t.Fatal(err)
	}
	g.revoked = nil
	for range 2 {
		if err := b.Raze(ctx, "dev", []events.Slug{"hello", "never-there"}); err != nil {
			t.Fatal(err)
		}
		awaitRegistered(t, agent, false)
		networks, err := b.engine.Networks(ctx, b.envLabels("dev"))
		if ids := b.ids(hello); len(ids) > 0 || len(networks) > 0 || err != nil {
			t.Errorf("containers %v and networks %v are left (%v)", ids, networks, err)
		}
		if _, err := b.deps.Table.Get(ctx, discovery.Place{Env: "dev", App: "hello"}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the table has it: %v", err)
		}
	}
	if len(g.revoked) != 4 {
		t.Errorf("taken away from %v", g.revoked)
	}
}
