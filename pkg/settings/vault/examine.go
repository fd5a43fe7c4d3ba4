package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/settings"
)

var _ settings.Examiner = (*Provider)(nil)

// capabilitiesSelf is where a token asks what it may do.
const capabilitiesSelf = "sys/capabilities-self"

// anyApp stands for the segments of a path that are different for each app and key.
const anyApp = "towpath-doctor"

// Examine implements settings.Examiner. It logs in where the service has not yet, as its next request would.
func (p *Provider) Examine(ctx context.Context, env events.Slug) (e settings.Examination) {
	s := p.session
	if e.Err = s.examineServer(ctx, &e); e.Err != nil {
		return e
	}
	e.Way(s.cfg.Address)
	var self struct {
		Until *time.Time `json:"expire_time"`
	}
	a, err := s.do(ctx, request{method: http.MethodGet, path: "auth/token/lookup-self"})
	if err == nil {
		err = a.decode(&self)
	}
	if err != nil {
		e.Err = err
		return e
	}
	switch {
	case self.Until == nil:
		e.Say("token without an end")
	case s.cfg.TokenFile != "":
		e.Say("token valid until " + self.Until.UTC().Format(time.RFC3339) + " unless somebody renews it")
	default:
		e.Say("token valid until " + self.Until.UTC().Format(time.RFC3339) + ", and renewed before")
	}
	s.examineNext(&e)
	e.Err = s.examineRights(ctx, env, &e)
	return e
}

// examineServer says which Vault answers, and whether it does its work.
func (s *session) examineServer(ctx context.Context, e *settings.Examination) error {
	conn, err := s.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerBound)
	defer cancel()
	asked := request{method: http.MethodGet, path: "sys/seal-status"}
	status, err := conn.Sys().SealStatusWithContext(ctx)
	if err != nil {
		return s.fault(asked, err)
	}
	if status.Version == "" {
		return s.unavailable(asked.what(), "its answer is not one of Vault", "check the address", nil)
	}
	e.Say("Vault " + status.Version)
	switch {
	case !status.Initialized:
		return s.unavailable(asked.what(), "nobody has initialised it", "run `vault operator init`, keep what it prints, and unseal it", nil)
	case status.Sealed:
		return s.unavailable(asked.what(), "it is sealed", "unseal it (vault operator unseal); Towpath goes on by itself then", nil)
	}
	e.Say("unsealed")
	asked.path = "sys/leader"
	leader, err := conn.Sys().LeaderWithContext(ctx)
	switch {
	case err != nil:
		return s.fault(asked, err)
	case leader.HAEnabled && leader.LeaderAddress == "":
		return s.unavailable(asked.what(), "it has no leader", "bring enough of its servers up and unseal them; Towpath goes on by itself then", nil)
	case leader.HAEnabled:
		e.Say("leader " + leader.LeaderAddress)
	}
	return nil
}

// examineNext says until when the service could log in anew.
func (s *session) examineNext(e *settings.Examination) {
	if s.cfg.SecretIDFile == "" {
		return
	}
	text, err := os.ReadFile(s.cfg.SecretIDFile)
	tokens := slices.DeleteFunc(parseWrapped(string(text)), func(w wrapped) bool {
		return w.used || !w.until.IsZero() && time.Now().After(w.until)
	})
	switch {
	case err != nil:
		e.Doubt(fmt.Sprintf("secretIDFile cannot be read: %v; the next login fails", err), s.mend())
	case len(tokens) == 0:
		e.Doubt(s.cfg.SecretIDFile+" holds no wrapping token that is left to use; the next login fails", s.mend())
	case !tokens[0].until.IsZero():
		e.Say("secret id for the next login until " + tokens[0].until.UTC().Format(time.RFC3339))
	}
}

// examineRights asks Vault whether the token may do what needs names.
func (s *session) examineRights(ctx context.Context, env events.Slug, e *settings.Examination) error {
	grants := needs(s.cfg, env, s.service)
	var paths []string
	for i := range grants {
		grants[i].path = strings.ReplaceAll(grants[i].path, "+", anyApp)
		paths = append(paths, grants[i].path)
	}
	a, err := s.do(ctx, request{method: http.MethodPost, path: capabilitiesSelf, body: map[string]any{"paths": paths}})
	if errors.Is(err, errDenied) {
		e.Doubt("which rights "+s.service+" has is not known: its policy does not let it ask",
			fmt.Sprintf("give its role the policy that `towpath settings rules %s` prints now", env))
		return nil
	}
	if err != nil {
		return err
	}
	var has map[string][]string
	if err := a.decode(&has); err != nil {
		return s.unavailable("asking for its rights", "its answer is not one of Vault", "check the address", err)
	}
	var missing []string
	for _, g := range grants {
		for _, c := range strings.Fields(g.capabilities) {
			if !slices.Contains(has[g.path], c) && !slices.Contains(has[g.path], "root") {
				missing = append(missing, c+" on "+g.path)
			}
		}
	}
	if len(missing) > 0 {
		return s.unavailable("asking for its rights", fmt.Sprintf("%s lacks %s", s.service, strings.Join(missing, ", ")),
			fmt.Sprintf("give its role the policy that `towpath settings rules %s` prints", env), errDenied)
	}
	e.Say(s.service + " has the rights that it needs")
	return nil
}
