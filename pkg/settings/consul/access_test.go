package consul_test

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/settings/consul/consultest"
)

var holder = settings.Holder{Install: "0123abcd", Env: "qa", App: "hello", Slot: 3, Keys: []string{"LOG_LEVEL"}}

func granted(t *testing.T, a settings.Access, h settings.Holder) (settings.Grant, string) {
	t.Helper()
	g, err := a.Grant(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	return g, g.Files["consul-token"].Reveal()
}

// An app reads its own keys in its environment, and those that all apps share, and nothing else.
func TestAppReadsItsOwnKeysAlone(t *testing.T) {
	agent := consultest.StartWithACLs(t)
	for _, key := range []string{
		"config/qa/hello/GREETING", "config/qa/hello-2/GREETING", "config/prod/hello/GREETING", "config/qa/LOG_LEVEL", "config/qa/OTHER", "else",
	} {
		agent.Put(key, "x")
	}
	file := consultest.TokenFile(t, consultest.Master)
	p := provider(t, policy.Consul{Address: agent.URL, TokenFile: file, Shared: "config/{env}/{key}"})
	g, token := granted(t, p, holder)
	want := map[string]string{
		"CONSUL_HTTP_ADDR": strings.Replace(agent.URL, "127.0.0.1", "host.docker.internal", 1), "CONSUL_HTTP_TOKEN_FILE": "/run/secrets/consul-token",
		"TOWPATH_CONFIG_PATH": "config/qa/hello/", "TOWPATH_CONFIG_SHARED_PATH": "config/qa/",
	}
	if !maps.Equal(g.Env, want) {
		t.Errorf("variables %v, want %v", g.Env, want)
	}
	for key, refused := range map[string]bool{
		"config/qa/hello/GREETING": false, "config/qa/LOG_LEVEL": false,
		"config/qa/hello-2/GREETING": true, "config/prod/hello/GREETING": true, "config/qa/OTHER": true, "else": true,
	} {
		if got := agent.Refuses(key, token); got != refused {
			t.Errorf("%s: refused %t, want %t", key, got, refused)
		}
	}
	own := consultest.TokenFile(t, token)
	if _, err := provider(t, policy.Consul{Address: agent.URL, TokenFile: own}).Set(t.Context(), greeting, "y", nil); err == nil {
		t.Error("an app writes its keys")
	}
	if _, again := granted(t, p, holder); again != token {
		t.Error("whoever comes after a crash makes another token")
	}
	later := holder
	later.Slot = 4
	_, second := granted(t, p, later)
	other := holder
	other.Install = "ffffffff"
	_, third := granted(t, p, other)
	if err := p.Revoke(t.Context(), holder.Install, "qa", "hello", func(slot int) bool { return slot > 3 }); err != nil {
		t.Fatal(err)
	}
	const key = "config/qa/hello/GREETING"
	if !agent.Refuses(key, token) || agent.Refuses(key, second) || agent.Refuses(key, third) {
		t.Errorf("after slot 3 was retired: slot 3 refused %t, slot 4 %t, another installation %t",
			agent.Refuses(key, token), agent.Refuses(key, second), agent.Refuses(key, third))
	}
	if err := p.Revoke(t.Context(), holder.Install, "qa", "hello", func(int) bool { return false }); err != nil {
		t.Fatal(err)
	}
	policies, _, err := agent.API.ACL().PolicyList(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range policies {
		if strings.HasPrefix(one.Name, "towpath_0123abcd") {
			t.Errorf("left behind: %s", one.Name)
		}
	}
}

func TestAccessWithoutRights(t *testing.T) {
	agent := consultest.StartWithACLs(t)
	file := consultest.TokenFile(t, agent.Token("promote", `key_prefix "" { policy = "read" }`))
	p := provider(t, policy.Consul{Address: agent.URL, TokenFile: file})
	unavailable(t, "granting", func() error { _, err := p.Grant(t.Context(), holder); return err }, "it refuses the token in "+file, "acl")
	if err := p.Revoke(t.Context(), holder.Install, "qa", "hello", func(int) bool { return false }); err != nil {
		t.Errorf("who may grant nothing has nothing to take away: %v", err)
	}
	granting := consultest.TokenFile(t, consultest.Master)
	p = provider(t, policy.Consul{Address: agent.URL, TokenFile: granting})
	granted(t, p, holder)
	weak, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(granting, weak, 0o600); err != nil {
		t.Fatal(err)
	}
	unavailable(t, "what was granted before the right was lost", func() error {
		return p.Revoke(t.Context(), holder.Install, "qa", "hello", func(int) bool { return false })
	}, "taking ACL tokens of hello away", "it refuses the token in "+granting)
}

func TestAccessWithoutACLs(t *testing.T) {
	agent := consultest.Start(t)
	p := provider(t, policy.Consul{Address: agent.URL, AppAddress: "http://consul.internal:8500"})
	g, token := granted(t, p, holder)
	if token != "" || len(g.Files) != 0 || g.Env["CONSUL_HTTP_ADDR"] != "http://consul.internal:8500" {
		t.Errorf("%v, %v", g.Env, slices.Collect(maps.Keys(g.Files)))
	}
	if err := p.Revoke(t.Context(), holder.Install, "qa", "hello", func(int) bool { return false }); err != nil {
		t.Error(err)
	}
	flat := provider(t, policy.Consul{Address: agent.URL, Path: "config/{env}/{app}-{key}"})
	if _, err := flat.Grant(t.Context(), settings.Holder{Install: "0123abcd", Env: events.Slug("qa"), App: "hello", Slot: 1}); !errors.Is(err, settings.ErrInvalid) {
		t.Errorf("keys of which another app's begin alike: %v", err)
	}
}
