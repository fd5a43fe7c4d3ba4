package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"towpath.dev/pkg/pause"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/wholefile"
)

// A secret id file has a wrapping token on each line, around a single-use secret id each. The first is for the next
// login; the second for the one after a login that was cut short, which uses up a token and leaves none. After a token
// may stand when it expires, and usedMark once a login has begun with it.
const (
	spares   = 2
	usedMark = "used"
)

// wrapped is one line of a secret id file.
type wrapped struct {
	token settings.Secret
	until time.Time // zero: not known
	used  bool      // by a login of ours, which may have got no further
}

func parseWrapped(text string) []wrapped {
	var tokens []wrapped
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		w := wrapped{token: settings.NewSecret(words[0])}
		for _, word := range words[1:] {
			if at, err := time.Parse(time.RFC3339, word); err == nil {
				w.until = at
			}
			w.used = w.used || word == usedMark
		}
		tokens = append(tokens, w)
	}
	return tokens
}

func formatWrapped(tokens []wrapped) []byte {
	var text strings.Builder
	for _, w := range tokens {
		text.WriteString(w.token.Reveal())
		if !w.until.IsZero() {
			text.WriteString(" " + w.until.UTC().Format(time.RFC3339))
		}
		if w.used {
			text.WriteString(" " + usedMark)
		}
		text.WriteByte('\n')
	}
	return []byte(text.String())
}

// enter logs in with the secret id that is wrapped for this login, and puts down those for later ones.
func (s *session) enter(ctx context.Context) (login, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return login{}, err
	}
	defer unlock()
	role, err := os.ReadFile(s.cfg.RoleIDFile)
	if err != nil {
		return login{}, s.unavailable("logging in", fmt.Sprintf("roleIDFile cannot be read: %v", err), "put the role's id there", err)
	}
	text, err := os.ReadFile(s.cfg.SecretIDFile)
	if err != nil {
		return login{}, s.unavailable("logging in", fmt.Sprintf("secretIDFile cannot be read: %v", err), s.mend(), err)
	}
	tokens := parseWrapped(string(text))
	var wrapTTL time.Duration
	for ; ; tokens = tokens[1:] {
		if len(tokens) == 0 {
			err := errors.New(s.cfg.SecretIDFile + " holds no wrapping token that is left to use")
			return login{}, s.unavailable("logging in", err.Error(), s.mend(), err)
		}
		wrapTTL, err = s.inspect(ctx, tokens[0])
		if !errors.Is(err, errCutShort) {
			break
		}
	}
	if err != nil {
		return login{}, err
	}
	// From here on a secret id is used up, so it is done whole even where nobody waits for it any more.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loginBound)
	defer cancel()
	tokens[0].used = true
	if err := wholefile.Write(s.cfg.SecretIDFile, formatWrapped(tokens), 0o600); err != nil {
		return login{}, s.unavailable("logging in", fmt.Sprintf("secretIDFile cannot be replaced, so there would be no next login: %v", err),
			"let the service write in its folder", err)
	}
	h, err := s.exchange(ctx, strings.TrimSpace(string(role)), tokens[0])
	if err != nil {
		return login{}, err
	}
	h.wrapTTL = wrapTTL
	next, err := s.provide(ctx, h)
	if err != nil {
		// The login holds; run tries again.
		s.logger.Error("Vault: there is no secret id for the next login yet", "err", err)
		return h, nil
	}
	return next, nil
}

// errCutShort says that a wrapping token was used by a login of ours that went no further.
var errCutShort = errors.New("a login was cut short")

// inspect checks, without using it up, that a wrapping token is around a secret id that Vault made for a role, and
// returns for how long it was wrapped.
func (s *session) inspect(ctx context.Context, w wrapped) (time.Duration, error) {
	a, err := s.send(ctx, request{method: http.MethodPost, path: "sys/wrapping/lookup", body: map[string]any{"token": w.token.Reveal()}})
	if errors.Is(err, errRefused) || errors.Is(err, errDenied) {
		switch {
		case w.used:
			return 0, errCutShort
		case !w.until.IsZero() && time.Now().After(w.until):
			return 0, s.unavailable("logging in", fmt.Sprintf("the wrapping token in %s expired at %s, before anybody logged in with it",
				s.cfg.SecretIDFile, w.until.UTC().Format(time.RFC3339)), s.mend(), err)
		}
		return 0, s.suspect("it was used already, by somebody else, or has expired", err)
	}
	if err != nil {
		return 0, err
	}
	var info struct {
		Path string `json:"creation_path"`
		TTL  int64  `json:"creation_ttl"`
	}
	if err := a.decode(&info); err != nil {
		return 0, fmt.Errorf("%s: what it says of a wrapping token is not understood: %w", s.name, err)
	}
	path := strings.TrimPrefix(info.Path, strings.Trim(s.cfg.Namespace, "/")+"/")
	role, isRole := strings.CutPrefix(path, "auth/"+s.cfg.AppRole+"/role/")
	name, isSecretID := strings.CutSuffix(role, "/secret-id")
	if !isRole || !isSecretID || name == "" || strings.Contains(name, "/") {
		err := fmt.Errorf("what it wraps was made by %s", info.Path)
		return 0, s.suspect(fmt.Sprintf("it was exchanged: what it wraps was made by %s and not by auth/%s/role/…/secret-id", info.Path, s.cfg.AppRole), err)
	}
	return time.Duration(info.TTL) * time.Second, nil
}

// exchange makes a login out of a wrapped secret id, which is used up.
func (s *session) exchange(ctx context.Context, role string, w wrapped) (login, error) {
	a, err := s.send(ctx, request{method: http.MethodPost, path: "sys/wrapping/unwrap", token: w.token, body: map[string]any{}})
	if errors.Is(err, errRefused) || errors.Is(err, errDenied) {
		return login{}, s.suspect("it was used by somebody else a moment ago", err)
	}
	if err != nil {
		return login{}, err
	}
	var id struct {
		SecretID string `json:"secret_id"`
		Uses     int64  `json:"secret_id_num_uses"`
	}
	if err := a.decode(&id); err != nil || id.SecretID == "" {
		return login{}, s.suspect("there is no secret id in it", errors.New("no secret_id"))
	}
	if id.Uses != 1 {
		s.logger.Warn("Vault: the secret id can be used more than once; set secret_id_num_uses=1 on the role", "uses", id.Uses)
	}
	at := time.Now()
	a, err = s.send(ctx, request{method: http.MethodPost, path: "auth/" + s.cfg.AppRole + "/login", body: map[string]any{"role_id": role, "secret_id": id.SecretID}})
	if errors.Is(err, errRefused) || errors.Is(err, errDenied) {
		return login{}, s.unavailable("logging in", fmt.Sprintf("it does not take the secret id for the role in %s: %v", s.cfg.RoleIDFile, err), s.mend(), errDenied)
	}
	if err != nil {
		return login{}, err
	}
	if a.Auth == nil {
		return login{}, s.unavailable("logging in", "its answer holds no token", "check that appRole is the mount of an AppRole method", errDenied)
	}
	return login{role: a.Auth.Metadata["role_name"]}.issued(a.Auth, at), nil
}

// provide has the role make wrapped secret ids for later logins, and puts them into the file.
func (s *session) provide(ctx context.Context, h login) (login, error) {
	at := time.Now()
	tokens := make([]wrapped, spares)
	for i := range tokens {
		r := request{method: http.MethodPost, path: "auth/" + s.cfg.AppRole + "/role/" + h.role + "/secret-id", token: h.token, body: map[string]any{}, wrap: h.wrapTTL}
		a, err := s.send(ctx, r)
		if err != nil {
			return h, err
		}
		if a.WrapInfo == nil {
			return h, fmt.Errorf("%s: %s: its answer is not wrapped", s.name, r.what())
		}
		tokens[i] = wrapped{token: settings.NewSecret(a.WrapInfo.Token), until: at.Add(time.Duration(a.WrapInfo.TTL) * time.Second)}
	}
	if err := wholefile.Write(s.cfg.SecretIDFile, formatWrapped(tokens), 0o600); err != nil {
		return h, fmt.Errorf("keeping the next secret id: %w", err)
	}
	h.replaced = at
	return h, nil
}

// replace provides anew what would expire before the next start otherwise.
func (s *session) replace(ctx context.Context, h login) (login, error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return h, err
	}
	defer unlock()
	fresh, err := s.provide(ctx, h)
	if err != nil {
		return h, err
	}
	s.update(fresh)
	return fresh, nil
}

// lock keeps others away from the secret id file: providers of other environments that log in alike, and other processes.
func (s *session) lock(ctx context.Context) (unlock func(), err error) {
	name := s.cfg.SecretIDFile + ".lock"
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, s.unavailable("logging in", err.Error(), "let the service write in that folder", err)
	}
	ctx, cancel := context.WithTimeout(ctx, loginBound)
	defer cancel()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if pause.For(ctx, 20*time.Millisecond) != nil {
			f.Close()
			return nil, s.unavailable("logging in", name+" is held by another process", "see which one (fuser "+name+")", err)
		}
	}
}

// mend says how a login becomes possible again.
func (s *session) mend() string {
	return fmt.Sprintf("put a new one there: vault write -f -field=wrapping_token -wrap-ttl=72h auth/%s/role/towpath-%s-%s/secret-id > %s",
		s.cfg.AppRole, s.env, s.service, s.cfg.SecretIDFile)
}

// suspect says that a wrapping token is not what was put down for us.
func (s *session) suspect(why string, err error) error {
	u := s.unavailable("logging in", fmt.Sprintf("the wrapping token in %s is not to be trusted: %s", s.cfg.SecretIDFile, why),
		fmt.Sprintf("find out who read the file (Vault's audit log has the unwrapping); take back what was wrapped (vault list auth/%s/role/towpath-%s-%s/secret-id; vault write …/secret-id-accessor/destroy), then %s",
			s.cfg.AppRole, s.env, s.service, s.mend()), err)
	u.Alarm = true
	return u
}
