package towpath

import (
	"testing"

	"towpath.dev/pkg/policy"
)

func TestPlatformTextNamesDockersOwnHost(t *testing.T) {
	for _, c := range []struct {
		host string
		want policy.Engine
	}{
		{"", policy.Default().Engines.Build},
		{"unix:///run/user/1000/docker.sock", policy.Engine{Host: "unix:///run/user/1000/docker.sock"}},
		{"ssh://ann@build.example.org", policy.Engine{Host: "ssh://ann@build.example.org"}},
		{"tcp://docker:2376", policy.Engine{Host: "tcp://docker:2376", TLS: policy.TLS{CA: "/certs/ca.pem", Cert: "/certs/cert.pem", Key: "/certs/key.pem"}}},
	} {
		p, err := policy.Parse(policy.FileName, []byte(platformText(c.host, "/certs")))
		if err != nil {
			t.Errorf("%q: %v", c.host, err)
			continue
		}
		if p.Engines.Build != c.want || p.Engine("prod") != c.want {
			t.Errorf("%q: build %+v, prod %+v, want %+v", c.host, p.Engines.Build, p.Engine("prod"), c.want)
		}
	}
}
