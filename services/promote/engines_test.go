package promote_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/engine/enginetest"
	"towpath.dev/pkg/freeport"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/services/promote"
	"towpath.dev/services/promote/deploy"
)

// process runs another service as a process of its own until the test ends.
func (s *stage) process(service string, args ...string) {
	s.t.Helper()
	program := filepath.Join(s.t.TempDir(), service)
	build := exec.Command("go", "build", "-o", program, "./cmd/"+service)
	build.Dir = filepath.Join("..", service)
	if out, err := build.CombinedOutput(); err != nil {
		s.t.Fatalf("building %s: %v\n%s", service, err, out)
	}
	p := exec.Command(program, append([]string{"--bus", s.ledger.URL, "--keys", s.ledger.Keys, "--log-level", "debug"}, args...)...)
	said, err := os.Create(program + ".log")
	if err != nil {
		s.t.Fatal(err)
	}
	p.Stderr = said
	if err := p.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		p.Process.Signal(syscall.SIGTERM)
		if err := p.Wait(); err != nil {
			s.t.Errorf("%s ended with %v", service, err)
		}
		if text, err := os.ReadFile(said.Name()); s.t.Failed() {
			s.t.Logf("%s said (%v):\n%s", service, err, text)
		}
	})
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := freeport.Address("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// ask asks the edge for hello in an environment until the answer is as wanted.
func ask(t *testing.T, edge string, env events.Slug, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		got := once(ctx, edge, env)
		if got == want {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("hello in %s answers %q, want %q", env, got, want)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func once(ctx context.Context, edge string, env events.Slug) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+edge+"/", nil)
	if err != nil {
		return err.Error()
	}
	request.Host = fmt.Sprintf("hello.%s.localhost", env)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(body))
}

// TestOnARealEngine takes four versions along: one that is good, one that never becomes healthy, one that
// its verification rejects, and a good one.
func TestOnARealEngine(t *testing.T) {
	e := enginetest.EnsureEngine(t)
	used := enginetest.RemoveImages(t, e)
	registry := enginetest.Registry(t)
	s := newBareStage(t)
	install := s.gateway.Fold.LedgerID()[:8]
	enginetest.RemoveAll(t, e, map[string]string{deploy.LabelInstall: install})
	edge := freeAddress(t)
	s.process("edge", "--listen", edge)
	s.process("verify")
	s.startWith(promote.Config{LookEvery: time.Second}, promote.Deps{})

	d := foldtest.Definition(`
app: hello
service: {port: 8080, health: /health, replicas: 2, healthTimeout: 10s}
release: ["/testapp", "print", "migrating"]
config: [KEY]
environments:
  - {name: dev, verify: [{http: {path: /, status: 200, contains: good}, timeout: 2s}, {command: ["/testapp", "print", "checked"]}]}
  - {name: qa, replicas: 1}
  - {name: prod, replicas: 1}
`)
	version := func(n int, args ...string) {
		t.Helper()
		repository, digest := enginetest.Push(t, registry, "hello", enginetest.App{Args: append([]string{"serve"}, args...)})
		used(repository + "@" + digest)
		s.readyImage(d, n, repository, digest)
	}
	for _, env := range d.EnvironmentNames() {
		s.set(env, "a")
	}

	begun := time.Now()
	version(1, "-text", "good 1")
	a := s.until("1 waits for its approval", func(a *fold.App) bool { return a.Run(1) != nil && a.Run(1).Env("prod").Waiting != nil })
	s.command(events.Command{Verb: events.VerbApprove, Run: 1, Environment: "prod", Digest: a.Run(1).Artifact.Digest})
	s.untilRun(1, fold.Done)
	t.Logf("dev to prod with two replicas, a release command and checks: %s", time.Since(begun).Round(time.Millisecond))
	for _, env := range d.EnvironmentNames() {
		ask(t, edge, env, "good 1 GET")
	}
	first := replicas(t, e, install, "dev")

	version(2, "-health", "500")
	a = s.untilRun(2, fold.Failed)
	if trouble := a.Run(2).Env("dev").Promote.Trouble; trouble.Do != "fix and push" || !strings.Contains(trouble.Why, "500") {
		t.Errorf("trouble %+v", trouble)
	}
	ask(t, edge, "dev", "good 1 GET")

	version(3, "-text", "bad 3")
	s.untilRun(3, fold.Failed)
	s.until("1 is back", func(a *fold.App) bool {
		live := a.Env("dev").Live()
		return live.Kind == events.KindRollback && live.Closing == events.Verified
	})
	ask(t, edge, "dev", "good 1 GET")
	if now := replicas(t, e, install, "dev"); fmt.Sprint(now) != fmt.Sprint(first) {
		t.Errorf("replicas are %v, want the first ones, %v", now, first)
	}

	version(4, "-text", "good 4")
	s.until("4 is verified in dev", func(a *fold.App) bool { return a.Run(4) != nil && a.Run(4).Env("dev").Concluded })
	ask(t, edge, "dev", "good 4 GET")
	ask(t, edge, "prod", "good 1 GET")

	// Somebody removes a replica: it is made again.
	now := replicas(t, e, install, "dev")
	for name, id := range now {
		if err := e.Remove(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		t.Logf("removed %s", name)
		break
	}
	if again := replicas(t, e, install, "dev"); fmt.Sprint(again) == fmt.Sprint(now) {
		t.Error("the replica that was removed is still there")
	}
	ask(t, edge, "dev", "good 4 GET")
}

// replicas returns the ids of an environment's containers that have a place in the traffic, by name.
func replicas(t *testing.T, e *engine.Engine, install, env string) map[string]string {
	t.Helper()
	ids := map[string]string{}
	for {
		found, err := e.List(t.Context(), map[string]string{deploy.LabelInstall: install, deploy.LabelEnv: env, deploy.LabelRole: "replica"})
		if err != nil {
			t.Fatal(err)
		}
		clear(ids)
		for _, c := range found {
			ids[c.Name] = c.ID
		}
		if len(ids) == 2 {
			return ids
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("there are the replicas %v, want 2", ids)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
