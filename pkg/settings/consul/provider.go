package consul

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"towpath.dev/events"
	"towpath.dev/pkg/pause"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
)

// Provider keeps configuration in one environment's Consul. A version is the ModifyIndex of the key, its own or, where
// an app has none of its own, that of the shared level.
type Provider struct {
	*Client
	granted sync.Map // environments and apps that tokens were made for: true by [2]events.Slug
}

// New returns the provider as a service uses it. It does no IO.
func New(cfg policy.Consul, env events.Slug, service string) (*Provider, error) {
	client, err := NewClient(cfg, env, service)
	return &Provider{Client: client}, err
}

// Name implements settings.Provider with the address and where keys are: another layout has other versions.
func (p *Provider) Name() string {
	where := p.cfg.Path
	if p.cfg.Shared != "" {
		where += " over " + p.cfg.Shared
	}
	return fmt.Sprintf("Consul (%s, %s)", settings.Public(p.cfg.Address), where)
}

// ReadOnly implements settings.Provider.
func (p *Provider) ReadOnly() bool { return p.cfg.ReadOnly }

// layout is where keys are: one is prefix, name, suffix.
type layout struct{ prefix, suffix string }

func (l layout) path(key string) string { return l.prefix + key + l.suffix }

// name returns the key of a path, "" where it is none.
func (l layout) name(path string) string {
	name, ok := strings.CutSuffix(strings.TrimPrefix(path, l.prefix), l.suffix)
	if !ok || pipeline.CheckKey(name) != nil {
		return ""
	}
	return name
}

func layoutOf(template string, env, app events.Slug) layout {
	path := strings.NewReplacer("{env}", string(env), "{app}", string(app)).Replace(template)
	prefix, suffix, _ := strings.Cut(path, "{key}")
	return layout{prefix, suffix}
}

// layouts returns where an app's keys are, its own first, then those that it shares.
func (c *Client) layouts(env, app events.Slug) []layout {
	all := []layout{layoutOf(c.cfg.Path, env, app)}
	if c.cfg.Shared != "" {
		all = append(all, layoutOf(c.cfg.Shared, env, app))
	}
	return all
}

// found is a key as Consul has it.
type found struct {
	pair   *api.KVPair // nil: there is none
	shared bool
}

func (f found) version() uint64 {
	if f.pair == nil {
		return 0
	}
	return f.pair.ModifyIndex
}

// find returns the key that an app has: its own, or the one that it shares.
func (p *Provider) find(ctx context.Context, at settings.Place) (found, error) {
	for i, l := range p.layouts(at.Env, at.App) {
		var pair *api.KVPair
		path := l.path(at.Key)
		err := p.ask(ctx, "reading "+path, func(ctx context.Context) (err error) {
			pair, _, err = p.api.KV().Get(path, (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
			return err
		})
		if err != nil || pair != nil {
			return found{pair, i > 0}, err
		}
	}
	return found{}, nil
}

// Get implements settings.Provider.
func (p *Provider) Get(ctx context.Context, at settings.Place) (string, uint64, error) {
	f, err := p.find(ctx, at)
	if err != nil {
		return "", 0, err
	}
	if f.pair == nil {
		return "", 0, settings.ErrNotSet
	}
	value := string(f.pair.Value)
	if err := at.CheckValue(value); err != nil {
		return "", 0, fmt.Errorf("%s: %s: %w", p.store, f.pair.Key, err)
	}
	return value, f.version(), nil
}

// GetAt implements settings.Provider, for the present version alone.
func (p *Provider) GetAt(ctx context.Context, at settings.Place, version uint64) (string, error) {
	value, present, err := p.Get(ctx, at)
	if err == nil && present != version {
		err = fmt.Errorf("%w: it has version %d", settings.ErrNotSet, present)
	}
	if err != nil {
		return "", err
	}
	return value, nil
}

// Set implements settings.Provider. It writes the app's own key, also where it has had the shared one so far.
func (p *Provider) Set(ctx context.Context, at settings.Place, value string, expected *uint64) (uint64, error) {
	if p.cfg.ReadOnly {
		return 0, p.readOnly()
	}
	if err := at.CheckValue(value); err != nil {
		return 0, err
	}
	for {
		f, err := p.find(ctx, at)
		if err != nil {
			return 0, err
		}
		if f.pair != nil && !f.shared && string(f.pair.Value) == value && (expected == nil || 0 < *expected && *expected <= f.version()) {
			return f.version(), nil
		}
		if expected != nil && *expected != f.version() {
			return 0, fmt.Errorf("%w: it has version %d, not %d", settings.ErrChanged, f.version(), *expected)
		}
		op := &api.KVTxnOp{Verb: api.KVCAS, Key: layoutOf(p.cfg.Path, at.Env, at.App).path(at.Key), Value: []byte(value)}
		if f.pair != nil && !f.shared {
			op.Index, op.Flags = f.pair.ModifyIndex, f.pair.Flags
		}
		version, err := p.write(ctx, "writing "+op.Key, op)
		if !errors.Is(err, settings.ErrChanged) {
			return version, err
		}
	}
}

// Delete implements settings.Provider. In one transaction it marks the key, which says at which index that is, and takes
// it away; nobody sees the mark. A shared key is not an app's to delete.
func (p *Provider) Delete(ctx context.Context, at settings.Place) (version uint64, left string, err error) {
	if p.cfg.ReadOnly {
		return 0, "", p.readOnly()
	}
	for {
		f, err := p.find(ctx, at)
		switch {
		case err != nil:
			return 0, "", err
		case f.pair == nil:
			return 0, "", settings.ErrNotSet
		case f.shared:
			return 0, "", fmt.Errorf("%w: %s is shared by all apps of %s: change it in Consul", settings.ErrReadOnly, f.pair.Key, at.Env)
		}
		version, err := p.write(ctx, "deleting "+f.pair.Key,
			&api.KVTxnOp{Verb: api.KVCAS, Key: f.pair.Key, Index: f.pair.ModifyIndex, Flags: f.pair.Flags ^ 1},
			&api.KVTxnOp{Verb: api.KVDelete, Key: f.pair.Key})
		if !errors.Is(err, settings.ErrChanged) {
			return version, "", err
		}
	}
}

func (p *Provider) readOnly() error {
	return fmt.Errorf("%s: %w: platform.yaml says readOnly", p.store, settings.ErrReadOnly)
}

// write carries out a transaction, once, and returns the index of the key that it writes first. The error wraps
// ErrChanged where that key has another index than was expected.
func (p *Provider) write(ctx context.Context, what string, ops ...*api.KVTxnOp) (version uint64, err error) {
	err = p.once(ctx, what, func(ctx context.Context) error {
		ok, answer, _, err := p.api.KV().Txn(ops, (&api.QueryOptions{}).WithContext(ctx))
		if err != nil {
			return failedTransaction(err)
		}
		if ok && len(answer.Results) > 0 {
			version = answer.Results[0].ModifyIndex
			return nil
		}
		return refusal(answer)
	})
	return version, err
}

// failedTransaction gives an answer the status that package api leaves out for transactions.
func failedTransaction(err error) error {
	body, failed := strings.CutPrefix(err.Error(), "Failed request: ")
	switch {
	case !failed:
		return err
	case strings.Contains(body, "too large"):
		return api.StatusError{Code: http.StatusRequestEntityTooLarge, Body: body}
	case strings.Contains(body, "Permission denied"), strings.Contains(body, "ACL not found"):
		return api.StatusError{Code: http.StatusForbidden, Body: body}
	}
	return api.StatusError{Code: http.StatusInternalServerError, Body: body}
}

// refusal says why a transaction was rolled back.
func refusal(answer *api.KVTxnResponse) error {
	if len(answer.Errors) == 0 {
		return errors.New("the transaction was rolled back, and it is not said why")
	}
	why := answer.Errors[0].What
	switch {
	case strings.Contains(why, "index is stale"), strings.Contains(why, "key exists"):
		return fmt.Errorf("%w: %s", settings.ErrChanged, why)
	case strings.Contains(strings.ToLower(why), "permission denied"):
		return api.StatusError{Code: http.StatusForbidden, Body: why}
	}
	return api.StatusError{Code: http.StatusConflict, Body: why}
}

// List implements settings.Provider. When a key was set is not known to Consul. A value that no setting can have is
// listed as what it is, and as unfit; Get says the same as an error.
func (p *Provider) List(ctx context.Context, env, app events.Slug) ([]settings.Item, error) {
	items := map[string]settings.Item{}
	for i, l := range p.layouts(env, app) {
		var pairs api.KVPairs
		err := p.ask(ctx, "listing "+l.prefix, func(ctx context.Context) (err error) {
			pairs, _, err = p.entries(ctx, l, &api.QueryOptions{RequireConsistent: true})
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, pair := range pairs {
			key := l.name(pair.Key)
			if _, own := items[key]; key == "" || own {
				continue
			}
			item := settings.Item{Key: key, Value: string(pair.Value), Version: pair.ModifyIndex, Shared: i > 0}
			if err := (settings.Place{Kind: settings.Config, Env: env, App: app, Key: key}).CheckValue(item.Value); err != nil {
				item.Unfit = fmt.Sprintf("%s: %s: %v", p.store, pair.Key, err)
			}
			if !utf8.ValidString(item.Value) {
				item.Value = fmt.Sprintf("(%d bytes that are not UTF-8)", len(item.Value))
			}
			items[key] = item
		}
	}
	all := make([]settings.Item, 0, len(items))
	for _, item := range items {
		all = append(all, item)
	}
	slices.SortFunc(all, func(a, b settings.Item) int { return cmp.Compare(a.Key, b.Key) })
	return all, nil
}

// entries lists what is below a prefix. Consul leaves out without a word what a token may not read, so that a key would
// seem not to be set: that is an error here.
func (c *Client) entries(ctx context.Context, l layout, o *api.QueryOptions) (api.KVPairs, *api.QueryMeta, error) {
	pairs, meta, err := c.api.KV().List(l.prefix, o.WithContext(ctx))
	if err != nil {
		return nil, nil, err
	}
	if meta.ResultsFilteredByACLs {
		return nil, nil, api.StatusError{Code: http.StatusForbidden, Body: "it hides keys below " + l.prefix + " from it"}
	}
	if len(pairs) == 0 { // reading a single key is refused aloud
		_, _, err = c.api.KV().Get(l.path("TOWPATH_"), (&api.QueryOptions{}).WithContext(ctx))
	}
	return pairs, meta, err
}

// How a watch waits.
const (
	watchBound = 30 * time.Second
	watchPause = 100 * time.Millisecond // between two looks at what may not have changed
)

// Watch implements settings.Provider. A mark is a hash of what there is, so it holds for every process and survives
// indexes that go back.
func (p *Provider) Watch(ctx context.Context, env, app events.Slug, mark uint64) (uint64, error) {
	deadline := time.Now().Add(watchBound)
	layouts := p.layouts(env, app)
	for {
		next, indexes, err := p.look(ctx, layouts)
		if err != nil || next != mark || !time.Now().Before(deadline) {
			return next, err
		}
		if err := p.await(ctx, layouts, indexes, time.Until(deadline)); err != nil {
			return mark, err
		}
		if err := pause.For(ctx, watchPause); err != nil {
			return mark, err
		}
	}
}

// look returns the mark of what there is, and at which index of Consul's each level was read.
func (p *Provider) look(ctx context.Context, layouts []layout) (mark uint64, indexes []uint64, err error) {
	hash := fnv.New64a()
	for _, l := range layouts {
		var (
			pairs api.KVPairs
			meta  *api.QueryMeta
		)
		err := p.ask(ctx, "watching "+l.prefix, func(ctx context.Context) (err error) {
			pairs, meta, err = p.entries(ctx, l, &api.QueryOptions{RequireConsistent: true})
			return err
		})
		if err != nil {
			return 0, nil, err
		}
		for _, pair := range pairs {
			if l.name(pair.Key) != "" {
				hash.Write(binary.BigEndian.AppendUint64([]byte(pair.Key+"\x00"), pair.ModifyIndex))
			}
		}
		hash.Write([]byte{0})
		indexes = append(indexes, max(meta.LastIndex, 1))
	}
	return max(hash.Sum64(), 1), indexes, nil
}

// await returns when something below one of the prefixes changed after its index, or the time is over.
func (p *Provider) await(ctx context.Context, layouts []layout, indexes []uint64, wait time.Duration) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := make(chan error, len(layouts))
	for i, l := range layouts {
		go func() {
			// Consul answers up to a sixteenth later than it was told.
			over <- p.within(ctx, wait+wait/16+answerBound, "watching "+l.prefix, func(ctx context.Context) error {
				_, _, err := p.api.KV().Keys(l.prefix, "", (&api.QueryOptions{WaitIndex: indexes[i], WaitTime: wait}).WithContext(ctx))
				return err
			})
		}()
	}
	err := <-over
	cancel(errors.New("another level changed"))
	for range len(layouts) - 1 {
		<-over
	}
	return err
}
