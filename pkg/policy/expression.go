package policy

import (
	"errors"
	"fmt"
	"strings"
)

// maxNesting bounds the parentheses of an expression.
const maxNesting = 32

// expressionReader evaluates an SPDX licence expression while reading it: WITH binds closest, then AND,
// then OR.
type expressionReader struct {
	tokens []string
	judge  func(id, exception string) Disposition
}

// tokenize splits an expression into words and parentheses.
func tokenize(expression string) []string {
	spaced := strings.NewReplacer("(", " ( ", ")", " ) ").Replace(expression)
	return strings.Fields(spaced)
}

func (e *expressionReader) next() string {
	if len(e.tokens) == 0 {
		return ""
	}
	return e.tokens[0]
}

// take drops the next token where it is the operator, in upper or lower case.
func (e *expressionReader) take(operator string) bool {
	if !strings.EqualFold(e.next(), operator) {
		return false
	}
	e.tokens = e.tokens[1:]
	return true
}

// alternatives reads terms joined with OR: whoever ships the package chooses, so the mildest counts.
func (e *expressionReader) alternatives(depth int) (Disposition, error) {
	result, err := e.together(depth)
	for err == nil && e.take("OR") {
		var other Disposition
		other, err = e.together(depth)
		result = milder(result, other)
	}
	return result, err
}

// together reads terms joined with AND: all of them hold, so the strictest counts.
func (e *expressionReader) together(depth int) (Disposition, error) {
	result, err := e.term(depth)
	for err == nil && e.take("AND") {
		var other Disposition
		other, err = e.term(depth)
		result = stricter(result, other)
	}
	return result, err
}

func (e *expressionReader) term(depth int) (Disposition, error) {
	if depth > maxNesting {
		return Unknown, errors.New("parentheses are nested too deeply")
	}
	if e.take("(") {
		result, err := e.alternatives(depth + 1)
		if err == nil && !e.take(")") {
			err = errors.New("a closing parenthesis is missing")
		}
		return result, err
	}
	id, err := e.name("a licence")
	if err != nil {
		return Unknown, err
	}
	exception := ""
	if e.take("WITH") {
		if exception, err = e.name("an exception"); err != nil {
			return Unknown, err
		}
	}
	return e.judge(id, exception), nil
}

// name reads an id, which is no operator.
func (e *expressionReader) name(what string) (string, error) {
	word := e.next()
	if word == "" {
		return "", fmt.Errorf("it ends where %s is expected", what)
	}
	switch strings.ToUpper(word) {
	case "AND", "OR", "WITH", "(", ")":
		return "", fmt.Errorf("%q stands where %s is expected", word, what)
	}
	id := strings.TrimSuffix(word, "+")
	if document, reference, ok := strings.Cut(id, ":"); !isIDString(document) || ok && !isIDString(reference) {
		return "", fmt.Errorf("%.60q is no licence id", word)
	}
	e.tokens = e.tokens[1:]
	return word, nil
}

// isIDString is SPDX's idstring: letters, digits, '-' and '.'.
func isIDString(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.':
		default:
			return false
		}
	}
	return s != ""
}
