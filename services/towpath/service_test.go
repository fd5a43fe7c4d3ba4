package towpath_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath"
	"towpath.dev/services/towpath/client"
)

// running is a Towpath in this process.
type running struct {
	place towpath.Place
	stop  context.CancelFunc
	ended chan error
}

func config(data string) towpath.Config {
	return towpath.Config{Data: data, Listen: "127.0.0.1:0", EdgeListen: "127.0.0.1:0", RegistryListen: "127.0.0.1:0"}
}

// start returns once everything answers.
func start(t *testing.T, data string) *running {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ready := make(chan towpath.Place, 1)
	s, err := towpath.New(config(data), towpath.Deps{Logger: slog.New(slog.DiscardHandler), Ready: func(p towpath.Place) { ready <- p }})
	if err != nil {
		t.Fatal(err)
	}
	r := &running{stop: stop, ended: make(chan error, 1)}
	go func() { r.ended <- s.Run(ctx) }()
	t.Cleanup(stop)
	select {
	case r.place = <-ready:
	case err := <-r.ended:
		t.Fatalf("it ended: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("not ready after a minute")
	}
	return r
}

func (r *running) end(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.ended; err != nil {
		t.Errorf("draining: %v", err)
	}
}

func TestUpKeepsItsStateAndItsPlace(t *testing.T) {
	t.Setenv("TOWPATH_URL", "")
	t.Setenv("TOWPATH_TOKEN", "")
	data := filepath.Join(t.TempDir(), "data")
	first := start(t, data)
	api, err := client.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	if api.URL() != first.place.URL || len(first.place.Install) != 8 || !strings.HasPrefix(first.place.Runs, first.place.URL) {
		t.Errorf("place %+v, client at %s", first.place, api.URL())
	}
	if _, err := api.AddApp(t.Context(), view.App{App: "hello"}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.SetSetting(t.Context(), client.Config, "dev", "hello", "GREETING", "hi"); err != nil {
		t.Fatal(err)
	}
	second, err := towpath.New(config(data), towpath.Deps{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var used *towpath.InUseError
	if err := second.Run(t.Context()); !errors.As(err, &used) || used.PID != os.Getpid() {
		t.Errorf("a second one on the same folder: %v", err)
	}
	for _, name := range []string{"token", "url", "place.json", "platform.yaml", "keys/settings.key"} {
		info, err := os.Stat(filepath.Join(data, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, mode %v", name, err, info.Mode())
		}
	}
	first.end(t)

	again := start(t, data)
	if again.place.URL != first.place.URL || again.place.Registry != first.place.Registry || again.place.Install != first.place.Install {
		t.Errorf("it moved from %+v to %+v", first.place, again.place)
	}
	list, err := api.Settings(t.Context(), client.Config, "dev", "hello")
	if err != nil || len(list) != 1 || list[0].Value == nil || *list[0].Value != "hi" {
		t.Errorf("settings after a restart: %+v, %v", list, err)
	}
	checks, err := api.Doctor(t.Context())
	if err != nil || len(checks) == 0 {
		t.Fatalf("doctor: %v", err)
	}
	for _, c := range checks {
		if c.Status == "broken" {
			t.Errorf("doctor: %+v", c)
		}
	}
	again.end(t)
}

func TestUpNamesABadPlatformFile(t *testing.T) {
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "platform.yaml"), []byte("engines:\n  builds: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := towpath.New(config(data), towpath.Deps{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "platform.yaml:2") || !strings.Contains(err.Error(), "builds") {
		t.Errorf("got %v", err)
	}
}

func TestUpEndsWhereItIsToldToWhileStarting(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	s, err := towpath.New(config(filepath.Join(t.TempDir(), "data")), towpath.Deps{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(ctx); err != nil {
		t.Errorf("got %v", err)
	}
}
