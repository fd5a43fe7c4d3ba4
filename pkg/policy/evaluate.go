package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"towpath.dev/events"
	"towpath.dev/pkg/policy/condition"
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

// Environment is where an artifact would run, and what runs there.
type Environment struct {
	Name events.Slug
	// Against is the digest of the artifact that runs there; empty: nothing of the app does.
	Against string
}

// RunFacts are what conditions can ask of a run.
type RunFacts struct {
	App       events.Slug
	Elsewhere bool // another CI built the artifact
}

// Judge judges by one policy. It is safe for concurrent use.
type Judge struct {
	policy     Policy
	conditions []*condition.Condition // as in the policy
}

// Judge returns what judges by the policy. The error says which condition this build of Towpath cannot apply.
func (p Policy) Judge() (*Judge, error) {
	j := &Judge{policy: p}
	if len(p.Conditions) == 0 {
		return j, nil
	}
	compiler, err := compiler()
	if err != nil {
		return nil, err
	}
	for _, c := range p.Conditions {
		compiled, err := compiler.Compile(c.When)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errNoCondition, c.ID, err)
		}
		j.conditions = append(j.conditions, compiled)
	}
	return j, nil
}

// Evaluate judges findings: for each environment, in the order given, the worst that any of them does by the table of
// rules or by a condition, and why, in words, the worst first.
func (j *Judge) Evaluate(findings []events.Finding, environments []Environment, run RunFacts) []events.EnvironmentVerdict {
	verdicts := make([]events.EnvironmentVerdict, 0, len(environments))
	for _, env := range environments {
		verdicts = append(verdicts, j.in(env, findings, run))
	}
	return verdicts
}

// reason is what findings do in one environment, by one rule or condition.
type reason struct {
	id       string
	severity string
	effect   events.Verdict
	says     string // of a condition; of a rule its findings say it
	found    []events.Finding
}

// in judges for one environment.
func (j *Judge) in(env Environment, findings []events.Finding, run RunFacts) events.EnvironmentVerdict {
	byRule := map[Rule]*reason{}
	byCondition := make([]reason, len(j.conditions))
	for i, c := range j.policy.Conditions {
		byCondition[i] = reason{id: c.ID, severity: c.Severity, effect: c.Effects.in(env.Name), says: c.Message}
	}
	for _, f := range findings {
		r := byRule[Rule(f.Rule)]
		if r == nil {
			r = &reason{id: f.Rule, severity: Rule(f.Rule).Severity(), effect: j.policy.Effect(Rule(f.Rule), env.Name)}
			byRule[Rule(f.Rule)] = r
		}
		r.found = append(r.found, f)
		values := valuesOf(f, env, run)
		for i, c := range j.conditions {
			holds, err := c.Holds(values)
			if err != nil { // nobody knows what it would have said
				byCondition[i].effect, byCondition[i].says, holds = events.Fail, err.Error(), true
			}
			if holds {
				byCondition[i].found = append(byCondition[i].found, f)
			}
		}
	}
	all := byCondition
	for _, r := range byRule {
		all = append(all, *r)
	}
	return conclude(env, slices.DeleteFunc(all, func(r reason) bool { return len(r.found) == 0 }))
}

// conclude makes the verdict out of what was found.
func conclude(env Environment, reasons []reason) events.EnvironmentVerdict {
	verdict := events.EnvironmentVerdict{Environment: env.Name, Verdict: events.Pass, Against: env.Against}
	reasons = slices.DeleteFunc(reasons, func(r reason) bool { return r.effect == events.Pass })
	slices.SortFunc(reasons, func(a, b reason) int {
		return cmp.Or(
			cmp.Compare(rank(b.effect), rank(a.effect)),
			cmp.Compare(SeverityRank(b.severity), SeverityRank(a.severity)),
			cmp.Compare(a.id, b.id),
		)
	})
	for i, r := range reasons {
		if rank(r.effect) > rank(verdict.Verdict) {
			verdict.Verdict = r.effect
		}
		if i == MaxReasons-1 && len(reasons) > MaxReasons {
			verdict.Reasons = append(verdict.Reasons, fmt.Sprintf("and %d more rules", len(reasons)-i))
			break
		}
		verdict.Reasons = append(verdict.Reasons, r.text())
	}
	return verdict
}

// valuesOf is what a condition sees of a finding.
func valuesOf(f events.Finding, env Environment, run RunFacts) condition.Values {
	return condition.Values{
		Finding: condition.Finding{
			Rule: f.Rule, Class: f.Class, Severity: f.Severity, Package: f.Package, Version: f.Version, Licence: f.Licence,
			Subject: f.Subject, Path: f.Path, Line: f.Line, Layer: f.Layer, IsNew: slices.Contains(f.NewIn, env.Name),
		},
		Environment: condition.Environment{Name: string(env.Name), First: env.Against == ""},
		Run:         condition.Run{App: string(run.App), Elsewhere: run.Elsewhere},
	}
}

// text says it in one line: the first finding in full, the others counted.
func (r reason) text() string {
	first := slices.MinFunc(r.found, Worse)
	text := fmt.Sprintf("%s: %s: %s", r.effect, r.id, first.Message)
	if r.says != "" {
		text = fmt.Sprintf("%s: %s: %s: %s", r.effect, r.id, r.says, first.Message)
	}
	if more := len(r.found) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}

// Key names what a finding is about, so that two images can be compared: the same in both where only versions, layers and
// places in the source differ.
func Key(f events.Finding) string {
	path := f.Path
	if f.Line > 0 {
		path = ""
	}
	return strings.Join([]string{f.Rule, f.Package, f.Licence, f.Subject, path}, "\x00")
}

// Worse orders findings: the gravest first, then by rule, package, version and path.
func Worse(a, b events.Finding) int {
	return cmp.Or(
		cmp.Compare(SeverityRank(b.Severity), SeverityRank(a.Severity)),
		cmp.Compare(a.Rule, b.Rule),
		cmp.Compare(a.Package, b.Package),
		cmp.Compare(a.Version, b.Version),
		cmp.Compare(a.Subject, b.Subject),
		cmp.Compare(a.Path, b.Path),
		cmp.Compare(a.Line, b.Line),
		cmp.Compare(a.Message, b.Message),
	)
}

// SeverityRank orders severities, the gravest highest. One that is not known ranks highest.
func SeverityRank(severity string) int {
	if i := slices.Index(Severities, severity); i >= 0 {
		return i
	}
	return 4
}
