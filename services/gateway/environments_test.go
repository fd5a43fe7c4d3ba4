package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/settings"
	"towpath.dev/services/gateway/view"
)

// pinnedIn has a run live in an environment with the settings that are set there.
func (s *station) pinnedIn(app events.Slug, n int, env events.Slug) {
	s.t.Helper()
	run := s.run(app, n)
	pins, missing, err := s.settings.Pin(s.t.Context(), env, run.Definition)
	if err != nil || len(missing) > 0 {
		s.t.Fatal(err, missing)
	}
	slot := s.fold().App(app).Env(env).Slots.Len() + 1
	about := events.About{ID: fmt.Sprintf("%s/%s/%d", app, env, slot)}
	taken := &events.SlotTaken{About: about, Slot: slot, Run: n, Attempt: run.Env(env).Promote.Attempt, ArtifactID: run.ArtifactID, Digest: run.Artifact.Digest, Kind: events.KindDeploy, Environment: env, Pins: pins}
	s.write(events.SlotSubject(1, taken.Type(), app, env, slot), run.ChainID, taken)
	decided := &events.SlotDecided{About: about, Slot: slot, Decision: events.Live, Environment: env}
	s.write(events.SlotSubject(1, decided.Type(), app, env, slot), run.ChainID, decided)
	closed := &events.SlotClosed{About: about, Slot: slot, Closing: events.Verified, Environment: env}
	s.write(events.SlotSubject(1, closed.Type(), app, env, slot), run.ChainID, closed)
}

const hidden = "canary-5f0c1d77e2"

// withDev is a station where hello/1 runs in dev, with a setting and a secret.
func withDev(t *testing.T) *station {
	t.Helper()
	s, _ := pushed(t)
	get[setting](s, http.MethodPut, "/v1/settings/dev/hello/DATABASE_URL", map[string]string{"value": "db-of-dev"})
	get[setting](s, http.MethodPut, "/v1/secrets/dev/hello/PASSWORD", map[string]string{"value": hidden})
	s.built("hello", 1)
	s.pinnedIn("hello", 1, "dev")
	return s
}

// promoted writes what promote does when an environment is asked for, or is to go.
func (s *station) promoted(env events.Slug, b events.Body, command string) {
	s.t.Helper()
	s.write(events.EnvironmentSubject(1, events.Promote, b.Type(), env, command), "", b)
}

func TestCreateAndDestroyEnvironment(t *testing.T) {
	s := withDev(t)
	wish := view.NewEnvironment{ID: "create-demo", Name: "demo", From: "dev", TTL: "2h", Apps: map[events.Slug]view.Overlay{"hello": {Config: map[string]string{"DATABASE_URL": "db-of-demo"}}}}
	made := get[view.EnvironmentAnswer](s, http.MethodPost, "/v1/environments", wish)
	if again := get[view.EnvironmentAnswer](s, http.MethodPost, "/v1/environments", wish); again.Seq != made.Seq {
		t.Errorf("sent again it is event %d, was %d", again.Seq, made.Seq)
	}
	e := s.fold().Environment("demo")
	if e == nil || e.Made.From != "dev" || len(e.Made.Apps) != 1 || e.Made.Expires == nil || time.Until(*e.Made.Expires) > 2*time.Hour {
		t.Fatalf("%+v", e)
	}
	pins := e.Made.Apps[0].Pins
	resolved, err := s.settings.ResolveAt(t.Context(), "demo", "hello", pins)
	if err != nil || resolved.Config["DATABASE_URL"] != "db-of-demo" {
		t.Errorf("config %v %v", resolved.Config, err)
	}
	if secret := resolved.Secrets["PASSWORD"]; secret.Reveal() != hidden {
		t.Error("the secret is not a copy")
	}
	if known := s.fold().App("hello").Env("demo"); known.Config["DATABASE_URL"].Version != pins.Config["DATABASE_URL"] || known.Secrets["PASSWORD"].Version != pins.Secrets["PASSWORD"] {
		t.Errorf("the ledger knows of %+v %+v", known.Config, known.Secrets)
	}
	for _, line := range s.lines(t, "") {
		if strings.Contains(line, hidden) || strings.Contains(line, "db-of-demo") {
			t.Errorf("an event holds a value: %s", line)
		}
	}
	s.promoted("demo", &events.EnvironmentCreated{About: events.About{ID: "demo"}, Name: "demo"}, "create-demo")
	if plan := s.fold().App("hello").Env("demo").Plan; plan == nil || plan.Like != "dev" || plan.Run != 1 {
		t.Errorf("plan %+v", plan)
	}

	// Renewed without the view.Overlay, it keeps what it has.
	renewed := get[view.EnvironmentAnswer](s, http.MethodPost, "/v1/environments", view.NewEnvironment{ID: "renew-demo", Name: "demo", From: "dev"})
	if now := s.fold().Environment("demo"); now.Made.ID != renewed.ID || now.Made.Apps[0].Pins.Config["DATABASE_URL"] != pins.Config["DATABASE_URL"] || now.Made.Expires != nil {
		t.Errorf("renewed %+v", now.Made)
	}

	gone := get[view.EnvironmentAnswer](s, http.MethodDelete, "/v1/environments/demo?id=destroy-demo", nil)
	deadline := time.Now().Add(20 * time.Second)
	for seq := gone.Seq; ; seq++ {
		secrets, err := s.settings.ListSecrets(t.Context(), "demo", "hello")
		config, err2 := s.settings.ListConfig(t.Context(), "demo", "hello")
		if err == nil && err2 == nil && len(config)+len(secrets) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("settings are left: %v %v", config, secrets)
		}
		s.fold().Wait(t.Context(), seq+1)
	}
	s.promoted("demo", &events.EnvironmentDeleted{About: events.About{ID: "demo"}, Name: "demo"}, "destroy-demo")
	if status, _ := s.ask(s.token, http.MethodGet, "/v1/environments/demo/state", nil); status != http.StatusNotFound {
		t.Errorf("it is gone, and: %d", status)
	}
	if status, _ := s.ask(s.token, http.MethodPut, "/v1/settings/demo/hello/DATABASE_URL", map[string]string{"value": "x"}); status != http.StatusNotFound {
		t.Errorf("a setting for what is gone: %d", status)
	}
}

func TestEnvironmentsThatCannotBeMade(t *testing.T) {
	s := withDev(t)
	for name, c := range map[string]struct {
		wish view.NewEnvironment
		want int
		why  string
	}{
		"a stage":      {view.NewEnvironment{Name: "prod", From: "dev"}, http.StatusConflict, "it is a stage of hello/1"},
		"from nothing": {view.NewEnvironment{Name: "demo", From: "prod"}, http.StatusNotFound, "nothing runs in prod"},
		"no app":       {view.NewEnvironment{Name: "demo", From: "dev", Apps: map[events.Slug]view.Overlay{"other": {}}}, http.StatusConflict, "settings are given for other"},
		"itself":       {view.NewEnvironment{Name: "dev", From: "dev"}, http.StatusBadRequest, "both"},
		"no time":      {view.NewEnvironment{Name: "demo", From: "dev", TTL: "1ms"}, http.StatusBadRequest, "ttl"},
		"no key":       {view.NewEnvironment{Name: "demo", From: "dev", Apps: map[events.Slug]view.Overlay{"hello": {Secrets: map[string]string{"a b": hidden}}}}, http.StatusBadRequest, "a b"},
	} {
		c.wish.ID = "wish-" + strings.ReplaceAll(name, " ", "-") + "-1"
		status, answer := s.ask(s.token, http.MethodPost, "/v1/environments", c.wish)
		if status != c.want || !strings.Contains(answer, c.why) || strings.Contains(answer, hidden) {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	if status, answer := s.ask(s.token, http.MethodDelete, "/v1/environments/dev", nil); status != http.StatusConflict {
		t.Errorf("a stage is destroyed: %d %s", status, answer)
	}
	if len(s.fold().Environments()) != 0 {
		t.Errorf("environments %+v", s.fold().Environments())
	}
	// A secret whose pinned version is gone cannot be copied, and nothing else is written then.
	if _, _, err := s.settings.DeleteSecret(t.Context(), "dev", "hello", "PASSWORD"); err != nil {
		t.Fatal(err)
	}
	status, answer := s.ask(s.token, http.MethodPost, "/v1/environments", view.NewEnvironment{ID: "wish-lost-1", Name: "demo", From: "dev"})
	if status != http.StatusConflict || !strings.Contains(answer, "secret PASSWORD of hello in dev is no longer kept") {
		t.Errorf("%d %s", status, answer)
	}
	if config, err := s.settings.ListConfig(t.Context(), "demo", "hello"); err != nil || len(config) != 0 {
		t.Errorf("%v %v", config, err)
	}
}

// shelf is a provider of somebody's, which fails as it is told, and where there is a key that all apps share.
type shelf struct {
	settings.Provider
	err error
}

func (p shelf) Set(context.Context, settings.Place, string, *uint64) (uint64, error) { return 0, p.err }

func (p shelf) List(ctx context.Context, env, app events.Slug) ([]settings.Item, error) {
	items, err := p.Provider.List(ctx, env, app)
	return append(items, settings.Item{Key: "SHARED", Version: 1, Shared: true}), err
}

// What Consul and Vault say is told as it is, what is theirs stays, and secrets that the gateway may not read are not copied.
func TestStoresOfOthers(t *testing.T) {
	s := withDev(t)
	key, err := identity.LoadSettingsKey(s.ledger.Keys)
	if err != nil {
		t.Fatal(err)
	}
	embedded := map[settings.Kind]settings.Provider{}
	for _, kind := range []settings.Kind{settings.Config, settings.Secrets} {
		if embedded[kind], err = settings.NewEmbedded(s.Service.rt.Ledger, kind, key); err != nil {
			t.Fatal(err)
		}
	}
	for want, c := range map[int]struct {
		err error
		why []string
	}{
		http.StatusServiceUnavailable: {
			fmt.Errorf("setting: %w", &settings.UnavailableError{Store: "Vault of dev", What: "writing a secret", Why: "it is sealed", Do: "unseal it", Err: context.DeadlineExceeded}),
			[]string{"Vault of dev", "it is sealed", "unseal it"},
		},
		http.StatusUnprocessableEntity: {
			fmt.Errorf("%w: SHARED is shared by all apps", settings.ErrReadOnly), []string{"shared by all apps", "change it there"},
		},
	} {
		s.settings.Use("dev", settings.Secrets, shelf{embedded[settings.Secrets], c.err})
		status, answer := s.ask(s.token, http.MethodPut, "/v1/secrets/dev/hello/PASSWORD", map[string]string{"value": "x"})
		if status != want {
			t.Errorf("%v is %d %s", c.err, status, answer)
		}
		for _, why := range c.why {
			if !strings.Contains(answer, why) {
				t.Errorf("%v: no %q in %s", c.err, why, answer)
			}
		}
	}

	// What somebody else keeps under the name of an environment that is to be made stays as it is.
	if _, err := embedded[settings.Config].Set(t.Context(), settings.Place{Env: "kept", App: "hello", Key: "GREETING"}, "by hand", nil); err != nil {
		t.Fatal(err)
	}
	s.settings.Use("kept", settings.Config, shelf{Provider: embedded[settings.Config]})
	kept := view.NewEnvironment{ID: "over-what-is-kept", Name: "kept", From: "dev", Apps: map[events.Slug]view.Overlay{"hello": {Secrets: map[string]string{"PASSWORD": hidden}}}}
	if status, answer := s.ask(s.token, http.MethodPost, "/v1/environments", kept); status != http.StatusConflict || !strings.Contains(answer, "GREETING") || strings.Contains(answer, "SHARED") {
		t.Errorf("over keys of somebody else: %d %s", status, answer)
	}

	wish := view.NewEnvironment{ID: "copy-of-vault-1", Name: "demo", From: "dev"}
	if status, answer := s.ask(s.token, http.MethodPost, "/v1/environments", wish); status != http.StatusConflict || !strings.Contains(answer, "where the gateway reads no value") {
		t.Errorf("a secret in Vault is copied: %d %s", status, answer)
	}
	wish.ID, wish.Apps = "copy-of-vault-2", map[events.Slug]view.Overlay{"hello": {Secrets: map[string]string{"PASSWORD": hidden}}}
	made := get[view.EnvironmentAnswer](s, http.MethodPost, "/v1/environments", wish)
	s.promoted("demo", &events.EnvironmentCreated{About: events.About{ID: "demo"}, Name: "demo"}, made.ID)
	s.settings.Use("demo", settings.Config, shelf{Provider: embedded[settings.Config]})
	ended := *s.fold().Environment("demo")
	ended.Ending = &fold.Ending{ID: "end", Actor: "alice"}
	if err := s.clearSettings(t.Context(), &ended); err != nil {
		t.Errorf("with a key that all apps share: %v", err)
	}
	if items, err := s.settings.ListConfig(t.Context(), "demo", "hello"); err != nil || len(items) != 1 || !items[0].Shared {
		t.Errorf("left are %v (%v), want the shared key alone", items, err)
	}

	// What Towpath may only read does not keep the environment from going.
	if _, err := embedded[settings.Config].Set(t.Context(), settings.Place{Env: "demo", App: "hello", Key: "GREETING"}, "by hand", nil); err != nil {
		t.Fatal(err)
	}
	s.settings.Use("demo", settings.Config, locked{embedded[settings.Config]})
	if err := s.clearSettings(t.Context(), &ended); err != nil {
		t.Errorf("with a store that may only be read: %v", err)
	}
	if value, _, err := s.settings.GetConfig(t.Context(), "demo", "hello", "GREETING"); err != nil || value != "by hand" {
		t.Errorf("what may only be read is %q (%v)", value, err)
	}
}

// locked is a store that Towpath may only read.
type locked struct{ settings.Provider }

func (locked) ReadOnly() bool { return true }

func (locked) Delete(context.Context, settings.Place) (uint64, string, error) {
	return 0, "", settings.ErrReadOnly
}

// Whoever makes an environment ends in the middle: it is there as one that is being prepared, and the same again goes on, or
// destroying it leaves nothing, not even what was written and not recorded any more.
func TestAnEnvironmentHalfMade(t *testing.T) {
	s := withDev(t)
	key, err := identity.LoadSettingsKey(s.ledger.Keys)
	if err != nil {
		t.Fatal(err)
	}
	config, err := settings.NewEmbedded(s.Service.rt.Ledger, settings.Config, key)
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := settings.NewEmbedded(s.Service.rt.Ledger, settings.Secrets, key)
	if err != nil {
		t.Fatal(err)
	}
	state := func() string {
		t.Helper()
		status, answer := s.ask(s.token, http.MethodGet, "/v1/environments/demo/state", nil)
		if status != http.StatusOK {
			return fmt.Sprint(status)
		}
		var e view.Environment
		if err := json.Unmarshal([]byte(answer), &e); err != nil {
			t.Fatal(err)
		}
		return e.Made.State
	}
	half := func(id string) {
		t.Helper()
		s.settings.Use("demo", settings.Config, shelf{Provider: config, err: context.DeadlineExceeded})
		if status, answer := s.ask(s.token, http.MethodPost, "/v1/environments", view.NewEnvironment{ID: id, Name: "demo", From: "dev", TTL: "1h"}); status < 500 {
			t.Fatalf("%d %s", status, answer)
		}
		if got := state(); got != view.StatePreparing {
			t.Fatalf("it is %s", got)
		}
		// The process wrote this one, and died before it recorded it.
		if _, err := config.Set(t.Context(), settings.Place{Kind: settings.Config, Env: "demo", App: "hello", Key: "DATABASE_URL"}, "db of "+id, nil); err != nil {
			t.Fatal(err)
		}
		s.settings.Use("demo", settings.Config, shelf{Provider: config})
	}
	left := func() int {
		t.Helper()
		var all int
		for _, store := range []settings.Provider{config, secrets} {
			items, err := store.List(t.Context(), "demo", "hello")
			if err != nil {
				t.Fatal(err)
			}
			all += len(items)
		}
		return all
	}

	half("killed-1")
	destroyed := get[view.EnvironmentAnswer](s, http.MethodDelete, "/v1/environments/demo?id=destroy-1", nil)
	for seq, deadline := destroyed.Seq, time.Now().Add(20*time.Second); left() > 0; seq++ {
		if time.Now().After(deadline) {
			t.Fatalf("%d settings are left", left())
		}
		bound, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		s.fold().Wait(bound, seq+1)
		cancel()
	}
	s.promoted("demo", &events.EnvironmentDeleted{About: events.About{ID: "demo"}, Name: "demo"}, "destroy-1")
	if got := state(); got != "404" {
		t.Errorf("it was destroyed, and is %s", got)
	}

	half("killed-2")
	if e := s.fold().Environment("demo"); e.Made.Expires == nil {
		t.Error("what is half made does not expire")
	}
	s.settings.Use("demo", settings.Config, config)
	get[setting](s, http.MethodPut, "/v1/secrets/dev/hello/PASSWORD", map[string]string{"value": hidden + "-2"}) // not what dev runs with
	made := get[view.EnvironmentAnswer](s, http.MethodPost, "/v1/environments", view.NewEnvironment{ID: "made-again-2", Name: "demo", From: "dev"})
	e := s.fold().Environment("demo")
	if e.Made.ID != made.ID || e.Preparing || e.Made.Expires != nil || !e.Since.Equal(e.Made.At) {
		t.Fatalf("made again it is %+v", e)
	}
	resolved, err := s.settings.ResolveAt(t.Context(), "demo", "hello", e.Made.Apps[0].Pins)
	if secret := resolved.Secrets["PASSWORD"]; err != nil || resolved.Config["DATABASE_URL"] != "db-of-dev" || secret.Reveal() != hidden {
		t.Errorf("it has %v, %v", resolved.Config, err)
	}
	if got := state(); got != view.StateCreating {
		t.Errorf("it is %s", got)
	}
}

// A key that a running version is pinned to is removed only where somebody insists.
func TestRemovingWhatIsNeeded(t *testing.T) {
	s := withDev(t)
	for _, path := range []string{"/v1/settings/dev/hello/DATABASE_URL", "/v1/secrets/dev/hello/PASSWORD"} {
		if status, answer := s.ask(s.token, http.MethodDelete, path, nil); status != http.StatusUnprocessableEntity || !strings.Contains(answer, "hello/1") {
			t.Errorf("%s: %d %s", path, status, answer)
		}
		if status, answer := s.ask(s.token, http.MethodDelete, path+"?force=1", nil); status != http.StatusOK {
			t.Errorf("%s, insisting: %d %s", path, status, answer)
		}
	}
	env := s.fold().App("hello").Env("dev")
	if stale := env.Stale(env.Live()); len(stale) != 2 || stale[0].Present != 0 {
		t.Errorf("stale %+v", stale)
	}
}

func TestDiff(t *testing.T) {
	s := withDev(t)
	get[setting](s, http.MethodPut, "/v1/settings/prod/hello/DATABASE_URL", map[string]string{"value": "db-of-prod"})
	d := get[view.EnvironmentDiff](s, http.MethodGet, "/v1/environments/dev/diff?with=prod", nil)
	if len(d.Apps) != 1 || d.Apps[0].Left.Run != "hello/1" || d.Apps[0].Right.Digest != "" || len(d.Apps[0].Keys) != 2 {
		t.Fatalf("%+v", d)
	}
	config, secret := d.Apps[0].Keys[0], d.Apps[0].Keys[1]
	if *config.Left != "db-of-dev" || *config.Right != "db-of-prod" || secret.Left != nil || secret.LeftVersion == 0 || secret.RightVersion != 0 || secret.Kind != string(settings.Secrets) {
		t.Errorf("%+v", d.Apps[0].Keys)
	}
	if same := get[view.EnvironmentDiff](s, http.MethodGet, "/v1/environments/dev/diff?with=dev", nil); len(same.Apps) != 0 || same.Same != 1 {
		t.Errorf("%+v", same)
	}
	if text, _ := json.Marshal(d); strings.Contains(string(text), hidden) {
		t.Error("a secret's value is shown")
	}
}
