package bus_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger/bus"
)

func config(t *testing.T) bus.Config {
	t.Helper()
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	if err := identity.Init(keys); err != nil {
		t.Fatal(err)
	}
	return bus.Config{
		StoreDir: filepath.Join(dir, "nats"), Keys: keys, Listen: "127.0.0.1:0",
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func TestConfigurationIsWhatAServerElsewhereReads(t *testing.T) {
	cfg := config(t)
	cfg.Listen = "127.0.0.1:4222"
	var text, again bytes.Buffer
	if err := bus.WriteConfig(&text, cfg); err != nil {
		t.Fatal(err)
	}
	if err := bus.WriteConfig(&again, cfg); err != nil || text.String() != again.String() {
		t.Errorf("written twice it differs: %v", err)
	}
	path := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !o.JetStream || !o.SyncAlways || o.StoreDir != cfg.StoreDir || o.Port != 4222 || o.Host != "127.0.0.1" {
		t.Errorf("read as JetStream %v, sync always %v, %s, %s:%d", o.JetStream, o.SyncAlways, o.StoreDir, o.Host, o.Port)
	}
	if len(o.Accounts) != 9 || len(o.Nkeys) != len(identity.IDs) || o.NoAuthUser != "" || len(o.Users) != 0 {
		t.Errorf("%d accounts, %d keys, no-auth user %q, %d users", len(o.Accounts), len(o.Nkeys), o.NoAuthUser, len(o.Users))
	}
	if seed := regexp.MustCompile(`\bS[UANOC][A-Z2-7]{20,}`).FindString(text.String()); seed != "" {
		t.Error("the configuration holds a private key")
	}
}

// TestOnlyTheDoorMayPublishEvents reads the configuration as a reviewer would.
func TestOnlyTheDoorMayPublishEvents(t *testing.T) {
	var text bytes.Buffer
	if err := bus.WriteConfig(&text, config(t)); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text.String()) {
		if strings.Contains(line, "stream: \"") {
			continue // listening
		}
		if strings.Contains(line, `"event.`) && !strings.Contains(line, "nkey:") {
			t.Errorf("events can be published through %s", line)
		}
		for _, verb := range []string{"STREAM.DELETE", "STREAM.PURGE", "STREAM.MSG.DELETE", "CONSUMER.DELETE"} {
			if strings.Contains(line, verb) {
				t.Errorf("%s is granted in %s", verb, line)
			}
		}
		if strings.Contains(line, "CONSUMER.CREATE") && !strings.Contains(line, "STREAM.CREATE") {
			t.Errorf("a service may make consumers through %s", line)
		}
	}
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	good := config(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*bus.Config)
		why    string
	}{
		"no store":        {func(c *bus.Config) { c.StoreDir = "" }, "store folder is missing"},
		"no keys":         {func(c *bus.Config) { c.Keys = "" }, "keys folder is missing"},
		"empty keys":      {func(c *bus.Config) { c.Keys = t.TempDir() }, "gateway.nk"},
		"bad address":     {func(c *bus.Config) { c.Listen = "here" }, `listen address "here"`},
		"bad port":        {func(c *bus.Config) { c.Listen = "127.0.0.1:http" }, "0–65535"},
		"bad epoch":       {func(c *bus.Config) { c.Epoch = -1 }, "below 1"},
		"store is a file": {func(c *bus.Config) { c.StoreDir = file }, "starting the bus"},
		"address in use":  {func(c *bus.Config) { c.Listen = taken.Addr().String() }, "in use"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			c.change(&cfg)
			s, err := bus.Start(cfg)
			if err == nil {
				s.Shutdown()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), c.why) {
				t.Errorf("%v, expected something with %q", err, c.why)
			}
		})
	}
}

func TestWithoutAListenerTheServerIsInProcessOnly(t *testing.T) {
	cfg := config(t)
	cfg.Listen = ""
	s, err := bus.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	if s.URL() != "" {
		t.Errorf("listens on %s", s.URL())
	}
	key, err := identity.LoadBusKey(cfg.Keys, string(events.Edge))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect("", nats.InProcessServer(s), nats.Nkey(key.Public, key.Sign))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
