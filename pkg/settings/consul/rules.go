package consul

import (
	"fmt"
	"strings"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
)

// Rules returns the shell commands with which an administrator of Consul gives each service what it needs in an
// environment. discover adds what promote needs so that apps find their settings themselves: it makes them tokens.
func Rules(cfg policy.Consul, env events.Slug, discover bool) string {
	var out strings.Builder
	say := func(format string, a ...any) { fmt.Fprintf(&out, format+"\n", a...) }
	say("# Consul of %s. Run this as an administrator of it (CONSUL_HTTP_TOKEN):", env)
	say("export CONSUL_HTTP_ADDR=%s", cfg.Address)
	if cfg.CA != "" {
		say("export CONSUL_CACERT=%s", cfg.CA)
	}
	if cfg.Cert != "" {
		say("# It asks for a client certificate: set CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY to yours.")
	}
	if cfg.TokenFile == "" {
		say("# Towpath is anonymous there: tokenFile is not given. These rules go to the anonymous token, and do not tell services apart.")
	}
	if head, _, _ := strings.Cut(cfg.Path, "{"); !strings.HasPrefix(cfg.Path, head+"{env}") {
		say("# Consul's rules are about the beginnings of keys, and %s does not begin with the environment: these reach every\n# environment in this Consul. Give each a Consul of its own, or a path that begins with {env}.", cfg.Path)
	}
	for _, service := range []struct{ name, what string }{
		{string(events.Gateway), "The gateway lists, sets and removes configuration."},
		{string(events.Promote), "promote reads the values that it hands to the apps, and registers their replicas."},
	} {
		rules := ""
		for _, r := range rights(cfg, env, service.name) {
			rules += aclRule(r.kind+"_prefix", r.name, r.access)
		}
		if discover && service.name == string(events.Promote) {
			say("\n# acl = \"write\" is for the tokens of apps with discover: true. It reaches all of this Consul, so let no other environment share it.")
			rules += "acl = \"write\"\n"
		}
		name := "towpath-" + string(env) + "-" + service.name
		say("\n# %s", service.what)
		say("consul acl policy create -name %s -rules - <<'RULES'\n%sRULES", name, rules)
		if cfg.TokenFile == "" {
			say("consul acl token update -accessor-id 00000000-0000-0000-0000-000000000002 -append-policy-name %s", name)
			continue
		}
		say("(umask 077; consul acl token create -description %s -policy-name %s | awk '/^SecretID/ {print $2}' > %s)",
			name, name, strings.ReplaceAll(cfg.TokenFile, policy.ServicePlaceholder, service.name))
	}
	return out.String()
}

// right is a rule of Consul's ACLs about all names with a beginning.
type right struct{ kind, name, access string }

// rights are what a service needs in an environment, but for apps with discover: true.
func rights(cfg policy.Consul, env events.Slug, service string) []right {
	keys := "read"
	if service == string(events.Gateway) && !cfg.ReadOnly {
		keys = "write"
	}
	var all []right
	for _, template := range []string{cfg.Path, cfg.Shared} {
		if template != "" {
			all = append(all, right{"key", keyPrefix(template, env), keys})
		}
	}
	if service == string(events.Promote) && cfg.Register {
		all = append(all, right{"service", "", "write"}, right{"node", "", "write"})
	}
	return all
}

func aclRule(kind, name, access string) string {
	return fmt.Sprintf("%s %q { policy = %q }\n", kind, name, access)
}

// keyPrefix is what all keys of an environment begin with.
func keyPrefix(template string, env events.Slug) string {
	filled := strings.ReplaceAll(template, "{env}", string(env))
	head, _, _ := strings.Cut(filled, "{")
	return head
}
