package gateway

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/worker/boundary"
)

// setting is one key of an app in one environment. A secret has no value here.
type setting struct {
	Key     string     `json:"key"`
	Value   *string    `json:"value,omitempty"`
	Version uint64     `json:"version"`
	Changed *time.Time `json:"changed,omitempty"`
	Actor   string     `json:"actor,omitempty"`
	Warning string     `json:"warning,omitempty"` // of a key that nothing reads, or of a secret that was removed and is still held
}

func doConfig(c *call) error {
	items, err := c.s.settings.ListConfig(c.r.Context(), c.env, c.app)
	return c.listSettings(items, true, err)
}

func doSecrets(c *call) error {
	items, err := c.s.settings.ListSecrets(c.r.Context(), c.env, c.app)
	return c.listSettings(items, false, err)
}

func (c *call) listSettings(items []settings.Item, values bool, err error) error {
	if err != nil {
		return settingProblem("listing settings", c, err)
	}
	list := make([]setting, 0, len(items))
	for _, item := range items {
		one := setting{Key: item.Key, Version: item.Version, Changed: &item.Set}
		if values {
			one.Value = &item.Value
		}
		list = append(list, one)
	}
	writeJSON(c.w, http.StatusOK, list)
	return nil
}

// newValue is the body that sets a key. Version, where given, is the one that the caller has seen: the key is set only
// while it still has it, 0 for a key without a value. Encoding is "base64" for a value that JSON cannot hold, because it
// is not UTF-8.
type newValue struct {
	Value    *string `json:"value"`
	Version  *uint64 `json:"version"`
	Encoding string  `json:"encoding"`
}

func (c *call) newValue() (newValue, error) {
	var body newValue
	if err := c.decode(&body); err != nil {
		return body, err
	}
	if body.Value == nil {
		return body, invalid("setting", c.r.PathValue("key"), "the body has no value", `send {"value": "…"}`)
	}
	switch body.Encoding {
	case "":
	case "base64":
		data, err := base64.StdEncoding.DecodeString(*body.Value)
		if err != nil {
			return body, invalid("setting", c.r.PathValue("key"), "the value is not base64", "send it without encoding, or encode it")
		}
		*body.Value = string(data)
	default:
		return body, invalid("setting", c.r.PathValue("key"), "the encoding is not known", `leave it out, or send "base64"`)
	}
	return body, c.knowsEnvironment()
}

// knowsEnvironment refuses an environment that the app does not go to, which would be a slip of the pen. An app that
// is not known yet may have settings before its first push.
func (c *call) knowsEnvironment() error {
	app := c.s.fold().App(c.app)
	if app == nil || app.Newest() == nil {
		return nil
	}
	names := app.Newest().Definition.EnvironmentNames()
	if env := app.Env(c.env); slices.Contains(names, c.env) || env.Slots.Len() > 0 && !env.Gone {
		return nil
	}
	return notFound("setting", fmt.Sprintf("%s of %s in %s", c.r.PathValue("key"), c.app, c.env), "its pipeline has no such environment", "one of "+joined(names))
}

func doSetConfig(c *call) error {
	body, err := c.newValue()
	if err != nil {
		return err
	}
	key := c.r.PathValue("key")
	var version uint64
	if body.Version != nil {
		version, err = c.s.settings.SetConfigIf(c.r.Context(), c.env, c.app, key, *body.Value, *body.Version)
	} else {
		version, err = c.s.settings.SetConfig(c.r.Context(), c.env, c.app, key, *body.Value)
	}
	if err != nil {
		return settingProblem("setting", c, err)
	}
	return c.settingChanged(settings.Change{Kind: settings.Config, Key: key, Version: version}, setting{Key: key, Value: body.Value, Version: version, Actor: c.actor.ID})
}

func doSetSecret(c *call) error {
	body, err := c.newValue()
	if err != nil {
		return err
	}
	key, value := c.r.PathValue("key"), settings.NewSecret(*body.Value)
	var version uint64
	if body.Version != nil {
		version, err = c.s.settings.SetSecretIf(c.r.Context(), c.env, c.app, key, value, *body.Version)
	} else {
		version, err = c.s.settings.SetSecret(c.r.Context(), c.env, c.app, key, value)
	}
	if err != nil {
		return settingProblem("setting", c, err)
	}
	return c.settingChanged(settings.Change{Kind: settings.Secrets, Key: key, Version: version}, setting{Key: key, Version: version, Actor: c.actor.ID})
}

func doDeleteConfig(c *call) error {
	key := c.r.PathValue("key")
	if err := c.stillNeeded(settings.Config, key); err != nil {
		return err
	}
	version, err := c.s.settings.DeleteConfig(c.r.Context(), c.env, c.app, key)
	if err != nil {
		return settingProblem("removing", c, err)
	}
	return c.settingChanged(settings.Change{Kind: settings.Config, Key: key, Version: version, Deleted: true}, setting{Key: key, Version: version, Actor: c.actor.ID})
}

func doDeleteSecret(c *call) error {
	key := c.r.PathValue("key")
	if err := c.stillNeeded(settings.Secrets, key); err != nil {
		return err
	}
	version, left, err := c.s.settings.DeleteSecret(c.r.Context(), c.env, c.app, key)
	if err != nil {
		return settingProblem("removing", c, err)
	}
	return c.settingChanged(settings.Change{Kind: settings.Secrets, Key: key, Version: version, Deleted: true}, setting{Key: key, Version: version, Actor: c.actor.ID, Warning: left})
}

// settingChanged records a change of a setting of the call's app and environment, and answers. A value that was there
// already has its event.
func (c *call) settingChanged(change settings.Change, answer setting) error {
	boundary.Reached(events.Gateway, boundary.Effect, c.app)
	defer boundary.Reached(events.Gateway, boundary.Ack, c.app)
	change.Env, change.App, change.Store = c.env, c.app, c.s.settings.Name(c.env, change.Kind)
	if _, err := c.s.recordSetting(c.r.Context(), change, c.actor.ID); err != nil {
		return err
	}
	now := time.Now().UTC()
	answer.Changed = &now
	if !change.Deleted {
		answer.Warning = undeclared(c.s.fold().App(c.app), answer.Key, change.Kind == settings.Secrets)
	}
	writeJSON(c.w, http.StatusOK, answer)
	return nil
}

// recordSetting says in the ledger that a setting was changed. It is not fresh where that was said before.
func (s *Service) recordSetting(ctx context.Context, change settings.Change, actor string) (fresh bool, err error) {
	about := events.About{ID: fmt.Sprintf("%s/%s/%s", change.Env, change.App, change.Key)}
	var body events.Body = &events.SettingChanged{
		About: about, Key: change.Key, App: change.App, Environment: change.Env, Version: change.Version, Deleted: change.Deleted, Actor: actor, Store: change.Store,
	}
	if change.Kind == settings.Secrets {
		body = &events.SecretChanged{
			About: about, Key: change.Key, App: change.App, Environment: change.Env, Version: change.Version, Deleted: change.Deleted, Actor: actor, Store: change.Store,
		}
	}
	subject := events.SettingSubject(s.epoch(), body.Type(), change.App, change.Env, change.Key, change.Store, change.Version)
	// The value is stored: the event must follow even if the client is gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), appendBound)
	defer cancel()
	_, err = s.rt.Append(ctx, subject, events.New(events.Gateway, time.Now(), "", body))
	var exists *ledger.ExistsError
	if err != nil && !errors.As(err, &exists) {
		return false, fmt.Errorf("recording that %s of %s in %s is version %d: %w", change.Key, change.App, change.Env, change.Version, err)
	}
	return err == nil, nil
}

// undeclared warns of a key that the newest pipeline of an app does not declare: nothing reads it. An app without a run
// declares nothing yet.
func undeclared(app *fold.App, key string, secret bool) string {
	if app == nil || app.Newest() == nil {
		return ""
	}
	run := app.Newest()
	kind, declared := "config", run.Definition.Config
	if secret {
		kind, declared = "secrets", run.Definition.Secrets
	}
	if slices.Contains(declared, key) {
		return ""
	}
	names := strings.Join(declared, ", ")
	if names == "" {
		names = "none"
	}
	return fmt.Sprintf("%s of %s (%s) does not declare %s under %s, so nothing reads it; it declares %s", pipeline.FileName, app.Name, run.Name(), key, kind, names)
}

// settingProblem puts the store's errors into words. None of them holds a value.
func settingProblem(what string, c *call, err error) error {
	on := strings.TrimSpace(fmt.Sprintf("%s %s/%s", c.r.PathValue("key"), c.env, c.app))
	switch {
	case errors.Is(err, settings.ErrInvalid):
		return invalid(what, fmt.Sprintf("%.200s", on), err.Error(), "")
	case errors.Is(err, settings.ErrNotSet):
		return notFound(what, on, "it has no value", "")
	case errors.Is(err, settings.ErrChanged):
		return conflict(what, on, err.Error(), "look again, then set it with the version that you saw")
	case errors.Is(err, settings.ErrReadOnly):
		return refused(what, on, err.Error(), "change it there, with the tools of that store")
	}
	return fmt.Errorf("%s %s: %w", what, on, err)
}

// newestSettings is how many settings of each kind a start looks at.
const newestSettings = 32

// reconcileSettings says of the settings that were changed last that they were, where a crash kept that from the
// ledger. Those that have their event already keep it.
func (s *Service) reconcileSettings(ctx context.Context) error {
	changes, err := s.settings.Newest(ctx, newestSettings)
	if err != nil {
		return err
	}
	for _, change := range changes {
		fresh, err := s.recordSetting(ctx, change, string(events.Gateway))
		if err != nil {
			return err
		}
		if fresh {
			s.logger.Info("a setting that was changed before is recorded now", "app", change.App, "env", change.Env, "key", change.Key)
		}
	}
	return nil
}
