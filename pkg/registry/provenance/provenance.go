// Package provenance says how an image was built: SLSA provenance v1 in an in-toto statement v1, in a DSSE
// envelope that the build service signed, kept beside the image as an OCI referrer.
//
// It guarantees that a predicate which Find returns as verified was signed by this platform's build
// service about exactly that image. It does not judge what the predicate says.
package provenance

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"towpath.dev/events"
	"towpath.dev/pkg/registry"
)

// Types that the specifications fix.
const (
	StatementType = "https://in-toto.io/Statement/v1"
	PredicateType = "https://slsa.dev/provenance/v1"
	// BuildType is what the parameters of a predicate mean: those of a Dockerfile built by Towpath.
	BuildType = "https://towpath.dev/build/dockerfile/v1"
	// BuilderID names the build service. Which installation it belongs to, its key says.
	BuilderID = "https://towpath.dev/services/build"
)

// maxEnvelope is the most that an envelope may have, in bytes.
const maxEnvelope = 1 << 20

// Statement is an in-toto statement v1 with SLSA provenance.
type Statement struct {
	Type          string    `json:"_type"`
	Subject       []Subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     Predicate `json:"predicate"`
}

// Subject is an image that the statement is about.
type Subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"` // {"sha256": hex}
}

// Predicate is SLSA provenance v1 of a Dockerfile build.
type Predicate struct {
	BuildDefinition BuildDefinition `json:"buildDefinition"`
	RunDetails      RunDetails      `json:"runDetails"`
}

// BuildDefinition is everything that decided what came out.
type BuildDefinition struct {
	BuildType            string             `json:"buildType"`
	ExternalParameters   ExternalParameters `json:"externalParameters"`
	InternalParameters   InternalParameters `json:"internalParameters"`
	ResolvedDependencies []Dependency       `json:"resolvedDependencies"`
}

// ExternalParameters are what the app's author chose.
type ExternalParameters struct {
	Repository       string            `json:"repository"` // URL
	Ref              string            `json:"ref,omitempty"`
	Commit           string            `json:"commit"`
	Dockerfile       string            `json:"dockerfile"`
	Context          string            `json:"context"`
	Target           string            `json:"target,omitempty"`
	Args             map[string]string `json:"args,omitempty"`
	DefinitionDigest string            `json:"definitionDigest"` // of the canonical towpath.yaml
}

// InternalParameters are what the platform added.
type InternalParameters struct {
	App      string `json:"app"`
	Run      int    `json:"run"`
	Attempt  int    `json:"attempt"`
	Tree     string `json:"tree"`     // git object id of the commit's tree
	Inputs   string `json:"inputs"`   // digest of everything that the build read; equal inputs are not built twice
	Platform string `json:"platform"` // "linux/amd64"
	// ReusedFrom is the run whose build this image is, where a later commit had the same inputs.
	ReusedFrom int `json:"reusedFrom,omitempty"`
}

// Dependency is something that the build read: an in-toto resource descriptor.
type Dependency struct {
	URI    string            `json:"uri"`
	Digest map[string]string `json:"digest,omitempty"`
	// Name is DockerfileName for the Dockerfile, which alone has Content: its text.
	Name    string `json:"name,omitempty"`
	Content []byte `json:"content,omitempty"`
}

// DockerfileName names the dependency that is the Dockerfile.
const DockerfileName = "Dockerfile"

// Dockerfile returns the text of the Dockerfile that the image was built from; nil: the build did not keep it.
func (p Predicate) Dockerfile() []byte {
	for _, d := range p.BuildDefinition.ResolvedDependencies {
		if d.Name == DockerfileName {
			return d.Content
		}
	}
	return nil
}

// BaseDigest returns the digest ("sha256:…") that an image which the Dockerfile builds upon was resolved to; empty: it is
// not known. The name may be written as in a Dockerfile: "debian:12".
func (p Predicate) BaseDigest(image string) string {
	for _, name := range []string{image, "docker.io/" + image, "docker.io/library/" + image, image + ":latest", "docker.io/library/" + image + ":latest"} {
		for _, d := range p.BuildDefinition.ResolvedDependencies {
			if d.URI == BaseURI+name && d.Digest["sha256"] != "" {
				return "sha256:" + d.Digest["sha256"]
			}
		}
	}
	return ""
}

// BaseURI begins the URI of an image that a Dockerfile builds upon.
const BaseURI = "docker-image://"

// RunDetails say who built, and when.
type RunDetails struct {
	Builder  Builder  `json:"builder"`
	Metadata Metadata `json:"metadata"`
}

// Builder is the service that built.
type Builder struct {
	ID      string            `json:"id"`
	Version map[string]string `json:"version,omitempty"`
}

// Metadata of one build.
type Metadata struct {
	InvocationID string    `json:"invocationId"` // the run's chainId and the attempt
	StartedOn    time.Time `json:"startedOn"`
	FinishedOn   time.Time `json:"finishedOn"`
}

// Signer signs a DSSE payload; *identity.Signer does.
type Signer interface {
	SignPayload(payloadType string, payload []byte) dsse.Envelope
}

// Verifier checks an envelope and says whose key signed it; *identity.Trust does.
type Verifier interface {
	VerifyPayload(e dsse.Envelope) (payload []byte, writer string, err error)
}

// Signed is a statement in the registry.
type Signed struct {
	Referrer  registry.Referrer
	KeyID     string
	Signature string // base64
	Predicate Predicate
}

// Attach signs a statement about the image and stores it beside the image.
func Attach(ctx context.Context, c *registry.Client, s Signer, a registry.Artifact, p Predicate) (Signed, error) {
	payload, err := json.Marshal(Statement{
		Type: StatementType, PredicateType: PredicateType, Predicate: p,
		Subject: []Subject{{Name: a.Repository.String(), Digest: map[string]string{"sha256": a.Digest.Hex()}}},
	})
	if err != nil {
		return Signed{}, fmt.Errorf("writing the provenance of image %s: %w", a, err)
	}
	envelope := s.SignPayload(registry.StatementType, payload)
	body, err := json.Marshal(envelope)
	if err != nil {
		return Signed{}, fmt.Errorf("writing the provenance of image %s: %w", a, err)
	}
	referrer, err := c.Attach(ctx, a, registry.Document{
		ArtifactType: registry.StatementType, MediaType: registry.EnvelopeType, Body: body,
		Annotations: map[string]string{registry.PredicateTypeAnnotation: PredicateType},
	})
	if err != nil {
		return Signed{}, err
	}
	return signed(referrer, envelope, p), nil
}

func signed(r registry.Referrer, e dsse.Envelope, p Predicate) Signed {
	s := Signed{Referrer: r, Predicate: p}
	if len(e.Signatures) > 0 {
		s.KeyID, s.Signature = e.Signatures[0].KeyID, e.Signatures[0].Sig
	}
	return s
}

// Refused is a referrer that claims to be provenance of the image and is not.
type Refused struct {
	Referrer registry.Referrer
	Why      error
}

// Find returns the image's verified provenance, and what claimed to be and is not. An image may have
// several: each commit whose build came out as this image has its own.
func Find(ctx context.Context, c *registry.Client, v Verifier, a registry.Artifact) ([]Signed, []Refused, error) {
	referrers, err := c.Referrers(ctx, a, registry.StatementType)
	if err != nil {
		return nil, nil, err
	}
	var verified []Signed
	var refused []Refused
	for _, r := range referrers {
		if r.Annotations[registry.PredicateTypeAnnotation] != PredicateType {
			continue
		}
		body, _, err := c.Read(ctx, r, maxEnvelope)
		if err != nil {
			return nil, nil, err
		}
		s, err := Verify(v, a, body)
		if err != nil {
			refused = append(refused, Refused{r, err})
			continue
		}
		s.Referrer = r
		verified = append(verified, s)
	}
	return verified, refused, nil
}

// Verify checks an envelope: signed by the build service, about this image, and SLSA provenance v1.
func Verify(v Verifier, a registry.Artifact, body []byte) (Signed, error) {
	refuse := func(format string, args ...any) (Signed, error) {
		return Signed{}, fmt.Errorf("provenance of image %s: %w", a, fmt.Errorf(format, args...))
	}
	var envelope dsse.Envelope
	if err := json.Unmarshal(body, &envelope); err != nil {
		return refuse("not a DSSE envelope: %w", err)
	}
	if envelope.PayloadType != registry.StatementType {
		return refuse("its payload is %.100q, not an in-toto statement", envelope.PayloadType)
	}
	payload, writer, err := v.VerifyPayload(envelope)
	if err != nil {
		return refuse("%w", err)
	}
	if writer != string(events.Build) {
		return refuse("%s signed it, not build", writer)
	}
	var s Statement
	if err := json.Unmarshal(payload, &s); err != nil {
		return refuse("not a statement: %w", err)
	}
	if s.Type != StatementType || s.PredicateType != PredicateType {
		return refuse("it states %.100q (%.100q), not SLSA provenance", s.PredicateType, s.Type)
	}
	for _, subject := range s.Subject {
		if subject.Digest["sha256"] == a.Digest.Hex() {
			return signed(registry.Referrer{}, envelope, s.Predicate), nil
		}
	}
	return refuse("it is about another image")
}
