package vault

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"towpath.dev/events"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/settings"
)

// layout says where below the mount a secret is.
type layout struct{ template string }

func newLayout(template string) layout { return layout{strings.Trim(template, "/")} }

// valueField is the field of a secret that has a path of its own.
const valueField = "value"

// perKey reports whether each secret has a path of its own.
func (l layout) perKey() bool { return strings.Contains(l.template, "{key}") }

// fill puts names into the template's placeholders.
func (l layout) fill(env, app, key string) string {
	return strings.NewReplacer("{env}", env, "{app}", app, "{key}", key).Replace(l.template)
}

// locate returns the path and the field of a secret.
func (l layout) locate(p settings.Place) (path, field string) {
	if !l.perKey() {
		return l.fill(string(p.Env), string(p.App), ""), p.Key
	}
	return l.fill(string(p.Env), string(p.App), p.Key), valueField
}

// around returns the folder in which an app's keys are, and what stands before and after a key in a name there. below
// follows where a key is a folder.
func (l layout) around(env, app events.Slug) (folder, before, after, below string) {
	head, tail, _ := strings.Cut(l.template, "{key}")
	fill := func(text string) string { return layout{text}.fill(string(env), string(app), "") }
	if i := strings.LastIndexByte(head, '/'); i >= 0 {
		folder, head = head[:i], head[i+1:]
	}
	if i := strings.IndexByte(tail, '/'); i >= 0 {
		tail, below = tail[:i], tail[i:]
	}
	return fill(folder), fill(head), fill(tail), fill(below)
}

// listers is how many paths are looked at at once.
const listers = 8

// listPaths lists an app whose secrets have a path each.
func (p *Provider) listPaths(ctx context.Context, env, app events.Slug) ([]settings.Item, error) {
	folder, before, after, below := p.layout.around(env, app)
	names, err := p.kv.list(ctx, folder)
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, name := range names {
		if below != "" {
			name, _ = strings.CutSuffix(name, "/")
		}
		key, ok := strings.CutPrefix(name, before)
		if key, end := strings.CutSuffix(key, after); ok && end && pipeline.CheckSecret(key) == nil {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	items := make([]settings.Item, len(keys))
	errs := make(chan error, len(keys))
	turns := make(chan struct{}, listers)
	for i, key := range keys {
		turns <- struct{}{}
		go func() {
			defer func() { <-turns }()
			path := p.layout.fill(string(env), string(app), key)
			s, err := p.kv.look(ctx, path, 0, withoutValues)
			if err != nil {
				err = fmt.Errorf("%s: %w", key, err)
			} else if s.has(valueField) {
				items[i] = settings.Item{Key: key, Version: s.current, Set: s.set}
			}
			errs <- err
		}()
	}
	for range keys {
		if e := <-errs; e != nil && err == nil {
			err = e
		}
	}
	return slices.DeleteFunc(items, func(item settings.Item) bool { return item.Key == "" }), err
}
