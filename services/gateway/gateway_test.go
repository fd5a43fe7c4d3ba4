package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/worker"
	"towpath.dev/services/gateway/hook"
	"towpath.dev/services/gateway/view"
)

// The test's own executable is the hook that git runs.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "hook" {
		os.Exit(hook.Run(os.Args[2], os.Getenv, os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// station is a gateway on a real ledger, and what a test needs to speak to it.
type station struct {
	*Service
	t        testing.TB
	ledger   *ledgertest.Ledger
	platform *policy.Platform // nil: the default
	rt       *worker.Runtime
	token    string
	end      func()

	mu   sync.Mutex
	logs bytes.Buffer
}

// Write takes what the gateway logs.
func (s *station) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if testing.Verbose() {
		os.Stderr.Write(line)
	}
	return s.logs.Write(line)
}

// logged is what the gateway has logged so far.
func (s *station) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logs.String()
}

// TestTheLogOpensNoPage: whoever reads the journal gets no capability of it.
func TestTheLogOpensNoPage(t *testing.T) {
	s := newStation(t)
	index, err := url.Parse(s.IndexURL())
	if err != nil {
		t.Fatal(err)
	}
	key := index.Query().Get("key")
	if logs := s.logged(); key == "" || !strings.Contains(logs, "the gateway answers") || strings.Contains(logs, key) {
		t.Errorf("the key of the page of runs is %q, and the log:\n%s", key, logs)
	}
}

func newStation(t testing.TB, options ...ledgertest.Option) *station {
	t.Helper()
	s := &station{t: t, ledger: ledgertest.Start(t, options...)}
	s.start(Config{Listen: "127.0.0.1:0", Data: t.TempDir(), Edge: "http://127.0.0.1:7080"})
	t.Cleanup(func() { s.end() })
	return s
}

// start runs a gateway until end is called.
func (s *station) start(cfg Config) {
	s.t.Helper()
	logger := slog.New(slog.NewTextHandler(s, nil))
	o := s.ledger.Options("gateway")
	rt, err := worker.Open(s.t.Context(), worker.Options{Service: "gateway", Bus: o.URL, Keys: o.Keys, Platform: s.platform, Logger: logger})
	if err != nil {
		s.t.Fatal(err)
	}
	ready := make(chan string, 1)
	service, err := New(cfg, Deps{Runtime: rt, Ready: func(url string) { ready <- url }})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	select {
	case <-ready:
	case err := <-done:
		s.t.Fatalf("the gateway ended: %v", err)
	case <-time.After(30 * time.Second):
		s.t.Fatal("the gateway is not ready")
	}
	token, err := os.ReadFile(service.cfg.TokenFile)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Service, s.rt, s.token = service, rt, strings.TrimSpace(string(token))
	s.end = func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("the gateway ended: %v", err)
		}
		rt.Close()
		s.end = func() {}
	}
}

// restart ends the gateway and starts it on the same data and address.
func (s *station) restart() {
	s.t.Helper()
	cfg := s.cfg
	cfg.Listen = strings.TrimPrefix(s.url, "http://")
	s.end()
	s.start(cfg)
}

// ask sends a request as the owner of a token and returns status and body.
func (s *station) ask(token, method, path string, body any) (int, string) {
	s.t.Helper()
	var in io.Reader
	switch body := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(body)
	default:
		data, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		in = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, in)
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if path == "/v1/events" {
		request.Header.Set("Content-Type", structuredType)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

// get asks as the administrator and decodes the answer, which must be a success.
func get[T any](s *station, method, path string, body any) T {
	s.t.Helper()
	status, answer := s.ask(s.token, method, path, body)
	var value T
	if status >= 300 {
		s.t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	if err := json.Unmarshal([]byte(answer), &value); err != nil {
		s.t.Fatalf("%s %s: %v in %s", method, path, err, answer)
	}
	return value
}

// remote is the address by which the administrator's git reaches an app.
func (s *station) remote(app string) string {
	return strings.Replace(s.url, "http://", "http://ann:"+s.token+"@", 1) + "/git/" + app + ".git"
}

// records lists the types of an app's events.
func (s *station) records(app events.Slug) []string {
	s.t.Helper()
	var types []string
	status, answer := s.ask(s.token, http.MethodGet, "/v1/events?app="+string(app), nil)
	if status != http.StatusOK {
		s.t.Fatal(status, answer)
	}
	for line := range strings.Lines(answer) {
		var e view.EventLine
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			s.t.Fatal(err)
		}
		types = append(types, e.Type.Subject()+"."+e.Type.Predicate())
	}
	return types
}

func (s *station) run(app events.Slug, n int) *fold.Run {
	s.t.Helper()
	if a := s.fold().App(app); a != nil && a.Run(n) != nil {
		return a.Run(n)
	}
	s.t.Fatalf("there is no run %s/%d", app, n)
	return nil
}

// working is a working copy with a git of its own configuration.
type working struct {
	t   testing.TB
	dir string
}

const helloYAML = "app: hello\nservice: {port: 8080}\nconfig: [DATABASE_URL]\nsecrets: [PASSWORD]\nenvironments: [{name: dev}, {name: prod}]\n"

// newWorking is a repository with one commit on main that holds the text as towpath.yaml; empty: it has none.
func newWorking(t testing.TB, text string) working {
	t.Helper()
	w := working{t, t.TempDir()}
	w.git("init", "--quiet", "--initial-branch=main")
	w.write("README", "hello\n")
	if text != "" {
		w.write("towpath.yaml", text)
	}
	w.commit("First of all")
	return w
}

func (w working) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w working) commit(message string) string {
	w.t.Helper()
	w.git("add", "-A")
	w.git("commit", "--quiet", "--allow-empty", "--message", message)
	return w.git("rev-parse", "HEAD")
}

func (w working) try(args ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"-C", w.dir, "-c", "user.name=Ann", "-c", "user.email=ann@example.org"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (w working) git(args ...string) string {
	w.t.Helper()
	out, err := w.try(args...)
	if err != nil {
		w.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// contains fails the test for each text that is not in the output.
func contains(t testing.TB, output string, wanted ...string) {
	t.Helper()
	for _, text := range wanted {
		if !strings.Contains(output, text) {
			t.Errorf("%q is missing in\n%s", text, output)
		}
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func count(list []string, what string) (n int) {
	for _, one := range list {
		if one == what {
			n++
		}
	}
	return n
}

func id(name string, n int) string { return fmt.Sprintf("test-%s-%d", name, n) }

// newToken makes an actor with roles and returns its token.
func (s *station) newToken(t testing.TB, kind string, roles ...string) string {
	t.Helper()
	actor, err := s.actors.Create(t.Context(), identity.Actor{Kind: kind, Name: "test", Roles: roles})
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.actors.IssueToken(t.Context(), actor.ID)
	if err != nil {
		t.Fatal(err)
	}
	return token
}
