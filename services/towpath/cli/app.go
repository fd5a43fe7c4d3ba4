package cli

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/screen"
)

func (p *program) appCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "app", Short: "List apps, and add those whose repository is elsewhere", Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.appAddCommand(), p.appListCommand())
	return c
}

func (p *program) appAddCommand() *cobra.Command {
	var app view.App
	var poll time.Duration
	var asJSON bool
	c := &cobra.Command{
		Use: "add [NAME]", Short: "Follow a branch of a repository elsewhere, or make room for a first push",
		Long: `Make an app known. With --repo, Towpath looks at that branch every --poll and starts a run for
each new commit: no webhook is needed. Without it, the app is hosted here and waits for its
first push, which would have made it known as well. NAME is read from the repository's
towpath.yaml where it is left out.`,
		Example: examples("towpath app add --repo https://git.example.org/team/hello.git --branch main --poll 30s", "towpath app add hello"),
		Args:    arguments(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				app.App = args[0]
			}
			if app.App == "" && app.Repository == "" {
				return usage("add what: a NAME, or --repo with the URL of its repository")
			}
			if poll != 0 && (poll < time.Second || app.Repository == "") {
				return usage("--poll is how often to look at --repo, 1s or more")
			}
			repository, err := repositoryURL(app.Repository)
			if err != nil {
				return err
			}
			app.Repository, app.Poll = repository, int(poll.Seconds())
			api, err := p.open()
			if err != nil {
				return err
			}
			made, err := api.AddApp(c.Context(), app)
			if err != nil {
				return err
			}
			if asJSON {
				return p.printJSON(made)
			}
			p.say("%s is known.", made.App)
			switch {
			case made.Poll > 0:
				p.say("  %s of %s is looked at every %ds", made.Branch, made.Repository, made.Poll)
			case made.Repository == "" && made.Git != "":
				p.say("  → git push %s %s", made.Git, made.Branch)
			}
			return nil
		},
	}
	c.Flags().StringVar(&app.Repository, "repo", "", "URL of the repository: https://, ssh://, file://")
	c.Flags().StringVar(&app.Branch, "branch", "", "branch whose commits become runs (default: what towpath.yaml says)")
	c.Flags().DurationVar(&poll, "poll", 0, "how often to look, such as 30s (default: never; towpath submit tells)")
	jsonFlag(c, &asJSON)
	return c
}

// repositoryURL makes a folder of this machine a URL.
func repositoryURL(text string) (string, error) {
	if text == "" || strings.Contains(text, "://") || strings.Contains(text, "@") && strings.Contains(text, ":") {
		return text, nil
	}
	abs, err := filepath.Abs(text)
	if err != nil {
		return "", usage("--repo %q: %v", text, err)
	}
	return "file://" + abs, nil
}

func (p *program) appListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: "List the apps", Example: examples("towpath app list"), Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			apps, err := api.Apps(c.Context())
			if err != nil {
				return err
			}
			t := screen.Table{Heading: []string{"APP", "RUNS", "BRANCH", "LOOKED AT", "REPOSITORY"}}
			for _, a := range apps {
				name, poll := screen.Text("%s", a.App), "on push"
				if a.Held != "" {
					name = screen.In(screen.Yellow, a.App+" ("+a.Held+")")
				}
				if a.Poll > 0 {
					poll = "every " + strconv.Itoa(a.Poll) + "s"
				}
				repository := a.Repository
				if repository == "" {
					repository = a.Git
				}
				t.Add(name, screen.Text("%d", a.Runs), screen.Text("%s", a.Branch), screen.Text("%s", poll), screen.Text("%s", repository))
			}
			return p.list(asJSON, apps, t, "No apps yet. towpath init says how to push the first.")
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func (p *program) submitCommand() *cobra.Command {
	var s view.Submission
	var definition, env string
	var timeout time.Duration
	var asJSON bool
	c := &cobra.Command{
		Use: "submit", Short: "Start a run: of a commit elsewhere, or of an image that another CI built",
		Long: `Start a run without a push: of a commit in a repository elsewhere, which is then built here,
or of an image that another CI built and pushed, by digest, which enters at vet. An image's
pipeline is the towpath.yaml that --definition names, that of --repo at --commit, or else that
of the app's newest run. The same commit submitted twice is one run. With --wait, the exit code
is that of towpath wait.`,
		Example: examples(
			"towpath submit --repo https://git.example.org/team/hello.git --commit 4f2a9c1be07d5a0a4f2a9c1be07d5a0a4f2a9c1b --wait qa --timeout 10m",
			"towpath submit --image registry.example.org/hello@sha256:9b1f… --definition towpath.yaml",
			"towpath submit --app hello --image registry.example.org/hello@sha256:9b1f…"),
		Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := complete(&s, definition); err != nil {
				return err
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			made, err := api.Submit(c.Context(), s)
			if err != nil {
				return err
			}
			if err := p.submitted(made, asJSON); err != nil || env == "" {
				return err
			}
			ref, err := exactRun(made.Run)
			if err != nil {
				return err
			}
			return p.waitWithin(c.Context(), api, ref, env, timeout, false)
		},
	}
	c.Flags().StringVar(&s.Repo, "repo", "", "URL of the repository: https://, ssh://, file://")
	c.Flags().StringVar(&s.Commit, "commit", "", "the commit, its full SHA")
	c.Flags().StringVar(&s.Ref, "ref", "", "the branch that the commit is on, such as refs/heads/main")
	c.Flags().StringVar(&s.App, "app", "", "the app, for --image")
	c.Flags().StringVar(&s.Image, "image", "", "the image, by digest")
	c.Flags().StringVar(&definition, "definition", "", "file with the pipeline of --image, such as towpath.yaml")
	c.Flags().BoolVar(&s.Rebuild, "rebuild", false, "build even where the same tree was built before")
	c.Flags().StringVar(&env, "wait", "", "then wait until it is verified in this environment")
	c.Flags().DurationVar(&timeout, "timeout", 0, "give up waiting after this time, such as 10m (default: never)")
	jsonFlag(c, &asJSON)
	return c
}

func (p *program) submitted(made view.Submitted, asJSON bool) error {
	if asJSON {
		return p.printJSON(made)
	}
	p.say("%s  %s", p.out.Paint(screen.Bold, made.Run), made.URL)
	for _, b := range made.Blockers {
		p.say("  %s", screen.Line(b))
	}
	return nil
}

// complete refuses a submission that makes no sense and reads what it names.
func complete(s *view.Submission, definition string) error {
	switch {
	case s.Repo == "" && s.Image == "":
		return usage("submit what: --repo with --commit, or --image with --app or --definition")
	case s.Repo != "" && s.Commit == "":
		return usage("--repo needs --commit with the commit's full SHA")
	case s.Image != "" && s.App == "" && definition == "" && s.Repo == "":
		return usage("--image needs --app or --definition: an image does not say whose it is")
	case s.Image != "" && !strings.Contains(s.Image, "@sha256:"):
		return usage("--image %q must name the image by digest: REPOSITORY@sha256:…", s.Image)
	case s.Image == "" && definition != "":
		return usage("--definition is for --image; a commit brings its own towpath.yaml")
	}
	if definition != "" {
		text, err := os.ReadFile(definition)
		if err != nil {
			return usage("--definition: %v", err)
		}
		s.Definition = string(text)
	}
	repo, err := repositoryURL(s.Repo)
	s.Repo = repo
	return err
}
