package enginetest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Registry serves an OCI registry on 127.0.0.1 until the test ends and returns its address, host:port.
func Registry(t testing.TB) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// App describes an image of the test application (see testapp).
type App struct {
	Args         []string // the image's command after the program, for example serve
	Version      string   // goes into an annotation of the image: another version, another digest
	Architecture string   // what the image claims to be for; empty: this machine's
	Expose       int      // a port that the image declares, if not 0
	User         string   // whom it runs as; empty: root
	Healthcheck  []string // the image's own HEALTHCHECK, as arguments of the program
	Entrypoint   []string // in place of the program
	NoProgram    bool     // the image does not say what to run
}

// Program is where the images hold their program.
const Program = "/testapp"

// Push builds the image that app describes and pushes it as registry/name. It returns the repository
// ("127.0.0.1:5000/hello") and the digest ("sha256:…").
func Push(t testing.TB, registry, repository string, app App) (string, string) {
	t.Helper()
	image, err := app.image(binary(t))
	if err != nil {
		t.Fatalf("making the image of the test application: %v", err)
	}
	tag, err := name.NewTag(registry+"/"+repository+":latest", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image); err != nil {
		t.Fatalf("pushing the image of the test application: %v", err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return tag.Repository.Name(), digest.String()
}

func (app App) image(program []byte) (v1.Image, error) {
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		var files bytes.Buffer
		w := tar.NewWriter(&files)
		if err := w.WriteHeader(&tar.Header{Name: strings.TrimPrefix(Program, "/"), Mode: 0o755, Size: int64(len(program))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(program); err != nil {
			return nil, err
		}
		return io.NopCloser(&files), w.Close()
	})
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", app.Architecture
	if file.Architecture == "" {
		file.Architecture = runtime.GOARCH
	}
	file.Config.Entrypoint, file.Config.Cmd = []string{Program}, app.Args
	if app.Entrypoint != nil {
		file.Config.Entrypoint = app.Entrypoint
	}
	if app.NoProgram {
		file.Config.Entrypoint, file.Config.Cmd = nil, nil
	}
	file.Config.User = app.User
	file.Config.Labels = map[string]string{"version": app.Version}
	if app.Expose != 0 {
		file.Config.ExposedPorts = map[string]struct{}{fmt.Sprintf("%d/tcp", app.Expose): {}}
	}
	if app.Healthcheck != nil {
		file.Config.Healthcheck = &v1.HealthConfig{Test: append([]string{"CMD", Program}, app.Healthcheck...), Interval: 1e9}
	}
	return mutate.ConfigFile(image, file)
}

var program = sync.OnceValues(func() ([]byte, error) {
	folder, err := os.MkdirTemp("", "testapp")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	file := filepath.Join(folder, "testapp")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", file, "towpath.dev/pkg/engine/enginetest/testapp")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the test application: %w\n%s", err, out)
	}
	return os.ReadFile(file)
})

func binary(t testing.TB) []byte {
	t.Helper()
	b, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
