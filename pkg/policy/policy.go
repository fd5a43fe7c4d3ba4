package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"towpath.dev/events"
)

// Policy is the organisation's rules. Runs pin it by Digest, and every worker judges by the pinned text
// from the ledger, whatever its own platform file says by then.
//
// A field that is added later must be left out of the JSON at its zero value, and its zero must mean
// what was done before the field existed: old texts are read for ever.
type Policy struct {
	Bases     []Base                   `json:"bases"`     // in the order of the file
	Licences  Licences                 `json:"licences"`  //
	Rules     map[Rule]Effects         `json:"rules"`     // has every Rule
	Approvals map[events.Slug]Approval `json:"approvals"` // has DefaultEnvironment
	Deadlines Deadlines                `json:"deadlines"` //
	// SkipVerify names the environments whose checks are not run. Health is always waited for.
	SkipVerify []events.Slug `json:"skipVerify,omitempty"` // sorted
	// Conditions make findings count for more in what the table of rules does not tell apart, sorted by id.
	Conditions []Condition `json:"conditions,omitempty"`
	// MaySkip names the environments where an operator may let one run pass without its checks.
	MaySkip []events.Slug `json:"maySkip,omitempty"` // sorted
}

// Base is an image that others may be built on, known by its layers, whatever a Dockerfile calls it.
type Base struct {
	Name    string   `json:"name"`    // for people: "debian:bookworm-slim"
	DiffIDs []string `json:"diffIDs"` // sha256:<hex> of the unpacked layers, the lowest first; never empty
}

// Effects says what a finding does to the verdict, for each environment. It always has
// DefaultEnvironment.
type Effects map[events.Slug]events.Verdict

// in returns what counts in an environment.
func (e Effects) in(env events.Slug) events.Verdict {
	if v, ok := e[env]; ok {
		return v
	}
	return e[DefaultEnvironment]
}

func (e Effects) check() error {
	if _, ok := e[DefaultEnvironment]; !ok {
		return errors.New("it has no default")
	}
	for env, verdict := range e {
		if rank(verdict) > rank(events.Fail) {
			return fmt.Errorf("%.60q in %.60q is no verdict", verdict, env)
		}
	}
	return nil
}

// Deadlines says how long an attempt at each stage may take before it is stuck.
type Deadlines struct {
	Build   time.Duration
	Vet     time.Duration
	Promote time.Duration
	Verify  time.Duration
}

type wireDeadlines struct {
	Build   string `json:"build"`
	Vet     string `json:"vet"`
	Promote string `json:"promote"`
	Verify  string `json:"verify"`
}

// MarshalJSON writes each deadline as Go writes a duration: "30m0s".
func (d Deadlines) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireDeadlines{d.Build.String(), d.Vet.String(), d.Promote.String(), d.Verify.String()})
}

// UnmarshalJSON reads what MarshalJSON writes. A deadline that is not above zero is an error.
func (d *Deadlines) UnmarshalJSON(data []byte) error {
	var w wireDeadlines
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	for _, f := range []struct {
		text string
		to   *time.Duration
	}{{w.Build, &d.Build}, {w.Vet, &d.Vet}, {w.Promote, &d.Promote}, {w.Verify, &d.Verify}} {
		value, err := time.ParseDuration(f.text)
		if err != nil || value <= 0 {
			return fmt.Errorf("deadline %.40q is not a duration above zero", f.text)
		}
		*f.to = value
	}
	return nil
}

// Deadline returns how long an attempt at a stage (build, vet, promote, verify) may take; 0 for what is
// no stage.
func (p Policy) Deadline(stage string) time.Duration {
	switch stage {
	case "build":
		return p.Deadlines.Build
	case "vet":
		return p.Deadlines.Vet
	case "promote":
		return p.Deadlines.Promote
	case "verify":
		return p.Deadlines.Verify
	}
	return 0
}

// Verifies reports whether an environment's checks are run.
func (p Policy) Verifies(env events.Slug) bool { return !slices.Contains(p.SkipVerify, env) }

// MaySkipVerify reports whether an operator may skip a run's verification in an environment.
func (p Policy) MaySkipVerify(env events.Slug) bool { return slices.Contains(p.MaySkip, env) }

// Text returns the canonical JSON: keys in a fixed order, maps sorted, no spaces, and <, > and & escaped,
// so that the bytes, and with them the digest, survive being embedded in an event.
func (p Policy) Text() []byte {
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // every field is a string, a number or a container of those
	}
	return text
}

// Digest returns "sha256:" and the hexadecimal hash of Text.
func (p Policy) Digest() string {
	sum := sha256.Sum256(p.Text())
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ErrText is wrapped by ParseText for what is no canonical policy text.
var ErrText = errors.New("not a canonical policy text")

// ParseText reads what Text wrote, of this or an earlier version of Towpath. Whoever read the text from
// the ledger compares its hash with the digest; ParseText checks that nothing in it is unknown, which
// would be a rule that is not applied.
func ParseText(text []byte) (Policy, error) {
	var p Policy
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return Policy{}, fmt.Errorf("%w: %v", ErrText, err)
	}
	if _, err := d.Token(); err == nil {
		return Policy{}, fmt.Errorf("%w: something follows the JSON object", ErrText)
	}
	if err := p.check(); err != nil {
		return Policy{}, fmt.Errorf("%w: %v", ErrText, err)
	}
	return p, nil
}

// check holds what judging relies on.
func (p Policy) check() error {
	for rule, effects := range p.Rules {
		if err := effects.check(); err != nil {
			return fmt.Errorf("rule %.60q: %w", rule, err)
		}
	}
	for _, c := range p.Conditions {
		if err := c.check(); err != nil {
			return err
		}
	}
	if _, ok := p.Approvals[DefaultEnvironment]; !ok {
		return errors.New("approvals have no default")
	}
	for env, a := range p.Approvals {
		if a.Count < 0 {
			return fmt.Errorf("approvals of %.60q: count %d is below zero", env, a.Count)
		}
	}
	for _, b := range p.Bases {
		if len(b.DiffIDs) == 0 {
			return fmt.Errorf("base %.60q has no layers", b.Name)
		}
	}
	if p.Deadlines == (Deadlines{}) {
		return errors.New("deadlines are missing")
	}
	return nil
}

// defaultPolicy is the policy part of Default.
func defaultPolicy() Policy {
	p := Policy{
		Bases: []Base{},
		Licences: Licences{
			Deny:   []string{"AGPL-*", "BUSL-*", "CC-BY-NC-*", "Elastic-2.0", "SSPL-*"},
			Review: []string{},
			Allow:  []string{"LicenseRef-public-domain"},
			Others: Allow,
		},
		Rules: map[Rule]Effects{},
		Approvals: map[events.Slug]Approval{
			DefaultEnvironment: {},
			"prod":             {Count: 1, AuthorMayApprove: true},
		},
		Deadlines: Deadlines{Build: 30 * time.Minute, Vet: 10 * time.Minute, Promote: 10 * time.Minute, Verify: 10 * time.Minute},
	}
	for _, r := range Rules {
		p.Rules[r.Rule] = r.defaults()
	}
	p.Conditions = defaultConditions()
	return p
}
