package strictyaml

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Fault records what is wrong with node, which key names.
func (r *Reader) Fault(node *yaml.Node, key, problem, got, hint string) {
	if len(r.faults) >= maxFaults {
		if len(r.faults) == maxFaults {
			r.faults = append(r.faults, Fault{File: r.file, Line: max(node.Line, 1), Problem: "there is more wrong; mend the above first"})
		}
		return
	}
	r.faults = append(r.faults, Fault{
		File: r.file, Line: max(node.Line, 1), Key: key, Problem: problem, Got: Shorten(got), Hint: hint,
	})
}

// FaultWithin records what is wrong at a place in the text of a scalar, given from 1: with the line and column of the
// file where the text stands there as it is read, else with those of the text.
func (r *Reader) FaultWithin(node *yaml.Node, key string, line, column int, problem, got, hint string) {
	before := len(r.faults)
	inFile, at := r.place(node, line, column)
	if at == 0 {
		problem += fmt.Sprintf(" (line %d, column %d of the text)", line, column)
	}
	r.Fault(&yaml.Node{Line: inFile}, key, problem, got, hint)
	if len(r.faults) > before {
		r.faults[before].Column = at
	}
}

// place is where a place in a scalar's text is in the file; column 0: the text is written in another way there.
func (r *Reader) place(node *yaml.Node, line, column int) (int, int) {
	lines := strings.Split(string(r.data), "\n")
	texts := strings.Split(node.Value, "\n")
	if line > len(texts) {
		return node.Line, 0
	}
	inFile, from := node.Line, node.Column-1
	switch {
	case node.Style&yaml.LiteralStyle != 0:
		inFile += line
		if inFile > len(lines) {
			return node.Line, 0
		}
		from = strings.Index(lines[inFile-1], texts[line-1])
	case node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		from++
	}
	if inFile > len(lines) || line > 1 && inFile == node.Line || from < 0 {
		return node.Line, 0
	}
	// Columns are of characters, not of bytes.
	written := []rune(lines[inFile-1])
	if from > len(written) || !strings.HasPrefix(string(written[from:]), texts[line-1]) {
		return node.Line, 0
	}
	return inFile, from + column
}

// Field reads the value of one key. key is the dotted path of it.
type Field func(node *yaml.Node, key string)

// Fields calls the function of each key in a mapping, in the order of the file. Unknown and repeated
// keys are faults.
func (r *Reader) Fields(node *yaml.Node, key string, known map[string]Field) {
	allowed := make([]string, 0, len(known))
	for name := range known {
		allowed = append(allowed, name)
	}
	slices.Sort(allowed)
	list := strings.Join(allowed, ", ")
	if node.Kind != yaml.MappingNode {
		r.Fault(node, key, "must be a mapping with the keys "+list, Describe(node), "")
		return
	}
	r.eachKey(node, key, "one of "+list, func(name, value *yaml.Node, full string) {
		if read, ok := known[name.Value]; ok {
			read(value, full)
			return
		}
		r.Fault(name, full, "unknown key; allowed: "+list, "", DidYouMean(name.Value, allowed))
	})
}

// Entries calls read for each key of a mapping whose keys are free, in the order of the file. Repeated
// keys and more than most of them are faults. what says what a key is: "environments".
func (r *Reader) Entries(node *yaml.Node, key, what string, most int, read func(name, value *yaml.Node, key string)) {
	if node.Kind != yaml.MappingNode {
		r.Fault(node, key, "must be a mapping of "+what, Describe(node), "")
		return
	}
	if n := len(node.Content) / 2; n > most {
		r.Fault(node, key, fmt.Sprintf("must have at most %d %s", most, what), fmt.Sprintf("%d of them", n), "")
		return
	}
	r.eachKey(node, key, "a name", read)
}

func (r *Reader) eachKey(node *yaml.Node, key, allowed string, read func(name, value *yaml.Node, key string)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		full := Shorten(name.Value)
		if key != "" {
			full = key + "." + full
		}
		switch {
		case name.Kind != yaml.ScalarNode || name.Tag == "!!null" || name.Tag == "!!merge":
			r.Fault(name, key, "a key must be a plain word, "+allowed, Describe(name), "")
		case seen[name.Value] > 0:
			r.Fault(name, full, fmt.Sprintf("given twice, first on line %d", seen[name.Value]), "", "keep one of them")
		default:
			read(name, value, full)
		}
		seen[name.Value] = max(name.Line, 1)
	}
}

// Text reads a scalar of at most longest bytes as it is written, so that 1.20 stays "1.20".
func (r *Reader) Text(node *yaml.Node, key string, longest int) (string, bool) {
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" || node.Tag == "!!binary" {
		r.Fault(node, key, "must be a text", Describe(node), "")
		return "", false
	}
	if len(node.Value) > longest {
		r.Fault(node, key, fmt.Sprintf("must be at most %d bytes", longest), node.Value, "")
		return "", false
	}
	if strings.ContainsFunc(node.Value, Unwritable) {
		r.Fault(node, key, "must not hold control characters", node.Value, "")
		return "", false
	}
	return node.Value, true
}

// Matching reads a text that has to satisfy a rule, which is worded as what is allowed; "" where it does
// not.
func (r *Reader) Matching(node *yaml.Node, key string, longest int, allowed string, rule func(string) bool) string {
	value, ok := r.Text(node, key, longest)
	if ok && !rule(value) {
		r.Fault(node, key, "must be "+allowed, value, "")
		return ""
	}
	return value
}

// Bool reads true or false.
func (r *Reader) Bool(node *yaml.Node, key string) bool {
	if node.Kind != yaml.ScalarNode || node.Tag != "!!bool" {
		r.Fault(node, key, "must be true or false", Describe(node), "")
		return false
	}
	return strings.EqualFold(node.Value, "true")
}

// Integer reads a whole number within bounds.
func (r *Reader) Integer(node *yaml.Node, key string, low, high int) int {
	allowed := fmt.Sprintf("must be a whole number, %d–%d", low, high)
	if node.Kind != yaml.ScalarNode || node.Tag != "!!int" {
		r.Fault(node, key, allowed, Describe(node), "")
		return low
	}
	value, err := strconv.Atoi(node.Value)
	if err != nil || value < low || value > high {
		r.Fault(node, key, allowed, node.Value, "")
		return low
	}
	return value
}

// Decimal reads a number such as 2 or 0.5 within bounds.
func (r *Reader) Decimal(node *yaml.Node, key string, low, high float64) float64 {
	allowed := fmt.Sprintf("must be a number such as 1.5, %g–%g", low, high)
	if node.Kind != yaml.ScalarNode || node.Tag != "!!int" && node.Tag != "!!float" {
		r.Fault(node, key, allowed, Describe(node), "")
		return low
	}
	value, err := strconv.ParseFloat(node.Value, 64)
	if err != nil || math.IsNaN(value) || value < low || value > high {
		r.Fault(node, key, allowed, node.Value, "")
		return low
	}
	return value
}

// Duration reads a Go duration within bounds.
func (r *Reader) Duration(node *yaml.Node, key string, low, high time.Duration) time.Duration {
	allowed := fmt.Sprintf("must be a duration such as 30s or 1m30s, %s–%s", low, high)
	if node.Kind != yaml.ScalarNode {
		r.Fault(node, key, allowed, Describe(node), "")
		return low
	}
	value, err := time.ParseDuration(node.Value)
	if err != nil || value < low || value > high {
		hint := ""
		if _, numeric := strconv.ParseFloat(node.Value, 64); numeric == nil {
			hint = "give a unit: did you mean " + Shorten(node.Value) + "s?"
		}
		r.Fault(node, key, allowed, node.Value, hint)
		return low
	}
	return value
}

// sizeUnits are the units of Size, the largest first.
var sizeUnits = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// Size reads a number of bytes with a unit, such as 512MiB, within bounds.
func (r *Reader) Size(node *yaml.Node, key string, low, high int64) int64 {
	allowed := fmt.Sprintf("must be a size such as 512MiB (KiB, MiB, GiB or TiB), %s–%s", FormatSize(low), FormatSize(high))
	if node.Kind != yaml.ScalarNode {
		r.Fault(node, key, allowed, Describe(node), "")
		return low
	}
	for _, unit := range sizeUnits {
		digits, ok := strings.CutSuffix(node.Value, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err == nil && n >= 0 && n <= high/unit.bytes && n*unit.bytes >= low {
			return n * unit.bytes
		}
	}
	r.Fault(node, key, allowed, node.Value, "")
	return low
}

// FormatSize writes bytes in the largest unit of which it is a whole number: "512MiB".
func FormatSize(bytes int64) string {
	for _, unit := range sizeUnits {
		if bytes >= unit.bytes && bytes%unit.bytes == 0 {
			return strconv.FormatInt(bytes/unit.bytes, 10) + unit.name
		}
	}
	return strconv.FormatInt(bytes, 10) + " bytes"
}

// OneOf reads one of a few words; the first of them where it is another.
func (r *Reader) OneOf(node *yaml.Node, key string, allowed ...string) string {
	const longest = 1 << 10
	value, ok := r.Text(node, key, longest)
	if !ok {
		return allowed[0]
	}
	if !slices.Contains(allowed, value) {
		r.Fault(node, key, "must be one of "+strings.Join(allowed, ", "), value, DidYouMean(value, allowed))
		return allowed[0]
	}
	return value
}

// Items calls read for each entry of a sequence that holds low to high of them. what says what they are.
func (r *Reader) Items(node *yaml.Node, key, what string, low, high int, read Field) {
	if node.Kind != yaml.SequenceNode {
		r.Fault(node, key, "must be a list of "+what, Describe(node), "")
		return
	}
	if n := len(node.Content); n < low || n > high {
		r.Fault(node, key, fmt.Sprintf("must be a list of %d–%d %s", low, high, what), fmt.Sprintf("%d of them", n), "")
		return
	}
	for i, item := range node.Content {
		read(item, fmt.Sprintf("%s[%d]", key, i))
	}
}

// Describe says what a node is, for the "got" of a Fault.
func Describe(node *yaml.Node) string {
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

// Unwritable tells characters that no YAML or JSON text of ours may hold.
func Unwritable(c rune) bool {
	switch {
	case c == '\n' || c == '\t':
		return false
	case c < 0x20, c >= 0x7f && c < 0xa0, c >= 0xfff0 && c <= 0xffff, c == 0xfeff, c == 0x2028, c == 0x2029:
		return true
	}
	return false
}
