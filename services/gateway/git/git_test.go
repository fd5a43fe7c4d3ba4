package git

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath.dev/events"
)

// client is a working copy with a git of its own configuration.
type client struct {
	t   *testing.T
	dir string
}

func newClient(t *testing.T) client {
	c := client{t, t.TempDir()}
	c.git("init", "--quiet", "--initial-branch=main")
	return c
}

func (c client) run(args ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"-C", c.dir, "-c", "user.name=Ann", "-c", "user.email=ann@example.org"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c client) git(args ...string) string {
	c.t.Helper()
	out, err := c.run(args...)
	if err != nil {
		c.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(out)
}

func (c client) commit(file, text, message string) Commit {
	c.t.Helper()
	path := filepath.Join(c.dir, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
	c.git("add", "-A")
	c.git("commit", "--quiet", "--message", message)
	return Commit(c.git("rev-parse", "HEAD"))
}

func openStore(t *testing.T, o Options) *Store {
	t.Helper()
	o.Dir = filepath.Join(t.TempDir(), "it's a folder")
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// serve answers for app "hello", as the gateway does for those whom it let in.
func serve(t *testing.T, s *Store) (url string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		path, ok := strings.CutPrefix(req.URL.Path, "/git/hello.git")
		if !ok {
			http.NotFound(w, req)
			return
		}
		r, done, err := s.Use(req.Context(), "hello")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer done()
		if err := r.Serve(w, req, "hello", path, Push{By: "u-ann", ID: "push-1"}); err != nil {
			t.Logf("serving %s: %v", req.URL, err)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL + "/git/hello.git"
}

func TestPushAndFetch(t *testing.T) {
	s := openStore(t, Options{})
	url := serve(t, s)
	c := newClient(t)
	first := c.commit("towpath.yaml", "app: hello\n", "First\n\nCo-authored-by: Bob <Bob@example.org>")
	if out := c.git("push", url, "main"); !strings.Contains(out, "new branch") {
		t.Errorf("push says %s", out)
	}
	second := c.commit("more", "text", "Second")
	c.git("push", url, "main", "main:feature/x")

	ctx, r := t.Context(), s.Repository("hello")
	heads, err := r.Heads(ctx)
	if err != nil || heads["refs/heads/main"] != second || heads["refs/heads/feature/x"] != second {
		t.Errorf("heads %v %v", heads, err)
	}
	updates, err := r.Updates("refs/heads/main")
	if err != nil || len(updates) != 2 || updates[0].Old != Commit(strings.Repeat("0", 40)) || updates[0].New != first ||
		updates[1].Old != first || updates[1].New != second || updates[1].By != "u-ann" || updates[1].Push != "push-1" || updates[1].At.IsZero() {
		t.Errorf("updates %+v %v", updates, err)
	}
	if !updates[0].Old.None() || updates[0].New.None() || updates[1].Branch() != "main" {
		t.Error("None or Branch is wrong")
	}
	if text, err := r.File(ctx, first, "towpath.yaml", 100); string(text) != "app: hello\n" || err != nil {
		t.Errorf("file %q %v", text, err)
	}
	if _, err := r.File(ctx, first, "towpath.yaml", 3); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a large file: %v", err)
	}
	for _, path := range []string{"nothing", "towpath.yaml/x"} {
		if _, err := r.File(ctx, first, path, 100); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	files, err := r.Files(ctx, []Commit{first, Commit(strings.Repeat("1", 40)), second}, "more", 100)
	if err != nil || !errors.Is(files[0].Err, fs.ErrNotExist) || !errors.Is(files[1].Err, fs.ErrNotExist) || string(files[2].Data) != "text" {
		t.Errorf("files %v %v", files, err)
	}
	change, err := r.Change(ctx, first, second)
	if err != nil || change.Commits != 1 || change.Subject != "Second" || len(change.Authors) != 1 {
		t.Errorf("change %+v %v", change, err)
	}
	change, err = r.Change(ctx, "", first)
	if err != nil || len(change.Authors) != 2 || change.Authors[1] != (Author{"Bob", "Bob@example.org"}) {
		t.Errorf("change %+v %v", change, err)
	}
	if forced, err := r.IsForced(ctx, first, second); forced || err != nil {
		t.Errorf("forwards is forced: %v %v", forced, err)
	}
	if forced, err := r.IsForced(ctx, second, first); !forced || err != nil {
		t.Errorf("backwards is not forced: %v %v", forced, err)
	}
}

// A commit stays, and can be fetched by its id, after its branch was moved and deleted; nobody sees our own references.
func TestKeep(t *testing.T) {
	s := openStore(t, Options{})
	url := serve(t, s)
	c := newClient(t)
	first := c.commit("a", "1", "first")
	c.git("push", url, "main", "main:other")
	if err := s.Repository("hello").Keep(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	c.git("commit", "--quiet", "--amend", "-m", "instead")
	c.git("push", "--force", url, "main")
	c.git("push", url, ":other")
	if out := c.git("ls-remote", url); strings.Contains(out, "towpath") || strings.Contains(out, string(first)) {
		t.Errorf("the listing shows %s", out)
	}
	d := newClient(t)
	d.git("fetch", url, string(first))
	if got := d.git("rev-parse", "FETCH_HEAD"); got != string(first) {
		t.Errorf("fetched %s", got)
	}
	if _, err := c.run("push", url, "main:refs/towpath/runs/1"); err == nil {
		t.Error("a client wrote a hidden reference")
	}
}

// A push of many megabytes comes in pieces without a length, and is answered while it goes on.
func TestLargePush(t *testing.T) {
	s := openStore(t, Options{MaxPush: 64 << 20})
	url := serve(t, s)
	c := newClient(t)
	c.commit("large", randomText(5<<20), "large")
	c.git("-c", "http.postBuffer=65536", "push", url, "main")
}

func TestTooLargePush(t *testing.T) {
	s := openStore(t, Options{MaxPush: 1 << 20})
	url := serve(t, s)
	c := newClient(t)
	c.commit("large", randomText(8<<20), "large")
	out, err := c.run("push", url, "main")
	if err == nil || !strings.Contains(out, "pack exceeds maximum allowed size") {
		t.Errorf("%v\n%s", err, out)
	}
	if s.Exists("hello") {
		t.Error("the empty repository is still there")
	}
}

// randomText does not compress.
func randomText(size int) string {
	f, err := os.Open("/dev/urandom")
	if err != nil {
		panic(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(size)))
	if err != nil {
		panic(err)
	}
	return string(data)
}

func TestHook(t *testing.T) {
	script := filepath.Join(t.TempDir(), "it's the hook")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$@ $COLOUR\"; cat; test \"$2\" != pre-receive\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, Options{Hook: []string{script, "a b"}})
	r, done, err := s.Use(t.Context(), "hello")
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := r.Serve(w, req, "hello", strings.TrimPrefix(req.URL.Path, "/x"), Push{By: "a", ID: "b", Env: []string{"COLOUR=blue"}}); err != nil {
			t.Logf("serving: %v", err)
		}
	}))
	defer server.Close()
	c := newClient(t)
	commit := c.commit("a", "1", "first")
	out, err := c.run("push", server.URL+"/x", "main")
	if err == nil || !strings.Contains(out, "remote: a b pre-receive blue") || !strings.Contains(out, string(commit)+" refs/heads/main") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestUse(t *testing.T) {
	s := openStore(t, Options{})
	_, first, err := s.Use(t.Context(), "hello")
	if err != nil {
		t.Fatal(err)
	}
	_, second, err := s.Use(t.Context(), "hello")
	if err != nil {
		t.Fatal(err)
	}
	first()
	first()
	if !s.Exists("hello") {
		t.Fatal("removed while somebody uses it")
	}
	second()
	if s.Exists("hello") {
		t.Fatal("an empty repository stays")
	}
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			_, done, err := s.Use(t.Context(), "busy")
			if err != nil {
				t.Error(err)
				return
			}
			done()
		})
	}
	group.Wait()
	if apps, err := s.Apps(); err != nil || len(apps) != 0 {
		t.Errorf("left over: %v %v", apps, err)
	}
}

func TestRemote(t *testing.T) {
	s := openStore(t, Options{})
	c := newClient(t)
	first := c.commit("towpath.yaml", "app: a\n", "first")
	c.git("checkout", "--quiet", "-b", "other")
	hidden := c.commit("towpath.yaml", "app: b\n", "second")
	c.git("checkout", "--quiet", "main")
	ctx := t.Context()
	remote, err := ParseRemote("file://" + c.dir + "/")
	if err != nil {
		t.Fatal(err)
	}
	if tip, err := s.Tip(ctx, remote, "refs/heads/main"); tip != first || err != nil {
		t.Errorf("tip %s %v", tip, err)
	}
	if _, err := s.Tip(ctx, remote, "refs/heads/nothing"); !errors.Is(err, ErrNotThere) {
		t.Errorf("a branch that is not there: %v", err)
	}
	for _, commit := range []Commit{first, hidden, first} {
		r, err := s.Fetch(ctx, remote, "refs/heads/main", commit)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := r.File(ctx, commit, "towpath.yaml", 100); err != nil || !strings.HasPrefix(string(text), "app: ") {
			t.Errorf("%q %v", text, err)
		}
	}
	none := Commit("0123456789012345678901234567890123456789")
	if _, err := s.Fetch(ctx, remote, "", none); !errors.Is(err, ErrNotThere) || !strings.Contains(err.Error(), string(none)) {
		t.Errorf("a commit that is not there: %v", err)
	}
	nowhere, err := ParseRemote("file://" + c.dir + "/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(ctx, nowhere, "", none); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a repository that is not there: %v", err)
	}
}

// A fetch that finds the lock of a process that was killed makes its copy again; a start clears those of hosted
// repositories.
func TestLocksOfTheKilled(t *testing.T) {
	s := openStore(t, Options{})
	c := newClient(t)
	first := c.commit("a", "1", "first")
	remote, err := ParseRemote("file://" + c.dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Fetch(t.Context(), remote, "", first)
	if err != nil {
		t.Fatal(err)
	}
	second := c.commit("a", "2", "second")
	if err := os.WriteFile(filepath.Join(r.path, "shallow.lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(t.Context(), remote, "", second); err != nil {
		t.Error(err)
	}
	url := serve(t, s)
	c.git("push", url, "main")
	lock := filepath.Join(s.Repository("hello").path, "refs/heads/main.lock")
	if err := os.WriteFile(lock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.commit("a", "3", "third")
	if out, err := c.run("push", url, "main"); err == nil {
		t.Errorf("pushed over a lock: %s", out)
	}
	if _, err := Open(t.Context(), Options{Dir: s.dir}); err != nil {
		t.Fatal(err)
	}
	c.git("push", url, "main")
}

func TestFetchesAtOnce(t *testing.T) {
	s := openStore(t, Options{})
	c := newClient(t)
	first := c.commit("a", "1", "first")
	remote, err := ParseRemote("file://" + c.dir)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			if _, err := s.Fetch(t.Context(), remote, "", first); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

func TestParseRemote(t *testing.T) {
	for _, good := range []string{"file:///a/b", "http://h/p", "https://git@h.example:8443/p.git", "ssh://git@h:22/p", "git@github.com:o/r.git", "host:path"} {
		if r, err := ParseRemote(good); err != nil || r.String() != good {
			t.Errorf("%s: %s %v", good, r, err)
		}
	}
	for _, bad := range []string{
		"", "/etc/passwd", "../x", "ext::sh -c id", "ext::id", "--upload-pack=id", "-oProxyCommand=id:x", "ftp://h/p", "file://host/p", "file:relative",
		"http:///p", "https://h", "https://u:secret@h/p", "https://h/p?x=1", "https://h/p#x", "ssh://-oProxyCommand=id/p", "https://h/a b", "https://h/\n", "fd::17",
	} {
		if r, err := ParseRemote(bad); !errors.Is(err, ErrRemote) {
			t.Errorf("%q: %s %v", bad, r, err)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the password is shown: %v", err)
		}
	}
}

func FuzzParseRemote(f *testing.F) {
	f.Add("git@github.com:o/r.git")
	f.Add("https://h/p")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRemote(text)
		if err == nil && (strings.HasPrefix(r.String(), "-") || strings.Contains(r.String(), "::") || strings.ContainsAny(r.String(), "\n\x00 ")) {
			t.Fatalf("%q is accepted", text)
		}
	})
}

func FuzzLogLine(f *testing.F) {
	f.Add(strings.Repeat("0", 40) + " " + strings.Repeat("1", 40) + " u-ann <push-1> 1767323045 +0000\tpush")
	f.Fuzz(func(t *testing.T, line string) {
		if u, ok := parseLogLine(line); ok && (len(u.Old) < 40 || len(u.New) < 40) {
			t.Fatalf("%+v", u)
		}
	})
}

func TestBounds(t *testing.T) {
	s := openStore(t, Options{})
	r := s.Repository("hello")
	for _, folder := range []string{"/etc", r.path + "/../other.git/objects", "objects", r.path + "x"} {
		if _, err := r.Within(Quarantine{Objects: folder}); err == nil {
			t.Errorf("quarantine %s is accepted", folder)
		}
	}
	if _, err := r.Within(Quarantine{Objects: r.path + "/objects/tmp_objdir-x", Alternates: r.path + "/objects"}); err != nil {
		t.Error(err)
	}
	for _, ref := range []string{"refs/heads/../../../x", "refs/tags/a", "/etc/passwd", "HEAD"} {
		if _, err := r.Updates(ref); err == nil {
			t.Errorf("the log of %s is read", ref)
		}
	}
	if _, err := Open(t.Context(), Options{Dir: t.TempDir(), Program: "no-such-git"}); err == nil {
		t.Error("a git that is not there was found")
	}
	if got := s.Repository(events.Slug("a")).path; filepath.Base(got) != "a.git" {
		t.Error(got)
	}
}

// A git process outlives its gateway by a moment: what it writes where the next gateway removes an empty repository is no
// repository, and is in nobody's way.
func TestWhatIsLeftOfARemovedRepositoryIsInNobodysWay(t *testing.T) {
	s := openStore(t, Options{})
	left := filepath.Join(s.hosted(), "hello.git", "logs", "refs", "heads")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "main"), []byte("a line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if apps, err := s.Apps(); err != nil || len(apps) != 0 {
		t.Errorf("it is listed as a repository: %v, %v", apps, err)
	}
	if err := s.RemoveEmpty(); err != nil {
		t.Fatal(err)
	}
	r, done, err := s.Use(t.Context(), "hello")
	if err != nil {
		t.Fatalf("the app has no repository any more: %v", err)
	}
	if heads, err := r.Heads(t.Context()); err != nil || len(heads) != 0 {
		t.Errorf("%v, %v", heads, err)
	}
	done()
	if entries, err := os.ReadDir(s.hosted()); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestNothingOutlivesAKilledGateway kills a process that serves a push whose body never ends, and looks that the
// program which takes it in ends as well.
func TestNothingOutlivesAKilledGateway(t *testing.T) {
	if folder := os.Getenv("TOWPATH_TEST_SERVE"); folder != "" {
		s, err := Open(t.Context(), Options{Dir: folder})
		if err != nil {
			t.Fatal(err)
		}
		url := serve(t, s)
		body, _ := io.Pipe() // nothing ever comes
		req, err := http.NewRequest(http.MethodPost, url+"/git-receive-pack", body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = 1000
		req.Header.Set("Content-Type", "application/x-git-receive-pack-request")
		http.DefaultClient.Do(req) // until this process is killed
		return
	}
	gateway := exec.Command(os.Args[0], "-test.run=^TestNothingOutlivesAKilledGateway$", "-test.timeout=1m")
	gateway.Env = append(os.Environ(), "TOWPATH_TEST_SERVE="+t.TempDir())
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	defer gateway.Process.Kill()
	backend := 0
	eventually(t, "git takes the push in", func() bool {
		backend = childOf(gateway.Process.Pid)
		return backend > 0
	})
	if err := gateway.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	gateway.Wait()
	eventually(t, "it ends", func() bool {
		_, err := os.Stat("/proc/" + strconv.Itoa(backend))
		return errors.Is(err, fs.ErrNotExist)
	})
}

// childOf returns the child of a process that is git-http-backend, 0 where there is none.
func childOf(parent int) int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		var pid, of int
		var name, state string
		data, _ := os.ReadFile(file)
		if _, err := fmt.Sscan(string(data), &pid, &name, &state, &of); err == nil && of == parent && strings.HasPrefix(name, "(git-http-backen") {
			return pid
		}
	}
	return 0
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	bound := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-bound:
			t.Fatalf("within 20 s it is not so that %s", what)
		}
	}
}
