package ledger

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"towpath.dev/pkg/seal"
	"towpath.dev/pkg/wholefile"
)

// shelf keeps what a sealer knows from one start to the next: the tree, and package seal's files.
type shelf interface {
	// tree opens the tree.
	tree() (*seal.Tree, error)
	// read returns a file's text. The error wraps fs.ErrNotExist where there is none.
	read(name string) (string, error)
	// write replaces a file as a whole.
	write(name, text string) error
	// putAside moves files away in the order in which they are named.
	putAside(aside string, names ...string) error
}

// folder is a shelf on disk.
type folder string

func (f folder) tree() (*seal.Tree, error) {
	return seal.OpenTree(filepath.Join(string(f), seal.HashesFile))
}

func (f folder) read(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(string(f), name))
	return string(text), err
}

// write makes the folder where it was removed meanwhile.
func (f folder) write(name, text string) error {
	err := os.MkdirAll(string(f), 0o700)
	if err == nil {
		err = wholefile.Write(filepath.Join(string(f), name), []byte(text), 0o600)
	}
	if err != nil {
		return fmt.Errorf("keeping %s: %w", name, err)
	}
	return nil
}

func (f folder) putAside(aside string, names ...string) error {
	return seal.PutAside(string(f), aside, names...)
}

// nothing is the shelf of a sealer that keeps nothing: its tree is in memory.
type nothing struct{}

func (nothing) tree() (*seal.Tree, error)        { return seal.OpenTree("") }
func (nothing) read(string) (string, error)      { return "", fs.ErrNotExist }
func (nothing) write(string, string) error       { return nil }
func (nothing) putAside(string, ...string) error { return nil }
