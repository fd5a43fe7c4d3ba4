package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

func (p *program) runsCommand() *cobra.Command {
	var app, state string
	var asJSON bool
	c := &cobra.Command{
		Use: "runs [APP]", Short: "List runs, newest first",
		Example: examples("towpath runs", "towpath runs hello --state stuck", "towpath runs --json"),
		Args:    arguments(cobra.MaximumNArgs(1)), ValidArgsFunction: p.completeApps,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				if app != "" && app != args[0] {
					return usage("%s and --app %s are two apps", args[0], app)
				}
				app = args[0]
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			runs, err := api.Runs(c.Context(), app, state)
			if err != nil {
				return err
			}
			return p.list(asJSON, runs, p.runTable(runs, time.Now()), "No runs yet. A push starts one: towpath init says how.")
		},
	}
	c.Flags().StringVar(&app, "app", "", "only this app")
	c.Flags().StringVar(&state, "state", "", "only runs in this state: queued, running, waiting, stuck, failed, refused, superseded, cancelled, done")
	jsonFlag(c, &asJSON)
	return c
}

func (p *program) runTable(runs []view.Run, now time.Time) screen.Table {
	t := screen.Table{Heading: []string{"RUN", "STATUS", "COMMIT", "IMAGE", "BEGAN", "WHERE"}}
	for _, r := range runs {
		_, style := screen.Mark(r.Status)
		commit := r.Commit
		if len(commit) > 7 {
			commit = commit[:7]
		}
		t.Add(screen.Text("%s", r.Run), screen.In(style, string(r.Status)), screen.Text("%s", commit),
			screen.Text("%s", screen.Digest(r.Digest)), screen.Text("%s", screen.Ago(now, r.Created)), screen.Text("%s", where(r)+unverified(r)))
	}
	return t
}

// where says which stage a run is at.
func where(r view.Run) string {
	for _, s := range r.Stages {
		switch {
		case s.Through():
			continue
		case s.Status == fold.Pending:
			return "before " + screen.Place(s)
		}
		text := screen.Place(s)
		if s.For != "" && s.Status == fold.Waiting {
			text += ", for " + s.For
		}
		return text
	}
	return "through"
}

// unverified names the environments where a run's verification was skipped.
func unverified(r view.Run) string {
	var envs []string
	for _, s := range r.Stages {
		if s.Skipped != nil {
			envs = append(envs, s.Env)
		}
	}
	if len(envs) == 0 {
		return ""
	}
	return ", verify skipped in " + strings.Join(envs, ", ")
}

func (p *program) showCommand() *cobra.Command {
	var asJSON, follow bool
	c := &cobra.Command{
		Use: "show RUN", Aliases: []string{"status"}, Short: "Draw a run's path: how long, and for whom it waits",
		Long:    "Draw a run's path: how long each stage took and, where it waits, for whom.\nhello/3 is a run; hello is its newest one.",
		Example: examples("towpath show hello/1", "towpath show hello --follow", "towpath show hello/1 --json"),
		Args:    arguments(cobra.ExactArgs(1)), ValidArgsFunction: p.completeRuns,
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := parseRun(args[0])
			if err != nil {
				return err
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			run, err := find(c.Context(), api, ref)
			if err != nil {
				return err
			}
			if follow {
				return p.follow(c.Context(), api, run, asJSON)
			}
			if asJSON {
				return p.printJSON(run)
			}
			p.lines(p.out.Run(run, time.Now()))
			if run.URL != "" {
				p.say("\n  %s", p.out.Paint(screen.Dim, run.URL))
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the run ends")
	jsonFlag(c, &asJSON)
	return c
}

func (p *program) lines(lines []string) {
	for _, l := range lines {
		p.say("%s", l)
	}
}

// follow shows a run until it ends.
func (p *program) follow(ctx context.Context, api *client.Client, run view.Run, asJSON bool) error {
	if asJSON {
		_, err := api.Follow(ctx, run, p.printRun, ended)
		return err
	}
	view := p.out.NewView(p.out.Run, p.out.NewProgress())
	defer view.Close()
	_, err := api.Follow(ctx, run, view.Show, ended)
	return err
}

func (p *program) printRun(r view.Run) error { return p.printJSON(r) }

func ended(r view.Run) bool { return r.Status.Ended() }

func (p *program) waitCommand() *cobra.Command {
	var env string
	var timeout time.Duration
	var asJSON bool
	c := &cobra.Command{
		Use: "wait RUN", Short: "Wait until a run is through, or verified in an environment",
		Long: `Wait until a run is through, or verified in an environment. The exit code says why not:
1 it failed, is stuck, was cancelled or superseded; 3 there is no such run or environment;
4 it was refused; 5 it was not there in time.`,
		Example: examples("towpath wait hello/1 --env qa --timeout 120s", "towpath wait hello"),
		Args:    arguments(cobra.ExactArgs(1)), ValidArgsFunction: p.completeRuns,
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := parseRun(args[0])
			if err != nil {
				return err
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			return p.waitWithin(c.Context(), api, ref, env, timeout, asJSON)
		},
	}
	c.Flags().StringVar(&env, "env", "", "until it is verified in this environment (default: in all)")
	c.Flags().DurationVar(&timeout, "timeout", 0, "give up after this time, such as 120s (default: never)")
	jsonFlag(c, &asJSON)
	return c
}

// waitWithin is wait with a bound; a timeout of 0 is none.
func (p *program) waitWithin(ctx context.Context, api *client.Client, ref runRef, env string, timeout time.Duration, asJSON bool) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	return p.wait(ctx, api, ref, env, timeout, asJSON)
}

func (p *program) wait(ctx context.Context, api *client.Client, ref runRef, env string, timeout time.Duration, asJSON bool) error {
	run, err := client.Patiently(ctx, func(ctx context.Context) (view.Run, error) { return find(ctx, api, ref) })
	if err != nil {
		return err
	}
	if _, ok := run.Stage(fold.StagePromote, env); env != "" && !ok {
		return &client.Error{
			What: "waiting for " + run.Run + " in", On: env, Why: "its pipeline has no such environment",
			Do: fmt.Sprintf("one of %q", run.Envs()), Status: 404,
		}
	}
	shown := p.err.NewView(p.err.Run, p.err.NewProgress())
	run, err = api.Follow(ctx, run, shown.Show, func(r view.Run) bool { return reached(r, env) || r.Status.Ended() })
	shown.Close()
	if asJSON {
		if err := p.printJSON(run); err != nil {
			return err
		}
	}
	if err != nil && ctx.Err() == context.DeadlineExceeded {
		return &client.Error{
			What: "waiting for " + run.Run, On: inEnv(env), Why: fmt.Sprintf("not there after %s: it is %s", timeout, at(run)),
			Do: "towpath show " + run.Run, Code: client.CodeTimeout,
		}
	}
	if err != nil {
		return err
	}
	return verdict(run, env)
}

// reached reports whether a run has come as far as env, or through where env is empty.
func reached(r view.Run, env string) bool {
	if env == "" {
		return r.Status == fold.Done
	}
	s, _ := r.Stage(fold.StageVerify, env)
	return s.Through()
}

func inEnv(env string) string {
	if env == "" {
		return ""
	}
	return "in " + env
}

// at says where a run stands, for an error: "waiting for an approver (prod promote)".
func at(r view.Run) string {
	text := string(r.Status)
	if r.For != "" && r.Status == fold.Waiting {
		text += " for " + r.For
	}
	for _, s := range r.Stages {
		if s.Status == r.Status && !s.Through() {
			return text + " (" + screen.Place(s) + ")"
		}
	}
	return text
}

// verdict is nil for a run that got there, or the error that says why it did not. What it was has been
// shown.
func verdict(r view.Run, env string) error {
	if reached(r, env) {
		return nil
	}
	e := &client.Error{What: "waiting for " + r.Run, On: inEnv(env), Why: "it is " + at(r), Do: "towpath show " + r.Run, Code: client.CodeFailed}
	if r.Command != "" {
		e.Do = r.Command
	}
	if r.Status == fold.Refused {
		e.Status = 403
	}
	return e
}

func (p *program) logsCommand() *cobra.Command {
	var o client.LogOptions
	c := &cobra.Command{
		Use: "logs RUN", Short: "Print a run's output: of its build, releases and checks",
		Example: examples("towpath logs hello/1", "towpath logs hello/1 --stage build --follow", "towpath logs hello/1 --stage verify --env qa --attempt 2"),
		Args:    arguments(cobra.ExactArgs(1)), ValidArgsFunction: p.completeRuns,
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := parseRun(args[0])
			if err != nil {
				return err
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			run, err := find(c.Context(), api, ref)
			if err != nil {
				return err
			}
			return api.Log(c.Context(), run.App, run.Number, o, p.out.Out)
		},
	}
	c.Flags().StringVar(&o.Stage, "stage", "", "only this stage: build, vet, promote, verify")
	c.Flags().StringVar(&o.Env, "env", "", "only this environment")
	c.Flags().IntVar(&o.Attempt, "attempt", 0, "this attempt (default: the present one)")
	c.Flags().BoolVarP(&o.Follow, "follow", "f", false, "go on until the stage ends")
	return c
}
