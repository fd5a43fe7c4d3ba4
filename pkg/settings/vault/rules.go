package vault

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
)

// The services that have a login of their own, by what they do.
const (
	writer = string(events.Gateway) // lists, sets and deletes, and reads no value
	reader = string(events.Promote) // reads values, and gives apps their tokens
)

const (
	// wrapTTL is how long a service may be stopped and still log in by itself, as the rules have it; the one that
	// somebody wraps the first secret id for counts.
	wrapTTL = "72h"
	// appWrapTTL is how long a token waits for the next start of a container. It is replaced at half of that, so for
	// the other half containers can start again while promote is away. appPeriod is within which time an app must
	// renew its token, as the rules have it: it runs while the token waits.
	appWrapTTL = 24 * time.Hour
	appPeriod  = "24h"
)

// roleName is the AppRole role of a service in an environment, and its policy's name.
func roleName(env events.Slug, service string) string {
	return "towpath-" + string(env) + "-" + service
}

// appRoleName is the token role of apps that find their secrets themselves, and its policy's name.
func appRoleName(env events.Slug) string { return roleName(env, "app") }

// Rules returns the shell commands with which an administrator of Vault gives each service what it needs in an
// environment, and nothing in any other. discover adds what apps need that find their secrets themselves.
func Rules(cfg policy.Vault, env events.Slug, discover bool) (string, error) {
	if err := separable(cfg.Path, env); err != nil {
		return "", err
	}
	cfg.AppRole = cmp.Or(cfg.AppRole, "approle")
	var out strings.Builder
	say := func(format string, a ...any) { fmt.Fprintf(&out, format+"\n", a...) }
	say("# Vault of %s. Run this as an administrator of it:", env)
	say("export VAULT_ADDR=%s", cfg.Address)
	if cfg.Namespace != "" {
		say("export VAULT_NAMESPACE=%s", cfg.Namespace)
	}
	if cfg.Cert != "" {
		say("# It asks for a client certificate: set VAULT_CLIENT_CERT and VAULT_CLIENT_KEY to yours.")
	}
	if cfg.TokenFile == "" {
		say("vault read sys/auth/%[1]s >/dev/null 2>&1 || vault auth enable -path=%[1]s approle", cfg.AppRole)
	}
	for _, service := range []string{writer, reader} {
		name := roleName(env, service)
		say("\n# %s", map[string]string{
			writer: "The gateway lists, sets and removes secrets. It reads no value.",
			reader: "promote reads the values that it hands to the apps.",
		}[service])
		say("vault policy write %s - <<'RULES'\n%sRULES", name, servicePolicy(cfg, env, service, discover))
		if cfg.TokenFile != "" {
			say("vault token create -orphan -policy=%s -period=24h -field=token > %s # somebody has to renew it", name, file(cfg.TokenFile, service))
			continue
		}
		role := "auth/" + cfg.AppRole + "/role/" + name
		say("vault write %s token_policies=%s token_no_default_policy=true token_ttl=1h token_max_ttl=24h \\\n  secret_id_num_uses=1 secret_id_ttl=73h", role, name)
		say("vault read -field=role_id %s/role-id > %s", role, file(cfg.RoleIDFile, service))
		say("(umask 077; vault write -f -field=wrapping_token -wrap-ttl=%s %s/secret-id > %s)", wrapTTL, role, file(cfg.SecretIDFile, service))
	}
	if discover {
		name := appRoleName(env)
		say("\n# Apps that find their secrets themselves (discover: true). promote makes each a token that knows the app's name. For that it\n# may look up and end any token whose accessor it knows, in all of this Vault or namespace: no policy can say less.")
		say("accessor=$(vault read -field=accessor sys/auth/token)")
		say("vault policy write %s - <<RULES\n%sRULES", name, appPolicy(cfg, env, "$accessor"))
		say("vault write auth/token/roles/%[1]s allowed_policies=%[1]s allowed_entity_aliases='*' orphan=true renewable=true token_period=%[2]s", name, appPeriod)
	}
	return out.String(), nil
}

func file(template, service string) string {
	return strings.ReplaceAll(template, policy.ServicePlaceholder, service)
}

// separable reports a layout in which no policy can tell one environment from another: Vault's policies match whole
// segments of a path.
func separable(template string, env events.Slug) error {
	for segment := range strings.SplitSeq(template, "/") {
		if strings.Contains(segment, "{env}") && strings.ContainsAny(strings.Replace(segment, "{env}", "", 1), "{}") {
			return fmt.Errorf("vault of %s: path %s: no policy of Vault can keep environments apart where %s is one segment: give {env} a segment of its own, such as {env}/{app}/{key}",
				env, template, segment)
		}
	}
	return nil
}

// grant is one rule of a policy.
type grant struct {
	path         string
	capabilities string
	wrapped      bool // the answer must be wrapped
}

// servicePolicy returns the policy, in HCL, of one service in one environment.
func servicePolicy(cfg policy.Vault, env events.Slug, service string, discover bool) string {
	grants := needs(cfg, env, service)
	if service == reader && discover {
		grants = append(grants, grant{path: "auth/token/create/" + appRoleName(env), capabilities: "create update", wrapped: true},
			grant{path: "auth/token/lookup-accessor", capabilities: "update"},
			grant{path: "auth/token/revoke-accessor", capabilities: "update"})
	}
	return hcl(append(grants,
		grant{path: "auth/token/lookup-self", capabilities: "read"},
		grant{path: "auth/token/renew-self", capabilities: "update"},
		grant{path: "auth/token/revoke-self", capabilities: "update"},
		grant{path: capabilitiesSelf, capabilities: "update"}))
}

// needs returns what a service does in one environment, but for apps with discover: true.
func needs(cfg policy.Vault, env events.Slug, service string) []grant {
	path, folder := pattern(cfg.Path, env), ""
	if l := newLayout(cfg.Path); l.perKey() {
		folder, _, _, _ = l.around(env, "+")
		folder = pattern(folder, env)
	}
	below := func(endpoint, path string) string { return strings.TrimSuffix(cfg.Mount+"/"+endpoint+"/"+path, "/") }
	grants := []grant{{path: below(withoutValues, path), capabilities: "read"}}
	metadata := "read"
	switch {
	case service == reader:
		grants = append(grants, grant{path: below(withValues, path), capabilities: "read"})
	case service == writer && !cfg.ReadOnly:
		grants = append(grants, grant{path: below(withValues, path), capabilities: "create update patch"}, grant{path: below("destroy", path), capabilities: "update"})
		metadata = "read patch"
	}
	grants = append(grants, grant{path: below("metadata", path), capabilities: metadata})
	if newLayout(cfg.Path).perKey() {
		grants = append(grants, grant{path: below("metadata", folder) + "/", capabilities: "list"})
	}
	if cfg.TokenFile == "" {
		grants = append(grants, grant{path: "auth/" + cmp.Or(cfg.AppRole, "approle") + "/role/" + roleName(env, service) + "/secret-id", capabilities: "update", wrapped: true})
	}
	return grants
}

// appPolicy returns the policy of all apps of an environment, in which an app's name is that of its token's alias at the
// token method with this accessor.
func appPolicy(cfg policy.Vault, env events.Slug, accessor string) string {
	name := "{{identity.entity.aliases." + accessor + ".name}}"
	path := strings.ReplaceAll(strings.ReplaceAll(newLayout(cfg.Path).template, "{env}", string(env)), "{app}", name)
	grants := []grant{{path: cfg.Mount + "/data/" + plus(path, "{key}"), capabilities: "read"}}
	if l := newLayout(cfg.Path); l.perKey() {
		folder, _, _, _ := l.around(env, events.Slug(name))
		grants = append(grants, grant{path: strings.TrimSuffix(cfg.Mount+"/metadata/"+folder, "/") + "/", capabilities: "list"})
	}
	return hcl(grants)
}

// pattern returns a template's paths of one environment as policies write them: a + stands for any one segment.
func pattern(template string, env events.Slug) string {
	return plus(strings.ReplaceAll(template, "{env}", string(env)), "{app}", "{key}", "+")
}

// plus replaces the segments in which one of the placeholders is.
func plus(path string, placeholders ...string) string {
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		for _, p := range placeholders {
			if strings.Contains(segment, p) {
				segments[i] = "+"
			}
		}
	}
	return strings.Join(segments, "/")
}

func hcl(grants []grant) string {
	var out strings.Builder
	for _, g := range grants {
		fmt.Fprintf(&out, "path %q {\n  capabilities = [\"%s\"]\n", g.path, strings.Join(strings.Fields(g.capabilities), `", "`))
		if g.wrapped {
			out.WriteString("  min_wrapping_ttl = \"1s\"\n  max_wrapping_ttl = \"768h\"\n")
		}
		out.WriteString("}\n")
	}
	return out.String()
}
