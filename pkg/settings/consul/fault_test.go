package consul_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/settings/consul"
	"towpath.dev/pkg/settings/consul/consultest"
)

// unavailable checks that an operation says within the bound that Consul cannot answer, and why.
func unavailable(t *testing.T, what string, operation func() error, why ...string) {
	t.Helper()
	begun := time.Now()
	err := operation()
	var away *settings.UnavailableError
	if !errors.As(err, &away) {
		t.Errorf("%s: %v", what, err)
		return
	}
	if took := time.Since(begun); took > 45*time.Second {
		t.Errorf("%s took %s", what, took)
	}
	if away.Store == "" || away.What == "" || away.Do == "" {
		t.Errorf("%s does not say all: %+v", what, away)
	}
	for _, one := range why {
		if !strings.Contains(err.Error(), one) {
			t.Errorf("%s: %q lacks %q", what, err, one)
		}
	}
}

// all has every operation answer that Consul is not to be had.
func all(t *testing.T, p *consul.Provider, why ...string) {
	t.Helper()
	ctx := t.Context()
	unavailable(t, "reading", func() error { _, _, err := p.Get(ctx, greeting); return err }, why...)
	unavailable(t, "reading a version", func() error { _, err := p.GetAt(ctx, greeting, 7); return err }, why...)
	unavailable(t, "writing", func() error { _, err := p.Set(ctx, greeting, "x", nil); return err }, why...)
	unavailable(t, "deleting", func() error { _, _, err := p.Delete(ctx, greeting); return err }, why...)
	unavailable(t, "listing", func() error { _, err := p.List(ctx, "qa", "hello"); return err }, why...)
	unavailable(t, "watching", func() error { _, err := p.Watch(ctx, "qa", "hello", 1); return err }, why...)
}

// recovers checks that the provider answers again, of itself, within 30 s.
func recovers(t *testing.T, p *consul.Provider, want string) {
	t.Helper()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		value, _, err := p.Get(ctx, greeting)
		if err == nil {
			if value != want {
				t.Errorf("after it came back the value is %q, want %q", value, want)
			}
			t.Logf("answers again after %s", time.Since(begun).Round(time.Millisecond))
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("not within 30 s: %v", err)
		}
	}
}

func TestConsulThatDoesNotAnswer(t *testing.T) {
	agent := consultest.Start(t)
	p := provider(t, policy.Consul{Address: agent.URL})
	if _, err := p.Set(t.Context(), greeting, "hello", nil); err != nil {
		t.Fatal(err)
	}
	t.Run("frozen", func(t *testing.T) {
		agent.Freeze()
		defer agent.Thaw()
		unavailable(t, "reading", func() error { _, _, err := p.Get(t.Context(), greeting); return err }, "Consul of qa ("+agent.URL+")", "did not answer within 5s")
		unavailable(t, "writing", func() error { _, err := p.Set(t.Context(), greeting, "x", nil); return err }, "did not answer within 5s")
		agent.Thaw()
		recovers(t, p, "hello")
	})
	t.Run("frozen while it is watched", func(t *testing.T) {
		mark, err := p.Watch(t.Context(), "qa", "hello", 0)
		if err != nil {
			t.Fatal(err)
		}
		over := make(chan error, 1)
		go func() { _, err := p.Watch(t.Context(), "qa", "hello", mark); over <- err }()
		agent.Freeze()
		defer agent.Thaw()
		unavailable(t, "watching", func() error {
			select {
			case err := <-over:
				return err
			case <-time.After(60 * time.Second):
				return errors.New("the wait has no end")
			}
		}, "did not answer within")
	})
	t.Run("killed", func(t *testing.T) {
		agent.Kill()
		all(t, p, "it is not reached", "connection refused", "check that it runs")
		agent.Start()
		recovers(t, p, "hello")
	})
}

func TestConsulWithoutLeader(t *testing.T) {
	agents := consultest.StartCluster(t, 3)
	p := provider(t, policy.Consul{Address: agents[0].URL})
	if _, err := p.Set(t.Context(), greeting, "hello", nil); err != nil {
		t.Fatal(err)
	}
	agents[1].Kill()
	agents[2].Kill()
	awaitLeaderless(t, p)
	all(t, p, "no leader", "majority")
	agents[1].Start()
	recovers(t, p, "hello")
}

// awaitLeaderless returns when the server that is left has noticed that it is alone.
func awaitLeaderless(t *testing.T, p *consul.Provider) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for {
		if _, _, err := p.Get(ctx, greeting); err != nil && strings.Contains(err.Error(), "no leader") {
			return
		}
		if ctx.Err() != nil {
			t.Fatal("it still has a leader")
		}
	}
}

func TestRightsThatAreMissing(t *testing.T) {
	agent := consultest.StartWithACLs(t)
	agent.Put("config/qa/hello/GREETING", "hello")
	file := consultest.TokenFile(t, agent.Token("promote", `key_prefix "config/dev/" { policy = "write" }`))
	p := provider(t, policy.Consul{Address: agent.URL, TokenFile: strings.Replace(file, "token", "{service}", 1)})
	all(t, p, "promote", "no such file")

	p = provider(t, policy.Consul{Address: agent.URL, TokenFile: file})
	all(t, p, "it refuses the token in "+file, "give it that right")
	unavailable(t, "listing what is not there", func() error { _, err := p.List(t.Context(), "qa", "nothing"); return err }, "it refuses")
	anonymous := provider(t, policy.Consul{Address: agent.URL})
	all(t, anonymous, "it refuses the anonymous token")

	agent.Put("config/qa/hello/HIDDEN", "x")
	agent.Allow("promote", `key_prefix "" { policy = "deny" } key "config/qa/hello/GREETING" { policy = "read" } key_prefix "config/qa/hello/TOWPATH_" { policy = "read" }`)
	recovers(t, p, "hello")
	unavailable(t, "listing some and not others", func() error { _, err := p.List(t.Context(), "qa", "hello"); return err }, "it hides keys")

	agent.Allow("promote", `key_prefix "config/qa/" { policy = "read" }`)
	recovers(t, p, "hello")
	unavailable(t, "writing with the right to read", func() error { _, err := p.Set(t.Context(), greeting, "x", nil); return err }, "it refuses")

	agent.Allow("promote", `key_prefix "config/qa/" { policy = "write" }`)
	if _, err := p.Set(t.Context(), greeting, "written", nil); err != nil {
		t.Errorf("after the right was given: %v", err)
	}
}

// A token is replaced in its file, while everything runs.
func TestTokenIsReplacedInPlace(t *testing.T) {
	agent := consultest.StartWithACLs(t)
	agent.Put("config/qa/hello/GREETING", "hello")
	file := consultest.TokenFile(t, "11111111-2222-3333-4444-555555555555")
	p := provider(t, policy.Consul{Address: agent.URL, TokenFile: file})
	all(t, p, "does not know the token in "+file)
	if err := os.WriteFile(file, []byte(agent.Token("qa", `key_prefix "config/qa/" { policy = "write" }`)), 0o600); err != nil {
		t.Fatal(err)
	}
	recovers(t, p, "hello")
}
