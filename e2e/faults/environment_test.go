package faults

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"towpath.dev/e2e/system"
	"towpath.dev/events"
	"towpath.dev/pkg/engine/enginetest"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/settings/consul/consultest"
	"towpath.dev/pkg/worker/boundary"
)

// made is an installation whose environment "mall" has an app, and in which an environment like it is made and destroyed
// while somebody is killed over it.
type made struct {
	t       *testing.T
	system  *system.System
	gateway *gateway
	consul  *consultest.Agent // where settings are, which the app finds itself; nil: in the embedded store
	store   *settings.Store   // the embedded one
	trail   *trail
	orders  map[string]string // program → where its next life ends
	cycles  int
}

// steps are the boundaries at which promote and the gateway are killed: what they do about an environment leads over each of
// them several times.
var steps = []struct {
	service events.Writer
	at      boundary.Boundary
	most    int // times that one life may pass it; more would mean that it is never left alone
	stride  int // of the short test
}{
	{events.Gateway, boundary.Effect, 20, 1}, {events.Gateway, boundary.Event, 30, 2},
	{events.Promote, boundary.Received, 60, 8}, {events.Promote, boundary.Decided, 40, 8},
	{events.Promote, boundary.Effect, 40, 5}, {events.Promote, boundary.Event, 40, 8},
}

// TestEnvironmentOverKills makes an environment and destroys it, again and again, while promote or the gateway is killed
// over it, each time one step later: it comes up, or is given up where the gateway was killed over it, and nothing is left of
// it. The short one kills at some of the steps.
func TestEnvironmentOverKills(t *testing.T) {
	binaries, err := system.Build(t.Context(), false, "faults")
	if err != nil {
		t.Fatal(err)
	}
	for _, store := range []string{"embedded", "consul"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			openMade(t, binaries, store).killAll()
		})
	}
}

// killAll kills at every step, or at some.
func (m *made) killAll() {
	t := m.t
	for _, step := range steps {
		killed, stride := 0, step.stride
		if *long {
			stride = 1
		}
		for n := 1; ; n += stride {
			if n > step.most {
				t.Fatalf("%s passes %q more than %d times", step.service, step.at, step.most)
			}
			o := order{step.service, step.at, n}
			deaths := m.cycle(o)
			if step.service == events.Gateway {
				deaths += m.giveUp(o)
			}
			if deaths == 0 {
				break
			}
			killed += deaths
		}
		if killed == 0 {
			t.Errorf("%s was never killed at %q: nothing was tried", step.service, step.at)
		}
		t.Logf("%s was killed %d times at %q", step.service, killed, step.at)
	}
	t.Logf("%d environments were made and destroyed", m.cycles)
}

func openMade(t *testing.T, binaries system.Binaries, store string) *made {
	folder, platform := t.TempDir(), ""
	m := &made{t: t, orders: map[string]string{}}
	if store == "consul" {
		m.consul = consultest.StartWithACLs(t)
		platform = fmt.Sprintf("settings: {default: {consul: {address: %q, tokenFile: %q}}}\n", m.consul.URL, consultest.TokenFile(t, consultest.Master))
	}
	trailFile := filepath.Join(folder, "passed")
	var err error
	if m.trail, err = openTrail(trailFile); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.trail.close() })
	m.system, err = system.Start(t.Context(), system.Options{
		Shape: system.Separate, Folder: filepath.Join(folder, "system"), Binaries: binaries, AckWait: ackWait,
		Platform: platform,
		Environment: func(program string) []string {
			return []string{"TOWPATH_PASSED=" + trailFile, "TOWPATH_KILL=" + m.orders[program]}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := m.system.Close(ctx); err != nil {
			t.Errorf("stopping: %v", err)
		}
		if t.Failed() {
			t.Logf("logs:\n%s", m.system.LogTail(40))
		}
	})
	m.gateway = openGateway(m.system, 0)
	v := m.system.Variables()
	key, err := identity.LoadSettingsKey(v["KEYS"])
	if err != nil {
		t.Fatal(err)
	}
	client, err := ledger.Connect(t.Context(), ledger.Options{URL: v["BUS"], Service: string(events.Gateway), Keys: v["KEYS"]})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if m.store, err = settings.Open(client, key); err != nil {
		t.Fatal(err)
	}
	m.fill()
	return m
}

// fill deploys the app to "mall".
func (m *made) fill() {
	m.t.Helper()
	ctx := m.t.Context()
	app := enginetest.App{Args: []string{"serve"}}
	if m.consul != nil {
		app.User = "0" // root under another name: by their images it is told whose containers are whose
	}
	repository, digest := enginetest.Push(m.t, m.system.Variables()["REGISTRY"], "elsewhere/shop", app)
	definition := fmt.Sprintf("app: shop\nservice: {port: 8080, health: /health, drainTimeout: 1s}\ndiscover: %t\nconfig: [GREETING]\nsecrets: [PASSWORD]\nenvironments: [{name: mall}]\n", m.consul != nil)
	run, err := m.gateway.submit(ctx, "shop", repository+"@"+digest, definition)
	for path, value := range map[string]string{"/v1/settings/mall/shop/GREETING": "ahoy", "/v1/secrets/mall/shop/PASSWORD": "correct-horse"} {
		if err == nil {
			err = m.gateway.call(ctx, http.MethodPut, path, map[string]string{"value": value}, new(any))
		}
	}
	var end view
	if err == nil {
		end, err = m.gateway.ended(ctx, "shop", run, endBound)
	}
	if err != nil || end.Status != "done" {
		m.t.Fatalf("the app is not in mall: %+v, %v", end, err)
	}
}

// cycle makes the environment, then destroys it, and has a process die in each. It returns how many deaths there were.
func (m *made) cycle(o order) (deaths int) {
	m.t.Helper()
	m.cycles++
	id := fmt.Sprintf("cycle-%04d", m.cycles)
	deaths = m.during(o, "making it", func(ctx context.Context) error {
		tries := 0
		err := m.gateway.keepTrying(ctx, "asking for the environment", func(ctx context.Context) error {
			tries++ // who types the same again asks for another
			return m.ask(ctx, fmt.Sprintf("make-%s-%d", id, tries))
		})
		if err != nil {
			return err
		}
		return m.gateway.keepTrying(ctx, "waiting until the environment is up", m.isUp)
	})
	deaths += m.during(o, "destroying it", func(ctx context.Context) error { return m.destroy(ctx, "destroy-"+id) })
	return deaths
}

// giveUp asks for the environment once, whatever becomes of that, and destroys it. It returns how many deaths there were.
func (m *made) giveUp(o order) (deaths int) {
	m.t.Helper()
	m.cycles++
	id := fmt.Sprintf("cycle-%04d", m.cycles)
	deaths = m.during(o, "making it", func(ctx context.Context) error {
		if m.ask(ctx, "make-"+id) == nil {
			return nil
		}
		return m.gateway.keepTrying(ctx, "waiting for the gateway", func(ctx context.Context) error {
			return m.gateway.call(ctx, http.MethodGet, "/v1/environments", nil, new(any))
		})
	})
	return deaths + m.during(o, "destroying what is left of it", func(ctx context.Context) error { return m.destroy(ctx, "destroy-"+id) })
}

func (m *made) ask(ctx context.Context, id string) error {
	return m.gateway.call(ctx, http.MethodPost, "/v1/environments", map[string]string{"id": id, "name": "demo", "from": "mall"}, new(any))
}

// destroy destroys the environment and waits until nothing of it is left. One that was never begun is not there.
func (m *made) destroy(ctx context.Context, id string) error {
	err := m.gateway.keepTrying(ctx, "asking for its end", func(ctx context.Context) error {
		err := m.gateway.call(ctx, http.MethodDelete, "/v1/environments/demo?id="+url.QueryEscape(id), nil, new(any))
		if err != nil && strings.Contains(err.Error(), "404") {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return m.gateway.keepTrying(ctx, "waiting until nothing is left", m.isGone)
}

// during does something while the order holds for the next life of a process.
func (m *made) during(o order, what string, do func(context.Context) error) (deaths int) {
	m.t.Helper()
	program := string(o.service)
	before := len(m.trail.all)
	m.orders[program] = o.String()
	if err := m.system.Kill(program); err != nil {
		m.t.Fatal(err)
	}
	if err := m.system.Restart(m.t.Context(), program); err != nil {
		m.t.Fatal(err)
	}
	delete(m.orders, program) // the lives after this one are not disturbed
	done := make(chan error, 1)
	go func() { done <- do(m.t.Context()) }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				m.t.Fatalf("killed at %s while %s: %v", o, what, err)
			}
			if err := m.trail.read(); err != nil {
				m.t.Fatal(err)
			}
			for _, p := range m.trail.all[before:] {
				if p.killed {
					deaths++
				}
			}
			return deaths
		case <-tick.C:
			if _, err := m.system.Revive(); err != nil {
				m.t.Fatal(err)
			}
		}
	}
}

// isUp checks that the environment is there, with all that belongs to it.
func (m *made) isUp(ctx context.Context) error {
	var state struct {
		Made struct {
			State  string
			Up, Of int
		}
	}
	if err := m.gateway.call(ctx, http.MethodGet, "/v1/environments/demo/state", nil, &state); err != nil {
		return err
	}
	if state.Made.State != "up" || state.Made.Up != 1 {
		return fmt.Errorf("it is %+v", state.Made)
	}
	if status, _, err := m.system.Get("demo", "shop", "/"); err != nil || status != http.StatusOK {
		return fmt.Errorf("it answers %d: %w", status, err)
	}
	left, err := m.system.Left(ctx, "demo")
	if err != nil {
		return err
	}
	containers := 0
	for _, what := range left {
		if strings.HasPrefix(what, "container ") {
			containers++
		}
	}
	if containers != 1 {
		return fmt.Errorf("of one replica there is %q", left)
	}
	return nil
}

// isGone checks that nothing of the environment is left anywhere.
func (m *made) isGone(ctx context.Context) error {
	var state any
	if err := m.gateway.call(ctx, http.MethodGet, "/v1/environments/demo/state", nil, &state); err == nil {
		return fmt.Errorf("it is still there: %v", state)
	} else if !strings.Contains(err.Error(), "404") {
		return err
	}
	left, err := m.system.Left(ctx, "demo")
	if err != nil {
		return err
	}
	if status, _, err := m.system.Get("demo", "shop", "/"); err != nil || status != http.StatusNotFound {
		left = append(left, fmt.Sprintf("a route, which answers %d (%v)", status, err))
	}
	for _, list := range []func(context.Context, events.Slug, events.Slug) ([]settings.Item, error){m.store.ListConfig, m.store.ListSecrets} {
		items, err := list(ctx, "demo", "shop")
		if err != nil {
			return err
		}
		for _, item := range items {
			left = append(left, "setting "+item.Key)
		}
	}
	if m.consul != nil {
		inConsul, err := m.leftInConsul()
		if err != nil {
			return err
		}
		left = append(left, inConsul...)
	}
	if len(left) > 0 {
		return fmt.Errorf("left are %q", left)
	}
	return nil
}

// leftInConsul lists what Consul has of the environment.
func (m *made) leftInConsul() (left []string, err error) {
	instances, _, err := m.consul.API.Catalog().Service("shop-demo", "", nil)
	for _, i := range instances {
		left = append(left, "in Consul's catalog "+i.ServiceID)
	}
	keys, _, keysErr := m.consul.API.KV().Keys("config/demo/", "", nil)
	policies, _, policiesErr := m.consul.API.ACL().PolicyList(nil)
	for _, p := range policies {
		if strings.Contains(p.Name, "_demo_") {
			left = append(left, "Consul's policy "+p.Name)
		}
	}
	tokens, _, tokensErr := m.consul.API.ACL().TokenList(nil)
	for _, token := range tokens {
		if strings.Contains(token.Description, "_demo_") {
			left = append(left, "Consul's token "+token.Description)
		}
	}
	for _, key := range keys {
		left = append(left, "Consul's key "+key)
	}
	return left, errors.Join(err, keysErr, policiesErr, tokensErr)
}
