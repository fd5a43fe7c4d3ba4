package vet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/registry/provenance"
	"towpath.dev/services/vet/inventory"
)

// VerdictType is the predicate type of vet's in-toto statement: a Report.
const VerdictType = "https://towpath.dev/vet/verdict/v0.1"

const (
	// maxReported is how many findings a report holds.
	maxReported = 5000
	// maxInline is how many findings the event holds.
	maxInline = 50
	// maxReport is the most that a report may have, in bytes.
	maxReport = 8 << 20
)

// scannerName names what looks into images, but for what knows malicious files and secrets: with another one the same
// image may have other findings.
const scannerName = "towpath-vet-3 " + inventory.Version

// Report is what vet says of an artifact: the predicate of the signed statement that stands beside it in
// the registry. The same artifact, policy, scanner and origin, and the same in the environments to compare with, give
// byte-identical reports.
type Report struct {
	Policy       string                      `json:"policy"`           // digest
	Scanner      string                      `json:"scanner"`          // what looked into the image
	Platform     string                      `json:"platform"`         // that was looked at
	App          events.Slug                 `json:"app"`              //
	Commit       string                      `json:"commit,omitempty"` // that the image has to be of
	Base         string                      `json:"base,omitempty"`   // name of the trusted base
	Distribution string                      `json:"distribution,omitempty"`
	Bare         bool                        `json:"bare,omitempty"` // it stands on no base
	Packages     int                         `json:"packages"`
	Verdicts     []events.EnvironmentVerdict `json:"verdicts"`
	Findings     []events.Finding            `json:"findings"` // the gravest first
	Total        int                         `json:"total"`    // of all findings, listed or not
	Counts       map[string]int              `json:"counts"`   // of all findings, by severity
	Documents    []Document                  `json:"documents,omitempty"`
}

// Document is an SBOM beside the artifact.
type Document struct {
	ArtifactType string `json:"artifactType"`
	Referrer     string `json:"referrer"` // digest of the manifest
}

// spdxType is the artifact type of an SBOM.
const spdxType = "application/spdx+json"

// statement is an in-toto statement v1 with a report.
type statement struct {
	Type          string               `json:"_type"`
	Subject       []provenance.Subject `json:"subject"`
	PredicateType string               `json:"predicateType"`
	Predicate     Report               `json:"predicate"`
}

// encode writes the statement about an artifact.
func (r Report) encode(a registry.Artifact) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(statement{
		Type: provenance.StatementType, PredicateType: VerdictType, Predicate: r,
		Subject: []provenance.Subject{{Name: a.Repository.String(), Digest: map[string]string{"sha256": a.Digest.Hex()}}},
	})
	return bytes.TrimSpace(b.Bytes()), err
}

// annotations let a reader choose a report without fetching it.
func (r Report) annotations() map[string]string {
	return map[string]string{
		registry.PredicateTypeAnnotation: VerdictType,
		"dev.towpath.vet.policy":         r.Policy,
		"dev.towpath.vet.scanner":        r.Scanner,
	}
}

// ErrReport is wrapped by ReadReport.
var ErrReport = errors.New("not vet's report on this image")

// ReadReport checks an envelope, which has to be signed by vet and about the artifact, and returns the
// report and the statement's bytes.
func ReadReport(v provenance.Verifier, a registry.Artifact, body []byte) (Report, []byte, error) {
	refuse := func(format string, args ...any) (Report, []byte, error) {
		return Report{}, nil, fmt.Errorf("%w: %w", ErrReport, fmt.Errorf(format, args...))
	}
	var envelope dsse.Envelope
	if err := json.Unmarshal(body, &envelope); err != nil {
		return refuse("no DSSE envelope: %w", err)
	}
	if envelope.PayloadType != registry.StatementType {
		return refuse("its payload is %.100q", envelope.PayloadType)
	}
	payload, writer, err := v.VerifyPayload(envelope)
	if err != nil {
		return refuse("%w", err)
	}
	if writer != string(events.Vet) {
		return refuse("%s signed it", writer)
	}
	var s statement
	if err := json.Unmarshal(payload, &s); err != nil {
		return refuse("no statement: %w", err)
	}
	if s.Type != provenance.StatementType || s.PredicateType != VerdictType {
		return refuse("it states %.100q", s.PredicateType)
	}
	for _, subject := range s.Subject {
		if subject.Digest["sha256"] == a.Digest.Hex() {
			return s.Predicate, payload, nil
		}
	}
	return refuse("it is about another image")
}

// complete adds what the findings amount to.
func (r Report) complete(findings []events.Finding, judge *policy.Judge, environments []policy.Environment, run policy.RunFacts) Report {
	findings = slices.Clone(findings)
	slices.SortFunc(findings, policy.Worse)
	r.Verdicts = judge.Evaluate(findings, environments, run)
	r.Total, r.Counts = len(findings), map[string]int{}
	for _, f := range findings {
		r.Counts[f.Severity]++
	}
	r.Findings = findings[:min(len(findings), maxReported)]
	return r
}

// content returns the findings about the image itself, which do not depend on the run or on what runs. It says no where
// the report does not list all of them.
func (r Report) content() (found []events.Finding, all bool) {
	for _, f := range r.Findings {
		if !fromSource(f) {
			if f.Line > 0 {
				f.Path, f.Line = "", 0
			}
			f.NewIn = nil
			found = append(found, f)
		}
	}
	return found, r.Total == len(r.Findings)
}

// inline returns the findings that an event holds.
func (r Report) inline() []events.Finding { return r.Findings[:min(len(r.Findings), maxInline)] }

// words says what the report amounts to, for the log.
func (r Report) words() string {
	var b strings.Builder
	switch {
	case r.Base != "":
		fmt.Fprintf(&b, "base: %s (trusted)\n", r.Base)
	case r.Bare:
		b.WriteString("base: none, the image holds no operating system\n")
	case r.Distribution != "":
		fmt.Fprintf(&b, "base: %s (not trusted)\n", r.Distribution)
	}
	fmt.Fprintf(&b, "packages: %d\nfindings: %d\n", r.Packages, r.Total)
	for _, f := range r.inline() {
		fmt.Fprintf(&b, "  %-8s %s: %s%s\n", f.Severity, f.Rule, f.Message, r.newTo(f))
		if f.Fix != "" {
			fmt.Fprintf(&b, "           → %s\n", f.Fix)
		}
	}
	if more := r.Total - len(r.inline()); more > 0 {
		fmt.Fprintf(&b, "  and %d more, in the report\n", more)
	}
	for _, v := range r.Verdicts {
		fmt.Fprintf(&b, "%s: %s\n", v.Environment, v.Verdict)
	}
	return b.String()
}

// newTo says where something runs that does not have a finding; empty: nowhere.
func (r Report) newTo(f events.Finding) string {
	var names []string
	for _, v := range r.Verdicts {
		if v.Against != "" && slices.Contains(f.NewIn, v.Environment) {
			names = append(names, string(v.Environment))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return " (what runs in " + strings.Join(names, ", ") + " does not have it)"
}
