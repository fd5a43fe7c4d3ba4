package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

// projections is how many there are at least: the folds of the gateway, the ledger and the workers, and the traffic.
const projections = 2

func (p *program) rebuildCommand() *cobra.Command {
	var check, asJSON bool
	c := &cobra.Command{
		Use: "rebuild", Short: "Make what follows from the ledger anew, or prove that it would change nothing",
		Long: `Throw away what follows from the ledger and make it anew: each service's state and its snapshot, and
the table of what gets traffic. Work goes on meanwhile, and so does traffic.

With --check nothing is changed. For each service it compares, at one event and byte for byte, the
state that it works with, a fresh one of the whole ledger, and one that reads on from its newest
snapshot; and the table of what gets traffic with the greatest live slots. Exit code 1 says that
something differs, with the first field that does, or that a service did not answer.`,
		Example: examples("towpath rebuild --check", "towpath rebuild --check --json", "towpath rebuild"), Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			var all []client.Projection
			failed := false
			err = api.Rebuild(c.Context(), check, func(one client.Projection) error {
				all = append(all, one)
				// What a rebuild found different is mended.
				failed = failed || one.Error != "" || one.Difference != "" && !one.Rebuilt
				if !asJSON {
					p.projection(one)
				}
				return nil
			})
			if err != nil {
				return err
			}
			if len(all) < projections || all[len(all)-1].Projection != "traffic" {
				return &client.Error{What: "rebuilding", Why: "the gateway's answer broke off", Do: "try again", Code: client.CodeFailed}
			}
			if asJSON {
				if err := p.printJSON(all); err != nil {
					return err
				}
			}
			if failed {
				return codeError(exitFailed)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&check, "check", false, "change nothing: prove that a rebuild would change nothing")
	jsonFlag(c, &asJSON)
	return c
}

// projection prints how one projection came out.
func (p *program) projection(one client.Projection) {
	sign, what := p.out.Paint(screen.Green, "✓"), "the same"
	switch {
	case one.Error != "":
		sign, what = p.out.Paint(screen.Red, "✗"), screen.Line(one.Error)
	case one.Difference != "" && one.Rebuilt:
		sign, what = p.out.Paint(screen.Yellow, "!"), "differed and was rebuilt: "+screen.Line(one.Difference)
	case one.Difference != "":
		sign, what = p.out.Paint(screen.Red, "✗"), "differs: "+screen.Line(one.Difference)
	case one.Rebuilt:
		what = "rebuilt, the same as before"
	case one.Service == "":
		what = fmt.Sprintf("%d places are what the ledger says", one.Places)
	}
	p.say("%s %-16s %s", sign, one.Projection, what)
	if one.Error != "" || one.Service == "" {
		return
	}
	p.say("    event %d, %d bytes, format %s", one.Seq, one.Live.Bytes, one.Format)
	p.say("    live    %s", one.Live.SHA256)
	p.say("    fresh   %s  read from 1 in %s; signatures verified: %s", one.Fresh.SHA256, took(one.Fresh.Took), one.Verified)
	if one.Resumed != nil {
		p.say("    resumed %s  read from %d in %s", one.Resumed.SHA256, one.Resumed.After+1, took(one.Resumed.Took))
	}
}

func took(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }
