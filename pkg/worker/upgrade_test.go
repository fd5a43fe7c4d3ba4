package worker_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/worker"
)

// older builds a worker to which command.received is unknown, as it was to a build from before that type.
func older(t *testing.T) (program string) {
	t.Helper()
	dir := t.TempDir()
	path, err := filepath.Abs("../../events/types.go")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for line := range strings.Lines(string(source)) {
		if !strings.Contains(line, "new(CommandReceived)") {
			kept = append(kept, line)
		}
	}
	before := filepath.Join(dir, "types.go")
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: before}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{before: strings.Join(kept, ""), filepath.Join(dir, "overlay.json"): string(overlay)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program = filepath.Join(dir, "older")
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "./testdata/older")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the older worker: %v\n%s", err, out)
	}
	return program
}

// TestUpgrade: what an older build cannot read it parks, and says so; its upgrade takes it up, in the place that it
// has in the ledger.
func TestUpgrade(t *testing.T) {
	l := ledgertest.Start(t)
	process := exec.Command(older(t), l.URL, l.Keys)
	process.Stderr = t.Output()
	stdin, err := process.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Process.Kill() })
	handled := make(chan uint64, 10)
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			var seq uint64
			if _, err := fmt.Sscan(lines.Text(), &seq); err == nil {
				handled <- seq
			}
		}
	}()

	gateway := open(t, l, "gateway")
	unknown := command(t, gateway)
	id := events.NewID()
	replay := &events.ReplayRequested{About: events.About{ID: id}, Stage: "build"}
	known, err := gateway.Append(t.Context(), events.CommandSubject(1, replay.Type(), "hello", 1, "", id), events.New(events.Gateway, time.Now(), "", replay))
	if err != nil {
		t.Fatal(err)
	}
	if got := receive(t, handled, "what the older build knows"); got != known.Seq {
		t.Errorf("the older build handled %d, want %d alone", got, known.Seq)
	}
	list := noted(t, l, events.BucketAside, "of its consumer and its follower", func(list []ledger.Note) bool { return len(list) == 2 })
	for _, n := range list {
		if n.Seq != unknown || n.Service != events.Build || n.State != ledger.Parked || n.Type != string(events.TypeCommandReceived) {
			t.Errorf("noted %+v", n)
		}
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := process.Wait(); err != nil {
		t.Fatal(err)
	}

	upgraded := open(t, l, "build")
	if upgraded.Fold.Held() == nil {
		t.Error("the upgraded fold lacks what was parked")
	}
	again := make(chan uint64, 10)
	consume(t, upgraded, worker.Consumer{}, func(_ context.Context, m worker.Message) error { again <- m.Record.Seq; return nil })
	if got := receive(t, again, "what was parked"); got != unknown {
		t.Errorf("the upgraded build took up %d, want %d", got, unknown)
	}
	noted(t, l, events.BucketAside, "none", none)
	if len(again)+len(handled) > 0 {
		t.Error("something was handled twice")
	}
}
