package cli

import (
	"errors"
	"net"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"towpath.dev/pkg/worker"
	"towpath.dev/services/ledger/witness"
	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

func (p *program) witnessCommand() *cobra.Command {
	var cfg witness.Config
	c := &cobra.Command{
		Use: "witness", Short: "Cosign another installation's checkpoints, so that its ledger cannot be changed unseen",
		Long: `Cosign the checkpoints of a ledger (C2SP tlog-witness). It belongs on a machine that the ledger's
administrators do not control. It cosigns a checkpoint only where that extends the last one it
cosigned: a ledger that was rolled back or forked gets no signature. It never sees an event.

It prints its public key. Put url and key under "witness" in the ledger's platform.yaml, and give the
key to whoever verifies proofs (towpath audit verify --witness-key). Its folder holds the private key and
the last checkpoint, and must not be restored from a backup: a witness that forgets can be fooled. After the
ledger had to be brought back from an older backup, ` + "`towpath witness reset`" + ` lets it begin anew.
--keys is the ledger's trust.json; copy it again after the ledger's keys were rotated.`,
		Example: examples("towpath witness --name witness.example.org --dir /var/lib/towpath-witness --keys trust.json --listen 0.0.0.0:7099"),
		Args:    arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := cfg.Validate(); err != nil {
				return usageError{err}
			}
			logger, err := worker.NewLogger(p.err.Out, "text", "info")
			if err != nil {
				return err
			}
			w, err := witness.New(cfg, logger)
			if err != nil {
				return err
			}
			defer w.Close()
			return w.Run(c.Context(), func(at net.Addr) {
				p.say("witness:\n  url: http://%s\n  key: %s", at, w.Key())
			})
		},
	}
	c.AddCommand(p.witnessResetCommand())
	c.Flags().StringVar(&cfg.Name, "name", "", "name of the key, such as this machine's")
	c.Flags().StringVar(&cfg.Dir, "dir", "witness", "`folder` with the private key and the last checkpoint")
	c.Flags().StringVar(&cfg.Listen, "listen", "127.0.0.1:7099", "address that the ledger service reaches")
	c.Flags().StringVar(&cfg.Trust, "keys", "trust.json", "the ledger's trust.json `file`")
	return c
}

func (p *program) witnessResetCommand() *cobra.Command {
	var dir, reason string
	var asJSON bool
	c := &cobra.Command{
		Use: "reset --reason TEXT", Short: "Give a witness a new start, after its ledger was brought back from an older backup",
		Long: `Give a witness a new start, after its ledger was brought back from an older backup. Until then it refuses
whatever does not extend what it saw, for ever. To be done where the witness is, by whoever runs it, once they
are convinced that the ledger had to be set back; the witness must be stopped.

Its key and its last checkpoint are put aside, the reason is recorded (GET /resets shows it), and the next
start makes a new key: no key ever signs two histories. Put the new one into the ledger's platform.yaml and
give it to whoever verifies proofs; what the old key signed stays verifiable with the old key.`,
		Example: examples("towpath witness reset --dir /var/lib/towpath-witness --reason 'restored from the backup of Monday, ticket 4711'"),
		Args:    arguments(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if reason == "" || len(reason) > maxReason {
				return usage("reset takes --reason, of at most %d bytes: it is recorded", maxReason)
			}
			n, err := witness.Reset(dir, reason, time.Now())
			if errors.Is(err, witness.ErrNoWitness) {
				return &client.Error{What: "giving the witness a new start", On: dir, Why: witness.ErrNoWitness.Error(), Do: "name its folder with --dir", Status: 404}
			}
			if err != nil {
				return err
			}
			if asJSON {
				return p.printJSON(n)
			}
			p.say("The witness begins anew. The key of before signs nothing any more: %s", screen.Line(n.Key))
			p.say("It and the last checkpoint are in %s", screen.Line(filepath.Join(dir, n.Aside)))
			p.say("  → start the witness; put the key that it prints into the ledger's platform.yaml, and restart the ledger service")
			return nil
		},
	}
	c.Flags().StringVar(&dir, "dir", "witness", "`folder` of the witness")
	c.Flags().StringVar(&reason, "reason", "", "why; it is recorded")
	jsonFlag(c, &asJSON)
	return c
}
