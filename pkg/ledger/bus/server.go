package bus

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Server is a nats-server in this process. It serves as nats.InProcessConnProvider.
type Server struct {
	server *server.Server
	cfg    Config

	mu   sync.Mutex
	text []byte // the configuration that it runs with
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
	options, err := options(cfg, text.Bytes())
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
	return &Server{server: s, cfg: cfg, text: text.Bytes()}, nil
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
			err = s.server.ReloadOptions(o)
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

// KeepUp reloads the server when its keys folder changes, until ctx ends. What cannot be read leaves everything as it
// was, and is said once.
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

// InProcessConn implements nats.InProcessConnProvider.
func (s *Server) InProcessConn() (net.Conn, error) { return s.server.InProcessConn() }

// URL returns the address for clients, or "" without a listener.
func (s *Server) URL() string {
	if s.server.Addr() == nil {
		return ""
	}
	return "nats://" + s.server.Addr().String()
}

// Shutdown closes all connections and returns once the streams are on disk.
func (s *Server) Shutdown() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}

// serverLog hands the server's lines to slog, and keeps why it could not start. What the server calls a
// notice is of interest only in detail.
type serverLog struct {
	logger *slog.Logger
	mu     sync.Mutex
	why    string
}

func (l *serverLog) Noticef(format string, v ...any) {
	l.logger.Debug("bus: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Warnf(format string, v ...any) {
	l.logger.Warn("bus: " + fmt.Sprintf(format, v...))
}
func (l *serverLog) Errorf(format string, v ...any) {
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
