package cli

import (
	"github.com/spf13/cobra"

	"towpath.dev/pkg/ledger/fold"
)

// What the shell offers. A gateway that does not answer offers nothing.

func (p *program) completeApps(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return p.appNames(c), cobra.ShellCompDirectiveNoFileComp
}

func (p *program) appNames(c *cobra.Command) []string {
	api, err := p.open()
	if err != nil {
		return nil
	}
	apps, err := api.Apps(c.Context())
	if err != nil {
		return nil
	}
	var names []string
	for _, a := range apps {
		names = append(names, a.App)
	}
	return names
}

func (p *program) envNames(c *cobra.Command) []string {
	api, err := p.open()
	if err != nil {
		return nil
	}
	envs, err := api.Environments(c.Context())
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range envs {
		names = append(names, e.Name)
	}
	return names
}

func (p *program) completeEnvs(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return p.envNames(c), cobra.ShellCompDirectiveNoFileComp
}

func (p *program) completeEnvApp(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return p.envNames(c), cobra.ShellCompDirectiveNoFileComp
	case 1:
		return p.appNames(c), cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

func (p *program) completeRuns(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	api, err := p.open()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	runs, err := api.Runs(c.Context(), "", "")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, r := range runs {
		names = append(names, r.Run+"\t"+string(r.Status))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (p *program) completeSkip(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return []string{fold.StageVerify}, cobra.ShellCompDirectiveNoFileComp
	}
	return p.completeRuns(c, args, typed)
}

func (p *program) completeReplay(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return []string{fold.StageBuild, fold.StageVet, fold.StagePromote, fold.StageVerify}, cobra.ShellCompDirectiveNoFileComp
	}
	return p.completeRuns(c, args, typed)
}
