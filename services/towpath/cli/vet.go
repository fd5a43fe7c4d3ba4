package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"towpath.dev/events"
	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

func (p *program) vetCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "vet", Short: "Read what vetting found in an image", Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.vetShowCommand())
	return c
}

// vetting is what is shown of the newest verdict on a run's image.
type vetting struct {
	Run      string                      `json:"run"`
	Artifact string                      `json:"artifact"` // purl
	Policy   string                      `json:"policy"`   // digest
	Verdicts []events.EnvironmentVerdict `json:"verdicts"`
	Findings []events.Finding            `json:"findings"` // at most 50, the gravest first
	Total    int                         `json:"total"`
	Report   *events.Evidence            `json:"report,omitempty"` // all of them, signed
	SBOM     *events.Evidence            `json:"sbom,omitempty"`
}

func (p *program) vetShowCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "show RUN", Short: "Show what vetting found, the gravest first, and what to do about it",
		Long: `Show what vetting found in a run's image, the gravest first: for each environment the verdict and why, then
each rule's findings, where they are and what to do about them. What is new in an environment is what the
image that ran there, when this one was vetted, does not have. hello/3 is a run; hello is its newest one.`,
		Example: examples("towpath vet show hello/3", "towpath vet show hello --json | jq '.findings[].rule'"),
		Args:    arguments(cobra.ExactArgs(1)), ValidArgsFunction: p.completeRuns,
		RunE: func(c *cobra.Command, args []string) error {
			ref, err := parseRun(args[0])
			if err != nil {
				return err
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			run, err := find(c.Context(), api, ref)
			if err != nil {
				return err
			}
			var newest *events.VetRunFinished
			query := client.EventQuery{App: run.App, Run: run.Number, Type: string(events.TypeVetRunFinished)}
			if err := api.Events(c.Context(), query, func(line view.EventLine) error {
				e, err := events.Decode(line.Event)
				if err != nil {
					return fmt.Errorf("reading event %d of the gateway's answer: %w", line.Seq, err)
				}
				if b, ok := e.Body.(*events.VetRunFinished); ok && b.Outcome == events.Success {
					newest = b
				}
				return nil
			}); err != nil {
				return err
			}
			if newest == nil {
				return &client.Error{
					What: "reading the verdict on", On: run.Run, Why: "vetting has not reached one",
					Do: "towpath show " + run.Run + " says how far the run is", Status: 404,
				}
			}
			v := vetting{
				Run: run.Run, Artifact: newest.ArtifactID, Policy: newest.Policy, Verdicts: newest.Verdicts,
				Findings: newest.Findings, Total: newest.Total, Report: newest.Report, SBOM: newest.SBOM,
			}
			if v.Findings == nil {
				v.Findings = []events.Finding{}
			}
			if asJSON {
				return p.printJSON(v)
			}
			p.lines(p.vetLines(v))
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

// verdictStyles are how verdicts look.
var verdictStyles = map[events.Verdict]screen.Style{events.Pass: screen.Green, events.Warn: screen.Yellow, events.Fail: screen.Red}

// severityStyle is how a severity looks.
func severityStyle(severity string) screen.Style {
	switch severity {
	case "critical", "high":
		return screen.Red
	case "medium":
		return screen.Yellow
	}
	return screen.Dim
}

// wrapped is how long a line of prose may be.
const wrapped = 110

// vetLines draws a verdict: per environment, then the findings by rule, then where all of it is.
func (p *program) vetLines(v vetting) []string {
	digest := v.Artifact
	if _, rest, ok := strings.Cut(v.Artifact, "@"); ok {
		digest, _, _ = strings.Cut(rest, "?")
	}
	lines := []string{fmt.Sprintf("%s  image %s, by policy %s", v.Run, screen.Digest(digest), screen.Digest(v.Policy)), ""}
	for _, e := range v.Verdicts {
		line := fmt.Sprintf("  %-12s %s", e.Environment, p.out.Paint(verdictStyles[e.Verdict], string(e.Verdict)))
		if e.Against != "" && e.Against != digest {
			line += p.out.Paint(screen.Dim, "  (compared with "+screen.Digest(e.Against)+", which ran there)")
		}
		lines = append(lines, line)
		for _, reason := range e.Reasons {
			lines = append(lines, indentedBy(15, screen.Wrap(screen.Line(reason), wrapped-15))...)
		}
	}
	if v.Total == 0 {
		return append(lines, "", "Nothing was found.")
	}
	for rest := v.Findings; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].Rule == rest[0].Rule {
			n++
		}
		lines = append(lines, "")
		lines = append(lines, p.findings(rest[:n], v.Verdicts)...)
		rest = rest[n:]
	}
	if more := v.Total - len(v.Findings); more > 0 && v.Report != nil {
		lines = append(lines, "", fmt.Sprintf("and %d more, in the signed report beside the image: %s", more, v.Report.URI))
	}
	return lines
}

// findings draws those of one rule; what to do is said once where it is the same for all.
func (p *program) findings(of []events.Finding, verdicts []events.EnvironmentVerdict) []string {
	heading := of[0].Rule
	if len(of) > 1 {
		heading += fmt.Sprintf(" (%d)", len(of))
	}
	lines := []string{p.out.Paint(severityStyle(of[0].Severity), fmt.Sprintf("%-8s", of[0].Severity)) + " " + screen.Line(heading)}
	for i, f := range of {
		lines = append(lines, indentedBy(9, screen.Wrap(screen.Line(f.Message+newWhere(f, verdicts)), wrapped-9))...)
		if at := place(f); at != "" {
			lines = append(lines, "           "+p.out.Paint(screen.Dim, at))
		}
		if f.Fix != "" && (i+1 == len(of) || of[i+1].Fix != f.Fix) {
			lines = append(lines, indentedBy(9, screen.Wrap("→ "+screen.Line(f.Fix), wrapped-9))...)
		}
	}
	return lines
}

// place says where a finding is; empty: in the image as a whole.
func place(f events.Finding) string {
	var parts []string
	if f.Path != "" {
		at := f.Path
		if f.Line > 0 {
			at += fmt.Sprintf(":%d", f.Line)
		}
		parts = append(parts, at)
	}
	if f.Layer != "" {
		parts = append(parts, "layer "+screen.Digest(f.Layer))
	}
	return screen.Line(strings.Join(parts, ", "))
}

// newWhere says where something runs that does not have a finding.
func newWhere(f events.Finding, verdicts []events.EnvironmentVerdict) string {
	var names []string
	for _, v := range verdicts {
		if v.Against != "" && slices.Contains(f.NewIn, v.Environment) {
			names = append(names, string(v.Environment))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return " (new in " + strings.Join(names, ", ") + ")"
}

func indentedBy(n int, lines []string) []string {
	all := make([]string, len(lines))
	for i, line := range lines {
		all[i] = strings.Repeat(" ", n) + line
	}
	return all
}
