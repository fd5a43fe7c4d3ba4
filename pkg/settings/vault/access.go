package vault

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/pause"
	"towpath.dev/pkg/settings"
)

// Variables that an app finds its secrets with, besides Vault's own.
const (
	// WrappedTokenVariable names the file with the container's wrapping token.
	WrappedTokenVariable = "VAULT_WRAPPED_TOKEN_FILE"
	// PathVariable says where the app's secrets are below /v1/ of Vault's HTTP API, such as secret/data/qa/hello/{key}.
	PathVariable = "TOWPATH_SECRETS_PATH"
)

// Files that an app finds beside its secrets: the first is each container's own.
const (
	wrappedFile = "vault-token"
	caFile      = "vault-ca.pem"
)

// Access lets apps read their secrets in Vault themselves. Each start of a container takes over a token of its own,
// which reads that app's secrets in that environment and nothing else: it is handed over in a response-wrapping token,
// which one can use once. There is always one that waits, for the next start; so a container that ends and is started
// again by its engine needs nobody. One that somebody else used, while no start of the container could have, is
// revoked, and is an alarm.
//
// What was issued is kept in a bucket of the bus by its accessors, with which a token can be looked up and revoked but
// not used: before it is handed over, so that whoever comes after a crash finds all that anybody could have. It needs
// the token role that Rules describes.
type Access struct {
	*Provider
	issued *ledger.Bucket
}

var (
	_ settings.Access = (*Access)(nil)
	_ settings.Issuer = (*Access)(nil)
	_ settings.Guard  = (*Access)(nil)
)

// NewAccess returns the access of apps to what a provider keeps. The bucket is events.BucketIssued.
func NewAccess(p *Provider, issued *ledger.Bucket) *Access { return &Access{p, issued} }

// Grant implements settings.Access with what every container of a version needs. Tokens are issued to each.
func (a *Access) Grant(_ context.Context, h settings.Holder) (settings.Grant, error) {
	cfg := a.session.cfg
	g := settings.Grant{
		Env:   map[string]string{"VAULT_ADDR": cmp.Or(cfg.AppAddress, settings.FromContainers(cfg.Address)), PathVariable: a.appPath(h.Env, h.App)},
		Files: map[string]settings.Secret{},
	}
	if cfg.Namespace != "" {
		g.Env["VAULT_NAMESPACE"] = cfg.Namespace
	}
	if cfg.CA != "" {
		text, err := os.ReadFile(cfg.CA)
		if err != nil {
			return settings.Grant{}, a.session.unavailable("reading its ca for "+string(h.App), err.Error(), "put the file there, or correct ca in platform.yaml", err)
		}
		g.Files[caFile], g.Env["VAULT_CACERT"] = settings.NewSecret(string(text)), settings.FilesFolder+"/"+caFile
	}
	return g, nil
}

// appPath is where an app finds its secrets below /v1/ of Vault's HTTP API. Where each secret has a path of its own,
// {key} stands for its name, and it is the field "value"; else each is the field of its name.
func (a *Access) appPath(env, app events.Slug) string {
	return a.kv.mount + "/" + withValues + "/" + a.layout.fill(string(env), string(app), "{key}")
}

// token is one that was issued.
type token struct {
	Accessor string    `json:"accessor"` // revokes it; it reads nothing
	Wrapping string    `json:"wrapping"` // accessor of the token that wraps it, which is gone once somebody has used that
	Made     time.Time `json:"made"`
	Until    time.Time `json:"until"` // when the wrapping ends
	// After is when the container was started that has a token already: this one is for a later start. Zero: the start
	// that the container is in may use it.
	After time.Time `json:"after,omitzero"`
	Given bool      `json:"given,omitempty"` // the container has it
	Taken bool      `json:"taken,omitempty"` // somebody else used it; it is revoked
}

// record is what one container was issued, oldest first.
type record struct {
	Tokens []token `json:"tokens"`
}

func recordKey(h settings.Holder, c settings.Container) string {
	return fmt.Sprintf("%s.%s.%d.%s", h.Env, h.App, h.Slot, c.Name)
}

// read returns a container's record, an empty one where there is none.
func (a *Access) read(ctx context.Context, key string) (r record, revision uint64, err error) {
	data, revision, err := a.issued.Get(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, 0, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return record{}, 0, fmt.Errorf("reading which tokens of Vault were issued: %w", err)
	}
	return r, revision, nil
}

func (a *Access) write(ctx context.Context, key string, r record, revision uint64) error {
	data, err := json.Marshal(r)
	if err == nil {
		_, err = a.issued.Update(ctx, key, data, revision)
	}
	if err != nil {
		return fmt.Errorf("keeping which tokens of Vault were issued: %w", err)
	}
	return nil
}

// Issue implements settings.Issuer.
func (a *Access) Issue(ctx context.Context, h settings.Holder, c settings.Container) (settings.Grant, error) {
	key := recordKey(h, c)
	r, revision, err := a.read(ctx, key)
	if err != nil {
		return settings.Grant{}, err
	}
	var after time.Time
	if c.Started == nil {
		if r, err = a.end(ctx, r, len(r.Tokens)); err != nil {
			return settings.Grant{}, err
		}
	} else {
		var due bool
		if r, due, after, err = a.look(ctx, h, c, r); err != nil || !due {
			return settings.Grant{}, err
		}
	}
	next, wrapped, err := a.make(ctx, h)
	if err != nil {
		return settings.Grant{}, err
	}
	next.After = after
	r.Tokens = append(r.Tokens, next)
	if err := a.write(ctx, key, r, revision); err != nil {
		// Nobody has it or can get it; without this it would end by itself.
		return settings.Grant{}, errors.Join(err, a.revoke(context.WithoutCancel(ctx), next))
	}
	return settings.Grant{
		Env: map[string]string{WrappedTokenVariable: c.Folder + "/" + wrappedFile}, Files: map[string]settings.Secret{wrappedFile: wrapped},
	}, nil
}

// Issued implements settings.Issuer.
func (a *Access) Issued(ctx context.Context, h settings.Holder, c settings.Container) error {
	key := recordKey(h, c)
	r, revision, err := a.read(ctx, key)
	if err != nil || len(r.Tokens) == 0 {
		return err
	}
	r.Tokens[len(r.Tokens)-1].Given = true
	return a.write(ctx, key, r, revision)
}

// look finds out whether a container that is there needs another token, and takes away what is of no use any more. after
// says which start the next token is not for.
func (a *Access) look(ctx context.Context, h settings.Holder, c settings.Container, r record) (next record, due bool, after time.Time, err error) {
	if len(r.Tokens) == 0 {
		after, err = c.Started(ctx)
		return r, true, after, err
	}
	last := r.Tokens[len(r.Tokens)-1]
	waits, err := a.alive(ctx, last.Wrapping)
	if err != nil {
		return r, false, after, err
	}
	if waits {
		// The role may let tokens live shorter than they wait here.
		if waits, err = a.alive(ctx, last.Accessor); err != nil {
			return r, false, after, err
		}
		half := last.Made.Add(last.Until.Sub(last.Made) / 2)
		return r, !waits || !last.Given || c.Lost || time.Now().After(half), last.After, nil
	}
	if time.Now().After(last.Until) {
		return r, true, last.After, nil
	}
	// It was used. When the container was started last is asked after that was seen, so that the start which used it counts.
	started, err := c.Started(ctx)
	if err != nil {
		return r, false, after, err
	}
	if !last.After.IsZero() && last.After.Equal(started) {
		a.session.logger.Error("ALARM: somebody has used a token that waited for the next start of a container; it is revoked",
			"app", h.App, "slot", h.Slot, "container", c.Name, "do", lookIntoTaken)
		if err := a.revoke(ctx, last); err != nil {
			return r, false, after, err
		}
		r.Tokens[len(r.Tokens)-1].Taken = true
		return r, true, started, nil
	}
	next, err = a.end(ctx, r, len(r.Tokens)-1)
	return next, true, started, err
}

// end revokes a record's first tokens, and forgets them but for what somebody else took.
func (a *Access) end(ctx context.Context, r record, first int) (record, error) {
	left := []token{}
	for i, t := range r.Tokens {
		if i >= first || t.Taken {
			left = append(left, t)
		} else if err := a.revoke(ctx, t); err != nil {
			return r, err
		}
	}
	return record{left}, nil
}

// lookIntoTaken is what a person does about a token that somebody else used.
const lookIntoTaken = "find out who could read /run/secrets of the app's containers (Vault's audit log has the unwrapping), and deploy it anew once that is mended"

// make makes a token for one start of a container.
func (a *Access) make(ctx context.Context, h settings.Holder) (token, settings.Secret, error) {
	at, name := time.Now().UTC(), appRoleName(h.Env)
	got, err := a.session.do(ctx, request{
		method: http.MethodPost, path: "auth/token/create/" + name, wrap: appWrapTTL,
		body: map[string]any{"entity_alias": string(h.App), "display_name": string(h.Env) + "-" + string(h.App), "policies": []string{name}},
	})
	if errors.Is(err, errRefused) || errors.Is(err, errDenied) {
		err = a.session.unavailable("making a token for "+string(h.App), err.Error(),
			fmt.Sprintf("set it up as `towpath settings rules %s --discover` prints", h.Env), err)
	}
	if err != nil {
		return token{}, settings.Secret{}, err
	}
	if got.WrapInfo == nil || got.WrapInfo.WrappedAccessor == "" {
		return token{}, settings.Secret{}, fmt.Errorf("%s: the token that it made for %s is not wrapped", a.session.name, h.App)
	}
	w := got.WrapInfo
	return token{Accessor: w.WrappedAccessor, Wrapping: w.Accessor, Made: at, Until: at.Add(time.Duration(w.TTL) * time.Second)}, settings.NewSecret(w.Token), nil
}

// goingTries is how often Vault is asked for a token that may be about to go, goingPause between.
const (
	goingTries = 20
	goingPause = 100 * time.Millisecond
)

// alive reports whether a token is there to be used, by its accessor. One that was used up is there for another moment, in
// which Vault says that it is used up, or refuses to say anything, as it does to who may not ask.
func (a *Access) alive(ctx context.Context, accessor string) (bool, error) {
	ask := request{method: http.MethodPost, path: "auth/token/lookup-accessor", body: map[string]any{"accessor": accessor}}
	got, err := a.session.do(ctx, ask)
	for tries := 1; tries < goingTries && errors.Is(err, errDenied) && !unknownAccessor(err) && pause.For(ctx, goingPause) == nil; tries++ {
		got, err = a.session.do(ctx, ask)
	}
	if unknownAccessor(err) {
		return false, nil
	}
	var found struct {
		Uses int `json:"num_uses"` // left; 0: any number of times
	}
	if err == nil {
		err = got.decode(&found)
	}
	return err == nil && found.Uses >= 0, err
}

// revoke ends a token, and what wraps it, used or not. One that is gone is fine.
func (a *Access) revoke(ctx context.Context, t token) error {
	for _, accessor := range []string{t.Accessor, t.Wrapping} {
		_, err := a.session.do(ctx, request{method: http.MethodPost, path: "auth/token/revoke-accessor", body: map[string]any{"accessor": accessor}})
		if err != nil && !unknownAccessor(err) {
			return err
		}
	}
	return nil
}

// unknownAccessor reports whether Vault says that it has no token with an accessor.
func unknownAccessor(err error) bool {
	return errors.Is(err, errRefused) || errors.Is(err, errDenied) && strings.Contains(err.Error(), "invalid accessor")
}

// Revoke implements settings.Access. The bus is one installation's, so there is nothing of another's.
func (a *Access) Revoke(ctx context.Context, _ string, env, app events.Slug, keep func(slot int) bool) error {
	entries, err := a.issued.List(ctx, string(env)+"."+string(app))
	if err != nil {
		return fmt.Errorf("reading which tokens of Vault were issued: %w", err)
	}
	for _, e := range entries {
		slot, _, r, err := parseRecord(e)
		if err != nil {
			return err
		}
		if keep(slot) {
			continue
		}
		if _, err := a.end(ctx, r, len(r.Tokens)); err != nil {
			return err
		}
		if err := a.issued.Delete(ctx, e.Key); err != nil {
			return fmt.Errorf("forgetting which tokens of Vault were issued: %w", err)
		}
	}
	return nil
}

// Alarms implements settings.Guard with what somebody else used, of all that the bucket has. One is over once the version
// of the app is gone.
func (a *Access) Alarms(ctx context.Context) (standing []events.Alarm, whole bool) {
	entries, err := a.issued.List(ctx, "")
	whole = err == nil
	for _, e := range entries {
		slot, container, r, err := parseRecord(e)
		if err != nil {
			a.session.logger.Error("an entry is not understood", "err", err)
			whole = false
		}
		env, rest, _ := strings.Cut(e.Key, ".")
		app, _, _ := strings.Cut(rest, ".")
		for _, t := range r.Tokens {
			if t.Taken {
				standing = append(standing, events.Alarm{
					Environment: events.Slug(env), App: events.Slug(app), What: fmt.Sprintf("token of Vault for container %s of slot %d of %s", container, slot, app),
					Why: fmt.Sprintf("somebody has used what waited for its next start, made at %s; it is revoked", t.Made.Format(time.RFC3339)), Do: lookIntoTaken,
				})
			}
		}
	}
	return standing, whole
}

// parseRecord reads an entry.
func parseRecord(e ledger.Entry) (slot int, container string, r record, err error) {
	parts := strings.Split(e.Key, ".")
	if len(parts) == 4 {
		slot, err = strconv.Atoi(parts[2])
		container = parts[3]
	}
	if err == nil && container == "" {
		err = errors.New("the key has not four parts")
	}
	if err == nil {
		err = json.Unmarshal(e.Value, &r)
	}
	if err != nil {
		return 0, "", record{}, fmt.Errorf("which tokens of Vault were issued, %s: %w", e.Key, err)
	}
	return slot, container, r, nil
}
