package deploy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/engine/enginetest"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/settings"
)

// bench is a Deployer on a real engine, with a real registry and bus.
type bench struct {
	testing.TB
	*Deployer
	ledger   *ledgertest.Ledger
	engine   *engine.Engine
	registry string
	used     func(image string)
	mu       sync.Mutex
}

// onEngine makes a bench whose environments all run on one engine.
func onEngine(t testing.TB, e *engine.Engine, environments map[string]engine.Host) *bench {
	t.Helper()
	id := make([]byte, 4)
	rand.Read(id)
	fleet := engine.NewFleet(e.Host(), e.Host(), environments)
	t.Cleanup(func() { fleet.Close() })
	b := &bench{TB: t, ledger: ledgertest.Start(t), engine: e, registry: enginetest.Registry(t), used: enginetest.RemoveImages(t, e)}
	promote := b.ledger.Client(string(events.Promote))
	d, err := New(Config{Install: hex.EncodeToString(id), Grace: 5 * time.Second, Settle: 300 * time.Millisecond}, Deps{
		Engines: fleet, Table: discovery.Open(promote), Bus: promote.Conn(), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Deployer = d
	enginetest.RemoveAll(t, e, map[string]string{LabelInstall: d.cfg.Install})
	t.Cleanup(func() { os.RemoveAll(d.memory) })
	return b
}

func start(t testing.TB) *bench {
	t.Helper()
	return onEngine(t, enginetest.EnsureEngine(t), nil)
}

// again is the Deployer of a process that was started after a crash.
func (b *bench) again() *Deployer {
	b.Helper()
	d, err := New(b.cfg, b.deps)
	if err != nil {
		b.Fatal(err)
	}
	d.memory = b.memory
	return d
}

var hello = discovery.Place{Env: "dev", App: "hello"}

// spec describes a version of hello: an image of the test application with these arguments.
func (b *bench) spec(slot int, app enginetest.App) Spec {
	b.Helper()
	repository, digest := enginetest.Push(b, b.registry, "hello", app)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used(repository + "@" + digest)
	return Spec{
		Place: hello, Slot: slot, Run: fmt.Sprintf("hello/%d", slot), Attempt: 1, Repository: repository, Digest: digest,
		Port: 8080, HealthPath: "/health", Replicas: 1, HealthTimeout: 20 * time.Second,
	}
}

func serving(arguments ...string) enginetest.App {
	return enginetest.App{Args: append([]string{"serve"}, arguments...)}
}

func (b *bench) prepare(s Spec) []events.Instance {
	b.Helper()
	instances, err := b.Prepare(b.Context(), s)
	if err != nil {
		b.Fatal(err)
	}
	return instances
}

func (b *bench) get(address, path string) string {
	b.Helper()
	response, err := http.Get("http://" + address + path)
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}

// ids returns the ids of the containers of a place by name.
func (b *bench) ids(p discovery.Place) map[string]string {
	b.Helper()
	found, err := b.engine.List(b.Context(), b.placeLabels(p))
	if err != nil {
		b.Fatal(err)
	}
	ids := map[string]string{}
	for _, c := range found {
		ids[c.Name] = c.ID
	}
	return ids
}

func TestReplicasBecomeHealthy(t *testing.T) {
	t.Parallel()
	b := start(t)
	s := b.spec(7, serving("-ready", "400ms"))
	s.Replicas = 3
	s.Config = map[string]string{"GREETING": "hei = hello"}
	begun := time.Now()
	instances := b.prepare(s)
	t.Logf("3 replicas, ready after 400 ms: healthy after %s", time.Since(begun).Round(time.Millisecond))
	if len(instances) != 3 {
		t.Fatalf("%v", instances)
	}
	for n, i := range instances {
		if i.ID != fmt.Sprintf("towpath-%s-hello.dev-7-%d", b.cfg.Install, n+1) || !strings.HasPrefix(i.Address, "127.0.0.1:") {
			t.Errorf("%+v", i)
		}
		if env := b.get(i.Address, "/env"); !strings.Contains(env, "GREETING=hei = hello\n") {
			t.Errorf("configuration is missing:\n%s", env)
		}
		state, err := b.engine.Inspect(t.Context(), i.ID)
		if err != nil {
			t.Fatal(err)
		}
		for key, want := range map[string]string{
			LabelInstall: b.cfg.Install, LabelApp: "hello", LabelEnv: "dev", LabelRun: "hello/7", LabelAttempt: "1",
			LabelSlot: "7", LabelDigest: s.Digest, LabelRole: "replica",
		} {
			if state.Labels[key] != want {
				t.Errorf("label %s is %q, want %q", key, state.Labels[key], want)
			}
		}
	}
	if entry, err := b.deps.Table.Get(t.Context(), hello); err == nil {
		t.Errorf("it has traffic before it was switched to: %+v", entry)
	}
}

// The time to become healthy is the container's, not that of the process which waits for it: one that dies again and again
// must not wait for ever.
func TestTimeToBecomeHealthyIsTheContainers(t *testing.T) {
	t.Parallel()
	b := start(t)
	s := b.spec(1, serving("-health", "500"))
	s.Place.App, s.HealthTimeout, s.Replicas = "never", 20*time.Second, 1
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if _, err := b.Prepare(ctx, s); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	begun := time.Now()
	_, err := b.Prepare(t.Context(), s)
	var fault *UnhealthyError
	if !errors.As(err, &fault) || fault.Reason != NotHealthy {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > s.HealthTimeout {
		t.Errorf("it was waited for %s more, though most of %s was over", took, s.HealthTimeout)
	}
}

func TestFaultsOfTheApp(t *testing.T) {
	t.Parallel()
	b := start(t)
	canary := settings.NewSecret("c4nary-value-that-nobody-may-see")
	for n, c := range []struct {
		name   string
		app    enginetest.App
		change func(*Spec)
		reason Reason
		says   []string
	}{
		{"exits at once", enginetest.App{Args: []string{"print", "cannot go on with c4nary-value-that-nobody-may-see", "3"}}, nil,
			Exited, []string{"exited with code 3", "cannot go on with"}},
		{"exits at once, and says what it found itself", enginetest.App{Args: []string{"print", "found c4nary-value-that-nobody-may-see", "3"}},
			func(s *Spec) { s.Secrets, s.Conceal = nil, []settings.Secret{canary} }, Exited, []string{"exited with code 3", "found"}},
		{"exits before it is healthy", serving("-ready", "1h", "-die", "500ms"), nil, Exited, []string{"exited with code 3", "dying as told"}},
		{"is never healthy", serving("-health", "500"), nil, NotHealthy, []string{"not healthy within 2s", "GET /health answers 500", "listening on :8080"}},
		{"listens on another port", serving("-port", "9090"), nil, WrongPort, []string{"nothing listens on port 8080; it listens on 9090", "service.port to 9090"}},
		{"listens on another port, no path", serving("-port", "9090"), func(s *Spec) { s.HealthPath = "" }, WrongPort, []string{"listens on 9090"}},
		{"listens on its loopback only", serving("-host", "127.0.0.1"), nil, WrongPort, []string{"loopback only", "0.0.0.0:8080"}},
		{"listens on no port", enginetest.App{Args: []string{"idle"}}, nil, WrongPort, []string{"nor on any other"}},
		{"is for another platform", enginetest.App{Args: []string{"serve"}, Architecture: "s390x"}, nil, NoPlatform, []string{"linux/s390x", "build the image for linux/"}},
		{"says nothing to run", enginetest.App{NoProgram: true}, nil, NotStartable, []string{"neither ENTRYPOINT nor CMD"}},
		{"says what is not there", enginetest.App{Entrypoint: []string{"/no/such"}}, nil, NotStartable, []string{"/no/such", "correct ENTRYPOINT"}},
		{"wants a user who is not there", enginetest.App{Args: []string{"serve"}, User: "nobodyhere"}, nil, NotStartable, []string{"nobodyhere"}},
		{"has a health command that fails", enginetest.App{Args: []string{"idle"}}, func(s *Spec) {
			s.Port, s.HealthPath, s.HealthCommand = 0, "", []string{enginetest.Program, "print", "queue is away", "9"}
		}, NotHealthy, []string{"exits with 9: queue is away"}},
		{"has a health command that is not there", enginetest.App{Args: []string{"idle"}}, func(s *Spec) {
			s.Port, s.HealthPath, s.HealthCommand = 0, "", []string{"/no/such"}
		}, NotHealthy, []string{"/no/such"}},
		{"has no port and exits", enginetest.App{Args: []string{"print", "done"}}, func(s *Spec) { s.Port, s.HealthPath = 0, "" }, Exited, []string{"exited with code 0"}},
		{"its own HEALTHCHECK fails", enginetest.App{Args: []string{"serve"}, Healthcheck: []string{"print", "sick", "1"}}, func(s *Spec) { s.HealthPath = "" },
			NotHealthy, []string{"HEALTHCHECK says"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := b.spec(1, c.app)
			s.Place.App = events.Slug(fmt.Sprintf("app-%d", n))
			s.HealthTimeout = 2 * time.Second
			s.Secrets = map[string]settings.Secret{"TOKEN": canary}
			s.Redact = func(text string) string { return strings.ReplaceAll(text, "as told", "[redacted by the caller]") }
			if c.change != nil {
				c.change(&s)
			}
			begun := time.Now()
			_, err := b.Prepare(t.Context(), s)
			took := time.Since(begun)
			var fault *UnhealthyError
			if !errors.As(err, &fault) || fault.Reason != c.reason {
				t.Fatalf("got %v, want reason %q", err, c.reason)
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), strings.ReplaceAll(part, "as told", "[redacted by the caller]")) {
					t.Errorf("does not say %q:\n%v", part, err)
				}
			}
			if strings.Contains(err.Error(), canary.Reveal()) {
				t.Errorf("a secret is in the error:\n%v", err)
			}
			if took > 15*time.Second {
				t.Errorf("took %s", took)
			}
			t.Logf("%s: %v", took.Round(time.Millisecond), err)
			if err := b.Retire(t.Context(), s.Place, 1); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAppsWithoutPortOrHealth(t *testing.T) {
	t.Parallel()
	b := start(t)
	for name, change := range map[string]func(*Spec){
		"health command":  func(s *Spec) { s.HealthCommand = []string{enginetest.Program, "check"} },
		"nothing":         func(*Spec) {},
		"port":            func(s *Spec) { s.Port = 8080 },
		"own HEALTHCHECK": func(*Spec) {},
	} {
		t.Run(name, func(t *testing.T) {
			app := enginetest.App{Args: []string{"idle"}}
			if name == "port" {
				app = serving()
			}
			if name == "own HEALTHCHECK" {
				app.Healthcheck = []string{"check"}
			}
			s := b.spec(1, app)
			s.Port, s.HealthPath = 0, ""
			change(&s)
			instances := b.prepare(s)
			if (instances[0].Address == "") != (s.Port == 0) {
				t.Errorf("%+v", instances)
			}
			if err := b.Retire(t.Context(), hello, 1); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestContainersAreAdoptedAfterACrash(t *testing.T) {
	t.Parallel()
	b := start(t)
	s := b.spec(4, serving("-ready", "1s"))
	s.Replicas = 2
	// The process dies while it waits for health.
	dying, die := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer die()
	if _, err := b.Prepare(dying, s); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v", err)
	}
	before := b.ids(hello)
	d := b.again()
	for range 2 {
		if _, err := d.Prepare(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		for name, id := range b.ids(hello) {
			if old := before[name]; old != "" && old != id {
				t.Errorf("%s was made a second time", name)
			}
		}
	}
	before = b.ids(hello)
	if len(before) != 2 {
		t.Errorf("%v", before)
	}
	// Another attempt, or another version, is not what has the name.
	s.Attempt = 2
	if _, err := d.Prepare(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	for name, id := range b.ids(hello) {
		if before[name] == id {
			t.Errorf("%s of another attempt was adopted", name)
		}
	}
	before = b.ids(hello)
	other := b.spec(4, enginetest.App{Args: []string{"serve"}, Version: "other"})
	other.Replicas, other.Attempt = 2, 2
	if _, err := d.Prepare(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	for name, id := range b.ids(hello) {
		if before[name] == id {
			t.Errorf("%s of another digest was adopted", name)
		}
	}
	// A name that a stranger has is an error, and the stranger stays.
	name := b.name(hello, 9, "1")
	image, err := b.engine.Image(t.Context(), s.Repository+"@"+s.Digest)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := b.engine.Create(t.Context(), engine.Container{Name: name, Image: image.ID})
	if err != nil {
		t.Fatal(err)
	}
	defer b.engine.Remove(context.Background(), stranger)
	s.Slot, s.Replicas = 9, 1
	if _, err := d.Prepare(t.Context(), s); err == nil || !strings.Contains(err.Error(), "not of this installation") {
		t.Errorf("%v", err)
	}
	if _, err := b.engine.Inspect(t.Context(), stranger); err != nil {
		t.Error(err)
	}
}

func TestEarlierVersionComesBackInItsContainers(t *testing.T) {
	t.Parallel()
	b := start(t)
	ctx := t.Context()
	good := b.spec(1, serving("-text", "good"))
	good.Replicas = 2
	good.Secrets = map[string]settings.Secret{"TOKEN": settings.NewSecret("first")}
	first := b.prepare(good)
	if err := b.Switch(ctx, good, first); err != nil {
		t.Fatal(err)
	}
	bad := b.spec(2, serving("-text", "bad"))
	if err := b.Switch(ctx, bad, b.prepare(bad)); err != nil {
		t.Fatal(err)
	}
	// One of the good ones has died meanwhile.
	if err := b.engine.Remove(ctx, first[1].ID); err != nil {
		t.Fatal(err)
	}
	back := good
	back.Slot, back.Run, back.Adopt = 3, "hello/1", []string{first[0].ID, first[1].ID}
	again := b.prepare(back)
	if again[0] != first[0] || again[1].ID != b.name(hello, 3, "2") {
		t.Errorf("%v came back as %v", first, again)
	}
	if err := b.Switch(ctx, back, again); err != nil {
		t.Fatal(err)
	}
	if err := b.Retire(ctx, hello, 3); err != nil {
		t.Fatal(err)
	}
	if ids := b.ids(hello); len(ids) != 2 || ids[again[0].ID] == "" || ids[again[1].ID] == "" {
		t.Errorf("left: %v", ids)
	}
	for _, i := range again {
		if text := b.get(i.Address, "/secrets/TOKEN"); text != "first" {
			t.Errorf("%s lost its secrets: %q", i.ID, text)
		}
	}
	// The next version keeps this one until it is proven, although its containers are of two slots.
	next := b.spec(4, serving("-text", "next"))
	if err := b.Switch(ctx, next, b.prepare(next)); err != nil {
		t.Fatal(err)
	}
	if err := b.Retire(ctx, hello, 4, Kept{Slot: 3, Containers: []string{again[0].ID, again[1].ID}}); err != nil {
		t.Fatal(err)
	}
	if ids := b.ids(hello); len(ids) != 3 {
		t.Errorf("left: %v", ids)
	}
	if text := b.get(again[0].Address, "/secrets/TOKEN"); text != "first" {
		t.Errorf("it lost its secrets: %q", text)
	}
}

func TestReleaseRunsOnce(t *testing.T) {
	t.Parallel()
	b := start(t)
	ctx := t.Context()
	s := b.spec(1, serving())
	s.Release = []string{enginetest.Program, "once", "-takes", "1s"}
	s.Secrets = map[string]settings.Secret{"TOKEN": settings.NewSecret("s3cret-of-the-release")}
	// The process dies in the middle; two others come at once.
	dying, die := context.WithTimeout(ctx, 900*time.Millisecond)
	defer die()
	if _, err := b.Release(dying, s); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v", err)
	}
	results := make(chan Released, 2)
	for range 2 {
		go func() {
			r, err := b.again().Release(ctx, s)
			if err != nil {
				t.Error(err)
			}
			results <- r
		}()
	}
	one, two := <-results, <-results
	third, err := b.Release(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Released{one, two, third} {
		if len(r.Log) != 1 || r.Log[0] != one.Log[0] || !r.Started.Equal(one.Started) {
			t.Errorf("it ran more than once: %+v, %+v, %+v", one, two, third)
		}
	}
	if !third.Adopted {
		t.Errorf("%+v", third)
	}

	// A slot has its own; a failure stays a failure, and is not tried again in its slot.
	s.Slot, s.Release = 2, []string{enginetest.Program, "print", "no such table s3cret-of-the-release", "5"}
	for range 2 {
		var failed *ReleaseError
		if _, err := b.Release(ctx, s); !errors.As(err, &failed) || failed.Why != "it exited with code 5" || len(failed.Log) != 1 ||
			!strings.Contains(failed.Log[0], "no such table") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v", err)
		}
	}
	s.Slot, s.Release, s.ReleaseTimeout = 3, []string{enginetest.Program, "idle"}, 500*time.Millisecond
	var failed *ReleaseError
	if _, err := b.Release(ctx, s); !errors.As(err, &failed) || !strings.Contains(failed.Why, "ended after 500ms") {
		t.Errorf("%v", err)
	}
	s.Slot, s.Release = 4, []string{"/no/such"}
	if _, err := b.Release(ctx, s); !errors.As(err, &failed) || !strings.Contains(failed.Why, "cannot be run") {
		t.Errorf("%v", err)
	}
	if err := b.Retire(ctx, hello, 4); err != nil {
		t.Fatal(err)
	}
	if ids := b.ids(hello); len(ids) != 0 {
		t.Errorf("left: %v", ids)
	}
}

func TestTrafficNeverGoesBack(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	s := b.spec(5, serving())
	for range 2 {
		if err := b.Switch(ctx, s, []events.Instance{{ID: "a", Address: "127.0.0.1:1"}}); err != nil {
			t.Fatal(err)
		}
	}
	s.Slot = 4
	var stale *discovery.StaleError
	if err := b.Switch(ctx, s, nil); !errors.As(err, &stale) || stale.Live != 5 {
		t.Errorf("%v", err)
	}
	if _, err := b.Drain(ctx, hello, 5, time.Second); !errors.Is(err, ErrNoEdge) {
		t.Errorf("without an edge: %v", err)
	}
}

func TestRetireLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			b := start(t)
			if way == "volume" {
				b.Deployer.memory = ""
			}
			ctx := t.Context()
			s := b.spec(1, serving())
			s.Secrets = map[string]settings.Secret{"TOKEN": settings.NewSecret("x")}
			s.Release = []string{enginetest.Program, "once"}
			for slot := 1; slot <= 4; slot++ {
				s.Slot, s.Run = slot, fmt.Sprintf("hello/%d", slot)
				instances := b.prepare(s)
				if _, err := b.Release(ctx, s); err != nil {
					t.Fatal(err)
				}
				if slot == 2 {
					if err := b.Switch(ctx, s, instances); err != nil {
						t.Fatal(err)
					}
				}
			}
			slots := func() string {
				seen := map[string]bool{}
				for name := range b.ids(hello) {
					seen[strings.Split(strings.TrimPrefix(name, "towpath-"+b.cfg.Install+"-hello.dev-"), "-")[0]] = true
				}
				text := ""
				for slot := 1; slot <= 4; slot++ {
					if seen[fmt.Sprint(slot)] {
						text += fmt.Sprint(slot)
					}
				}
				return text
			}
			for _, step := range []struct {
				upTo int
				keep []Kept
				left string
			}{
				{2, []Kept{{Slot: 1}}, "1234"}, // 2 has the traffic; 3 and 4 may be somebody's work
				{2, nil, "234"},
				{4, []Kept{{Slot: 4}}, "24"},
				{4, nil, "2"},
				{4, nil, "2"},
			} {
				if err := b.Retire(ctx, hello, step.upTo, step.keep...); err != nil {
					t.Fatal(err)
				}
				if left := slots(); left != step.left {
					t.Errorf("up to %d but %v: slots %s are left, want %s", step.upTo, step.keep, left, step.left)
				}
			}
			entry, err := b.deps.Table.Get(ctx, hello)
			if err != nil || b.get(entry.Instances[0].Address, "/secrets/TOKEN") != "x" {
				t.Errorf("what has the traffic lost its secrets: %+v, %v", entry, err)
			}
			if err := b.Withdraw(ctx, hello, 5); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := b.Retire(ctx, hello, 5); err != nil {
					t.Fatal(err)
				}
			}
			install := map[string]string{LabelInstall: b.cfg.Install}
			containers, err1 := b.engine.List(ctx, install)
			volumes, err2 := b.engine.Volumes(ctx, install)
			networks, err3 := b.engine.Networks(ctx, install)
			if err := errors.Join(err1, err2, err3); err != nil || len(containers)+len(volumes)+len(networks) > 0 {
				t.Errorf("left: %v, %v, %v, %v", containers, volumes, networks, err)
			}
			if b.memory != "" {
				if _, err := os.Stat(b.memory); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is left: %v", b.memory, err)
				}
			}
		})
	}
}

func TestAppsInOneEnvironmentReachEachOther(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.prepare(b.spec(1, serving("-text", "from hello")))
	caller := b.spec(1, serving())
	caller.Place.App, caller.Replicas = "caller", 1
	caller.Release = []string{enginetest.Program, "fetch", "http://hello:8080/"}
	r, err := b.Release(t.Context(), caller)
	if err != nil || !strings.Contains(strings.Join(r.Log, "\n"), "from hello") {
		t.Errorf("%+v, %v", r, err)
	}
	for _, p := range []discovery.Place{hello, caller.Place} {
		if err := b.Retire(t.Context(), p, 1); err != nil {
			t.Error(err)
		}
	}
}

func TestFaultsOfASpecAreReportedAtOnce(t *testing.T) {
	err := Spec{Digest: "latest", Port: 70000, HealthPath: "health", Secrets: map[string]settings.Secret{"../../etc": {}}}.Validate()
	for _, part := range []string{"slugs", "slots begin at 1", "sha256", "repository", "70000", "at least 1", "health path", "../../etc"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("does not name %q: %v", part, err)
		}
	}
	if _, err := New(Config{Install: "../x", FirstPort: 9, LastPort: 3}, Deps{}); err == nil || !strings.Contains(err.Error(), "install") || !strings.Contains(err.Error(), "ports") {
		t.Errorf("%v", err)
	}
}

func TestListener(t *testing.T) {
	for line, want := range map[string]string{
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000":                                                 "127.0.0.1 8080 true",
		"   0: 00000000:2382 00000000:0000 0A 00000000:00000000":                                                 "0.0.0.0 9090 true",
		"   1: 0100007F:1F90 0100007F:8AE2 01 00000000:00000000":                                                 "<nil> 0 false",
		"   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000": ":: 8080 true",
		"   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000": "::1 8080 true",
		"  sl  local_address rem_address   st":                                                                   "<nil> 0 false",
		"":                                                                                                       "<nil> 0 false",
	} {
		ip, port, ok := listener(line)
		if got := fmt.Sprint(ip, " ", port, " ", ok); got != want {
			t.Errorf("%q: %s, want %s", line, got, want)
		}
	}
}

// BenchmarkPrepare compares a version with one replica, from nothing to healthy, with the same calls to the
// engine one after the other.
func BenchmarkPrepare(t *testing.B) {
	b := start(t)
	s := b.spec(1, serving())
	ctx := t.Context()
	image, err := b.engine.Pull(ctx, s.Repository, s.Digest, s.Credentials)
	if err != nil {
		t.Fatal(err)
	}
	var ours, raw time.Duration
	for t.Loop() {
		s.Slot++
		begun := time.Now()
		b.prepare(s)
		ours += time.Since(begun)
		t.StopTimer()
		if err := b.Retire(ctx, hello, s.Slot); err != nil {
			t.Fatal(err)
		}
		network, err := b.engine.EnsureNetwork(ctx, b.network(hello), b.envLabels("dev"))
		if err != nil {
			t.Fatal(err)
		}
		begun = time.Now()
		id, err := b.engine.Create(ctx, engine.Container{
			Name: b.name(hello, 0, "raw"), Image: image.ID, Network: network, Port: 8080, Labels: b.placeLabels(hello),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.engine.Start(ctx, id); err != nil {
			t.Fatal(err)
		}
		for healthy := false; !healthy; {
			state, err := b.engine.Inspect(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			response, err := http.Get("http://" + state.Addresses[8080] + "/health")
			if healthy = err == nil; healthy {
				response.Body.Close()
			}
		}
		raw += time.Since(begun)
		if err := b.engine.Remove(ctx, id); err != nil {
			t.Fatal(err)
		}
		t.StartTimer()
	}
	t.ReportMetric(float64(ours.Milliseconds())/float64(t.N), "ms/prepare")
	t.ReportMetric(float64(raw.Milliseconds())/float64(t.N), "ms/raw")
	t.ReportMetric(float64(ours)/float64(raw), "ratio")
}

// grep reports the files below folder that hold text.
func grep(t *testing.T, folder, text string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil // what goes away meanwhile holds nothing
		}
		data, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(data), text) {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
