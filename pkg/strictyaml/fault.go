package strictyaml

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong in a file.
type Fault struct {
	File    string // as given to Open
	Line    int    // from 1
	Column  int    // from 1; 0: the fault is the line's
	Key     string // dotted path such as "environments[1].name"; empty when it is about the whole file
	Problem string // what is wrong, and what is allowed
	Got     string // the value found, shortened; empty where there is none
	Hint    string // what to do, such as "did you mean port?"; may be empty
}

// Error is one line: file:line: key: problem (got "value"); hint. Where there is a column, it is file:line:column:.
func (f Fault) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:", f.File, f.Line)
	if f.Column > 0 {
		fmt.Fprintf(&b, "%d:", f.Column)
	}
	b.WriteString(" ")
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	b.WriteString(f.Problem)
	if f.Got != "" {
		fmt.Fprintf(&b, " (got %q)", f.Got)
	}
	if f.Hint != "" {
		b.WriteString("; " + f.Hint)
	}
	return b.String()
}

// Faults is everything that is wrong in a file, in the order of its lines. It is never empty.
type Faults struct{ List []Fault }

// Error is one fault on each line.
func (f *Faults) Error() string {
	lines := make([]string, len(f.List))
	for i, fault := range f.List {
		lines[i] = fault.Error()
	}
	return strings.Join(lines, "\n")
}

// Err returns a *Faults with all faults recorded so far, or nil where there are none.
func (r *Reader) Err() error {
	if len(r.faults) == 0 {
		return nil
	}
	sorted := slices.Clone(r.faults)
	slices.SortStableFunc(sorted, func(a, b Fault) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
	return &Faults{sorted}
}

// maxFaults is how many faults a Reader records. Whoever has more learns more by mending these first.
const maxFaults = 100

// Shorten keeps a value that is shown in a fault to one readable length.
func Shorten(value string) string {
	const longest = 60
	runes := []rune(value)
	if len(runes) <= longest {
		return value
	}
	return string(runes[:longest]) + "…"
}

// DidYouMean is a hint that names the allowed word which a mistyped one most likely meant; empty where
// none is near.
func DidYouMean(word string, allowed []string) string {
	best, bestDistance := "", 3
	if len(word) < 4 {
		bestDistance = 2
	}
	for _, candidate := range allowed {
		if difference := len(word) - len(candidate); difference >= bestDistance || -difference >= bestDistance {
			continue
		}
		if distance := editDistance(strings.ToLower(word), strings.ToLower(candidate)); distance < bestDistance {
			best, bestDistance = candidate, distance
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + best + "?"
}

// editDistance counts insertions, deletions, substitutions and swaps of neighbours.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	before, previous, current := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		current[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			current[j] = min(previous[j]+1, current[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				current[j] = min(current[j], before[j-2]+1)
			}
		}
		before, previous, current = previous, current, before
	}
	return previous[len(b)]
}
