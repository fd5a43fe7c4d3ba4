package cli

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/seal"
	"towpath.dev/services/towpath"
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

func (p *program) auditEndAlarmCommand() *cobra.Command {
	var reason, url, keys string
	c := &cobra.Command{
		Use: "end-alarm --reason TEXT", Short: "Have sealing begin anew, once it is known why the ledger is not what was sealed",
		Long: `Have sealing begin anew, once it is known why the ledger is not what was sealed: after it had to be brought
back from an older backup, for instance. Needs the operator's key, as ` + "`towpath backup`" + ` does: that of the data
folder, or --bus and --keys.

The tree and the checkpoints of before are put aside in the ledger service's folder and never removed; who ended
the alarm and why is an event in the ledger and in every report. Everything that is stored is then compared
again: where it contradicts a checkpoint that it holds itself, the alarm comes back, and only a backup helps.
A witness that saw what is gone goes on refusing: ` + "`towpath witness reset`" + `, by whoever runs it.`,
		Example: examples("towpath audit end-alarm --reason 'restored from the backup of Monday, ticket 4711'"), Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if reason == "" || len(reason) > maxReason {
				return usage("end-alarm takes --reason, of at most %d bytes: it is recorded", maxReason)
			}
			open := func(ctx context.Context) (*ledger.Client, func(), error) { return connectOperator(ctx, url, keys) }
			if url == "" {
				open = func(ctx context.Context) (*ledger.Client, func(), error) { return towpath.OpenBus(ctx, p.data) }
			}
			bus, done, err := open(c.Context())
			if err != nil {
				return err
			}
			defer done()
			was, err := seal.EndAlarm(c.Context(), bus.Conn(), reason)
			if err != nil {
				return &client.Error{What: "ending the alarm", Why: err.Error(), Do: "towpath audit checkpoint says how things stand; where several ledger services run, repeat it for each that is alarmed", Code: client.CodeFailed}
			}
			p.say("The alarm is ended, and recorded: %s", screen.Line(was.Alarm))
			status, err := seal.Now(c.Context(), bus.Conn())
			if err != nil {
				return &client.Error{What: "sealing anew", Why: err.Error(), Do: "where the ledger contradicts its own checkpoints, restore a backup; else towpath audit checkpoint says how far it is", Code: client.CodeFailed}
			}
			p.checkpoint(status, "")
			return nil
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why; it is recorded")
	c.Flags().StringVar(&url, "bus", "", "URL of a bus elsewhere")
	c.Flags().StringVar(&keys, "keys", "", "folder of the operator's keys, with --bus")
	return c
}
