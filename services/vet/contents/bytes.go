package contents

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	// window is how much of a file is looked at at once, in bytes; windows overlap by overlap, so that what lies across
	// their edge is seen.
	window  = 1 << 20
	overlap = 16 << 10
	// textHead is how much of a file decides whether it is text, in bytes.
	textHead = 8000
)

// bytes looks at a file's bytes.
func (l *layer) bytes(path string, c content) error {
	from := c.reader()
	sum := sha256.New()
	buffer := make([]byte, 0, min(c.size, window+overlap)+1)
	text := isText(c.head(textHead)) && !isListing(path)
	seen := map[Match]bool{}
	var offset int64
	lines := 0 // before the buffer
	for {
		if l.ctx.Err() != nil {
			return context.Cause(l.ctx)
		}
		kept := len(buffer)
		n, err := io.ReadFull(from, buffer[kept:min(cap(buffer), kept+window)])
		buffer = buffer[:kept+n]
		sum.Write(buffer[kept:])
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !ended {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		for _, name := range l.signatures.in(buffer, offset) {
			seen[Match{Kind: Malware, Name: name, Path: path}] = true
		}
		if text {
			for _, m := range l.secrets.in(path, buffer) {
				m.Path, m.Line = path, m.Line+lines
				seen[m] = true
			}
		}
		if ended || n == 0 {
			break
		}
		rest := min(len(buffer), overlap)
		if text { // a window begins with a line, where lines are of a usual length
			if i := bytes.IndexByte(buffer[len(buffer)-rest:], '\n'); i >= 0 {
				rest -= i + 1
			}
		}
		gone := len(buffer) - rest
		lines += bytes.Count(buffer[:gone], []byte("\n"))
		offset += int64(gone)
		copy(buffer, buffer[gone:])
		buffer = buffer[:rest]
	}
	for _, name := range l.signatures.byHash([sha256.Size]byte(sum.Sum(nil)), c.size) {
		seen[Match{Kind: Malware, Name: name, Path: path}] = true
	}
	all := make([]Match, 0, len(seen))
	for m := range seen {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Match) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return strings.Compare(a.Name, b.Name)
	})
	for _, m := range all {
		l.match(m)
	}
	return nil
}

// isText reports whether a file's beginning is text.
func isText(head []byte) bool { return !bytes.Contains(head, []byte{0}) }

// isListing knows the distributions' lists of packages and checksums, which look like secrets and are none.
func isListing(path string) bool {
	return strings.HasPrefix(path, "/var/lib/apt/lists/") || strings.HasPrefix(path, "/var/lib/dpkg/info/")
}
