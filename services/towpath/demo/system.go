package demo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"towpath.dev/services/towpath"
	"towpath.dev/services/towpath/client"
)

// Bounds of starting and stopping `towpath up`.
const (
	startBound = 60 * time.Second
	stopBound  = 40 * time.Second
)

// system is a `towpath up` of the demo's own, in a process of its own.
type system struct {
	program  string
	data     string
	log      string
	registry string // host:port
	install  string // what it labels its containers with
	process  *os.Process
	ended    chan struct{} // closed when the process has ended
	err      error         // how; read after ended
}

// cleanEnv is the environment without what would point the commands to another Towpath.
func cleanEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "TOWPATH_") {
			env = append(env, kv)
		}
	}
	return env
}

// startSystem starts `towpath up` on free ports and returns once it answers.
func startSystem(ctx context.Context, program, data, log string) (*system, error) {
	s := &system{program: program, data: data, log: log, ended: make(chan struct{})}
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "up", "--data", data, "--listen", "127.0.0.1:0", "--edge-listen", "127.0.0.1:0", "--registry-listen", "127.0.0.1:0")
	cmd.Env, cmd.Stdout, cmd.Stderr = cleanEnv(), out, out
	// Ctrl-C is for the demo, which stops it in order; a demo that is killed takes it along.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	go func() {
		// The kernel watches the thread that started it, which therefore has to live on.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread() // or the thread would end, and with it whatever it had started before
		err := cmd.Start()
		started <- err
		if err == nil {
			s.err = cmd.Wait()
		}
		out.Close()
		close(s.ended)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting towpath up: %w", err)
	}
	s.process = cmd.Process
	if err := s.untilReady(ctx); err != nil {
		return s, err
	}
	return s, s.look()
}

// untilReady waits until the URL is written, which happens last.
func (s *system) untilReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startBound)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(filepath.Join(s.data, client.URLFile)); err == nil {
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("towpath up ended: %w", s.err)
		case <-ctx.Done():
			return fmt.Errorf("towpath up was not ready within %s: %w", startBound, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// look reads where the registry is and what the installation is called.
func (s *system) look() error {
	place, err := towpath.ReadPlace(s.data)
	if err != nil {
		return err
	}
	s.registry, s.install = place.Registry, place.Install
	return nil
}

// command runs one of this binary's commands against the system and shows what it says.
func (s *system) command(ctx context.Context, t *teller, args ...string) error {
	out := t.output()
	defer out.Close()
	cmd := exec.CommandContext(ctx, s.program, args...)
	cmd.Env = append(cleanEnv(), "TOWPATH_DATA="+s.data)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("towpath %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// stop lets the system drain, and kills it where that takes too long.
func (s *system) stop() error {
	if s == nil || s.process == nil {
		return nil
	}
	s.process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
		return s.err
	case <-time.After(stopBound):
		s.process.Kill()
		<-s.ended
		return fmt.Errorf("towpath up had not stopped %s after SIGTERM", stopBound)
	}
}

// explain shows the end of the system's log, for an error that is none of the demo's own claims.
func (s *system) explain(t *teller) {
	if s == nil {
		return
	}
	data, readErr := os.ReadFile(s.log)
	if readErr != nil || len(data) == 0 {
		return
	}
	lines := bytes.Split(bytes.TrimRight(data, "\n"), []byte("\n"))
	t.gap()
	t.line(margin + "The last lines of towpath up:")
	out := newIndented(t.s, margin+"  ")
	out.Write(append(bytes.Join(lines[max(0, len(lines)-15):], []byte("\n")), '\n'))
}
