// Package contents looks into the files of an image's layers, and into the archives among them: for programs that are known to
// be malicious, and for secrets.
//
// Each layer is looked at by itself, so that what a later layer deletes is found too. It guarantees bounded memory, and
// bounded time and disk whatever the files hold: what goes beyond the bounds is a Match and is never passed over. A Match
// never holds the text that matched. An error means that it could not look.
package contents

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sync/atomic"
)

// Kind says what a Match is.
type Kind int

// The kinds of matches.
const (
	Malware   Kind = iota // known to be malicious
	Secret                // of a form that only secrets have
	Suspected             // looks like a secret
	Unread                // could not be looked into: encrypted, or broken
	TooLarge              // more than the limits
)

// Match is one thing that was found.
type Match struct {
	Kind Kind
	Name string // of the signature, or of the kind of secret: "private-key"
	Path string // absolute, in the layer; of a file in an archive with the archive's in front: "/a.jar!/b"
	Line int    // 0: none
	Why  string // of Unread and TooLarge
}

// Limits bound what is looked at.
type Limits struct {
	Bytes int64 // unpacked, of all archives in an image together
	Files int   // entries of all archives in an image together
}

// Bounds of every image.
const (
	// maxDepth is how deep archives may lie in each other.
	maxDepth = 5
	// inMemory is the size up to which a file of an archive is held in memory, in bytes.
	inMemory = 4 << 20
	// maxMatches is how many are kept of one layer.
	maxMatches = 500
)

// Scanner looks into layers. It is safe for concurrent use.
type Scanner struct {
	signatures *Signatures
	secrets    *secrets
	clamd      *Clamd // nil: none
}

// New returns a scanner; clamd may be nil.
func New(signatures *Signatures, clamd *Clamd) (*Scanner, error) {
	s, err := newSecrets()
	if err != nil {
		return nil, err
	}
	return &Scanner{signatures, s, clamd}, nil
}

// Version names what the scanner knows: with another version the same layer may give other matches. It asks clamd.
func (s *Scanner) Version(ctx context.Context) (string, error) {
	version := "contents-1 " + secretsVersion + " signatures-" + s.signatures.Digest()
	if s.clamd == nil {
		return version, nil
	}
	database, err := s.clamd.Version(ctx)
	if err != nil {
		return "", err
	}
	return version + " " + database, nil
}

// Budget is what is left of the limits of one image. Its layers share it.
type Budget struct{ bytes, files atomic.Int64 }

// NewBudget returns all of the limits.
func NewBudget(l Limits) *Budget {
	b := &Budget{}
	b.bytes.Store(l.Bytes)
	b.files.Store(int64(l.Files))
	return b
}

// errBudget ends looking into an archive that has used up the limits.
var errBudget = errors.New("the archives in the image, unpacked, have more than the platform's limits (limits.image, limits.files)")

// layer is one call of Layer.
type layer struct {
	*Scanner
	ctx     context.Context
	scratch string // folder for files of archives
	budget  *Budget
	matches []Match
}

// Layer looks into an unpacked layer, a tar file on the disk without sparse entries. scratch is a folder that it may fill, and that the caller
// removes.
func (s *Scanner) Layer(ctx context.Context, file, scratch string, b *Budget) ([]Match, error) {
	archive, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	l := &layer{Scanner: s, ctx: ctx, scratch: scratch, budget: b}
	reader := tar.NewReader(archive)
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return l.matches, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading a layer: %w", err)
		}
		if header.Typeflag != tar.TypeReg || header.Size == 0 {
			continue
		}
		at, err := archive.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, fmt.Errorf("reading a layer: %w", err)
		}
		if err := l.file(path.Clean("/"+header.Name), sectionContent(archive, at, header.Size), 0); err != nil {
			return nil, err
		}
	}
}

func (l *layer) match(m Match) {
	if len(l.matches) < maxMatches {
		l.matches = append(l.matches, m)
	}
}

// file looks at one file: at its bytes, then, where it is an archive, into it. An error is the machine's or clamd's.
func (l *layer) file(path string, c content, depth int) error {
	if err := l.bytes(path, c); err != nil {
		return err
	}
	if depth == 0 && l.clamd != nil {
		name, err := l.clamd.Scan(l.ctx, c.reader())
		if err != nil {
			return fmt.Errorf("scanning %s: %w", path, err)
		}
		if name != "" {
			l.match(Match{Kind: Malware, Name: name, Path: path})
		}
	}
	open := archiveOf(c)
	if open == nil {
		return nil
	}
	if depth == maxDepth {
		l.match(Match{Kind: Unread, Path: path, Why: fmt.Sprintf("it is an archive in %d others", maxDepth)})
		return nil
	}
	err := open(l, path, c, depth)
	var machine *machineError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &machine):
		return machine.error
	case l.ctx.Err() != nil:
		return context.Cause(l.ctx)
	case errors.Is(err, errBudget):
		l.match(Match{Kind: TooLarge, Path: path, Why: err.Error()})
	default:
		l.match(Match{Kind: Unread, Path: path, Why: err.Error()})
	}
	return nil
}

// machineError is what an archive is not to blame for.
type machineError struct{ error }

func (e *machineError) Unwrap() error { return e.error }

// entry looks at a file of an archive.
func (l *layer) entry(archive, name string, from io.Reader, depth int) error {
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	if l.budget.files.Add(-1) < 0 {
		return errBudget
	}
	c, err := l.spool(from)
	if err != nil {
		return err
	}
	defer c.close()
	if err := l.file(archive+"!"+path.Clean("/"+name), c, depth+1); err != nil {
		return &machineError{err}
	}
	return nil
}

// Text looks for secrets in a text that is no file; a Match has no Path.
func (s *Scanner) Text(text []byte) []Match { return s.secrets.in("", text) }
