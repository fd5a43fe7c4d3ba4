package seal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// PutAside moves files of a folder into a new folder below it, in the order in which they are named, and returns once
// that is on disk. Those that are not there are left out.
func PutAside(folder, aside string, names ...string) error {
	fail := func(err error) error { return fmt.Errorf("putting %s aside in %s: %w", folder, aside, err) }
	to := filepath.Join(folder, aside)
	if err := os.Mkdir(to, 0o700); err != nil {
		return fail(err)
	}
	for _, name := range names {
		if err := os.Rename(filepath.Join(folder, name), filepath.Join(to, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fail(err)
		}
	}
	if err := errors.Join(syncFolder(to), syncFolder(folder)); err != nil {
		return fail(err)
	}
	return nil
}

func syncFolder(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
