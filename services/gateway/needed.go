package gateway

import (
	"fmt"
	"strings"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/settings"
)

// users are the versions that run in an environment, or come up there, and need a key: people's names for them.
func users(app *fold.App, env events.Slug, kind settings.Kind, key string) []string {
	var all []string
	if app == nil {
		return nil
	}
	live, last := app.Env(env).Live(), app.Env(env).Last()
	running := []*fold.Slot{live}
	if last != live && last != nil && last.Open() {
		running = append(running, last)
	}
	for _, s := range running {
		if s == nil || s.Kind == events.KindRemove {
			continue
		}
		pins := s.Pins.Config
		if kind == settings.Secrets {
			pins = s.Pins.Secrets
		}
		if version, ok := pins[key]; ok {
			all = append(all, fmt.Sprintf("%s (%s) needs it in %s, at version %d", fold.Name(app.Name, s.Run), shortDigest(s.Digest), env, version))
		}
	}
	return all
}

// stillNeeded refuses to remove a key that a running version needs, unless the request insists with force=1.
func (c *call) stillNeeded(kind settings.Kind, key string) error {
	all := users(c.s.fold().App(c.app), c.env, kind, key)
	if len(all) == 0 || c.r.URL.Query().Get("force") == "1" {
		return nil
	}
	return refused("removing", fmt.Sprintf("%s %s/%s", key, c.env, c.app), strings.Join(all, "; "),
		"deploy a version that does without it first, or insist with --force")
}
