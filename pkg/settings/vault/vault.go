// Package vault keeps secrets in HashiCorp Vault's KV version 2.
//
// It guarantees what settings.Provider says, for trees that are there already too: a value that is text is the field as
// it is. One that is not UTF-8, or has a zero byte, is base64 in the field, and the field of the same name with
// ".encoding" after it says "base64"; other tools read it with `vault kv get -field=value … | base64 -d`.
//
// Whether a secret is there is asked of KV's subkeys endpoint, which shows no values, so that an identity whose policy
// lets it read none can list, set and delete.
//
// A version is KV's version of the path. Where an app's secrets are the fields of one path, the path's custom metadata
// says since which version each field has its value (a table in towpath.1, towpath.2 …), so that a change of one is not
// a change of all; after a write by another tool all count as changed. Deleting a secret destroys each version that
// holds it and no other secret. Of one that others share, the table says that the deleted one is not to be had there any
// more, and whoever deletes is told that it still holds the value. The path's metadata stays, so that versions go on
// growing; `vault kv metadata delete` would begin at 1 again, so do not use it. KV keeps max_versions of a path, 10
// unless told: a pin to an older one is not kept.
//
// It logs in with AppRole by single-use secret ids that are handed over in response-wrapping tokens; see Provider.Run.
package vault

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"towpath.dev/events"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
)

// Provider keeps the secrets of one or more environments in one Vault. It is safe for concurrent use.
type Provider struct {
	readOnly bool
	layout   layout
	kv       kv
	session  *session
}

var _ settings.Provider = (*Provider)(nil)

// New returns the provider of what cfg describes, for one service. env is what it is called in errors. It does no IO;
// the first call logs in.
func New(cfg policy.Vault, env events.Slug, service string, logger *slog.Logger) (*Provider, error) {
	if cfg.Address == "" || cfg.Mount == "" || cfg.Path == "" {
		return nil, fmt.Errorf("vault of %s: address, mount and path must be given", env)
	}
	if cfg.TokenFile == "" && (cfg.RoleIDFile == "" || cfg.SecretIDFile == "") {
		return nil, fmt.Errorf("vault of %s: either roleIDFile and secretIDFile must be given, or tokenFile", env)
	}
	s := newSession(cfg, env, service, logger)
	return &Provider{readOnly: cfg.ReadOnly, layout: newLayout(cfg.Path), kv: kv{mount: cfg.Mount, session: s}, session: s}, nil
}

// Name implements settings.Provider with the address and where secrets are.
func (p *Provider) Name() string {
	cfg := p.session.cfg
	where := cfg.Mount + "/" + p.layout.template
	if cfg.Namespace != "" {
		where = "namespace " + cfg.Namespace + ", " + where
	}
	return fmt.Sprintf("Vault (%s, %s)", settings.Public(cfg.Address), where)
}

// ReadOnly implements settings.Provider.
func (p *Provider) ReadOnly() bool { return p.readOnly }

// Run keeps the provider logged in until ctx is done, and revokes its token then. Without it each call still logs in
// where it must, but tokens are not renewed, and the wrapped secret id for the next start can expire.
func (p *Provider) Run(ctx context.Context) { p.session.run(ctx) }

// Get implements settings.Provider.
func (p *Provider) Get(ctx context.Context, at settings.Place) (string, uint64, error) {
	path, field := p.layout.locate(at)
	s, err := p.kv.settled(ctx, path, withValues)
	if err != nil {
		return "", 0, err
	}
	if !s.has(field) {
		return "", 0, settings.ErrNotSet
	}
	value, err := decode(s.fields, field)
	return value, p.version(s, at.Key), err
}

// GetAt implements settings.Provider. A version that KV no longer keeps is still read where the present value has
// been there since.
func (p *Provider) GetAt(ctx context.Context, at settings.Place, version uint64) (string, error) {
	path, field := p.layout.locate(at)
	s, err := p.kv.look(ctx, path, version, withValues)
	if err != nil {
		return "", err
	}
	if s.has(field) && s.versions.gone[at.Key] <= version {
		return decode(s.fields, field)
	}
	present, err := p.kv.settled(ctx, path, withValues)
	if err != nil {
		return "", err
	}
	if present.has(field) && p.version(present, at.Key) == version {
		return decode(present.fields, field)
	}
	return "", fmt.Errorf("%w of that version in Vault: %s; deploy with the present secrets, or set it again", settings.ErrNotSet, s.why(at.Key, version, present.current))
}

// Set implements settings.Provider.
func (p *Provider) Set(ctx context.Context, at settings.Place, value string, expected *uint64) (uint64, error) {
	if p.readOnly {
		return 0, fmt.Errorf("%s: %w: platform.yaml says readOnly", p.session.name, settings.ErrReadOnly)
	}
	if err := at.CheckValue(value); err != nil {
		return 0, err
	}
	path, field := p.layout.locate(at)
	for {
		s, err := p.kv.settled(ctx, path, withValues)
		readable := !errors.Is(err, errDenied)
		if !readable {
			s, err = p.kv.settled(ctx, path, withoutValues)
		}
		if err != nil {
			return 0, err
		}
		var present uint64
		if s.has(field) {
			present = p.version(s, at.Key)
		}
		if present > 0 && readable && (expected == nil || 0 < *expected && *expected <= present) {
			if is, err := decode(s.fields, field); err == nil && is == value {
				return present, nil
			}
		}
		if expected != nil && *expected != present {
			return 0, fmt.Errorf("%w: it has version %d, not %d", settings.ErrChanged, present, *expected)
		}
		version, err := p.kv.write(ctx, path, s, encode(field, value, s.live))
		if errors.Is(err, settings.ErrChanged) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if !p.layout.perKey() {
			p.kv.note(ctx, path, s, s.after(version, at.Key))
		}
		return version, nil
	}
}

// Delete implements settings.Provider.
func (p *Provider) Delete(ctx context.Context, at settings.Place) (version uint64, left string, err error) {
	if p.readOnly {
		return 0, "", fmt.Errorf("%s: %w: platform.yaml says readOnly", p.session.name, settings.ErrReadOnly)
	}
	path, field := p.layout.locate(at)
	s, err := p.kv.settled(ctx, path, withoutValues)
	if err != nil {
		return 0, "", err
	}
	version = s.current
	if s.has(field) {
		version, err = p.kv.write(ctx, path, s, map[string]any{field: nil, field + encodingSuffix: nil})
		if err != nil {
			return 0, "", err
		}
	}
	alone, shared, oldest, err := p.kv.holding(ctx, path, field, p.layout.perKey())
	if err != nil {
		return 0, "", err
	}
	if !p.layout.perKey() && s.has(field) {
		p.kv.note(ctx, path, s, s.without(version, at.Key, len(shared) > 0).kept(oldest))
	}
	if !s.has(field) && len(alone) == 0 {
		return 0, "", settings.ErrNotSet
	}
	if s.has(field) && !s.others(field) {
		alone = append(alone, version) // it holds nothing, and says so to whoever reads it
	}
	if len(alone) > 0 {
		err = p.kv.destroy(ctx, path, alone)
	}
	if len(shared) > 0 {
		numbers := strings.Trim(strings.ReplaceAll(fmt.Sprint(shared), " ", ","), "[]")
		left = fmt.Sprintf("Vault still holds it, or may, in version %s of %s, which other secrets of the app share and rollbacks may need; `vault kv destroy -mount=%s -versions=%s %s` takes all of them away for good",
			numbers, path, p.kv.mount, numbers, path)
	}
	return version, left, err
}

// List implements settings.Provider.
func (p *Provider) List(ctx context.Context, env, app events.Slug) ([]settings.Item, error) {
	if p.layout.perKey() {
		return p.listPaths(ctx, env, app)
	}
	path, _ := p.layout.locate(settings.Place{Env: env, App: app})
	s, err := p.kv.settled(ctx, path, withoutValues)
	if err != nil {
		return nil, err
	}
	items := []settings.Item{}
	for _, field := range slices.Sorted(maps.Keys(s.fields)) {
		if pipeline.CheckSecret(field) != nil {
			continue
		}
		item := settings.Item{Key: field, Version: p.version(s, field)}
		if item.Version == s.current {
			item.Set = s.set
		}
		items = append(items, item)
	}
	return items, nil
}

// pollEvery is how often Watch looks. Vault's KV has nothing to wait on.
const (
	pollEvery  = 5 * time.Second
	watchBound = 30 * time.Second
)

// Watch implements settings.Provider by looking. A mark is a hash of which keys there are, at which versions.
func (p *Provider) Watch(ctx context.Context, env, app events.Slug, mark uint64) (uint64, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	bound := time.NewTimer(watchBound)
	defer bound.Stop()
	for {
		items, err := p.List(ctx, env, app)
		if err != nil {
			return mark, err
		}
		sum := fnv.New64a()
		for _, item := range items {
			fmt.Fprintf(sum, "%s %d\n", item.Key, item.Version)
		}
		if next := max(sum.Sum64(), 1); next != mark {
			return next, nil
		}
		select {
		case <-ctx.Done():
			return mark, ctx.Err()
		case <-bound.C:
			return mark, nil
		case <-tick.C:
		}
	}
}

// version returns a key's version in a path as it was seen.
func (p *Provider) version(s state, key string) uint64 {
	if p.layout.perKey() {
		return s.current
	}
	return s.versions.of(key, s.current)
}

// encodingSuffix follows a field's name in the name of the field that says how it is encoded.
const encodingSuffix = ".encoding"

// encode returns the fields that hold a value. Where they are merged into others, they take away what is of no use any more.
func encode(field, value string, merged bool) map[string]any {
	if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
		return map[string]any{field: base64.StdEncoding.EncodeToString([]byte(value)), field + encodingSuffix: "base64"}
	}
	fields := map[string]any{field: value}
	if merged {
		fields[field+encodingSuffix] = nil
	}
	return fields
}

// decode returns a field's value: text as it is, other JSON in its shortest form.
func decode(fields map[string]any, field string) (string, error) {
	text, isText := fields[field].(string)
	switch encoding := fields[field+encodingSuffix]; {
	case !isText && fields[field] == nil:
		return "", nil
	case !isText:
		var out bytes.Buffer
		e := json.NewEncoder(&out)
		e.SetEscapeHTML(false)
		err := e.Encode(fields[field])
		return strings.TrimSuffix(out.String(), "\n"), err
	case encoding == "base64":
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return "", fmt.Errorf("the field %s says base64, and %s is not: set it again", field+encodingSuffix, field)
		}
		return string(data), nil
	}
	return text, nil
}
