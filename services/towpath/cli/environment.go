package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/screen"
)

func (p *program) envCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "env", Short: "Show environments and what runs in them", Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.envListCommand(), p.envShowCommand())
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
			t := screen.Table{Heading: []string{"ENVIRONMENT", "APPS"}}
			for _, e := range list {
				t.Add(screen.Text("%s", e.Name), screen.Text("%s", strings.Join(e.Apps, ", ")))
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
			}
			return nil
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
