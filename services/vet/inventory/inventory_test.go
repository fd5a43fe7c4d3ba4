package inventory

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"towpath.dev/services/vet/imagetest"
)

var taker Taker

// take makes the inventory of an image.
func take(t *testing.T, image v1.Image) *Inventory {
	t.Helper()
	manifest, err := image.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	inventory, err := taker.Take(t.Context(), Subject{
		Image: image, Name: "127.0.0.1:5000/app@" + digest.String(), Digest: digest.String(), Manifest: manifest,
	}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return inventory
}

func describe(packages []Package) string {
	var b strings.Builder
	for _, p := range packages {
		fmt.Fprintf(&b, "%s %s %s", p.Type, p.Name, p.Version)
		for _, l := range p.Licences {
			fmt.Fprintf(&b, " [%s|%s]", l.Name, l.SPDX)
		}
		if p.Own {
			b.WriteString(" own")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestDebianPackagesAndTheirLicences(t *testing.T) {
	layer := imagetest.Layer(t, imagetest.Tar(t, imagetest.Debian(
		imagetest.DebPackage{Name: "ghostscript", Version: "10.0.0~dfsg-11", Licence: "AGPL-3+"},
		imagetest.DebPackage{Name: "zlib1g", Version: "1:1.2.13.dfsg-1", Licence: "Zlib"},
		imagetest.DebPackage{Name: "odd", Version: "1", Licence: "BSLA"},
		imagetest.DebPackage{Name: "silent", Version: "2"},
	)...))
	got := take(t, imagetest.Image(t, layer))
	want := `deb ghostscript 10.0.0~dfsg-11 [AGPL-3+|AGPL-3.0-or-later]
deb odd 1 [BSLA|]
deb silent 2
deb zlib1g 1:1.2.13.dfsg-1 [Zlib|Zlib]
`
	if s := describe(got.Packages); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
	if got.Distribution != "Debian GNU/Linux 12 (bookworm)" || got.Bare || len(got.Unread) != 0 {
		t.Errorf("distribution %q, bare %v, unread %v", got.Distribution, got.Bare, got.Unread)
	}
	if p := got.Packages[0]; p.Layer != imagetest.DiffID(t, layer) || !strings.HasPrefix(p.PURL, "pkg:deb/debian/ghostscript@10.0.0") {
		t.Errorf("%+v", p)
	}
}

func TestProgramAloneIsBare(t *testing.T) {
	program := imagetest.GoProgram(t)
	image := imagetest.Image(t, imagetest.Layer(t, imagetest.Tar(t,
		imagetest.File{Path: "app", Body: program, Mode: 0o755},
		imagetest.File{Path: "etc/ssl/certs/ca-certificates.crt", Body: []byte("x")})))
	got := take(t, image)
	if !got.Bare || got.Distribution != "" {
		t.Errorf("bare %v, distribution %q", got.Bare, got.Distribution)
	}
	s := describe(got.Packages)
	if !strings.Contains(s, "go-module example.com/hello ") || !strings.Contains(s, " own\n") {
		t.Errorf("the program itself is not recognised:\n%s", s)
	}
	if !strings.Contains(s, "go-module stdlib go1.") || !strings.Contains(s, "[BSD-3-Clause|BSD-3-Clause]") {
		t.Errorf("the standard library is missing:\n%s", s)
	}
	if !strings.Contains(s, "greeting") {
		t.Errorf("the module is missing:\n%s", s)
	}
}

func TestWhatIsNotBare(t *testing.T) {
	for name, file := range map[string]imagetest.File{
		"a shell":           {Path: "bin/sh", Body: []byte("x"), Mode: 0o755},
		"a dynamic loader":  {Path: "lib64/ld-linux-x86-64.so.2", Body: []byte("x")},
		"musl":              {Path: "lib/ld-musl-x86_64.so.1", Body: []byte("x")},
		"another's name":    {Path: "usr/lib/os-release", Body: []byte("ID=x\n")},
		"a distroless base": {Path: "var/lib/dpkg/status.d/base", Body: []byte("Package: base-files\nVersion: 1\nStatus: install ok installed\n")},
	} {
		t.Run(name, func(t *testing.T) {
			if got := take(t, imagetest.Image(t, imagetest.Layer(t, imagetest.Tar(t, file)))); got.Bare {
				t.Errorf("bare, packages %v", got.Packages)
			}
		})
	}
}

func TestDocumentDependsOnTheImageOnly(t *testing.T) {
	image := imagetest.Image(t, imagetest.Layer(t, imagetest.Tar(t, imagetest.Debian(
		imagetest.DebPackage{Name: "a", Version: "1", Licence: "Expat"}, imagetest.DebPackage{Name: "b", Version: "2", Licence: "GPL-2+"})...)))
	first, second := take(t, image), take(t, image)
	if !bytes.Equal(first.SPDX, second.SPDX) {
		t.Error("two SPDX documents of one image differ")
	}
	var spdx struct {
		SPDXVersion  string `json:"spdxVersion"`
		CreationInfo struct {
			Created string `json:"created"`
		} `json:"creationInfo"`
		Packages []struct {
			Name            string `json:"name"`
			LicenseDeclared string `json:"licenseDeclared"`
		} `json:"packages"`
	}
	if err := json.Unmarshal(first.SPDX, &spdx); err != nil {
		t.Fatal(err)
	}
	if spdx.SPDXVersion != "SPDX-2.3" || spdx.CreationInfo.Created != "2026-01-02T03:04:05Z" || len(spdx.Packages) != 3 {
		t.Errorf("%+v", spdx)
	}
}

func TestBrokenPackageDatabasesAreNoPanic(t *testing.T) {
	for name, file := range map[string]imagetest.File{
		"dpkg": {Path: "var/lib/dpkg/status", Body: bytes.Repeat([]byte("Package: \x00\xff\n\n:::\n"), 1000)},
		"apk":  {Path: "lib/apk/db/installed", Body: []byte("P:\nV\x00\nF:\n")},
		"rpm":  {Path: "var/lib/rpm/rpmdb.sqlite", Body: []byte("SQLite format 3\x00 and nothing")},
		"rpm4": {Path: "var/lib/rpm/Packages", Body: bytes.Repeat([]byte{0xff}, 4096)},
		"npm":  {Path: "app/package.json", Body: []byte(`{"name": `)},
		"jar":  {Path: "app/app.jar", Body: []byte("PK\x03\x04 and nothing")},
		"elf":  {Path: "app", Body: append([]byte("\x7fELF\x02\x01\x01"), bytes.Repeat([]byte{0xfe}, 200)...), Mode: 0o755},
	} {
		t.Run(name, func(t *testing.T) {
			got := take(t, imagetest.Image(t, imagetest.Layer(t, imagetest.Tar(t, file))))
			if len(got.Packages) == 0 && len(got.Unread) == 0 {
				t.Error("nothing is said of it")
			}
		})
	}
}

func TestSkippedFilesAreNotParsed(t *testing.T) {
	lock := []byte(`{"name":"x","version":"1.0.0","lockfileVersion":3,"packages":{}}`)
	image := imagetest.Image(t, imagetest.Layer(t, imagetest.Tar(t,
		imagetest.File{Path: "a/package.json", Body: lock}, imagetest.File{Path: "b[1]/package.json", Body: lock})))
	manifest, _ := image.RawManifest()
	inventory, err := taker.Take(t.Context(), Subject{Image: image, Name: "x", Digest: "sha256:" + strings.Repeat("0", 64), Manifest: manifest,
		Skip: []string{"/b[1]/package.json"}}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if len(inventory.Packages) != 1 || inventory.Packages[0].Path != "/a/package.json" {
		t.Errorf("%+v", inventory.Packages)
	}
}

func TestVersionIsTheLinkedOne(t *testing.T) {
	module, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(module), "github.com/anchore/syft v"+strings.TrimPrefix(Version, "syft-")) {
		t.Errorf("go.mod does not require %s", Version)
	}
}
