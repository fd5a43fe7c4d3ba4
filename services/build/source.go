package build

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"towpath.dev/events"
)

// Access is how private repositories are opened. All paths are the platform's; empty fields mean that
// there is nothing of the kind.
type Access struct {
	Credentials   string // file in the format of git-credential-store, mode 0600
	SSHKey        string // private key file
	SSHKnownHosts string // known_hosts file; hosts that it does not hold are refused
}

// origin names what to build.
type origin struct {
	repository string // as the run's first event gives it
	ref        string // where the commit was found: refs/heads/main; may be empty
	commit     string // full object id
	// authorization is the value of the HTTP header that opens this repository, and no other; may be empty.
	authorization string
}

// Commit is a commit that has been fetched and whose tree is known.
type Commit struct {
	ID   string
	Tree string // object id of its tree, which covers the submodules' commits
	Time time.Time
}

// Submodule is one repository inside another's tree.
type Submodule struct {
	Path   string // from the root of the outermost tree
	URL    string
	Commit string
}

// checkout is a folder of this build's own with the source in it.
type checkout struct {
	root       string // holds everything; removed by remove
	tree       string // the source, without any .git
	git        *git
	repository repositoryURL
	Commit     Commit
	Submodules []Submodule

	limits sourceLimits
	access Access
	share  []string // folders whose repositories may be submodules by file URL
	lock   *os.File
	size   int64 // bytes of all trees so far
	files  int
}

// sourceLimits bound what a repository may make this service store.
type sourceLimits struct {
	bytes   int64 // of the fetched history, and of the files
	files   int
	timeout time.Duration // of one fetch
}

// Bounds on submodules.
const (
	maxSubmodules = 100
	maxDepth      = 8
)

// fetch gets exactly the commit, with as little history as the server gives, into a new folder below
// work. On an error nothing is left behind.
func (c Config) fetch(ctx context.Context, src origin) (_ *checkout, err error) {
	repository, err := parseRepository(src.repository)
	if err != nil {
		return nil, err
	}
	if !isObjectID(src.commit) {
		return nil, authorActs(events.Trouble{What: "reading the commit", On: fmt.Sprintf("%.100q", src.commit), Why: "it is not a full commit id", Do: "submit the commit by its 40 digits"})
	}
	root, err := os.MkdirTemp(c.Work, checkoutPrefix)
	if err != nil {
		return nil, fmt.Errorf("making a folder for the source: %w", err)
	}
	co := &checkout{
		root: root, tree: filepath.Join(root, "source"), repository: repository, access: c.Git, share: c.SubmoduleFolders,
		limits: sourceLimits{bytes: c.MaxSource, files: c.MaxFiles, timeout: c.FetchTimeout},
	}
	defer func() {
		if err != nil {
			co.remove()
		}
	}()
	if err := co.prepare(); err != nil {
		return nil, fmt.Errorf("making a folder for the source: %w", err)
	}
	if co.git, err = newGit(ctx, filepath.Join(root, "git"), filepath.Join(root, "home"), c.Git); err != nil {
		return nil, err
	}
	if src.authorization != "" {
		co.git.open(repository, src.authorization)
	}
	if err := co.fetchCommit(ctx, co.git, repository, src.ref, src.commit); err != nil {
		return nil, err
	}
	co.Commit, err = describeCommit(ctx, co.git, src.commit)
	return co, err
}

const checkoutPrefix = "checkout-"

func (co *checkout) prepare() (err error) {
	for _, dir := range []string{"home", "source", "git"} {
		if err := os.Mkdir(filepath.Join(co.root, dir), 0o700); err != nil {
			return err
		}
	}
	// Locked as long as this process lives: a later start may remove what is not.
	if co.lock, err = os.OpenFile(filepath.Join(co.root, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	return syscall.Flock(int(co.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// remove takes everything off the disk.
func (co *checkout) remove() {
	if co.lock != nil {
		co.lock.Close()
	}
	removeAll(co.root)
}

// removeAll removes a tree in which folders may lack the permission to be emptied.
func removeAll(root string) {
	if os.RemoveAll(root) == nil {
		return
	}
	filepath.WalkDir(root, func(path string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			os.Chmod(path, 0o700)
		}
		return nil
	})
	os.RemoveAll(root)
}

// sweep removes checkouts that a process which is no more has left in work.
func sweep(work string) error {
	left, err := filepath.Glob(filepath.Join(work, checkoutPrefix+"*"))
	if err != nil {
		return err
	}
	for _, root := range left {
		lock, err := os.OpenFile(filepath.Join(root, "lock"), os.O_RDWR, 0)
		if err != nil {
			if info, statErr := os.Stat(root); statErr != nil || time.Since(info.ModTime()) < time.Minute {
				continue // just being made, or gone
			}
		} else if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
			lock.Close()
			continue
		}
		removeAll(root)
		if lock != nil {
			lock.Close()
		}
	}
	return nil
}

func isObjectID(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}

// fetchCommit asks for the one commit; a server that gives out only what its refs point at is asked for
// the ref, and in the end for everything.
func (co *checkout) fetchCommit(ctx context.Context, g *git, from repositoryURL, ref, commit string) error {
	attempts := [][]string{{"--depth=1", "--", from.text, commit}}
	if ref != "" && strings.HasPrefix(ref, "refs/") && !strings.ContainsAny(ref, ":*^+ ") {
		attempts = append(attempts, []string{"--depth=100", "--", from.text, ref})
	}
	attempts = append(attempts, []string{"--", from.text, "+refs/heads/*:refs/fetched/heads/*", "+refs/tags/*:refs/fetched/tags/*"})
	var err error
	for i, what := range attempts {
		err = co.bounded(ctx, g, append([]string{"fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--update-shallow"}, what...))
		if err == nil {
			if _, missing := g.run(ctx, "cat-file", "-e", commit+"^{commit}"); missing == nil {
				return nil
			}
		}
		var failed *gitError
		if err != nil && !errors.As(err, &failed) {
			return err
		}
		if failed != nil && i == 0 && !failed.says("not our ref", "unadvertised object", "couldn't find remote ref", "dumb http", "shallow", "no such remote ref") {
			return co.fetchFault(failed, from)
		}
	}
	var failed *gitError
	if errors.As(err, &failed) {
		return co.fetchFault(failed, from)
	}
	return authorActs(events.Trouble{
		What: "fetching commit " + commit, On: from.text, Why: "the repository has no such commit on any branch or tag",
		Do: "push again: the commit may have been forced away",
	})
}

// bounded runs a fetch within its time and size.
func (co *checkout) bounded(ctx context.Context, g *git, args []string) error {
	fetching, cancel := context.WithTimeoutCause(ctx, co.limits.timeout, fmt.Errorf("it took longer than %s", co.limits.timeout))
	defer cancel()
	fetching, stop := context.WithCancelCause(fetching)
	done := make(chan struct{})
	go func() {
		defer close(done)
		watchSize(fetching, g.dir, co.limits.bytes, stop)
	}()
	err := g.stream(fetching, io.Discard, args...)
	stop(nil)
	<-done
	return err
}

// watchSize stops a fetch that has put more than max bytes on the disk.
func watchSize(ctx context.Context, dir string, max int64, stop context.CancelCauseFunc) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var size int64
		filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err == nil {
				if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
					size += info.Size()
				}
			}
			return nil
		})
		if size > max {
			stop(tooLarge(fmt.Sprintf("its history is more than %s", megabytes(max))))
			return
		}
	}
}

func tooLarge(why string) error {
	return authorActs(events.Trouble{What: "fetching the source", Why: why,
		Do: "make the repository smaller, or ask the platform's operator for a higher limit"})
}

func megabytes(n int64) string { return strconv.FormatInt(n>>20, 10) + " MiB" }

// fetchFault sorts what git said into what an operator or author mends, and what time may mend.
func (co *checkout) fetchFault(failed *gitError, from repositoryURL) error {
	trouble := events.Trouble{What: "fetching the source", On: from.text, Why: lastLine(failed.stderr)}
	switch {
	case failed.says("authentication failed", "could not read username", "could not read password", "terminal prompts disabled",
		"permission denied", "host key verification failed", "error: 401", "error: 403", "dubious ownership"):
		trouble.Do = "give build access to the repository (git credentials, SSH key and known hosts in the platform's configuration), then replay"
		return operatorActs(trouble)
	case failed.says("does not appear to be a git repository", "not found", "no such file or directory", "does not exist", "no path specified"):
		trouble.Do = "correct the repository's address, or let build read it, then replay"
		return operatorActs(trouble)
	case failed.says("transport '", "strange hostname", "strange pathname"):
		return authorActs(trouble)
	}
	return fmt.Errorf("fetching the source from %s: %w", from.text, failed)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for _, line := range lines {
		if strings.HasPrefix(line, "fatal:") || strings.HasPrefix(line, "error:") {
			return strings.TrimSpace(line)
		}
	}
	return strings.TrimSpace(lines[len(lines)-1])
}

func describeCommit(ctx context.Context, g *git, id string) (Commit, error) {
	out, err := g.run(ctx, "log", "-1", "--no-show-signature", "--format=%H %T %ct", id, "--")
	if err != nil {
		return Commit{}, fmt.Errorf("reading commit %s: %w", id, err)
	}
	var c Commit
	var seconds int64
	if _, err := fmt.Sscanf(string(out), "%s %s %d", &c.ID, &c.Tree, &seconds); err != nil || c.ID != id {
		return Commit{}, authorActs(events.Trouble{What: "reading commit " + id, Why: "it is not a commit", Do: "submit the commit that the tag or branch points at"})
	}
	// Before 1980 and far ahead, archive formats and certificates have no time for it.
	c.Time = time.Unix(min(max(seconds, 315532800), 4102444800), 0).UTC()
	return c, nil
}

// write puts the commit's files, and those of its submodules, into the tree.
func (co *checkout) write(ctx context.Context) error {
	if err := co.writeTree(ctx, co.git, co.repository, co.Commit.ID, "", 1); err != nil {
		return err
	}
	if err := settle(co.tree, co.Commit.Time); err != nil {
		return fmt.Errorf("preparing the source: %w", err)
	}
	return nil
}

// writeTree writes a commit's files, and its submodules, into the folder at, which is given from the
// root of the source. from is the repository that holds the commit.
func (co *checkout) writeTree(ctx context.Context, g *git, from repositoryURL, commit, at string, depth int) error {
	links, err := co.measure(ctx, g, commit)
	if err != nil {
		return err
	}
	if _, err := g.run(ctx, "read-tree", commit); err != nil {
		return fmt.Errorf("writing the source: %w", err)
	}
	_, err = g.run(ctx, "--work-tree="+filepath.Join(co.tree, at), "checkout-index", "--all", "--force", "--quiet")
	if err != nil {
		return fmt.Errorf("writing the source: %w", err)
	}
	return co.writeSubmodules(ctx, g, links, from, commit, at, depth)
}

// measure lists a commit's tree before it is written, stops where there is too much of it, and returns
// the submodules in it.
func (co *checkout) measure(ctx context.Context, g *git, commit string) ([]Submodule, error) {
	reader, writer := io.Pipe()
	listed := make(chan error, 1)
	go func() {
		err := g.stream(ctx, writer, "ls-tree", "-r", "-l", "-z", "--full-tree", commit)
		writer.CloseWithError(err)
		listed <- err
	}()
	links, err := co.count(reader)
	reader.CloseWithError(errTooLong)
	if listErr := <-listed; err == nil && listErr != nil {
		err = fmt.Errorf("listing the source: %w", listErr)
	}
	return links, err
}

// count reads lines of "<mode> <type> <id> <size>\t<path>".
func (co *checkout) count(listing io.Reader) (links []Submodule, err error) {
	entries := bufio.NewScanner(listing)
	entries.Buffer(make([]byte, 0, 64<<10), 1<<20)
	entries.Split(splitNul)
	for entries.Scan() {
		meta, where, _ := strings.Cut(entries.Text(), "\t")
		fields := strings.Fields(meta)
		if len(fields) != 4 {
			return nil, fmt.Errorf("listing the source: git wrote %.100q", meta)
		}
		if fields[1] == "commit" {
			links = append(links, Submodule{Path: where, Commit: fields[2]})
		} else if n, err := strconv.ParseInt(fields[3], 10, 64); err == nil {
			co.size += n
		}
		co.files++
		if co.files > co.limits.files {
			return nil, tooLarge(fmt.Sprintf("it has more than %d files", co.limits.files))
		}
		if co.size > co.limits.bytes {
			return nil, tooLarge(fmt.Sprintf("its files are more than %s", megabytes(co.limits.bytes)))
		}
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("listing the source: %w", err)
	}
	return links, nil
}

func splitNul(data []byte, atEOF bool) (advance int, token []byte, err error) {
	for i, b := range data {
		if b == 0 {
			return i + 1, data[:i], nil
		}
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// settle gives every file the commit's time and every mode one of two values, so that the same commit
// makes the same layers whenever and as whomever it is built.
func settle(root string, at time.Time) error {
	stamp := []unix.Timespec{unix.NsecToTimespec(at.UnixNano()), unix.NsecToTimespec(at.UnixNano())}
	var folders []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			folders = append(folders, path)
			return os.Chmod(path, 0o755)
		}
		if info, err := d.Info(); err != nil {
			return err
		} else if mode := fs.FileMode(0o644); info.Mode().IsRegular() {
			if info.Mode()&0o100 != 0 {
				mode = 0o755
			}
			if err := os.Chmod(path, mode); err != nil {
				return err
			}
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, stamp, unix.AT_SYMLINK_NOFOLLOW)
	})
	for i := len(folders) - 1; i >= 0 && err == nil; i-- {
		err = unix.UtimesNanoAt(unix.AT_FDCWD, folders[i], stamp, unix.AT_SYMLINK_NOFOLLOW)
	}
	return err
}
