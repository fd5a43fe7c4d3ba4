package policy

import (
	"cmp"
	"fmt"
	"slices"

	"towpath.dev/events"
)

// MaxReasons is how many reasons one environment's verdict lists.
const MaxReasons = 12

// rank orders verdicts, the worst last. What is no verdict ranks above all.
func rank(v events.Verdict) int {
	switch v {
	case events.Pass:
		return 0
	case events.Warn:
		return 1
	case events.Fail:
		return 2
	}
	return 3
}

// Effect returns what a finding of a rule does to the verdict in an environment. A rule that the text
// does not know (it is older than the rule) does what it does by default; one that this build of Towpath
// does not know either fails.
func (p Policy) Effect(r Rule, env events.Slug) events.Verdict {
	if effects, ok := p.Rules[r]; ok {
		return effects.in(env)
	}
	if info, ok := rule(r); ok {
		return info.effects.in(env)
	}
	return events.Fail
}

// Evaluate judges findings: for each environment, in the order given, the worst that any of them does,
// and why, in words, the worst first.
func Evaluate(findings []events.Finding, p Policy, environments []events.Slug) []events.EnvironmentVerdict {
	byRule := map[Rule][]events.Finding{}
	for _, f := range findings {
		byRule[Rule(f.Rule)] = append(byRule[Rule(f.Rule)], f)
	}
	verdicts := make([]events.EnvironmentVerdict, 0, len(environments))
	for _, env := range environments {
		verdicts = append(verdicts, judge(byRule, p, env))
	}
	return verdicts
}

// reason is what the findings of one rule do in one environment.
type reason struct {
	rule   Rule
	effect events.Verdict
	text   string
}

func judge(byRule map[Rule][]events.Finding, p Policy, env events.Slug) events.EnvironmentVerdict {
	verdict := events.EnvironmentVerdict{Environment: env, Verdict: events.Pass}
	var reasons []reason
	for r, found := range byRule {
		effect := p.Effect(r, env)
		if rank(effect) > rank(verdict.Verdict) {
			verdict.Verdict = effect
		}
		if effect != events.Pass {
			reasons = append(reasons, reason{r, effect, describe(effect, found)})
		}
	}
	slices.SortFunc(reasons, func(a, b reason) int {
		return cmp.Or(
			cmp.Compare(rank(b.effect), rank(a.effect)),
			cmp.Compare(SeverityRank(b.rule.Severity()), SeverityRank(a.rule.Severity())),
			cmp.Compare(a.rule, b.rule),
		)
	})
	for i, r := range reasons {
		if i == MaxReasons-1 && len(reasons) > MaxReasons {
			verdict.Reasons = append(verdict.Reasons, fmt.Sprintf("and %d more rules", len(reasons)-i))
			break
		}
		verdict.Reasons = append(verdict.Reasons, r.text)
	}
	return verdict
}

// describe says in one line what findings of one rule do: the first of them in full, the others counted.
func describe(effect events.Verdict, found []events.Finding) string {
	first := slices.MinFunc(found, Worse)
	text := fmt.Sprintf("%s: %s: %s", effect, first.Rule, first.Message)
	if more := len(found) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}

// Worse orders findings: the gravest first, then by rule, package, version and path.
func Worse(a, b events.Finding) int {
	return cmp.Or(
		cmp.Compare(SeverityRank(b.Severity), SeverityRank(a.Severity)),
		cmp.Compare(a.Rule, b.Rule),
		cmp.Compare(a.Package, b.Package),
		cmp.Compare(a.Version, b.Version),
		cmp.Compare(a.Path, b.Path),
		cmp.Compare(a.Message, b.Message),
	)
}

// SeverityRank orders severities, the gravest highest. One that is not known ranks highest.
func SeverityRank(severity string) int {
	if i := slices.Index([]string{"low", "medium", "high", "critical"}, severity); i >= 0 {
		return i
	}
	return 4
}
