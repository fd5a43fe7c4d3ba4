package build

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
)

func contextOf(t testing.TB) context.Context { return context.WithoutCancel(t.Context()) }

func testConfig(t testing.TB) Config {
	c := Config{Registry: "127.0.0.1:1", Gateway: "http://127.0.0.1:1", Work: t.TempDir(), FetchTimeout: 20 * time.Second}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return c.withDefaults()
}

// fetched fetches and writes a commit, and checks that nothing of it is left when it is removed.
func fetched(t *testing.T, c Config, o origin) (*checkout, error) {
	t.Helper()
	co, err := c.fetch(t.Context(), o)
	if err == nil {
		if err = co.write(t.Context()); err != nil {
			co.remove()
		} else {
			t.Cleanup(func() {
				co.remove()
				checkEmpty(t, c.Work)
			})
			return co, nil
		}
	}
	checkEmpty(t, c.Work)
	return nil, err
}

func checkEmpty(t testing.TB, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind in %s: %v, %v", dir, left, err)
	}
}

// wantFault checks who is to act and that the trouble says why.
func wantFault(t *testing.T, err error, outcome events.Outcome, why string) {
	t.Helper()
	f := faultOf(err)
	if f == nil {
		t.Fatalf("%v (%T) is no fault, want %s: %s", err, err, outcome, why)
	}
	if f.Outcome != outcome || !strings.Contains(f.Trouble.String(), why) || f.Trouble.Do == "" {
		t.Errorf("got %s: %+v, want %s with %q, and what to do", f.Outcome, f.Trouble, outcome, why)
	}
}

func TestFetchExactCommit(t *testing.T) {
	r := newRepo(t)
	first := r.commit("a", "1", "dir/b", "2")
	if err := os.Symlink("../../etc/passwd", filepath.Join(r.dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(r.dir, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	second := r.commit("a", "changed", "dir/b", "-")
	r.commit("a", "newest")
	c := testConfig(t)
	for commit, want := range map[string]map[string]string{
		first:  {"a": "1", "dir/b": "2"},
		second: {"a": "changed", "link": "-> ../../etc/passwd"},
	} {
		co, err := fetched(t, Config{Work: t.TempDir(), FetchTimeout: c.FetchTimeout, MaxSource: c.MaxSource, MaxFiles: c.MaxFiles},
			origin{repository: r.url(), ref: "refs/heads/main", commit: commit})
		if err != nil {
			t.Fatal(err)
		}
		if got := files(t, co.tree); !maps.Equal(got, want) {
			t.Errorf("commit %s holds %v, want %v", commit, got, want)
		}
		if tree := r.git("rev-parse", commit+"^{tree}"); co.Commit.Tree != tree {
			t.Errorf("tree is %s, want %s", co.Commit.Tree, tree)
		}
		info, err := os.Stat(filepath.Join(co.tree, "a"))
		if err != nil || !info.ModTime().Equal(co.Commit.Time) || info.ModTime().Unix() != 1714979289 {
			t.Errorf("file's time is %v, commit's %v, %v", info.ModTime(), co.Commit.Time, err)
		}
		if want := map[string]os.FileMode{first: 0o644, second: 0o755}[commit]; info.Mode().Perm() != want {
			t.Errorf("mode is %v, want %v", info.Mode().Perm(), want)
		}
		if out, err := co.git.run(t.Context(), "rev-list", "--count", commit); err != nil || strings.TrimSpace(string(out)) != "1" {
			t.Errorf("history has %s commits, %v, want 1", out, err)
		}
	}
}

// gitServer serves a folder of repositories over HTTP. version 0 is a server that gives out only what its
// refs point at.
func gitServer(t *testing.T, root string, version int, authorise func(*http.Request) bool) string {
	t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null"},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if authorise != nil && !authorise(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if version == 0 {
			r.Header.Del("Git-Protocol")
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestFetchFromServerThatRefusesCommits(t *testing.T) {
	r := newRepo(t)
	old := r.commit("a", "old")
	r.commit("a", "new")
	url := gitServer(t, filepath.Dir(r.dir), 0, nil) + "/repo/.git"
	for _, ref := range []string{"refs/heads/main", "", "refs/heads/gone"} {
		co, err := fetched(t, testConfig(t), origin{repository: url, ref: ref, commit: old})
		if err != nil {
			t.Errorf("ref %q: %v", ref, err)
		} else if got := files(t, co.tree); got["a"] != "old" {
			t.Errorf("ref %q: got %v", ref, got)
		}
	}
	_, err := fetched(t, testConfig(t), origin{repository: url, ref: "refs/heads/main", commit: strings.Repeat("12", 20)})
	wantFault(t, err, events.Failure, "no such commit")
}

func TestFetchNeedsAccess(t *testing.T) {
	r := newRepo(t)
	commit := r.commit("a", "1")
	base := gitServer(t, filepath.Dir(r.dir), 2, func(r *http.Request) bool {
		user, password, _ := r.BasicAuth()
		return user == "robot" && password == "s3cret"
	})
	url := base + "/repo/.git"
	_, err := fetched(t, testConfig(t), origin{repository: url, commit: commit})
	wantFault(t, err, events.Error, "")

	if _, err := fetched(t, testConfig(t), origin{repository: url, commit: commit, authorization: "Basic cm9ib3Q6czNjcmV0"}); err != nil {
		t.Errorf("with a header: %v", err)
	}
	c := testConfig(t)
	c.Git.Credentials = filepath.Join(t.TempDir(), "it's credentials")
	if err := os.WriteFile(c.Git.Credentials, []byte(strings.Replace(base, "://", "://robot:s3cret@", 1)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fetched(t, c, origin{repository: url, commit: commit}); err != nil {
		t.Errorf("with a credentials file: %v", err)
	}
}

func TestFetchTroubles(t *testing.T) {
	r := newRepo(t)
	commit := r.commit("a", "1")
	_, err := fetched(t, testConfig(t), origin{repository: "file:///nowhere/at/all.git", commit: commit})
	wantFault(t, err, events.Error, "nowhere")
	_, err = fetched(t, testConfig(t), origin{repository: r.url(), commit: "main"})
	wantFault(t, err, events.Failure, "not a full commit id")
	_, err = fetched(t, testConfig(t), origin{repository: r.url(), commit: r.git("rev-parse", commit+"^{tree}")})
	wantFault(t, err, events.Failure, "")

	_, err = fetched(t, testConfig(t), origin{repository: "http://127.0.0.1:1/repo.git", commit: commit})
	if err == nil || faultOf(err) != nil {
		t.Errorf("a server that is away: %v, want a temporary error", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errFenced)
	if _, err := testConfig(t).fetch(ctx, origin{repository: r.url(), commit: commit}); !errors.Is(err, errFenced) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestFetchIsBounded(t *testing.T) {
	r := newRepo(t)
	commit := r.commit("a", strings.Repeat("x", 5000), "b", "1", "c", "2")
	c := testConfig(t)
	c.MaxSource = 4000
	_, err := fetched(t, c, origin{repository: r.url(), commit: commit})
	wantFault(t, err, events.Failure, "its files are more than")
	c = testConfig(t)
	c.MaxFiles = 2
	_, err = fetched(t, c, origin{repository: r.url(), commit: commit})
	wantFault(t, err, events.Failure, "more than 2 files")

	stuck := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(stuck.Close)
	c = testConfig(t)
	c.FetchTimeout = 200 * time.Millisecond
	began := time.Now()
	if _, err = fetched(t, c, origin{repository: stuck.URL + "/repo.git", commit: commit}); err == nil || !strings.Contains(err.Error(), "longer than 200ms") {
		t.Errorf("a server that does not answer: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestTreeBomb has a tree that is small in git and would be enormous on the disk.
func TestTreeBomb(t *testing.T) {
	r := newRepo(t)
	r.commit("f", "x")
	tree := r.git("rev-parse", "HEAD^{tree}")
	for range 12 {
		var entries strings.Builder
		for i := range 10 {
			entries.WriteString("040000 tree " + tree + "\td" + string(rune('0'+i)) + "\n")
		}
		command := exec.Command("git", "mktree")
		command.Dir, command.Stdin = r.dir, strings.NewReader(entries.String())
		out, err := command.Output()
		if err != nil {
			t.Fatal(err)
		}
		tree = strings.TrimSpace(string(out))
	}
	commit := r.git("commit-tree", "-m", "bomb", tree)
	r.git("update-ref", "refs/heads/main", commit)
	_, err := fetched(t, testConfig(t), origin{repository: r.url(), commit: commit})
	wantFault(t, err, events.Failure, "more than 200000 files")
}

func TestSubmodules(t *testing.T) {
	inner, middle, outer := newRepo(t), newRepo(t), newRepo(t)
	pinned := inner.commit("deep", "pinned")
	inner.commit("deep", "newer")
	middle.commit("mid", "1")
	middle.git("submodule", "--quiet", "add", inner.url(), "nested/inner")
	middle.git("-C", "nested/inner", "checkout", "--quiet", pinned)
	middle.commit()
	outer.commit("Dockerfile", "FROM scratch")
	outer.git("submodule", "--quiet", "add", middle.url(), "lib")
	commit := outer.commit()

	_, err := fetched(t, testConfig(t), origin{repository: outer.url(), commit: commit})
	wantFault(t, err, events.Failure, "does not share")

	c := testConfig(t)
	c.SubmoduleFolders = []string{filepath.Dir(inner.dir), filepath.Dir(middle.dir)}
	co, err := fetched(t, c, origin{repository: outer.url(), commit: commit})
	if err != nil {
		t.Fatal(err)
	}
	got := files(t, co.tree)
	if got["lib/mid"] != "1" || got["lib/nested/inner/deep"] != "pinned" {
		t.Errorf("got %v", got)
	}
	if len(co.Submodules) != 2 || co.Submodules[1].Path != "lib/nested/inner" || co.Submodules[1].Commit != pinned {
		t.Errorf("submodules %+v", co.Submodules)
	}

	// Over HTTP, by an address relative to that of the repository that holds it.
	root := filepath.Dir(outer.dir)
	if err := os.Rename(middle.dir, filepath.Join(root, "middle")); err != nil {
		t.Fatal(err)
	}
	middle.dir = filepath.Join(root, "middle")
	url := gitServer(t, root, 2, nil)
	outer.git("config", "-f", ".gitmodules", "submodule.lib.url", "../../middle/.git")
	commit = outer.commit()
	c = testConfig(t)
	c.SubmoduleFolders = []string{filepath.Dir(inner.dir)}
	_, err = fetched(t, c, origin{repository: url + "/repo/.git", commit: commit})
	if err != nil {
		t.Errorf("relative address: %v", err)
	}
}

func TestHostileSubmodules(t *testing.T) {
	victim := newRepo(t)
	secret := victim.commit("secret", "1")
	for name, tc := range map[string]struct{ modules, why string }{
		"helper":     {"[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c touch% /tmp/pwned\n", "more than a host"},
		"option":     {"[submodule \"x\"]\n\tpath = x\n\turl = --upload-pack=touch /tmp/pwned\n", "transport"},
		"local":      {"[submodule \"x\"]\n\tpath = x\n\turl = " + victim.dir + "\n", "transport"},
		"file":       {"[submodule \"x\"]\n\tpath = x\n\turl = " + victim.url() + "\n", "does not share"},
		"climbing":   {"[submodule \"x\"]\n\tpath = x\n\turl = ../../../../../../../.." + victim.dir + "\n", "does not share"},
		"unlisted":   {"", "does not say where from"},
		"ssh option": {"[submodule \"x\"]\n\tpath = x\n\turl = ssh://-oProxyCommand=touch/x\n", "needs a host"},
		"malformed":  {"[submodule \"x\n", "does not say where from"},
	} {
		r := newRepo(t)
		r.commit(".gitmodules", tc.modules)
		r.git("update-index", "--add", "--cacheinfo", "160000,"+secret+",x")
		r.git("commit", "--quiet", "-m", "hostile")
		_, err := fetched(t, testConfig(t), origin{repository: r.url(), commit: r.git("rev-parse", "HEAD")})
		if f := faultOf(err); f == nil || f.Outcome != events.Failure || !strings.Contains(f.Error(), tc.why) {
			t.Errorf("%s: %v, want a failure with %q", name, err, tc.why)
		}
	}
}

func TestParseRepository(t *testing.T) {
	for in, want := range map[string]string{
		"file:///data/git/app.git":          "file:///data/git/app.git",
		"file:///data/../git/app.git":       "file:///git/app.git",
		"https://example.com/a/b.git":       "https://example.com/a/b.git",
		"http://127.0.0.1:7070/git/app.git": "http://127.0.0.1:7070/git/app.git",
		"http://[::1]:7070/git/app.git":     "http://[::1]:7070/git/app.git",
		"ssh://git@example.com:22/a/b.git":  "ssh://git@example.com:22/a/b.git",
		"git@example.com:team/app.git":      "ssh://git@example.com/team/app.git",
		"https://example.com/a%20b/c.git":   "https://example.com/a%20b/c.git",
		"ssh://example.com/~user/repo":      "ssh://example.com/~user/repo",
		"-uexec":                            "",
		"--upload-pack=x":                   "",
		"ext::sh -c id":                     "",
		"/data/git/app.git":                 "",
		"../app.git":                        "",
		"file://host/app.git":               "",
		"file:app.git":                      "",
		"ftp://example.com/a":               "",
		"https://user:pass@example.com/a":   "",
		"https://token@example.com/a":       "",
		"ssh://git:pass@example.com/a":      "",
		"ssh://-oProxyCommand=x/a":          "",
		"ssh://-x@example.com/a":            "",
		"ssh://example.com/-x":              "",
		"git@-example.com:x":                "",
		"git@example.com:-x":                "",
		"https:///a":                        "",
		"https://example.com/a?x=1":         "",
		"https://example.com/a#x":           "",
		"https://example.com/a\nb":          "",
		"https://exa mple.com/a":            "",
		"fd::17":                            "",
		"":                                  "",
	} {
		got, err := parseRepository(in)
		if want == "" {
			if f := faultOf(err); f == nil || strings.Contains(f.Error(), "pass") {
				t.Errorf("%q: %v, want a fault that holds no password", in, err)
			}
		} else if err != nil || got.text != want {
			t.Errorf("%q: %q, %v, want %q", in, got.text, err, want)
		}
	}
}

func FuzzParseRepository(f *testing.F) {
	for _, s := range []string{"file:///a", "git@example.com:x/y", "ssh://git@example.com/a", "ext::x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRepository(s)
		if err != nil {
			return
		}
		if strings.HasPrefix(r.text, "-") || strings.Contains(r.text, "::") && !strings.Contains(r.text, "[") || strings.ContainsAny(r.text, "\n\r\x00") {
			t.Errorf("%q became %q", s, r.text)
		}
		if again, err := parseRepository(r.text); err != nil || again.text != r.text {
			t.Errorf("%q became %q, then %q, %v", s, r.text, again.text, err)
		}
	})
}

func TestSweepSparesTheLiving(t *testing.T) {
	r := newRepo(t)
	commit := r.commit("a", "1")
	c := testConfig(t)
	co, err := c.fetch(t.Context(), origin{repository: r.url(), commit: commit})
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(c.Work, checkoutPrefix+"dead")
	if err := os.MkdirAll(filepath.Join(dead, "source"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dead, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sweep(c.Work); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); err == nil {
		t.Error("what a dead process left is still there")
	}
	if _, err := os.Stat(co.root); err != nil {
		t.Errorf("a checkout in use was removed: %v", err)
	}
	co.remove()
	checkEmpty(t, c.Work)
}
