package vault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"towpath.dev/events"
	"towpath.dev/pkg/pause"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
)

// session is a service's login at one Vault. It is safe for concurrent use.
type session struct {
	cfg     policy.Vault // without placeholders
	env     events.Slug
	service string
	name    string // of the Vault, in errors
	logger  *slog.Logger
	turn    chan struct{} // held by who logs in

	mu       sync.Mutex
	conn     *api.Client
	held     login
	failed   error // of the last login, until failedAt + loginPause
	failedAt time.Time
	alarmed  *settings.UnavailableError // since the last login that succeeded
	entered  bool                       // the last login did
}

// login is a token and what is to be done about it. Its zero value is none.
type login struct {
	token    settings.Secret
	ttl      time.Duration // as it was issued; 0: it does not expire
	until    time.Time     // when it expires, if ttl says that it does
	renew    time.Time     // when it is due to be renewed
	once     bool          // it cannot be renewed
	role     string        // AppRole's
	wrapTTL  time.Duration // of the secret ids for later logins
	replaced time.Time     // when those were issued
}

const (
	// loginPause is between two attempts to log in.
	loginPause = time.Second
	// loginBound is how long what uses up a secret id may take.
	loginBound = 20 * time.Second
	// keepLeast and keepMost bound the pauses of run.
	keepLeast = time.Second
	keepMost  = 30 * time.Second
	// leaveBound is how long the end waits for Vault.
	leaveBound = 3 * time.Second
)

func newSession(cfg policy.Vault, env events.Slug, service string, logger *slog.Logger) *session {
	for _, file := range []*string{&cfg.RoleIDFile, &cfg.SecretIDFile, &cfg.TokenFile, &cfg.Cert, &cfg.Key} {
		*file = strings.ReplaceAll(*file, policy.ServicePlaceholder, service)
	}
	cfg.AppRole = cmp.Or(cfg.AppRole, "approle")
	name := fmt.Sprintf("Vault of %s (%s)", env, cfg.Address)
	return &session{cfg: cfg, env: env, service: service, name: name, logger: logger.With("vault", cfg.Address, "env", env), turn: make(chan struct{}, 1)}
}

// do asks Vault as the service. A token that Vault does not know any more is replaced by a new login.
func (s *session) do(ctx context.Context, r request) (answer, error) {
	h, err := s.login(ctx, settings.Secret{})
	if err != nil {
		return answer{}, err
	}
	r.token = h.token
	a, err := s.send(ctx, r)
	if !errors.Is(err, errDenied) || s.knows(ctx, h) {
		return a, err
	}
	if h, err = s.login(ctx, h.token); err != nil {
		return answer{}, err
	}
	r.token = h.token
	return s.send(ctx, r)
}

// knows reports whether Vault still takes a token for one.
func (s *session) knows(ctx context.Context, h login) bool {
	_, err := s.send(ctx, request{method: http.MethodGet, path: "auth/token/lookup-self", token: h.token})
	return !errors.Is(err, errDenied)
}

// login returns the present login, or another one where the present one is not there, has expired, or is the one with
// the token stale.
func (s *session) login(ctx context.Context, stale settings.Secret) (login, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return login{}, fmt.Errorf("%s: waiting for a login: %w", s.name, context.Cause(ctx))
	}
	if h := s.present(); h.token != (settings.Secret{}) && h.token != stale && (h.ttl == 0 || time.Now().Before(h.until)) {
		return h, nil
	}
	if s.failed != nil && time.Since(s.failedAt) < loginPause {
		return login{}, s.failed
	}
	var h login
	var err error
	if s.cfg.TokenFile != "" {
		h, err = s.givenToken(stale)
	} else {
		h, err = s.enter(ctx)
	}
	s.note(err)
	if s.failed = err; err != nil {
		s.failedAt = time.Now()
		return login{}, err
	}
	s.keepLogin(h)
	return h, nil
}

// note keeps how a login went, and says aloud what a person must look at.
func (s *session) note(err error) {
	var u *settings.UnavailableError
	alarm := errors.As(err, &u) && u.Alarm
	if alarm {
		s.logger.Error("ALARM: a secret id may be in other hands", "err", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entered = err == nil; s.entered {
		s.alarmed = nil
	} else if alarm {
		s.alarmed = u
	}
}

// Alarms implements settings.Guard with what was found at the provider's own logins. One is over with the next login
// that succeeds, which takes that somebody put another secret id there.
func (p *Provider) Alarms(context.Context) (standing []events.Alarm, whole bool) {
	s := p.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alarmed == nil {
		return nil, s.entered
	}
	return []events.Alarm{{
		Environment: s.env, What: fmt.Sprintf("login of %s at %s", s.service, s.name), Why: s.alarmed.Why, Do: s.alarmed.Do,
	}}, true
}

func (s *session) present() login {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

func (s *session) keepLogin(h login) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = h
}

// update keeps what is new about a login, unless another one has taken its place meanwhile.
func (s *session) update(h login) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held.token == h.token {
		s.held = h
	}
}

// givenToken reads the token that somebody else keeps alive.
func (s *session) givenToken(stale settings.Secret) (login, error) {
	text, err := os.ReadFile(s.cfg.TokenFile)
	if err != nil {
		return login{}, s.unavailable("logging in", fmt.Sprintf("tokenFile cannot be read: %v", err), "put a token there (mode 0600)", err)
	}
	token := settings.NewSecret(strings.TrimSpace(string(text)))
	switch token {
	case settings.Secret{}:
		return login{}, s.unavailable("logging in", s.cfg.TokenFile+" is empty", "put a token there (mode 0600)", errDenied)
	case stale:
		return login{}, s.unavailable("logging in", "the token in "+s.cfg.TokenFile+" has expired or was revoked", "put a new one there (mode 0600)", errDenied)
	}
	return login{token: token}, nil
}

// issued returns the login that an answer to a login or a renewal describes.
func (h login) issued(auth *api.SecretAuth, at time.Time) login {
	h.token = settings.NewSecret(auth.ClientToken)
	h.once = !auth.Renewable
	if left := time.Duration(auth.LeaseDuration) * time.Second; left > 0 {
		h.ttl = max(h.ttl, left)
		h.until = at.Add(left)
		h.renew = at.Add(left * 2 / 3)
	}
	return h
}

// run keeps the login alive until ctx is done, and revokes its token then.
func (s *session) run(ctx context.Context) {
	defer s.leave(context.WithoutCancel(ctx))
	again := keepLeast
	for {
		wait, err := s.keep(ctx)
		if err == nil {
			again = keepLeast
		} else if ctx.Err() == nil {
			s.logger.Warn("Vault: the login is not kept alive", "err", err, "again in", again.String())
			wait, again = again, min(2*again, keepMost)
		}
		if pause.For(ctx, wait) != nil {
			return
		}
	}
}

// keep does what is due about the login, and returns how long nothing will be.
func (s *session) keep(ctx context.Context) (time.Duration, error) {
	h, err := s.login(ctx, settings.Secret{})
	if err != nil {
		return 0, err
	}
	if h.ttl > 0 && !time.Now().Before(h.renew) {
		if h, err = s.prolong(ctx, h); err != nil {
			return 0, err
		}
	}
	if h.wrapTTL > 0 && !time.Now().Before(h.replaced.Add(h.wrapTTL/2)) {
		if h, err = s.replace(ctx, h); err != nil {
			return 0, err
		}
	}
	wait := keepMost
	if h.ttl > 0 {
		wait = min(wait, time.Until(h.renew))
	}
	if h.wrapTTL > 0 {
		wait = min(wait, time.Until(h.replaced.Add(h.wrapTTL/2)))
	}
	return max(wait, keepLeast/4), nil
}

// prolong renews a token, or logs in anew where it cannot be for much longer.
func (s *session) prolong(ctx context.Context, h login) (login, error) {
	if !h.once {
		asked := time.Now()
		a, err := s.send(ctx, request{method: http.MethodPost, path: "auth/token/renew-self", token: h.token, body: map[string]any{}})
		switch {
		case err == nil && a.Auth != nil && time.Duration(a.Auth.LeaseDuration)*time.Second > h.ttl/2:
			h = h.issued(a.Auth, asked)
			s.update(h)
			return h, nil
		case err != nil && !errors.Is(err, errDenied):
			return h, err
		}
	}
	fresh, err := s.login(ctx, h.token)
	if err == nil && fresh.token != h.token {
		s.revoke(ctx, h)
	}
	return fresh, err
}

// leave revokes the token, where it is the session's own.
func (s *session) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveBound)
	defer cancel()
	h := s.present()
	s.keepLogin(login{})
	if s.cfg.TokenFile == "" && h.token != (settings.Secret{}) {
		s.revoke(ctx, h)
	}
}

func (s *session) revoke(ctx context.Context, h login) {
	_, err := s.send(ctx, request{method: http.MethodPost, path: "auth/token/revoke-self", token: h.token, body: map[string]any{}})
	if err != nil && !errors.Is(err, errDenied) {
		s.logger.Warn("Vault: a token was not revoked, it ends when it expires", "err", err, "at", h.until)
	}
}
