// Package layers brings an image's layers onto the local disk, unpacked, and looks at their form: are they
// what the image's configuration says, whole, within bounds, and do they stay inside of the image.
//
// It guarantees bounded disk, memory and number of entries whatever the image holds, and that a DiffID of
// an Image is the hash of bytes that were read. It judges nothing: what is wrong with the image's form is
// a Fault, and an error means that the image could not be read.
package layers

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	gopath "path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Limits bound an image.
type Limits struct {
	Bytes int64 // of the unpacked layers together
	Files int   // entries of all layers together
}

// Bounds that every image keeps: engines refuse more, or nobody needs it.
const (
	maxLayers = 512
	maxConfig = 8 << 20 // bytes of the image's configuration
	// bigFile is the size from which a file is read by nobody unless it is a program or an archive.
	bigFile = 64 << 20
)

// Kind says what a Fault is about.
type Kind int

// The kinds of faults.
const (
	Malformed Kind = iota // not an image that an engine could run as it says
	TooLarge              // more than the limits
)

// Fault is something wrong with the form of an image.
type Fault struct {
	Kind  Kind
	Layer string // DiffID as the configuration names it; empty: the image as a whole
	Path  string // in the layer; empty: the layer as a whole
	What  string // for people
}

// Image is an image whose layers lie on the local disk.
type Image struct {
	DiffIDs []string // of the layers that were read, the lowest first; each is the hash of what was read
	Config  *v1.ConfigFile
	// Manifest is the bytes that the registry's digest names.
	Manifest []byte
	Faults   []Fault
	// Big are the paths of files of more than 64 MiB that are neither programs nor archives. They are not
	// to be parsed.
	Big []string
	// Privileged are the programs that whoever runs them runs as their owner or group, of the image as it runs, sorted by
	// path: at most 1,000.
	Privileged []Privileged
	// Users are the user ids by name, as the image's /etc/passwd has them.
	Users   map[string]string
	Files   int
	Bytes   int64
	layers  []diskLayer
	rawJSON []byte
}

// Whole reports whether every layer was read, so that its content can be analysed.
func (i *Image) Whole() bool { return len(i.Faults) == 0 }

// Unpack reads every layer of image into dir. Reading stops at the first fault that makes the rest
// meaningless. An error is the registry's, the disk's or ctx's.
func Unpack(ctx context.Context, image v1.Image, dir string, limits Limits) (*Image, error) {
	u := &unpacking{ctx: ctx, dir: dir, limits: limits, image: &Image{}, modes: newModes()}
	remoteLayers, err := u.open(image)
	if err != nil || !u.image.Whole() {
		return u.image, err
	}
	for n, layer := range remoteLayers {
		if err := ctx.Err(); err != nil {
			return u.image, fmt.Errorf("reading the image: %w", context.Cause(ctx))
		}
		whole, err := u.layer(n, layer)
		if err != nil {
			return u.image, fmt.Errorf("reading layer %d of %d: %w", n+1, len(remoteLayers), err)
		}
		if !whole {
			break
		}
	}
	u.image.Privileged = u.modes.list()
	u.image.Users = users(u.passwd)
	return u.image, nil
}

// unpacking is one call of Unpack.
type unpacking struct {
	ctx    context.Context
	dir    string
	limits Limits
	image  *Image
	modes  modes
	passwd []byte
}

func (u *unpacking) fault(kind Kind, layer, path, format string, args ...any) {
	u.image.Faults = append(u.image.Faults, Fault{kind, layer, path, fmt.Sprintf(format, args...)})
}

// open reads manifest and configuration.
func (u *unpacking) open(image v1.Image) ([]v1.Layer, error) {
	manifest, err := image.Manifest()
	if err == nil {
		u.image.Manifest, err = image.RawManifest()
	}
	if err != nil {
		return nil, u.unreadable("its manifest", err)
	}
	switch {
	case manifest.Config.Size > maxConfig || manifest.Config.Size < 0:
		u.fault(Malformed, "", "", "its configuration has %d bytes, allowed are %d", manifest.Config.Size, maxConfig)
		return nil, nil
	case !manifest.Config.MediaType.IsConfig():
		u.fault(Malformed, "", "", "it is no container image: its configuration is of type %.100q", manifest.Config.MediaType)
		return nil, nil
	case len(manifest.Layers) > maxLayers:
		u.fault(TooLarge, "", "", "it has %d layers, allowed are %d", len(manifest.Layers), maxLayers)
		return nil, nil
	}
	for _, d := range manifest.Layers {
		if len(d.URLs) > 0 || !d.MediaType.IsDistributable() {
			u.fault(Malformed, "", "", "layer %s is kept outside of the registry, where it can change", d.Digest)
		}
	}
	if !u.image.Whole() {
		return nil, nil
	}
	if u.image.rawJSON, err = image.RawConfigFile(); err == nil {
		u.image.Config, err = image.ConfigFile()
	}
	if err != nil {
		return nil, u.unreadable("its configuration", err)
	}
	if got := len(u.image.Config.RootFS.DiffIDs); got != len(manifest.Layers) {
		u.fault(Malformed, "", "", "its configuration names %d layers and its manifest %d", got, len(manifest.Layers))
		return nil, nil
	}
	layers, err := image.Layers()
	if err != nil {
		return nil, u.unreadable("its layers", err)
	}
	return layers, nil
}

// unreadable makes a fault of what is wrong with the bytes, and returns what is wrong with the way to
// them.
func (u *unpacking) unreadable(what string, err error) error {
	if !isContent(err) {
		return fmt.Errorf("reading %s: %w", what, err)
	}
	u.fault(Malformed, "", "", "%s cannot be read: %v", what, err)
	return nil
}

// layer reads one layer; whole says whether the next can be read.
func (u *unpacking) layer(n int, layer v1.Layer) (whole bool, err error) {
	claimed := u.image.Config.RootFS.DiffIDs[n].String()
	source := &sourceReader{ctx: u.ctx}
	if source.Reader, err = layer.Compressed(); err != nil {
		return false, u.unreadable("layer "+claimed, err)
	}
	defer source.Reader.Close()
	path := filepath.Join(u.dir, fmt.Sprintf("layer-%03d.tar", n))
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false, err
	}
	defer file.Close()
	before := len(u.image.Faults)
	sum := sha256.New()
	content := &countingWriter{to: io.MultiWriter(file, sum), left: u.limits.Bytes - u.image.Bytes}
	err = u.walk(claimed, source, content)
	u.image.Bytes += content.written
	switch {
	case content.err != nil:
		return false, fmt.Errorf("writing to the local disk: %w", content.err)
	case source.err != nil && !isContent(source.err):
		return false, source.err
	case content.left < 0:
		u.fault(TooLarge, claimed, "", "unpacked, the image has more than %d MiB", u.limits.Bytes>>20)
		return false, nil
	case err != nil:
		u.fault(Malformed, claimed, "", "the layer is cut short or is no archive: %v", err)
		return false, nil
	case len(u.image.Faults) > before:
		return false, nil
	}
	if read := "sha256:" + hex.EncodeToString(sum.Sum(nil)); read != claimed {
		u.fault(Malformed, claimed, "", "the configuration names layer %s, the layer read is %s", claimed, read)
		return false, nil
	}
	u.image.DiffIDs = append(u.image.DiffIDs, claimed)
	u.image.layers = append(u.image.layers, diskLayer{path: path, diffID: u.image.Config.RootFS.DiffIDs[n]})
	return true, file.Close()
}

// walk unpacks the layer into content while it reads the archive's headers.
func (u *unpacking) walk(layer string, source io.Reader, content *countingWriter) error {
	unpacked, done, err := decompress(source)
	if err != nil {
		return err
	}
	defer done()
	through := io.TeeReader(unpacked, content)
	archive := tar.NewReader(through)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if u.image.Files++; u.image.Files > u.limits.Files {
			u.fault(TooLarge, layer, "", "the image has more than %d files", u.limits.Files)
			return nil
		}
		if err := u.entry(layer, header, archive); err != nil {
			return err
		}
		if header.Size > u.limits.Bytes {
			u.fault(TooLarge, layer, header.Name, "the file has %d MiB, the whole image may have %d MiB", header.Size>>20, u.limits.Bytes>>20)
			return nil
		}
	}
	_, err = io.Copy(io.Discard, through) // what follows the archive's end belongs to the DiffID as well
	return err
}

// entry looks at one header. An error is the archive's.
func (u *unpacking) entry(layer string, header *tar.Header, content io.Reader) error {
	if escapes(header.Name) {
		u.fault(Malformed, layer, header.Name, "the entry leads out of the image")
	}
	if header.Typeflag == tar.TypeLink && escapes(header.Linkname) {
		u.fault(Malformed, layer, header.Name, "the hard link leads out of the image, to %.200q", header.Linkname)
	}
	if isSparse(header) {
		u.fault(Malformed, layer, header.Name, "the file is sparse, of %d MiB: no builder makes such layers, and an engine writes it out in full", header.Size>>20)
		return nil
	}
	path := absolute(header.Name)
	if header.Typeflag == tar.TypeReg && header.Size >= bigFile {
		var magic [4]byte
		if n, _ := io.ReadFull(content, magic[:]); !isProgram(magic[:n]) {
			u.image.Big = append(u.image.Big, path)
		}
		content = io.MultiReader(bytes.NewReader(magic[:]), content)
	}
	if path == passwdPath && header.Typeflag == tar.TypeReg {
		text, err := io.ReadAll(io.LimitReader(content, maxPasswd))
		u.passwd = text
		return err
	}
	return u.modes.entry(layer, path, header, content)
}

// isSparse reports whether a file has more bytes than the archive.
func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for name := range h.PAXRecords {
		if strings.HasPrefix(name, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// absolute is an entry's path in the image.
func absolute(name string) string { return gopath.Clean("/" + name) }

// escapes reports whether a path has a ".." that leads above its root.
func escapes(path string) bool {
	depth := 0
	for part := range strings.SplitSeq(path, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return true
			}
		default:
			depth++
		}
	}
	return strings.ContainsRune(path, 0)
}

// isProgram knows ELF, PE, Mach-O and zip (which jar files are).
func isProgram(magic []byte) bool {
	for _, known := range []string{"\x7fELF", "MZ", "\xfe\xed\xfa", "\xcf\xfa\xed\xfe", "\xca\xfe\xba\xbe", "PK\x03\x04"} {
		if strings.HasPrefix(string(magic), known) {
			return true
		}
	}
	return false
}
