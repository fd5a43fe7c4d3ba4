// Package git keeps bare repositories on disk and speaks to the git program: for the apps that the gateway hosts, and
// for repositories elsewhere that it is asked to look at.
//
// It guarantees that git runs with this package's configuration alone (no system or user configuration for hosted
// repositories, no prompts, no transports but file, http, https and ssh), that names from outside never become options
// or paths, and that every call ends: with its context, or within a bound. It decides nothing about runs.
package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/wholefile"
)

// Options say how hosted repositories behave.
type Options struct {
	Dir     string // folder that holds everything
	Program string // git; empty: "git" on the PATH
	MaxPush int64  // bytes that one push may bring; 0: no limit
	// Hook is the program, with its first arguments, that git runs as a hook; the hook's name follows as the last
	// argument. Empty: none.
	Hook []string
}

// Store is the folder of repositories. It is safe for concurrent use.
type Store struct {
	dir     string
	program string
	backend string   // git-http-backend's path
	env     []string // for hosted repositories

	mu      sync.Mutex
	busy    map[events.Slug]int // uses of a repository that keep it from being removed
	copying locks               // one fetch at a time into each copy
}

// locks are one lock for each path.
type locks struct{ byPath sync.Map }

func (l *locks) lock(path string) (unlock func()) {
	m, _ := l.byPath.LoadOrStore(path, &sync.Mutex{})
	m.(*sync.Mutex).Lock()
	return m.(*sync.Mutex).Unlock
}

// Open makes the folder ready. It needs git 2.31 or newer, with http-backend.
func Open(ctx context.Context, o Options) (*Store, error) {
	program, err := exec.LookPath(orElse(o.Program, "git"))
	if err != nil {
		return nil, fmt.Errorf("finding git: %w; install it (apt-get install git)", err)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("folder of repositories: %w", err)
	}
	s := &Store{dir: dir, program: program, busy: map[events.Slug]int{}}
	for _, folder := range []string{s.hosted(), s.elsewhere(), s.hooks()} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fmt.Errorf("folder of repositories: %w", err)
		}
	}
	if err := s.writeHooks(o.Hook); err != nil {
		return nil, fmt.Errorf("writing git's hooks: %w", err)
	}
	if err := s.clearLocks(); err != nil {
		return nil, fmt.Errorf("clearing git's locks: %w", err)
	}
	s.env = s.environment(o.MaxPush)
	if err := s.checkProgram(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Store) hosted() string    { return filepath.Join(s.dir, "hosted") }
func (s *Store) elsewhere() string { return filepath.Join(s.dir, "elsewhere") }
func (s *Store) hooks() string     { return filepath.Join(s.dir, "hooks") }

// clearLocks removes the lock files of git processes that were killed: nobody else uses the folder.
func (s *Store) clearLocks() error {
	return filepath.WalkDir(s.dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == "objects":
			return fs.SkipDir
		case strings.HasSuffix(entry.Name(), ".lock") && entry.Type().IsRegular():
			return os.Remove(path)
		}
		return nil
	})
}

// hookNames are the hooks that Options.Hook is called as.
var hookNames = []string{"pre-receive", "post-receive"}

// writeHooks replaces the scripts, since the program may have moved since the last start.
func (s *Store) writeHooks(command []string) error {
	for _, name := range hookNames {
		path := filepath.Join(s.hooks(), name)
		if len(command) == 0 {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			continue
		}
		var quoted []string
		for _, word := range append(slices.Clone(command), name) {
			quoted = append(quoted, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
		}
		script := "#!/bin/sh\nexec " + strings.Join(quoted, " ") + "\n"
		if err := wholefile.Write(path, []byte(script), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// environment is what git sees when it works on a hosted repository.
func (s *Store) environment(maxPush int64) []string {
	config := [][2]string{
		{"safe.directory", "*"}, // the folder may belong to another account than the process
		{"core.hooksPath", s.hooks()},
		{"core.logAllRefUpdates", "always"},
		{"core.fsync", "all"},
		{"gc.auto", "0"},
		{"gc.reflogExpire", "never"},
		{"gc.reflogExpireUnreachable", "never"},
		{"http.receivepack", "true"},
		{"http.getanyfile", "false"},
		{"receive.autogc", "false"},
		{"receive.fsckObjects", "true"},
		{"receive.denyDeleteCurrent", "refuse"},
		{"transfer.hideRefs", "refs/towpath"},
		{"uploadpack.allowAnySHA1InWant", "true"},
	}
	for _, harmless := range []string{"missingEmail", "missingSpaceBeforeDate", "missingSpaceBeforeEmail", "badTimezone", "zeroPaddedFilemode", "missingTaggerEntry", "badName"} {
		config = append(config, [2]string{"receive.fsck." + harmless, "ignore"})
	}
	if maxPush > 0 {
		config = append(config, [2]string{"receive.maxInputSize", strconv.FormatInt(maxPush, 10)})
	}
	env := append(bareEnvironment(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull, "HOME="+s.dir,
		"GIT_CONFIG_COUNT="+strconv.Itoa(len(config)))
	for i, entry := range config {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, entry[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, entry[1]))
	}
	return env
}

// bareEnvironment is what every git process gets.
func bareEnvironment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "TZ=UTC",
		"GIT_TERMINAL_PROMPT=0", "GIT_ALLOW_PROTOCOL=file:http:https:ssh", "GIT_OPTIONAL_LOCKS=0"}
}

func (s *Store) checkProgram(ctx context.Context) error {
	out, err := s.run(ctx, s.env, nil, "--version")
	if err != nil {
		return err
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(out), "git version %d.%d", &major, &minor); err != nil || major < 2 || major == 2 && minor < 31 {
		return fmt.Errorf("%s is %q: 2.31 or newer is needed", s.program, strings.TrimSpace(string(out)))
	}
	path, err := s.run(ctx, s.env, nil, "--exec-path")
	if err != nil {
		return err
	}
	s.backend = filepath.Join(strings.TrimSpace(string(path)), "git-http-backend")
	if _, err := os.Stat(s.backend); err != nil {
		return fmt.Errorf("git http-backend is not installed: %w; install git's full package", err)
	}
	return nil
}

// Repository is one repository on disk.
type Repository struct {
	store *Store
	path  string
	env   []string
}

// Repository returns an app's hosted repository, whether or not it is there.
func (s *Store) Repository(app events.Slug) Repository {
	return Repository{s, filepath.Join(s.hosted(), string(app)+".git"), s.env}
}

// Exists reports whether an app has a hosted repository.
func (s *Store) Exists(app events.Slug) bool {
	_, err := os.Stat(filepath.Join(s.Repository(app).path, "HEAD"))
	return err == nil
}

// Held returns the repository in which the store has a commit of an app: the hosted one or, where remote is given, its
// copy of that one; false: it has it nowhere.
func (s *Store) Held(ctx context.Context, app events.Slug, remote string, commit Commit) (Repository, bool, error) {
	r := s.Repository(app)
	if remote != "" {
		r = s.copyOf(Remote{strings.TrimRight(remote, "/")})
	}
	if _, err := os.Stat(filepath.Join(r.path, "HEAD")); err != nil {
		return r, false, nil
	}
	has, err := r.Contains(ctx, commit)
	return r, has, err
}

// Apps lists the apps that have a hosted repository.
func (s *Store) Apps() ([]events.Slug, error) {
	entries, err := os.ReadDir(s.hosted())
	if err != nil {
		return nil, fmt.Errorf("listing repositories: %w", err)
	}
	var apps []events.Slug
	for _, entry := range entries {
		if name, ok := strings.CutSuffix(entry.Name(), ".git"); ok {
			if app, err := events.ParseSlug(name); err == nil && s.Exists(app) {
				apps = append(apps, app)
			}
		}
	}
	return apps, nil
}

// Use makes an app's repository if it is not there, and keeps it until done is called. A repository that is empty by
// then is removed again.
func (s *Store) Use(ctx context.Context, app events.Slug) (r Repository, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r = s.Repository(app)
	if !s.Exists(app) {
		if err := s.create(ctx, r); err != nil {
			return Repository{}, nil, fmt.Errorf("making the repository of %s: %w", app, err)
		}
	}
	s.busy[app]++
	return r, sync.OnceFunc(func() { s.leave(app) }), nil
}

// create builds the repository beside its place, so that half of one is never seen.
func (s *Store) create(ctx context.Context, r Repository) error {
	temporary, err := os.MkdirTemp(filepath.Dir(r.path), ".new-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	if _, err := s.run(ctx, s.env, nil, "init", "--quiet", "--bare", "--template=", "--initial-branch=main", "--", temporary); err != nil {
		return err
	}
	return os.Rename(temporary, r.path)
}

// leave removes the repository where nothing was put into it and nobody else uses it.
func (s *Store) leave(app events.Slug) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[app]--; s.busy[app] > 0 {
		return
	}
	delete(s.busy, app)
	s.removeEmpty(app)
}

// RemoveEmpty removes the repositories into which nothing was put and that nobody uses: what a crash left behind.
func (s *Store) RemoveEmpty() error {
	apps, err := s.Apps()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, app := range apps {
		if s.busy[app] == 0 {
			s.removeEmpty(app)
		}
	}
	err = s.removeHeadless()
	for _, folder := range []string{s.hosted(), s.elsewhere()} {
		leftovers, globErr := filepath.Glob(filepath.Join(folder, ".new-*"))
		err = errors.Join(err, globErr)
		for _, leftover := range leftovers {
			err = errors.Join(err, os.RemoveAll(leftover))
		}
	}
	return err
}

// removeHeadless removes what stands in the place of a repository and is none, without any object: what a git process
// wrote that outlived its gateway while the next one removed the repository.
func (s *Store) removeHeadless() error {
	folders, err := filepath.Glob(filepath.Join(s.hosted(), "*.git"))
	for _, folder := range folders {
		if _, missing := os.Stat(filepath.Join(folder, "HEAD")); !errors.Is(missing, fs.ErrNotExist) {
			continue
		}
		if _, missing := os.Stat(filepath.Join(folder, "objects")); errors.Is(missing, fs.ErrNotExist) {
			err = errors.Join(err, s.remove(folder))
		}
	}
	return err
}

// remove takes a repository away as a whole before its files: a git process that still works in it goes on elsewhere.
func (s *Store) remove(folder string) error {
	aside, err := os.MkdirTemp(filepath.Dir(folder), ".new-*")
	if err == nil {
		err = os.Rename(folder, filepath.Join(aside, "removed"))
	}
	return errors.Join(err, os.RemoveAll(aside))
}

// removeEmpty leaves the repository where it is in any doubt.
func (s *Store) removeEmpty(app events.Slug) {
	r := s.Repository(app)
	ctx, cancel := context.WithTimeout(context.Background(), commandBound)
	defer cancel()
	out, err := s.run(ctx, s.env, nil, "--git-dir="+r.path, "for-each-ref", "--count=1", "--format=%(refname)")
	if err == nil && len(out) == 0 {
		_ = s.remove(r.path) // what is left of it is removed at the next start
	}
}

const (
	// commandBound is how long a local git command may take.
	commandBound = 2 * time.Minute
	// killDelay is how long a command may take to end after its context did.
	killDelay = 5 * time.Second
	// maxOutput is how much a command may print that is read whole, in bytes.
	maxOutput = 64 << 20
	// maxComplaint is how much of what git complains about is kept, in bytes.
	maxComplaint = 4 << 10
)

// command is git in a process group of its own, which is killed as a whole.
func (s *Store) command(ctx context.Context, env []string, args ...string) *exec.Cmd {
	return s.process(ctx, env, s.program, args...)
}

func (s *Store) process(ctx context.Context, env []string, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = env
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killDelay
	return cmd
}

// Error is a git command that failed.
type Error struct {
	Command string // "fetch"
	Text    string // what git said
	Cause   error
}

func (e *Error) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("git %s: %v", e.Command, e.Cause)
	}
	return fmt.Sprintf("git %s: %s", e.Command, e.Text)
}

// Unwrap returns how the process ended.
func (e *Error) Unwrap() error { return e.Cause }

// run runs git to its end and returns what it printed.
func (s *Store) run(ctx context.Context, env []string, in []byte, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandBound)
	defer cancel()
	cmd := s.command(ctx, env, args...)
	if in != nil {
		cmd.Stdin = strings.NewReader(string(in))
	}
	out, complaint := &limited{most: maxOutput}, &limited{most: maxComplaint}
	cmd.Stdout, cmd.Stderr = out, complaint
	err := cmd.Run()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, &Error{Command: verb(args), Text: complaint.text(), Cause: err}
	}
	if out.cut {
		return nil, &Error{Command: verb(args), Cause: fmt.Errorf("it printed more than %d bytes", maxOutput)}
	}
	return out.data, nil
}

// verb is the first argument that is no option.
func verb(args []string) string {
	for _, arg := range args {
		if !strings.HasPrefix(arg, "-") {
			return arg
		}
	}
	return strings.Join(args, " ")
}

// limited keeps the first bytes that are written to it.
type limited struct {
	data []byte
	most int
	cut  bool
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.most-len(l.data))
	l.data = append(l.data, p[:n]...)
	l.cut = l.cut || n < len(p)
	return len(p), nil
}

// text is what git said without its prefixes, on one line.
func (l *limited) text() string {
	var lines []string
	for line := range strings.Lines(string(l.data)) {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(line), "fatal: "), "error: "))
		if line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

func orElse(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
