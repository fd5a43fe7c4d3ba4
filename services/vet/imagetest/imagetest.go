// Package imagetest makes small images for tests: real OCI images with real package databases and
// programs, honest and hostile.
package imagetest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// File is one entry of a layer.
type File struct {
	Path string
	Body []byte
	Mode int64  // 0: 0644
	Link string // not empty: a hard link to it
}

// Tar returns an archive of the files, which depends on nothing but them.
func Tar(t testing.TB, files ...File) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		header := &tar.Header{Name: f.Path, Size: int64(len(f.Body)), Mode: f.Mode, Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}
		if f.Mode == 0 {
			header.Mode = 0o644
		}
		if f.Link != "" {
			header.Typeflag, header.Linkname, header.Size = tar.TypeLink, f.Link, 0
		}
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if f.Link == "" {
			if _, err := w.Write(f.Body); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Layer returns a layer that holds an archive.
func Layer(t testing.TB, archive []byte) v1.Layer {
	t.Helper()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive)), nil })
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

// Image returns an image for linux/amd64 with the layers, the lowest first.
func Image(t testing.TB, layers ...v1.Layer) v1.Image {
	t.Helper()
	image, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	config.Created = v1.Time{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	config.Config.Cmd, config.Config.User = []string{"/app"}, "65532:65532"
	config.Config.Healthcheck = &v1.HealthConfig{Test: []string{"CMD", "/app", "healthy"}}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		t.Fatal(err)
	}
	return image
}

// With returns an image with another configuration.
func With(t testing.TB, image v1.Image, change func(*v1.Config)) v1.Image {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	change(&config.Config)
	if image, err = mutate.ConfigFile(image, config); err != nil {
		t.Fatal(err)
	}
	return image
}

// DiffID returns a layer's DiffID.
func DiffID(t testing.TB, layer v1.Layer) string {
	t.Helper()
	id, err := layer.DiffID()
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

// DebPackage is a package that Debian's dpkg has installed.
type DebPackage struct {
	Name, Version string
	Licence       string // Debian's short name; empty: no copyright file
}

// Debian returns the files of a Debian system with the packages.
func Debian(packages ...DebPackage) []File {
	var status bytes.Buffer
	files := []File{
		{Path: "etc/os-release", Body: []byte("PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID=\"12\"\n")},
		{Path: "bin/sh", Body: []byte("#!"), Mode: 0o755},
	}
	for _, p := range packages {
		fmt.Fprintf(&status, "Package: %s\nStatus: install ok installed\nPriority: required\nSection: libs\nInstalled-Size: 10\n"+
			"Maintainer: Debian <debian@example.org>\nArchitecture: amd64\nVersion: %s\nDescription: a package\n\n", p.Name, p.Version)
		if p.Licence != "" {
			files = append(files, File{Path: "usr/share/doc/" + p.Name + "/copyright", Body: []byte(
				"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: 2020 Somebody\nLicense: " + p.Licence + "\n")})
		}
	}
	return append(files, File{Path: "var/lib/dpkg/status", Body: status.Bytes()})
}

// GoProgram builds a static program for linux/amd64 that depends on modules of its own, and returns it.
// Needs the go command, and no network.
func GoProgram(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	write := func(path, text string) {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module example.com/hello\n\ngo 1.26.0\n\nrequire example.com/greeting v1.2.3\n\nreplace example.com/greeting v1.2.3 => ./greeting\n")
	write("main.go", "package main\n\nimport \"example.com/greeting\"\n\nfunc main() { println(greeting.Text) }\n")
	write("greeting/go.mod", "module example.com/greeting\n\ngo 1.26.0\n")
	write("greeting/greeting.go", "package greeting\n\nconst Text = \"hello\"\n")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", "app", ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOWORK=off", "GOFLAGS=", "GOPROXY=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	program, err := os.ReadFile(filepath.Join(dir, "app"))
	if err != nil {
		t.Fatal(err)
	}
	return program
}
