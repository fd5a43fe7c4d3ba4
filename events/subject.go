package events

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Slug is one token of a NATS subject, a container name and a host name at once:
// 1 to 63 characters of a–z, 0–9 and '-', neither first nor last a hyphen (RFC 1123 label).
// The empty Slug means "does not apply" and is written '_'.
type Slug string

// ErrSlug is wrapped by ParseSlug for a text that is no slug.
var ErrSlug = errors.New("not a slug: 1–63 of a–z, 0–9 and '-', not at either end")

// ParseSlug returns s as a Slug, or an error that wraps ErrSlug.
func ParseSlug(s string) (Slug, error) {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return "", fmt.Errorf("%.70q: %w", s, ErrSlug)
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return "", fmt.Errorf("%.70q: %w", s, ErrSlug)
		}
	}
	return Slug(s), nil
}

// Writer is the service that wrote an event. It is a token of the subject, and the account and the
// signing key's role must be the same.
type Writer string

// The writers. Edge, Notify and Operator hold identities but write no event.
const (
	Gateway  Writer = "gateway"
	Build    Writer = "build"
	Vet      Writer = "vet"
	Promote  Writer = "promote"
	Verify   Writer = "verify"
	Watch    Writer = "watch"
	Ledger   Writer = "ledger"
	Edge     Writer = "edge"
	Notify   Writer = "notify"
	Operator Writer = "operator"
)

// Writers are the identities that may write events, in a fixed order.
var Writers = []Writer{Gateway, Build, Vet, Promote, Verify, Watch, Ledger}

// Subject is where one event is stored, once and for ever:
//
//	event.<epoch>.<writer>.<app>.<run>.<env>.<subject>.<predicate>.<key>.<attempt>
//
// App, Env and Key may be empty, Run and Attempt zero: those tokens are '_'.
type Subject struct {
	Epoch     int // 1 and up
	Writer    Writer
	App       Slug
	Run       int // the run's number, 1 and up
	Env       Slug
	Subject   string // the CDEvents subject, lower case: "build", "testsuiterun"
	Predicate string // the CDEvents predicate: "started"
	Key       Slug   // tells apart what one attempt has many of
	Attempt   int    // 1 and up
}

// String returns the NATS subject.
func (s Subject) String() string { return "event." + s.tokens(true) }

// AppendSubject returns the subject of the request that asks the door to store an event here:
// append.<writer>.<epoch>.<app>.<run>.<env>.<subject>.<predicate>.<key>.<attempt>.
func (s Subject) AppendSubject() string {
	return "append." + string(s.Writer) + "." + strconv.Itoa(s.Epoch) + "." + s.tokens(false)
}

func (s Subject) tokens(prefix bool) string {
	rest := strings.Join([]string{
		token(string(s.App)), number(s.Run), token(string(s.Env)),
		s.Subject, s.Predicate, token(string(s.Key)), number(s.Attempt),
	}, ".")
	if prefix {
		return strconv.Itoa(s.Epoch) + "." + string(s.Writer) + "." + rest
	}
	return rest
}

// ParseSubject reads what String wrote, or the subject of an append request. Anything else (wild
// cards, upper case, leading zeros, missing tokens) is an error.
func ParseSubject(text string) (Subject, error) {
	t := strings.Split(text, ".")
	if len(t) != 10 {
		return Subject{}, fmt.Errorf("subject %.120q has %d tokens, not 10", text, len(t))
	}
	switch t[0] {
	case "event":
	case "append":
		t[1], t[2] = t[2], t[1]
	default:
		return Subject{}, fmt.Errorf("subject %.120q begins with neither event nor append", text)
	}
	var s Subject
	var errs []error
	s.Epoch = parseNumber(t[1], "epoch", &errs)
	s.Writer = Writer(parseToken(t[2], "writer", &errs))
	s.App = Slug(parseToken(t[3], "app", &errs))
	s.Run = parseNumber(t[4], "run", &errs)
	s.Env = Slug(parseToken(t[5], "environment", &errs))
	s.Subject = parseToken(t[6], "subject", &errs)
	s.Predicate = parseToken(t[7], "predicate", &errs)
	s.Key = Slug(parseToken(t[8], "key", &errs))
	s.Attempt = parseNumber(t[9], "attempt", &errs)
	if s.Epoch == 0 || s.Writer == "" || s.Subject == "" || s.Predicate == "" {
		errs = append(errs, errors.New("epoch, writer, subject and predicate must be given"))
	}
	if len(errs) > 0 {
		return Subject{}, fmt.Errorf("subject %.120q: %w", text, errors.Join(errs...))
	}
	return s, nil
}

// Validate reports whether every token is one that ParseSubject accepts, and reads back as it is: a name "_"
// would be read as none.
func (s Subject) Validate() error {
	got, err := ParseSubject(s.String())
	if err == nil && got != s {
		err = fmt.Errorf("subject %.120q: a name or number in it reads as none", s.String())
	}
	return err
}

func token(s string) string {
	if s == "" {
		return "_"
	}
	return s
}

func number(n int) string {
	if n == 0 {
		return "_"
	}
	return strconv.Itoa(n)
}

func parseToken(t, name string, errs *[]error) string {
	if t == "_" {
		return ""
	}
	if _, err := ParseSlug(t); err != nil {
		*errs = append(*errs, fmt.Errorf("%s %w", name, err))
		return ""
	}
	return t
}

func parseNumber(t, name string, errs *[]error) int {
	if t == "_" {
		return 0
	}
	n, err := strconv.Atoi(t)
	if err != nil || n < 1 || n > 1<<31-1 || strconv.Itoa(n) != t {
		*errs = append(*errs, fmt.Errorf("%s %q is not a number from 1", name, t))
		return 0
	}
	return n
}
