package gateway

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/wholefile"
)

// maxToken is the longest token that is looked up, in bytes.
const maxToken = 512

// tokenOf takes the token from "Authorization: Bearer TOKEN", or, for repositories alone, from basic
// authentication's password, which is how git sends it: a browser that remembers a password sends it to other
// routes by itself, for whoever asks it to.
func tokenOf(r *http.Request) string {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return strings.TrimSpace(token)
	}
	if !strings.HasPrefix(r.URL.Path, "/git/") {
		return ""
	}
	_, password, _ := r.BasicAuth()
	return password
}

// authenticate finds out who asks.
func (s *Service) authenticate(r *http.Request) (identity.Actor, error) {
	unknown := func(why string) error {
		return &problem{
			Status: http.StatusUnauthorized, What: "asking the gateway", Why: why,
			Do: "use the token that `towpath up` wrote to its data folder (TOWPATH_TOKEN), or one of your own", Code: codeUnknown,
		}
	}
	token := tokenOf(r)
	if token == "" || len(token) > maxToken {
		return identity.Actor{}, unknown("there is no token in the request")
	}
	actor, err := s.actors.ByToken(r.Context(), token)
	if errors.Is(err, identity.ErrUnknownActor) {
		return identity.Actor{}, unknown("nobody is known by this token")
	}
	if err != nil {
		return identity.Actor{}, fmt.Errorf("finding out who asks: %w", err)
	}
	if actor.Erased {
		return identity.Actor{}, unknown("whoever had this token was erased")
	}
	return actor, nil
}

// ensureAdmin makes sure that the token file holds the token of an administrator, so that somebody can begin.
func (s *Service) ensureAdmin(ctx context.Context) error {
	data, err := os.ReadFile(s.cfg.TokenFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the administrator's token: %w", err)
	}
	if token := strings.TrimSpace(string(data)); token != "" {
		_, err := s.actors.ByToken(ctx, token)
		if !errors.Is(err, identity.ErrUnknownActor) {
			return err
		}
		s.logger.Warn("the token file held a token of nobody; it gets a new one", "file", s.cfg.TokenFile)
	}
	admin, err := s.admin(ctx)
	if err != nil {
		return fmt.Errorf("making the first administrator: %w", err)
	}
	token, err := s.actors.IssueToken(ctx, admin.ID)
	if err != nil {
		return fmt.Errorf("making the first administrator: %w", err)
	}
	return wholefile.Write(s.cfg.TokenFile, []byte(token+"\n"), 0o600)
}

// admin is the person of the configuration, who may be known already as the author of a commit.
func (s *Service) admin(ctx context.Context) (identity.Actor, error) {
	if s.cfg.Admin.Email == "" {
		return s.actors.Create(ctx, identity.Actor{Kind: identity.KindPerson, Name: s.cfg.Admin.Name, Roles: []string{identity.RoleAdmin}})
	}
	actor, err := s.actors.ByEmail(ctx, s.cfg.Admin.Email, s.cfg.Admin.Name)
	if err != nil {
		return actor, err
	}
	return actor, s.actors.SetRoles(ctx, actor.ID, identity.RoleAdmin)
}
