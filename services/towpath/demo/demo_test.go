package demo_test

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"testing"

	"towpath.dev/pkg/engine"
	"towpath.dev/services/towpath/cli"
	"towpath.dev/services/towpath/demo"
	"towpath.dev/services/towpath/screen"
)

// The demo starts this program as `towpath`, and so do git's hooks.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
		os.Exit(cli.Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// output may be written by several goroutines.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(data []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(data)
}

// The whole demo holds what it claims, and leaves nothing behind.
func TestDemo(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	var out output
	err = demo.Run(t.Context(), demo.Options{
		Screen: screen.Screen{Out: &out}, App: "../../../deployments/demo/hello", Program: self, Engine: engine.Host{URL: os.Getenv("DOCKER_HOST")},
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, out.text.String())
	}
	for _, claim := range []string{
		"✓ hello/1 is done", "✓ dev still serves hello/1", "✓ qa never saw hello/2", "✓ prod never saw hello/2",
		"✓ hello/3 is stuck in QA", "✓ with the digest of before, and no rebuild", "✓ hello/3 is done", "✓ removed",
	} {
		if !strings.Contains(out.text.String(), claim) {
			t.Errorf("it does not say %q:\n%s", claim, out.text.String())
		}
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("left over: %v %v", left, err)
	}
}

func TestDemoSaysWhatItNeeds(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out output
	err := demo.Run(t.Context(), demo.Options{
		Screen: screen.Screen{Out: &out}, App: "../../../deployments/demo/hello", Program: "/nonexistent", Engine: engine.Host{URL: "unix:///nonexistent/docker.sock"},
	})
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/docker.sock") {
		t.Errorf("without an Engine: %v", err)
	}
}
