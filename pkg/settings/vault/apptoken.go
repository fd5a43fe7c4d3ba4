package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/settings"
)

// appWrapTTL is how long the wrapped token of a replica waits to be used.
const appWrapTTL = 24 * time.Hour

// AppToken is the token of one replica of an app that finds its secrets itself.
type AppToken struct {
	Wrapped  settings.Secret // a wrapping token; what it wraps reads the app's secrets, must be renewed within an hour, and is good until it is revoked or nobody renews it
	Accessor string          // revokes what is wrapped; it reads nothing
	Until    time.Time       // when the wrapping ends
}

// AppToken makes a token for one replica. It needs the token role that Rules describes.
func (p *Provider) AppToken(ctx context.Context, env, app events.Slug) (AppToken, error) {
	at := time.Now()
	a, err := p.session.do(ctx, request{
		method: http.MethodPost, path: "auth/token/create/" + appRoleName(env), wrap: appWrapTTL,
		body: map[string]any{"entity_alias": string(app), "display_name": string(env) + "-" + string(app), "policies": []string{appRoleName(env)}},
	})
	if errors.Is(err, errRefused) {
		err = p.session.unavailable("making a token for "+string(app), err.Error(),
			fmt.Sprintf("set up the token role as `towpath settings rules %s` prints", env), err)
	}
	if err != nil {
		return AppToken{}, err
	}
	if a.WrapInfo == nil {
		return AppToken{}, fmt.Errorf("%s: the token that it made for %s is not wrapped", p.session.name, app)
	}
	return AppToken{
		Wrapped:  settings.NewSecret(a.WrapInfo.Token),
		Accessor: a.WrapInfo.WrappedAccessor, Until: at.Add(time.Duration(a.WrapInfo.TTL) * time.Second),
	}, nil
}

// Waits reports whether a wrapping token is still there to be used: a replica that starts can log in with it.
func (p *Provider) Waits(ctx context.Context, wrapped settings.Secret) (bool, error) {
	_, err := p.session.send(ctx, request{method: http.MethodPost, path: "sys/wrapping/lookup", body: map[string]any{"token": wrapped.Reveal()}})
	if errors.Is(err, errRefused) || errors.Is(err, errDenied) {
		return false, nil
	}
	return err == nil, err
}

// RevokeApp ends a token that AppToken made, used or not. One that is gone already is no error.
func (p *Provider) RevokeApp(ctx context.Context, accessor string) error {
	_, err := p.session.do(ctx, request{method: http.MethodPost, path: "auth/token/revoke-accessor", body: map[string]any{"accessor": accessor}})
	if errors.Is(err, errRefused) {
		return nil
	}
	return err
}

// AppPath is where an app finds its secrets with Vault's HTTP API below /v1/: what TOWPATH_SECRETS_PATH says. Where each
// secret has a path of its own, {key} stands for its name, and it is the field "value".
func (p *Provider) AppPath(env, app events.Slug) string {
	return p.kv.mount + "/data/" + p.layout.fill(string(env), string(app), "{key}")
}
