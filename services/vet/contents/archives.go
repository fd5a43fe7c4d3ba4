package contents

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// opener looks into an archive. Its error says why that ended early.
type opener func(l *layer, path string, c content, depth int) error

// maxWindow bounds the memory of unpacking zstd, in bytes.
const maxWindow = 64 << 20

// archiveOf knows an archive by its first bytes; nil: it is none that is opened.
func archiveOf(c content) opener {
	head := c.head(512)
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return openZip
	case len(head) == 512 && bytes.Equal(head[257:262], []byte("ustar")):
		return func(l *layer, path string, c content, depth int) error { return openTar(l, path, c.reader(), depth) }
	case bytes.HasPrefix(head, []byte("\x1f\x8b\x08")):
		return compressed(func(r io.Reader) (io.Reader, func(), error) {
			z, err := gzip.NewReader(r)
			return z, func() {}, err
		})
	case bytes.HasPrefix(head, []byte("BZh")):
		return compressed(func(r io.Reader) (io.Reader, func(), error) { return bzip2.NewReader(r), func() {}, nil })
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		return compressed(func(r io.Reader) (io.Reader, func(), error) {
			z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
			if err != nil {
				return nil, nil, err
			}
			return z, z.Close, nil
		})
	}
	return nil
}

// compressed unpacks one stream, which most often is a tar.
func compressed(unpack func(io.Reader) (io.Reader, func(), error)) opener {
	return func(l *layer, path string, c content, depth int) error {
		stream, done, err := unpack(c.reader())
		if err != nil {
			return err
		}
		defer done()
		return l.entry(path, "unpacked", stream, depth)
	}
}

func openTar(l *layer, path string, from io.Reader, depth int) error {
	reader := tar.NewReader(from)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if header.Typeflag != tar.TypeReg || header.Size == 0 {
			continue
		}
		if err := l.entry(path, header.Name, reader, depth); err != nil {
			return err
		}
	}
}

func openZip(l *layer, path string, c content, depth int) error {
	reader, err := zip.NewReader(c.at, c.size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return err
	}
	const encrypted = 1
	var first error // of an entry; the others are looked at all the same
	for _, f := range reader.File {
		if strings.HasSuffix(f.Name, "/") || f.UncompressedSize64 == 0 && f.CompressedSize64 == 0 {
			continue
		}
		if f.Flags&encrypted != 0 {
			first = cmpErr(first, fmt.Errorf("%s in it is encrypted", f.Name))
			continue
		}
		opened, err := f.Open()
		if err != nil {
			first = cmpErr(first, fmt.Errorf("%s in it: %w", f.Name, err))
			continue
		}
		err = l.entry(path, f.Name, opened, depth)
		opened.Close()
		var machine *machineError
		if errors.As(err, &machine) || errors.Is(err, errBudget) || l.ctx.Err() != nil {
			return err
		}
		if err != nil {
			first = cmpErr(first, fmt.Errorf("%s in it: %w", f.Name, err))
		}
	}
	return first
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
