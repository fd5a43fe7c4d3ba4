package layers

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"towpath.dev/services/vet/imagetest"
)

var roomy = Limits{Bytes: 64 << 20, Files: 1000}

func unpack(t *testing.T, image v1.Image, limits Limits) *Image {
	t.Helper()
	got, err := Unpack(t.Context(), image, t.TempDir(), limits)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func compressed(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// blob is a layer of exactly these bytes, under a DiffID that is only claimed.
func blob(t *testing.T, image v1.Image, content []byte, claimed v1.Hash) v1.Image {
	t.Helper()
	image, err := mutate.Append(image, mutate.Addendum{Layer: claiming{static.NewLayer(content, types.OCILayer), claimed}})
	if err != nil {
		t.Fatal(err)
	}
	return image
}

type claiming struct {
	v1.Layer
	diffID v1.Hash
}

func (c claiming) DiffID() (v1.Hash, error) { return c.diffID, nil }

func hashOf(t *testing.T, data []byte) v1.Hash {
	t.Helper()
	h, _, err := v1.SHA256(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestUnpackHonestImages(t *testing.T) {
	archive := imagetest.Tar(t, imagetest.File{Path: "app", Body: []byte("hello"), Mode: 0o755}, imagetest.File{Path: "copy", Link: "app"})
	var z bytes.Buffer
	w, err := zstd.NewWriter(&z)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(archive)
	w.Close()
	plain := imagetest.Image(t)
	for name, image := range map[string]v1.Image{
		"gzip":         imagetest.Image(t, imagetest.Layer(t, archive)),
		"zstd":         blob(t, plain, z.Bytes(), hashOf(t, archive)),
		"uncompressed": blob(t, plain, archive, hashOf(t, archive)),
		"two layers":   imagetest.Image(t, imagetest.Layer(t, archive), imagetest.Layer(t, imagetest.Tar(t, imagetest.File{Path: "b", Body: []byte("b")}))),
		"one twice":    imagetest.Image(t, imagetest.Layer(t, archive), imagetest.Layer(t, archive)),
		"no layer":     plain,
	} {
		t.Run(name, func(t *testing.T) {
			got := unpack(t, image, roomy)
			if !got.Whole() {
				t.Fatalf("%+v", got.Faults)
			}
			config, err := image.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got.DiffIDs) != fmt.Sprint(config.RootFS.DiffIDs) {
				t.Errorf("DiffIDs %v, want %v", got.DiffIDs, config.RootFS.DiffIDs)
			}
			onDisk, err := got.V1()
			if err != nil {
				t.Fatal(err)
			}
			layers, err := onDisk.Layers()
			if err != nil {
				t.Fatal(err)
			}
			for i, layer := range layers {
				content, err := layer.Uncompressed()
				if err != nil {
					t.Fatal(err)
				}
				h, _, err := v1.SHA256(content)
				content.Close()
				if err != nil || h.String() != got.DiffIDs[i] {
					t.Errorf("layer %d on the disk is %s, %v", i, h, err)
				}
			}
		})
	}
}

// tarOf writes headers that an honest archive does not have.
func tarOf(t *testing.T, headers ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(w, zeros{}, h.Size); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestUnpackHostileImages(t *testing.T) {
	archive := imagetest.Tar(t, imagetest.File{Path: "app", Body: bytes.Repeat([]byte("hello"), 1000)})
	whole := compressed(t, archive)
	bomb := compressed(t, tarOf(t, &tar.Header{Name: "bomb", Size: 200 << 20, Typeflag: tar.TypeReg}))
	many := make([]imagetest.File, 2000)
	for i := range many {
		many[i] = imagetest.File{Path: fmt.Sprint("f", i)}
	}
	plain := imagetest.Image(t)
	elsewhere, err := mutate.Append(plain, mutate.Addendum{Layer: imagetest.Layer(t, archive), URLs: []string{"http://169.254.169.254/"}})
	if err != nil {
		t.Fatal(err)
	}
	short := mutate.MediaType(imagetest.Image(t, imagetest.Layer(t, archive)), types.OCIManifestSchema1)
	config, err := short.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.RootFS.DiffIDs = nil
	for name, c := range map[string]struct {
		image v1.Image
		kind  Kind
		want  string
	}{
		"a layer cut short":          {blob(t, plain, whole[:len(whole)/2], hashOf(t, archive)), Malformed, "cut short or is no archive"},
		"an archive cut short":       {blob(t, plain, compressed(t, archive[:1000]), hashOf(t, archive[:1000])), Malformed, "cut short or is no archive"},
		"no archive at all":          {blob(t, plain, bytes.Repeat([]byte("x"), 2000), hashOf(t, archive)), Malformed, "cut short or is no archive"},
		"broken gzip":                {blob(t, plain, []byte("\x1f\x8b\x08\x00 nothing follows"), hashOf(t, archive)), Malformed, "cut short or is no archive"},
		"broken zstd":                {blob(t, plain, []byte("\x28\xb5\x2f\xfd nothing follows"), hashOf(t, archive)), Malformed, "cut short or is no archive"},
		"another layer":              {blob(t, plain, whole, hashOf(t, []byte("other"))), Malformed, "the layer read is " + hashOf(t, archive).String()},
		"an entry above the root":    {blob(t, plain, tarOf(t, &tar.Header{Name: "a/../../etc/passwd"}), v1.Hash{}), Malformed, "leads out of the image"},
		"a hard link above the root": {blob(t, plain, tarOf(t, &tar.Header{Name: "a", Linkname: "../x", Typeflag: tar.TypeLink}), v1.Hash{}), Malformed, "hard link leads out"},
		"a bomb":                     {blob(t, plain, bomb, hashOf(t, archive)), TooLarge, "the file has 200 MiB"},
		"a bomb that lies":           {blob(t, plain, compressed(t, bytes.Repeat([]byte{0}, 100<<20)), hashOf(t, archive)), TooLarge, "more than 64 MiB"},
		"too many files":             {imagetest.Image(t, imagetest.Layer(t, imagetest.Tar(t, many...))), TooLarge, "more than 1000 files"},
		"a layer kept elsewhere":     {elsewhere, Malformed, "outside of the registry"},
		"no container image":         {mutate.ConfigMediaType(plain, "application/vnd.example+json"), Malformed, "no container image"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			got, err := Unpack(t.Context(), c.image, dir, roomy)
			if err != nil {
				t.Fatal(err)
			}
			if got.Whole() || got.Faults[0].Kind != c.kind || !strings.Contains(got.Faults[0].What, c.want) {
				t.Fatalf("%+v", got.Faults)
			}
			if _, err := got.V1(); err == nil {
				t.Error("an image with faults can be analysed")
			}
			var size int64
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				info, _ := e.Info()
				size += info.Size()
			}
			if size > roomy.Bytes {
				t.Errorf("%d bytes on the disk", size)
			}
		})
	}
}

func TestBigFiles(t *testing.T) {
	limits := Limits{Bytes: 1 << 30, Files: 10}
	program := append([]byte("\x7fELF"), make([]byte, bigFile)...)
	got := unpack(t, imagetest.Image(t, imagetest.Layer(t, imagetest.Tar(t,
		imagetest.File{Path: "./data/big.json", Body: make([]byte, bigFile)},
		imagetest.File{Path: "program", Body: program},
		imagetest.File{Path: "small", Body: make([]byte, 100)}))), limits)
	if fmt.Sprint(got.Big) != "[/data/big.json]" {
		t.Errorf("%v", got.Big)
	}
}

// TestRegistryFaults tells what the registry does to an image from what the image is.
func TestRegistryFaults(t *testing.T) {
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	whole := func(http.ResponseWriter, *http.Request) bool { return false }
	var spoil atomic.Value // func(w, r) bool: whether it answered instead of the registry
	spoil.Store(whole)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !spoil.Load().(func(http.ResponseWriter, *http.Request) bool)(w, r) {
			store.ServeHTTP(w, r)
		}
	}))
	defer server.Close()
	image := imagetest.Image(t, imagetest.Layer(t, imagetest.Tar(t, imagetest.File{Path: "app", Body: []byte("hello")})))
	ref, err := name.NewTag(strings.TrimPrefix(server.URL, "http://") + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	layers, _ := image.Layers()
	digest, _ := layers[0].Digest()
	size, _ := layers[0].Size()
	isLayer := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, digest.String()) }
	for name, c := range map[string]struct {
		spoil func(w http.ResponseWriter, r *http.Request) bool
		fault bool // of the image; else an error
	}{
		"another size than the manifest says": {func(w http.ResponseWriter, r *http.Request) bool {
			if isLayer(r) {
				fmt.Fprint(w, "other bytes")
			}
			return isLayer(r)
		}, true},
		"other bytes": {func(w http.ResponseWriter, r *http.Request) bool {
			if isLayer(r) {
				w.Write(make([]byte, size))
			}
			return isLayer(r)
		}, false},
		"cut off": {func(w http.ResponseWriter, r *http.Request) bool {
			if isLayer(r) {
				w.Header().Set("Content-Length", "1000")
				fmt.Fprint(w, "\x1f\x8b")
				panic(http.ErrAbortHandler)
			}
			return false
		}, false},
		"away": {func(w http.ResponseWriter, r *http.Request) bool {
			if isLayer(r) {
				w.WriteHeader(http.StatusNotFound)
			}
			return isLayer(r)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			spoil.Store(whole)
			remoteImage, err := remote.Image(ref, remote.WithContext(t.Context()))
			if err != nil {
				t.Fatal(err)
			}
			spoil.Store(c.spoil)
			got, err := Unpack(t.Context(), remoteImage, t.TempDir(), roomy)
			if c.fault && (err != nil || got.Whole()) || !c.fault && err == nil {
				t.Errorf("faults %+v, error %v", got.Faults, err)
			}
		})
	}
}

func TestUnpackEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	image := imagetest.Image(t, imagetest.Layer(t, imagetest.Tar(t, imagetest.File{Path: "a"})))
	if _, err := Unpack(ctx, image, t.TempDir(), roomy); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

// FuzzLayer feeds any bytes as a layer: no panic, bounded disk, and either a fault or a verified DiffID.
func FuzzLayer(f *testing.F) {
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Add([]byte("\x28\xb5\x2f\xfd"))
	f.Add(imagetest.Tar(f, imagetest.File{Path: "a", Body: []byte("b")}))
	f.Fuzz(func(t *testing.T, content []byte) {
		image := blob(t, imagetest.Image(t), content, hashOf(t, content))
		got, err := Unpack(t.Context(), image, t.TempDir(), Limits{Bytes: 1 << 20, Files: 100})
		if err != nil {
			t.Fatal(err)
		}
		if got.Whole() != (len(got.DiffIDs) == 1) || got.Bytes > 1<<20 {
			t.Fatalf("%+v", got)
		}
	})
}
