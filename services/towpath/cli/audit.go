package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"towpath.dev/pkg/seal"
	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

func (p *program) auditCheckpointCommand() *cobra.Command {
	var asJSON bool
	var file string
	c := &cobra.Command{
		Use: "checkpoint", Short: "Show how far the ledger is sealed and witnessed",
		Long: `Show how far the ledger is sealed and witnessed. With --output, the newest checkpoint is kept in a
file, the witnessed one where there is a witness: a proof that is exported later must extend it
(towpath audit verify --checkpoint), so that nobody can change what came before. Exit code 1 when the
ledger is not what was sealed.`,
		Example: examples("towpath audit checkpoint", "towpath audit checkpoint --output checkpoint-2026-11.txt"), Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			status, err := api.Checkpoint(c.Context())
			if err != nil {
				return err
			}
			if file != "" {
				if err := keepCheckpoint(file, status); err != nil {
					return err
				}
			}
			if asJSON {
				err = p.printJSON(status)
			} else {
				p.checkpoint(status, file)
			}
			if err == nil && status.Alarm != "" {
				return codeError(exitFailed)
			}
			return err
		},
	}
	c.Flags().StringVarP(&file, "output", "o", "", "`file` that gets the checkpoint")
	jsonFlag(c, &asJSON)
	return c
}

// keepCheckpoint writes the checkpoint that says most.
func keepCheckpoint(file string, status seal.Status) error {
	text := status.Checkpoint
	if status.Witnessed != nil {
		text = status.Witnessed.Checkpoint
	}
	if text == "" {
		return &client.Error{What: "keeping the checkpoint", Why: "nothing is sealed yet", Do: "try again in a few seconds", Code: client.CodeFailed}
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return fmt.Errorf("keeping the checkpoint: %w", err)
	}
	return nil
}

func (p *program) checkpoint(s seal.Status, file string) {
	if s.Alarm != "" {
		p.say("%s", p.out.Paint(screen.Red, "ALARM: the ledger is not what was sealed; nothing is sealed any more"))
		p.say("  %s", screen.Line(s.Alarm))
	}
	if s.Serial == 0 {
		p.say("Nothing is sealed yet.")
		return
	}
	p.say("Checkpoint %d seals events 1 to %d, %s ago", s.Serial, s.Size, time.Since(s.At).Round(time.Second))
	p.say("  ledger     %s", screen.Line(s.Origin))
	p.say("  root       %s", screen.Line(s.Root))
	switch {
	case s.Witnessed != nil:
		p.say("  witnessed  events 1 to %d, by %s at %s", s.Witnessed.Size, screen.Line(s.Witnessed.Witness), s.Witnessed.At.Local().Format(time.DateTime))
	case s.Witness == "":
		p.say("  witnessed  by nobody: witness in platform.yaml names who is asked")
	}
	if s.Trouble != "" {
		p.say("  %s", p.out.Paint(screen.Red, "the witness did not cosign: "+screen.Line(s.Trouble)))
	}
	if !s.Checked.IsZero() {
		p.say("  compared   events 1 to %d with what is stored, %s ago", s.CheckedTo, time.Since(s.Checked).Round(time.Second))
	}
	if file != "" {
		p.say("Kept in %s", file)
	}
}
