package cli

import (
	"github.com/spf13/cobra"

	"towpath.dev/services/towpath/client"
)

// The groups of commands, in the order in which a person meets them.
const (
	groupBegin    = "begin"
	groupLook     = "look"
	groupAct      = "act"
	groupSettings = "settings"
	groupOperate  = "operate"
)

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "towpath",
		Short: "Carry one container image from git push to production",
		Long: `Towpath carries one container image from git push to production: build, vet, then
promote and verify in each environment, always the same digest.

Where and who: TOWPATH_URL and TOWPATH_TOKEN, or TOWPATH_DATA (the data folder of
` + "`towpath up`" + ` on this machine, ~/.local/share/towpath unless said otherwise).

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused, 5 timed out.`,
		SilenceErrors: true, SilenceUsage: true,
		Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.PersistentFlags().StringVar(&p.data, "data", client.DataFolder(), "data `folder` of towpath up on this machine")
	root.PersistentFlags().Lookup("data").DefValue = "$TOWPATH_DATA or ~/.local/share/towpath"
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddGroup(
		&cobra.Group{ID: groupBegin, Title: "Begin:"},
		&cobra.Group{ID: groupLook, Title: "Look:"},
		&cobra.Group{ID: groupAct, Title: "Act:"},
		&cobra.Group{ID: groupSettings, Title: "Settings:"},
		&cobra.Group{ID: groupOperate, Title: "Operate:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupBegin, p.upCommand(), p.initCommand(), p.remoteCommand(), p.appCommand(), p.submitCommand())
	add(groupLook, p.runsCommand(), p.showCommand(), p.logsCommand(), p.waitCommand(), p.stuckCommand(), p.envCommand(), p.eventsCommand(), p.vetCommand(), p.auditCommand())
	add(groupAct, p.approveCommand(), p.denyCommand(), p.replayCommand(), p.skipCommand(), p.promoteCommand(), p.rollbackCommand(),
		p.cancelCommand(), p.holdCommand(), p.resumeCommand(), p.dismissCommand())
	add(groupSettings, p.configCommand(), p.secretCommand(), p.settingsCommand())
	add(groupOperate, p.witnessCommand())
	add(groupOperate, p.doctorCommand(), p.policyCommand(), p.rebuildCommand(), p.backupCommand(), p.restoreCommand(), p.actorCommand(), p.keysCommand(), p.busCommand(), p.versionCommand())
	root.AddCommand(p.demoCommand(), p.credentialCommand(), p.hookCommand())
	root.SetHelpCommandGroupID(groupOperate)
	root.SetCompletionCommandGroupID(groupOperate)
	return root
}
