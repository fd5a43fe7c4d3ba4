package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/client"
)

// send records a command and says what became of it.
func (p *program) send(ctx context.Context, api *client.Client, cmd client.Command) error {
	cmd.ID = client.NewCommandID()
	answer, err := api.Command(ctx, cmd)
	if err != nil {
		return err
	}
	p.say("%s", answer.Text)
	return nil
}

// runCommand is a command about one run.
func (p *program) runCommand(verb, use, short string, example []string, flags func(*cobra.Command, *client.Command), fill func(view.Run, *client.Command) error) *cobra.Command {
	cmd := client.Command{Verb: verb}
	c := &cobra.Command{
		Use: use, Short: short, Example: examples(example...),
		Args: arguments(cobra.ExactArgs(1)), ValidArgsFunction: p.completeRuns,
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := exactRun(args[0])
			if err != nil {
				return err
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			cmd.App, cmd.Run = ref.app, ref.number
			if fill != nil {
				run, err := api.Run(c.Context(), ref.app, ref.number)
				if err != nil {
					return err
				}
				if err := fill(run, &cmd); err != nil {
					return err
				}
			}
			return p.send(c.Context(), api, cmd)
		},
	}
	flags(c, &cmd)
	return c
}

func envFlag(c *cobra.Command, cmd *client.Command, text string) {
	c.Flags().StringVar(&cmd.Env, "env", "", text)
}

// needEnv refuses a command that does not say where.
func needEnv(c *cobra.Command, cmd *client.Command) {
	c.PreRunE = func(*cobra.Command, []string) error {
		if cmd.Env == "" {
			return usage("%s where: name the environment with --env", cmd.Verb)
		}
		return nil
	}
}

func reasonFlag(c *cobra.Command, cmd *client.Command) {
	c.Flags().StringVar(&cmd.Reason, "reason", "", "why, for those who look later")
}

func (p *program) approveCommand() *cobra.Command {
	return p.runCommand("approve", "approve RUN", "Approve a run's promotion",
		[]string{"towpath approve hello/1", "towpath approve hello/1 --env prod --reason \"seen in qa\""},
		func(c *cobra.Command, cmd *client.Command) {
			envFlag(c, cmd, "the environment (default: the one that waits for an approval)")
			reasonFlag(c, cmd)
			c.Flags().BoolVar(&cmd.Overrule, "overrule", false, "put an end to denials of people who may not approve there any more; needs --reason")
		}, waitingEnv)
}

func (p *program) denyCommand() *cobra.Command {
	return p.runCommand("deny", "deny RUN", "Deny a run's promotion: the run is refused until you approve it",
		[]string{"towpath deny hello/1 --env prod --reason \"not before Monday\""},
		func(c *cobra.Command, cmd *client.Command) {
			envFlag(c, cmd, "the environment (default: the one that waits for an approval)")
			reasonFlag(c, cmd)
		}, waitingEnv)
}

// forApprover is what the gateway says of a stage that waits for an approval.
const forApprover = "an approver"

// waitingEnv fills in the environment that a run waits before, where none was named, and the digest
// that the answer is about. Where it waits before none, the gateway says so, or that it was answered before.
func waitingEnv(run view.Run, cmd *client.Command) error {
	cmd.Digest = run.Digest
	if cmd.Env != "" {
		return nil
	}
	for _, s := range run.Stages {
		if s.Stage == fold.StagePromote && s.Status == fold.Waiting && s.For == forApprover {
			cmd.Env = s.Env
			break
		}
	}
	return nil
}

func (p *program) promoteCommand() *cobra.Command {
	return p.runCommand("promote", "promote RUN --env ENV", "Promote exactly this run, gates and order still kept",
		[]string{"towpath promote hello/2 --env qa"},
		func(c *cobra.Command, cmd *client.Command) {
			envFlag(c, cmd, "the environment")
			reasonFlag(c, cmd)
			needEnv(c, cmd)
		}, nil)
}

func (p *program) cancelCommand() *cobra.Command {
	return p.runCommand("cancel", "cancel RUN", "Cancel a run; its environment is free at once",
		[]string{"towpath cancel hello/2 --reason \"wrong branch\""},
		func(c *cobra.Command, cmd *client.Command) {
			envFlag(c, cmd, "only its promotion to this environment (default: the run)")
			reasonFlag(c, cmd)
		}, nil)
}

func (p *program) rollbackCommand() *cobra.Command {
	cmd := client.Command{Verb: "rollback"}
	var to string
	var yes, dryRun, asJSON bool
	c := &cobra.Command{
		Use: "rollback APP --env ENV", Short: "Bring the version before back to an environment",
		Long: `Bring the version before back to an environment: its image, and the configuration that it
ran with there. Secrets stay as they are now, because old ones may have been rotated or
leaked; --with-secrets brings those of that time back too. Before anything is done it says
what will be otherwise; on a terminal it then asks.`,
		Example: examples("towpath rollback hello --env prod", "towpath rollback hello --env prod --to hello/2", "towpath rollback hello --env prod --dry-run"),
		Args:    arguments(cobra.ExactArgs(1)), ValidArgsFunction: p.completeApps,
		RunE: func(c *cobra.Command, args []string) error {
			cmd.App = args[0]
			if to != "" {
				ref, err := exactRun(to)
				if err != nil {
					return err
				}
				if ref.app != cmd.App {
					return usage("--to %s is a run of another app than %s", to, cmd.App)
				}
				cmd.Run = ref.number
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			if dryRun {
				cmd.ID = client.NewCommandID()
				preview, err := api.Preview(c.Context(), cmd)
				if err == nil && asJSON {
					return p.printJSON(preview)
				}
				if err == nil {
					p.preview(preview)
				}
				return err
			}
			return p.sendPreviewed(c.Context(), api, cmd, yes)
		},
	}
	c.Flags().BoolVar(&cmd.WithSecrets, "with-secrets", false, "bring back the secrets of that time too")
	c.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "only say what it would do")
	c.Flags().BoolVar(&dryRun, "preview", false, "the same as --dry-run")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, with --dry-run")
	envFlag(c, &cmd, "the environment")
	reasonFlag(c, &cmd)
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().StringVar(&to, "to", "", "a run that was verified there (default: the version before)")
	needEnv(c, &cmd)
	return c
}

func (p *program) holdCommand() *cobra.Command {
	return p.appOrAll("hold", "Let no new stage begin, for an app or for everything",
		"towpath hold hello --reason \"database is moving\"", "towpath hold --all")
}

func (p *program) resumeCommand() *cobra.Command {
	return p.appOrAll("resume", "Let stages begin again", "towpath resume hello", "towpath resume --all")
}

func (p *program) appOrAll(verb, short string, example ...string) *cobra.Command {
	cmd := client.Command{Verb: verb}
	var all bool
	c := &cobra.Command{
		Use: verb + " [APP]", Short: short, Example: examples(example...),
		Args: arguments(cobra.MaximumNArgs(1)), ValidArgsFunction: p.completeApps,
		RunE: func(c *cobra.Command, args []string) error {
			if (len(args) == 1) == all {
				return usage("%s what: an app, or --all for everything", verb)
			}
			if !all {
				cmd.App = args[0]
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			return p.send(c.Context(), api, cmd)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "everything")
	reasonFlag(c, &cmd)
	return c
}

// sendPreviewed says what a command would do, asks where there is somebody to ask, and records it.
func (p *program) sendPreviewed(ctx context.Context, api *client.Client, cmd client.Command, yes bool) error {
	cmd.ID = client.NewCommandID()
	preview, err := api.Preview(ctx, cmd)
	if err != nil {
		return err
	}
	p.preview(preview)
	if err := p.agree(yes); err != nil {
		return err
	}
	answer, err := api.Command(ctx, cmd)
	if err != nil {
		return err
	}
	if answer.Text != preview.Text {
		p.say("%s", answer.Text)
	}
	switch {
	case cmd.Verb == "rollback":
		p.say("→ towpath env show %s", cmd.Env)
	case cmd.Run > 0:
		p.say("→ towpath show %s/%d --follow", cmd.App, cmd.Run)
	}
	return nil
}

// agree asks the person on the terminal, and is an error where they do not agree. Where there is nobody
// to ask, the command itself was the consent.
func (p *program) agree(yes bool) error {
	if yes || !term.IsTerminal(int(p.in.Fd())) {
		return nil
	}
	fmt.Fprint(p.err.Out, "Go on? [y/N] ")
	answer, err := bufio.NewReader(p.in).ReadString('\n')
	if err != nil && answer == "" {
		fmt.Fprintln(p.err.Out)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a == "y" || a == "yes" {
		return nil
	}
	p.say("Nothing was done.")
	return codeError(exitFailed)
}
