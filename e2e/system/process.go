package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// process is one program that runs in the background with its output in a file.
type process struct {
	name string
	log  string // file that stdout and stderr are appended to
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended; read after done
}

// spawn runs every start on one thread that never ends: a child asks the kernel to be killed when the thread
// that started it ends, so that nothing outlives a test that is killed.
var spawn = sync.OnceValue(func() chan<- func() {
	starts := make(chan func())
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread() // or the thread would end, and with it whatever it had started before
		for start := range starts {
			start()
		}
	}()
	return starts
})

func startProcess(name, log string, env []string, argv ...string) (*process, error) {
	output, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer output.Close()
	p := &process{name: name, log: log, done: make(chan struct{})}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, output, output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	spawn() <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// running reports whether the process has not ended.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill ends the process with SIGKILL and waits for its end.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// stop sends SIGTERM and waits until the process has drained; after the given time it is killed, which is an
// error.
func (p *process) stop(bound time.Duration) error {
	if !p.running() {
		return nil
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-time.After(bound):
		p.cmd.Process.Signal(syscall.SIGQUIT) // its goroutines go to the log
		select {
		case <-p.done:
		case <-time.After(2 * time.Second):
			p.kill()
		}
		return fmt.Errorf("%s had not ended %s after SIGTERM", p.name, bound)
	}
}

// until asks ready every 20 ms until it returns nil, the context ends, or one of the processes ends.
func until(ctx context.Context, what string, bound time.Duration, processes []*process, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		for _, p := range processes {
			if !p.running() {
				return fmt.Errorf("waiting for %s: %s ended: %v", what, p.name, errors.Join(p.err, err))
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: not within %s: %w", what, bound, err)
		case <-tick.C:
		}
	}
}
