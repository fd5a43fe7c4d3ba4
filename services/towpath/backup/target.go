package backup

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ErrExists is wrapped where a file is there whose place a backup must not take.
var ErrExists = errors.New("it exists")

// Free returns an error that wraps ErrExists where a backup may not be written to file. overwrite lets one take the place
// of another backup, and of nothing else. An encrypted file (age) is taken for one: nobody can see what it holds.
func Free(file string, overwrite bool) error {
	info, err := os.Lstat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !overwrite:
		return ErrExists
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w, and is no backup but %s", ErrExists, info.Mode().Type())
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	start := make([]byte, len(ageMagic))
	if n, err := io.ReadFull(f, start); err == nil && string(start) == ageMagic {
		return nil
	} else if entry, err := tar.NewReader(io.MultiReader(bytes.NewReader(start[:n]), f)).Next(); err != nil || entry.Name != headerName {
		return fmt.Errorf("%w, and is no backup", ErrExists)
	}
	return nil
}

// put gives a whole backup its name. Unless overwrite says so it never takes that of a file which is there, even of one
// that came a moment ago.
func put(whole, file string, overwrite bool) error {
	err := os.Link(whole, file)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		err = reserve(whole, file)
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := Free(file, overwrite); err != nil {
		return err
	}
	return os.Rename(whole, file)
}

// reserve does it where a file cannot have two names, as on FAT: it makes an empty file first, which a crash leaves.
func reserve(whole, file string) error {
	mine, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(mine.Close(), os.Rename(whole, file)); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	return nil
}
