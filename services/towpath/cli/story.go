package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"towpath.dev/pkg/audit"
	"towpath.dev/pkg/seal"
	"towpath.dev/services/towpath/screen"
)

func (p *program) auditCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "audit", Short: "Tell and prove how what runs came to run", Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.auditShowCommand(), p.auditReportCommand(), p.auditCoverageCommand())
	c.AddCommand(p.auditExportCommand(), p.auditVerifyCommand(), p.auditCheckpointCommand(), p.auditEndAlarmCommand())
	return c
}

func (p *program) auditShowCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "show RUN | APP@ENV | DIGEST", Short: "Tell the whole story of a deploy",
		Long: `Tell the whole story of a deploy, from the ledger: commit, authors, build, vetting, approvers,
settings' versions, when and where, and whatever was done beside the way. hello/3 is a run, hello@prod
what serves there now, and a digest, or at least 8 digits of it, every run that carried the image.`,
		Example: examples("towpath audit show hello@prod", "towpath audit show hello/3", "towpath audit show sha256:83edaa4b863c --json"),
		Args:    arguments(cobra.ExactArgs(1)), ValidArgsFunction: p.completeRuns,
		RunE: func(c *cobra.Command, args []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			stories, err := api.Story(c.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return p.printJSON(stories)
			}
			for i, s := range stories {
				if i > 0 {
					p.say("")
				}
				p.story(s)
			}
			// Who may hear the story may not always ask how far the ledger is sealed; it is told all the same.
			if sealed, err := api.Checkpoint(c.Context()); err == nil {
				p.sealed(stories, sealed)
			}
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

// sealed says whether what was told is under a checkpoint.
func (p *program) sealed(stories []audit.Story, at seal.Status) {
	var last uint64
	for _, s := range stories {
		last = max(last, s.Last)
	}
	s := sheet{p}
	switch {
	case at.Alarm != "":
		s.head("Sealed", "ALARM: "+at.Alarm)
	case at.Serial == 0:
		s.head("Sealed", "not yet")
	default:
		s.head("Sealed", fmt.Sprintf("in checkpoint %d, which covers events 1–%d, root %s", at.Serial, at.Size, at.Root))
		if last > at.Size {
			s.row("", "event %d is newer: the next checkpoint will cover it", last)
		}
	}
}

// instant is a moment as an audit writes it: it is compared with other people's logs.
func instant(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05 UTC") }

// sheet prints a story: headings, and rows of a name and what there is to say.
type sheet struct{ p *program }

func (s sheet) head(title, about string) {
	s.p.say("\n%s", strings.TrimRight(s.p.out.Paint(screen.Bold, fmt.Sprintf("%-10s", title))+"  "+screen.Line(about), " "))
}

// nameWidth is the room for a row's name.
const nameWidth = 10

func (s sheet) row(name, format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	if strings.TrimSpace(text) == "" {
		return
	}
	room := 0
	if s.p.out.Width > 0 {
		room = max(20, s.p.out.Width-nameWidth-4)
	}
	for _, line := range screen.Wrap(text, room) {
		s.p.say("  %s  %s", s.p.out.Paint(screen.Dim, fmt.Sprintf("%-*s", nameWidth, name)), line)
		name = ""
	}
}

func (s sheet) mark(m *audit.Mark) string {
	if m == nil {
		return ""
	}
	return fmt.Sprintf("%s (event %d)", instant(m.At), m.Event)
}

// between is when something began and how long it took.
func (s sheet) between(from, to *audit.Mark) string {
	switch {
	case from == nil:
		return s.mark(to)
	case to == nil:
		return s.mark(from) + ", not ended"
	}
	return fmt.Sprintf("%s, took %s (events %d–%d)", instant(from.At), screen.Took(to.At.Sub(from.At)), from.Event, to.Event)
}

func (p *program) story(story audit.Story) {
	s := sheet{p}
	p.say("%s  %s", p.out.Paint(screen.Bold, screen.Line(story.Run)), screen.Line(story.Digest))
	p.change(s, story.Change)
	for _, b := range story.Builds {
		p.build(s, b)
	}
	for _, v := range story.Vetting {
		p.vetting(s, v)
	}
	for _, e := range story.Environments {
		p.storyEnvironment(s, e)
	}
	if len(story.Acts) > 0 {
		s.head("Acts", "what was asked for, and by whom")
		for _, a := range story.Acts {
			s.row("", "%s  %s%s", instant(a.At), a.String(), through(a.Channel))
		}
	}
	if len(story.Stuck) > 0 {
		s.head("Stuck", "what waited for an operator")
		for _, k := range story.Stuck {
			s.row("", "%s  %s %s, attempt %d: %s", instant(k.At), k.Stage, k.Environment, k.Attempt, k.Why)
		}
	}
}

func through(channel string) string {
	if channel == "" {
		return ""
	}
	return " (by " + channel + ")"
}

func (p *program) change(s sheet, c audit.Change) {
	s.head("Change", s.mark(&c.Mark))
	if c.Image {
		s.row("image", "built elsewhere; it entered at vet")
	}
	s.row("commit", "%s", c.Commit)
	if c.Old != "" {
		s.row("before", "%s", c.Old)
	}
	where := c.Repository
	if where == "" && !c.Image {
		where = "hosted here"
	}
	s.row("repository", "%s", strings.TrimSpace(where+" "+c.Ref))
	s.row("pusher", "%s", c.Pusher)
	s.row("authors", "%s", audit.Names(c.Authors))
	s.row("definition", "%s", c.DefinitionDigest)
	s.row("policy", "%s", c.PolicyDigest)
}

// attempt says which try it was, where there were several.
func attempt(n int) string {
	if n <= 1 {
		return ""
	}
	return fmt.Sprintf(", attempt %d", n)
}

func (p *program) build(s sheet, b audit.Build) {
	s.head("Build", b.Outcome+attempt(b.Attempt))
	s.row("when", "%s", s.between(b.Started, b.Finished))
	s.row("why", "%s", b.Trouble)
	if b.Digest != "" {
		s.row("image", "%s@%s", b.Repository, b.Digest)
	}
	s.row("tree", "%s", b.Tree)
	s.row("reused", "%s", b.ReusedFrom)
	s.row("provenance", "%s", b.Provenance)
	p.evidence(s, b.Signed)
}

func (p *program) evidence(s sheet, list []audit.Evidence) {
	for _, e := range list {
		s.row("signed", "%s in %s, key %s (event %d)", e.Statement, e.Referrer, e.Key, e.Event)
	}
}

func (p *program) vetting(s sheet, v audit.Vetting) {
	s.head("Vet", v.Outcome+attempt(v.Attempt))
	s.row("when", "%s", s.between(v.Started, v.Finished))
	s.row("why", "%s", v.Trouble)
	s.row("policy", "%s", v.Policy)
	for _, one := range v.Verdicts {
		s.row("verdict", "%s: %s  %s", one.Environment, one.Verdict, strings.Join(one.Reasons, "; "))
	}
	s.row("findings", "%s", findings(v))
	for _, f := range v.Findings {
		s.row("", "%s %s: %s", f.Severity, f.Rule, f.Message)
	}
	s.row("report", "%s", v.Report)
	s.row("sbom", "%s", v.SBOM)
	s.row("waivers", "none: they are not supported yet")
	p.evidence(s, v.Signed)
}

func findings(v audit.Vetting) string {
	switch {
	case v.Finished == nil:
		return ""
	case v.Total == 0:
		return "none"
	case v.Total > len(v.Findings):
		return fmt.Sprintf("%d, the gravest %d here; the report has all", v.Total, len(v.Findings))
	}
	return strconv.Itoa(v.Total)
}

func (p *program) storyEnvironment(s sheet, e audit.Environment) {
	if e.Asked == nil && len(e.Approvals) == 0 && e.Denied == nil && len(e.Deploys) == 0 {
		return
	}
	s.head(e.Name, "")
	if e.Asked != nil {
		s.row("approvals", "%d wanted, asked for %s", e.Asked.Wanted, s.mark(&e.Asked.Mark))
	}
	for _, a := range e.Approvals {
		s.row("approved", "by %s, %s%s", a.By, s.mark(&a.Mark), because(a.Reason))
		s.row("", "for %s under policy %s", a.Artifact, a.Policy)
	}
	if e.Denied != nil {
		s.row("denied", "by %s, %s%s", e.Denied.By, s.mark(&e.Denied.Mark), because(e.Denied.Reason))
	}
	for _, d := range e.Deploys {
		p.deploy(s, d)
	}
}

// many is a number of things.
func many(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

func (p *program) deploy(s sheet, d audit.Deploy) {
	kind := d.Kind
	if d.From > 0 {
		kind += fmt.Sprintf(" of slot %d", d.From)
	}
	s.row("slot "+strconv.Itoa(d.Slot), "%s%s, %s", kind, attempt(d.Attempt), p.ending(d))
	if d.By != nil {
		s.row("asked", "by %s%s", d.By, because(d.Reason))
	}
	s.row("digest", "%s", d.Digest)
	if d.Before != "" {
		s.row("before", "%s (%s)", d.Before, d.BeforeRun)
	}
	s.row("taken", "%s", s.mark(&d.Taken))
	if d.Decided != nil {
		s.row(d.Decision, "%s", s.mark(d.Decided))
	}
	s.row("why", "%s", d.Why)
	for _, c := range d.Containers {
		s.row("container", "%s %s %s", c.Name, c.Address, c.Engine)
	}
	for _, list := range []struct {
		name string
		pins []audit.Pin
	}{{"config", d.Config}, {"secret", d.Secrets}} {
		for _, pin := range list.pins {
			by := ""
			if pin.By != nil {
				by = fmt.Sprintf(", set by %s, %s", pin.By, s.mark(pin.Set))
			}
			s.row(list.name, "%s version %d%s", pin.Key, pin.Version, by)
		}
	}
	for _, c := range d.Checks {
		s.row("check", "%s: %s%s", c.Name, c.Outcome, because(c.Reason))
	}
	if d.Verified != nil {
		s.row("verified", "%s%s, %s%s", d.Verified.Outcome, attempt(d.Verified.Attempt), s.mark(&d.Verified.Mark), because(d.Verified.Reason))
	}
	if d.Closed != nil {
		s.row("closed", "%s, %s", d.Closing, s.mark(d.Closed))
	}
}

func (p *program) ending(d audit.Deploy) string {
	switch {
	case d.Closing != "":
		return d.Closing
	case d.Decision != "":
		return d.Decision
	}
	return "being brought up"
}

func (p *program) auditReportCommand() *cobra.Command {
	var env, from, to string
	var asJSON, asCSV bool
	c := &cobra.Command{
		Use: "report --env ENV --from TIME", Short: "List every change of an environment in a period",
		Long: `List every change of an environment in a period: run, digests before and after, commits, all authors
(the pusher, and of every commit since what served before), approvers and who denied it, tests, overrides.
A time is a date (2026-11-01, midnight UTC), RFC 3339, or how long ago (12h, 7d).`,
		Example: examples("towpath audit report --env prod --from 7d", "towpath audit report --env prod --from 2026-11-01 --to 2026-12-01 --csv > november.csv"),
		Args:    arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			now := time.Now()
			begin, err := parseMoment(from, now)
			if err != nil || env == "" || asCSV && asJSON {
				return usage("report takes --env and --from, such as --env prod --from 7d, and one of --csv and --json (%v)", err)
			}
			end := now.Add(time.Second) // what happened in this second is part of it
			if to != "" {
				if end, err = parseMoment(to, now); err != nil {
					return usage("--to %q: %v", to, err)
				}
			}
			if !begin.Before(end) {
				return usage("the period ends (%s) before it begins (%s)", instant(end), instant(begin))
			}
			api, err := p.open()
			if err != nil {
				return err
			}
			report, err := api.Report(c.Context(), env, begin, end)
			if err != nil {
				return err
			}
			switch {
			case asCSV:
				return report.CSV(p.out.Out)
			case asJSON:
				return p.printJSON(report)
			}
			p.report(report)
			return nil
		},
	}
	c.Flags().StringVar(&env, "env", "", "the environment")
	c.Flags().StringVar(&from, "from", "", "first moment of the period")
	c.Flags().StringVar(&to, "to", "", "first moment after it (default: now)")
	c.Flags().BoolVar(&asCSV, "csv", false, "print CSV (RFC 4180), safe to open in a spreadsheet")
	jsonFlag(c, &asJSON)
	c.RegisterFlagCompletionFunc("env", func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return p.envNames(c), cobra.ShellCompDirectiveNoFileComp
	})
	return c
}

// parseMoment reads a date, RFC 3339, or how long before now: "7d", "12h".
func parseMoment(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC(), nil
		}
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n < 100_000 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is no date (2026-11-01), no RFC 3339 time and no duration (7d)", text)
}

func (p *program) report(r audit.Report) {
	p.say("%s  %s – %s: %s", p.out.Paint(screen.Bold, screen.Line(r.Environment)), instant(r.From), instant(r.To), many(len(r.Changes), "change"))
	s := sheet{p}
	for _, b := range r.Restores {
		s.head("Ledger", s.mark(&b.Mark))
		s.row("restored", "%s%s", b.String(), because(b.Reason))
	}
	for _, a := range r.Alarms {
		s.head("Ledger", s.mark(&a.Mark))
		s.row("alarm", "%s%s", a.String(), because(a.Reason))
	}
	for _, c := range r.Changes {
		s.head(c.Run, fmt.Sprintf("%s  %s, slot %d (event %d)", instant(c.At), c.Kind, c.Slot, c.Event))
		s.row("digest", "%s → %s", orDash(c.Before), orDash(c.After))
		commits := c.Commits.String()
		if c.Commits.Back {
			commits = "back to " + c.Commits.To
		}
		s.row("commits", "%s", commits)
		s.row("pusher", "%s", c.Pusher)
		if len(c.Authors) > 0 {
			s.row("authors", "%s (from %s)", audit.Names(c.Authors), c.Source)
		}
		s.row("approvers", "%s", audit.Names(c.Approvers))
		for _, d := range c.Denials {
			s.row("denied", "%s", d.String())
		}
		s.row("vet", "%s", strings.TrimSpace(c.Verdict+" "+c.Policy))
		if t := c.Tests; t.Outcome != "" {
			s.row("tests", "%s: %d passed, %d failed, %d skipped", t.Outcome, t.Passed, t.Failed, t.Skipped)
		}
		for _, o := range c.Overrides {
			s.row("override", "%s", o.String())
		}
		s.row("outcome", "%s%s", openOr(c.Closing), because(c.Why))
	}
}

func openOr(closing string) string {
	if closing == "" {
		return "open"
	}
	return closing
}

func orDash(text string) string {
	if text == "" {
		return "nothing"
	}
	return text
}

func (p *program) auditCoverageCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "coverage ENV", Short: "List what runs in an environment that no run explains",
		Long: `List what runs on an environment's Engine that no run explains: containers that somebody started beside
Towpath, whose image is not that of the slot which they claim, or whose slot is over. Where environments
share an Engine, a container beside Towpath is listed for each. Exit code 1 where there are any.`,
		Example: examples("towpath audit coverage prod", "towpath audit coverage prod --json"),
		Args:    arguments(cobra.ExactArgs(1)), ValidArgsFunction: p.completeEnvs,
		RunE: func(c *cobra.Command, args []string) error {
			api, err := p.open()
			if err != nil {
				return err
			}
			coverage, err := api.Coverage(c.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				err = p.printJSON(coverage)
			} else {
				p.coverage(coverage)
			}
			if err == nil && len(coverage.Unexplained)+coverage.More > 0 {
				err = codeError(exitFailed)
			}
			return err
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func (p *program) coverage(c audit.Coverage) {
	p.say("%s  %s: %s explained, %d not", p.out.Paint(screen.Bold, screen.Line(c.Environment)), screen.Line(c.Engine), many(len(c.Explained), "container"), len(c.Unexplained))
	list := func(title string, style screen.Style, rows []audit.Covered) {
		if len(rows) == 0 {
			return
		}
		p.say("\n%s", p.out.Paint(style, title))
		t := screen.Table{Margin: "  ", Heading: []string{"CONTAINER", "RUN", "IMAGE", "WHY"}}
		for _, r := range rows {
			image := screen.Digest(r.Digest)
			if image == "" {
				image = r.Image
			}
			t.Add(screen.Text("%s", r.Container), screen.Text("%s", r.Run), screen.Text("%s", image), screen.Text("%s", r.Why))
		}
		p.out.Table(t)
	}
	list("No run explains", screen.Red, c.Unexplained)
	list("Does not run", screen.Yellow, c.Missing)
	list("Explained", screen.Plain, c.Explained)
	if c.More > 0 {
		p.say("\n%d containers more were not looked at.", c.More)
	}
}
