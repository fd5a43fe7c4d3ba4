package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Server is a nats-server in this process. It serves as nats.InProcessConnProvider.
type Server struct {
	running atomic.Pointer[running]

	mu   sync.Mutex // of what changes the server
	cfg  Config
	text []byte // the configuration that it runs with
}

// running is the server between two starts, and what it said.
type running struct {
	*server.Server
	log *serverLog
}

// startTimeout bounds the recovery of the streams from disk.
const startTimeout = 2 * time.Minute

// Start runs a server in this process and returns once it takes connections. Its configuration is the
// text that WriteConfig writes, kept as nats.conf beside the streams.
func Start(cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	var text bytes.Buffer
	if err := WriteConfig(&text, cfg); err != nil {
		return nil, err
	}
	r, err := launch(cfg, text.Bytes())
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, text: text.Bytes()}
	s.running.Store(r)
	return s, nil
}

// launch starts a server with a configuration and waits until it takes connections.
func launch(cfg Config, text []byte) (*running, error) {
	options, err := options(cfg, text)
	if err != nil {
		return nil, fmt.Errorf("starting the bus: %w", err)
	}
	s, err := server.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("starting the bus: %w", err)
	}
	log := &serverLog{logger: cfg.Logger}
	s.SetLoggerV2(log, false, false, false)
	s.Start()
	why := log.fatal()
	if why == "" && !s.ReadyForConnections(startTimeout) {
		why = fmt.Sprintf("it took no connections within %s", startTimeout)
	}
	if why != "" {
		s.Shutdown()
		return nil, fmt.Errorf("starting the bus on %q with its streams in %s: %s", cfg.Listen, cfg.StoreDir, why)
	}
	return &running{s, log}, nil
}

// options keeps a configuration as nats.conf and reads it as the server does.
func options(cfg Config, text []byte) (*server.Options, error) {
	if err := os.MkdirAll(cfg.StoreDir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(cfg.StoreDir, "nats.conf")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, err
	}
	o, err := server.ProcessConfigFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	o.NoSigs = true
	o.DontListen = cfg.Listen == ""
	if _, port, _ := net.SplitHostPort(cfg.Listen); port == "0" {
		o.Port = server.RANDOM_PORT
	}
	return o, nil
}

// Reload gives every identity the key that the keys folder has for it now, bots included, and reports whether anything
// changed. Connections of identities whose key is the same stay.
func (s *Server) Reload() (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var text bytes.Buffer
	if err := WriteConfig(&text, s.cfg); err != nil {
		return false, err
	}
	if bytes.Equal(text.Bytes(), s.text) {
		return false, nil
	}
	// The server makes a new account's imports work only when it meets the account for the second time.
	for range 2 {
		o, err := options(s.cfg, text.Bytes())
		if err == nil {
			err = s.running.Load().ReloadOptions(o)
		}
		if err != nil {
			return false, fmt.Errorf("changing the bus's configuration: %w", err)
		}
	}
	s.text = text.Bytes()
	return true, nil
}

// lookEvery is how often KeepUp looks at the keys folder.
const lookEvery = time.Second

// KeepUp reloads the server when its keys folder changes, and starts it anew once there is room on a disk that was full,
// until ctx ends. What cannot be read leaves everything as it was, and is said once.
func (s *Server) KeepUp(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := s.mend(); err != nil {
			s.cfg.Logger.Error("the bus could not be started anew, and is tried again", "err", err)
			continue
		}
		changed, err := s.Reload()
		switch {
		case err != nil && err.Error() != said:
			said = err.Error()
			s.cfg.Logger.Error("the bus keeps the keys that it has", "err", err)
		case err == nil && changed:
			s.cfg.Logger.Info("the bus has taken changed keys up")
			fallthrough
		case err == nil:
			said = ""
		}
	}
}

// mend starts the server anew where the disk has refused one of its streams a write: such a stream takes nothing more
// until then, also when there is room again. Connections break and come back; nothing that was acknowledged is lost.
func (s *Server) mend() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	broken := s.running.Load()
	if !broken.log.refused.Load() || room(s.cfg.StoreDir) != nil {
		return nil
	}
	if address := broken.Addr(); address != nil {
		s.cfg.Listen = address.String() // a port that was chosen stays
	}
	var text bytes.Buffer
	if err := WriteConfig(&text, s.cfg); err != nil {
		return err
	}
	broken.Shutdown()
	broken.WaitForShutdown()
	r, err := launch(s.cfg, text.Bytes())
	if err != nil {
		return err
	}
	s.text = text.Bytes()
	s.running.Store(r)
	s.cfg.Logger.Warn("the bus was started anew: the disk had refused a write, and takes them again", "store", s.cfg.StoreDir)
	return nil
}

// roomNeeded is what a disk must take before it counts as having room, in bytes: a block of a stream.
const roomNeeded = 8 << 20

// room says why a folder's disk does not take a block.
func room(folder string) error {
	f, err := os.CreateTemp(folder, ".room-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(make([]byte, roomNeeded))
	return errors.Join(err, f.Sync(), f.Close())
}

// InProcessConn implements nats.InProcessConnProvider.
func (s *Server) InProcessConn() (net.Conn, error) { return s.running.Load().InProcessConn() }

// URL returns the address for clients, or "" without a listener.
func (s *Server) URL() string {
	address := s.running.Load().Addr()
	if address == nil {
		return ""
	}
	return "nats://" + address.String()
}

// Shutdown closes all connections and returns once the streams are on disk.
func (s *Server) Shutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.running.Load()
	r.Shutdown()
	r.WaitForShutdown()
}

// serverLog hands the server's lines to slog, and keeps why it could not start. What the server calls a
// notice is of interest only in detail.
type serverLog struct {
	logger  *slog.Logger
	refused atomic.Bool // the disk refused a stream a write
	mu      sync.Mutex
	why     string
}

func (l *serverLog) Noticef(format string, v ...any) {
	l.logger.Debug("bus: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Warnf(format string, v ...any) {
	l.logger.Warn("bus: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Errorf(format string, v ...any) {
	if strings.Contains(format, "ritical write error") { // which the server tells nobody in another way
		l.refused.Store(true)
	}
	l.logger.Error("bus: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Debugf(string, ...any) {}
func (l *serverLog) Tracef(string, ...any) {}

// Fatalf is the server's way to say that it gives up.
func (l *serverLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why == "" {
		l.why = fmt.Sprintf(format, v...)
	}
}

func (l *serverLog) fatal() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}
