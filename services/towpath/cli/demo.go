package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"towpath.dev/pkg/engine"
	"towpath.dev/services/towpath/demo"
)

func (p *program) demoCommand() *cobra.Command {
	o := demo.Options{Screen: p.out}
	c := &cobra.Command{
		Use: "demo", Short: "Watch a commit go to production, then two breaks on purpose (make demo)",
		Hidden: true, Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("finding this program's own path: %w", err)
			}
			if _, err := os.Stat(o.App); err != nil {
				return usage("the sample app is not in %s: run make demo in the folder of Towpath's sources, or name it with --app", o.App)
			}
			o.Program, o.Stay = self, demo.Stays(p.out)
			o.Engine = engine.Host{URL: os.Getenv("DOCKER_HOST")}
			return demo.Run(c.Context(), o)
		},
	}
	c.Flags().StringVar(&o.App, "app", "deployments/demo/hello", "folder of the sample app")
	c.Flags().DurationVar(&o.Compiled, "compiled", time.Duration(0), "how long compiling took, to be told at the end")
	return c
}
