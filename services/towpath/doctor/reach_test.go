package doctor

import (
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
)

func TestRegistryFromEngines(t *testing.T) {
	for _, c := range []struct {
		registry, build, prod, status string
	}{
		{"127.0.0.1:7050", "unix:///var/run/docker.sock", "unix:///run/prod.sock", OK},
		{"127.0.0.1:7050", "unix:///var/run/docker.sock", "ssh://root@prod.example.org", Broken},
		{"localhost:7050/team", "tcp://10.0.0.7:2376", "unix:///var/run/docker.sock", Broken},
		{"[::1]:7050", "ssh://build", "unix:///var/run/docker.sock", Broken},
		{"127.0.0.1:7050", "ssh://localhost", "tcp://127.0.0.1:2376", OK},
		{"registry.example.org/team", "ssh://build", "ssh://prod", OK},
	} {
		p := &policy.Platform{}
		p.Engines.Build = policy.Engine{Host: c.build}
		p.Engines.Environments = map[events.Slug]policy.Engine{"prod": {Host: c.prod}}
		if got := reachCheck(c.registry, p); got.Status != c.status {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}
