package consul_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/settings/consul"
	"towpath.dev/pkg/settings/consul/consultest"
)

// examined checks what a service is told of its Consul.
func examined(t *testing.T, cfg policy.Consul, service events.Writer, says ...string) settings.Examination {
	t.Helper()
	cfg.Path = "config/{env}/{app}/{key}"
	p, err := consul.New(cfg, "qa", string(service))
	if err != nil {
		t.Fatal(err)
	}
	e := p.Examine(t.Context(), "qa")
	for _, want := range says {
		if !slices.ContainsFunc(e.Says, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("%s is told %q, and not %q (%v)", service, e.Says, want, e.Err)
		}
	}
	return e
}

func TestExamine(t *testing.T) {
	agent := consultest.StartWithACLs(t)
	gateway := agent.Token("gateway", `key_prefix "config/qa/" { policy = "write" }`)
	cfg := policy.Consul{Address: agent.URL, TokenFile: consultest.TokenFile(t, gateway), Register: true}
	if e := examined(t, cfg, events.Gateway, "leader 127.0.0.1:", "token without an end", "loopback", "has the rights", "agent:read"); e.Err != nil || len(e.Doubts) > 0 {
		t.Errorf("%v, %v", e.Err, e.Doubts)
	}
	// What promote needs besides is named, and where it comes from.
	unavailable(t, "examining", func() error { return examined(t, cfg, events.Promote).Err },
		`service:write on ""`, `node:write on ""`, "lacks", "towpath settings rules qa")
	cfg.Shared = "shared/{env}/{key}"
	unavailable(t, "examining", func() error { return examined(t, cfg, events.Gateway).Err }, `key:write on "shared/qa/"`)
	cfg.Shared = ""

	// A token that will end soon, of a bearer who is told the version.
	made, _, err := agent.API.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{Name: "global-management"}}, ExpirationTTL: time.Hour}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.TokenFile = consultest.TokenFile(t, made.SecretID)
	if e := examined(t, cfg, events.Promote, "Consul 1.", "token valid until", "has the rights"); e.Err != nil || len(e.Doubts) != 1 || !strings.Contains(e.Doubts[0].Why, "ends at") {
		t.Errorf("%v, %v", e.Err, e.Doubts)
	}
	cfg.TokenFile = consultest.TokenFile(t, "6d9d0f5c-0000-0000-0000-000000000000")
	unavailable(t, "examining", func() error { return examined(t, cfg, events.Promote).Err }, "it does not know the token in")
	cfg.TokenFile = ""
	if e := examined(t, cfg, events.Gateway); e.Err == nil || len(e.Doubts) != 1 || !strings.Contains(e.Doubts[0].Why, "anonymous") {
		t.Errorf("%v, %v", e.Err, e.Doubts)
	}
	agent.Kill()
	unavailable(t, "examining", func() error { return examined(t, cfg, events.Gateway).Err }, "it is not reached")
}

// A Consul that asks for no tokens lets everybody in.
func TestExamineWithoutACLs(t *testing.T) {
	agent := consultest.Start(t)
	cfg := policy.Consul{Address: agent.URL, TokenFile: consultest.TokenFile(t, "any")}
	if e := examined(t, cfg, events.Gateway, "leader"); e.Err != nil || len(e.Doubts) != 1 || !strings.Contains(e.Doubts[0].Why, "ACLs are off") {
		t.Errorf("%v, %v", e.Err, e.Doubts)
	}
	servers := consultest.StartCluster(t, 2)
	servers[1].Kill()
	cfg.Address = servers[0].URL
	within(t, func() bool {
		err := examined(t, cfg, events.Gateway).Err
		var away *settings.UnavailableError
		return errors.As(err, &away) && strings.Contains(err.Error(), "no leader") && strings.Contains(away.Do, "majority")
	})
}

func within(t *testing.T, is func() bool) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for !is() {
		if time.Now().After(end) {
			t.Fatal("not within a minute")
		}
		time.Sleep(100 * time.Millisecond)
	}
}
