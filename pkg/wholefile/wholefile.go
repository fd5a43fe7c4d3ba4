// Package wholefile puts files in their places whole: a reader, or a start after a crash, sees the old bytes or the
// new and never a part of either. When a call returns without error, the disk has the bytes and the file's name.
//
// It does not make folders, and it does not keep two writers of one file apart: the later one wins.
package wholefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write replaces the file at path, whose folder exists, by one of the given mode (the umask takes nothing of it).
func Write(path string, data []byte, mode fs.FileMode) error {
	return Make(path, mode, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// Make replaces the file at path by what fill writes. Where fill fails, what was there stays, and the error wraps
// fill's. fill is not to close the file.
func Make(path string, mode fs.FileMode, fill func(*os.File) error) error {
	if err := replace(path, mode, fill); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func replace(path string, mode fs.FileMode, fill func(*os.File) error) error {
	folder := filepath.Dir(path)
	f, err := os.CreateTemp(folder, ".new-*") // mode 0600 until it is whole
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = fill(f)
	if err == nil {
		err = errors.Join(f.Chmod(mode), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
