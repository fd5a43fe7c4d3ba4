package pipeline

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// reader turns YAML nodes into values and collects every fault on the way. Its methods return the value's zero
// when they have recorded a fault; what was not given keeps its default because no method is called for it.
type reader struct {
	file   string
	faults []Fault
}

func (r *reader) fault(node *yaml.Node, key, problem, got, hint string) {
	r.faults = append(r.faults, Fault{File: r.file, Line: max(node.Line, 1), Key: key, Problem: problem, Got: shorten(got), Hint: hint})
}

// fields calls the function of each key in a mapping. Unknown and repeated keys are faults.
func (r *reader) fields(node *yaml.Node, key string, known map[string]func(node *yaml.Node, key string)) {
	if node.Kind != yaml.MappingNode {
		r.fault(node, key, "must be a mapping with the keys "+list(known), describe(node), "")
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		full := join(key, shorten(name.Value))
		read, ok := known[name.Value]
		switch {
		case name.Kind != yaml.ScalarNode:
			r.fault(name, key, "a key must be a plain word, one of "+list(known), describe(name), "")
		case !ok:
			r.fault(name, full, "unknown key; allowed: "+list(known), "", didYouMean(name.Value, keys(known)))
		case seen[name.Value] > 0:
			r.fault(name, full, fmt.Sprintf("given twice, first on line %d", seen[name.Value]), "", "keep one of them")
		default:
			read(value, full)
		}
		seen[name.Value] = max(name.Line, 1)
	}
}

// text reads a scalar as it is written, so that 1.20 stays "1.20".
func (r *reader) text(node *yaml.Node, key string, longest int) (string, bool) {
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" || node.Tag == "!!binary" {
		r.fault(node, key, "must be a text", describe(node), "")
		return "", false
	}
	if len(node.Value) > longest {
		r.fault(node, key, fmt.Sprintf("must be at most %d bytes", longest), node.Value, "")
		return "", false
	}
	if i := strings.IndexFunc(node.Value, unwritable); i >= 0 {
		r.fault(node, key, "must not hold control characters", node.Value, "")
		return "", false
	}
	return node.Value, true
}

// matching reads a text that has to satisfy a rule, which is worded as what is allowed.
func (r *reader) matching(node *yaml.Node, key string, longest int, allowed string, rule func(string) bool) string {
	value, ok := r.text(node, key, longest)
	if ok && !rule(value) {
		r.fault(node, key, "must be "+allowed, value, "")
		return ""
	}
	return value
}

// integer reads a whole number within bounds.
func (r *reader) integer(node *yaml.Node, key string, low, high int) int {
	allowed := fmt.Sprintf("must be a whole number, %d–%d", low, high)
	if node.Kind != yaml.ScalarNode || node.Tag != "!!int" {
		r.fault(node, key, allowed, describe(node), "")
		return low
	}
	value, err := strconv.Atoi(node.Value)
	if err != nil || value < low || value > high {
		r.fault(node, key, allowed, node.Value, "")
		return low
	}
	return value
}

// duration reads a Go duration string within bounds.
func (r *reader) duration(node *yaml.Node, key string, low, high time.Duration) Duration {
	allowed := fmt.Sprintf("must be a duration such as 30s or 1m30s, %s–%s", low, high)
	if node.Kind != yaml.ScalarNode {
		r.fault(node, key, allowed, describe(node), "")
		return Duration(low)
	}
	value, err := time.ParseDuration(node.Value)
	if err != nil || value < low || value > high {
		hint := ""
		if _, numeric := strconv.ParseFloat(node.Value, 64); numeric == nil {
			hint = "give a unit: did you mean " + shorten(node.Value) + "s?"
		}
		r.fault(node, key, allowed, node.Value, hint)
		return Duration(low)
	}
	return Duration(value)
}

// oneOf reads one of a few words.
func (r *reader) oneOf(node *yaml.Node, key string, allowed ...string) string {
	value, ok := r.text(node, key, maxText)
	if ok && !slices.Contains(allowed, value) {
		r.fault(node, key, "must be one of "+strings.Join(allowed, ", "), value, didYouMean(value, allowed))
		return allowed[0]
	}
	return value
}

// items calls read for each entry of a sequence that holds low to high of them.
func (r *reader) items(node *yaml.Node, key, what string, low, high int, read func(node *yaml.Node, key string)) {
	if node.Kind != yaml.SequenceNode {
		r.fault(node, key, "must be a list of "+what, describe(node), "")
		return
	}
	if len(node.Content) < low || len(node.Content) > high {
		r.fault(node, key, fmt.Sprintf("must be a list of %d–%d %s", low, high, what), fmt.Sprintf("%d of them", len(node.Content)), "")
		return
	}
	for i, item := range node.Content {
		read(item, fmt.Sprintf("%s[%d]", key, i))
	}
}

// command reads a command and its arguments.
func (r *reader) command(node *yaml.Node, key string) []string {
	if node.Kind == yaml.ScalarNode && node.Tag == "!!str" {
		r.fault(node, key, "must be a list of a command and its arguments; no shell is involved", node.Value,
			`did you mean ["`+shorten(strings.Join(strings.Fields(node.Value), `", "`))+`"]?`)
		return nil
	}
	var command []string
	r.items(node, key, "texts (a command and its arguments)", 1, maxArguments, func(node *yaml.Node, key string) {
		argument, ok := r.text(node, key, maxArgument)
		if ok && argument == "" && len(command) == 0 {
			r.fault(node, key, "must not be empty: it is the program that runs", "", "")
		}
		command = append(command, argument)
	})
	return command
}

// describe says what a node is, for "got …".
func describe(node *yaml.Node) string {
	switch {
	case node.Kind == yaml.MappingNode:
		return "a mapping"
	case node.Kind == yaml.SequenceNode:
		return "a list"
	case node.Kind == yaml.ScalarNode && node.Tag == "!!null":
		return "nothing"
	}
	return node.Value
}

// unwritable tells characters that no YAML or JSON text of ours may hold.
func unwritable(c rune) bool {
	switch {
	case c == '\n' || c == '\t':
		return false
	case c < 0x20, c >= 0x7f && c < 0xa0, c >= 0xfff0 && c <= 0xffff, c == 0xfeff, c == 0x2028, c == 0x2029:
		return true
	}
	return false
}

func didYouMean(word string, allowed []string) string {
	if near := nearest(word, allowed); near != "" {
		return "did you mean " + near + "?"
	}
	return ""
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

func keys(known map[string]func(*yaml.Node, string)) []string {
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func list(known map[string]func(*yaml.Node, string)) string { return strings.Join(keys(known), ", ") }
