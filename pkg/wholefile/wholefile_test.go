package wholefile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"towpath.dev/pkg/wholefile"
)

func TestAFileIsReplacedWithTheModeAsked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("a longer text than the new one"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o600, 0o444, 0o700} {
		if err := wholefile.Write(path, []byte("new"), mode); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != "new" || info.Mode() != mode {
			t.Errorf("%q, mode %s, %v; want \"new\", mode %s", data, info.Mode(), err, mode)
		}
	}
	alone(t, path)
}

// What cannot be written whole is not written at all, and leaves nothing beside it.
func TestAFailureLeavesWhatWasThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := wholefile.Write(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	full := errors.New("the disk is full")
	err := wholefile.Make(path, 0o600, func(f *os.File) error {
		if _, err := f.WriteString("half of"); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != "old" {
			t.Errorf("a reader saw %q, %v while it was written", data, err)
		}
		return full
	})
	if !errors.Is(err, full) {
		t.Errorf("the error is %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "old" {
		t.Errorf("%q, %v stays", data, err)
	}
	alone(t, path)
	if err := wholefile.Write(filepath.Join(path, "below a file"), nil, 0o600); err == nil {
		t.Error("a file was written below a file")
	}
}

func alone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v, %v", entries, err)
	}
}
