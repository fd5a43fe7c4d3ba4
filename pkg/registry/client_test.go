package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/registry/registryserver"
)

func startServer(t *testing.T, dir, listen string) *registryserver.Server {
	t.Helper()
	s, err := registryserver.Start(registryserver.Config{Dir: dir, Listen: listen})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(context.WithoutCancel(t.Context())) })
	return s
}

// quick makes a client that gives up soon.
func quick() *registry.Client {
	return registry.New(registry.Options{Attempts: 3, Pause: time.Millisecond})
}

func repository(t *testing.T, name string) registry.Repository {
	t.Helper()
	r, err := registry.ParseRepository(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func randomImage(t *testing.T) v1.Image {
	t.Helper()
	image, err := random.Image(4096, 3)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func push(t *testing.T, c *registry.Client, r registry.Repository, tag string, image v1.Image) registry.Artifact {
	t.Helper()
	digest, err := c.Push(t.Context(), r, tag, image)
	if err != nil {
		t.Fatal(err)
	}
	return r.At(digest)
}

func TestImageSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir, "127.0.0.1:0")
	c, r, image := quick(), repository(t, s.Addr()+"/team/hello"), randomImage(t)
	a := push(t, c, r, "v1", image)
	if own, _ := image.Digest(); own.String() != string(a.Digest) {
		t.Fatalf("the registry has %s, the image is %s", a.Digest, own)
	}
	attached, err := c.Attach(t.Context(), a, registry.Document{ArtifactType: "text/plain", Body: []byte("kept")})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Resolve(t.Context(), r, "v1"); !errors.Is(err, registry.ErrUnavailable) {
		t.Fatalf("while the registry is down: %v, want ErrUnavailable", err)
	}
	startServer(t, dir, s.Addr())
	if d, err := c.Resolve(t.Context(), r, "v1"); err != nil || d != a.Digest {
		t.Fatalf("after a restart v1 is %s, %v", d, err)
	}
	got, err := c.Image(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
	if body, kind, err := c.Read(t.Context(), attached, 10); err != nil || string(body) != "kept" || kind != "text/plain" {
		t.Errorf("after a restart the referrer is %q (%s), %v", body, kind, err)
	}
}

func TestTagMovesAndDigestStays(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c, r := quick(), repository(t, s.Addr()+"/hello")
	first := push(t, c, r, "latest", randomImage(t))
	second := push(t, c, r, "latest", randomImage(t))
	if d, err := c.Resolve(t.Context(), r, "latest"); err != nil || d != second.Digest {
		t.Fatalf("latest is %s, %v, want %s", d, err, second.Digest)
	}
	if err := c.Tag(t.Context(), first, "kept"); err != nil {
		t.Fatal(err)
	}
	if d, err := c.Resolve(t.Context(), r, "kept"); err != nil || d != first.Digest {
		t.Fatalf("kept is %s, %v, want %s", d, err, first.Digest)
	}
	copied, err := c.Copy(t.Context(), first, repository(t, s.Addr()+"/elsewhere/hello"))
	if err != nil || copied.Digest != first.Digest {
		t.Fatalf("copied to %v, %v", copied, err)
	}
	if there, err := c.Exists(t.Context(), copied); !there || err != nil {
		t.Fatalf("the copy is there: %v, %v", there, err)
	}
	if there, err := c.Exists(t.Context(), repository(t, s.Addr()+"/nowhere").At(first.Digest)); there || err != nil {
		t.Fatalf("an image that is nowhere is there: %v, %v", there, err)
	}
}

func TestReferrers(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c, r := quick(), repository(t, s.Addr()+"/hello")
	a := push(t, c, r, "v1", randomImage(t))
	if list, err := c.Referrers(t.Context(), a, ""); err != nil || len(list) != 0 {
		t.Fatalf("a new image has referrers %v, %v", list, err)
	}
	statement := registry.Document{
		ArtifactType: registry.StatementType, MediaType: registry.EnvelopeType, Body: []byte(`{"payload":""}`),
		Annotations: map[string]string{registry.PredicateTypeAnnotation: "https://slsa.dev/provenance/v1"},
	}
	first, err := c.Attach(t.Context(), a, statement)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Attach(t.Context(), a, statement)
	if err != nil || again.Digest != first.Digest {
		t.Fatalf("attached again: %v, %v, want %v", again, err, first)
	}
	if _, err := c.Attach(t.Context(), a, registry.Document{ArtifactType: "application/spdx+json", Body: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	if all, err := c.Referrers(t.Context(), a, ""); err != nil || len(all) != 2 {
		t.Fatalf("referrers %v, %v, want 2", all, err)
	}
	list, err := c.Referrers(t.Context(), a, registry.StatementType)
	if err != nil || len(list) != 1 || list[0].Annotations[registry.PredicateTypeAnnotation] != "https://slsa.dev/provenance/v1" {
		t.Fatalf("statements %v, %v", list, err)
	}
	body, kind, err := c.Read(t.Context(), list[0], 1000)
	if err != nil || !bytes.Equal(body, statement.Body) || kind != registry.EnvelopeType {
		t.Fatalf("read %q (%s), %v", body, kind, err)
	}
	if _, _, err := c.Read(t.Context(), list[0], 3); !errors.Is(err, registry.ErrRefused) {
		t.Errorf("a body above the limit: %v, want ErrRefused", err)
	}
	other := push(t, c, r, "v2", randomImage(t))
	moved := list[0]
	moved.Subject = other
	if _, _, err := c.Read(t.Context(), moved, 1000); !errors.Is(err, registry.ErrRefused) {
		t.Errorf("a referrer of another image: %v, want ErrRefused", err)
	}
	if _, err := c.Attach(t.Context(), r.At(registry.Digest("sha256:"+someHex)), statement); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("attaching to an image that is not there: %v, want ErrNotFound", err)
	}
}

func TestAttachingAtOnceLosesNone(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c, r := quick(), repository(t, s.Addr()+"/hello")
	a := push(t, c, r, "v1", randomImage(t))
	done := make(chan error)
	const n = 8
	for i := range n {
		go func() {
			_, err := c.Attach(t.Context(), a, registry.Document{ArtifactType: "text/plain", Body: []byte{byte('a' + i)}})
			done <- err
		}()
	}
	for range n {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if list, err := c.Referrers(t.Context(), a, "text/plain"); err != nil || len(list) != n {
		t.Errorf("%d referrers, %v, want %d", len(list), err, n)
	}
}

// faulty serves what the registry at target serves, except where fault answers in its place.
func faulty(t *testing.T, target string, fault func(w http.ResponseWriter, r *http.Request) bool) string {
	t.Helper()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: target})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !fault(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestRetriesAreBounded(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c := quick()
	push(t, c, repository(t, s.Addr()+"/hello"), "v1", randomImage(t))
	for _, code := range []int{429, 500, 502, 503, 504} {
		var left atomic.Int32
		addr := faulty(t, s.Addr(), func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") || left.Add(-1) < 0 {
				return false
			}
			w.WriteHeader(code)
			return true
		})
		left.Store(2)
		if _, err := c.Resolve(t.Context(), repository(t, addr+"/hello"), "v1"); err != nil {
			t.Errorf("%d twice, then the answer: %v", code, err)
		}
		left.Store(1000)
		if _, err := c.Resolve(t.Context(), repository(t, addr+"/hello"), "v1"); !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("%d always: %v, want ErrUnavailable", code, err)
		}
		if asked := 1000 - left.Load(); asked != 3 {
			t.Errorf("%d always: asked %d times, want 3", code, asked)
		}
	}
}

func TestErrorsHaveKinds(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c := quick()
	a := push(t, c, repository(t, s.Addr()+"/hello"), "v1", randomImage(t))
	image := func(addr string) error {
		got, err := c.Image(t.Context(), repository(t, addr+"/hello").At(a.Digest))
		if err != nil {
			return err
		}
		layers, err := got.Layers()
		if err != nil {
			return err
		}
		content, err := layers[0].Compressed()
		if err != nil {
			return err
		}
		defer content.Close()
		_, err = io.Copy(io.Discard, content)
		return err
	}
	if err := image(s.Addr()); err != nil {
		t.Fatal(err)
	}
	on := func(part string, answer func(http.ResponseWriter)) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, part) {
				return false
			}
			answer(w)
			return true
		}
	}
	code := func(code int) func(http.ResponseWriter) { return func(w http.ResponseWriter) { w.WriteHeader(code) } }
	other := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
		io.WriteString(w, `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}`)
	}
	cases := map[string]struct {
		fault func(http.ResponseWriter, *http.Request) bool
		want  error
	}{
		"no manifest":    {on("/manifests/", code(404)), registry.ErrNotFound},
		"unauthorised":   {on("/manifests/", code(401)), registry.ErrUnauthorised},
		"forbidden":      {on("/manifests/", code(403)), registry.ErrUnauthorised},
		"teapot":         {on("/manifests/", code(418)), registry.ErrRefused},
		"other manifest": {on("/manifests/", other), registry.ErrWrongDigest},
	}
	for name, tc := range cases {
		if err := image(faulty(t, s.Addr(), tc.fault)); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	for name, answer := range map[string]func(http.ResponseWriter){
		"truncated layer": func(w http.ResponseWriter) { w.Header().Set("Content-Length", "500"); io.WriteString(w, "half") },
		"other layer":     func(w http.ResponseWriter) { io.WriteString(w, "something else") },
	} {
		if err := image(faulty(t, s.Addr(), on("/blobs/", answer))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if err := image(listener.Addr().String()); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("nobody listens: %v, want ErrUnavailable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Resolve(ctx, a.Repository, "v1"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, want context.Canceled", err)
	}
}

func TestReadChecksTheDocument(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c, r := quick(), repository(t, s.Addr()+"/hello")
	a := push(t, c, r, "v1", randomImage(t))
	attached, err := c.Attach(t.Context(), a, registry.Document{ArtifactType: "text/plain", Body: []byte("true")})
	if err != nil {
		t.Fatal(err)
	}
	addr := faulty(t, s.Addr(), func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		io.WriteString(w, "fals")
		return true
	})
	attached.Subject.Repository = repository(t, addr+"/hello")
	if body, _, err := c.Read(t.Context(), attached, 100); !errors.Is(err, registry.ErrWrongDigest) {
		t.Errorf("forged body %q, %v, want ErrWrongDigest", body, err)
	}
	list, err := c.Referrers(t.Context(), a, "text/plain")
	if err != nil || !slices.ContainsFunc(list, func(r registry.Referrer) bool { return r.Digest == attached.Digest }) {
		t.Errorf("listed %v, %v", list, err)
	}
}

func TestAnnotate(t *testing.T) {
	s := startServer(t, t.TempDir(), "127.0.0.1:0")
	c, r, image := quick(), repository(t, s.Addr()+"/hello"), randomImage(t)
	a := push(t, c, r, "v1", image)
	annotated, err := c.Annotate(t.Context(), a, map[string]string{"org.opencontainers.image.revision": "abc"}, "v1")
	if err != nil || annotated == a {
		t.Fatalf("annotated: %v, %v", annotated, err)
	}
	if d, err := c.Resolve(t.Context(), r, "v1"); err != nil || d != annotated.Digest {
		t.Errorf("v1 is %s, %v, want %s", d, err, annotated.Digest)
	}
	got, err := c.Image(t.Context(), annotated)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
	manifest, err := got.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	before, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if manifest.MediaType != types.OCIManifestSchema1 || manifest.Annotations["org.opencontainers.image.revision"] != "abc" ||
		manifest.Config.Digest != before.Config.Digest || len(manifest.Layers) != 3 || manifest.Layers[2].Digest != before.Layers[2].Digest ||
		manifest.Layers[0].MediaType != types.OCILayer {
		t.Errorf("manifest %+v, before %+v", manifest, before)
	}
	again, err := c.Annotate(t.Context(), a, map[string]string{"org.opencontainers.image.revision": "abc"}, "v2")
	if err != nil || again != annotated {
		t.Errorf("annotated again: %v, %v", again, err)
	}
	index, err := random.Index(100, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(r.String() + ":index")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index); err != nil {
		t.Fatal(err)
	}
	digest, err := c.Resolve(t.Context(), r, "index")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Annotate(t.Context(), r.At(digest), nil, "v3"); !errors.Is(err, registry.ErrRefused) {
		t.Errorf("annotating an index: %v, want ErrRefused", err)
	}
	if copied, err := c.Copy(t.Context(), r.At(digest), repository(t, s.Addr()+"/copy")); err != nil || copied.Digest != digest {
		t.Errorf("copying an index: %v, %v", copied, err)
	}
}
