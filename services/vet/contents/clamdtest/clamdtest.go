// Package clamdtest runs a real clamd for tests, with signatures of its own.
package clamdtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"towpath.dev/services/vet/contents"
)

// Sample is what the signatures know, besides EICAR.
const Sample = "towpath-test-sample-7d44-not-a-virus"

// Clamd is a running clamd.
type Clamd struct {
	t       testing.TB
	folder  string
	Address string // for contents.ParseClamd
	process *exec.Cmd
	done    chan struct{} // closed when it has ended
}

// Start starts a clamd whose signatures are Sample alone, with files of at most largest bytes; 0: 100 MB. It fails the
// test where clamd is not installed.
func Start(t testing.TB, largest int) *Clamd {
	t.Helper()
	path, err := exec.LookPath("clamd")
	if err != nil {
		if path = "/usr/sbin/clamd"; !executable(path) {
			t.Fatal("clamd is not installed: apt-get install --no-install-recommends clamav-daemon")
		}
	}
	// A socket's path is short, and a test's own folder's may not be.
	folder, err := os.MkdirTemp("", "clamd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if largest == 0 {
		largest = 100 << 20
	}
	c := &Clamd{t: t, folder: folder, Address: "unix://" + filepath.Join(folder, "socket")}
	c.write("signatures/sample.ndb", fmt.Sprintf("Test.Sample:0:*:%x\n", Sample))
	c.write("clamd.conf", fmt.Sprintf("Foreground yes\nDatabaseDirectory %s\nLocalSocket %s\nLocalSocketMode 600\nTemporaryDirectory %s\n"+
		"User root\nStreamMaxLength %d\nAlertExceedsMax yes\nMaxThreads 2\nConcurrentDatabaseReload no\n",
		filepath.Join(folder, "signatures"), filepath.Join(folder, "socket"), folder, largest))
	c.process = exec.Command(path, "--config-file="+filepath.Join(folder, "clamd.conf"))
	log, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.process.Stdout, c.process.Stderr = log, log
	if err := c.process.Start(); err != nil {
		t.Fatal(err)
	}
	c.done = make(chan struct{})
	go func() {
		defer close(c.done)
		_ = c.process.Wait() // how it ended is in its log
	}()
	t.Cleanup(c.Kill)
	client, err := contents.ParseClamd(c.Address)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Minute)
	for {
		if _, err = client.Version(t.Context()); err == nil {
			return c
		}
		select {
		case <-c.done:
			c.fatal("clamd ended")
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(end) {
			c.fatal("clamd does not answer: %v", err)
		}
	}
}

func (c *Clamd) fatal(format string, a ...any) {
	c.t.Helper()
	text, _ := os.ReadFile(filepath.Join(c.folder, "log"))
	c.t.Fatalf(format+"\n%s", append(a, strings.TrimSpace(string(text)))...)
}

func (c *Clamd) write(name, text string) {
	c.t.Helper()
	path := filepath.Join(c.folder, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// Kill ends it at once.
func (c *Clamd) Kill() {
	_ = c.process.Process.Kill()
	<-c.done
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&0o111 != 0
}
