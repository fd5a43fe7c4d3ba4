package system

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/docker/docker/api/types/image"
)

// ImportBase gives an Engine a base image under a name that a Dockerfile uses, made from this machine's files, so
// that builds of other people's services need no registry of the internet. kind is "toolchain" (Go, a shell, make
// and the usual small programs) or "empty" (a root with certificates, users and nothing that runs).
func ImportBase(ctx context.Context, host, kind, name string) error {
	d, err := openDocker(ctx, host)
	if err != nil {
		return err
	}
	defer d.close()
	read, write := io.Pipe()
	go func() {
		root := rootfs{tar: tar.NewWriter(write), seen: map[string]bool{}}
		err := root.common()
		if kind == "toolchain" && err == nil {
			err = root.toolchain()
		}
		write.CloseWithError(errors.Join(err, root.tar.Close()))
	}()
	changes := []string{"ENV PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if kind == "toolchain" {
		changes = append(changes, "ENV GOTOOLCHAIN=local GOPATH=/go GOFLAGS=-buildvcs=false")
	}
	response, err := d.api.ImageImport(ctx, image.ImportSource{Source: read, SourceName: "-"}, name, image.ImportOptions{Changes: changes})
	if err != nil {
		return fmt.Errorf("importing base image %s: %w", name, err)
	}
	defer response.Close()
	answer, err := io.ReadAll(response)
	if err != nil {
		return fmt.Errorf("importing base image %s: %w", name, err)
	}
	if !strings.Contains(string(answer), "sha256:") {
		return fmt.Errorf("importing base image %s: %s", name, answer)
	}
	return nil
}

// rootfs writes files of this machine into an image's only layer.
type rootfs struct {
	tar  *tar.Writer
	seen map[string]bool
}

func (r *rootfs) common() error {
	for _, folder := range []string{"tmp", "root", "etc", "go", "usr/local"} {
		if err := r.folder(folder); err != nil {
			return err
		}
	}
	if err := r.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"); err != nil {
		return err
	}
	if err := r.text("etc/group", "root:x:0:\nnonroot:x:65532:\n"); err != nil {
		return err
	}
	return r.copy("/etc/ssl/certs/ca-certificates.crt", "etc/ssl/certs/ca-certificates.crt")
}

// programs are what makefiles of Go services use.
var programs = []string{
	"sh", "bash", "env", "make", "git", "ls", "cp", "mv", "rm", "rmdir", "mkdir", "cat", "chmod", "chown", "ln", "sed", "grep",
	"awk", "tr", "cut", "head", "tail", "date", "uname", "dirname", "basename", "test", "expr", "sort", "uniq", "wc",
	"touch", "id", "true", "false", "echo", "printf", "find", "xargs", "tar", "gzip", "pwd", "sleep", "which",
}

func (r *rootfs) toolchain() error {
	for _, name := range programs {
		path, err := exec.LookPath(name)
		if err != nil {
			continue // a shell has it built in
		}
		if err := r.program(path, "usr/bin/"+name); err != nil {
			return err
		}
	}
	if err := r.link("bin", "usr/bin"); err != nil {
		return err
	}
	goroot, err := output(context.Background(), nil, "go", "env", "GOROOT")
	if err != nil {
		return err
	}
	return r.goroot(strings.TrimSpace(goroot))
}

// goroot copies the Go toolchain without what only its own developers need.
func (r *rootfs) goroot(from string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir() && (entry.Name() == "testdata" || below == "test" || below == "doc" || below == "api" || below == "misc" || below == ".git"):
			return fs.SkipDir
		case entry.IsDir():
			return r.folder(filepath.Join("usr/local/go", below))
		case strings.HasSuffix(path, "_test.go") || !entry.Type().IsRegular():
			return nil
		}
		return r.copy(path, filepath.Join("usr/local/go", below))
	})
}

// program copies a program and the libraries that it is linked with, to where it looks for them.
func (r *rootfs) program(from, to string) error {
	if err := r.copy(from, to); err != nil {
		return err
	}
	libraries, err := exec.Command("ldd", from).Output()
	if err != nil {
		return nil // static, or a script
	}
	for line := range strings.Lines(string(libraries)) {
		for _, field := range strings.Fields(line) {
			if strings.HasPrefix(field, "/") {
				if err := r.copy(field, strings.TrimPrefix(field, "/")); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (r *rootfs) folder(name string) error {
	if r.seen[name] || name == "." {
		return nil
	}
	if err := r.folder(filepath.Dir(name)); err != nil {
		return err
	}
	r.seen[name] = true
	mode := int64(0o755)
	if name == "tmp" {
		mode = 0o1777
	}
	return r.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode})
}

func (r *rootfs) link(name, to string) error {
	return r.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777})
}

func (r *rootfs) text(name, text string) error {
	if err := r.folder(filepath.Dir(name)); err != nil {
		return err
	}
	if err := r.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
		return err
	}
	_, err := io.WriteString(r.tar, text)
	return err
}

func (r *rootfs) copy(from, to string) error {
	if r.seen[to] {
		return nil
	}
	r.seen[to] = true
	if err := r.folder(filepath.Dir(to)); err != nil {
		return err
	}
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := r.tar.WriteHeader(&tar.Header{Name: to, Mode: int64(info.Mode().Perm()), Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(r.tar, file)
	return err
}
