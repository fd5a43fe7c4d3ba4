package vault_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/settings/vault"
)

// issuing is promote in an environment where apps find their secrets themselves, and one container of such an app.
type issuing struct {
	*testing.T
	*store
	access  *vault.Access
	holder  settings.Holder
	name    string
	started time.Time // of the container; zero: it is about to be made
	lost    bool
}

func (s *store) issuing(t *testing.T, l *ledgertest.Ledger, cfg policy.Vault) *issuing {
	t.Helper()
	return &issuing{
		T: t, store: s, access: vault.NewAccess(s.provider(t, cfg, "qa", "promote"), l.Client(string(events.Promote)).Bucket(events.BucketIssued)),
		holder: settings.Holder{Install: "0123abcd", Env: "qa", App: "hello", Slot: 3}, name: "1",
	}
}

func (i *issuing) container() settings.Container {
	c := settings.Container{Name: i.name, Folder: "/run/secrets/own/" + i.name, Lost: i.lost}
	if !i.started.IsZero() {
		c.Started = func(context.Context) (time.Time, error) { return i.started, nil }
	}
	return c
}

// issue returns the wrapping token that the container gets, and gives it to it unless it is lost on the way; empty: it needs none.
func (i *issuing) issue(given bool) string {
	i.Helper()
	g, err := i.access.Issue(i.Context(), i.holder, i.container())
	if err != nil {
		i.Fatal(err)
	}
	if len(g.Files) == 0 {
		return ""
	}
	if want := map[string]string{"VAULT_WRAPPED_TOKEN_FILE": "/run/secrets/own/" + i.name + "/vault-token"}; !maps.Equal(g.Env, want) {
		i.Errorf("variables %v, want %v", g.Env, want)
	}
	if given {
		if err := i.access.Issued(i.Context(), i.holder, i.container()); err != nil {
			i.Fatal(err)
		}
	}
	return g.Files["vault-token"].Reveal()
}

// unwrap takes a token over, as an app does when it starts.
func (i *issuing) unwrap(wrapped string) string {
	i.Helper()
	c, err := i.Client(wrapped)
	if err != nil {
		i.Fatal(err)
	}
	got, err := c.Logical().UnwrapWithContext(i.Context(), "")
	if err != nil {
		i.Fatalf("taking a token over: %v", err)
	}
	return got.Auth.ClientToken
}

// reads reports whether a token reads a secret of an app.
func (i *issuing) reads(token, path string) bool {
	i.Helper()
	c, err := i.Client(token)
	if err != nil {
		i.Fatal(err)
	}
	got, err := c.Logical().ReadWithContext(i.Context(), strings.ReplaceAll(path, "{key}", "A"))
	return err == nil && got != nil
}

func (i *issuing) path(env, app events.Slug) string {
	i.Helper()
	g, err := i.access.Grant(i.Context(), settings.Holder{Env: env, App: app, Slot: 1})
	if err != nil {
		i.Fatal(err)
	}
	return g.Env["TOWPATH_SECRETS_PATH"]
}

func (i *issuing) left() int {
	i.Helper()
	n, err := i.Tokens(i.Context(), "auth/token/create/towpath-qa-app")
	if err != nil {
		i.Fatal(err)
	}
	return n
}

// A token that an app takes over reads that app's secrets in that environment, and nothing else.
func TestAppTokens(t *testing.T) {
	for _, path := range []string{pathPerKey, pathPerApp} {
		t.Run(path, func(t *testing.T) {
			s := start(t, path)
			root := s.root(t)
			for _, at := range []settings.Place{place("qa", "hello", "A"), place("qa", "other", "A"), place("prod", "hello", "A")} {
				if _, err := root.Set(t.Context(), at, "of "+at.String(), nil); err != nil {
					t.Fatal(err)
				}
			}
			l := ledgertest.Start(t)
			i := s.issuing(t, l, s.follow(t, "qa", true))
			token := i.unwrap(i.issue(true))
			if !i.reads(token, i.path("qa", "hello")) {
				t.Errorf("it does not read %s", i.path("qa", "hello"))
			}
			if i.reads(token, i.path("qa", "other")) || i.reads(token, i.path("prod", "hello")) {
				t.Error("it reads what is not its own")
			}
			c, err := s.Client(token)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Auth().Token().RenewSelfWithContext(t.Context(), 0); err != nil {
				t.Errorf("it cannot be renewed: %v", err)
			}
			unready := s.issuing(t, l, s.follow(t, "prod", false))
			unready.holder.Env = "prod"
			_, err = unready.access.Issue(t.Context(), unready.holder, unready.container())
			unavailable(t, err, "making a token for hello", "towpath settings rules prod --discover")
		})
	}
}

// Each start of a container takes over a token of its own, whoever was killed in between, and all end with the slot.
func TestEachStartHasATokenOfItsOwn(t *testing.T) {
	s := start(t, pathPerKey)
	if _, err := s.root(t).Set(t.Context(), place("qa", "hello", "A"), "x", nil); err != nil {
		t.Fatal(err)
	}
	l, cfg := ledgertest.Start(t), s.follow(t, "qa", true)
	i := s.issuing(t, l, cfg)
	mine := i.path("qa", "hello")
	works := func(what, token string, want bool) {
		t.Helper()
		if got := i.reads(token, mine); got != want {
			t.Errorf("%s reads %t, want %t", what, got, want)
		}
	}

	// A container is about to be made twice: promote was killed before it was.
	never := i.issue(true)
	first := i.issue(true)
	if never == first {
		t.Fatal("the same token twice")
	}
	if c, err := s.Client(never); err != nil {
		t.Fatal(err)
	} else if _, err := c.Logical().UnwrapWithContext(t.Context(), ""); err == nil {
		t.Error("what was for a container that never was can be taken over")
	}
	one := i.unwrap(first)
	i.started = time.Now()
	i.issue(false) // killed before it was handed over
	spare := i.issue(true)
	if spare == "" {
		t.Fatal("nothing waits for the next start")
	}
	if again := i.issue(true); again != "" {
		t.Error("another one, though one waits")
	}
	works("the first start", one, true)

	i.started = time.Now()
	two := i.unwrap(spare)
	third := i.issue(true)
	works("the second start", two, true)
	works("the first start, after the second", one, false)
	i.lost = true
	if fourth := i.issue(true); fourth == "" || fourth == third {
		t.Error("nothing takes the place of what was lost")
	}
	i.lost = false

	// Other containers, of this slot and another, have their own.
	other := *i
	other.name, other.started = "2", time.Time{}
	beside := i.unwrap(other.issue(true))
	other.name, other.holder.Slot = "1", 4
	later := i.unwrap(other.issue(true))
	if standing, whole := i.access.Alarms(t.Context()); len(standing) > 0 || !whole {
		t.Errorf("alarms %v, all known %t", standing, whole)
	}
	// Whoever comes after a crash finds them.
	next := s.issuing(t, l, cfg)
	if err := next.access.Revoke(t.Context(), i.holder.Install, "qa", "hello", func(slot int) bool { return slot > 3 }); err != nil {
		t.Fatal(err)
	}
	works("slot 3", two, false)
	works("slot 3, its other container", beside, false)
	works("slot 4", later, true)
	for range 2 { // the second time they are gone
		if err := next.access.Revoke(t.Context(), i.holder.Install, "qa", "hello", func(int) bool { return false }); err != nil {
			t.Fatal(err)
		}
	}
	works("slot 4, when the app is gone", later, false)
	if n := i.left(); n != 0 {
		t.Errorf("%d tokens are left", n)
	}
	if strings.Contains(s.log.String(), "ALARM") {
		t.Error(s.log)
	}
}

// Somebody who uses what waits for a container's next start is found out, and has nothing of it.
func TestATokenThatSomebodyElseTookIsAnAlarm(t *testing.T) {
	s := start(t, pathPerKey)
	if _, err := s.root(t).Set(t.Context(), place("qa", "hello", "A"), "x", nil); err != nil {
		t.Fatal(err)
	}
	i := s.issuing(t, ledgertest.Start(t), s.follow(t, "qa", true))
	one := i.unwrap(i.issue(true))
	i.started = time.Now()
	stolen := i.unwrap(i.issue(true))
	next := i.issue(true)
	if next == "" {
		t.Fatal("nothing waits for the next start")
	}
	mine := i.path("qa", "hello")
	if i.reads(stolen, mine) || !i.reads(one, mine) {
		t.Errorf("the thief reads %t, the app %t", i.reads(stolen, mine), i.reads(one, mine))
	}
	standing, whole := i.access.Alarms(t.Context())
	if len(standing) != 1 || !whole || standing[0].Environment != "qa" || standing[0].App != "hello" || !strings.Contains(standing[0].What, "container 1 of slot 3") {
		t.Fatalf("%+v", standing)
	}
	// It stands while the slot does, whatever happens to the container.
	i.started = time.Now()
	i.unwrap(next)
	i.issue(true)
	i.started = time.Time{}
	i.issue(true)
	if again, _ := i.access.Alarms(t.Context()); !slices.Equal(again, standing) {
		t.Errorf("%+v, then %+v", standing, again)
	}
	if err := i.access.Revoke(t.Context(), i.holder.Install, "qa", "hello", func(int) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if again, whole := i.access.Alarms(t.Context()); len(again) > 0 || !whole {
		t.Errorf("the slot is gone, and %+v stands", again)
	}
	if n := i.left(); n != 0 {
		t.Errorf("%d tokens are left", n)
	}
}

// What a service finds at its own login stands until it has logged in again.
func TestAlarmsOfLogins(t *testing.T) {
	s, cfg, at, _ := seeded(t)
	p := s.provider(t, cfg, "qa", "promote")
	if standing, whole := p.Alarms(t.Context()); len(standing) > 0 || whole {
		t.Errorf("before any login: %v, all known %t", standing, whole)
	}
	file := secretIDFile(cfg, "promote")
	good, err := s.WrapSecretID(t.Context(), "approle", "towpath-qa-promote", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	thief, err := s.Client(strings.TrimSpace(read(t, file)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := thief.Logical().Unwrap(""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Get(t.Context(), at); err == nil {
		t.Fatal("it logs in")
	}
	standing, whole := p.Alarms(t.Context())
	if len(standing) != 1 || !whole || standing[0].What != "login of promote at Vault of qa ("+s.Address+")" || standing[0].Environment != "qa" || standing[0].Do == "" {
		t.Fatalf("%+v", standing)
	}
	write(t, file, "# none yet\n")
	within(t, 30*time.Second, "the alarm stands though the login fails otherwise by now", func(ctx context.Context) error {
		_, _, err := p.Get(ctx, at)
		if err == nil || !strings.Contains(err.Error(), "holds no wrapping token") {
			return errors.Join(errors.New("it does not"), err)
		}
		return nil
	})
	if still, _ := p.Alarms(t.Context()); !slices.Equal(still, standing) {
		t.Errorf("%+v", still)
	}
	write(t, file, good)
	within(t, 30*time.Second, "with a new secret id it resumes", reads(p, at))
	if over, whole := p.Alarms(t.Context()); len(over) > 0 || !whole {
		t.Errorf("it has logged in, and %+v stands", over)
	}
}

// What all containers of an app are told.
func TestGrantSaysWhereVaultIs(t *testing.T) {
	folder := t.TempDir()
	ca := filepath.Join(folder, "ca.pem")
	write(t, ca, "a certificate")
	cfg := policy.Vault{
		Address: "https://127.0.0.1:8200", Namespace: "team", CA: ca, Mount: "kv", Path: pathPerKey, TokenFile: filepath.Join(folder, "token"),
	}
	s := &store{log: &record{}}
	access := vault.NewAccess(s.provider(t, cfg, "qa", "promote"), nil)
	g, err := access.Grant(t.Context(), settings.Holder{Env: "qa", App: "hello", Slot: 1})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"VAULT_ADDR": "https://host.docker.internal:8200", "VAULT_NAMESPACE": "team", "VAULT_CACERT": "/run/secrets/vault-ca.pem",
		"TOWPATH_SECRETS_PATH": "kv/data/qa/hello/{key}",
	}
	if !maps.Equal(g.Env, want) || len(g.Files) != 1 || g.Files["vault-ca.pem"].Reveal() != "a certificate" {
		t.Errorf("%v, want %v", g.Env, want)
	}
	if err := os.Remove(ca); err != nil {
		t.Fatal(err)
	}
	_, err = access.Grant(t.Context(), settings.Holder{Env: "qa", App: "hello", Slot: 1})
	unavailable(t, err, "ca.pem", "correct ca in platform.yaml")
}
