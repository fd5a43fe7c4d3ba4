package deploy

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/engine/enginetest"
	"towpath.dev/pkg/settings"
)

// handout issues numbered files, one for each start of a container.
type handout struct {
	mu    sync.Mutex
	n     int
	given map[string]time.Time // by container: when it was started that has what was issued last
	asked map[string]int
}

func (h *handout) key(of settings.Holder, c settings.Container) string {
	return fmt.Sprintf("%s/%s/%d/%s", of.Env, of.App, of.Slot, c.Name)
}

// Issue implements settings.Issuer: a start uses what it finds.
func (h *handout) Issue(ctx context.Context, of settings.Holder, c settings.Container) (settings.Grant, error) {
	var started time.Time
	if c.Started != nil {
		var err error
		if started, err = c.Started(ctx); err != nil {
			return settings.Grant{}, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked[h.key(of, c)]++
	last, known := h.given[h.key(of, c)]
	if known && c.Started != nil && !c.Lost && last.Equal(started) {
		return settings.Grant{}, nil
	}
	h.n++
	h.given[h.key(of, c)] = started
	return settings.Grant{
		Env:   map[string]string{"TOKEN_FILE": c.Folder + "/token", "KEPT": "not this"},
		Files: map[string]settings.Secret{"token": settings.NewSecret(fmt.Sprintf("canary-%s-%d", c.Name, h.n))},
	}, nil
}

// Issued implements settings.Issuer.
func (h *handout) Issued(context.Context, settings.Holder, settings.Container) error { return nil }

// Grant implements settings.Access.
func (h *handout) Grant(context.Context, settings.Holder) (settings.Grant, error) {
	return settings.Grant{}, nil
}

// Revoke implements settings.Access.
func (h *handout) Revoke(_ context.Context, _ string, env, app events.Slug, keep func(slot int) bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key := range h.given {
		parts := strings.Split(key, "/")
		if slot, err := strconv.Atoi(parts[2]); err == nil && parts[0] == string(env) && parts[1] == string(app) && !keep(slot) {
			delete(h.given, key)
		}
	}
	return nil
}

// left lists the containers that have something, sorted.
func (h *handout) left() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.given))
}

func answers(address string) bool {
	response, err := http.Get("http://" + address + "/health")
	if err == nil {
		response.Body.Close()
	}
	return err == nil
}

// Each container has files of its own, which it finds again whenever it is started again, and nobody else sees.
func TestContainersHaveWhatIsTheirOwn(t *testing.T) {
	t.Parallel()
	d := enginetest.StartDockerd(t)
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			b := onEngineBy(t, d.Engine, way)
			ctx := t.Context()
			issuer := &handout{given: map[string]time.Time{}, asked: map[string]int{}}
			s := b.spec(1, enginetest.App{Args: []string{"serve"}, User: "1000:1000"})
			s.Replicas, s.Own = 2, issuer
			s.Config = map[string]string{"KEPT": "the app's"}
			s.Release = []string{enginetest.Program, "once"}
			instances := b.prepare(s)
			if _, err := b.Release(ctx, s); err != nil {
				t.Fatal(err)
			}
			own := func(address, replica string) string { return b.get(address, "/secrets/own/"+replica+"/token") }
			seen := map[string]bool{}
			for n, i := range instances {
				replica := fmt.Sprint(n + 1)
				env := b.get(i.Address, "/env")
				for _, want := range []string{"TOKEN_FILE=/run/secrets/own/" + replica + "/token\n", "KEPT=the app's\n"} {
					if !strings.Contains(env, want) {
						t.Errorf("replica %s is not told %q:\n%s", replica, want, env)
					}
				}
				token := own(i.Address, replica)
				if !strings.HasPrefix(token, "canary-"+replica+"-") || seen[token] {
					t.Errorf("replica %s has %q", replica, token)
				}
				seen[token] = true
			}
			if n := issuer.asked["dev/hello/1/release"]; n != 1 {
				t.Errorf("the release command was issued something %d times", n)
			}
			if _, err := b.Release(ctx, s); err != nil || issuer.asked["dev/hello/1/release"] != 1 {
				t.Errorf("a release that is over is issued something: %v", err)
			}
			if err := b.Switch(ctx, s, instances); err != nil {
				t.Fatal(err)
			}

			// Whoever comes after a crash leaves alone what is good.
			before := own(instances[0].Address, "1")
			again := b.again()
			if _, err := again.Prepare(ctx, s); err != nil {
				t.Fatal(err)
			}
			if err := again.Refresh(ctx, hello, issuer); err != nil {
				t.Fatal(err)
			}
			if now := own(instances[0].Address, "1"); now != before {
				t.Errorf("%q was replaced by %q", before, now)
			}

			// The app ends by itself, and its engine starts it: it finds what waited for it, and then the next.
			if response, err := http.Get("http://" + instances[0].Address + "/crash"); err == nil {
				response.Body.Close()
			}
			enginetest.Eventually(t, 30*time.Second, "it is started again", func() bool {
				state, err := b.engine.Inspect(ctx, instances[0].ID)
				return err == nil && state.Running() && state.Restarts > 0
			})
			enginetest.Eventually(t, 30*time.Second, "it finds another", func() bool {
				if err := again.Refresh(ctx, hello, issuer); err != nil {
					t.Fatal(err)
				}
				state, err := b.engine.Inspect(ctx, instances[0].ID)
				return err == nil && state.Running() && answers(state.Addresses[s.Port]) && own(state.Addresses[s.Port], "1") != before
			})

			if way == "volume" {
				// What keeps the memory has ended, under containers that run: nobody knows what is left of it.
				if err := b.engine.Kill(ctx, b.secretsVolume(hello, 1)); err != nil {
					t.Fatal(err)
				}
				before = own(instances[1].Address, "2")
				b.prepare(s)
				if now := own(instances[1].Address, "2"); now == before || !strings.HasPrefix(now, "canary-2-") {
					t.Errorf("after what keeps the memory ended it has %q, before %q", now, before)
				}
			}
			told := everything(t, strings.TrimPrefix(d.Host.URL, "unix://"))
			if strings.Contains(told, "canary-") {
				t.Error("the engine tells what is a container's own")
			}
			if found := grepDisk(t, d.Data(), "canary-"); len(found) > 0 {
				t.Errorf("on disk: %v", found)
			}

			// It is taken away with the slot, and with the environment.
			b.deps.Access = func(events.Slug) []settings.Access { return []settings.Access{issuer} }
			s.Slot, s.Replicas, s.Release = 2, 1, nil
			if err := b.Switch(ctx, s, b.prepare(s)); err != nil {
				t.Fatal(err)
			}
			if err := b.Retire(ctx, hello, 2, Kept{Slot: 2}); err != nil {
				t.Fatal(err)
			}
			if left := issuer.left(); !slices.Equal(left, []string{"dev/hello/2/1"}) {
				t.Errorf("slot 1 is retired, and %v have something", left)
			}
			if err := b.Raze(ctx, "dev", map[events.Slug]int{"hello": 2}); err != nil {
				t.Fatal(err)
			}
			if left := issuer.left(); len(left) > 0 {
				t.Errorf("the environment is gone, and %v have something", left)
			}
			if found := grep(t, d.Data(), "canary-"); len(found) > 0 {
				t.Errorf("left: %v", found)
			}
		})
	}
}
