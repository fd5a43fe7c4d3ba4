package gateway

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/settings"
	"towpath.dev/services/gateway/view"
)

func doEnvironmentDiff(c *call) error {
	right, err := events.ParseSlug(c.r.URL.Query().Get("with"))
	if err != nil {
		return invalid("comparing environments", string(c.env), "with names no environment", "add ?with=ENV")
	}
	for _, env := range []events.Slug{c.env, right} {
		if err := c.s.knownEnvironment(env); err != nil {
			return err
		}
	}
	diff, err := c.s.diff(c.r.Context(), c.env, right)
	if err == nil {
		writeJSON(c.w, http.StatusOK, diff)
	}
	return err
}

func (s *Service) diff(ctx context.Context, left, right events.Slug) (view.EnvironmentDiff, error) {
	d := view.EnvironmentDiff{Left: string(left), Right: string(right), Apps: []view.AppDiff{}}
	for _, app := range s.fold().Apps() {
		one := view.AppDiff{App: string(app.Name), Left: versionIn(app, left), Right: versionIn(app, right)}
		var err error
		if one.Keys, err = s.keyDiffs(ctx, app.Name, left, right); err != nil {
			return d, err
		}
		switch {
		case one.Left != one.Right && (one.Left.Digest != one.Right.Digest || one.Left.Replicas != one.Right.Replicas) || len(one.Keys) > 0:
			d.Apps = append(d.Apps, one)
		case one.Left.Digest != "":
			d.Same++
		}
	}
	return d, nil
}

func versionIn(app *fold.App, env events.Slug) view.Version {
	live := app.Env(env).Live()
	if live == nil || live.Kind == events.KindRemove {
		return view.Version{}
	}
	v := view.Version{Run: fold.Name(app.Name, live.Run), Digest: live.Digest}
	if run := app.Run(live.Run); run != nil {
		e, _ := run.Definition.Environment(live.Defined())
		v.Replicas = e.Replicas
	}
	return v
}

// keyDiffs compares an app's settings in two environments.
func (s *Service) keyDiffs(ctx context.Context, app, left, right events.Slug) ([]view.KeyDiff, error) {
	var all []view.KeyDiff
	for _, kind := range []settings.Kind{settings.Config, settings.Secrets} {
		list := s.settings.ListConfig
		if kind == settings.Secrets {
			list = s.settings.ListSecrets
		}
		keys := map[string]view.KeyDiff{}
		sameStore := s.settings.Name(left, kind) == s.settings.Name(right, kind)
		for i, env := range []events.Slug{left, right} {
			items, err := list(ctx, env, app)
			if err != nil {
				return nil, fmt.Errorf("comparing the settings of %s in %s and %s: %w", app, left, right, err)
			}
			for _, item := range items {
				one := keys[item.Key]
				one.Key, one.Kind = item.Key, string(kind)
				version, value := &one.LeftVersion, &one.Left
				if i == 1 {
					version, value = &one.RightVersion, &one.Right
				}
				if *version = item.Version; kind == settings.Config {
					*value = &item.Value
				}
				keys[item.Key] = one
			}
		}
		for _, one := range keys {
			there := one.LeftVersion != 0 && one.RightVersion != 0
			if !there || kind == settings.Config && *one.Left != *one.Right || kind == settings.Secrets && sameStore && one.LeftVersion != one.RightVersion {
				all = append(all, one)
			}
		}
	}
	slices.SortFunc(all, func(a, b view.KeyDiff) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key)) })
	return all, nil
}
