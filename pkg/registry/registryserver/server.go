// Package registryserver runs a CNCF distribution registry inside this process, on a folder of the local
// disk.
//
// It guarantees what distribution's filesystem driver does: what was acknowledged has been synced and is
// there after a restart. Nothing can be deleted through it. It asks for no credentials and speaks plain
// HTTP, so it belongs on a loopback address, or on a network where everybody may push.
package registryserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/sirupsen/logrus"
)

// Config says where the registry keeps its images and where it listens.
type Config struct {
	Dir    string       // made with mode 0700 when absent
	Listen string       // host:port; port 0 picks a free one
	Logger *slog.Logger // gets distribution's warnings and errors; nil: nobody does
}

// Server is a running registry.
type Server struct {
	app     *handlers.App
	http    *http.Server
	addr    string
	served  chan error
	closing sync.Once
	err     error // of closing
}

// Start opens the folder, listens, and serves until Close.
func Start(c Config) (*Server, error) {
	app, err := open(c)
	if err != nil {
		return nil, fmt.Errorf("starting the registry on %s: %w", c.Dir, err)
	}
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the registry on %s: %w", c.Dir, err), app.Shutdown())
	}
	s := &Server{
		app:    app,
		http:   &http.Server{Handler: app, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute},
		addr:   listener.Addr().String(),
		served: make(chan error, 1),
	}
	go func() { s.served <- s.http.Serve(listener) }()
	return s, nil
}

// Addr is the host:port that it listens on: the first part of its repositories' names.
func (s *Server) Addr() string { return s.addr }

// Close stops taking requests, waits for those in flight until ctx ends, and closes the folder. Only the
// first call does anything.
func (s *Server) Close(ctx context.Context) error {
	s.closing.Do(func() {
		if s.err = s.http.Shutdown(ctx); s.err != nil {
			s.err = errors.Join(s.err, s.http.Close())
		}
		if err := <-s.served; !errors.Is(err, http.ErrServerClosed) {
			s.err = errors.Join(s.err, err)
		}
		s.err = errors.Join(s.err, s.app.Shutdown())
	})
	return s.err
}

// open makes distribution's handler. NewApp panics on a bad configuration, which here could only be the
// folder; that is checked first.
func open(c Config) (*handlers.App, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	quiet(c.Logger)
	configured := &configuration.Configuration{Storage: configuration.Storage{
		"filesystem": {"rootdirectory": c.Dir},
		"cache":      {"blobdescriptor": "inmemory"},
	}}
	configured.HTTP.Secret = rand.Text() // signs the state of uploads; one that a restart breaks off begins again
	configured.Log.AccessLog.Disabled = true
	configured.Catalog.MaxEntries = 1000
	return handlers.NewApp(context.Background(), configured), nil
}

// quiet sends what distribution logs to logger. Distribution finds its logger in a place that only its
// own packages reach, and falls back on logrus's standard one, so that is the one to turn.
func quiet(logger *slog.Logger) {
	standard := logrus.StandardLogger()
	standard.SetOutput(io.Discard)
	hooks := logrus.LevelHooks{}
	if logger != nil {
		hooks.Add(forward{logger})
	}
	standard.ReplaceHooks(hooks)
}

// forward is a logrus hook that writes to a slog.Logger.
type forward struct{ logger *slog.Logger }

func (forward) Levels() []logrus.Level {
	return []logrus.Level{logrus.WarnLevel, logrus.ErrorLevel, logrus.FatalLevel, logrus.PanicLevel}
}

// Fire writes one entry. What clients do wrong (asking for a manifest that is not there, above all) is
// an error to distribution; here the client says so, and the server's log keeps to the server's trouble.
func (f forward) Fire(e *logrus.Entry) error {
	level := slog.LevelWarn
	if _, request := e.Data["http.request.id"]; request {
		level = slog.LevelDebug
		if status, ok := e.Data["http.response.status"].(int); ok && status >= 500 {
			level = slog.LevelWarn
		}
	}
	f.logger.Log(context.Background(), level, "registry: "+e.Message, "detail", fmt.Sprint(e.Data["err.detail"]))
	return nil
}
