package build

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/engine/enginetest"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/registry"
)

// sourceTree writes files (name, content, …) into a folder.
func sourceTree(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(dir, files[i])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var commitTime = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

func testRecipe(t *testing.T, tree string, change ...func(*recipe)) recipe {
	r := recipe{
		tree: tree, build: pipeline.Build{Dockerfile: "Dockerfile", Context: "."}, created: commitTime,
		name: fmt.Sprintf("towpath-test/%s:%d", strings.ToLower(t.Name()), time.Now().UnixNano()),
	}
	r.cacheID = r.name
	for _, c := range change {
		c(&r)
	}
	return r
}

// makeImage builds in the machine's engine and returns the image and the log.
func makeImage(t *testing.T, e *engine.Engine, r recipe) (built, string, error) {
	t.Helper()
	var log bytes.Buffer
	b, err := testConfig(t).make(t.Context(), e, r, &log)
	if err == nil {
		t.Cleanup(func() { removeImage(t, e, r.name) })
	}
	return b, log.String(), err
}

// TestMakeShowsProgress builds what needs the modern frontend, with a "# syntax=" line that would have
// another fetched from where nobody answers.
func TestMakeShowsProgress(t *testing.T) {
	e := testEngine(t)
	base := busyboxImage(t, e)
	r := testRecipe(t, sourceTree(t, "Dockerfile", "# syntax=127.0.0.1:1/hostile/frontend:1\nFROM "+base+` AS first
ARG WHO=nobody
RUN echo hello $WHO && printf '\033[31mred\033[0m\a\n'
COPY <<EOF /heredoc
kept
EOF
FROM first AS second
RUN cat /heredoc
FROM first
RUN false
`), func(r *recipe) {
		r.build.Target, r.build.Args = "second", map[string]string{"WHO": "towpath"}
		r.labels = map[string]string{"org.opencontainers.image.version": "1"}
	})
	b, log, err := makeImage(t, e, r)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	for _, want := range []string{" hello towpath\n", " red\n", " kept\n", "RUN echo hello towpath", " DONE "} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %q:\n%s", want, log)
		}
	}
	if strings.ContainsAny(log, "\x1b\a") {
		t.Errorf("the log has control characters: %q", log)
	}
	if image, err := e.Image(t.Context(), r.name); err != nil || image.ID != b.id {
		t.Errorf("the engine has %+v, %v, want %s", image, err, b.id)
	}
	if len(b.bases) != 1 || !strings.Contains(b.bases[0].Ref, base) {
		t.Errorf("bases %v, want %s", b.bases, base)
	}
	_, log, err = makeImage(t, e, r)
	if err != nil || !strings.Contains(log, "CACHED") || strings.Contains(log, " hello towpath\n") {
		t.Errorf("built again: %v\n%s", err, log)
	}
	r.fresh = true
	_, log, err = makeImage(t, e, r)
	if err != nil || !strings.Contains(log, " hello towpath\n") {
		t.Errorf("built afresh: %v\n%s", err, log)
	}
}

// TestMakeReadsIgnoreFilesAsDockerDoes has one ignore file for the context and one for a Dockerfile.
func TestMakeReadsIgnoreFilesAsDockerDoes(t *testing.T) {
	e := testEngine(t)
	base := busyboxImage(t, e)
	show := "FROM " + base + "\nCOPY . /src\nRUN cd /src && for f in $(ls -A . sub); do echo seen=$f; done\n"
	tree := sourceTree(t,
		"app/Dockerfile", show, "app/.dockerignore", "*.log\n!keep.log\nsub/*\n!sub/b\n# comment\n",
		"app/a.log", "", "app/keep.log", "", "app/main", "", "app/sub/a", "", "app/sub/b", "",
		"docker/Other", show, "docker/Other.dockerignore", "main\n", "outside", "",
	)
	for dockerfile, want := range map[string]string{
		"app/Dockerfile": ".dockerignore Dockerfile keep.log main sub b",
		"docker/Other":   ".dockerignore Dockerfile a.log keep.log sub a b",
	} {
		_, log, err := makeImage(t, e, testRecipe(t, tree, func(r *recipe) { r.build.Context, r.build.Dockerfile = "app", dockerfile }))
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		var seen []string
		for line := range strings.Lines(log) {
			if _, name, ok := strings.Cut(strings.TrimSpace(line), " seen="); ok && !strings.Contains(line, "RUN") && !strings.HasSuffix(name, ":") {
				seen = append(seen, name)
			}
		}
		if got := strings.Join(seen, " "); got != want {
			t.Errorf("%s: the build saw %q, want %q", dockerfile, got, want)
		}
	}
}

func TestSameTreeMakesSameImage(t *testing.T) {
	e := testEngine(t)
	base := busyboxImage(t, e)
	var ids []string
	for range 2 {
		tree := sourceTree(t, "Dockerfile", "FROM "+base+"\nWORKDIR /app\nCOPY . .\nCMD [\"/bin/cat\", \"/app/file\"]\n", "file", "1")
		if err := settle(tree, commitTime); err != nil {
			t.Fatal(err)
		}
		b, log, err := makeImage(t, e, testRecipe(t, tree))
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		ids = append(ids, b.id)
	}
	if ids[0] != ids[1] {
		t.Errorf("the same tree made %s and %s", ids[0], ids[1])
	}
}

// TestChangeOfSameSizeAndTime is a commit that changes a file without changing its size, in the same
// second: what BuildKit keeps of an earlier context must not take its place.
func TestChangeOfSameSizeAndTime(t *testing.T) {
	e := testEngine(t)
	base := busyboxImage(t, e)
	for _, content := range []string{"one", "two"} {
		tree := sourceTree(t, "Dockerfile", "FROM "+base+"\nCOPY file /file\nRUN cat /file\n", "file", content)
		if err := settle(tree, commitTime); err != nil {
			t.Fatal(err)
		}
		_, log, err := makeImage(t, e, testRecipe(t, tree))
		if err != nil || !strings.Contains(log, " "+content+"\n") {
			t.Errorf("%s was not built: %v\n%s", content, err, log)
		}
	}
}

func TestMakeFaults(t *testing.T) {
	e := testEngine(t)
	base := busyboxImage(t, e)
	for name, tc := range map[string]struct {
		dockerfile string
		on, why    string
		log        string
	}{
		"failing step": {"FROM " + base + "\nARG X=7\nRUN echo first \\\n && true\nRUN echo x$X; seq 40; exit 3\n",
			"Dockerfile:5: RUN echo x7; seq 40; exit 3", "exit code 3", "40"},
		"unknown instruction": {"FROM " + base + "\n\nRUNN x\n", "Dockerfile:3: RUNN x", "unknown instruction: RUNN", ""},
		"bad arguments":       {"FROM " + base + "\nCOPY\n", "Dockerfile:2: COPY", "requires at least two arguments", ""},
		"missing file":        {"FROM " + base + "\nCOPY nothing /\n", "Dockerfile:2: COPY nothing /", "not found", ""},
		"empty":               {"", "Dockerfile", "empty", ""},
		"unknown stage":       {"FROM " + base + "\nCOPY --from=7 / /\n", "Dockerfile", "invalid stage index", ""},
		"privileges":          {"FROM " + base + "\nRUN --security=insecure id\n", "Dockerfile", "not allowed", ""},
		"host network":        {"FROM " + base + "\nRUN --network=host id\n", "Dockerfile", "not allowed", ""},
		"a secret of ours":    {"FROM " + base + "\nRUN --mount=type=secret,id=x,required=true id\n", "Dockerfile:2", "secret x", ""},
		"a key of ours":       {"FROM " + base + "\nRUN --mount=type=ssh,required=true id\n", "Dockerfile:2", "", ""},
	} {
		_, log, err := makeImage(t, e, testRecipe(t, sourceTree(t, "Dockerfile", tc.dockerfile)))
		f := faultOf(err)
		if f == nil || f.Outcome != events.Failure {
			t.Errorf("%s: %v, want a failure\n%s", name, err, log)
			continue
		}
		if !strings.HasPrefix(f.Trouble.On, tc.on) || !strings.Contains(f.Trouble.Why, tc.why) || f.Trouble.Do == "" {
			t.Errorf("%s: %+v, want it on %q because of %q", name, f.Trouble, tc.on, tc.why)
		}
		if n := len(f.Trouble.Log); tc.log != "" && (n == 0 || n > maxLogTail || f.Trouble.Log[n-1] != tc.log) {
			t.Errorf("%s: the log ends %q, want %q", name, f.Trouble.Log, tc.log)
		}
	}
}

func TestMakeWithoutBase(t *testing.T) {
	e := testEngine(t)
	_, _, err := makeImage(t, e, testRecipe(t, sourceTree(t, "Dockerfile", "FROM 127.0.0.1:1/base:1\n")))
	base, ok := err.(*unreachableBase)
	if !ok || !strings.Contains(base.Error(), "127.0.0.1:1/base:1") || !strings.Contains(base.trouble.On, "Dockerfile:1") || !strings.Contains(base.trouble.Do, "import") {
		t.Errorf("a registry that is away: %T %v", err, err)
	}
	registry := enginetest.Registry(t)
	_, _, err = makeImage(t, e, testRecipe(t, sourceTree(t, "Dockerfile", "FROM "+registry+"/base:1\n")))
	wantFault(t, err, events.Failure, "finding the base image "+registry+"/base:1")
}

// fixedLogin opens one registry.
type fixedLogin struct{ host string }

func (f fixedLogin) Credentials(_ context.Context, r registry.Repository) (username, password string, err error) {
	if r.Host() != f.host {
		return "", "", nil
	}
	return "robot", "s3cret", nil
}

// TestMakeOpensPrivateBases builds on an image in a registry that asks who one is.
func TestMakeOpensPrivateBases(t *testing.T) {
	e := testEngine(t)
	address := enginetest.Registry(t)
	enginetest.Push(t, address, "base", enginetest.App{})
	private := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "robot" || password != "s3cret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address}).ServeHTTP(w, r)
	}))
	t.Cleanup(private.Close)
	host := strings.TrimPrefix(private.URL, "http://")
	tree := sourceTree(t, "Dockerfile", "FROM "+host+"/base:latest\nCOPY Dockerfile /\n")
	_, _, err := makeImage(t, e, testRecipe(t, tree))
	wantFault(t, err, events.Failure, "finding the base image "+host+"/base:latest")
	made, log, err := makeImage(t, e, testRecipe(t, tree, func(r *recipe) { r.keychain = fixedLogin{host} }))
	if err != nil || strings.Contains(log, "s3cret") {
		t.Fatalf("%v\n%s", err, log)
	}
	if len(made.bases) != 1 || !strings.HasPrefix(made.bases[0].Digest, "sha256:") {
		t.Errorf("bases %+v, want one with its digest", made.bases)
	}
}

func TestMakeStaysInsideTheSource(t *testing.T) {
	e := testEngine(t)
	outside := sourceTree(t, "Dockerfile", "FROM scratch\nCOPY secret /\n", "secret", "x")
	for name, prepare := range map[string]func(tree string, r *recipe) error{
		"context": func(tree string, r *recipe) error { r.build.Context = "ctx"; return os.Symlink(outside, tree+"/ctx") },
		"dockerfile": func(tree string, r *recipe) error {
			r.build.Dockerfile = "file"
			return os.Symlink(outside+"/Dockerfile", tree+"/file")
		},
		"parent":   func(_ string, r *recipe) error { r.build.Context = ".."; return nil },
		"climbing": func(_ string, r *recipe) error { r.build.Dockerfile = "../../../../etc/passwd"; return nil },
		"missing":  func(_ string, r *recipe) error { r.build.Dockerfile = "nope"; return nil },
		"folder":   func(tree string, r *recipe) error { r.build.Dockerfile = "dir"; return os.Mkdir(tree+"/dir", 0o755) },
		"file":     func(_ string, r *recipe) error { r.build.Context = "Dockerfile"; return nil },
		"large": func(tree string, r *recipe) error {
			return os.WriteFile(tree+"/Dockerfile", bytes.Repeat([]byte("#\n"), maxDockerfile), 0o644)
		},
	} {
		tree := sourceTree(t, "Dockerfile", "FROM scratch\nCOPY . /\n")
		r := testRecipe(t, tree)
		if err := prepare(tree, &r); err != nil {
			t.Fatal(err)
		}
		_, log, err := makeImage(t, e, r)
		if f := faultOf(err); f == nil || f.Outcome != events.Failure {
			t.Errorf("%s: %v, want a failure\n%s", name, err, log)
		}
	}
	// A link inside of the context stays a link.
	tree := sourceTree(t, "Dockerfile", "FROM scratch\nCOPY link /\n")
	if err := os.Symlink(outside+"/secret", tree+"/link"); err != nil {
		t.Fatal(err)
	}
	_, _, err := makeImage(t, e, testRecipe(t, tree))
	wantFault(t, err, events.Failure, "")
}

// TestMakeStopsInTime has a step that never ends, stopped by its time and by the ledger.
func TestMakeStopsInTime(t *testing.T) {
	e := testEngine(t)
	base := busyboxImage(t, e)
	marker := fmt.Sprintf("endless-%d", time.Now().UnixNano())
	tree := sourceTree(t, "Dockerfile", "FROM "+base+"\nRUN echo begun; while true; do sleep 1; : "+marker+"; done\n")
	slow := &timeoutError{limit: "1s", do: "be quick"}
	for _, cause := range []error{slow, errFenced} {
		ctx, cancel := context.WithCancelCause(t.Context())
		timer := time.AfterFunc(time.Second, func() { cancel(cause) })
		began := time.Now()
		var log bytes.Buffer
		_, err := testConfig(t).make(ctx, e, testRecipe(t, tree), &log)
		timer.Stop()
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("%v: it took %v", cause, took)
		}
		if cause == slow {
			wantFault(t, err, events.Failure, "Dockerfile:2: RUN echo begun")
			if f := faultOf(err); f != nil && (len(f.Trouble.Log) != 1 || f.Trouble.Log[0] != "begun" || f.Trouble.Do != "be quick") {
				t.Errorf("trouble %+v", f.Trouble)
			}
		} else if err == nil || faultOf(err) != nil {
			t.Errorf("fenced: %v", err)
		}
		enginetest.Eventually(t, 10*time.Second, "the step's process is gone", func() bool { return !processRuns(t, marker) })
	}
}

// processRuns reports whether a process of this machine has the text among its arguments.
func processRuns(t *testing.T, text string) bool {
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range commands {
		if command, err := os.ReadFile(file); err == nil && bytes.Contains(command, []byte(text)) {
			return true
		}
	}
	return false
}

func TestMakeBoundsTheLog(t *testing.T) {
	e := testEngine(t)
	base := busyboxImage(t, e)
	c := testConfig(t)
	c.MaxLog = 2000
	var log bytes.Buffer
	r := testRecipe(t, sourceTree(t, "Dockerfile", "FROM "+base+"\nRUN seq 5000; false\n"))
	_, err := c.make(t.Context(), e, r, &log)
	wantFault(t, err, events.Failure, "exit code 1")
	if log.Len() > 2200 || !strings.Contains(log.String(), "the log is full") {
		t.Errorf("the log has %d bytes and ends %q", log.Len(), log.String()[max(0, log.Len()-100):])
	}
	if f := faultOf(err); f != nil && (len(f.Trouble.Log) == 0 || f.Trouble.Log[len(f.Trouble.Log)-1] != "5000") {
		t.Errorf("the trouble's log ends %q", f.Trouble.Log)
	}
}

func TestMakeWithoutEngine(t *testing.T) {
	d := enginetest.StartDockerd(t)
	d.Stop()
	_, _, err := makeImage(t, d.Engine, testRecipe(t, sourceTree(t, "Dockerfile", "FROM scratch\nCOPY . /\n")))
	if err == nil || faultOf(err) != nil {
		t.Errorf("an engine that is away: %v (%T), want a temporary error", err, err)
	}
}

// TestLimitsAreSet puts generous limits on the builds of this machine's engine, and takes them off again.
func TestLimitsAreSet(t *testing.T) {
	e := testEngine(t)
	p := policy.Default()
	p.Engines.Build = policy.Engine{Host: e.Host().URL, Dedicated: true}
	p.Limits.Build.Memory, p.Limits.Build.CPUs, p.Limits.Build.PIDs = 1<<40, 256, 30000
	group := buildGroup{root: cgroupRoot}
	before := map[string][]byte{}
	for _, s := range group.settings(p.Limits.Build) {
		before[s.path], _ = os.ReadFile(s.path)
	}
	t.Cleanup(func() {
		for path, value := range before {
			if len(value) > 0 {
				os.WriteFile(path, value, 0)
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		group.keep(ctx, p.Limits.Build)
	}()
	_, log, err := makeImage(t, e, testRecipe(t, sourceTree(t, "Dockerfile", "FROM "+busyboxImage(t, e)+"\nRUN sleep 1\n")))
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	cancel()
	<-kept
	for _, l := range Limits(p) {
		// An engine with the systemd driver has no such group, and doctor says so.
		if !l.Holds && !strings.Contains(l.Why, "cgroupfs") {
			t.Errorf("after a build: %+v", l)
		}
		t.Logf("%+v", l)
	}
}
