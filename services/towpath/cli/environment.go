package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

func (p *program) envCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "env", Short: "Show environments and what runs in them; make and destroy whole ones", Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.envListCommand(), p.envShowCommand(), p.envDiffCommand(), p.envCreateCommand(), p.envDestroyCommand())
	return c
}

func (p *program) envListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List the environments", Example: examples("towpath env list"), Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			list, err := api.Environments(c.Context())
			if err != nil {
				return err
			}
			t := screen.Table{Heading: []string{"ENVIRONMENT", "APPS", "STATE"}}
			for _, e := range list {
				t.Add(screen.Text("%s", e.Name), screen.Text("%s", strings.Join(e.Apps, ", ")), screen.Text("%s", stateOf(e, time.Now())))
			}
			return p.list(asJSON, list, t, "No environments yet: an app's towpath.yaml names them.")
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func (p *program) envShowCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "show NAME", Short: "Show what runs in an environment: app, digest, run, endpoints",
		Example: examples("towpath env show prod", "towpath env show prod --json"),
		Args:    arguments(cobra.ExactArgs(1)), ValidArgsFunction: p.completeEnvs,
		RunE: func(c *cobra.Command, args []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			list, err := api.Environment(c.Context(), args[0])
			if err != nil {
				return err
			}
			if err := p.list(asJSON, list, deploymentTable(list, time.Now()), "Nothing runs in "+args[0]+" yet."); err != nil || asJSON {
				return err
			}
			for _, d := range list {
				if d.Skipped != nil {
					p.say("%s was not verified in %s: %s skipped it: %s", d.Run, args[0], d.Skipped.Actor, d.Skipped.Reason)
				}
				p.notAsVerified(args[0], d)
			}
			if err := p.alarmsOf(c.Context(), api, args[0]); err != nil {
				return err
			}
			return p.failedApps(c.Context(), api, args[0])
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func deploymentTable(list []view.Deployment, now time.Time) screen.Table {
	t := screen.Table{Heading: []string{"APP", "RUN", "IMAGE", "SINCE", "ENDPOINTS"}}
	for _, d := range list {
		run := d.Run
		if d.Skipped != nil {
			run += " (not verified)"
		}
		t.Add(screen.Text("%s", d.App), screen.Text("%s", run), screen.Text("%s", screen.Digest(d.Digest)),
			screen.Text("%s", screen.Ago(now, d.Since)), screen.Text("%s", strings.Join(d.Endpoints, " ")))
	}
	return t
}

// notAsVerified says what is no longer as it was when an app was verified.
func (p *program) notAsVerified(env string, d view.Deployment) {
	for _, s := range d.Stale {
		now := fmt.Sprintf("version %d", s.Present)
		if s.Present == 0 {
			now = "gone"
		}
		p.say("%s %s of %s in %s is %s now, and was verified with version %d", p.out.Paint(screen.Yellow, "stale"), s.Key, d.App, env, now, s.Pinned)
	}
	if len(d.Stale) > 0 {
		p.say("  → towpath replay %s verify --env %s", d.Run, env)
	}
	for _, f := range d.Drifts {
		p.say("%s %s in %s: %s, expected %s (since %s)", p.out.Paint(screen.Red, "drift"), f.What, env, f.Found, f.Expected, screen.Ago(time.Now(), f.Since))
	}
}

// alarmsOf prints what a person must look into about an environment.
func (p *program) alarmsOf(ctx context.Context, api *client.Client, env string) error {
	alarms, err := api.Alarms(ctx)
	for _, a := range alarms {
		if a.Env == env {
			p.say("%s %s: %s", p.out.Paint(screen.Red, "ALARM"), screen.Line(a.What), screen.Line(a.Why))
			p.say("  → %s", screen.Line(a.Do))
		}
	}
	return err
}

// failedApps says which apps of an environment that somebody made did not come up.
func (p *program) failedApps(ctx context.Context, api *client.Client, env string) error {
	e, err := api.EnvironmentState(ctx, env, 0)
	if err != nil || e.Made == nil {
		return err
	}
	for _, f := range e.Made.Failed {
		p.say("%s did not come up: %s", f.App, screen.Line(f.Why))
	}
	p.say("%s", stateOf(e, time.Now()))
	return nil
}

func (p *program) envDiffCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "diff ENV ENV", Short: "Show what differs between two environments: digests, replicas and keys",
		Long: `Show what differs between two environments: the digests and numbers of replicas that run
there, and the keys as they are set now. Values of secrets are never shown, only whether
each is there, and its version.`,
		Example: examples("towpath env diff qa prod", "towpath env diff qa prod --json"),
		Args:    arguments(cobra.ExactArgs(2)), ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 1 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return p.envNames(c), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			d, err := api.DiffEnvironments(c.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			if err := p.list(asJSON, d, diffTable(d), fmt.Sprintf("%s and %s are the same.", args[0], args[1])); err != nil || asJSON || d.Same == 0 {
				return err
			}
			p.say("%d more the same", d.Same)
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func diffTable(d view.EnvironmentDiff) screen.Table {
	t := screen.Table{Heading: []string{"APP", "WHAT", strings.ToUpper(d.Left), strings.ToUpper(d.Right)}}
	row := func(app, what, left, right string) {
		t.Add(screen.Text("%s", app), screen.Text("%s", what), screen.Text("%s", left), screen.Text("%s", right))
	}
	version := func(v view.Version) string {
		if v.Digest == "" {
			return "does not run"
		}
		return fmt.Sprintf("%s (%s)", screen.Digest(v.Digest), v.Run)
	}
	for _, a := range d.Apps {
		if a.Left.Digest != a.Right.Digest {
			row(a.App, "image", version(a.Left), version(a.Right))
		}
		if a.Left.Replicas != a.Right.Replicas && a.Left.Digest != "" && a.Right.Digest != "" {
			row(a.App, "replicas", fmt.Sprint(a.Left.Replicas), fmt.Sprint(a.Right.Replicas))
		}
		for _, k := range a.Keys {
			row(a.App, k.Kind+" "+k.Key, keyIn(k.Kind, k.Left, k.LeftVersion), keyIn(k.Kind, k.Right, k.RightVersion))
		}
	}
	return t
}

func keyIn(kind string, value *string, version uint64) string {
	switch {
	case version == 0:
		return "missing"
	case kind == "secret" || value == nil:
		return fmt.Sprintf("present, version %d", version)
	}
	return *value
}
