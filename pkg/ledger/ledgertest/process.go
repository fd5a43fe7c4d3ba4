package ledgertest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"towpath.dev/pkg/ledger/bus"
)

// running is a server, wherever it runs.
type running interface {
	URL() string
	Shutdown()
	// Reload takes changed keys up.
	Reload() (changed bool, err error)
}

// Separate runs the server as a process of its own instead of in the test's: the pinned nats-server
// with the configuration that bus.WriteConfig writes.
func Separate() Option { return func(l *Ledger) { l.begin = l.startProcess } }

// Loosened is Separate with a change to the server's configuration, for tests of tests.
func Loosened(change func(conf string) string) Option {
	return func(l *Ledger) { l.begin, l.change = l.startProcess, change }
}

// process is a nats-server of its own.
type process struct {
	change  func(conf string) string // of its configuration; nil: none
	command *exec.Cmd
	url     string
	cfg     bus.Config
	path    string // of its configuration
	log     string // its path
}

// Reload does what an operator does: the configuration is written again, and the server told; twice, because it makes a
// new account's imports work only when it meets the account for the second time.
func (p *process) Reload() (bool, error) {
	if err := p.configure(); err != nil {
		return false, err
	}
	for range 2 {
		before, err := p.reloads()
		if err == nil {
			err = p.command.Process.Signal(syscall.SIGHUP)
		}
		for end := time.Now().Add(20 * time.Second); err == nil; {
			now, failed := p.reloads()
			if failed == nil && now > before {
				break
			}
			if err = failed; err == nil && time.Now().After(end) {
				err = fmt.Errorf("the server has not read its configuration again within 20 s; see %s", p.log)
			}
			<-time.After(10 * time.Millisecond)
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// reloads counts how often the server has read its configuration again.
func (p *process) reloads() (int, error) {
	text, err := os.ReadFile(p.log)
	return bytes.Count(text, []byte("Reloaded server configuration")), err
}

func (p *process) configure() error {
	var text bytes.Buffer
	if err := bus.WriteConfig(&text, p.cfg); err != nil {
		return err
	}
	conf := text.String()
	if p.change != nil {
		conf = p.change(conf)
	}
	return os.WriteFile(p.path, []byte(conf), 0o600)
}

func (p *process) URL() string { return p.url }

// Shutdown ends the process and waits for it.
func (p *process) Shutdown() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	_ = p.command.Wait()
}

// kill ends the process with SIGKILL.
func (p *process) kill() {
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
}

// again starts a process that was killed.
func (l *Ledger) again(p *process) {
	l.t.Helper()
	p.command = exec.Command(p.command.Args[0], p.command.Args[1:]...)
	if err := p.command.Start(); err != nil {
		l.t.Fatal(err)
	}
}

// buildServer builds nats-server into the ledger's folder, once, and returns its path.
func (l *Ledger) buildServer() (binary string, err error) {
	binary = filepath.Join(l.dir, "nats-server")
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	build := exec.Command("go", "build", "-o", binary, "github.com/nats-io/nats-server/v2")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building nats-server: %w\n%s", err, out)
	}
	return binary, nil
}

func (l *Ledger) startProcess(listen string) (running, error) {
	return l.spawn("nats", bus.Config{Listen: listen})
}

// spawn starts a nats-server whose files are called name.
func (l *Ledger) spawn(name string, cfg bus.Config) (*process, error) {
	binary, err := l.buildServer()
	if err != nil {
		return nil, err
	}
	cfg.StoreDir, cfg.Keys, cfg.Epoch = filepath.Join(l.dir, name), l.Keys, l.Epoch
	p := &process{
		url: "nats://" + cfg.Listen, path: filepath.Join(l.dir, name+".conf"), change: l.change, log: filepath.Join(l.dir, name+".log"),
	}
	run := []string{binary, "-c", p.path, "-l", p.log}
	p.command = exec.Command(run[0], run[1:]...)
	if l.disk != nil {
		cfg.StoreDir = l.disk.folder
		p.command = l.disk.within(run...)
	}
	p.cfg = cfg
	if err := p.configure(); err != nil {
		return nil, err
	}
	return p, p.command.Start()
}
