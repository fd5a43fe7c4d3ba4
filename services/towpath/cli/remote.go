package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"towpath.dev/pkg/pipeline"
	"towpath.dev/services/towpath/client"
)

// remoteName is the git remote that `towpath remote` adds.
const remoteName = "towpath"

// git runs git in this folder and returns its output without the line feed at its end.
func git(args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		why := strings.TrimSpace(stderr.String())
		if errors.Is(err, exec.ErrNotFound) {
			why = "git is not installed"
		}
		if why == "" {
			why = err.Error()
		}
		return "", &client.Error{What: "running git " + args[0], Why: why, Code: client.CodeFailed}
	}
	return strings.TrimRight(stdout.String(), "\n"), nil
}

func (p *program) remoteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remote [APP]", Short: "Let `git push towpath` work from this repository",
		Long: `Add the remote "towpath" to the git repository one stands in, and a credential helper for it, to
that repository's own configuration. The token stays where it is: the helper (towpath
git-credential) reads it when git asks. APP is read from towpath.yaml where it is left out.`,
		Example: examples("towpath remote && git push towpath main"), Args: arguments(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			app, err := appHere(args)
			if err != nil {
				return err
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			helper, err := helperFor(p.data)
			if err != nil {
				return err
			}
			address := api.URL() + "/git/" + app + ".git"
			if _, err := git("rev-parse", "--git-dir"); err != nil {
				return err
			}
			verb := "add"
			if _, err := git("remote", "get-url", remoteName); err == nil {
				verb = "set-url"
			}
			if _, err := git("remote", verb, remoteName, address); err != nil {
				return err
			}
			if _, err := git("config", "credential."+api.URL()+".helper", helper); err != nil {
				return err
			}
			p.say("Remote %s is %s\n  → git push %s main", remoteName, address, remoteName)
			return nil
		},
	}
}

// appHere is the app that was named, or that the towpath.yaml of this folder names.
func appHere(args []string) (string, error) {
	if len(args) == 1 {
		return args[0], nil
	}
	data, err := os.ReadFile(pipeline.FileName)
	if err != nil {
		return "", &client.Error{What: "reading", On: pipeline.FileName, Why: "this folder has none",
			Do: "go to the app's folder, run towpath init there, or name the app: towpath remote APP", Status: 404}
	}
	definition, err := pipeline.Parse(pipeline.FileName, data)
	if err != nil {
		return "", err
	}
	return string(definition.App), nil
}

// helperFor is the credential helper as git's configuration has it: this program, with this data folder.
func helperFor(data string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding this program's own path: %w", err)
	}
	text := "!" + shellQuote(self) + " git-credential"
	if os.Getenv("TOWPATH_URL") == "" {
		text += " --data " + shellQuote(data)
	}
	return text, nil
}

func shellQuote(text string) string {
	if strings.IndexFunc(text, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-", r)
	}) < 0 {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// credentialCommand speaks git's credential helper protocol. It answers for the gateway alone, so that
// the token goes nowhere else.
func (p *program) credentialCommand() *cobra.Command {
	return &cobra.Command{
		Use: "git-credential get|store|erase", Short: "Tell git the token for the gateway (a git credential helper)",
		Hidden: true, Args: arguments(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			if args[0] != "get" {
				return nil
			}
			asked := map[string]string{}
			lines := bufio.NewScanner(p.in)
			for lines.Scan() {
				if name, value, found := strings.Cut(lines.Text(), "="); found {
					asked[name] = value
				}
			}
			if err := lines.Err(); err != nil {
				return fmt.Errorf("reading what git asks: %w", err)
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			u, err := url.Parse(api.URL())
			if err != nil || asked["protocol"] != u.Scheme || asked["host"] != u.Host {
				return nil
			}
			p.say("username=towpath\npassword=%s", api.Token())
			return nil
		},
	}
}
