package policy

import (
	"net/url"
	"strings"

	"go.yaml.in/yaml/v3"

	"towpath.dev/events"
)

// Stores says where one environment's settings are kept. What is nil is kept by the embedded store.
type Stores struct {
	Consul *Consul // configuration, and where the app's replicas are registered
	Vault  *Vault  // secrets
}

// ServicePlaceholder stands in the path of a file for the name of the service that reads it, so that each has a token
// of its own: gateway, promote.
const ServicePlaceholder = "{service}"

// Consul is one environment's Consul. Its zero fields are filled by Parse as said beside them.
type Consul struct {
	Address   string // http://host:port or https://host:port
	TokenFile string // holds the ACL token; may have ServicePlaceholder; empty: anonymous
	CA        string // PEM file of who signed the server's certificate; empty: the system's
	// Cert and Key are PEM files of what a service shows of itself where the server asks for it; both may have
	// ServicePlaceholder. Empty: nothing. Apps are not given them.
	Cert, Key string
	Path      string // KV path of a key, with {env}, {app} and {key}; default config/{env}/{app}/{key}
	Shared    string // KV path of a key of all apps, with {env} and {key}; empty: there is no such level
	ReadOnly  bool   // Towpath never writes there
	Register  bool   // running replicas are in the catalog, with health checks; default true
	// AppAddress is where containers of apps that find their settings themselves reach it. Empty: at Address, where a
	// loopback address stands for the machine that the container runs on.
	AppAddress string
	Service    string // name of an app in the catalog, with {env} and {app}; default {app}-{env}
}

// Vault is one environment's Vault, with a KV v2 mount.
type Vault struct {
	Address   string // http://host:port or https://host:port
	Namespace string // of Vault Enterprise or HCP; empty: none
	CA        string // PEM file of who signed the server's certificate; empty: the system's
	Cert, Key string // Consul's Cert and Key for this server
	Mount     string // of KV v2; default secret
	// Path is where secrets are below the mount, with {env} and {app}. With {key} each secret has a path of its own and
	// is its field "value"; without, an app's secrets are the fields of one path. Default {env}/{app}/{key}.
	Path     string
	ReadOnly bool // Towpath never writes there
	// How a service logs in: with a role id and a secret id of AppRole, or a token that somebody else keeps alive. All
	// may have ServicePlaceholder.
	AppRole      string // mount of the AppRole method; default approle
	RoleIDFile   string
	SecretIDFile string // holds a response-wrapping token around a single-use secret id; it is replaced by the next one
	TokenFile    string
	// AppAddress is Consul's AppAddress for this server.
	AppAddress string
}

// The defaults of paths.
const (
	defaultConsulPath = "config/{env}/{app}/{key}"
	defaultService    = "{app}-{env}"
	defaultVaultPath  = "{env}/{app}/{key}"
)

// Stores returns where an environment's settings are kept.
func (p *Platform) Stores(env events.Slug) Stores {
	if s, ok := p.Settings[env]; ok {
		return s
	}
	return p.Settings[DefaultEnvironment]
}

func (r reader) stores(node *yaml.Node, key string) Stores {
	var s Stores
	r.Fields(node, key, fields{
		"consul": func(n *yaml.Node, key string) { s.Consul = r.consul(n, key) },
		"vault":  func(n *yaml.Node, key string) { s.Vault = r.vault(n, key) },
	})
	return s
}

func (r reader) consul(node *yaml.Node, key string) *Consul {
	c := &Consul{Path: defaultConsulPath, Register: true, Service: defaultService}
	r.Fields(node, key, fields{
		"address":    func(n *yaml.Node, key string) { c.Address = r.server(n, key) },
		"tokenFile":  func(n *yaml.Node, key string) { c.TokenFile = r.file(n, key, true) },
		"ca":         func(n *yaml.Node, key string) { c.CA = r.file(n, key, false) },
		"cert":       func(n *yaml.Node, key string) { c.Cert = r.file(n, key, true) },
		"key":        func(n *yaml.Node, key string) { c.Key = r.file(n, key, true) },
		"path":       func(n *yaml.Node, key string) { c.Path = r.template(n, key, "{env}", "{app}", "{key}") },
		"shared":     func(n *yaml.Node, key string) { c.Shared = r.template(n, key, "{env}", "{key}") },
		"readOnly":   func(n *yaml.Node, key string) { c.ReadOnly = r.Bool(n, key) },
		"register":   func(n *yaml.Node, key string) { c.Register = r.Bool(n, key) },
		"appAddress": func(n *yaml.Node, key string) { c.AppAddress = r.server(n, key) },
		"service": func(n *yaml.Node, key string) {
			c.Service = r.Matching(n, key, maxText, "a name with {app}, and with {env} unless each environment has a Consul of its own", isServiceName)
		},
	})
	if c.Address == "" {
		r.Fault(node, key, "address must be given", "", "address: https://consul.example.com:8501")
	}
	r.clientCertificate(node, key, c.Address, c.Cert, c.Key)
	return c
}

func (r reader) vault(node *yaml.Node, key string) *Vault {
	v := &Vault{Mount: "secret", Path: defaultVaultPath, AppRole: "approle"}
	name := func(to *string) func(n *yaml.Node, key string) {
		return func(n *yaml.Node, key string) {
			*to = strings.Trim(r.Matching(n, key, maxText, "a path such as team/kv, without spaces", isPath), "/")
		}
	}
	r.Fields(node, key, fields{
		"address":      func(n *yaml.Node, key string) { v.Address = r.server(n, key) },
		"namespace":    name(&v.Namespace),
		"ca":           func(n *yaml.Node, key string) { v.CA = r.file(n, key, false) },
		"cert":         func(n *yaml.Node, key string) { v.Cert = r.file(n, key, true) },
		"key":          func(n *yaml.Node, key string) { v.Key = r.file(n, key, true) },
		"mount":        name(&v.Mount),
		"path":         func(n *yaml.Node, key string) { v.Path = r.vaultPath(n, key) },
		"readOnly":     func(n *yaml.Node, key string) { v.ReadOnly = r.Bool(n, key) },
		"appRole":      name(&v.AppRole),
		"roleIDFile":   func(n *yaml.Node, key string) { v.RoleIDFile = r.file(n, key, true) },
		"secretIDFile": func(n *yaml.Node, key string) { v.SecretIDFile = r.file(n, key, true) },
		"tokenFile":    func(n *yaml.Node, key string) { v.TokenFile = r.file(n, key, true) },
		"appAddress":   func(n *yaml.Node, key string) { v.AppAddress = r.server(n, key) },
	})
	r.clientCertificate(node, key, v.Address, v.Cert, v.Key)
	roles := v.RoleIDFile != "" || v.SecretIDFile != ""
	switch {
	case v.Address == "":
		r.Fault(node, key, "address must be given", "", "address: https://vault.example.com:8200")
	case roles == (v.TokenFile != ""), roles && (v.RoleIDFile == "" || v.SecretIDFile == ""):
		r.Fault(node, key, "either roleIDFile and secretIDFile must be given, or tokenFile", "", "")
	}
	return v
}

// clientCertificate checks that a client certificate is whole and can be shown.
func (r reader) clientCertificate(node *yaml.Node, field, address, cert, key string) {
	switch {
	case (cert == "") != (key == ""):
		r.Fault(node, field, "cert and key belong together: give both, or neither", "", "")
	case cert != "" && address != "" && !strings.HasPrefix(address, "https://"):
		r.Fault(node, field, "cert is shown over TLS alone: let address begin with https://", address, "")
	}
}

// server reads the address of a server.
func (r reader) server(node *yaml.Node, key string) string {
	return r.Matching(node, key, maxText, "http://host:port or https://host:port, and nothing else", func(s string) bool {
		u, err := url.Parse(s)
		return err == nil && u.Host != "" && u.User == nil && u.RawQuery == "" && strings.Trim(u.Path, "/") == "" &&
			(u.Scheme == "http" || u.Scheme == "https")
	})
}

// file reads the path of a file, which each service may have one of its own of.
func (r reader) file(node *yaml.Node, key string, perService bool) string {
	want := "the absolute path of a file"
	if perService {
		want += ", in which " + ServicePlaceholder + " is the name of the service that reads it"
	}
	return r.Matching(node, key, maxText, want, func(s string) bool {
		if perService {
			s = strings.ReplaceAll(s, ServicePlaceholder, "x")
		}
		return strings.HasPrefix(s, "/") && !strings.ContainsAny(s, "{}")
	})
}

// template reads a path in which each of the placeholders stands once.
func (r reader) template(node *yaml.Node, key string, placeholders ...string) string {
	want := "a path with " + strings.Join(placeholders, ", ") + ", each once, and no other braces"
	return strings.Trim(r.Matching(node, key, maxText, want, func(s string) bool {
		for _, p := range placeholders {
			if strings.Count(s, p) != 1 {
				return false
			}
			s = strings.Replace(s, p, "x", 1)
		}
		return isPath(s)
	}), "/")
}

// vaultPath reads a template whose {key} may be left out.
func (r reader) vaultPath(node *yaml.Node, key string) string {
	if strings.Contains(node.Value, "{key}") {
		return r.template(node, key, "{env}", "{app}", "{key}")
	}
	return r.template(node, key, "{env}", "{app}")
}

// isServiceName reports whether s makes a name that is also one of DNS.
func isServiceName(s string) bool {
	rest := strings.Replace(strings.Replace(s, "{app}", "", 1), "{env}", "", 1)
	return strings.Contains(s, "{app}") && len(s) <= 40 && strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// isPath reports whether s is a path of one or more names.
func isPath(s string) bool {
	for name := range strings.SplitSeq(strings.Trim(s, "/"), "/") {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, " {}\\?#%*") {
			return false
		}
	}
	return true
}
