package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"towpath.dev/events"
	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

// maxOverlay bounds a file of settings, in bytes.
const maxOverlay = 1 << 20

func (p *program) envCreateCommand() *cobra.Command {
	var e view.NewEnvironment
	var sets []string
	var file, from string
	var timeout, ttl time.Duration
	var background bool
	c := &cobra.Command{
		Use: "create NAME --from ENV", Short: "Make an environment like another: every app, at the same digests",
		Long: `Make an environment like another: every app that runs there, at the same digests and with
copies of the settings and secrets that those run with, its own network, and its own address
at the edge. Secrets are copied inside Towpath and pass through no terminal; those that ENV
has in a Vault have to be given, since Towpath's gateway may not read them there. --set and
--settings give some of them another value; a file for --settings is

  hello:
    config: {GREETING: hi}
    secrets: {DATABASE_PASSWORD: …}

and - reads it from stdin. No pipeline promotes anything there. Given again, it brings the
environment to the digests that ENV has by then, keeps the settings that it has, and tries
once more what did not come up. Keys that somebody else keeps under NAME in a Consul or Vault
are left alone: it is refused. With --ttl it is destroyed by itself.`,
		Example: examples("towpath env create demo --from prod --ttl 2h", "towpath env create demo --from prod --set hello/GREETING=hi",
			"pass show demo-settings | towpath env create demo --from prod --settings -"),
		Args: arguments(cobra.ExactArgs(1)), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			if from == "" {
				return usage("create it from what: name the environment with --from")
			}
			e.Name, e.From, e.ID = events.Slug(args[0]), events.Slug(from), client.NewCommandID()
			if ttl != 0 {
				e.TTL = ttl.String()
			}
			var err error
			if e.Apps, err = p.overlays(sets, file); err != nil {
				return err
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			answer, err := api.CreateEnvironment(c.Context(), e)
			if err != nil {
				return err
			}
			p.say("%s", answer.Text)
			for _, w := range answer.Warnings {
				p.warn(client.Setting{Warning: w})
			}
			if background {
				p.say("→ towpath env show %s", e.Name)
				return nil
			}
			return p.awaitEnvironment(c.Context(), api, args[0], answer.Seq, timeout)
		},
	}
	c.Flags().StringVar(&from, "from", "", "the environment that it is to be like")
	c.Flags().StringArrayVar(&sets, "set", nil, "another value for a setting, `APP/KEY=VALUE`; may be given again")
	c.Flags().StringVar(&file, "settings", "", "`file` with other values for settings and secrets, - for stdin")
	c.Flags().DurationVar(&ttl, "ttl", 0, "destroy it after this time, such as 2h (default: never)")
	c.Flags().StringVar(&e.Reason, "reason", "", "why, for those who look later")
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "give up waiting after this time; it goes on by itself")
	c.Flags().BoolVar(&background, "background", false, "do not wait until it is up")
	c.RegisterFlagCompletionFunc("from", func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return p.envNames(c), cobra.ShellCompDirectiveNoFileComp
	})
	return c
}

// overlays reads --set and --settings.
func (p *program) overlays(sets []string, file string) (map[events.Slug]view.Overlay, error) {
	apps := map[events.Slug]view.Overlay{}
	if file != "" {
		in := io.Reader(p.in)
		if file != "-" {
			f, err := os.Open(file)
			if err != nil {
				return nil, usage("--settings: %v", err)
			}
			defer f.Close()
			in = f
		}
		var given map[string]struct {
			Config  map[string]string `yaml:"config"`
			Secrets map[string]string `yaml:"secrets"`
		}
		d := yaml.NewDecoder(io.LimitReader(in, maxOverlay))
		d.KnownFields(true)
		if err := d.Decode(&given); err != nil && !errors.Is(err, io.EOF) {
			return nil, usage("--settings %s: it is not APP: {config: {KEY: VALUE}, secrets: {KEY: VALUE}}", file) // the reader's error may quote a secret
		}
		for app, one := range given {
			apps[events.Slug(app)] = view.Overlay{Config: one.Config, Secrets: one.Secrets}
		}
	}
	for _, text := range sets {
		name, value, found := strings.Cut(text, "=")
		app, key, named := strings.Cut(name, "/")
		if !found || !named || app == "" || key == "" {
			return nil, usage("--set %q is not APP/KEY=VALUE", name)
		}
		one := apps[events.Slug(app)]
		if one.Config == nil {
			one.Config = map[string]string{}
		}
		one.Config[key] = value
		apps[events.Slug(app)] = one
	}
	return apps, nil
}

// awaitEnvironment shows what becomes of an environment until it is up, or what did not come up is known.
func (p *program) awaitEnvironment(ctx context.Context, api *client.Client, name string, seq uint64, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	up := -1
	for after := uint64(0); ; {
		e, err := api.EnvironmentState(ctx, name, after)
		if err != nil {
			return err
		}
		after = e.Seq
		m := e.Made
		if m == nil || m.State == view.StateEnding {
			return &client.Error{What: "making environment", On: name, Why: "it was destroyed meanwhile", Do: "towpath env list", Code: client.CodeFailed}
		}
		if after < seq {
			continue
		}
		if m.Up != up && m.State == view.StateCreating && m.Up > 0 {
			up = m.Up
			p.say("  %d of %d up", m.Up, m.Of)
		}
		switch m.State {
		case view.StateUp:
			p.say("%s is up: %d of %d", name, m.Up, m.Of)
			p.say("→ towpath env show %s", name)
			return nil
		case view.StateIncomplete:
			for _, f := range m.Failed {
				p.say("  %s  %s", p.out.Paint(screen.Red, f.App), screen.Line(f.Why))
			}
			p.say("%s is up but for %d of %d", name, len(m.Failed), m.Of)
			p.say("→ mend it, then: towpath env create %s --from %s", name, m.From)
			return codeError(exitFailed)
		}
	}
}

func (p *program) envDestroyCommand() *cobra.Command {
	var reason string
	var timeout time.Duration
	var yes bool
	c := &cobra.Command{
		Use: "destroy NAME", Short: "Destroy an environment that env create has made; nothing of it is left",
		Example: examples("towpath env destroy demo"), Args: arguments(cobra.ExactArgs(1)), ValidArgsFunction: p.completeMadeEnvs,
		RunE: func(c *cobra.Command, args []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			p.say("All of %s is removed: its containers, networks, settings and secrets.", args[0])
			if err := p.agree(yes); err != nil {
				return err
			}
			answer, err := api.DestroyEnvironment(c.Context(), client.NewCommandID(), args[0], reason)
			if err != nil {
				return err
			}
			p.say("%s", answer.Text)
			return p.awaitGone(c.Context(), api, args[0], timeout)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for those who look later")
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "give up waiting after this time; it goes on by itself")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

// awaitGone waits until nothing of an environment is left.
func (p *program) awaitGone(ctx context.Context, api *client.Client, name string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for after := uint64(0); ; {
		e, err := api.EnvironmentState(ctx, name, after)
		var refusal *client.Error
		if errors.As(err, &refusal) && refusal.Kind() == client.NotFound || err == nil && (e.Made == nil || e.Made.State != view.StateEnding) {
			p.say("%s is gone", name)
			return nil
		}
		if err != nil {
			return err
		}
		after = e.Seq
	}
}

func (p *program) completeMadeEnvs(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	api, err := p.open()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	envs, err := api.Environments(c.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, e := range envs {
		if e.Made != nil {
			names = append(names, e.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// stateOf says how an environment is, in a few words.
func stateOf(e view.Environment, now time.Time) string {
	var parts []string
	if m := e.Made; m != nil {
		text := fmt.Sprintf("%s, made from %s %s", m.State, m.From, screen.Ago(now, m.Since))
		if m.State == view.StateCreating || m.State == view.StateIncomplete {
			text += fmt.Sprintf(", %d of %d up", m.Up, m.Of)
		}
		if m.State == view.StatePreparing {
			text += fmt.Sprintf(", its settings not all written (towpath env create %s --from %s goes on, towpath env destroy %s removes them)", e.Name, m.From, e.Name)
		}
		if m.Expires != nil {
			text += ", until " + m.Expires.Local().Format("2006-01-02 15:04")
		}
		parts = append(parts, text)
	}
	if len(e.Stale) > 0 {
		parts = append(parts, "settings changed since "+strings.Join(e.Stale, ", ")+" was verified")
	}
	if e.Drifts > 0 {
		parts = append(parts, fmt.Sprintf("%d changed behind our back", e.Drifts))
	}
	return strings.Join(parts, "; ")
}
