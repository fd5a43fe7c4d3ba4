package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// remoteBound is how long speaking to a repository elsewhere may take.
const remoteBound = 2 * time.Minute

// Remote is a repository elsewhere. ParseRemote makes one.
type Remote struct{ url string }

// ErrRemote is wrapped by ParseRemote.
var ErrRemote = errors.New("not a repository's address")

// scpAddress is ssh's short form: user@host:path.
var scpAddress = regexp.MustCompile(`^(?:[A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9.-]*:[^:].*$`)

// ParseRemote reads a file://, http://, https:// or ssh:// URL, or user@host:path. It may hold no password, since it is
// written down for ever.
func ParseRemote(text string) (Remote, error) {
	wrong := func(why string) (Remote, error) {
		return Remote{}, fmt.Errorf("repository %.200q: %w: %s", text, ErrRemote, why)
	}
	if len(text) > 1000 || strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c == 0x7f }) || strings.HasPrefix(text, "-") {
		return wrong("it must be one word of at most 1000 bytes")
	}
	if !strings.Contains(text, "://") {
		host, _, _ := strings.Cut(text, ":")
		if scpAddress.MatchString(text) && !strings.Contains(text, "::") && !slices.Contains([]string{"file", "http", "https", "ssh"}, host) {
			return Remote{strings.TrimRight(text, "/")}, nil
		}
		return wrong("it must begin with file://, http://, https:// or ssh://")
	}
	u, err := url.Parse(text)
	if err != nil {
		return wrong("it is not a URL")
	}
	_, hasPassword := u.User.Password()
	switch {
	case hasPassword:
		return Remote{}, fmt.Errorf("a repository's address: %w: it must not hold a password, since it is kept for ever; give the gateway's account a git credential helper instead", ErrRemote)
	case u.RawQuery != "" || u.Fragment != "":
		return wrong("it must have no query and no fragment")
	case u.Scheme == "file" && u.Host == "" && filepath.IsAbs(u.Path):
	case (u.Scheme == "http" || u.Scheme == "https" || u.Scheme == "ssh") && u.Hostname() != "" && !strings.HasPrefix(u.Hostname(), "-") && u.Path != "":
	default:
		return wrong("it must be file:///path, http://, https:// or ssh:// with a host and a path")
	}
	return Remote{strings.TrimRight(text, "/")}, nil
}

// String is the address.
func (r Remote) String() string { return r.url }

// IsFile reports whether the repository is on this machine.
func (r Remote) IsFile() bool { return strings.HasPrefix(r.url, "file:") }

// ErrNotThere is wrapped where a repository elsewhere has no such commit or branch.
var ErrNotThere = errors.New("it is not there")

// remoteEnvironment lets git use the account's own credentials and ssh configuration, and never ask.
func (s *Store) remoteEnvironment() []string {
	config := [][2]string{{"safe.directory", "*"}, {"gc.auto", "0"}, {"core.hooksPath", os.DevNull}, {"http.lowSpeedLimit", "1"}, {"http.lowSpeedTime", "30"}}
	env := append(bareEnvironment(), "HOME="+os.Getenv("HOME"), "SSH_AUTH_SOCK="+os.Getenv("SSH_AUTH_SOCK"),
		"GIT_SSH_COMMAND="+orElse(os.Getenv("GIT_SSH_COMMAND"), "ssh -oBatchMode=yes -oConnectTimeout=10"),
		fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(config)))
	for i, entry := range config {
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, entry[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, entry[1]))
	}
	return env
}

// Tip returns the commit that a branch elsewhere is at. Errors wrap ErrNotThere where there is no such branch.
func (s *Store) Tip(ctx context.Context, remote Remote, ref string) (Commit, error) {
	ctx, cancel := context.WithTimeout(ctx, remoteBound)
	defer cancel()
	out, err := s.run(ctx, s.remoteEnvironment(), nil, "ls-remote", "--quiet", "--", remote.url, ref)
	if err != nil {
		return "", fmt.Errorf("looking at %s: %w", remote, err)
	}
	for line := range strings.Lines(string(out)) {
		id, name, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if name == ref {
			return ParseCommit(id)
		}
	}
	return "", fmt.Errorf("%s of %s: %w", ref, remote, ErrNotThere)
}

// copyOf is the store's copy of a repository elsewhere, whether or not it is there.
func (s *Store) copyOf(remote Remote) Repository {
	sum := sha256.Sum256([]byte(remote.url))
	return Repository{s, filepath.Join(s.elsewhere(), hex.EncodeToString(sum[:8])+".git"), s.remoteEnvironment()}
}

// Fetch brings a commit of a repository elsewhere, with some of its history, into a repository of the store, which it
// returns. ref may be empty; it helps where the other side gives out branches only. Errors wrap ErrNotThere where the
// other side does not have the commit.
func (s *Store) Fetch(ctx context.Context, remote Remote, ref string, commit Commit) (Repository, error) {
	ctx, cancel := context.WithTimeout(ctx, remoteBound)
	defer cancel()
	r := s.copyOf(remote)
	defer s.copying.lock(r.path)()
	if err := r.makeCopy(ctx); err != nil {
		return Repository{}, fmt.Errorf("making a copy of %s: %w", remote, err)
	}
	if there, err := r.Contains(ctx, commit); err != nil || there {
		return r, err
	}
	direct := r.fetch(ctx, remote, string(commit))
	var failed *Error
	if errors.As(direct, &failed) && strings.Contains(failed.Text, ".lock") {
		// A process that was killed left its lock; the copy can be had again.
		if err := errors.Join(os.RemoveAll(r.path), r.makeCopy(ctx)); err != nil {
			return Repository{}, fmt.Errorf("making a copy of %s: %w", remote, err)
		}
		direct = r.fetch(ctx, remote, string(commit))
	}
	if direct == nil {
		return r, nil
	}
	all := "+" + Heads + "*:refs/towpath/heads/*"
	if ref != "" {
		all = "+" + ref + ":refs/towpath/ref"
	}
	if err := r.fetch(ctx, remote, all); err != nil {
		return Repository{}, fmt.Errorf("fetching from %s: %w", remote, err)
	}
	if there, err := r.Contains(ctx, commit); err != nil || there {
		return r, err
	}
	return Repository{}, fmt.Errorf("commit %s of %s: %w (%w)", commit, remote, ErrNotThere, direct)
}

// makeCopy makes the repository if it is not there, beside its place, so that half of one is never seen.
func (r Repository) makeCopy(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(r.path, "HEAD")); err == nil {
		return nil
	}
	return r.store.create(ctx, r)
}

func (r Repository) fetch(ctx context.Context, remote Remote, what string) error {
	_, err := r.git(ctx, nil, "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--", remote.url, what)
	return err
}
