package contents

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// content is a file's bytes, which can be read more than once.
type content struct {
	at   io.ReaderAt
	size int64
	// remove takes it off the disk; nil: it lies in memory or in the layer.
	remove func()
}

func sectionContent(file io.ReaderAt, at, size int64) content {
	return content{at: io.NewSectionReader(file, at, size), size: size}
}

func (c content) reader() *io.SectionReader { return io.NewSectionReader(c.at, 0, c.size) }

// head returns the first n bytes, or fewer.
func (c content) head(n int64) []byte {
	head := make([]byte, min(n, c.size))
	read, _ := c.at.ReadAt(head, 0)
	return head[:read]
}

func (c content) close() {
	if c.remove != nil {
		c.remove()
	}
}

// counted takes what is read from the budget.
type counted struct {
	from   io.Reader
	budget *Budget
}

func (r counted) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if r.budget.bytes.Add(-int64(n)) < 0 {
		return n, errBudget
	}
	return n, err
}

// spool makes a stream readable more than once: in memory, or on the disk where it is large.
func (l *layer) spool(from io.Reader) (content, error) {
	from = counted{from, l.budget}
	var small bytes.Buffer
	n, err := io.CopyN(&small, from, inMemory)
	if err == io.EOF {
		return content{at: bytes.NewReader(small.Bytes()), size: n}, nil
	}
	if err != nil {
		return content{}, err
	}
	file, err := os.CreateTemp(l.scratch, "file-")
	if err != nil {
		return content{}, &machineError{fmt.Errorf("looking into an archive: %w", err)}
	}
	remove := func() {
		file.Close()
		os.Remove(file.Name())
	}
	if _, err = file.Write(small.Bytes()); err != nil {
		remove()
		return content{}, &machineError{fmt.Errorf("looking into an archive: %w", err)}
	}
	to := &diskWriter{file: file}
	rest, err := io.Copy(to, from)
	if to.err != nil {
		err = &machineError{fmt.Errorf("looking into an archive: %w", to.err)}
	}
	if err != nil {
		remove()
		return content{}, err
	}
	return content{at: file, size: n + rest, remove: remove}, nil
}

// diskWriter keeps the disk's error apart from the archive's.
type diskWriter struct {
	file *os.File
	err  error
}

func (w *diskWriter) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.err = err
	return n, err
}
