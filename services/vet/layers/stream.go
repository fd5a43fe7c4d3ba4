package layers

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// errLimit ends reading at the limit of bytes.
var errLimit = errors.New("the limit is reached")

// sourceReader keeps the error of the registry apart from those of unpacking what it sent, and ends with
// the context.
type sourceReader struct {
	ctx    context.Context
	Reader io.ReadCloser
	err    error // the first that is not the end
}

func (r *sourceReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		r.err = context.Cause(r.ctx)
		return 0, r.err
	}
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF && r.err == nil {
		r.err = err
	}
	return n, err
}

// countingWriter writes up to a number of bytes, and keeps the disk's error apart.
type countingWriter struct {
	to      io.Writer
	left    int64 // below zero: more was to be written than allowed
	written int64
	err     error
}

func (w *countingWriter) Write(p []byte) (int, error) {
	if w.left -= int64(len(p)); w.left < 0 {
		return 0, errLimit
	}
	n, err := w.to.Write(p)
	w.written += int64(n)
	w.err = err
	return n, err
}

// Magic numbers of the compressions that layers have.
const (
	gzipMagic = "\x1f\x8b"
	zstdMagic = "\x28\xb5\x2f\xfd"
)

// maxWindow bounds the memory of unpacking one layer, in bytes; zstd asks for 8 MiB by default and for
// 128 MiB at most when told to.
const maxWindow = 128 << 20

// decompress unpacks what its first bytes say it is; anything else is read as it stands.
func decompress(source io.Reader) (unpacked io.Reader, done func(), err error) {
	buffered := bufio.NewReaderSize(source, 64<<10)
	magic, err := buffered.Peek(4)
	if err != nil && len(magic) == 0 && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case strings.HasPrefix(string(magic), gzipMagic):
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, nil, fmt.Errorf("gzip: %w", err)
		}
		return z, func() { z.Close() }, nil
	case strings.HasPrefix(string(magic), zstdMagic):
		z, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, fmt.Errorf("zstd: %w", err)
		}
		return z, z.Close, nil
	}
	return buffered, func() {}, nil
}

// isContent reports whether a registry's error is about what the image says and not about the way to it: a
// size that is not the blob's, or a configuration that is none. Bytes that are not those of their digest
// are the registry's fault. go-containerregistry keeps its error types to itself; a test holds their words
// in place.
func isContent(err error) bool {
	text := err.Error()
	for _, words := range []string{
		"error verifying size", "does not match expected size", "invalid character", "unexpected end of JSON", "cannot unmarshal",
		"unsupported hash", "cannot parse hash", "invalid digest", "parsing time",
	} {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}
