package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"towpath.dev/events"
	"towpath.dev/pkg/policy/condition"
	"towpath.dev/pkg/strictyaml"
)

// off takes away a condition of the default policy.
const off = "off"

// conditions reads the table of conditions over the default's.
func (r reader) conditions(node *yaml.Node, key string, p *Platform) {
	compiler, err := compiler()
	if err != nil {
		r.Fault(node, key, err.Error(), "", "")
		return
	}
	r.Entries(node, key, "conditions", maxConditions, func(name, value *yaml.Node, key string) {
		id := name.Value
		_, isRule := rule(Rule(id))
		if _, err := events.ParseSlug(id); err != nil || isRule {
			r.Fault(name, key, "a condition's name is 1–63 of a–z, 0–9 and '-', not at either end, and no rule's", id, "")
			return
		}
		without := slices.DeleteFunc(slices.Clone(p.Policy.Conditions), func(c Condition) bool { return c.ID == id })
		if value.Kind == yaml.ScalarNode && value.Value == off {
			if len(without) == len(p.Policy.Conditions) {
				r.Fault(name, key, "the default policy has no such condition to take away", "", strictyaml.DidYouMean(id, conditionIDs(p.Policy.Conditions)))
			}
			p.Policy.Conditions = without
			return
		}
		c, examples := r.condition(value, key, id, compiler)
		p.Policy.Conditions = append(without, c)
		p.Examples = append(p.Examples, examples...)
	})
	slices.SortFunc(p.Policy.Conditions, func(a, b Condition) int { return strings.Compare(a.ID, b.ID) })
}

func conditionIDs(all []Condition) []string {
	ids := make([]string, len(all))
	for i, c := range all {
		ids[i] = c.ID
	}
	return ids
}

func (r reader) condition(node *yaml.Node, key, id string, compiler *condition.Compiler) (Condition, []Example) {
	c := Condition{ID: id, Effects: everywhere(events.Fail)}
	var examples []Example
	given := map[string]bool{}
	seen := func(name string, read strictyaml.Field) strictyaml.Field {
		return func(n *yaml.Node, key string) { given[name] = true; read(n, key) }
	}
	r.Fields(node, key, fields{
		"when":         seen("when", func(n *yaml.Node, key string) { c.When = r.expression(n, key, compiler) }),
		"severity":     seen("severity", func(n *yaml.Node, key string) { c.Severity = r.OneOf(n, key, Severities...) }),
		"message":      seen("message", func(n *yaml.Node, key string) { c.Message, _ = r.Text(n, key, maxMessage) }),
		"environments": seen("environments", func(n *yaml.Node, key string) { c.Effects = r.effects(n, key) }),
		"examples": seen("examples", func(n *yaml.Node, key string) {
			r.Items(n, key, "examples", 1, maxExamples, func(n *yaml.Node, key string) { examples = append(examples, r.example(n, key, id)) })
		}),
	})
	if node.Kind != yaml.MappingNode {
		return c, nil
	}
	for _, name := range []string{"when", "severity", "message", "environments", "examples"} {
		if !given[name] {
			r.Fault(node, key, name+" must be given", "", "")
		}
	}
	about := func(e Example) bool { return e.Want != events.Pass }
	if given["examples"] && (!slices.ContainsFunc(examples, about) || slices.IndexFunc(examples, func(e Example) bool { return !about(e) }) < 0) {
		r.Fault(node, key+".examples", "must show a finding that the condition is about, and one that it is not about (expect: pass)", "", "")
	}
	return c, examples
}

// expression reads CEL, and says of what is wrong in it where it is.
func (r reader) expression(node *yaml.Node, key string, compiler *condition.Compiler) string {
	text, ok := r.Text(node, key, condition.MaxSize)
	if !ok {
		return ""
	}
	_, err := compiler.Compile(text)
	var faults condition.Faults
	if errors.As(err, &faults) {
		for _, f := range faults {
			hint := strictyaml.DidYouMean(f.Got, f.Allowed)
			if hint == "" && len(f.Allowed) > 0 {
				hint = "there are " + strings.Join(f.Allowed, ", ")
			}
			r.FaultWithin(node, key, f.Line, f.Column, f.Problem, "", hint)
		}
	}
	return text
}

// example reads one test of a condition.
func (r reader) example(node *yaml.Node, key, id string) Example {
	e := Example{Condition: id, Line: node.Line, In: Environment{Name: "prod", Against: "what runs there"}, Run: RunFacts{App: "example"}}
	expected := false
	r.Fields(node, key, fields{
		"finding": func(n *yaml.Node, key string) { e.Finding, e.IsNew = r.finding(n, key) },
		"environment": func(n *yaml.Node, key string) {
			e.In.Name = r.slug(n, key)
		},
		"first": func(n *yaml.Node, key string) {
			if r.Bool(n, key) {
				e.In.Against = ""
			}
		},
		"elsewhere": func(n *yaml.Node, key string) { e.Run.Elsewhere = r.Bool(n, key) },
		"expect": func(n *yaml.Node, key string) {
			expected = true
			e.Want = events.Verdict(r.OneOf(n, key, string(events.Pass), string(events.Warn), string(events.Fail)))
		},
	})
	if node.Kind == yaml.MappingNode && (!expected || e.Finding.Rule == "") {
		r.Fault(node, key, "a finding with its rule, and what to expect, must be given", "", fmt.Sprintf("{finding: {rule: %s}, expect: fail}", BaseUnknown))
	}
	return e
}

// finding reads what an example is about; class and severity are those of its rule unless it says others.
func (r reader) finding(node *yaml.Node, key string) (f events.Finding, isNew bool) {
	text := func(to *string) strictyaml.Field {
		return func(n *yaml.Node, key string) { *to, _ = r.Text(n, key, maxText) }
	}
	var rules, classes []string
	for _, info := range Rules {
		rules = append(rules, string(info.Rule))
	}
	for _, c := range Classes {
		classes = append(classes, string(c))
	}
	r.Fields(node, key, fields{
		"rule":     func(n *yaml.Node, key string) { f.Rule = r.OneOf(n, key, rules...) },
		"class":    func(n *yaml.Node, key string) { f.Class = r.OneOf(n, key, classes...) },
		"severity": func(n *yaml.Node, key string) { f.Severity = r.OneOf(n, key, Severities...) },
		"package":  text(&f.Package), "version": text(&f.Version), "licence": text(&f.Licence), "subject": text(&f.Subject), "path": text(&f.Path), "layer": text(&f.Layer),
		"line":  func(n *yaml.Node, key string) { f.Line = r.Integer(n, key, 1, 1<<30) },
		"isNew": func(n *yaml.Node, key string) { isNew = r.Bool(n, key) },
	})
	if f.Rule != "" && f.Class == "" {
		f.Class = string(Rule(f.Rule).Class())
	}
	if f.Rule != "" && f.Severity == "" {
		f.Severity = Rule(f.Rule).Severity()
	}
	return f, isNew
}
