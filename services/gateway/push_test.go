package gateway

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath.dev/pkg/source"
	"towpath.dev/services/gateway/git"
)

func TestPush(t *testing.T) {
	s := newStation(t)
	w := newWorking(t, helloYAML)
	out := w.git("push", s.remote("hello"), "main")
	contains(t, out, "remote:   hello/1  ", "First of all", s.url+"/runs/hello/1?key=",
		"prod WILL BE BLOCKED: DATABASE_URL missing → towpath config set prod hello DATABASE_URL=…",
		"dev WILL BE BLOCKED: PASSWORD missing → towpath secret set dev hello PASSWORD",
		"prod will wait for 1 approval → towpath approve hello/1 --env prod")
	if _, shown := s.ask(s.token, "GET", "/v1/apps/hello/runs/1", nil); strings.Count(shown, "will be blocked: 2 keys missing") != 2 {
		t.Errorf("nothing says from the first minute what will be missing: %s", shown)
	}
	head := w.git("rev-parse", "HEAD")
	run := s.run("hello", 1)
	if run.Start.SHA != head || run.Start.Ref != "refs/heads/main" || run.Start.RepositoryURL != "" || run.Start.OldSHA != "" {
		t.Errorf("start %+v", run.Start)
	}
	if len(run.Start.Authors) != 1 || run.ChainID == "" || run.Start.PolicyDigest != s.fold().CurrentPolicy().Digest {
		t.Errorf("start %+v", run.Start)
	}
	if strings.Contains(fmt.Sprint(run.Start), "ann@example.org") {
		t.Error("an address is in the ledger")
	}
	app := s.fold().App("hello")
	if app.Branch != "main" || app.Repository != "" || app.Created.IsZero() {
		t.Errorf("app %+v", app)
	}

	w.write("main.go", "package main\n\nimport \"os\"\n\nvar _ = os.Getenv(\"DATABASE_URL\") + os.Getenv(\"PASSWORD_FILE\") + os.Getenv(\"FORGOTTEN\")\n")
	second := w.commit("Second")
	out = w.git("push", s.remote("hello"), "main")
	contains(t, out, "hello/2", "main.go:5 reads FORGOTTEN, which towpath.yaml does not declare")
	if strings.Count(out, "does not declare") != 1 {
		t.Errorf("what is declared is told as well: %s", out)
	}
	if run := s.run("hello", 2); run.Start.SHA != second || run.Start.OldSHA != head || run.Start.Predecessor != 1 {
		t.Errorf("start %+v", run.Start)
	}
	if types := s.records("hello"); count(types, "change.merged") != 2 || count(types, "app.created") != 1 {
		t.Errorf("events %v", types)
	}

	// Pushed by its first author again, a rewritten branch is a run of its own, and says what happened.
	w.git("reset", "--quiet", "--hard", head)
	w.write("other", "text")
	w.commit("Instead")
	contains(t, w.git("push", "--force", s.remote("hello"), "main"), "hello/3", "this push rewrote main")
	w.git("reset", "--quiet", "--hard", head)
	contains(t, w.git("push", "--force", s.remote("hello"), "main"), "hello/4")
	w.git("fetch", s.remote("hello"), second)
}

func TestBranchesThatStartNothing(t *testing.T) {
	s := newStation(t)
	w := newWorking(t, helloYAML)
	w.git("push", s.remote("hello"), "main")
	contains(t, w.git("push", s.remote("hello"), "main:topic"), "topic starts no run: pushes to main do (branch in towpath.yaml)")
	w.git("tag", "v1")
	contains(t, w.git("push", s.remote("hello"), "v1"), "tags/v1 starts no run")
	w.git("rm", "--quiet", "towpath.yaml")
	w.commit("Without")
	contains(t, w.git("push", s.remote("hello"), "HEAD:topic2"), "topic2 starts no run: it has no towpath.yaml")
	out, err := w.try("push", s.remote("hello"), "HEAD:main")
	if err == nil {
		t.Error("main without a towpath.yaml was taken in")
	}
	contains(t, out, "towpath.yaml is missing at the root of main; `towpath init` writes one")
	contains(t, w.git("push", s.remote("hello"), ":topic"), "topic is gone")
	out, err = w.try("push", s.remote("hello"), ":main")
	if err == nil {
		t.Error("the branch that carries the app was deleted")
	}
	contains(t, out, "main carries hello and cannot be deleted")
	out, err = w.try("push", s.remote("hello"), "HEAD:refs/notes/x")
	if err == nil {
		t.Error("a reference that is no branch was taken in")
	}
	contains(t, out, "neither a branch nor a tag")
	if app := s.fold().App("hello"); app.Runs.Len() != 1 {
		t.Errorf("%d runs", app.Runs.Len())
	}

	// The pipeline may move to another branch.
	w.git("reset", "--quiet", "--hard", "v1")
	w.write("towpath.yaml", "branch: release/2\n"+helloYAML)
	w.commit("Move")
	contains(t, w.git("push", s.remote("hello"), "HEAD:release/2"), "hello/2")
}

func TestRefusedPush(t *testing.T) {
	s := newStation(t)
	w := newWorking(t, "app: hello\nservice: {prot: 8080}\nonNewer: perhaps\nenvironments: [{name: dev}]\n")
	out, err := w.try("push", s.remote("hello"), "main")
	if err == nil {
		t.Fatal("a push with a faulty towpath.yaml was taken in")
	}
	contains(t, out, "remote: Towpath refuses this push to hello:", "towpath.yaml:2: service.prot: unknown key; allowed: drainTimeout,", "did you mean port?",
		`towpath.yaml:3: onNewer: must be one of supersede, queue (got "perhaps")`, "pre-receive hook declined")
	if s.fold().App("hello") != nil || s.git.Exists("hello") {
		t.Error("something of the refused push is left")
	}
	if out, err := w.try("ls-remote", s.remote("hello")); err == nil {
		t.Errorf("the repository is there: %s", out)
	}

	w.write("towpath.yaml", "app: other\nenvironments: [{name: dev}]\n")
	w.commit("Another name")
	out, err = w.try("push", s.remote("hello"), "main")
	if err == nil {
		t.Error("another app's towpath.yaml was taken in")
	}
	contains(t, out, `app: must be hello, as this repository is called (got "other"); change it, or push to /git/other.git`)

	w.write("towpath.yaml", strings.Repeat("# long\n", 20_000))
	w.commit("Large")
	out, _ = w.try("push", s.remote("hello"), "main")
	contains(t, out, "towpath.yaml:1: the file is too large: allowed are 65536 bytes")

	w.git("rm", "--quiet", "towpath.yaml")
	w.commit("None")
	out, _ = w.try("push", s.remote("hello"), "main")
	contains(t, out, "towpath.yaml is missing at the root of main")

	w.write("towpath.yaml", helloYAML)
	w.commit("Good")
	contains(t, w.git("push", s.remote("hello"), "main"), "hello/1")
	w.write("towpath.yaml", "app: [\n")
	w.commit("Bad again")
	out, err = w.try("push", s.remote("hello"), "main")
	if err == nil {
		t.Error("a push with broken YAML was taken in")
	}
	contains(t, out, "not valid YAML")
	if app := s.fold().App("hello"); app.Runs.Len() != 1 {
		t.Errorf("%d runs", app.Runs.Len())
	}
}

func TestWhoMayPush(t *testing.T) {
	s := newStation(t)
	w := newWorking(t, helloYAML)
	plain := s.url + "/git/hello.git"
	for _, url := range []string{plain, strings.Replace(plain, "http://", "http://ann:nonsense@", 1)} {
		if out, err := w.try("push", url, "main"); err == nil {
			t.Errorf("pushed to %s: %s", url, out)
		}
	}
	bot := s.newToken(t, "bot", "bot")
	out, err := w.try("push", strings.Replace(plain, "http://", "http://x:"+bot+"@", 1), "main")
	if err == nil {
		t.Error("a bot made an app")
	}
	contains(t, out, "403")
	if s.git.Exists("hello") || s.fold().App("hello") != nil {
		t.Error("something is left of a push that was not allowed")
	}
	w.git("push", s.remote("hello"), "main")
	w.commit("By a bot")
	contains(t, w.git("push", strings.Replace(plain, "http://", "http://x:"+bot+"@", 1), "main"), "hello/2")

	password := source.Password(s.rt.Ledger.Signer(), "hello", time.Now())
	service := strings.Replace(plain, "http://", "http://"+source.User+":"+password+"@", 1)
	w.git("fetch", service, "main")
	if out, err := w.try("push", service, "main:x"); err == nil {
		t.Errorf("a service pushed: %s", out)
	}
	if out, err := w.try("fetch", strings.Replace(plain, "http://", "http://"+source.User+":x@", 1), "main"); err == nil {
		t.Errorf("fetched with a wrong password: %s", out)
	}
	for _, path := range []string{"/git/hello.git/HEAD", "/git/hello.git/objects/info/packs", "/git/hello.git/config", "/git/hello.git/info/refs"} {
		if status, answer := s.ask(s.token, http.MethodGet, path, nil); status != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	for _, name := range []string{"..%2f..%2fetc", "Hello", "a%00b", "-x", "hello"} {
		if status, answer := s.ask(s.token, http.MethodGet, "/git/"+name+"/info/refs?service=git-upload-pack", nil); status != http.StatusNotFound {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
}

// Many clones push to one branch at the same time: each push that git took in is one run, in git's order.
func TestPushesAtOnce(t *testing.T) {
	s := newStation(t)
	origin := newWorking(t, helloYAML)
	origin.git("push", s.remote("hello"), "main")
	var group sync.WaitGroup
	for n := range 8 {
		group.Go(func() {
			w := working{t, t.TempDir()}
			w.git("clone", "--quiet", s.remote("hello"), ".")
			w.write(fmt.Sprint("file", n), "text")
			w.commit(fmt.Sprint("Change ", n))
			for {
				out, err := w.try("push", s.remote("hello"), "main")
				if err == nil {
					contains(t, out, "hello/")
					return
				}
				w.git("fetch", "--quiet", "origin")
				w.git("rebase", "--quiet", "origin/main")
			}
		})
	}
	group.Wait()
	app := s.fold().App("hello")
	if app.Runs.Len() != 9 {
		t.Fatalf("%d runs", app.Runs.Len())
	}
	updates, err := s.git.Repository("hello").Updates("refs/heads/main")
	if err != nil {
		t.Fatal(err)
	}
	for run := range app.Runs.All() {
		i := run.N - 1
		if run.Start.SHA != string(updates[i].New) || run.Start.Predecessor != i {
			t.Errorf("run %d is of %s after %d, git's log has %s", run.N, run.Start.SHA, run.Start.Predecessor, updates[i].New)
		}
	}
}

// Different apps are pushed for the first time at once.
func TestFirstPushesAtOnce(t *testing.T) {
	s := newStation(t)
	var group sync.WaitGroup
	for n := range 6 {
		group.Go(func() {
			name := fmt.Sprint("app-", n)
			w := newWorking(t, "app: "+name+"\nenvironments: [{name: dev}]\n")
			contains(t, w.git("push", s.remote(name), "main"), name+"/1")
		})
	}
	group.Wait()
	if apps := s.fold().Apps(); len(apps) != 6 {
		t.Errorf("%d apps", len(apps))
	}
}

// A crash between git and the ledger loses nothing, and nothing is recorded twice: neither after one push, nor several,
// nor when the crash came after the event.
func TestCrashBetweenGitAndLedger(t *testing.T) {
	s := newStation(t)
	w := newWorking(t, helloYAML)
	w.git("push", s.remote("hello"), "main")
	// What git took in without the gateway's hooks is what a crash before the event leaves behind.
	bare := filepath.Join(s.cfg.repositories(), "hosted", "hello.git")
	var commits []string
	for n := range 3 {
		w.write("n", fmt.Sprint(n))
		commits = append(commits, w.commit(fmt.Sprint("Unrecorded ", n)))
		w.git("push", bare, "main")
	}
	s.restart()
	app := s.fold().App("hello")
	if app.Runs.Len() != 4 {
		t.Fatalf("%d runs", app.Runs.Len())
	}
	for n, commit := range commits {
		if run := app.Run(n + 2); run.Start.SHA != commit {
			t.Errorf("run %d is of %s", run.N, run.Start.SHA)
		}
	}
	s.restart()
	if app := s.fold().App("hello"); app.Runs.Len() != 4 {
		t.Errorf("%d runs after another start", app.Runs.Len())
	}

	// A power cut took the end of git's log.
	w.commit("After the cut")
	w.git("push", bare, "main")
	if err := os.Remove(filepath.Join(bare, "logs/refs/heads/main")); err != nil {
		t.Fatal(err)
	}
	s.restart()
	s.restart()
	if app := s.fold().App("hello"); app.Runs.Len() != 5 || app.Run(5).Start.OldSHA != commits[2] {
		t.Fatalf("%d runs", app.Runs.Len())
	}
	w.commit("And on")
	contains(t, w.git("push", s.remote("hello"), "main"), "hello/6")
	s.restart()
	if app := s.fold().App("hello"); app.Runs.Len() != 6 {
		t.Errorf("%d runs at the end", app.Runs.Len())
	}
}

// While the ledger is away a push is refused; one that git took in just before is recorded when the ledger is back.
func TestLedgerAway(t *testing.T) {
	s := newStation(t)
	w := newWorking(t, helloYAML)
	w.git("push", s.remote("hello"), "main")
	s.ledger.CloseDoor()
	w.commit("While the door is shut")
	done := make(chan string)
	go func() { done <- w.git("push", s.remote("hello"), "main") }()
	eventually(t, "git has taken the push in", func() bool {
		heads, err := s.git.Repository("hello").Heads(t.Context())
		return err == nil && string(heads["refs/heads/main"]) == w.git("rev-parse", "HEAD")
	})
	s.ledger.OpenDoor()
	contains(t, <-done, "hello/2")
}

func TestSubjectIsClean(t *testing.T) {
	if got := shorten("a\x1b[31mred\u009b\n" + strings.Repeat("é", 100)); strings.ContainsAny(got, "\x1b\n\u009b") || len([]rune(got)) != 61 {
		t.Errorf("%q", got)
	}
	if got := parseUpdates("a b c\nshort\n\n"); len(got) != 1 || got[0] != (git.Update{Old: "a", New: "b", Ref: "c"}) {
		t.Errorf("%v", got)
	}
}

// BenchmarkPush measures a push of one commit as a person has it, beside the same push over HTTP to a repository without
// Towpath's hooks, and to one on disk: what the first takes more than the second is Towpath's own.
func BenchmarkPush(b *testing.B) {
	s := newStation(b)
	w := newWorking(b, helloYAML)
	w.git("push", s.remote("hello"), "main")
	n := 0
	push := func(b *testing.B, to string) {
		for b.Loop() {
			b.StopTimer()
			n++
			w.write("n", fmt.Sprint(n))
			w.commit("Next")
			b.StartTimer()
			w.git("push", to, "main")
		}
	}
	b.Run("towpath", func(b *testing.B) { push(b, s.remote("hello")) })
	b.Run("http", func(b *testing.B) {
		store, err := git.Open(b.Context(), git.Options{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			repository, done, err := store.Use(r.Context(), "hello")
			if err != nil {
				b.Error(err)
				return
			}
			defer done()
			if err := repository.Serve(rw, r, "hello", strings.TrimPrefix(r.URL.Path, "/x"), git.Push{By: "a", ID: "b"}); err != nil {
				b.Error(err)
			}
		}))
		defer server.Close()
		push(b, server.URL+"/x")
	})
	b.Run("file", func(b *testing.B) {
		bare := b.TempDir()
		w.git("init", "--quiet", "--bare", bare)
		push(b, bare)
	})
}
