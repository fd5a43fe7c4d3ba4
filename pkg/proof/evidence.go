package proof

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"towpath.dev/events"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/registry/provenance"
)

// reportType is the predicate type of vet's signed report.
const reportType = "https://towpath.dev/vet/verdict/v0.1"

// reportStatement is what a proof needs of vet's signed report.
type reportStatement struct {
	Type          string               `json:"_type"`
	Subject       []provenance.Subject `json:"subject"`
	PredicateType string               `json:"predicateType"`
	Predicate     struct {
		Policy    string                      `json:"policy"`
		App       events.Slug                 `json:"app"`
		Verdicts  []events.EnvironmentVerdict `json:"verdicts"`
		Documents []struct {
			ArtifactType string `json:"artifactType"`
			Referrer     string `json:"referrer"`
		} `json:"documents"`
	} `json:"predicate"`
}

// statement is one document of the registry, verified: its referrer's digest, the image that it is about,
// and its body.
type statement struct {
	referrer string
	image    string // digest
	body     []byte
	used     bool
}

type referrerManifest struct {
	Subject *struct {
		Digest string `json:"digest"`
	} `json:"subject"`
	Layers []struct {
		Digest string `json:"digest"`
		Size   int64  `json:"size"`
	} `json:"layers"`
}

func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// evidence verifies that each document is the one that its manifest names.
func (c *checker) evidence() *Fault {
	for _, d := range c.bundle.Evidence {
		var m referrerManifest
		referrer := digestOf(d.Manifest)
		if err := json.Unmarshal(d.Manifest, &m); err != nil || m.Subject == nil || len(m.Layers) != 1 {
			return forged("evidence %s is no document about an image", referrer)
		}
		if m.Layers[0].Digest != digestOf(d.Body) || m.Layers[0].Size != int64(len(d.Body)) {
			return forged("evidence %s about image %s: its content is not what its manifest names", referrer, m.Subject.Digest)
		}
		for _, other := range c.documents {
			if other.referrer == referrer {
				return forged("evidence %s is there twice", referrer)
			}
		}
		c.documents = append(c.documents, statement{referrer: referrer, image: m.Subject.Digest, body: d.Body})
	}
	return nil
}

// find returns the document with a referrer's digest about an image, and marks it as used.
func (c *checker) find(referrer, image string) (statement, error) {
	for i := range c.documents {
		d := &c.documents[i]
		if d.referrer != referrer {
			continue
		}
		if d.image != image {
			return *d, fmt.Errorf("evidence %s is about image %s, not %s", referrer, d.image, image)
		}
		if !d.used && i > 0 && !c.documents[i-1].used {
			return *d, fmt.Errorf("evidence %s does not stand in its place", referrer)
		}
		d.used = true
		return *d, nil
	}
	return statement{}, fmt.Errorf("evidence %s about image %s is missing", referrer, image)
}

// provenance verifies the build's statement about an image.
func (c *checker) provenance(referrer string, a registry.Artifact) (provenance.Predicate, error) {
	d, err := c.find(referrer, string(a.Digest))
	if err != nil {
		return provenance.Predicate{}, err
	}
	s, err := provenance.Verify(c.terms.Trust, a, d.body)
	if err == nil {
		c.verdict.Signatures++
	}
	return s.Predicate, err
}

// report verifies vet's statement about an image, and that what it names is there.
func (c *checker) report(referrer string, a registry.Artifact) (reportStatement, error) {
	var s reportStatement
	d, err := c.find(referrer, string(a.Digest))
	if err != nil {
		return s, err
	}
	refuse := func(format string, v ...any) (reportStatement, error) {
		return s, fmt.Errorf("vet's report %s: %w", referrer, fmt.Errorf(format, v...))
	}
	var envelope dsse.Envelope
	if err := json.Unmarshal(d.body, &envelope); err != nil {
		return refuse("no DSSE envelope: %w", err)
	}
	payload, writer, err := c.terms.Trust.VerifyPayload(envelope)
	switch {
	case err != nil:
		return refuse("%w", err)
	case writer != string(events.Vet):
		return refuse("%s signed it", writer)
	case envelope.PayloadType != registry.StatementType:
		return refuse("its payload is %.100q", envelope.PayloadType)
	}
	if err := json.Unmarshal(payload, &s); err != nil {
		return refuse("no statement: %w", err)
	}
	if s.Type != provenance.StatementType || s.PredicateType != reportType {
		return refuse("it states %.100q", s.PredicateType)
	}
	for _, subject := range s.Subject {
		if subject.Digest["sha256"] != a.Digest.Hex() {
			return refuse("it is about another image")
		}
	}
	if len(s.Subject) == 0 {
		return refuse("it is about no image")
	}
	c.verdict.Signatures++
	for _, named := range s.Predicate.Documents {
		if _, err := c.find(named.Referrer, string(a.Digest)); err != nil {
			return refuse("%w", err)
		}
	}
	return s, nil
}
