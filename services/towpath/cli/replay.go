package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"towpath.dev/pkg/pause"
	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

// replayFlags are what `towpath replay` was told besides the command itself.
type replayFlags struct {
	yes, dryRun, asJSON bool
	watch               string // id of a replay of all that is stuck
}

func (p *program) replayCommand() *cobra.Command {
	cmd := client.Command{Verb: "replay"}
	var f replayFlags
	c := &cobra.Command{
		Use: "replay RUN [STAGE] | --all-stuck [APP]", Short: "Run a stage once more, with the same digest",
		Long: `Run a stage of a run once more, as its next attempt: with the same commit, image, pipeline
and policy, and with today's settings. Before anything is done it says what is kept, what
will run, and which settings are not as they were; on a terminal it then asks. STAGE is
build, vet, promote or verify; left out, it is the stage that is stuck or failed, and
without --env it is the one environment where it stopped.

--policy current has the run judged by the newest platform policy from now on: its image is
vetted again, and approvals count on where that policy asks for the same.

--all-stuck replays everything that is stuck, for after an outage: grouped by cause, one of
each first, two at a time; a group is left alone after three failures. Towpath carries it
out by itself, and this program shows it; --watch ID shows one that goes on.`,
		Example: examples("towpath replay hello/3", "towpath replay hello/3 promote --env qa --reason \"database is back\"",
			"towpath replay hello/3 promote --policy current --dry-run", "towpath replay hello/3 build --rebuild --yes", "towpath replay --all-stuck"),
		Args: arguments(cobra.RangeArgs(0, 2)), ValidArgsFunction: p.completeReplay,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case f.watch != "":
			case cmd.AllStuck && len(args) > 1 || !cmd.AllStuck && len(args) == 0:
				return usage("replay what: a run such as hello/3, or --all-stuck for everything that is stuck")
			case cmd.AllStuck && len(args) == 1:
				cmd.App = args[0]
			case !cmd.AllStuck:
				ref, err := exactRun(args[0])
				if err != nil {
					return err
				}
				cmd.App, cmd.Run = ref.app, ref.number
				if len(args) == 2 {
					cmd.Stage = args[1]
				}
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			if f.watch != "" {
				return p.watchReplays(c.Context(), api, f.watch, f.asJSON)
			}
			return p.replay(c.Context(), api, cmd, f)
		},
	}
	envFlag(c, &cmd, "the environment, for promote and verify (default: the one where it stopped)")
	reasonFlag(c, &cmd)
	c.Flags().StringVar(&cmd.Policy, "policy", "", "what it is judged by: pinned (the same as before) or current (default pinned)")
	c.Flags().BoolVar(&cmd.Rebuild, "rebuild", false, "build even where the same tree was built before")
	c.Flags().BoolVar(&cmd.AllStuck, "all-stuck", false, "everything that is stuck, or everything of APP")
	c.Flags().StringVar(&f.watch, "watch", "", "show the replay of all that is stuck with this id")
	c.Flags().BoolVarP(&f.dryRun, "dry-run", "n", false, "only say what it would do")
	c.Flags().BoolVar(&f.dryRun, "preview", false, "the same as --dry-run")
	c.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	jsonFlag(c, &f.asJSON)
	c.RegisterFlagCompletionFunc("policy", cobra.FixedCompletions([]string{"pinned", "current"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (p *program) replay(ctx context.Context, api *client.Client, cmd client.Command, f replayFlags) error {
	cmd.ID = client.NewCommandID()
	preview, err := api.Preview(ctx, cmd)
	if err != nil {
		return err
	}
	if f.asJSON && f.dryRun {
		return p.printJSON(preview)
	}
	if !f.asJSON {
		p.preview(preview)
	}
	if f.dryRun {
		return nil
	}
	if err := p.agree(f.yes); err != nil {
		return err
	}
	if cmd.Attempt = preview.Attempt; preview.Stage != "" {
		cmd.Stage, cmd.Env = preview.Stage, preview.Env
	}
	answer, err := api.Command(ctx, cmd)
	switch {
	case err != nil:
		return err
	case cmd.AllStuck:
		return p.watchReplays(ctx, api, cmd.ID, f.asJSON)
	case f.asJSON:
		return p.printJSON(struct {
			view.Answer
			Preview view.Preview `json:"preview"`
		}{answer, preview})
	}
	p.say("→ towpath show %s/%d --follow", cmd.App, cmd.Run)
	return nil
}

// preview says what a command keeps, what it runs, and what is not as it was.
func (p *program) preview(preview view.Preview) {
	for _, kept := range preview.Kept {
		p.say("  kept      %s", kept)
	}
	for _, runs := range preview.Runs {
		p.say("  will run  %s", runs)
	}
	for _, maybe := range preview.Maybe {
		p.say("  may run   %s, if the image differs", maybe)
	}
	for _, fenced := range preview.Fenced {
		p.say("  fenced    %s: it will be fenced off", fenced)
	}
	if pins := preview.Pins; pins != nil && pins.PolicyWas != "" {
		p.say("  policy    %s, instead of %s", screen.Digest(pins.Policy), screen.Digest(pins.PolicyWas))
	}
	if image := preview.Image; image != nil {
		p.say("  image     %s (%s), instead of %s (%s)", screen.Digest(image.Is), image.IsRun, screen.Digest(image.Was), image.WasRun)
	}
	for _, s := range preview.Settings {
		p.say("  setting   %s", settingChange(s))
	}
	for _, a := range preview.Approvals {
		what, holds := "approval", "counts on"
		if a.Denial {
			what, holds = "denial  ", "stands"
		}
		switch {
		case !a.Kept:
			p.say("  %s  of %s for %s is dropped: %s", what, a.Actor, a.Env, a.Why)
		case a.Why != "":
			p.say("  %s  of %s for %s %s, %s", what, a.Actor, a.Env, holds, a.Why)
		default:
			p.say("  %s  of %s for %s %s", what, a.Actor, a.Env, holds)
		}
	}
	for _, g := range preview.Groups {
		p.say("  %s", screen.Line(g.Cause))
		for _, s := range g.Stages {
			p.say("    %s  %s", s.Run, screen.Place(view.Stage{Stage: s.Stage, Env: s.Env}))
		}
	}
	p.say("%s", preview.Text)
}

func settingChange(s view.SettingChange) string {
	name := s.Key
	if s.Kind == "secret" {
		name += " (secret)"
	}
	switch {
	case s.Missing:
		return name + " has no value: it will wait for one"
	case s.From != "":
		values := ""
		if s.WasValue != nil && s.IsValue != nil {
			values = fmt.Sprintf("%s, was %s: ", screen.Line(*s.IsValue), screen.Line(*s.WasValue))
		}
		return fmt.Sprintf("%s: %sversion %d, moved from %s (version %d there)", name, values, s.Is, s.From, s.Was)
	case s.WasValue != nil && s.IsValue != nil:
		return fmt.Sprintf("%s: %s, was %s (version %d, was %d)", name, screen.Line(*s.IsValue), screen.Line(*s.WasValue), s.Is, s.Was)
	case s.IsValue != nil:
		return fmt.Sprintf("%s: %s (version %d)", name, screen.Line(*s.IsValue), s.Is)
	case s.Was == 0:
		return fmt.Sprintf("%s: version %d, not used before", name, s.Is)
	case s.Is == 0:
		return fmt.Sprintf("%s: not used any more (was version %d)", name, s.Was)
	}
	return fmt.Sprintf("%s: version %d, was %d", name, s.Is, s.Was)
}

// replaysPause is how often a replay of all that is stuck is looked at.
const replaysPause = 500 * time.Millisecond

// watchReplays shows what a replay of all that is stuck does until it has finished, and what is left then.
func (p *program) watchReplays(ctx context.Context, api *client.Client, id string, asJSON bool) error {
	said := map[string]view.Result{}
	for {
		r, err := api.Replays(ctx, id)
		if err != nil {
			return err
		}
		if !asJSON {
			p.progress(r, said)
		}
		if r.Finished {
			if asJSON {
				err = p.printJSON(r)
			} else {
				p.finished(r)
			}
			if err == nil && stillStuck(r) > 0 {
				err = codeError(exitFailed)
			}
			return err
		}
		if err := pause.For(ctx, replaysPause); err != nil {
			p.say("It goes on. → towpath replay --all-stuck --watch %s", id)
			return err
		}
	}
}

// progress says what is new.
func (p *program) progress(r view.Replays, said map[string]view.Result) {
	for _, g := range r.Groups {
		for _, s := range g.Stages {
			name := s.Run + "  " + screen.Place(view.Stage{Stage: s.Stage, Env: s.Env})
			if s.Result == view.Untried || said[name] == s.Result {
				continue
			}
			said[name] = s.Result
			line := name + "  " + string(s.Result)
			if s.Why != "" {
				line += ": " + screen.Line(s.Why)
			}
			p.say("%s", line)
		}
	}
}

func stillStuck(r view.Replays) int {
	n := 0
	for _, g := range r.Groups {
		for _, s := range g.Stages {
			if s.Result == view.Untried || s.Result == view.StopAgain {
				n++
			}
		}
	}
	return n
}

// finished says what is left, and how to go on.
func (p *program) finished(r view.Replays) {
	if r.Why != "" {
		p.say("It ended before everything was tried: %s", screen.Line(r.Why))
	}
	counts := map[view.Result]int{}
	for _, g := range r.Groups {
		for _, s := range g.Stages {
			counts[s.Result]++
			if s.Command != "" {
				p.say("  left  %s  %s → %s", s.Run, screen.Place(view.Stage{Stage: s.Stage, Env: s.Env}), s.Command)
			}
		}
	}
	var parts []string
	for _, result := range []view.Result{view.WentOn, view.StopAgain, view.TakenOver, view.Untried, view.UnderWay} {
		if n := counts[result]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, result))
		}
	}
	p.say("%s", strings.Join(parts, ", "))
}

func (p *program) skipCommand() *cobra.Command {
	cmd := client.Command{Verb: "skip"}
	c := &cobra.Command{
		Use: "skip RUN verify --env ENV --reason TEXT", Short: "Let a run pass an environment without its verification",
		Long: `Let a run pass an environment without its verification, where the platform's policy allows
that (maySkip). Every report on the run says so, with who and why. Vetting and approvals
are never skipped.`,
		Example: examples("towpath skip hello/42 verify --env qa --reason \"the payment sandbox is down\""),
		Args:    arguments(cobra.ExactArgs(2)), ValidArgsFunction: p.completeSkip,
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := exactRun(args[0])
			if err != nil {
				return err
			}
			cmd.App, cmd.Run, cmd.Stage = ref.app, ref.number, args[1]
			api, err := p.open()
			if err != nil {
				return err
			}
			return p.send(c.Context(), api, cmd)
		},
	}
	envFlag(c, &cmd, "the environment (default: the one where its verification stopped)")
	reasonFlag(c, &cmd)
	return c
}
