package deployments

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"towpath.dev/e2e/system"
	"towpath.dev/events"
	"towpath.dev/pkg/freeport"
	"towpath.dev/pkg/pause"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/settings/consul"
	"towpath.dev/pkg/settings/vault"
)

// store is a service of stores.yaml.
type store struct {
	Image       string            `yaml:"image"`
	NetworkMode string            `yaml:"network_mode"`
	User        string            `yaml:"user"`
	Entrypoint  []string          `yaml:"entrypoint"`
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	Volumes     []string          `yaml:"volumes"`
	Healthcheck struct {
		Test []string `yaml:"test"`
	} `yaml:"healthcheck"`
}

// stores are the services of stores.yaml, and the names of its volumes.
func stores(t *testing.T) (services map[string]store, volumes map[string]any) {
	t.Helper()
	var file struct {
		Services map[string]store `yaml:"services"`
		Volumes  map[string]any   `yaml:"volumes"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "compose/stores.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	return file.Services, file.Volumes
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// blocks returns what stands in the README's fences of one language.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	var found []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(read(t, "README.md"), -1) {
		found = append(found, m[1])
	}
	return found
}

// The images are of the versions that tests run against, keep what they have, and begin closed.
func TestStores(t *testing.T) {
	services, volumes := stores(t)
	if len(services) != 2 {
		t.Fatalf("there are %d services", len(services))
	}
	for name, s := range services {
		pinned := regexp.MustCompile(`(?m)^\s*github\.com/hashicorp/` + name + ` v(\S+)`).FindStringSubmatch(read(t, "servers/"+name+"/go.mod"))
		if pinned == nil || s.Image != "hashicorp/"+name+":"+pinned[1] {
			t.Errorf("%s runs %s, and tests run %q", name, s.Image, pinned)
		}
		if s.NetworkMode != "host" || s.User != name || len(s.Healthcheck.Test) < 2 || s.Healthcheck.Test[0] != "CMD" {
			t.Errorf("%s: %+v", name, s)
		}
		kept := false
		for _, v := range s.Volumes {
			source, target, _ := strings.Cut(v, ":")
			if _, named := volumes[source]; named {
				kept = strings.Contains(read(t, "compose/stores/"+name+".hcl"), `= "`+target+`"`)
			}
		}
		if !kept {
			t.Errorf("%s keeps its data in none of the volumes %v", name, s.Volumes)
		}
		if args := slices.Concat(s.Entrypoint, s.Command); slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "-dev") }) {
			t.Errorf("%s is a development server: %q", name, args)
		}
	}
}

// machine is where a test follows the README: addresses and folders of its own stand for those of the files.
type machine struct {
	t       *testing.T
	folder  string
	env     []string
	replace *strings.Replacer
}

// The README's commands, run as they stand but for addresses and folders, open servers that run with the shipped
// configuration and arguments, and let the gateway and promote in, who replace their secret ids; what is kept outlives a
// restart.
func TestStoresAreOpenedAsTheReadmeSays(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	m := newMachine(ctx, t)
	services, _ := stores(t)
	m.run(ctx, "consul validate "+filepath.Join(absolute(t), "compose/stores/consul.hcl"))
	kill := map[string]func(){}
	for name, s := range services {
		kill[name] = m.start(name, s)
	}
	m.healthy(ctx, services["consul"], 0)
	m.healthy(ctx, services["vault"], 2) // closed
	var made struct {
		Keys []string `json:"unseal_keys_b64"`
		Root string   `json:"root_token"`
	}
	if err := json.Unmarshal(m.run(ctx, "vault operator init -format=json"), &made); err != nil || len(made.Keys) != 5 {
		t.Fatalf("%d keys (%v)", len(made.Keys), err)
	}
	unseal := func() {
		for _, key := range made.Keys[:3] {
			m.run(ctx, "vault write sys/unseal key=-", key)
		}
		m.healthy(ctx, services["vault"], 0)
	}
	unseal()
	m.run(ctx, "vault login -", made.Root)
	platform := blocks(t, "yaml")
	if len(platform) != 1 {
		t.Fatalf("the README shows %d platform files", len(platform))
	}
	m.write("platform.yaml", m.replace.Replace(platform[0]))
	commands := blocks(t, "bash")
	if len(commands) != 3 {
		t.Fatalf("the README has %d blocks of commands", len(commands))
	}
	for _, block := range commands {
		m.run(ctx, m.replace.Replace(block))
	}
	if out, err := m.command(ctx, "CONSUL_HTTP_TOKEN_FILE= consul kv get config/prod/hello/GREETING").CombinedOutput(); err == nil || !strings.Contains(string(out), "lacks permission") {
		t.Errorf("a stranger is told %s (%v)", out, err)
	}
	if nodes := m.run(ctx, "consul catalog nodes"); !bytes.Contains(nodes, []byte("towpath")) {
		t.Errorf("the agent is not in its catalog: %s", nodes)
	}

	parsed, err := policy.Load(filepath.Join(m.folder, "platform.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	where := parsed.Stores("prod")
	at := func(kind settings.Kind, key string) settings.Place {
		return settings.Place{Kind: kind, Env: "prod", App: "hello", Key: key}
	}
	config, secret := at(settings.Config, "GREETING"), at(settings.Secrets, "PASSWORD")
	file := filepath.Join(m.folder, "logins", string(events.Promote), "prod.vault-secret-id")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	gateway, promote := open(t, where, events.Gateway), open(t, where, events.Promote)
	for p, value := range map[settings.Place]string{config: "hello", secret: "correct horse"} {
		m.eventually(ctx, func() error { _, err := gateway[p.Kind].Set(ctx, p, value, nil); return err })
	}
	readable := func() {
		t.Helper()
		for p, want := range map[settings.Place]string{config: "hello", secret: "correct horse"} {
			m.eventually(ctx, func() error {
				got, _, err := promote[p.Kind].Get(ctx, p)
				if err == nil && got != want {
					t.Fatalf("promote reads %q at %s", got, p)
				}
				return err
			})
		}
	}
	readable()
	if after, err := os.ReadFile(file); err != nil || bytes.Equal(before, after) || bytes.Count(after, []byte("\n")) != 2 {
		t.Errorf("promote has logged in, and its secret ids are %d bytes, as before: %v (%v)", len(after), bytes.Equal(before, after), err)
	}

	for name, s := range services {
		kill[name]()
		m.start(name, s)
	}
	m.healthy(ctx, services["consul"], 0)
	m.healthy(ctx, services["vault"], 2)
	unseal()
	readable()
}

// open returns what a service asks, by what is kept there.
func open(t *testing.T, where policy.Stores, service events.Writer) map[settings.Kind]settings.Provider {
	t.Helper()
	c, err := consul.New(*where.Consul, "prod", string(service))
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.New(*where.Vault, "prod", string(service), slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	return map[settings.Kind]settings.Provider{settings.Config: c, settings.Secrets: v}
}

func absolute(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(folder)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func newMachine(ctx context.Context, t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, folder: t.TempDir()}
	servers, err := exec.CommandContext(ctx, filepath.Join(folder, "servers/build.sh"), "consul", "vault").Output()
	if err != nil {
		t.Fatalf("building Consul and Vault: %v", err)
	}
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", m.folder+"/", filepath.Join(system.Root(), "services/towpath/cmd/towpath")).CombinedOutput(); err != nil {
		t.Fatalf("building towpath: %v: %s", err, out)
	}
	pairs := []string{
		"/var/lib/towpath", filepath.Join(m.folder, "logins"), "/root", m.folder, "deployments/compose/platform.yaml", filepath.Join(m.folder, "platform.yaml"),
		"/consul/data", filepath.Join(m.folder, "data/consul"), "/vault/file", filepath.Join(m.folder, "data/vault"),
	}
	for _, name := range []string{"consul", "vault"} {
		pairs = append(pairs, "/"+name+"/config", filepath.Join(m.folder, "config"))
		if err := errors.Join(os.MkdirAll(filepath.Join(m.folder, "data", name), 0o700), os.MkdirAll(filepath.Join(m.folder, "config"), 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	for _, port := range []string{"8500", "8300", "8301", "8200", "8201"} {
		pairs = append(pairs, port, freePort(t))
	}
	m.replace = strings.NewReplacer(pairs...)
	m.env = []string{
		"PATH=" + strings.Join([]string{m.folder, strings.TrimSpace(string(servers)), os.Getenv("PATH")}, ":"), "HOME=" + m.folder,
		m.replace.Replace("CONSUL_HTTP_ADDR=http://127.0.0.1:8500"), m.replace.Replace("VAULT_ADDR=http://127.0.0.1:8200"),
		"CONSUL_HTTP_TOKEN_FILE=" + filepath.Join(m.folder, "consul-management.token"),
	}
	m.write("consul-management.token", "")
	return m
}

func freePort(t *testing.T) string {
	t.Helper()
	port, err := freeport.Port()
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(port)
}

func (m *machine) write(name, text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.folder, name), []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) command(ctx context.Context, script string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Env = m.env
	return cmd
}

// run runs a script with lines for its standard input, and returns what it says.
func (m *machine) run(ctx context.Context, script string, lines ...string) []byte {
	m.t.Helper()
	cmd := m.command(ctx, script)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n"))
	var faults bytes.Buffer
	cmd.Stderr = &faults
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("%s\n%v: %s%s", script, err, out, &faults)
	}
	return out
}

// start runs a service of stores.yaml, with its configuration and arguments, until kill or the test's end.
func (m *machine) start(name string, s store) (kill func()) {
	m.t.Helper()
	m.write(filepath.Join("config", name+".hcl"), m.replace.Replace(read(m.t, "compose/stores/"+name+".hcl")))
	args := slices.Concat(s.Entrypoint, s.Command)
	for i := range args {
		args[i] = m.replace.Replace(args[i])
	}
	log, err := os.OpenFile(filepath.Join(m.folder, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	cmd := m.command(context.Background(), `exec "$@"`)
	cmd.Args = append(append(cmd.Args, "bash"), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan struct{})
	// The kernel kills a child with the thread that started it, so that thread waits for it.
	go func() {
		defer close(ended)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		m.t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill()
		<-ended
	}
	m.t.Cleanup(func() {
		kill()
		if m.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			m.t.Logf("%s said:\n%s", name, text)
		}
	})
	return kill
}

// healthy waits until a service's health check ends with a code.
func (m *machine) healthy(ctx context.Context, s store, code int) {
	m.t.Helper()
	check := m.replace.Replace(strings.Join(s.Healthcheck.Test[1:], " "))
	m.eventually(ctx, func() error {
		out, err := m.command(ctx, check).CombinedOutput()
		exit := 0
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			exit = failed.ExitCode()
		} else if err != nil {
			return err
		}
		if exit != code {
			return fmt.Errorf("%s ends with %d instead of %d: %s", check, exit, code, out)
		}
		return nil
	})
}

func (m *machine) eventually(ctx context.Context, is func() error) {
	m.t.Helper()
	for {
		err := is()
		if err == nil {
			return
		}
		if pause.For(ctx, 200*time.Millisecond) != nil {
			m.t.Fatal(err)
		}
	}
}
