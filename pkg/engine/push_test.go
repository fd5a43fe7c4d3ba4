package engine_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/engine/enginetest"
)

func TestPush(t *testing.T) {
	e := enginetest.EnsureEngine(t)
	image := enginetest.Registry(t) + "/pushed:one"
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644}), w.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Push(t.Context(), image, engine.Credentials{}); err == nil {
		t.Error("an image that is not there was pushed")
	}
	if err := e.Import(t.Context(), image, &files, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.RemoveImage(t.Context(), image); err != nil {
			t.Error(err)
		}
	}()
	digest, err := e.Push(t.Context(), image, engine.Credentials{})
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(image)
	if err != nil {
		t.Fatal(err)
	}
	if there, err := remote.Head(tag); err != nil || there.Digest.String() != digest {
		t.Errorf("the registry has %v, %v, the engine says %s", there, err, digest)
	}
}

func TestPushToNobody(t *testing.T) {
	e := enginetest.EnsureEngine(t)
	const image = "127.0.0.1:1/pushed:one"
	var files bytes.Buffer
	if err := tar.NewWriter(&files).Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Import(t.Context(), image, &files, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.RemoveImage(t.Context(), image); err != nil {
			t.Error(err)
		}
	}()
	if digest, err := e.Push(t.Context(), image, engine.Credentials{}); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("pushed to nobody: %q, %v", digest, err)
	}
}
