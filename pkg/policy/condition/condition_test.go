package condition

import (
	"errors"
	"strings"
	"testing"
)

var words = Words{
	Rules:      []string{"base-unknown", "licence-denied", "user-root"},
	Classes:    []string{"base", "image", "licence"},
	Severities: []string{"low", "medium", "high", "critical"},
}

func compiler(t testing.TB) *Compiler {
	t.Helper()
	c, err := NewCompiler(words)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestHolds(t *testing.T) {
	c := compiler(t)
	values := Values{
		Finding:     Finding{Rule: "user-root", Class: "image", Severity: "medium", Path: "/usr/bin/x", Line: 7, IsNew: true},
		Environment: Environment{Name: "prod"},
		Run:         Run{App: "hello"},
	}
	for expression, want := range map[string]bool{
		`finding.isNew && !environment.first`:                  true,
		`finding.rule in ["base-unknown", "user-root"]`:        true,
		`finding.severity in ["high", "critical"]`:             false,
		`finding.path.startsWith("/usr/") && finding.line > 6`: true,
		`environment.name == "prod" && run.app != "hello"`:     false,
		`run.elsewhere`: false,
		`["a", "b"].exists(x, x == finding.package)`:               false,
		"finding.class == \"image\" &&\n  finding.licence == \"\"": true,
	} {
		condition, err := c.Compile(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		if got, err := condition.Holds(values); err != nil || got != want {
			t.Errorf("%s: %v, %v", expression, got, err)
		}
	}
}

func TestFaultsSayWhere(t *testing.T) {
	c := compiler(t)
	for expression, want := range map[string]string{
		`finding.sevrity == "high"`:                        "1:8: there is no field sevrity",
		"finding.isNew &&\n  findng.isNew":                 "2:3: there is no findng",
		`finding.rule == "user-rot"`:                       `1:17: no finding has the rule "user-rot"`,
		`"licenses" == finding.class`:                      `1:1: no finding has the class "licenses"`,
		`!(finding.severity in ["high", "grave"])`:         `1:32: no finding has the severity "grave"`,
		`finding.line`:                                     "1:1: must be true or false, and is a int",
		`finding.isNew &&`:                                 "1:17: Syntax error",
		`finding.line == "7"`:                              "1:14: found no matching overload",
		``:                                                 "1:1: Syntax error",
		"true || " + strings.Repeat("(", 100):              "1:",
		`finding.path == "` + strings.Repeat("x", MaxSize): "1:",
	} {
		_, err := c.Compile(expression)
		var faults Faults
		if !errors.As(err, &faults) || len(faults) == 0 || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.60s: %v, want %s", expression, err, want)
		}
	}
}

// A condition that would never end, or has no value, is an error: whoever judges by it fails closed.
func TestEvaluationIsBounded(t *testing.T) {
	c := compiler(t)
	ten := "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"
	expression := "true"
	for _, x := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		expression = ten + ".all(" + x + ", " + expression + ")"
	}
	for _, text := range []string{expression, `1 / finding.line == 1`, `finding.path.matches(finding.package)`} {
		condition, err := c.Compile(text)
		if err != nil {
			t.Errorf("%.40s: %v", text, err)
			continue
		}
		if holds, err := condition.Holds(Values{Finding: Finding{Package: "("}}); !errors.Is(err, ErrEvaluation) || holds {
			t.Errorf("%.40s: %v, %v", text, holds, err)
		}
	}
}

// FuzzCompile: no text makes the compiler panic, and every fault says where.
func FuzzCompile(f *testing.F) {
	f.Add(`finding.rule == "user-root" && environment.first`)
	f.Add(`[finding].exists(f, f.isNew)`)
	f.Add("\"\"\"\n")
	c := compiler(f)
	f.Fuzz(func(t *testing.T, expression string) {
		condition, err := c.Compile(expression)
		var faults Faults
		if err != nil && (!errors.As(err, &faults) || len(faults) == 0) {
			t.Fatalf("%T: %v", err, err)
		}
		for _, fault := range faults {
			if fault.Line < 1 || fault.Column < 1 || fault.Problem == "" {
				t.Fatalf("%+v", fault)
			}
		}
		if condition != nil {
			condition.Holds(Values{})
		}
	})
}
