package consul

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"towpath.dev/events"
	"towpath.dev/pkg/settings"
)

// Variables that an app finds its keys with, besides Consul's own.
const (
	PathVariable       = "TOWPATH_CONFIG_PATH"        // what each of its keys begins with in the KV store, such as config/qa/hello/
	SharedPathVariable = "TOWPATH_CONFIG_SHARED_PATH" // the same of the level that apps share, where there is one
)

// Files that an app finds beside its secrets.
const (
	tokenFile = "consul-token"
	caFile    = "consul-ca.pem"
)

// Grant implements settings.Access with an ACL token that reads the app's keys in the environment, and those of the
// shared level. Where Consul has no ACLs the app needs none. It needs the right acl:write.
func (p *Provider) Grant(ctx context.Context, h settings.Holder) (settings.Grant, error) {
	own := layoutOf(p.cfg.Path, h.Env, h.App)
	if own.suffix != "" || !strings.HasSuffix(own.prefix, "/") {
		return settings.Grant{}, fmt.Errorf("%s: %w: an app can find its settings itself only where its keys have a folder of their own: let the path %q end in /{key} in platform.yaml",
			p.store, settings.ErrInvalid, p.cfg.Path)
	}
	g := settings.Grant{
		Env: map[string]string{"CONSUL_HTTP_ADDR": cmp.Or(p.cfg.AppAddress, settings.FromContainers(p.cfg.Address)), PathVariable: own.prefix}, Files: map[string]settings.Secret{},
	}
	rules := rule("key_prefix", own.prefix)
	if p.cfg.Shared != "" {
		shared := layoutOf(p.cfg.Shared, h.Env, h.App)
		g.Env[SharedPathVariable] = shared.prefix
		rules += sharedRules(own, shared, h.Keys)
	}
	if p.cfg.CA != "" {
		text, err := os.ReadFile(p.cfg.CA)
		if err != nil {
			return settings.Grant{}, p.explain("reading its CA", &fileError{err})
		}
		g.Files[caFile], g.Env["CONSUL_CACERT"] = settings.NewSecret(string(text)), settings.FilesFolder+"/"+caFile
	}
	token, err := p.appToken(ctx, h, rules)
	if err != nil {
		return settings.Grant{}, err
	}
	if token != "" {
		g.Files[tokenFile], g.Env["CONSUL_HTTP_TOKEN_FILE"] = settings.NewSecret(token), settings.FilesFolder+"/"+tokenFile
	}
	return g, nil
}

func rule(kind, path string) string { return fmt.Sprintf("%s %q { policy = \"read\" }\n", kind, path) }

// sharedRules let an app read the shared level: all of it, or where that holds other apps' keys as well, the keys that
// it declares.
func sharedRules(own, shared layout, keys []string) string {
	if shared.suffix == "" && strings.HasSuffix(shared.prefix, "/") && !strings.HasPrefix(own.prefix, shared.prefix) {
		return rule("key_prefix", shared.prefix)
	}
	rules := ""
	for _, key := range slices.Sorted(slices.Values(keys)) {
		rules += rule("key", shared.path(key))
	}
	return rules
}

// appToken returns the token of a holder, made at the first call. Policy and accessor follow from the holder, so that
// whoever comes after a crash finds them.
func (p *Provider) appToken(ctx context.Context, h settings.Holder, rules string) (secret string, err error) {
	doing := fmt.Sprintf("giving slot %d of %s an ACL token", h.Slot, h.App)
	name, accessor := policyPrefix(h.Install, h.Env, h.App)+strconv.Itoa(h.Slot), accessorOf(h)
	err = p.ask(ctx, doing, func(ctx context.Context) error {
		if err := p.ensurePolicy(ctx, name, rules); err != nil {
			return err
		}
		token, err := p.ensureToken(ctx, accessor, name)
		if err == nil {
			secret = token.SecretID
		}
		return err
	})
	switch {
	case noACLs(err):
		return "", nil
	case err != nil:
		return "", err
	}
	p.granted.Store([2]events.Slug{h.Env, h.App}, true)
	if strings.HasPrefix(secret, "<") { // shown to whoever may only read ACLs
		return "", p.away(doing, "it does not show the token that was made", "give promote's token the right acl = \"write\"", errors.New("hidden"))
	}
	return secret, nil
}

func (p *Provider) ensurePolicy(ctx context.Context, name, rules string) error {
	acl := p.api.ACL()
	present, _, err := acl.PolicyReadByName(name, (&api.QueryOptions{}).WithContext(ctx))
	switch {
	case err != nil && !missing(err):
		return err
	case present == nil:
		_, _, err = acl.PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules, Description: "Made by Towpath for one version of an app"}, (&api.WriteOptions{}).WithContext(ctx))
	case present.Rules != rules:
		present.Rules = rules
		_, _, err = acl.PolicyUpdate(present, (&api.WriteOptions{}).WithContext(ctx))
	}
	return err
}

func (p *Provider) ensureToken(ctx context.Context, accessor, policy string) (*api.ACLToken, error) {
	acl := p.api.ACL()
	token, _, err := acl.TokenRead(accessor, (&api.QueryOptions{}).WithContext(ctx))
	if err == nil || !missing(err) {
		return token, err
	}
	token, _, err = acl.TokenCreate(&api.ACLToken{
		AccessorID: accessor, Description: "Made by Towpath: " + policy, Local: true, Policies: []*api.ACLTokenPolicyLink{{Name: policy}},
	}, (&api.WriteOptions{}).WithContext(ctx))
	return token, err
}

// Revoke implements settings.Access. Where this process has made no tokens for the app, it is fine that it may not list
// any: it needs no such right then.
func (p *Provider) Revoke(ctx context.Context, install string, env, app events.Slug, keep func(slot int) bool) error {
	prefix := policyPrefix(install, env, app)
	gone := func(policy string) bool {
		slot, ours := strings.CutPrefix(policy, prefix)
		n, err := strconv.Atoi(slot)
		return ours && err == nil && !keep(n)
	}
	err := p.ask(ctx, fmt.Sprintf("taking ACL tokens of %s away", app), func(ctx context.Context) error {
		acl := p.api.ACL()
		tokens, _, err := acl.TokenList((&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
		if err != nil {
			return err
		}
		for _, token := range tokens {
			if slices.ContainsFunc(token.Policies, func(l *api.ACLTokenPolicyLink) bool { return gone(l.Name) }) {
				if _, err := acl.TokenDelete(token.AccessorID, (&api.WriteOptions{}).WithContext(ctx)); err != nil && !missing(err) {
					return err
				}
			}
		}
		policies, _, err := acl.PolicyList((&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
		if err != nil {
			return err
		}
		for _, policy := range policies {
			if gone(policy.Name) {
				if _, err := acl.PolicyDelete(policy.ID, (&api.WriteOptions{}).WithContext(ctx)); err != nil && !missing(err) {
					return err
				}
			}
		}
		return nil
	})
	_, granted := p.granted.Load([2]events.Slug{env, app})
	if noACLs(err) || status(err, http.StatusForbidden) && !granted {
		return nil
	}
	return err
}

// policyPrefix begins the names of the policies of an app's slots in an environment. Slugs hold no underscore.
func policyPrefix(install string, env, app events.Slug) string {
	return fmt.Sprintf("towpath_%s_%s_%s_", install, env, app)
}

// accessorOf is the id, no secret, of a holder's token.
func accessorOf(h settings.Holder) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "towpath consul token %s %s %s %d", h.Install, h.Env, h.App, h.Slot))
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// noACLs reports whether Consul was started without ACLs.
func noACLs(err error) bool { return status(err, http.StatusUnauthorized) }

// missing reports whether a token or policy is not there.
func missing(err error) bool {
	return status(err, http.StatusNotFound) || status(err, http.StatusForbidden) && strings.Contains(err.Error(), "ACL not found") ||
		status(err, http.StatusInternalServerError) && strings.Contains(err.Error(), "ACL not found")
}

func status(err error, code int) bool {
	var s api.StatusError
	return errors.As(err, &s) && s.Code == code
}
