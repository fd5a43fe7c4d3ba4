package engine_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/engine/enginetest"
)

func labels(t *testing.T) map[string]string {
	return map[string]string{"towpath.test": strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))}
}

func TestHostFaultsAreReportedAtOnce(t *testing.T) {
	for _, c := range []struct {
		host engine.Host
		want []string
	}{
		{engine.Host{}, nil},
		{engine.Host{URL: "ssh://deploy@10.0.0.7:2222"}, nil},
		{engine.Host{URL: "tcp://10.0.0.7:2376", TLS: engine.TLS{CA: "a", Cert: "b", Key: "c"}}, nil},
		{engine.Host{URL: "tcp://10.0.0.7", Publish: "prod"}, []string{"must be tcp://host:port", "needs tls", `publish "prod"`}},
		{engine.Host{URL: "unix://var/run/docker.sock", TLS: engine.TLS{CA: "a"}}, []string{"unix:///absolute/path", "takes no tls"}},
		{engine.Host{URL: "ssh://a:secret@b"}, []string{"must not hold a password"}},
		{engine.Host{URL: "http://localhost"}, []string{"must begin with"}},
	} {
		err := c.host.Validate()
		if (err == nil) != (c.want == nil) {
			t.Errorf("%+v: %v", c.host, err)
		}
		for _, part := range c.want {
			if err != nil && !strings.Contains(err.Error(), part) {
				t.Errorf("%+v: %v\nwant %q in it", c.host, err, part)
			}
		}
	}
}

func TestUnreachableEngineSaysWhatToDo(t *testing.T) {
	_, err := engine.Connect(t.Context(), engine.Host{URL: "unix:///nowhere/docker.sock"})
	if !engine.IsUnreachable(err) {
		t.Fatalf("got %v, want an UnreachableError", err)
	}
	for _, part := range []string{"unix:///nowhere/docker.sock", "nothing listens there", "systemctl start docker"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

func TestInfo(t *testing.T) {
	e := enginetest.EnsureEngine(t)
	info, err := e.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.ID == "" || info.Version == "" || info.API == "" || info.Architecture == "" || info.CPUs == 0 {
		t.Errorf("incomplete: %+v", info)
	}
}

func TestPullByDigest(t *testing.T) {
	e := enginetest.EnsureEngine(t)
	registry := enginetest.Registry(t)
	repository, digest := enginetest.Push(t, registry, "pull", enginetest.App{Args: []string{"serve"}, Expose: 9090})
	enginetest.RemoveImages(t, e)(repository + "@" + digest)
	for range 2 {
		image, err := e.Pull(t.Context(), repository, digest, engine.Credentials{})
		if err != nil {
			t.Fatal(err)
		}
		if len(image.Ports) != 1 || image.Ports[0] != 9090 || !image.HasCommand || image.HasHealth {
			t.Errorf("got %+v", image)
		}
	}
	absent := "sha256:" + strings.Repeat("0", 64)
	if _, err := e.Pull(t.Context(), repository, absent, engine.Credentials{}); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("pulling what is not there: %v", err)
	}
	if _, err := e.Pull(t.Context(), "127.0.0.1:1/x", absent, engine.Credentials{}); err == nil || engine.IsUnreachable(err) {
		t.Errorf("a registry that is down must not be reported as the engine: %v", err)
	}
}

// image puts the test application on the engine until the test ends, and returns its id. What the test
// makes of it, and labels, goes with it.
func image(t *testing.T, e *engine.Engine, app enginetest.App) string {
	t.Helper()
	used := enginetest.RemoveImages(t, e)
	enginetest.RemoveAll(t, e, labels(t))
	repository, digest := enginetest.Push(t, enginetest.Registry(t), "app", app)
	image, err := e.Pull(t.Context(), repository, digest, engine.Credentials{})
	if err != nil {
		t.Fatal(err)
	}
	used(repository + "@" + digest)
	return image.ID
}

func TestContainerLife(t *testing.T) {
	e := enginetest.EnsureEngine(t)
	ctx := t.Context()
	c := engine.Container{
		Name: "towpath-test-life", Image: image(t, e, enginetest.App{Args: []string{"serve"}}),
		Labels: labels(t), Env: map[string]string{"GREETING": "a=b c"}, Port: 8080,
	}
	id, err := e.Create(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Create(ctx, c); !errors.Is(err, engine.ErrNameTaken) {
		t.Errorf("creating it twice: %v", err)
	}
	changes := make(chan engine.Change, 16)
	watching, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- e.Watch(watching, labels(t), func(c engine.Change) { changes <- c }) }()
	for range 2 {
		if err := e.Start(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	s, err := e.Inspect(ctx, c.Name)
	if err != nil || !s.Running() || s.Addresses[8080] == "" {
		t.Fatalf("%+v, %v", s, err)
	}
	enginetest.Eventually(t, 5*time.Second, "the service answers", func() bool {
		response, err := http.Get("http://" + s.Addresses[8080] + "/health")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == 200
	})
	if r, err := e.Exec(ctx, id, []string{enginetest.Program, "print", "inside", "7"}, engine.Bounds{Timeout: 10 * time.Second, Output: 100}); err != nil || r.ExitCode != 7 || r.Output != "inside\n" {
		t.Errorf("exec: %+v, %v", r, err)
	}
	if r, err := e.Exec(ctx, id, []string{enginetest.Program, "idle"}, engine.Bounds{Timeout: 300 * time.Millisecond, Output: 100}); err != nil || !r.TimedOut {
		t.Errorf("exec that hangs: %+v, %v", r, err)
	}
	like, err := e.Like(ctx, id, "towpath-test-like", []string{enginetest.Program, "print", "same"}, map[string]string{"more": "1"})
	if err != nil || like.Env["GREETING"] != "a=b c" || like.Labels["more"] != "1" || like.Image != c.Image {
		t.Errorf("like: %+v, %v", like, err)
	}
	if text, err := e.LogTail(ctx, id, 10, 1000); err != nil || text != "listening on :8080\n" {
		t.Errorf("logs: %q, %v", text, err)
	}
	if err := e.Stop(ctx, id, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if s, err := e.Inspect(ctx, id); err != nil || s.Status != "exited" || s.ExitCode != 0 {
		t.Errorf("after stop: %+v, %v", s, err)
	}
	if found, err := e.List(ctx, labels(t)); err != nil || len(found) != 1 || found[0].ID != id {
		t.Errorf("list: %+v, %v", found, err)
	}
	for range 2 {
		if err := e.Remove(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Stop(ctx, id, 0); err != nil {
		t.Errorf("stopping what is gone: %v", err)
	}
	if _, err := e.Inspect(ctx, id); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("inspecting what is gone: %v", err)
	}
	seen := map[string]bool{}
	enginetest.Eventually(t, 5*time.Second, "start, die and destroy were told", func() bool {
		select {
		case c := <-changes:
			seen[c.Action] = true
		default:
		}
		return seen["start"] && seen["die"] && seen["destroy"]
	})
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("watching ended with %v", err)
	}
}

func TestRunOnce(t *testing.T) {
	e := enginetest.EnsureEngine(t)
	ctx := t.Context()
	command := func(name string, args ...string) engine.Container {
		return engine.Container{
			Name: "towpath-test-once-" + name, Image: image(t, e, enginetest.App{}),
			Labels: labels(t), Command: append([]string{enginetest.Program}, args...),
		}
	}
	bounds := engine.Bounds{Timeout: 20 * time.Second, Output: 64}

	once := command("fence", "once", "-takes", "300ms")
	first, err := e.RunOnce(ctx, once, bounds)
	if err != nil || first.ExitCode != 0 || first.Adopted || !strings.HasPrefix(first.Output, "run ") {
		t.Fatalf("%+v, %v", first, err)
	}
	again, err := e.RunOnce(ctx, once, bounds)
	if err != nil || again.Output != first.Output || !again.Adopted || !again.Started.Equal(first.Started) {
		t.Errorf("a second time: %+v, %v", again, err)
	}

	// Whoever waited for it goes away; the command does not, and the next finds it.
	left := command("left", "once", "-takes", "2s")
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if _, err := e.RunOnce(short, left, bounds); !errors.Is(err, context.DeadlineExceeded) || engine.IsUnreachable(err) {
		t.Errorf("its caller went away: %v", err)
	}
	if r, err := e.RunOnce(ctx, left, bounds); err != nil || !r.Adopted || r.ExitCode != 0 || r.TimedOut {
		t.Errorf("found again: %+v, %v", r, err)
	}

	// Many at once, and a maker that died before it started what it made.
	crowd := command("crowd", "once")
	if _, err := e.Create(ctx, crowd); err != nil {
		t.Fatal(err)
	}
	outputs := make(chan string, 8)
	for range cap(outputs) {
		go func() {
			r, err := e.RunOnce(ctx, crowd, bounds)
			if err != nil {
				t.Error(err)
			}
			outputs <- r.Output
		}()
	}
	one := <-outputs
	for range cap(outputs) - 1 {
		if other := <-outputs; other != one {
			t.Errorf("it ran twice: %q and %q", one, other)
		}
	}

	if r, err := e.RunOnce(ctx, command("code", "print", "no", "9"), bounds); err != nil || r.ExitCode != 9 || r.Output != "no\n" {
		t.Errorf("exit code: %+v, %v", r, err)
	}
	if r, err := e.RunOnce(ctx, command("hangs", "idle"), engine.Bounds{Timeout: 300 * time.Millisecond, Output: 64}); err != nil || !r.TimedOut || r.ExitCode != 137 {
		t.Errorf("timeout: %+v, %v", r, err)
	}
	if r, err := e.RunOnce(ctx, command("long", "print", strings.Repeat("x", 500)), bounds); err != nil || !r.Truncated || len(r.Output) != 64 {
		t.Errorf("long output: %d bytes, %+v, %v", len(r.Output), r, err)
	}
	missing := command("missing")
	missing.Command = []string{"/no/such/program"}
	for range 2 {
		if r, err := e.RunOnce(ctx, missing, bounds); err != nil || r.ExitCode != 127 || !strings.Contains(r.Error, "no such file") {
			t.Errorf("a command that is not there: %+v, %v", r, err)
		}
	}
}

func TestAnotherEngine(t *testing.T) {
	t.Parallel() // most of it is waiting for an engine that does not answer
	d := enginetest.StartDockerd(t)
	ctx := t.Context()
	mine, err := enginetest.EnsureEngine(t).Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := d.Engine.Info(ctx); err != nil || info.ID == mine.ID {
		t.Fatalf("not an engine of its own: %+v, %v", info, err)
	}
	e := d.Engine
	id, err := e.Create(ctx, engine.Container{Name: "towpath-test-restart", Labels: labels(t), Image: image(t, e, enginetest.App{Args: []string{"serve"}}), Port: 8080})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(ctx, id); err != nil {
		t.Fatal(err)
	}

	d.Freeze()
	begun := time.Now()
	_, err = e.Inspect(ctx, id)
	d.Thaw()
	if !engine.IsUnreachable(err) || time.Since(begun) > 30*time.Second || !strings.Contains(err.Error(), "no answer within 20s") {
		t.Errorf("a frozen engine, after %v: %v", time.Since(begun), err)
	}
	d.Kill()
	if _, err = e.Inspect(ctx, id); !engine.IsUnreachable(err) {
		t.Errorf("a dead engine: %v", err)
	}
	d.Start()
	if s, err := e.Inspect(ctx, id); err != nil || s.Running() {
		t.Errorf("the same client, after its restart: %+v, %v", s, err)
	}
}

func TestReleasesThatLockUp(t *testing.T) {
	for version, want := range map[string]bool{
		"20.10.24+dfsg1": true, "20.10.5": true, "20.10.27": false, "23.0.1": false, "28.2.2": false, "library-import": false, "": false,
	} {
		if got := (engine.Info{Version: version}).LocksUp(); got != want {
			t.Errorf("%q: %t", version, got)
		}
	}
}
