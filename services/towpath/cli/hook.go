package cli

import (
	"os"

	"github.com/spf13/cobra"

	"towpath.dev/services/gateway/hook"
)

// hookCommand is what git runs in the gateway's repositories while it takes a push in.
func (p *program) hookCommand() *cobra.Command {
	return &cobra.Command{
		Use: "hook NAME", Short: "Judge a push, as git's hook in the gateway's repositories", Hidden: true, Args: arguments(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			if code := hook.Run(args[0], os.Getenv, p.in, p.out.Out); code != 0 {
				return codeError(code)
			}
			return nil
		},
	}
}
