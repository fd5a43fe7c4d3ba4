package build

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/engine/enginetest"
)

// repo is a git repository that a test writes to.
type repo struct {
	t   testing.TB
	dir string
}

func newRepo(t testing.TB) *repo {
	t.Helper()
	r := &repo{t: t, dir: filepath.Join(t.TempDir(), "repo")}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.git("init", "--quiet", "--initial-branch=main")
	return r
}

func (r *repo) url() string { return "file://" + r.dir }

func (r *repo) git(args ...string) string {
	r.t.Helper()
	command := exec.Command("git", append([]string{"-c", "protocol.file.allow=always", "-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "core.hooksPath=/dev/null"}, args...)...)
	command.Dir = r.dir
	command.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_DATE=2024-05-06T07:08:09Z", "GIT_COMMITTER_DATE=2024-05-06T07:08:09Z")
	out, err := command.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit writes files (name, content, …), takes away those with the content "-", and returns the commit.
func (r *repo) commit(files ...string) string {
	r.t.Helper()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(r.dir, files[i])
		if files[i+1] == "-" {
			os.Remove(path)
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[i+1]), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
	r.git("add", "--all")
	r.git("commit", "--quiet", "--allow-empty", "-m", "change")
	return r.git("rev-parse", "HEAD")
}

// busyboxImage makes the engine have an image with a shell, under a name of the test's own, and unlike any
// other, so that the engine's cache knows nothing that was built on it.
func busyboxImage(t testing.TB, e *engine.Engine) string {
	t.Helper()
	id := fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano())
	image, err := busyboxFiles(id)
	if err != nil {
		t.Fatalf("these tests need a static busybox: %v", err)
	}
	name := "towpath-test/busybox:" + id
	if err := e.Import(t.Context(), name, bytes.NewReader(image), "", "ENV PATH=/bin"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeImage(t, e, name) })
	return name
}

func busyboxFiles(id string) ([]byte, error) {
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		if out, err := exec.Command("apt-get", "install", "-y", "--no-install-recommends", "busybox-static").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("apt-get install busybox-static: %w\n%s", err, out)
		}
		if program, err = os.ReadFile("/bin/busybox"); err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	at := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, dir := range []string{"bin/", "tmp/", id + "/"} {
		if err := w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: at}); err != nil {
			return nil, err
		}
	}
	if err := w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(program)), ModTime: at}); err != nil {
		return nil, err
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	for _, name := range []string{"sh", "ls", "cat", "sleep", "echo", "true", "false", "mkdir", "seq", "stat", "date", "test", "yes", "head", "printf"} {
		if err := w.WriteHeader(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777, ModTime: at}); err != nil {
			return nil, err
		}
	}
	err = w.Close()
	return b.Bytes(), err
}

func removeImage(t testing.TB, e *engine.Engine, name string) {
	if err := e.RemoveImage(contextOf(t), name); err != nil {
		t.Errorf("cleaning up: %v", err)
	}
}

func testEngine(t testing.TB) *engine.Engine { return enginetest.EnsureEngine(t) }

// files lists a folder: path, and content of files or target of links.
func files(t testing.TB, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			all[name], err = os.Readlink(path)
			all[name] = "-> " + all[name]
			return err
		}
		content, err := os.ReadFile(path)
		all[name] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
