// Package inventory finds out what an image consists of: its packages with their licences, the
// distribution that it stands on, and whether it stands on any. It writes that down as SPDX.
//
// It uses anchore/syft, reads only the image, and asks nobody on the network. The same image gives
// byte-identical documents with the same version of it. It judges nothing.
package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/anchore/stereoscope/pkg/file"
	"github.com/anchore/stereoscope/pkg/image"
	"github.com/anchore/syft/syft"
	"github.com/anchore/syft/syft/cataloging"
	"github.com/anchore/syft/syft/cataloging/pkgcataloging"
	"github.com/anchore/syft/syft/pkg"
	"github.com/anchore/syft/syft/sbom"
	"github.com/anchore/syft/syft/source"
	"github.com/anchore/syft/syft/source/stereoscopesource"
	_ "github.com/glebarez/go-sqlite" // RPM's package databases are of SQLite; grype brings the same driver

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Subject is the image, with its layers on the local disk.
type Subject struct {
	Image    v1.Image
	Name     string   // repository@digest
	Digest   string   // of the image in the registry
	Manifest []byte   // as the registry has it
	Skip     []string // absolute paths of files that are not to be parsed
}

// Licence is one licence that a package names.
type Licence struct {
	Name string // as the package writes it; "sha256:…" for a text that is none of the SPDX list
	SPDX string // expression, where syft knows one
}

// Package is one thing that somebody else made.
type Package struct {
	Name     string
	Version  string
	Type     string // "deb", "go-module" …
	PURL     string
	Licences []Licence
	Path     string // where the image says so
	Layer    string // DiffID
	// Own says that it is the program itself and not something that it is made of.
	Own bool
}

// Unread is a file that looked like a list of packages and could not be read.
type Unread struct{ Path, Layer, Why string }

// Inventory is what an image consists of.
type Inventory struct {
	Packages []Package // sorted
	// Distribution is the operating system's name for people; empty: the image names none.
	Distribution string
	// Bare says that the image holds nothing of an operating system: no distribution, no package
	// database, no shell, no dynamic loader. It stands on no base.
	Bare   bool
	Unread []Unread // sorted
	SPDX   []byte   // SPDX 2.3 JSON
}

// ErrAnalysis is wrapped when the image's content makes its analysis break off.
var ErrAnalysis = errors.New("the analysis broke off")

// Taker makes inventories. It is safe for concurrent use, and what it needs for recognising programs and
// licence texts (about a second of work, and 11 MiB that stay) is made once.
type Taker struct {
	once     sync.Once
	config   *syft.CreateSBOMConfig
	licences context.Context // holds syft's licence scanner
	err      error
}

// Prepare makes what the first inventory would otherwise wait for, unless that is done; where it is under way, it waits.
func (t *Taker) Prepare() error {
	t.once.Do(func() {
		defer debug.FreeOSMemory() // it takes ten times of what it leaves
		t.config = catalogers()
		t.licences, t.err = syft.SetContextLicenseScanner(context.Background(), cataloging.DefaultLicenseConfig())
	})
	return t.err
}

// prepared is a context that also has the values of another.
type prepared struct {
	context.Context
	values context.Context
}

func (c prepared) Value(key any) any {
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.values.Value(key)
}

// Take makes the inventory; dir is a folder that it may fill, and that the caller removes. An error that
// does not wrap ErrAnalysis is the disk's or ctx's.
func (t *Taker) Take(ctx context.Context, s Subject, dir string) (*Inventory, error) {
	if err := t.Prepare(); err != nil {
		return nil, fmt.Errorf("preparing to recognise licences: %w", err)
	}
	ctx = prepared{ctx, t.licences}
	read, err := readImage(ctx, s, dir)
	if err != nil {
		return nil, blame(ctx, err)
	}
	defer func() { _ = read.Cleanup() }() // the caller removes dir
	skip := make([]string, len(s.Skip))
	for i, path := range s.Skip {
		skip[i] = literal(path)
	}
	subject := stereoscopesource.New(read, stereoscopesource.ImageConfig{
		Reference: s.Name, Exclude: source.ExcludeConfig{Paths: skip},
	})
	config := *t.config
	found, err := syft.CreateSBOM(ctx, subject, &config)
	if err != nil {
		return nil, blame(ctx, err)
	}
	resolver, err := subject.FileResolver(source.SquashedScope)
	if err != nil {
		return nil, blame(ctx, err)
	}
	inventory := &Inventory{Packages: packages(found), Unread: unread(found), Distribution: distribution(found)}
	inventory.Bare = inventory.Distribution == "" && !hasSystem(resolver, found)
	if inventory.SPDX, err = spdx(found, s.Digest, read.Metadata.Config.Created.Time); err != nil {
		return nil, fmt.Errorf("%w: writing SPDX: %v", ErrAnalysis, err)
	}
	return inventory, nil
}

func readImage(ctx context.Context, s Subject, dir string) (*image.Image, error) {
	cache, err := os.MkdirTemp(dir, "layers-")
	if err != nil {
		return nil, err
	}
	read := image.New(s.Image, file.NewTempDirGenerator("towpath-vet"), cache,
		image.WithManifest(s.Manifest), image.WithRepoDigests(s.Name))
	return read, read.Read(ctx)
}

// blame tells what the machine did from what the image did.
func blame(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("analysing the image: %w", context.Cause(ctx))
	}
	for _, machine := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EIO, os.ErrPermission} {
		if errors.Is(err, machine) {
			return fmt.Errorf("analysing the image: %w", err)
		}
	}
	return fmt.Errorf("%w: %v", ErrAnalysis, err)
}

// catalogers says what syft looks for: everything that it finds in images, and no file for its own sake.
func catalogers() *syft.CreateSBOMConfig {
	packages := pkgcataloging.DefaultConfig()
	packages.Golang = packages.Golang.WithSearchLocalModCacheLicenses(false).WithSearchRemoteLicenses(false).
		WithSearchLocalVendorLicenses(false).WithUsePackagesLib(false)
	packages.JavaArchive = packages.JavaArchive.WithUseNetwork(false).WithUseMavenLocalRepository(false)
	packages.JavaScript = packages.JavaScript.WithSearchRemoteLicenses(false)
	packages.Python = packages.Python.WithSearchRemoteLicenses(false)
	return syft.DefaultCreateSBOMConfig().
		WithTool("towpath-vet", Version).
		WithPackagesConfig(packages).
		WithoutFiles().
		WithSearchConfig(cataloging.DefaultSearchConfig().WithScope(source.SquashedScope)).
		WithRelationshipsConfig(cataloging.DefaultRelationshipsConfig().WithPackageFileOwnership(false)).
		WithUnknownsConfig(cataloging.UnknownsConfig{RemoveWhenPackagesDefined: true})
}

// Version names what finds packages: with another one the same image may give another inventory. A test
// compares it with the module that is linked.
const Version = "syft-1.54.1"

// literal escapes what a pattern of paths gives a meaning to.
func literal(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "{", `\{`, "]", `\]`, "}", `\}`).Replace(path)
}

func packages(found *sbom.SBOM) []Package {
	var all []Package
	for p := range found.Artifacts.Packages.Enumerate() {
		one := Package{Name: p.Name, Version: p.Version, Type: string(p.Type), PURL: p.PURL, Own: isOwn(p)}
		for _, l := range p.Licenses.ToSlice() {
			one.Licences = append(one.Licences, Licence{Name: l.Value, SPDX: l.SPDXExpression})
		}
		if locations := p.Locations.ToSlice(); len(locations) > 0 {
			one.Path, one.Layer = locations[0].RealPath, locations[0].FileSystemID
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Package) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version),
			cmp.Compare(a.Type, b.Type), cmp.Compare(a.PURL, b.PURL), cmp.Compare(a.Path, b.Path))
	})
	return all
}

// isOwn knows the module that a Go program was built from.
func isOwn(p pkg.Package) bool {
	build, ok := p.Metadata.(pkg.GolangBinaryBuildinfoEntry)
	return ok && build.MainModule == p.Name && len(build.BuildSettings) > 0
}

func unread(found *sbom.SBOM) []Unread {
	var all []Unread
	for place, reasons := range found.Artifacts.Unknowns {
		slices.Sort(reasons)
		all = append(all, Unread{Path: place.RealPath, Layer: place.FileSystemID, Why: strings.Join(reasons, "; ")})
	}
	slices.SortFunc(all, func(a, b Unread) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Layer, b.Layer)) })
	return all
}

func distribution(found *sbom.SBOM) string {
	d := found.Artifacts.LinuxDistribution
	if d == nil {
		return ""
	}
	return cmp.Or(d.PrettyName, strings.TrimSpace(d.Name+" "+d.VersionID), strings.TrimSpace(d.ID+" "+d.VersionID))
}

// systemTypes are the packages that an operating system installs.
var systemTypes = []pkg.Type{pkg.DebPkg, pkg.ApkPkg, pkg.RpmPkg, pkg.AlpmPkg, pkg.PortagePkg, pkg.NixPkg}

// hasSystem looks for what only an operating system brings.
func hasSystem(resolver pathResolver, found *sbom.SBOM) bool {
	for p := range found.Artifacts.Packages.Enumerate(systemTypes...) {
		return p.Name != ""
	}
	for _, path := range []string{"/bin/sh", "/usr/bin/sh", "/bin/busybox", "/bin/bash", "/usr/bin/bash", "/etc/os-release", "/usr/lib/os-release",
		"/var/lib/dpkg", "/lib/apk", "/var/lib/rpm", "/usr/lib/sysimage/rpm", "/var/lib/pacman"} {
		if resolver.HasPath(path) {
			return true
		}
	}
	for _, libraries := range []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64"} {
		loaders, err := resolver.FilesByGlob(libraries+"/**/ld-linux*.so*", libraries+"/**/ld-musl-*.so*", libraries+"/**/libc.so.6")
		if err != nil || len(loaders) > 0 {
			return true
		}
	}
	return false
}
