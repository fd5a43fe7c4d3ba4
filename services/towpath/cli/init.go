package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"towpath.dev/pkg/pipeline"
	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

// dockerfileName is what init reads.
const dockerfileName = "Dockerfile"

func (p *program) initCommand() *cobra.Command {
	return &cobra.Command{
		Use: "init", Short: "Write a towpath.yaml for this folder, from its Dockerfile",
		Long: `Write a towpath.yaml for the folder one stands in. Port, health check and commands are taken from
its Dockerfile where that names them. A towpath.yaml that is there already stays as it is.`,
		Example: examples("cd hello && towpath init"), Args: arguments(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			dockerfile, err := os.ReadFile(dockerfileName)
			if errors.Is(err, fs.ErrNotExist) {
				return &client.Error{What: "reading", On: dockerfileName, Why: "this folder has none",
					Do: "go to the folder of the app, or write a Dockerfile first: Towpath builds its image from it", Status: 404}
			}
			if err != nil {
				return fmt.Errorf("reading the Dockerfile: %w", err)
			}
			here, err := os.Getwd()
			if err != nil {
				return fmt.Errorf("finding this folder's name: %w", err)
			}
			text := pipeline.Init(dockerfile, filepath.Base(here))
			definition, err := pipeline.Parse(pipeline.FileName, text)
			if err != nil {
				return fmt.Errorf("checking what was about to be written: %w", err)
			}
			if err := writeNew(pipeline.FileName, text); err != nil {
				return err
			}
			p.say("Wrote %s for %s. Read it: what the Dockerfile does not say is a guess or a comment.", pipeline.FileName, p.out.Paint(screen.Bold, string(definition.App)))
			p.nextSteps(string(definition.App), definition.Branch)
			return nil
		},
	}
}

// writeNew writes a file that must not be there yet.
func writeNew(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return &client.Error{What: "writing", On: name, Why: "it is there already, and stays as it is",
			Do: "change it by hand, or move it away and run towpath init again", Code: client.CodeFailed}
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// nextSteps says how the app is pushed from here.
func (p *program) nextSteps(app, branch string) {
	p.say("\nNext:")
	if _, err := git("rev-parse", "--git-dir"); err != nil {
		p.say("  git init -b %s", branch)
	}
	p.say("  git add . && git commit -m \"Add towpath.yaml\"")
	if _, err := client.Open(p.data); err != nil {
		p.say("  towpath up                    in another terminal; nothing runs on %s yet", p.data)
	}
	p.say("  towpath remote                adds the remote, and its credentials, to this repository")
	p.say("  git push towpath %-12s starts %s/1; its output says where to look", branch, app)
}
