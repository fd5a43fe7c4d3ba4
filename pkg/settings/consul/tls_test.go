package consul_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/settings/consul/consultest"
	"towpath.dev/pkg/settings/settingstest"
)

// A Consul that speaks TLS is believed with the certificate of who signed its own, and with no other.
func TestTheServersCertificateIsChecked(t *testing.T) {
	folder := t.TempDir()
	cert, key := settingstest.Certificate(t, folder, "server")
	other, _ := settingstest.Certificate(t, folder, "other")
	agent := consultest.StartTLS(t, cert, key)

	p := provider(t, policy.Consul{Address: agent.URL, CA: cert})
	if _, err := p.Set(t.Context(), greeting, "hello", nil); err != nil {
		t.Fatal(err)
	}
	if value, _ := get(t, p, greeting); value != "hello" {
		t.Errorf("it reads %q", value)
	}
	if _, err := p.Watch(t.Context(), "qa", "hello", 0); err != nil {
		t.Errorf("watching: %v", err)
	}

	const mend = "name a file with who signed it as ca of that Consul in platform.yaml"
	all(t, provider(t, policy.Consul{Address: agent.URL, CA: other}), "its certificate is not trusted", mend)
	all(t, provider(t, policy.Consul{Address: agent.URL}), "its certificate is not trusted", mend)
	all(t, provider(t, policy.Consul{Address: agent.URL, CA: filepath.Join(folder, "none.pem")}), "none.pem: no such file", "may read")
	all(t, provider(t, policy.Consul{Address: agent.URL, CA: key}), key+" holds no PEM certificate", "may read")
	all(t, provider(t, policy.Consul{Address: strings.Replace(agent.URL, "https", "http", 1)}), "it speaks TLS", "begin with https://")

	// The file is read for each connection: it is mended in place.
	mended := filepath.Join(folder, "mended.pem")
	p = provider(t, policy.Consul{Address: agent.URL, CA: mended})
	unavailable(t, "reading", func() error { _, _, err := p.Get(t.Context(), greeting); return err }, "mended.pem")
	text, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mended, text, 0o600); err != nil {
		t.Fatal(err)
	}
	recovers(t, p, "hello")

	// An app believes it with what it is given.
	g, token := granted(t, p, holder)
	if token != "" || g.Env["CONSUL_CACERT"] != settings.FilesFolder+"/consul-ca.pem" || !strings.HasPrefix(g.Env["CONSUL_HTTP_ADDR"], "https://host.docker.internal:") {
		t.Errorf("%v", g.Env)
	}
	given := filepath.Join(folder, "given.pem")
	if err := os.WriteFile(given, []byte(g.Files["consul-ca.pem"].Reveal()), 0o600); err != nil {
		t.Fatal(err)
	}
	app, err := api.NewClient(&api.Config{Address: agent.URL, TLSConfig: api.TLSConfig{CAFile: given}})
	if err != nil {
		t.Fatal(err)
	}
	if pair, _, err := app.KV().Get("config/qa/hello/GREETING", nil); err != nil || string(pair.Value) != "hello" {
		t.Errorf("the app reads %v (%v)", pair, err)
	}
}

// Where Consul asks who connects, a service shows the certificate that platform.yaml names, read anew each time.
func TestClientCertificate(t *testing.T) {
	folder := t.TempDir()
	cert, key := settingstest.Certificate(t, folder, "server")
	own, ownKey := settingstest.Certificate(t, folder, "promote")
	other, otherKey := settingstest.Certificate(t, folder, "other")
	agent := consultest.StartTLS(t, cert, key, own, ownKey)
	p := provider(t, policy.Consul{Address: agent.URL, CA: cert, Cert: filepath.Join(folder, "{service}.pem"), Key: filepath.Join(folder, "{service}.key")})
	if _, err := p.Set(t.Context(), greeting, "hello", nil); err != nil {
		t.Fatal(err)
	}
	if value, _ := get(t, p, greeting); value != "hello" {
		t.Errorf("it reads %q", value)
	}
	const mend = "as cert and key of that Consul in platform.yaml"
	all(t, provider(t, policy.Consul{Address: agent.URL, CA: cert}), "it does not take what this service shows of itself", mend)
	all(t, provider(t, policy.Consul{Address: agent.URL, CA: cert, Cert: other, Key: otherKey}), "it does not take what this service shows of itself", mend)
	all(t, provider(t, policy.Consul{Address: agent.URL, CA: cert, Cert: own, Key: otherKey}), "private key does not match public key", "may read")
}
