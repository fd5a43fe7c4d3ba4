package enginetest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"towpath.dev/pkg/engine"
)

// Dockerd is a Docker Engine of its own beside the machine's: own images, containers and networks, ports
// published by its own proxy, so that 127.0.0.1 and registries on it are shared. Networks of its
// containers reach neither the outside nor other engines' networks.
type Dockerd struct {
	Host   engine.Host
	Engine *engine.Engine

	t      testing.TB
	folder string
	args   []string
	log    *safeBuffer

	process *os.Process
	exited  chan struct{}
}

var dockerds atomic.Int32

// StartDockerd starts an Engine and stops it, with everything in it, when the test ends. Needs root. It
// is ready in about two seconds. flags are dockerd's own, besides those that keep it to itself.
func StartDockerd(t testing.TB, flags ...string) *Dockerd {
	t.Helper()
	program, err := exec.LookPath("dockerd")
	if err != nil || os.Getuid() != 0 {
		t.Fatalf("these tests start Docker Engines of their own: they need dockerd (deployments/engine.sh gets it: %v) and root (this is user %d)", err, os.Getuid())
	}
	folder, err := os.MkdirTemp("", "towpath-dockerd-") // a socket's path must be short; t.TempDir's is not
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("%d-%d", os.Getpid(), dockerds.Add(1))
	socket := filepath.Join(folder, "docker.sock")
	d := &Dockerd{
		Host: engine.Host{URL: "unix://" + socket}, t: t, folder: folder, log: &safeBuffer{},
		args: append([]string{program,
			"--host", "unix://" + socket, "--data-root", folder + "/data", "--exec-root", folder + "/exec", "--pidfile", folder + "/pid",
			"--config-file", folder + "/daemon.json", // empty, so that the machine's own is not read
			// Not --default-address-pool: with it, a dockerd that is started again removes docker0, whose ever it is.
			"--bridge", bridge(t, id),
			// One engine's firewall rules would break another's: the proxy publishes ports instead.
			"--iptables=false", "--ip6tables=false", "--ip-forward=false",
			// Where the machine has a containerd of its own, engines would share what it runs.
			"--containerd-namespace", "towpath-" + id, "--containerd-plugins-namespace", "towpath-plugins-" + id,
		}, flags...),
	}
	if err := os.WriteFile(folder+"/daemon.json", []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.remove)
	d.Start()
	return d
}

// bridge has the machine's engine make a network, and returns the name of its bridge, for the other's
// default network: that needs no other tool, and gives it a way out.
func bridge(t testing.TB, id string) string {
	t.Helper()
	ctx := context.Background()
	e := EnsureEngine(t)
	labels := map[string]string{"towpath.test": id}
	name := "towpath-dockerd-" + id
	network, err := e.EnsureNetwork(ctx, name, labels)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.RemoveNetwork(ctx, network); err != nil {
			t.Error(err)
		}
	})
	return "br-" + network[:12]
}

// Start starts it again after Stop or Kill, with the same data.
func (d *Dockerd) Start() {
	d.t.Helper()
	started := make(chan error)
	exited := make(chan struct{})
	go func() {
		// The kernel's death signal is tied to this thread; it must live as long as the daemon.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread() // or the thread would end, and with it whatever it had started before
		command := exec.Command(d.args[0], d.args[1:]...)
		command.Stdout, command.Stderr = d.log, d.log
		command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
		err := command.Start()
		d.process = command.Process
		started <- err
		if err == nil {
			command.Wait()
		}
		close(exited)
	}()
	if err := <-started; err != nil {
		d.t.Fatalf("starting dockerd: %v", err)
	}
	d.exited = exited
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		e, err := engine.Connect(ctx, d.Host)
		if err == nil {
			if d.Engine != nil {
				d.Engine.Close()
			}
			d.Engine = e
			return
		}
		select {
		case <-exited:
			d.t.Fatalf("dockerd ended at its start:\n%s", d.log.tail())
		case <-ctx.Done():
			d.t.Fatalf("dockerd did not answer within a minute: %v\n%s", err, d.log.tail())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Stop ends it properly: its containers are stopped.
func (d *Dockerd) Stop() { d.signal(syscall.SIGTERM) }

// Kill ends it with SIGKILL. Its containers are found by the next Start, and ended but where it has --live-restore.
func (d *Dockerd) Kill() {
	d.t.Helper()
	d.signal(syscall.SIGKILL)
	// Its containerd dies with it, but where process 1 reaps nothing (a container, a small virtual machine)
	// the next one would take that for alive.
	os.Remove(d.folder + "/exec/containerd/containerd.pid")
}

// Freeze stops it in its tracks (SIGSTOP): it takes connections and answers nothing, until Thaw.
func (d *Dockerd) Freeze() {
	d.t.Helper()
	d.process.Signal(syscall.SIGSTOP)
	Eventually(d.t, 10*time.Second, "dockerd is stopped", func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.process.Pid))
		return err == nil && bytes.Contains(status, []byte("State:\tT"))
	})
}

// Thaw lets it go on.
func (d *Dockerd) Thaw() { d.process.Signal(syscall.SIGCONT) }

// Data is the folder in which it keeps everything on disk.
func (d *Dockerd) Data() string { return d.folder + "/data" }

func (d *Dockerd) signal(s syscall.Signal) {
	d.t.Helper()
	d.process.Signal(syscall.SIGCONT)
	d.process.Signal(s)
	select {
	case <-d.exited:
	case <-time.After(time.Minute):
		d.process.Kill()
		d.t.Errorf("dockerd did not end within a minute of %v:\n%s", s, d.log.tail())
	}
}

func (d *Dockerd) remove() {
	if d.Engine != nil {
		ctx := context.Background()
		containers, err := d.Engine.List(ctx, nil)
		if err != nil {
			d.t.Logf("emptying dockerd: %v", err)
		}
		for _, c := range containers {
			d.Engine.Remove(ctx, c.ID)
		}
		if networks, err := d.Engine.Networks(ctx, map[string]string{"towpath.install": ""}); err == nil {
			for _, n := range networks {
				d.Engine.RemoveNetwork(ctx, n.ID) // takes its bridge off this machine
			}
		}
		d.Engine.Close()
	}
	if d.process != nil {
		d.Stop()
	}
	d.killOrphans()
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], d.folder) {
			syscall.Unmount(fields[1], syscall.MNT_DETACH)
		}
	}
	if err := os.RemoveAll(d.folder); err != nil {
		d.t.Errorf("removing what dockerd left: %v", err)
	}
}

// killOrphans ends the containers that a dockerd which was killed has left running, and their shims,
// which name its folder in their arguments.
func (d *Dockerd) killOrphans() {
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range commands {
		command, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(command, []byte(d.folder+"/exec")) {
			continue
		}
		var shim int
		fmt.Sscanf(file, "/proc/%d/", &shim)
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", shim, shim))
		for _, child := range strings.Fields(string(children)) {
			var pid int
			fmt.Sscan(child, &pid)
			syscall.Kill(pid, syscall.SIGKILL)
		}
		syscall.Kill(shim, syscall.SIGKILL)
	}
}

// safeBuffer keeps what a process says. Safe for concurrent use.
type safeBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *safeBuffer) tail() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := b.all.String()
	return text[max(0, len(text)-4000):]
}
