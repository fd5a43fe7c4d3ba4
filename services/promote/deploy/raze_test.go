package deploy

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/engine"
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
	err := b.Raze(ctx, "dev", map[events.Slug]int{"hello": 2})
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
		if err := b.Raze(ctx, "dev", map[events.Slug]int{"hello": 2, "never-there": 0}); err != nil {
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
	if len(g.revoked) != 2 {
		t.Errorf("taken away from %v", g.revoked)
	}
}

// Who comes late to take an environment away that was made again meanwhile leaves the new one alone.
func TestRazeLeavesWhatCameLater(t *testing.T) {
	t.Parallel()
	b := start(t)
	ctx := t.Context()
	old, s := b.spec(1, serving()), b.spec(3, serving("-text", "made again"))
	b.prepare(old)
	s.Secrets = map[string]settings.Secret{"PASSWORD": settings.NewSecret("correct-horse")}
	instances := b.prepare(s)
	if err := b.Switch(ctx, s, instances); err != nil {
		t.Fatal(err)
	}
	if left, err := b.Left(ctx, []events.Slug{"other", "dev"}); err != nil || !slices.Equal(left, []events.Slug{"dev"}) {
		t.Errorf("something is left of %v, %v", left, err)
	}
	if err := b.Raze(ctx, "dev", map[events.Slug]int{"hello": 2}); err != nil {
		t.Fatal(err)
	}
	if entry, err := b.deps.Table.Get(ctx, hello); err != nil || entry.Slot != 3 {
		t.Errorf("the table says %+v, %v", entry, err)
	}
	ids := b.ids(hello)
	delete(ids, b.secretsVolume(hello, 3)) // which keeps them, where the engine does not see this machine's memory
	if len(ids) != 1 || ids[instances[0].ID] == "" {
		t.Errorf("there are %v, want %s alone", ids, instances[0].ID)
	}
	if answer := b.get(instances[0].Address, "/"); !strings.HasPrefix(answer, "made again") {
		t.Errorf("it answers %q", answer)
	}
	result, err := b.engine.Exec(ctx, instances[0].ID, []string{"/testapp", "print", "fine"}, engine.Bounds{Timeout: 10 * time.Second, Output: 100})
	if err != nil || result.ExitCode != 0 {
		t.Errorf("%+v, %v", result, err)
	}
	files, err := b.engine.ReadFiles(ctx, instances[0].ID, secretsTarget, 1<<20)
	if err != nil || string(files["PASSWORD"]) != "correct-horse" {
		t.Errorf("its secrets are %v, %v", files, err)
	}
	if err := b.Raze(ctx, "dev", map[events.Slug]int{"hello": 4}); err != nil || len(b.ids(hello)) > 0 {
		t.Errorf("in the end there are %v, %v", b.ids(hello), err)
	}
	if left, err := b.Left(ctx, []events.Slug{"dev"}); err != nil || len(left) > 0 {
		t.Errorf("in the end something is left of %v, %v", left, err)
	}
}
