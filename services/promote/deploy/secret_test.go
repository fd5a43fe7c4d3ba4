package deploy

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"towpath.dev/pkg/engine/enginetest"
	"towpath.dev/pkg/settings"
)

// ask sends a GET to an engine's API as it is.
func ask(t *testing.T, socket, path string) []byte {
	t.Helper()
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	response, err := client.Get("http://engine/v1.41" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v: %s", path, response.Status, err, data)
	}
	return data
}

// everything is all that an engine tells of what it has and what happened on it.
func everything(t *testing.T, socket string) string {
	t.Helper()
	var all strings.Builder
	for _, list := range []struct{ path, each string }{{"/containers/json?all=1", "/containers/"}, {"/images/json?all=1", "/images/"}} {
		data := ask(t, socket, list.path)
		all.Write(data)
		var items []struct{ ID string }
		if err := json.Unmarshal(data, &items); err != nil || len(items) == 0 {
			t.Fatalf("%s: %v: %s", list.path, err, data)
		}
		for _, item := range items {
			all.Write(ask(t, socket, list.each+item.ID+"/json"))
		}
	}
	for _, path := range []string{"/volumes", "/networks", "/info", fmt.Sprintf("/events?since=1&until=%d", time.Now().Unix())} {
		all.Write(ask(t, socket, path))
	}
	return all.String()
}

// Secrets are seen by the app and its release command, and by nobody else: neither in what the engine
// tells nor on its disk, whether they come from this machine's memory or from a volume in the engine's.
func TestSecretsAreInMemoryOnly(t *testing.T) {
	t.Parallel()
	d := enginetest.StartDockerd(t)
	socket := strings.TrimPrefix(d.Host.URL, "unix://")
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			b := onEngineBy(t, d.Engine, way)
			canary := "canary-" + way + "-0d1f6a"
			s := b.spec(1, enginetest.App{Args: []string{"serve"}, User: "1000:1000"})
			s.Secrets = map[string]settings.Secret{"TOKEN": settings.NewSecret(canary), "EMPTY": {}}
			s.Files = map[string]settings.Secret{"consul-token": settings.NewSecret(canary + "2")}
			s.Env = map[string]string{"CONSUL_HTTP_TOKEN_FILE": "/run/secrets/consul-token"}
			s.Replicas = 2
			s.Release = []string{enginetest.Program, "once"}
			instances := b.prepare(s)
			if _, err := b.Release(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			for _, i := range instances {
				if text := b.get(i.Address, "/secrets/TOKEN"); text != canary {
					t.Errorf("the app reads %q", text)
				}
				if text := b.get(i.Address, "/secrets/consul-token"); text != canary+"2" {
					t.Errorf("the app reads %q from the file beside its secrets", text)
				}
				env := b.get(i.Address, "/env")
				for _, want := range []string{"TOKEN_FILE=/run/secrets/TOKEN\n", "CONSUL_HTTP_TOKEN_FILE=/run/secrets/consul-token\n"} {
					if !strings.Contains(env, want) {
						t.Errorf("the app is not told where they are, %q:\n%s", want, env)
					}
				}
				if strings.Contains(env, "consul-token_FILE") {
					t.Errorf("a file beside the secrets has a variable:\n%s", env)
				}
			}
			told := everything(t, socket)
			for _, form := range []string{canary, base64.StdEncoding.EncodeToString([]byte(canary))} {
				if strings.Contains(told, form) {
					t.Errorf("the engine tells the secret")
				}
			}
			if found := grepDisk(t, d.Data(), canary); len(found) > 0 {
				t.Errorf("on disk: %v", found)
			}
			if err := b.Retire(t.Context(), hello, 1); err != nil {
				t.Fatal(err)
			}
			if found := grep(t, d.Data(), canary); len(found) > 0 {
				t.Errorf("left: %v", found)
			}
		})
	}
}

// grepDisk is grep without what is in memory.
func grepDisk(t *testing.T, folder, text string) (found []string) {
	t.Helper()
	for _, file := range grep(t, folder, text) {
		if !inMemory(file) {
			found = append(found, file)
		}
	}
	return found
}

func TestSecretsAreNotWrittenToADisk(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.memory = t.TempDir()
	if inMemory(b.memory) {
		b.memory = "/var/tmp/towpath-" + b.cfg.Install
	}
	s := b.spec(1, serving())
	s.Secrets = map[string]settings.Secret{"TOKEN": settings.NewSecret("canary-on-disk")}
	if _, err := b.Prepare(t.Context(), s); err == nil || !strings.Contains(err.Error(), "not in memory") {
		t.Errorf("%v", err)
	}
	if found := grep(t, b.memory, "canary-on-disk"); len(found) > 0 {
		t.Errorf("written to %v", found)
	}
}

func TestKeeperPrograms(t *testing.T) {
	for architecture := range keeperCode {
		program, ok := keeperProgram(architecture)
		if !ok || len(program) < 120 || string(program[1:4]) != "ELF" {
			t.Errorf("%s: %x", architecture, program)
		}
	}
	if _, ok := keeperProgram("mips"); ok {
		t.Error("there is no program for it")
	}
}
