// Package registry speaks to OCI registries: it names images by digest, resolves tags, reads and copies
// images, and attaches signed documents to them as referrers (OCI distribution specification 1.1, with
// the referrers tag where the registry has no referrers API).
//
// It guarantees that bytes which were asked for by digest are the bytes that the digest names, that calls
// are retried a bounded number of times with growing pauses, and that errors are of the few kinds that
// callers act on. It does not decide whether an image, or what a referrer says, is to be trusted.
package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Options says how to speak to registries. The zero value is for registries that need no credentials
// but those in Docker's own configuration file.
type Options struct {
	// Keychain finds credentials; nil: Docker's configuration file of the process's user.
	Keychain authn.Keychain
	// Transport makes the requests; nil: one with bounded waits for connection, TLS and first byte.
	Transport http.RoundTripper
	// Attempts is how often a request is made before the registry counts as unavailable; 0: 4.
	Attempts int
	// Pause before the second attempt, doubled before each one after it, ±20 %; 0: 200 ms.
	Pause time.Duration
}

// Client speaks to any number of registries. It is safe for concurrent use.
type Client struct {
	keychain authn.Keychain
	options  []remote.Option
	attach   sync.Mutex // referrers tags are read, changed and written back
}

// New returns a Client. It does no IO.
func New(o Options) *Client {
	if o.Keychain == nil {
		o.Keychain = authn.DefaultKeychain
	}
	if o.Transport == nil {
		o.Transport = &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   8,
			IdleConnTimeout:       90 * time.Second,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: 2 * time.Minute, // the end of a large upload is answered after it is hashed
		}
	}
	if o.Attempts == 0 {
		o.Attempts = 4
	}
	if o.Pause == 0 {
		o.Pause = 200 * time.Millisecond
	}
	return &Client{keychain: o.Keychain, options: []remote.Option{
		remote.WithAuthFromKeychain(o.Keychain),
		remote.WithTransport(o.Transport),
		remote.WithUserAgent("towpath"),
		remote.WithRetryBackoff(remote.Backoff{Duration: o.Pause, Factor: 2, Jitter: 0.2, Steps: o.Attempts}),
		remote.WithRetryPredicate(retryable),
		remote.WithRetryStatusCodes(http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout),
	}}
}

func retryable(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	return errors.Is(classify(err), ErrUnavailable)
}

func (c *Client) with(ctx context.Context) []remote.Option {
	return append(c.options[:len(c.options):len(c.options)], remote.WithContext(ctx))
}

// Ping asks the registry that holds r whether it answers.
func (c *Client) Ping(ctx context.Context, r Repository) error {
	if _, err := remote.Head(r.repo.Tag("towpath-ping"), c.with(ctx)...); err != nil {
		if err = classify(err); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("asking registry %s: %w", r.Host(), err)
		}
	}
	return nil
}

// Resolve returns the digest that tag names now.
func (c *Client) Resolve(ctx context.Context, r Repository, tag string) (Digest, error) {
	ref, err := r.tag(tag)
	if err != nil {
		return "", err
	}
	d, err := remote.Head(ref, c.with(ctx)...)
	if err != nil {
		return "", fmt.Errorf("resolving %s: %w", ref, classify(err))
	}
	return ParseDigest(d.Digest.String())
}

// Exists reports whether the registry has the artifact's manifest.
func (c *Client) Exists(ctx context.Context, a Artifact) (bool, error) {
	_, err := remote.Head(a.ref(), c.with(ctx)...)
	if err == nil {
		return true, nil
	}
	if err = classify(err); errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return false, fmt.Errorf("looking for image %s: %w", a, err)
}

// Image returns the artifact's image. Its manifest has been checked against the digest; its
// configuration and layers are checked while they are read, and reading is bound to ctx. Of an image
// index it returns the image for linux/amd64, or for what platform says, such as "linux/arm64".
func (c *Client) Image(ctx context.Context, a Artifact, platform ...string) (v1.Image, error) {
	options := c.with(ctx)
	for _, p := range platform {
		parsed, err := v1.ParsePlatform(p)
		if err != nil {
			return nil, fmt.Errorf("platform %q: %w", p, err)
		}
		options = append(options, remote.WithPlatform(*parsed))
	}
	image, err := remote.Image(a.ref(), options...)
	if err != nil {
		return nil, fmt.Errorf("reading image %s: %w", a, classify(err))
	}
	return image, nil
}

// Push writes image to r, tags it, and returns the digest under which the registry then has it, which is
// the image's own: anything else is ErrWrongDigest. Blobs that r already has are not sent again.
func (c *Client) Push(ctx context.Context, r Repository, tag string, image v1.Image) (Digest, error) {
	ref, err := r.tag(tag)
	if err != nil {
		return "", err
	}
	own, err := image.Digest()
	if err != nil {
		return "", fmt.Errorf("pushing image %s: %w", ref, err)
	}
	if err := remote.Write(ref, image, c.with(ctx)...); err != nil {
		return "", fmt.Errorf("pushing image %s: %w", ref, classify(err))
	}
	return c.confirm(ctx, r.At(Digest(own.String())))
}

// Copy copies the artifact with everything that it names (not its referrers) to another repository,
// under the same digest.
func (c *Client) Copy(ctx context.Context, from Artifact, to Repository) (Artifact, error) {
	copied := to.At(from.Digest)
	source, err := remote.Get(from.ref(), c.with(ctx)...)
	if err != nil {
		return Artifact{}, fmt.Errorf("copying image %s to %s: %w", from, to, classify(err))
	}
	var content remote.Taggable
	if source.MediaType.IsIndex() {
		content, err = source.ImageIndex()
	} else {
		content, err = source.Image()
	}
	if err == nil {
		err = remote.Push(copied.ref(), content, c.with(ctx)...)
	}
	if err != nil {
		return Artifact{}, fmt.Errorf("copying image %s to %s: %w", from, to, classify(err))
	}
	_, err = c.confirm(ctx, copied)
	return copied, err
}

// Tag makes tag name the artifact.
func (c *Client) Tag(ctx context.Context, a Artifact, tag string) error {
	ref, err := a.Repository.tag(tag)
	if err != nil {
		return err
	}
	manifest, err := remote.Get(a.ref(), c.with(ctx)...)
	if err == nil {
		err = remote.Tag(ref, manifest, c.with(ctx)...)
	}
	if err != nil {
		return fmt.Errorf("tagging image %s as %s: %w", a, tag, classify(err))
	}
	return nil
}

// Annotate writes the image's manifest again, as an OCI image manifest with these annotations beside those
// that it has, tags it, and returns the image under its new digest: configuration and layers are the same
// blobs. An image index is refused.
func (c *Client) Annotate(ctx context.Context, a Artifact, annotations map[string]string, tag string) (Artifact, error) {
	wrap := func(err error) (Artifact, error) {
		return Artifact{}, fmt.Errorf("annotating image %s: %w", a, classify(err))
	}
	ref, err := a.Repository.tag(tag)
	if err != nil {
		return Artifact{}, err
	}
	got, err := remote.Get(a.ref(), c.with(ctx)...)
	if err != nil {
		return wrap(err)
	}
	if !got.MediaType.IsImage() {
		return wrap(fmt.Errorf("%w: it is a %s, not an image", ErrRefused, got.MediaType))
	}
	var m manifest
	if err := json.Unmarshal(got.Manifest, &m); err != nil {
		return wrap(err)
	}
	m.MediaType, m.Config.MediaType = types.OCIManifestSchema1, types.OCIConfigJSON
	for i := range m.Layers {
		if m.Layers[i].MediaType == types.DockerLayer {
			m.Layers[i].MediaType = types.OCILayer
		}
	}
	m.Annotations = merged(m.Annotations, annotations)
	raw, digest, err := m.encode()
	if err != nil {
		return wrap(err)
	}
	if err := remote.Put(ref, raw, c.with(ctx)...); err != nil {
		return wrap(err)
	}
	annotated := a.Repository.At(digest)
	_, err = c.confirm(ctx, annotated)
	return annotated, err
}

func merged(a, b map[string]string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, a)
	maps.Copy(all, b)
	return all
}

// confirm returns the digest that the registry gives for what was just written.
func (c *Client) confirm(ctx context.Context, a Artifact) (Digest, error) {
	d, err := remote.Head(a.ref(), c.with(ctx)...)
	if err != nil {
		return "", fmt.Errorf("reading image %s back: %w", a, classify(err))
	}
	if d.Digest.String() != string(a.Digest) {
		return "", fmt.Errorf("reading image %s back: %w: it has %s", a, ErrWrongDigest, d.Digest)
	}
	return a.Digest, nil
}

func (a Artifact) ref() name.Digest { return a.Repository.repo.Digest(string(a.Digest)) }

func (r Repository) tag(tag string) (name.Tag, error) {
	ref, err := name.NewTag(r.String()+":"+tag, name.StrictValidation)
	if err != nil {
		return name.Tag{}, fmt.Errorf("tag %.150q: %w: %v", tag, ErrName, err)
	}
	return ref, nil
}

// Credentials returns the user name and password with which the keychain opens the repository; both are
// empty where it knows none. They are for a Docker Engine that pushes or pulls on behalf of this process.
func (c *Client) Credentials(ctx context.Context, r Repository) (username, password string, err error) {
	auth, err := authn.Resolve(ctx, c.keychain, r.repo)
	if err == nil {
		var config *authn.AuthConfig
		if config, err = authn.Authorization(ctx, auth); err == nil {
			return config.Username, config.Password, nil
		}
	}
	return "", "", fmt.Errorf("finding the credentials of %s: %w", r, err)
}
