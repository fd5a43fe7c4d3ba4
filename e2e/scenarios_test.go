package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"towpath.dev/e2e/system"
	"towpath.dev/pkg/engine/enginetest"
	"towpath.dev/pkg/settings/consul/consultest"
	"towpath.dev/pkg/settings/vault/vaulttest"
)

// binaries are built once, before any scenario.
var binaries system.Binaries

func TestMain(m *testing.M) {
	// Scenarios wait for containers most of the time: more of them than there are processors go side by side, unless
	// -parallel says how many.
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		if err := parallel.Value.Set("6"); err != nil {
			panic(err)
		}
	}
	var err error
	if binaries, err = system.Build(context.Background(), raceDetector); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestLoad runs those in scenarios/load one after the other, and before all others: they measure what a client sees, and
// a machine that is busy with something else says nothing about that.
func TestLoad(t *testing.T) {
	for _, shape := range []system.Shape{system.AllInOne, system.Separate} {
		for _, script := range scriptsIn(t, "scenarios/load") {
			name := string(shape) + "/" + strings.TrimSuffix(filepath.Base(script), ".txtar")
			t.Run(name, func(t *testing.T) { runScripts(t, shape, nil, script) })
		}
	}
}

func TestAllInOne(t *testing.T) { scenarios(t, system.AllInOne) }

func TestSeparate(t *testing.T) { scenarios(t, system.Separate) }

// scenarios runs those in scenarios/shared against one system that stays up meanwhile, and those in
// scenarios/own each against a system of its own, which the script starts.
func scenarios(t *testing.T, shape system.Shape) {
	t.Parallel()
	t.Run("shared", func(t *testing.T) {
		shared, err := system.Start(t.Context(), system.Options{Shape: shape, Folder: t.TempDir(), Binaries: binaries})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { finish(t, shared) })
		runScripts(t, shape, shared, scriptsIn(t, "scenarios/shared")...)
	})
	t.Run("own", func(t *testing.T) { runScripts(t, shape, nil, scriptsIn(t, "scenarios/own")...) })
}

func scriptsIn(t *testing.T, folder string) []string {
	t.Helper()
	scripts, err := filepath.Glob(filepath.Join(folder, "*.txtar"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts in %s: %v", folder, err)
	}
	return scripts
}

func runScripts(t *testing.T, shape system.Shape, shared *system.System, scripts ...string) {
	testscript.Run(t, testscript.Params{
		Files: scripts,
		Cmds:  commands,
		Condition: func(condition string) (bool, error) {
			switch condition {
			case "separate", "all-in-one":
				return condition == string(shape), nil
			}
			return false, fmt.Errorf("unknown condition %q: separate or all-in-one", condition)
		},
		Setup: func(env *testscript.Env) error {
			t, ok := env.T().(testing.TB)
			if !ok {
				return fmt.Errorf("a script's test is a %T, which is no testing.TB", env.T())
			}
			h := &holder{t: t, shape: shape, system: shared, shared: shared != nil, folder: env.WorkDir, loads: map[string]*system.Load{}, variables: map[string]bool{}}
			env.Values[holderKey{}] = h
			env.Defer(h.finish)
			return h.prepare(env)
		},
	})
}

// finish stops a system, judges every event that it wrote, removes what it created, and shows its logs if
// something went wrong.
func finish(t testing.TB, s *system.System) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := s.Conformance(ctx); err != nil {
		t.Errorf("events against CDEvents' schemas: %v", err)
	}
	if err := s.Close(ctx); err != nil {
		t.Errorf("stopping: %v", err)
	}
	if races := s.Races(); races != "" {
		t.Errorf("the race detector found something:\n%s", races)
	}
	if t.Failed() {
		t.Logf("logs of the %s system:\n%s", s.Shape(), s.LogTail(200))
	}
}

// holder is what one script has: its system and what it started besides.
type holder struct {
	t         testing.TB
	shape     system.Shape
	system    *system.System
	shared    bool
	folder    string
	loads     map[string]*system.Load
	engines   map[string]*enginetest.Dockerd
	consul    []*consultest.Agent
	lost      []*consultest.Agent // those of them that were killed
	registry  *system.Registry
	disk      *system.Disk
	witness   *system.Witness
	vault     *vaulttest.Server
	variables map[string]bool // names in the environment of programs that the script runs
}

type holderKey struct{}

func held(ts *testscript.TestScript) *holder { return ts.Value(holderKey{}).(*holder) }

// prepare gives the script a home of its own, its programs, and the running system's addresses.
func (h *holder) prepare(env *testscript.Env) error {
	home := filepath.Join(h.folder, "home")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	config := "[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n[protocol \"file\"]\n\tallow = always\n[advice]\n\tdetachedHead = false\n"
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(config), 0o600); err != nil {
		return err
	}
	env.Setenv("HOME", home)
	env.Setenv("PATH", strings.Join([]string{binaries.Folder, binaries.Servers, os.Getenv("PATH")}, string(os.PathListSeparator)))
	env.Setenv("GIT_TERMINAL_PROMPT", "0")
	for _, name := range []string{"GOCACHE", "GOMODCACHE"} { // the home is the script's own, these are everybody's
		value, err := exec.Command("go", "env", name).Output()
		if err != nil {
			return fmt.Errorf("go env %s: %w", name, err)
		}
		env.Setenv(name, strings.TrimSpace(string(value)))
	}
	env.Setenv("NO_COLOR", "1")
	env.Setenv("TOWPATH_PASSPHRASE", "") // for scripts to set
	env.Setenv("GORACE", "exitcode=0")   // findings are read from the logs
	for _, name := range []string{"TOWPATH_URL", "TOWPATH_TOKEN", "GIT", "EDGE", "BOT_TOKEN", "BOT_BUS", "BOT_KEY", "BOT_ID"} {
		env.Setenv(name, "")
	}
	if h.system != nil {
		for name, value := range h.system.Variables() {
			env.Setenv(name, value)
		}
	}
	for _, pair := range env.Vars {
		name, _, _ := strings.Cut(pair, "=")
		if len(name) > 1 {
			h.variables[name] = true
		}
	}
	return nil
}

// finish ends what the script started. A shared system stays for the scripts beside it.
func (h *holder) finish() {
	for _, load := range h.loads {
		load.Wait()
	}
	if h.system != nil && !h.shared {
		finish(h.t, h.system)
	}
	if h.registry != nil {
		h.registry.Close()
	}
	if h.disk != nil {
		if err := h.disk.Close(); err != nil {
			h.t.Errorf("disk: %v", err)
		}
	}
}

// figure reports a measurement, also where the test passes.
func (h *holder) figure(line string) { h.t.Logf("figure, %s: %s", h.shape, line) }
