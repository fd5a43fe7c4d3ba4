package towpath

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/bus"
	"towpath.dev/pkg/wholefile"
)

// operatorsEntry is a socket in the data folder, mode 0600, at which this machine's operator reaches the bus inside: with
// the keys of the data folder, like everybody else.
type operatorsEntry struct {
	listener net.Listener
	work     sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]bool // nil once it is closed
	clean    func() error
}

// socketFolder begins the name of the folder that holds the socket.
const socketFolder = "towpath-bus-"

// socketFile holds the socket's path, which has to be short.
func (c Config) socketFile() string { return filepath.Join(c.Data, "bus.socket") }

func (s *Service) openOperatorsEntry() error {
	// The data folder is this process's alone: what an earlier one left that was killed is nobody's.
	if left, err := os.ReadFile(s.cfg.socketFile()); err == nil {
		if folder := filepath.Dir(string(left)); strings.HasPrefix(filepath.Base(folder), socketFolder) {
			if err := os.RemoveAll(folder); err != nil {
				return fmt.Errorf("removing an earlier entry to the bus: %w", err)
			}
		}
	}
	folder, err := os.MkdirTemp("", socketFolder) // mode 0700
	if err != nil {
		return fmt.Errorf("opening the operator's entry to the bus: %w", err)
	}
	e := &operatorsEntry{open: map[net.Conn]bool{}, clean: func() error {
		return errors.Join(os.RemoveAll(folder), os.Remove(s.cfg.socketFile()))
	}}
	path := filepath.Join(folder, "sock")
	if e.listener, err = net.Listen("unix", path); err == nil {
		err = errors.Join(os.Chmod(path, 0o600), wholefile.Write(s.cfg.socketFile(), []byte(path+"\n"), 0o600))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("opening the operator's entry to the bus: %w", err), os.RemoveAll(folder))
	}
	s.entry = e
	e.work.Go(func() { e.serve(s.bus) })
	return nil
}

func (e *operatorsEntry) serve(server *bus.Server) {
	for {
		outside, err := e.listener.Accept()
		if err != nil {
			return // closed
		}
		inside, err := server.InProcessConn()
		if err != nil {
			outside.Close()
			continue
		}
		for _, pair := range [][2]net.Conn{{outside, inside}, {inside, outside}} {
			if !e.keep(pair[0]) {
				pair[0].Close()
			}
			e.work.Go(func() {
				io.Copy(pair[0], pair[1])
				pair[0].Close()
				pair[1].Close()
				e.forget(pair[0])
			})
		}
	}
}

func (e *operatorsEntry) keep(c net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open == nil {
		return false
	}
	e.open[c] = true
	return true
}

func (e *operatorsEntry) forget(c net.Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.open, c)
}

// Close ends every connection through the entry.
func (e *operatorsEntry) Close() error {
	err := e.listener.Close()
	e.mu.Lock()
	open := e.open
	e.open = nil
	for c := range open {
		c.Close()
	}
	e.mu.Unlock()
	e.work.Wait()
	return errors.Join(err, e.clean())
}

// socket dials a socket of this machine.
type socket string

// InProcessConn implements nats.InProcessConnProvider.
func (s socket) InProcessConn() (net.Conn, error) { return net.Dial("unix", string(s)) }

// OpenBus connects the operator to the bus of a data folder: to that of the process which runs on it or, where none does,
// to one that is started for as long. done has to be called.
func OpenBus(ctx context.Context, data string) (client *ledger.Client, done func(), err error) {
	cfg := Config{Data: data}
	if _, err := os.Stat(cfg.busStore()); err != nil {
		return nil, nil, fmt.Errorf("%s is no data folder of `towpath up`: %w", data, err)
	}
	release, err := lock(data, cfg.lockFile())
	var used *InUseError
	options := ledger.Options{Service: string(events.Operator), Keys: cfg.keys()}
	switch {
	case errors.As(err, &used):
		path, err := os.ReadFile(cfg.socketFile())
		if err != nil {
			return nil, nil, fmt.Errorf("reaching the bus of %s: %w (is it still starting, or of an older version?)", data, err)
		}
		options.InProcess = socket(string(path[:max(0, len(path)-1)]))
		release = func() {}
	case err != nil:
		return nil, nil, err
	default:
		server, err := bus.Start(bus.Config{StoreDir: cfg.busStore(), Keys: cfg.keys()})
		if err != nil {
			release()
			return nil, nil, err
		}
		unlock := release
		release = func() { server.Shutdown(); unlock() }
		options.InProcess = server
	}
	if client, err = ledger.Connect(ctx, options); err != nil {
		release()
		return nil, nil, err
	}
	return client, func() { client.Close(); release() }, nil
}
