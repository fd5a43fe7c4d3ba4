package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Media types and annotations of signed statements, as in-toto and cosign use them: the referrer's
// artifact type says that it is an in-toto statement, its one layer is the DSSE envelope around it, and
// the annotation names the predicate, so that a reader can choose without fetching.
const (
	StatementType           = "application/vnd.in-toto+json"
	EnvelopeType            = "application/vnd.dsse.envelope.v1+json"
	PredicateTypeAnnotation = "in-toto.io/predicate-type"
)

// Document is something to say about an image.
type Document struct {
	ArtifactType string            // what it is: a media type
	MediaType    string            // of Body; empty: ArtifactType
	Annotations  map[string]string // on the referrer, found in lists of referrers
	Body         []byte
}

// Referrer is a document that a registry has about an image.
type Referrer struct {
	Subject      Artifact
	Digest       Digest // of the referrer's manifest
	ArtifactType string
	Annotations  map[string]string
}

// URI names the referrer as "repository@digest".
func (r Referrer) URI() string { return r.Subject.Repository.At(r.Digest).String() }

// manifest is an OCI image manifest (image specification 1.1) as this package writes it.
type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     types.MediaType   `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        v1.Descriptor     `json:"config"`
	Layers        []v1.Descriptor   `json:"layers"`
	Subject       *v1.Descriptor    `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// encodedManifest is the bytes of a manifest, in the form that package remote takes.
type encodedManifest []byte

func (m encodedManifest) RawManifest() ([]byte, error)        { return m, nil }
func (m encodedManifest) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

func (m manifest) encode() (encodedManifest, Digest, error) {
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(raw)
	return raw, Digest("sha256:" + hex.EncodeToString(sum[:])), nil
}

// Attach stores the document beside the image, in the same repository, as a manifest whose subject is
// the image. Attaching equal bytes again changes nothing.
//
// A registry without the referrers API keeps the list under a tag, which is read, changed and written
// back. One Client does that one at a time, and reads back that its entry is there; a second process that
// attaches to the same image in the same moment can still hide an entry, which attaching again mends.
func (c *Client) Attach(ctx context.Context, subject Artifact, d Document) (Referrer, error) {
	c.attach.Lock()
	defer c.attach.Unlock()
	referrer, err := c.attachAndList(ctx, subject, d)
	if err != nil {
		return Referrer{}, fmt.Errorf("attaching %s to image %s: %w", d.ArtifactType, subject, err)
	}
	return referrer, nil
}

func (c *Client) attachAndList(ctx context.Context, subject Artifact, d Document) (Referrer, error) {
	for range 3 {
		referrer, err := c.attachOnce(ctx, subject, d)
		if err != nil {
			return Referrer{}, err
		}
		listed, err := c.Referrers(ctx, subject, d.ArtifactType)
		if err != nil {
			return Referrer{}, err
		}
		if slices.ContainsFunc(listed, func(r Referrer) bool { return r.Digest == referrer.Digest }) {
			return referrer, nil
		}
	}
	return Referrer{}, fmt.Errorf("%w: it does not list what was attached", ErrRefused)
}

func (c *Client) attachOnce(ctx context.Context, subject Artifact, d Document) (Referrer, error) {
	if d.MediaType == "" {
		d.MediaType = d.ArtifactType
	}
	head, err := remote.Head(subject.ref(), c.with(ctx)...)
	if err != nil {
		return Referrer{}, classify(err)
	}
	m := manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		ArtifactType: d.ArtifactType, Annotations: d.Annotations,
		Subject: &v1.Descriptor{MediaType: head.MediaType, Digest: head.Digest, Size: head.Size},
	}
	// One pusher: one handshake. It must not outlive this call, since it never asks twice for a blob.
	pusher, err := remote.NewPusher(c.with(ctx)...)
	if err != nil {
		return Referrer{}, err
	}
	config := static.NewLayer([]byte("{}"), "application/vnd.oci.empty.v1+json")
	if m.Config, err = upload(ctx, pusher, subject.Repository, config); err != nil {
		return Referrer{}, err
	}
	layer, err := upload(ctx, pusher, subject.Repository, static.NewLayer(d.Body, types.MediaType(d.MediaType)))
	if err != nil {
		return Referrer{}, err
	}
	m.Layers = []v1.Descriptor{layer}
	raw, digest, err := m.encode()
	if err != nil {
		return Referrer{}, err
	}
	if err := pusher.Put(ctx, subject.Repository.At(digest).ref(), raw); err != nil {
		return Referrer{}, classify(err)
	}
	return Referrer{Subject: subject, Digest: digest, ArtifactType: d.ArtifactType, Annotations: d.Annotations}, nil
}

// upload writes a blob unless r has it, and returns its descriptor.
func upload(ctx context.Context, pusher *remote.Pusher, r Repository, blob v1.Layer) (v1.Descriptor, error) {
	if err := pusher.Upload(ctx, r.repo, blob); err != nil {
		return v1.Descriptor{}, classify(err)
	}
	descriptor, err := partial.Descriptor(blob)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return *descriptor, nil
}

// Referrers lists what the registry has about the image: all, or those of one artifact type. The order
// is the registry's. An image of which nothing is said has none; that is no error.
func (c *Client) Referrers(ctx context.Context, subject Artifact, artifactType string) ([]Referrer, error) {
	index, err := remote.Referrers(subject.ref(), c.with(ctx)...)
	if err != nil {
		return nil, fmt.Errorf("listing the referrers of image %s: %w", subject, classify(err))
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("listing the referrers of image %s: %w", subject, classify(err))
	}
	var referrers []Referrer
	for _, m := range list.Manifests {
		digest, err := ParseDigest(m.Digest.String())
		if err != nil || artifactType != "" && m.ArtifactType != artifactType {
			continue
		}
		referrers = append(referrers, Referrer{subject, digest, m.ArtifactType, m.Annotations})
	}
	return referrers, nil
}

// Read returns the body of the document that the referrer holds, checked against its digest, and its
// media type. A body of more than max bytes is not read: the error wraps ErrRefused.
func (c *Client) Read(ctx context.Context, r Referrer, max int64) (body []byte, mediaType string, err error) {
	wrap := func(err error) ([]byte, string, error) {
		return nil, "", fmt.Errorf("reading referrer %s: %w", r.URI(), classify(err))
	}
	got, err := remote.Get(r.Subject.Repository.At(r.Digest).ref(), c.with(ctx)...)
	if err != nil {
		return wrap(err)
	}
	var m manifest
	if err := json.Unmarshal(got.Manifest, &m); err != nil {
		return wrap(err)
	}
	switch {
	case m.Subject == nil || m.Subject.Digest.String() != string(r.Subject.Digest):
		return wrap(fmt.Errorf("%w: it is not about image %s", ErrRefused, r.Subject))
	case len(m.Layers) != 1:
		return wrap(fmt.Errorf("%w: it has %d layers, not 1", ErrRefused, len(m.Layers)))
	case m.Layers[0].Size > max:
		return wrap(fmt.Errorf("%w: %d bytes is more than %d", ErrRefused, m.Layers[0].Size, max))
	}
	body, err = c.blob(ctx, r.Subject.Repository, m.Layers[0])
	if err != nil {
		return wrap(err)
	}
	return body, string(m.Layers[0].MediaType), nil
}

// blob reads a whole blob of the size that d says.
func (c *Client) blob(ctx context.Context, r Repository, d v1.Descriptor) ([]byte, error) {
	layer, err := remote.Layer(r.repo.Digest(d.Digest.String()), c.with(ctx)...)
	if err != nil {
		return nil, err
	}
	content, err := layer.Compressed() // of the size and digest that were asked for, or an error
	if err != nil {
		return nil, err
	}
	defer content.Close()
	body, err := io.ReadAll(io.LimitReader(content, d.Size+1))
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != d.Digest.Hex || int64(len(body)) != d.Size {
		return nil, fmt.Errorf("%w: blob %s", ErrWrongDigest, d.Digest)
	}
	return body, nil
}

// ReadWhole returns the bytes of a referrer's manifest and of the document in it, both checked against their
// digests, so that a third party can check them again. A document of more than max bytes is not read: the
// error wraps ErrRefused.
func (c *Client) ReadWhole(ctx context.Context, subject Artifact, referrer Digest, max int64) (manifest, body []byte, err error) {
	r := Referrer{Subject: subject, Digest: referrer}
	got, err := remote.Get(subject.Repository.At(referrer).ref(), c.with(ctx)...)
	if err != nil {
		return nil, nil, fmt.Errorf("reading referrer %s: %w", r.URI(), classify(err))
	}
	body, _, err = c.Read(ctx, r, max)
	return got.Manifest, body, err
}
