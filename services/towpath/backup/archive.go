// Package backup copies a whole installation into one file while it runs, and brings it back.
//
// A backup holds everything that an event in it names. The order is what makes that so: the ledger is copied
// first, up to some event N, and only then the registry, the repositories and the settings. A service writes
// bytes before the event that names them (an image before artifact.published, a commit before change.merged,
// a setting before setting.changed); so whatever an event up to N names was there before the ledger was copied.
// Images and commits are never deleted, and are there when the rest is copied. The other way round an event could
// name an image that came after the registry's copy. What the rest has beyond N does no harm: an image that no
// event names is not used, and a commit or a setting that the ledger lacks is recorded by the gateway when it
// starts, as after a crash.
//
// Settings and secrets are copied with every version that the bus still keeps: the last 64 of a key, and none of one
// that was deleted. A deploy that was pinned to an older version cannot be made again from a backup, as it cannot be
// from the installation itself; and where more versions than that were written while a backup was made, one that an
// event names may be missing from it.
//
// Nothing is written anywhere but into the backup itself, so that an encrypted one leaves no byte in clear, and what a
// crash leaves of it is removed by the next backup into the same folder.
//
// Every file in a backup is checked against its digest when it is brought back, and the ledger event by event. A
// backup that was cut, or in which a byte is another, is refused, and leaves nothing behind.
package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"

	"towpath.dev/pkg/ledger"
)

// format is the version of the file that is written. Version 1, which has a stream as one file, is read as well; a reader
// refuses others.
const format = 2

// Names of what a backup holds beside the files themselves.
const (
	headerName   = "towpath-backup.json" // the first entry
	manifestName = "manifest.json"       // the last but one: every file's size and digest
	endName      = "end"                 // the last: the manifest's own digest
)

// Header is what a backup says of itself at its beginning.
type Header struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Ledger  string    `json:"ledger"` // id of the ledger; empty: it was empty
	Keys    bool      `json:"keys"`   // the backup holds the keys
}

// Manifest is what a backup says of itself at its end.
type Manifest struct {
	Files   []File              `json:"files"`
	Streams []ledger.StreamCopy `json:"streams"`
	Head    Head                `json:"head"`
	Damaged []string            `json:"damaged,omitempty"` // blobs that were not what their names say
}

// File is one file of a backup.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Head is the ledger up to the last event that a backup holds for certain.
type Head struct {
	Seq    uint64 `json:"seq"`
	Digest string `json:"digest"` // over every event up to Seq
}

// chain is a digest over events in order: where, when, what, and who signed.
type chain struct {
	sum [sha256.Size]byte
	seq uint64
}

func (c *chain) add(r ledger.Record) {
	h := sha256.New()
	h.Write(c.sum[:])
	fmt.Fprintf(h, "%d %d %s %d %d\n", r.Seq, r.Time.UnixNano(), r.Subject, len(r.Signature), len(r.Body))
	io.WriteString(h, r.Signature)
	h.Write(r.Body)
	c.sum, c.seq = [sha256.Size]byte(h.Sum(nil)), r.Seq
}

func (c *chain) head() Head { return Head{c.seq, hex.EncodeToString(c.sum[:])} }

// writer puts files into a backup.
type writer struct {
	out      io.Closer // of the encryption; nil: none
	tar      *tar.Writer
	manifest Manifest
	count    func(int64)
	now      time.Time
}

func newWriter(w io.Writer, recipients []age.Recipient, now time.Time, count func(int64)) (*writer, error) {
	b := &writer{now: now, count: count}
	if len(recipients) > 0 {
		encrypted, err := age.Encrypt(w, recipients...)
		if err != nil {
			return nil, err
		}
		b.out, w = encrypted, encrypted
	}
	b.tar = tar.NewWriter(w)
	return b, nil
}

// add copies size bytes of r under a name; fewer are an error. It returns their digest.
func (b *writer) add(name string, size int64, r io.Reader) (digest string, err error) {
	h := sha256.New()
	if err := b.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: b.now, Format: tar.FormatPAX}); err != nil {
		return "", err
	}
	n, err := io.Copy(io.MultiWriter(b.tar, h), io.LimitReader(r, size))
	if err == nil && n < size {
		err = fmt.Errorf("%d bytes instead of %d", n, size)
	}
	if err != nil {
		return "", fmt.Errorf("copying %s: %w", name, err)
	}
	b.count(n)
	digest = hex.EncodeToString(h.Sum(nil))
	b.manifest.Files = append(b.manifest.Files, File{name, size, digest})
	return digest, nil
}

// maxPiece is the most of a stream that is held in memory, in bytes: a file's size has to be known before it is written.
const maxPiece = 4 << 20

// pieces writes what comes, of no known size, as files that are numbered from 0.
type pieces struct {
	to     *writer
	name   string // of the folder
	buffer []byte
	count  int
}

func (p *pieces) Write(data []byte) (int, error) {
	p.buffer = append(p.buffer, data...)
	for len(p.buffer) >= maxPiece {
		if err := p.flush(maxPiece); err != nil {
			return 0, err
		}
	}
	return len(data), nil
}

func (p *pieces) flush(size int) error {
	_, err := p.to.add(p.name+"/"+strconv.Itoa(p.count), int64(size), bytes.NewReader(p.buffer[:size]))
	p.buffer = append(p.buffer[:0], p.buffer[size:]...)
	p.count++
	return err
}

// close writes the rest, and an empty piece where nothing came at all.
func (p *pieces) close() error {
	if len(p.buffer) > 0 || p.count == 0 {
		return p.flush(len(p.buffer))
	}
	return nil
}

func (b *writer) addJSON(name string, value any) (digest string, err error) {
	text, err := json.Marshal(value)
	if err != nil {
		return "", err
	}
	return b.add(name, int64(len(text)), strings.NewReader(string(text)))
}

// close writes the end, without which a backup is not whole.
func (b *writer) close() error {
	digest, err := b.addJSON(manifestName, b.manifest)
	if err == nil {
		_, err = b.add(endName, int64(len(digest)), strings.NewReader(digest))
	}
	if err == nil {
		err = b.tar.Close()
	}
	if err == nil && b.out != nil {
		err = b.out.Close()
	}
	return err
}

// ErrNoBackup is wrapped, with ErrDamaged, where a file does not begin as a backup does.
var ErrNoBackup = errors.New("it is no backup, or its beginning is damaged")

// ErrDamaged is wrapped where a backup is not what was written, or is no backup.
var ErrDamaged = errors.New("the backup is damaged")

func damaged(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, a...))
}

// bounds of what is read whole.
const (
	maxHeader   = 64 << 10
	maxManifest = 1 << 30
)

// read goes through a backup from its beginning to its end, hands each file to place, and returns what it says of
// itself. Only when it returns no error is what was handed out what was written.
func read(r io.Reader, identities []age.Identity, begin func(Header) error, place func(name string, r io.Reader) error) (Header, Manifest, error) {
	var header Header
	var manifest Manifest
	r, encrypted, err := opened(r, identities)
	if err != nil {
		return header, manifest, err
	}
	seen := map[string]File{}
	entries := tar.NewReader(r)
	manifestDigest := ""
	for first := true; ; first = false {
		entry, err := entries.Next()
		if err != nil && first && !encrypted {
			return header, manifest, fmt.Errorf("%w: %w", ErrNoBackup, damaged("%v", err))
		}
		if err == io.EOF {
			return header, manifest, damaged("it ends in the middle")
		}
		if err != nil {
			return header, manifest, damaged("%v", err)
		}
		if !validName(entry.Name) || entry.Typeflag != tar.TypeReg {
			return header, manifest, damaged("an entry is called %.200q", entry.Name)
		}
		h := sha256.New()
		content := &counted{r: io.TeeReader(entries, h)}
		switch {
		case first:
			err = readHeader(entry.Name, content, &header, begin)
		case entry.Name == manifestName:
			err = readJSON(content, maxManifest, &manifest)
		case entry.Name == endName:
			err = readEnd(content, manifestDigest)
			if err == nil {
				err = compare(seen, manifest)
			}
			return header, manifest, err
		default:
			if _, twice := seen[entry.Name]; twice {
				return header, manifest, damaged("%s is in it twice", entry.Name)
			}
			err = place(entry.Name, content)
		}
		if err == nil {
			_, err = io.Copy(io.Discard, content)
		}
		if err != nil {
			return header, manifest, broken(err)
		}
		digest := hex.EncodeToString(h.Sum(nil))
		if entry.Name == manifestName {
			manifestDigest = digest
			continue
		}
		seen[entry.Name] = File{entry.Name, content.n, digest}
	}
}

// broken says of an error in the archive itself that the backup is damaged; errors of the disk stay what they are.
func broken(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged("%v", err)
	}
	return err
}

// opened decrypts what is encrypted.
func opened(r io.Reader, identities []age.Identity) (plain io.Reader, encrypted bool, err error) {
	start := make([]byte, len(ageMagic))
	n, err := io.ReadFull(r, start)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, false, err
	}
	r = io.MultiReader(bytes.NewReader(start[:n]), r)
	if string(start) != ageMagic {
		return r, false, nil
	}
	if len(identities) == 0 {
		return nil, true, ErrEncrypted
	}
	plain, err = age.Decrypt(r, identities...)
	if errors.As(err, new(*age.NoIdentityMatchError)) {
		return nil, true, fmt.Errorf("%w: %v", ErrEncrypted, err)
	}
	if err != nil {
		return nil, true, damaged("%v", err)
	}
	return plain, true, nil
}

// ageMagic begins every encrypted file.
const ageMagic = "age-encryption.org/v1"

// ErrEncrypted is wrapped where a backup is encrypted, and what opens it is missing or another.
var ErrEncrypted = errors.New("the backup is encrypted, and the passphrase or identity is missing or wrong")

func readHeader(name string, r io.Reader, header *Header, begin func(Header) error) error {
	if name != headerName {
		return fmt.Errorf("%w: %w", ErrNoBackup, damaged("it begins with %.200q", name))
	}
	if err := readJSON(r, maxHeader, header); err != nil {
		return err
	}
	if header.Format < 1 || header.Format > format {
		return fmt.Errorf("the backup has format %d, this program reads 1 to %d: use the version of Towpath that wrote it", header.Format, format)
	}
	return begin(*header)
}

func readJSON(r io.Reader, most int64, into any) error {
	if err := json.NewDecoder(io.LimitReader(r, most)).Decode(into); err != nil {
		return damaged("%v", err)
	}
	return nil
}

func readEnd(r io.Reader, want string) error {
	text, err := io.ReadAll(io.LimitReader(r, maxHeader))
	if err != nil || string(text) != want || want == "" {
		return damaged("its list of files is not what was written")
	}
	return nil
}

// compare holds what was read against the list.
func compare(seen map[string]File, manifest Manifest) error {
	if len(seen) != len(manifest.Files) {
		return damaged("it has %d files, and lists %d", len(seen), len(manifest.Files))
	}
	for _, want := range manifest.Files {
		if seen[want.Name] != want {
			return damaged("%s is not what was written", want.Name)
		}
	}
	return nil
}

// validName reports whether a name stays below the folder that it is put into.
func validName(name string) bool {
	return name != "" && name == path.Clean(name) && !path.IsAbs(name) && name != ".." && !strings.HasPrefix(name, "../") &&
		!strings.ContainsAny(name, "\\\x00")
}

// counted counts what is read.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
