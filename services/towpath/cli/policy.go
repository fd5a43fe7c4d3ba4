package cli

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
	"towpath.dev/services/towpath/screen"
)

func (p *program) policyCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "policy", Short: "Try the platform's policy", Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.policyTestCommand())
	return c
}

// tested is a condition and how many of its examples came out as they should.
type tested struct {
	Condition string         `json:"condition"`
	Severity  string         `json:"severity"`
	Effects   policy.Effects `json:"environments"`
	Examples  int            `json:"examples"`
	Failed    []failed       `json:"failed,omitempty"`
}

type failed struct {
	Line     int            `json:"line"`
	Expected events.Verdict `json:"expected"`
	Got      events.Verdict `json:"got"`
}

func (p *program) policyTestCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "test [FILE]", Short: "Check a platform file and run the examples of its conditions",
		Long: `Check a platform file, and run the examples that its conditions give against them: what each makes of a
finding in an environment. The default is platform.yaml in the data folder. Nothing is contacted and
nothing is changed; a file that Towpath would refuse is refused here, with the line and column.`,
		Example: examples("towpath policy test", "towpath policy test candidate.yaml --json"),
		Args:    arguments(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			file := filepath.Join(p.data, policy.FileName)
			if len(args) == 1 {
				file = args[0]
			}
			platform, err := policy.Load(file)
			if err != nil {
				return err
			}
			failures, err := platform.Policy.Test(platform.Examples)
			if err != nil {
				return err
			}
			results := results(platform, failures)
			table := screen.Table{Heading: []string{"CONDITION", "SEVERITY", "EXAMPLES", ""}}
			for _, r := range results {
				word, style := "ok", screen.Green
				switch {
				case len(r.Failed) > 0:
					word, style = fmt.Sprintf("%d failed", len(r.Failed)), screen.Red
				case r.Examples == 0:
					word, style = "the default's, as Towpath tests it", screen.Dim
				}
				table.Add(screen.Text("%s", r.Condition), screen.Text("%s", r.Severity), screen.Text("%d", r.Examples), screen.In(style, word))
			}
			if err := p.list(asJSON, results, table, "The policy has no conditions: the table of rules alone decides."); err != nil {
				return err
			}
			for _, f := range failures {
				fmt.Fprintf(p.err.Out, "%s:%d: condition %s gives %s in %s for this %s, expected is %s\n",
					file, f.Example.Line, f.Example.Condition, f.Got, f.Example.In.Name, f.Example.Finding.Rule, f.Example.Want)
			}
			if len(failures) > 0 {
				return codeError(exitFailed)
			}
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

// results are a line for each condition.
func results(platform *policy.Platform, failures []policy.Failure) []tested {
	all := make([]tested, 0, len(platform.Policy.Conditions))
	for _, c := range platform.Policy.Conditions {
		r := tested{Condition: c.ID, Severity: c.Severity, Effects: c.Effects}
		for _, e := range platform.Examples {
			if e.Condition == c.ID {
				r.Examples++
			}
		}
		for _, f := range failures {
			if f.Example.Condition == c.ID {
				r.Failed = append(r.Failed, failed{f.Example.Line, f.Example.Want, f.Got})
			}
		}
		all = append(all, r)
	}
	return all
}
