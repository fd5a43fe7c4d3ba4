package policy

import (
	"errors"
	"fmt"
	"slices"

	"towpath.dev/events"
	"towpath.dev/pkg/policy/condition"
)

// Condition is a rule of the organisation's own: what a finding does where an expression is true of it. It is
// additional to the table of rules and can only make a verdict worse.
type Condition struct {
	ID       string  `json:"id"`       // a slug that is no Rule
	When     string  `json:"when"`     // in CEL; see package condition
	Severity string  `json:"severity"` // of what it says: low, medium, high, critical
	Message  string  `json:"message"`  // for whoever reads the verdict
	Effects  Effects `json:"environments"`
}

func (c Condition) check() error {
	switch {
	case c.ID == "" || c.When == "" || c.Message == "":
		return fmt.Errorf("condition %.60q lacks an id, what it is about or a message", c.ID)
	case !slices.Contains(Severities, c.Severity):
		return fmt.Errorf("condition %.60q: %.60q is no severity", c.ID, c.Severity)
	}
	if err := c.Effects.check(); err != nil {
		return fmt.Errorf("condition %.60q: %w", c.ID, err)
	}
	return nil
}

// defaultConditions are those of a fresh `towpath up`: what production did not have before is kept out of it.
func defaultConditions() []Condition {
	return []Condition{
		{
			ID: "new-base", When: `finding.rule == "base-unknown" && finding.isNew && !environment.first`, Severity: "medium",
			Message: "what runs there stands on a trusted base or on none, and this does not", Effects: strictButEarly(),
		},
		{
			ID: "new-licence", When: `finding.rule == "licence-denied" && finding.isNew`, Severity: "high",
			Message: "nothing that runs there is under this licence", Effects: strictButEarly(),
		},
		{
			ID: "new-privilege", When: `finding.rule in ["setuid-program", "user-root"] && finding.isNew && !environment.first`, Severity: "medium",
			Message: "what runs there does without", Effects: strictButEarly(),
		},
	}
}

// compiler compiles conditions over the findings that this build of Towpath can make.
func compiler() (*condition.Compiler, error) {
	words := condition.Words{Severities: Severities}
	for _, r := range Rules {
		words.Rules = append(words.Rules, string(r.Rule))
	}
	for _, c := range Classes {
		words.Classes = append(words.Classes, string(c))
	}
	return condition.NewCompiler(words)
}

// Example is a finding and what a condition has to make of it: a test of the condition, which a platform file gives
// with it. No policy text holds it.
type Example struct {
	Condition string // its id
	Line      int    // in the platform file
	Finding   events.Finding
	IsNew     bool
	In        Environment
	Run       RunFacts
	Want      events.Verdict // pass: the condition is not about the finding
}

// Test runs examples and returns what is wrong with each that fails, in the order given; the error says that the policy
// cannot be judged by.
func (p Policy) Test(examples []Example) (failed []Failure, err error) {
	for _, e := range examples {
		alone := Policy{Rules: map[Rule]Effects{}}
		for _, c := range p.Conditions {
			if c.ID == e.Condition {
				alone.Conditions = []Condition{c}
			}
		}
		if alone.Conditions == nil {
			return nil, fmt.Errorf("the policy has no condition %s", e.Condition)
		}
		alone.Rules[Rule(e.Finding.Rule)] = everywhere(events.Pass)
		judge, err := alone.Judge()
		if err != nil {
			return nil, err
		}
		f := e.Finding
		if e.IsNew {
			f.NewIn = []events.Slug{e.In.Name}
		}
		got := judge.Evaluate([]events.Finding{f}, []Environment{e.In}, e.Run)[0]
		if got.Verdict != e.Want {
			failed = append(failed, Failure{e, got.Verdict})
		}
	}
	return failed, nil
}

// Failure is an example of which a condition makes something else than it should.
type Failure struct {
	Example Example
	Got     events.Verdict
}

// errNoCondition is wrapped where a policy's text, which was checked when it was published, has a condition that this
// build of Towpath cannot read.
var errNoCondition = errors.New("the policy has a condition that cannot be applied")
