// Package condition evaluates the conditions of platform policies: expressions in CEL (the Common Expression
// Language, https://cel.dev) over a finding, the environment that it is judged for, and the run.
//
// It guarantees that a Condition which came out of Compile is true or false, names only fields that there are and, where it
// compares one of a finding's words with a text, only words that there can be; that holding costs bounded time; and
// that the same values give the same answer. It has no clock, no IO and no functions but CEL's own.
package condition

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
)

// Finding is one thing that vetting found, as a condition sees it.
type Finding struct {
	Rule     string `cel:"rule"`     // "user-root", "licence-denied"
	Class    string `cel:"class"`    // what kind of thing: "image", "licence"
	Severity string `cel:"severity"` // low, medium, high, critical
	Package  string `cel:"package"`  // empty where it is about none
	Version  string `cel:"version"`
	Licence  string `cel:"licence"` // SPDX expression
	Subject  string `cel:"subject"` // what it is about where that is no package: a variable, a port
	Path     string `cel:"path"`    // of a file, in the image or in the source
	Line     int    `cel:"line"`    // in the file; 0: none
	Layer    string `cel:"layer"`   // DiffID
	// IsNew says that what runs in the environment does not have it. Where nothing of the app runs there, all is new.
	IsNew bool `cel:"isNew"`
}

// Environment is where the image would run.
type Environment struct {
	Name string `cel:"name"`
	// First says that nothing of the app runs there.
	First bool `cel:"first"`
}

// Run is what the image came by.
type Run struct {
	App string `cel:"app"`
	// Elsewhere says that another CI built the image.
	Elsewhere bool `cel:"elsewhere"`
}

// Values are what a condition is about.
type Values struct {
	Finding     Finding
	Environment Environment
	Run         Run
}

// Words are those that a finding's fields can have.
type Words struct{ Rules, Classes, Severities []string }

// of returns the words of a field of the finding; nil: it is free.
func (w Words) of(field string) []string {
	switch field {
	case "rule":
		return w.Rules
	case "class":
		return w.Classes
	case "severity":
		return w.Severities
	}
	return nil
}

// Bounds of a condition.
const (
	// MaxSize is the most that an expression may have, in bytes.
	MaxSize = 4 << 10
	// maxCost bounds one evaluation, in CEL's units (about one for each step): a few milliseconds.
	maxCost = 100_000
	// maxNesting bounds the nesting of an expression.
	maxNesting = 50
)

// Fault is one thing that is wrong with an expression.
type Fault struct {
	Line, Column int // from 1, in the expression
	Problem      string
	Got          string   // the word that is wrong; may be empty
	Allowed      []string // the words that there are; may be empty
}

// Faults are everything that is wrong with an expression. It is never empty.
type Faults []Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, one := range f {
		lines[i] = fmt.Sprintf("%d:%d: %s", one.Line, one.Column, one.Problem)
	}
	return strings.Join(lines, "\n")
}

// Compiler compiles conditions. It is safe for concurrent use.
type Compiler struct {
	env   *cel.Env
	words Words
}

// NewCompiler returns a compiler for findings with these words. It costs about half a millisecond.
func NewCompiler(words Words) (*Compiler, error) {
	env, err := cel.NewEnv(
		ext.NativeTypes(reflect.TypeFor[Finding](), reflect.TypeFor[Environment](), reflect.TypeFor[Run](), ext.ParseStructTags(true)),
		cel.Variable("finding", cel.ObjectType("condition.Finding")),
		cel.Variable("environment", cel.ObjectType("condition.Environment")),
		cel.Variable("run", cel.ObjectType("condition.Run")),
		cel.ParserExpressionSizeLimit(MaxSize), cel.ParserRecursionLimit(maxNesting),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing CEL: %w", err)
	}
	return &Compiler{env, words}, nil
}

// Condition is a compiled expression. It is safe for concurrent use.
type Condition struct{ program cel.Program }

// Compile checks an expression. The error is Faults.
func (c *Compiler) Compile(expression string) (*Condition, error) {
	checked, issues := c.env.Compile(expression)
	if issues.Err() != nil {
		return nil, faults(issues)
	}
	if checked.OutputType() != cel.BoolType {
		return nil, Faults{{Line: 1, Column: 1, Problem: fmt.Sprintf("must be true or false, and is a %s", checked.OutputType())}}
	}
	if unknown := c.unknownWords(checked); len(unknown) > 0 {
		return nil, unknown
	}
	program, err := c.env.Program(checked, cel.CostLimit(maxCost))
	if err != nil {
		return nil, Faults{{Line: 1, Column: 1, Problem: err.Error()}}
	}
	return &Condition{program}, nil
}

func faults(issues *cel.Issues) Faults {
	var all Faults
	for _, e := range issues.Errors() {
		f := Fault{Line: max(e.Location.Line(), 1), Column: max(e.Location.Column(), 0) + 1, Problem: e.Message}
		if name, ok := quoted(e.Message, "undefined field '"); ok {
			f.Got, f.Allowed = name, fieldNames
			f.Problem = "there is no field " + name
		} else if name, ok := quoted(e.Message, "undeclared reference to '"); ok {
			f.Got, f.Allowed = name, []string{"environment", "finding", "run"}
			f.Problem = "there is no " + name
		}
		all = append(all, f)
	}
	return all
}

// fieldNames are those of all that a condition can name.
var fieldNames = func() []string {
	var names []string
	for _, t := range []reflect.Type{reflect.TypeFor[Finding](), reflect.TypeFor[Environment](), reflect.TypeFor[Run]()} {
		for i := range t.NumField() {
			names = append(names, t.Field(i).Tag.Get("cel"))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}()

// quoted returns what follows beginning up to the next apostrophe.
func quoted(text, beginning string) (string, bool) {
	rest, ok := strings.CutPrefix(text, beginning)
	name, _, closed := strings.Cut(rest, "'")
	return name, ok && closed
}

// unknownWords finds comparisons that can never be true: `finding.rule == "user-rot"`, `finding.class in ["licenses"]`.
func (c *Compiler) unknownWords(checked *cel.Ast) Faults {
	var all Faults
	tree := checked.NativeRep()
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind || !slices.Contains([]string{operators.Equals, operators.NotEquals, operators.In}, e.AsCall().FunctionName()) {
			return
		}
		for i, side := range e.AsCall().Args() {
			if side.Kind() != ast.SelectKind || side.AsSelect().Operand().Kind() != ast.IdentKind || side.AsSelect().Operand().AsIdent() != "finding" {
				continue
			}
			field := side.AsSelect().FieldName()
			words := c.words.of(field)
			if words == nil {
				continue
			}
			for _, literal := range literals(e.AsCall().Args()[1-i]) {
				text := literal.AsLiteral().Value().(string)
				if slices.Contains(words, text) {
					continue
				}
				at := tree.SourceInfo().GetStartLocation(literal.ID())
				all = append(all, Fault{
					Line: max(at.Line(), 1), Column: max(at.Column(), 0) + 1, Problem: fmt.Sprintf("no finding has the %s %q", field, text), Got: text, Allowed: words,
				})
			}
		}
	}))
	return all
}

// literals are the texts of an expression that is one, or a list of them.
func literals(e ast.Expr) []ast.Expr {
	switch {
	case e.Kind() == ast.ListKind:
		var all []ast.Expr
		for _, one := range e.AsList().Elements() {
			all = append(all, literals(one)...)
		}
		return all
	case e.Kind() == ast.LiteralKind && e.AsLiteral().Type() == types.StringType:
		return []ast.Expr{e}
	}
	return nil
}

// ErrEvaluation is wrapped where an expression has no value for what it is applied to, such as a division by zero, or
// would take too long.
var ErrEvaluation = errors.New("the condition cannot be evaluated")

// Holds evaluates the condition. The error wraps ErrEvaluation.
func (c *Condition) Holds(v Values) (bool, error) {
	value, _, err := c.program.Eval(map[string]any{"finding": v.Finding, "environment": v.Environment, "run": v.Run})
	if err != nil {
		return false, fmt.Errorf("%w: %v", ErrEvaluation, err)
	}
	return value == types.True, nil
}
