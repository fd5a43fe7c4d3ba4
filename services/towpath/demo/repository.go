package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"towpath.dev/services/towpath/screen"
)

// repository is the sample app's git repository.
type repository struct {
	dir string
	env []string
}

// newRepository copies the sample app into a git repository of its own, whose remote "towpath" is the
// gateway and whose credentials come from this program.
func newRepository(ctx context.Context, app, dir, program, data string) (*repository, error) {
	if err := os.CopyFS(dir, os.DirFS(app)); err != nil {
		return nil, fmt.Errorf("copying the sample app %s: %w", app, err)
	}
	r := &repository{dir: dir, env: append(os.Environ(), "GIT_TERMINAL_PROMPT=0")}
	if err := r.git(ctx, nil, "init", "-q", "-b", "main"); err != nil {
		return nil, err
	}
	if err := r.identity(ctx); err != nil {
		return nil, err
	}
	if err := r.build(ctx); err != nil {
		return nil, err
	}
	if err := r.git(ctx, nil, "add", "-A"); err != nil {
		return nil, err
	}
	remote := exec.CommandContext(ctx, program, "remote", "--data", data)
	remote.Dir, remote.Env = dir, cleanEnv()
	if out, err := remote.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("adding the remote: %w: %s", err, out)
	}
	return r, nil
}

// identity names an author where this machine's git knows none.
func (r *repository) identity(ctx context.Context) error {
	for name, value := range map[string]string{"user.name": "Demo Author", "user.email": "author@demo.localhost"} {
		if r.git(ctx, nil, "config", name) == nil {
			continue
		}
		if err := r.git(ctx, nil, "config", name, value); err != nil {
			return err
		}
	}
	return nil
}

// build compiles the app as its Dockerfile wants it: a static program beside it.
func (r *repository) build(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", app, ".")
	cmd.Dir, cmd.Env = r.dir, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compiling the sample app: %w: %s", err, out)
	}
	return nil
}

// edit replaces a text that is there once.
func (r *repository) edit(name, from, to string) error {
	path := filepath.Join(r.dir, name)
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if strings.Count(string(data), from) != 1 {
		return fmt.Errorf("editing the sample app: %s does not hold %q once", name, from)
	}
	return os.WriteFile(path, []byte(strings.Replace(string(data), from, to, 1)), 0o644)
}

// commit compiles and commits everything.
func (r *repository) commit(ctx context.Context, message string) error {
	if err := r.build(ctx); err != nil {
		return err
	}
	return r.git(ctx, nil, "commit", "-q", "-a", "-m", message)
}

// push pushes main and shows what git says of it.
func (r *repository) push(ctx context.Context, t *teller) error {
	out := t.output()
	defer out.Close()
	return r.git(ctx, out, "push", "-q", "towpath", "main")
}

// git runs git in the repository. What it says goes to out, or into the error where out is nil.
func (r *repository) git(ctx context.Context, out *indented, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Env = r.dir, r.env
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if out != nil {
		cmd.Stdout, cmd.Stderr = out, out
	}
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return errors.New("git is not installed; install it and run the demo again")
	}
	if err != nil {
		return fmt.Errorf("git %s: %w: %s", args[0], err, screen.Line(said.String()))
	}
	return nil
}
