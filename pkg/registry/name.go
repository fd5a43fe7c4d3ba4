package registry

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
)

// ErrName is wrapped by every parsing function of this package for a text that names no image.
var ErrName = errors.New("not an image's name")

// Digest names content by its SHA-256: "sha256:" and 64 digits of lower-case hexadecimal.
type Digest string

// ParseDigest returns s as a Digest, or an error that wraps ErrName.
func ParseDigest(s string) (Digest, error) {
	hex, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", fmt.Errorf("digest %.100q: %w: want sha256: and 64 lower-case hexadecimal digits", s, ErrName)
	}
	return Digest(s), nil
}

// Hex returns the 64 digits.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), "sha256:") }

// Repository is where a registry keeps the images of one app, in canonical form: the registry's host in
// lower case with its port where one was given, and the path. Docker Hub is written out
// ("index.docker.io/library/debian"). The zero value names nothing.
type Repository struct{ repo name.Repository }

// ParseRepository reads "host[:port]/path" or one of Docker's short forms. A tag or digest in it is an
// error. The error wraps ErrName.
func ParseRepository(s string) (Repository, error) {
	host, path, ok := strings.Cut(s, "/")
	if ok {
		s = strings.ToLower(host) + "/" + path
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err == nil && !reference.IsNameOnly(named) {
		err = errors.New("it has a tag or digest")
	}
	var repo name.Repository
	if err == nil {
		repo, err = name.NewRepository(named.Name(), name.WeakValidation)
	}
	if err != nil {
		return Repository{}, fmt.Errorf("repository %.200q: %w: %v", s, ErrName, err)
	}
	return Repository{repo}, nil
}

// String returns the canonical form.
func (r Repository) String() string {
	if r.repo.RepositoryStr() == "" {
		return ""
	}
	return r.repo.Name()
}

// Host returns the registry's host and port.
func (r Repository) Host() string { return r.repo.RegistryStr() }

// At names the image with digest d in r.
func (r Repository) At(d Digest) Artifact { return Artifact{Repository: r, Digest: d} }

// Artifact is an image in a registry, by digest.
type Artifact struct {
	Repository Repository
	Digest     Digest
}

// ParseArtifact reads "host[:port]/path@sha256:…", with or without a tag before the '@', which means
// nothing and is dropped. The error wraps ErrName.
func ParseArtifact(s string) (Artifact, error) {
	before, after, ok := strings.Cut(s, "@")
	if !ok {
		return Artifact{}, fmt.Errorf("image %.200q: %w by digest: want REPOSITORY@sha256:…", s, ErrName)
	}
	d, err := ParseDigest(after)
	if err != nil {
		return Artifact{}, fmt.Errorf("image %.200q: %w", s, err)
	}
	if colon := strings.LastIndexByte(before, ':'); colon > strings.LastIndexByte(before, '/') {
		before = before[:colon]
	}
	repo, err := ParseRepository(before)
	if err != nil {
		return Artifact{}, fmt.Errorf("image %.200q: %w", s, err)
	}
	return repo.At(d), nil
}

// String returns "repository@digest", which the Docker Engine pulls.
func (a Artifact) String() string { return a.Repository.String() + "@" + string(a.Digest) }

// PURL returns the artifact's package URL, which is its id in events:
//
//	pkg:oci/<last part of the repository>@sha256:<hex>?repository_url=<repository>
//
// This is the one place where it is formed: two artifacts are the same exactly when their PURLs are.
func (a Artifact) PURL() string {
	path := a.Repository.repo.RepositoryStr()
	return "pkg:oci/" + path[strings.LastIndexByte(path, '/')+1:] + "@" + string(a.Digest) +
		"?repository_url=" + a.Repository.String()
}

// ParsePURL reads an artifact's package URL, also one in which a tool percent-encoded more than it had
// to or added qualifiers of its own; PURL of the result is canonical. The error wraps ErrName.
func ParsePURL(s string) (Artifact, error) {
	wrong := func(why string) (Artifact, error) {
		return Artifact{}, fmt.Errorf("package URL %.200q: %w: %s", s, ErrName, why)
	}
	rest, ok := strings.CutPrefix(s, "pkg:oci/")
	if !ok {
		return wrong("it does not begin with pkg:oci/")
	}
	rest, _, _ = strings.Cut(rest, "#")
	path, query, _ := strings.Cut(rest, "?")
	path, err := url.PathUnescape(path)
	if err != nil {
		return wrong(err.Error())
	}
	last, version, ok := strings.Cut(path, "@")
	if !ok {
		return wrong("it has no version")
	}
	qualifiers, err := url.ParseQuery(query)
	if err != nil {
		return wrong(err.Error())
	}
	digest, err := ParseDigest(version)
	if err != nil {
		return wrong(err.Error())
	}
	repo, err := ParseRepository(qualifiers.Get("repository_url"))
	if err != nil {
		return wrong("repository_url: " + err.Error())
	}
	a := repo.At(digest)
	if !strings.HasPrefix(a.PURL(), "pkg:oci/"+strings.ToLower(last)+"@") {
		return wrong("its name is not the last part of its repository_url")
	}
	return a, nil
}
