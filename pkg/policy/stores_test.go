package policy

import (
	"strings"
	"testing"
)

// A client certificate is whole, and is shown over TLS alone.
func TestClientCertificateOfStores(t *testing.T) {
	for _, c := range []struct{ address, files, want string }{
		{"https://store:8501", `cert: "/etc/{service}.pem", key: "/etc/{service}.key"`, ""},
		{"https://store:8501", `cert: /etc/own.pem`, "cert and key belong together"},
		{"https://store:8501", `key: /etc/own.key`, "cert and key belong together"},
		{"http://store:8501", `cert: /etc/own.pem, key: /etc/own.key`, "let address begin with https://"},
		{"https://store:8501", `cert: own.pem, key: /etc/own.key`, "the absolute path of a file"},
	} {
		for _, store := range []string{"consul: {address: ADDRESS, FILES}", "vault: {address: ADDRESS, tokenFile: /t, FILES}"} {
			text := "settings:\n  prod:\n    " + strings.NewReplacer("ADDRESS", c.address, "FILES", c.files).Replace(store) + "\n"
			p, err := Parse("platform.yaml", []byte(text))
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: %v, want %q", text, err, c.want)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if s := p.Stores("prod"); s.Consul != nil && (s.Consul.Cert != "/etc/{service}.pem" || s.Consul.Key != "/etc/{service}.key") ||
				s.Vault != nil && (s.Vault.Cert != "/etc/{service}.pem" || s.Vault.Key != "/etc/{service}.key") {
				t.Errorf("%+v", s)
			}
		}
	}
}
