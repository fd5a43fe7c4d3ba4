package cli

import (
	"net"

	"github.com/spf13/cobra"

	"towpath.dev/pkg/worker"
	"towpath.dev/services/ledger/witness"
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
the last checkpoint, and must not be restored from a backup: a witness that forgets can be fooled.
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
	c.Flags().StringVar(&cfg.Name, "name", "", "name of the key, such as this machine's")
	c.Flags().StringVar(&cfg.Dir, "dir", "witness", "`folder` with the private key and the last checkpoint")
	c.Flags().StringVar(&cfg.Listen, "listen", "127.0.0.1:7099", "address that the ledger service reaches")
	c.Flags().StringVar(&cfg.Trust, "keys", "trust.json", "the ledger's trust.json `file`")
	return c
}
