//go:build faults

package boundary

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"towpath.dev/events"
)

// TestKilled is also the program that is killed: what it passes comes from its environment.
func TestKilled(t *testing.T) {
	if os.Getenv("BOUNDARY_TEST_VICTIM") != "" {
		for range 2 {
			Reached(events.Vet, Decided, "hello")
			Reached(events.Vet, Effect, "hello")
		}
		os.Stdout.WriteString("alive\n")
		return
	}
	for orders, want := range map[string]string{
		"vet:effect:2":                "vet decided, vet effect, vet decided, vet effect killed",
		"vet:decided:2,vet:effect:1":  "vet decided, vet effect killed",
		"promote:effect:1":            "vet decided, vet effect, vet decided, vet effect",
		"vet:effect:3,vet:received:1": "vet decided, vet effect, vet decided, vet effect",
	} {
		log := filepath.Join(t.TempDir(), "passed")
		victim := exec.Command(os.Args[0], "-test.run", "^TestKilled$")
		victim.Env = append(os.Environ(), "BOUNDARY_TEST_VICTIM=1", killVariable+"="+orders, passedVariable+"="+log)
		out, err := victim.Output()
		text, readErr := os.ReadFile(log)
		if readErr != nil {
			t.Fatal(readErr)
		}
		var got []string
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			step := f[3] + " " + f[4]
			if f[2] == "killed" {
				step += " killed"
			}
			got = append(got, step)
		}
		if g := strings.Join(got, ", "); g != want {
			t.Errorf("%s: passed %s, not %s", orders, g, want)
		}
		killed := victim.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
		if killed != strings.HasSuffix(want, "killed") || killed == bytes.Contains(out, []byte("alive")) {
			t.Errorf("%s: ended with %v and said %q", orders, err, out)
		}
	}
}

func TestAnUnreadableOrderEndsTheProcess(t *testing.T) {
	if os.Getenv("BOUNDARY_TEST_VICTIM") != "" {
		Reached(events.Vet, Decided, "hello")
		return
	}
	for _, orders := range []string{"vet:effect", "vet:effect:0", "3"} {
		victim := exec.Command(os.Args[0], "-test.run", "^TestAnUnreadableOrderEndsTheProcess$")
		victim.Env = append(os.Environ(), "BOUNDARY_TEST_VICTIM=1", killVariable+"="+orders)
		if err := victim.Run(); err == nil {
			t.Errorf("%q was taken", orders)
		}
	}
}
