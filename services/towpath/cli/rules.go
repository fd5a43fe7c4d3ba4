package cli

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings/consul"
	"towpath.dev/pkg/settings/vault"
)

func (p *program) settingsCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "settings", Short: "Prepare the Consul and Vault that keep settings", Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.settingsRulesCommand())
	return c
}

// rules is what an administrator of an environment's Consul and Vault runs.
func rules(stores policy.Stores, env events.Slug, discover bool) (string, error) {
	configuration := fmt.Sprintf("# Configuration of %s is in the store that comes with Towpath: nothing to do.\n", env)
	if stores.Consul != nil {
		configuration = consul.Rules(*stores.Consul, env, discover)
	}
	secrets := fmt.Sprintf("# Secrets of %s are in the store that comes with Towpath: nothing to do.\n", env)
	if stores.Vault != nil {
		var err error
		if secrets, err = vault.Rules(*stores.Vault, env, discover); err != nil {
			return "", err
		}
	}
	return configuration + "\n" + secrets, nil
}

func (p *program) settingsRulesCommand() *cobra.Command {
	var file string
	var discover bool
	c := &cobra.Command{
		Use: "rules ENV", Short: "Print what Consul and Vault must let each service do, ready to paste",
		Long: `Print the shell commands that give each service, in the Consul and Vault which platform.yaml names for
an environment, what it needs there and nothing in any other environment: ACL rules, policies, AppRole
roles, and the files that they log in with. An administrator of both runs them. Nothing is contacted.

--discover gives promote more than its own environment, because Consul and Vault cannot say less: in
Consul acl = "write", which can make a token for anything there, and in Vault to look up and to end
any token whose accessor it knows. Give such an environment a Consul and a Vault (or a namespace of
Vault) of its own.`,
		Example: examples("towpath settings rules prod", "towpath settings rules prod --discover | less"),
		Args:    arguments(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			env, err := events.ParseSlug(args[0])
			if err != nil {
				return usage("%s", err)
			}
			if file == "" {
				file = filepath.Join(p.data, policy.FileName)
			}
			platform, err := policy.Load(file)
			if err != nil {
				return err
			}
			text, err := rules(platform.Stores(env), env, discover)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(p.out.Out, text)
			return err
		},
	}
	c.Flags().StringVar(&file, "platform", "", "platform `file`; default: platform.yaml in the data folder")
	c.Flags().BoolVar(&discover, "discover", false, "also what apps need that find their settings themselves (discover: true); it reaches beyond the environment, see above")
	return c
}
