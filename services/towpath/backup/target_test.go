package backup

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// archive is a tar with one entry of that name.
func archive(t *testing.T, name string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Format: tar.FormatPAX}), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A backup takes the place of nothing, and with overwrite only of another backup.
func TestPut(t *testing.T) {
	for name, c := range map[string]struct {
		there     string // "": nothing
		overwrite bool
		why       string // "": it is put there
	}{
		"nothing":                        {"", false, ""},
		"nothing, overwrite":             {"", true, ""},
		"another file":                   {"127.0.0.1 localhost\n", false, "it exists"},
		"another file, overwrite":        {"127.0.0.1 localhost\n", true, "it exists, and is no backup"},
		"another archive, overwrite":     {archive(t, "hello.txt"), true, "it exists, and is no backup"},
		"a backup":                       {archive(t, headerName), false, "it exists"},
		"a backup, overwrite":            {archive(t, headerName), true, ""},
		"an encrypted backup, overwrite": {ageMagic + "\n...", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			whole, file := filepath.Join(folder, "whole"), filepath.Join(folder, "file")
			want := "a new backup"
			if err := os.WriteFile(whole, []byte(want), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.there != "" {
				if err := os.WriteFile(file, []byte(c.there), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := put(whole, file, c.overwrite)
			if (err == nil) != (c.why == "") || err != nil && (!errors.Is(err, ErrExists) || err.Error() != c.why) {
				t.Fatalf("%v, want %q", err, c.why)
			}
			if c.why != "" {
				want = c.there
			}
			if got, err := os.ReadFile(file); err != nil || string(got) != want {
				t.Errorf("the file has %q, %v", got, err)
			}
		})
	}
}

// A folder, or a link to a backup, is not replaced.
func TestPutOntoWhatIsNoFile(t *testing.T) {
	folder := t.TempDir()
	whole, to, link := filepath.Join(folder, "whole"), filepath.Join(folder, "to"), filepath.Join(folder, "link")
	for _, name := range []string{whole, to} {
		if err := os.WriteFile(name, []byte(archive(t, headerName)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(to, link); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{folder, link} {
		if err := put(whole, file, true); !errors.Is(err, ErrExists) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// Where a file cannot have two names, one that is there stays as well.
func TestReserve(t *testing.T) {
	folder := t.TempDir()
	whole, file := filepath.Join(folder, "whole"), filepath.Join(folder, "file")
	if err := os.WriteFile(whole, []byte("a backup"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := reserve(whole, file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(whole, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := reserve(whole, file); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto a file: %v", err)
	}
	if got, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(got), "a backup") {
		t.Errorf("%q, %v", got, err)
	}
	if err := reserve(filepath.Join(folder, "nothing"), filepath.Join(folder, "new")); err == nil {
		t.Error("nothing was moved")
	}
	if _, err := os.Stat(filepath.Join(folder, "new")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty file stayed: %v", err)
	}
}
