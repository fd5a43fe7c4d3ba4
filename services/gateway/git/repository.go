package git

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Commit is the id of a commit: 40 or 64 digits of lower-case hexadecimal.
type Commit string

// ParseCommit returns s as a Commit.
func ParseCommit(s string) (Commit, error) {
	if len(s) != 40 && len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%.80q is not a full commit id: 40 hexadecimal digits in lower case", s)
	}
	return Commit(s), nil
}

// None reports whether the commit is absent: empty, or all zeros as git writes it.
func (c Commit) None() bool { return strings.Trim(string(c), "0") == "" }

// Short is the commit as people are shown it.
func (c Commit) Short() string { return string(c[:min(7, len(c))]) }

// Heads is the prefix of branches' references.
const Heads = "refs/heads/"

// Update is one change of a reference.
type Update struct {
	Ref string // full name
	Old Commit // None: it was made
	New Commit // None: it was deleted
	// By and Push are the name and the address with which the push was made (Push.By, Push.ID), where known.
	By   string
	Push string
	At   time.Time
}

// Branch is the name below refs/heads/; empty for any other reference.
func (u Update) Branch() string {
	name, ok := strings.CutPrefix(u.Ref, Heads)
	if !ok {
		return ""
	}
	return name
}

// Quarantine is where the objects of a push are while its hooks judge it, as git's hooks find it in their environment.
type Quarantine struct {
	Objects    string // GIT_OBJECT_DIRECTORY
	Alternates string // GIT_ALTERNATE_OBJECT_DIRECTORIES
}

// Within returns the repository with the objects of a push that has not been taken in yet. The folder must be inside
// the repository.
func (r Repository) Within(q Quarantine) (Repository, error) {
	if q.Objects == "" {
		return r, nil
	}
	inside := func(folder string) bool {
		below, err := filepath.Rel(r.path, folder)
		return err == nil && filepath.IsAbs(folder) && filepath.IsLocal(below)
	}
	if !inside(q.Objects) {
		return Repository{}, fmt.Errorf("quarantine %.200q is not in the repository", q.Objects)
	}
	if q.Alternates != "" && !inside(q.Alternates) {
		return Repository{}, fmt.Errorf("objects %.200q are not in the repository", q.Alternates)
	}
	r.env = append(r.env[:len(r.env):len(r.env)], "GIT_OBJECT_DIRECTORY="+q.Objects, "GIT_ALTERNATE_OBJECT_DIRECTORIES="+q.Alternates)
	return r, nil
}

func (r Repository) git(ctx context.Context, in []byte, args ...string) ([]byte, error) {
	return r.store.run(ctx, r.env, in, append([]string{"--git-dir=" + r.path}, args...)...)
}

// Heads returns the commit of each branch, by full name.
func (r Repository) Heads(ctx context.Context) (map[string]Commit, error) {
	out, err := r.git(ctx, nil, "for-each-ref", "--format=%(objectname) %(refname)", Heads)
	if err != nil {
		return nil, fmt.Errorf("listing branches: %w", err)
	}
	heads := map[string]Commit{}
	for line := range strings.Lines(string(out)) {
		if id, ref, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			heads[ref] = Commit(id)
		}
	}
	return heads, nil
}

// ErrTooLarge is wrapped by File for a file that is larger than was asked for.
var ErrTooLarge = errors.New("it is too large")

// File returns a file as of a commit. Errors wrap fs.ErrNotExist where commit or file are not there, ErrTooLarge where
// the file has more than most bytes.
func (r Repository) File(ctx context.Context, commit Commit, path string, most int64) ([]byte, error) {
	files, err := r.Files(ctx, []Commit{commit}, path, most)
	if err != nil {
		return nil, err
	}
	return files[0].Data, files[0].Err
}

// File is one answer of Files.
type File struct {
	Data []byte
	Err  error // as those of Repository.File
}

// Files returns one file as of several commits, with one process.
func (r Repository) Files(ctx context.Context, commits []Commit, path string, most int64) ([]File, error) {
	ctx, cancel := context.WithTimeout(ctx, commandBound)
	defer cancel()
	cmd := r.store.command(ctx, r.env, "--git-dir="+r.path, "cat-file", "--batch")
	complaint := &limited{most: maxComplaint}
	cmd.Stderr = complaint
	var in strings.Builder
	for _, commit := range commits {
		fmt.Fprintf(&in, "%s:%s\n", commit, path)
	}
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	files := make([]File, len(commits))
	answers := bufio.NewReader(out)
	for i, commit := range commits {
		if files[i], err = readBlob(answers, commit, path, most); err != nil {
			cancel()
			cmd.Wait()
			return nil, fmt.Errorf("reading %s at %s: %w", path, commit.Short(), errors.Join(err, &Error{Command: "cat-file", Text: complaint.text()}))
		}
	}
	if err := cmd.Wait(); err != nil {
		return nil, &Error{Command: "cat-file", Text: complaint.text(), Cause: err}
	}
	return files, nil
}

// Grep returns what in a commit's texts below a folder matches a POSIX extended regular expression: FILE:LINE:MATCH on
// each line, files below the repository's root.
func (r Repository) Grep(ctx context.Context, commit Commit, folder, pattern string) ([]byte, error) {
	out, err := r.git(ctx, nil, "grep", "--no-color", "--full-name", "-n", "-I", "-o", "-E", "-e", pattern, string(commit), "--", folder)
	var none *exec.ExitError
	switch {
	case errors.As(err, &none) && none.ExitCode() == 1:
		return nil, nil // nothing matches
	case err != nil:
		return nil, fmt.Errorf("searching %s: %w", commit.Short(), err)
	}
	return bytes.ReplaceAll(out, []byte("\n"+commit+":"), []byte("\n"))[len(commit)+1:], nil
}

// readBlob reads one answer of cat-file --batch. The error means that the answers can be read no further.
func readBlob(answers *bufio.Reader, commit Commit, path string, most int64) (File, error) {
	head, err := answers.ReadString('\n')
	if err != nil {
		return File{}, err
	}
	fields := strings.Fields(head)
	if len(fields) != 3 {
		return File{Err: fmt.Errorf("%s at %s: %w", path, commit.Short(), fs.ErrNotExist)}, nil
	}
	size, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return File{}, fmt.Errorf("unexpected answer %q", head)
	}
	if fields[1] != "blob" || size > most {
		why := fmt.Errorf("%s at %s has %d bytes, allowed are %d: %w", path, commit.Short(), size, most, ErrTooLarge)
		if fields[1] != "blob" {
			why = fmt.Errorf("%s at %s is a %s, not a file: %w", path, commit.Short(), fields[1], fs.ErrNotExist)
		}
		_, err := answers.Discard(int(size) + 1)
		return File{Err: why}, err
	}
	data := make([]byte, size+1)
	if _, err := io.ReadFull(answers, data); err != nil {
		return File{}, err
	}
	return File{Data: data[:size]}, nil
}

// Author is somebody who wrote part of a change.
type Author struct{ Name, Email string }

// Change is what the commits of an update say.
type Change struct {
	Commits int      // how many are new, at most MaxCommits
	Subject string   // first line of the newest
	Authors []Author // of all of them, co-authors included, each address once, the newest commit's first
}

// Bounds of what is read of one update's commits.
const (
	MaxCommits = 1000
	MaxAuthors = 50
)

// Change reads the commits that an update brought: those of now that are not of old. Without an old commit it is the
// newest one alone, since a whole history is no change.
func (r Repository) Change(ctx context.Context, old, now Commit) (Change, error) {
	args := []string{"log", "--no-show-signature", "-z", "--format=%s%x01%an%x01%ae%x01%(trailers:key=Co-authored-by,valueonly,separator=%x02)"}
	if old.None() {
		args = append(args, "--max-count=1", string(now))
	} else {
		args = append(args, "--max-count="+strconv.Itoa(MaxCommits), string(now), "--not", string(old))
	}
	out, err := r.git(ctx, nil, append(args, "--")...)
	if err != nil {
		return Change{}, fmt.Errorf("reading the commits up to %s: %w", now.Short(), err)
	}
	var change Change
	list := authorList{most: MaxAuthors, seen: map[string]bool{}}
	for entry := range bytes.SplitSeq(out, []byte{0}) {
		fields := strings.Split(string(entry), "\x01")
		if len(fields) != 4 {
			continue
		}
		if change.Commits++; change.Commits == 1 {
			change.Subject = fields[0]
		}
		list.commit(fields[1], fields[2], fields[3])
	}
	change.Authors = list.authors
	return change, nil
}

// AuthorsOf reads who wrote the commits of now that are not of old, co-authors included, each address once, the newest
// commit's first. Without an old commit it is the whole history.
func (r Repository) AuthorsOf(ctx context.Context, old, now Commit) ([]Author, error) {
	args := []string{"log", "--no-show-signature", "-z", "--format=%an%x01%ae%x01%(trailers:key=Co-authored-by,valueonly,separator=%x02)", string(now)}
	if !old.None() {
		args = append(args, "--not", string(old))
	}
	out, err := r.git(ctx, nil, append(args, "--")...)
	if err != nil {
		return nil, fmt.Errorf("reading who wrote %s: %w", now.Short(), err)
	}
	list := authorList{most: math.MaxInt, seen: map[string]bool{}}
	for entry := range bytes.SplitSeq(out, []byte{0}) {
		if fields := strings.Split(string(entry), "\x01"); len(fields) == 3 {
			list.commit(fields[0], fields[1], fields[2])
		}
	}
	return list.authors, nil
}

// authorList gathers authors, each address once.
type authorList struct {
	authors []Author
	most    int
	seen    map[string]bool
}

func (l *authorList) add(author Author) {
	key := strings.ToLower(author.Email)
	if author.Email != "" && !l.seen[key] && len(l.authors) < l.most {
		l.seen[key] = true
		l.authors = append(l.authors, author)
	}
}

// commit takes a commit's author in, and those that its trailers name.
func (l *authorList) commit(name, email, trailers string) {
	l.add(Author{name, email})
	for trailer := range strings.SplitSeq(trailers, "\x02") {
		if name, rest, ok := strings.Cut(trailer, "<"); ok {
			email, _, _ := strings.Cut(rest, ">")
			l.add(Author{strings.TrimSpace(name), strings.TrimSpace(email)})
		}
	}
}

// IsForced reports whether an update threw commits away: old is not part of now's history.
func (r Repository) IsForced(ctx context.Context, old, now Commit) (bool, error) {
	if old.None() || now.None() {
		return false, nil
	}
	_, err := r.git(ctx, nil, "merge-base", "--is-ancestor", string(old), string(now))
	var failed *Error
	if errors.As(err, &failed) && failed.Text == "" {
		return true, nil
	}
	return false, err
}

// Contains reports whether the repository has a commit.
func (r Repository) Contains(ctx context.Context, commit Commit) (bool, error) {
	_, err := r.git(ctx, nil, "cat-file", "-e", string(commit)+"^{commit}")
	var failed *Error
	if errors.As(err, &failed) && ctx.Err() == nil {
		return false, nil
	}
	return err == nil, err
}

// Keep holds a commit under a name that only this package gives out, whatever becomes of its branch.
func (r Repository) Keep(ctx context.Context, commit Commit) error {
	if _, err := r.git(ctx, nil, "update-ref", "refs/towpath/runs/"+string(commit), string(commit)); err != nil {
		return fmt.Errorf("keeping commit %s: %w", commit.Short(), err)
	}
	return nil
}

// SetHead makes a branch the one that is checked out by a clone.
func (r Repository) SetHead(ctx context.Context, ref string) error {
	if _, err := r.git(ctx, nil, "symbolic-ref", "HEAD", ref); err != nil {
		return fmt.Errorf("making %s the head: %w", ref, err)
	}
	return nil
}

// Head returns the full name of the branch that a clone checks out.
func (r Repository) Head() (string, error) {
	data, err := os.ReadFile(filepath.Join(r.path, "HEAD"))
	if err != nil {
		return "", fmt.Errorf("reading the head: %w", err)
	}
	return strings.TrimSpace(strings.TrimPrefix(string(data), "ref: ")), nil
}

// Updates returns what git logged of a branch's changes, oldest first. The log ends with the branch: one that was
// deleted has none. A power cut may cost the log its last lines, never the branch itself.
func (r Repository) Updates(ref string) ([]Update, error) {
	if !strings.HasPrefix(ref, Heads) || !filepath.IsLocal(ref) {
		return nil, fmt.Errorf("reading the log of %.200q: it is no branch", ref)
	}
	data, err := os.ReadFile(filepath.Join(r.path, "logs", filepath.FromSlash(ref)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the log of %s: %w", ref, err)
	}
	var updates []Update
	for line := range strings.Lines(string(data)) {
		if u, ok := parseLogLine(strings.TrimRight(line, "\n")); ok {
			u.Ref = ref
			updates = append(updates, u)
		}
	}
	return updates, nil
}

// parseLogLine reads "old new name <address> seconds zone\tmessage".
func parseLogLine(line string) (Update, bool) {
	line, _, _ = strings.Cut(line, "\t")
	old, rest, _ := strings.Cut(line, " ")
	now, rest, _ := strings.Cut(rest, " ")
	name, rest, ok := strings.Cut(rest, " <")
	if !ok {
		return Update{}, false
	}
	address, rest, ok := strings.Cut(rest, "> ")
	seconds, _, _ := strings.Cut(rest, " ")
	at, err := strconv.ParseInt(seconds, 10, 64)
	oldCommit, oldErr := ParseCommit(old)
	newCommit, newErr := ParseCommit(now)
	if !ok || err != nil || oldErr != nil || newErr != nil {
		return Update{}, false
	}
	return Update{Old: oldCommit, New: newCommit, By: name, Push: address, At: time.Unix(at, 0).UTC()}, true
}
