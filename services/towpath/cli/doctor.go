package cli

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/doctor"
	"towpath.dev/services/towpath/screen"
)

func (p *program) doctorCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "doctor", Short: "Look at what Towpath needs, and say what to do about what is missing",
		Long: `Look at what Towpath needs: git, disk, ports, the Docker Engines, the registry, the bus, the
clock, and each environment's Consul and Vault. It may be run before the first start. Exit code 1 when
something is broken.`,
		Example: examples("towpath doctor", "towpath doctor --json"), Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			checks := p.diagnose(c.Context())
			if asJSON {
				if err := p.printJSON(checks); err != nil {
					return err
				}
			} else {
				p.checks(checks)
			}
			for _, check := range checks {
				if check.Status == doctor.Broken {
					return codeError(exitFailed)
				}
			}
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

// diagnose looks at this machine, unless Towpath is elsewhere, and asks the gateway what it sees.
func (p *program) diagnose(ctx context.Context) []client.Check {
	var checks []client.Check
	here := os.Getenv("TOWPATH_URL") == ""
	if here {
		checks = doctor.Machine(ctx, p.data)
	}
	api, err := p.open()
	if err == nil {
		var seen []client.Check
		if seen, err = api.Doctor(ctx); err == nil {
			return append(checks, unseen(checks, seen)...)
		}
	}
	if here && !doctor.Running(p.data) {
		return append(checks, client.Check{Name: "gateway", Status: doctor.Warning, Detail: "nothing runs on " + p.data, Fix: "towpath up"})
	}
	return append(checks, client.Check{Name: "gateway", Status: doctor.Broken, Detail: err.Error(), Fix: "see the log of towpath up"})
}

// unseen are the gateway's checks of what was not looked at from here.
func unseen(mine, theirs []client.Check) []client.Check {
	known := map[string]bool{"repositories": true, "builds": true} // by other names: disk, build limits
	for _, c := range mine {
		known[c.Name] = true
	}
	var rest []client.Check
	for _, c := range theirs {
		if !known[c.Name] {
			rest = append(rest, c)
		}
	}
	return rest
}

func (p *program) checks(checks []client.Check) {
	for _, c := range checks {
		sign, style := "✓", screen.Green
		switch c.Status {
		case doctor.Warning:
			sign, style = "!", screen.Yellow
		case doctor.Broken:
			sign, style = "✗", screen.Red
		}
		lines := screen.Wrap(c.Name+": "+c.Detail, max(0, p.out.Width-2))
		for i, l := range lines {
			if i == 0 {
				p.say("%s %s", p.out.Paint(style, sign), l)
				continue
			}
			p.say("  %s", l)
		}
		if c.Status != doctor.OK && c.Fix != "" {
			for i, l := range screen.Wrap(c.Fix, max(0, p.out.Width-4)) {
				p.say("%s%s", []string{"  → ", "    "}[min(i, 1)], l)
			}
		}
	}
}
