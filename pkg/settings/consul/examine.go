package consul

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"towpath.dev/events"
	"towpath.dev/pkg/settings"
)

var _ settings.Examiner = (*Provider)(nil)

// expirySoon is how long before its end a token is worth a word. Nobody but a person replaces it.
const expirySoon = 7 * 24 * time.Hour

// Examine implements settings.Examiner.
func (p *Provider) Examine(ctx context.Context, env events.Slug) (e settings.Examination) {
	var leader string
	e.Err = p.once(ctx, "asking for its leader", func(ctx context.Context) (err error) {
		leader, err = p.api.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
		return err
	})
	if e.Err == nil && leader == "" {
		e.Err = p.away("asking for its leader", "it has no leader", doLeader, nil)
	}
	if e.Err != nil {
		return e
	}
	e.Say(p.version(ctx))
	e.Say("leader " + leader)
	e.Way(p.cfg.Address)
	if p.token == "" {
		e.Doubt("Towpath is anonymous there, so whatever it may do anybody may", "give each service a token: tokenFile in platform.yaml, and `towpath settings rules "+string(env)+"`")
	} else if open := p.examineToken(ctx, &e); open || e.Err != nil {
		return e
	}
	e.Err = p.examineRights(ctx, env)
	if e.Err == nil {
		e.Say(p.service + " has the rights that it needs")
	}
	return e
}

// version returns what Consul says of itself to tokens with agent:read.
func (p *Provider) version(ctx context.Context) string {
	var self struct{ Config struct{ Version string } }
	err := p.once(ctx, "asking for its version", func(ctx context.Context) error {
		_, err := p.api.Raw().Query("/v1/agent/self", &self, (&api.QueryOptions{}).WithContext(ctx))
		return err
	})
	if err != nil {
		return "Consul, which tells its version to tokens with agent:read alone"
	}
	return "Consul " + self.Config.Version
}

// examineToken says until when the token is one. open reports that Consul asks nobody for tokens.
func (p *Provider) examineToken(ctx context.Context, e *settings.Examination) (open bool) {
	var token *api.ACLToken
	err := p.once(ctx, "looking at the token", func(ctx context.Context) (err error) {
		token, _, err = p.api.ACL().TokenReadSelf((&api.QueryOptions{}).WithContext(ctx))
		return err
	})
	var said api.StatusError
	switch {
	case errors.As(err, &said) && strings.Contains(said.Body, "ACL support disabled"):
		e.Doubt("its ACLs are off: anybody who reaches it may read and write everything", `set acl { enabled = true, default_policy = "deny" } in its configuration, and run what "towpath settings rules" prints`)
		return true
	case err != nil:
		e.Err = err
	case token.ExpirationTime == nil:
		e.Say("token without an end")
	default:
		until := token.ExpirationTime.UTC()
		e.Say("token valid until " + until.Format(time.RFC3339))
		if time.Until(until) < expirySoon {
			e.Doubt("the token in "+p.token+" ends at "+until.Format(time.RFC3339), "write one there that lasts longer; it is read for each request")
		}
	}
	return false
}

// examineRights asks Consul whether the token may do what rights names.
func (p *Provider) examineRights(ctx context.Context, env events.Slug) error {
	type question struct{ Resource, Access, Segment string }
	var asked []question
	var answers []struct {
		question
		Allow bool
	}
	for _, r := range rights(p.cfg, env, p.service) {
		asked = append(asked, question{Resource: r.kind, Access: r.access, Segment: r.name})
	}
	body, err := json.Marshal(asked)
	if err != nil {
		return err
	}
	const what = "asking for its rights"
	err = p.once(ctx, what, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(p.cfg.Address, "/")+"/v1/internal/acl/authorize", bytes.NewReader(body))
		if err != nil {
			return err
		}
		response, err := p.http.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
		if err == nil && response.StatusCode != http.StatusOK {
			err = api.StatusError{Code: response.StatusCode, Body: string(text)}
		}
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &answers)
	})
	if err != nil {
		return err
	}
	var missing []string
	for _, a := range answers {
		if !a.Allow {
			missing = append(missing, fmt.Sprintf("%s:%s on %q", a.Resource, a.Access, a.Segment))
		}
	}
	if len(answers) != len(asked) {
		missing = append(missing, fmt.Sprintf("%d answers to %d questions", len(answers), len(asked)))
	}
	if len(missing) > 0 {
		return p.away(what, fmt.Sprintf("%s lacks %s", cmp.Or(p.token, "the anonymous token"), strings.Join(missing, ", ")),
			fmt.Sprintf("give it the rules that `towpath settings rules %s` prints for %s", env, p.service), nil)
	}
	return nil
}
