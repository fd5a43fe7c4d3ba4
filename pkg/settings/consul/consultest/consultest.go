// Package consultest runs the real Consul for tests.
package consultest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"towpath.dev/pkg/freeport"
)

// Master is the token that may do everything on an agent with ACLs.
const Master = "6d9d0f5c-2d2a-4a57-8b8d-0a1f6d0c4e11"

// startBound is how long an agent may take until it has a leader.
const startBound = 60 * time.Second

var program = sync.OnceValues(func() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	build := exec.Command(filepath.Join(filepath.Dir(here), "../../../../deployments/servers/build.sh"), "consul")
	var said bytes.Buffer
	build.Stderr = &said
	folder, err := build.Output()
	if err != nil {
		return "", fmt.Errorf("building Consul: %w\n%s", err, &said)
	}
	return filepath.Join(strings.TrimSpace(string(folder)), "consul"), nil
})

// Agent is a Consul server of its own, or one of a cluster.
type Agent struct {
	URL    string // of its HTTP API
	API    *api.Client
	t      testing.TB
	folder string
	ports  ports
	config map[string]any
	args   []string
	cmd    *exec.Cmd
	said   *os.File
}

type ports struct{ http, serf, wan, rpc int }

// Start starts a server that listens on this machine's loopback, and on more addresses where given.
func Start(t testing.TB, more ...string) *Agent {
	t.Helper()
	a := prepare(t, more...)
	a.args = []string{"-bootstrap"}
	a.Start()
	a.AwaitLeader()
	return a
}

// StartWithACLs starts a server that refuses what no token allows. Master may do all.
func StartWithACLs(t testing.TB, more ...string) *Agent {
	t.Helper()
	a := prepare(t, more...)
	a.args = []string{"-bootstrap"}
	a.refuse()
	a.Start()
	a.AwaitLeader()
	return a
}

// refuse has the agent refuse what no token allows.
func (a *Agent) refuse() {
	a.config["acl"] = map[string]any{
		"enabled": true, "default_policy": "deny", "enable_token_persistence": true,
		"tokens": map[string]any{"initial_management": Master, "agent": Master},
	}
	a.connect(Master)
}

// StartTLS starts a server that speaks TLS alone, with these PEM files. Where client is given, the PEM files of a
// certificate and its key, it takes connections alone that show one of who signed that.
func StartTLS(t testing.TB, cert, key string, client ...string) *Agent {
	t.Helper()
	a := prepare(t)
	a.args = []string{"-bootstrap"}
	a.URL = fmt.Sprintf("https://127.0.0.1:%d", a.ports.http)
	all := a.config["ports"].(map[string]int)
	all["http"], all["https"] = -1, a.ports.http
	server, own := map[string]any{"cert_file": cert, "key_file": key}, api.TLSConfig{CAFile: cert}
	if len(client) == 2 {
		server["verify_incoming"], server["ca_file"] = true, client[0]
		own.CertFile, own.KeyFile = client[0], client[1]
	}
	a.config["tls"] = map[string]any{"https": server}
	a.Start()
	var err error
	if a.API, err = api.NewClient(&api.Config{Address: a.URL, TLSConfig: own}); err != nil {
		t.Fatal(err)
	}
	a.AwaitLeader()
	return a
}

// StartCluster starts servers that elect a leader.
func StartCluster(t testing.TB, size int) []*Agent {
	t.Helper()
	return startCluster(t, size, func(*Agent) {})
}

// StartClusterWithACLs starts servers that elect a leader and refuse what no token allows. Master may do all.
func StartClusterWithACLs(t testing.TB, size int) []*Agent {
	t.Helper()
	return startCluster(t, size, (*Agent).refuse)
}

func startCluster(t testing.TB, size int, configure func(*Agent)) []*Agent {
	t.Helper()
	var all []*Agent
	for range size {
		a := prepare(t)
		configure(a)
		a.args = []string{"-bootstrap-expect", fmt.Sprint(size), "-retry-interval", "1s"}
		for _, other := range all {
			a.args = append(a.args, "-retry-join", fmt.Sprintf("127.0.0.1:%d", other.ports.serf))
		}
		all = append(all, a)
	}
	for _, a := range all {
		a.Start()
	}
	for _, a := range all {
		a.AwaitLeader()
	}
	return all
}

func prepare(t testing.TB, more ...string) *Agent {
	t.Helper()
	if _, err := program(); err != nil {
		t.Fatal(err)
	}
	a := &Agent{t: t, folder: t.TempDir(), ports: ports{freePort(t), freePort(t), freePort(t), freePort(t)}}
	a.URL = fmt.Sprintf("http://127.0.0.1:%d", a.ports.http)
	a.config = map[string]any{
		"server": true, "node_name": fmt.Sprintf("consul-%d", a.ports.serf), "data_dir": filepath.Join(a.folder, "data"),
		"bind_addr": "127.0.0.1", "client_addr": strings.Join(append([]string{"127.0.0.1"}, more...), " "),
		"ports": map[string]int{
			"http": a.ports.http, "serf_lan": a.ports.serf, "serf_wan": a.ports.wan, "server": a.ports.rpc, "dns": -1, "grpc": -1, "grpc_tls": -1,
		},
		"performance": map[string]int{"raft_multiplier": 1}, "disable_update_check": true, "log_level": "warn",
		"leave_on_terminate": false, "connect": map[string]bool{"enabled": false},
		"limits": map[string]int{"http_max_conns_per_client": 2000},
	}
	a.connect("")
	t.Cleanup(func() {
		a.Kill()
		if t.Failed() && a.said != nil {
			text, _ := os.ReadFile(a.said.Name())
			t.Logf("Consul said:\n%s", text)
		}
	})
	return a
}

func freePort(t testing.TB) int {
	t.Helper()
	port, err := freeport.Port()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func (a *Agent) connect(token string) {
	client, err := api.NewClient(&api.Config{Address: a.URL, Token: token})
	if err != nil {
		a.t.Fatal(err)
	}
	a.API = client
}

// Start starts the agent, again with the data that it has.
func (a *Agent) Start() {
	a.t.Helper()
	name, err := program()
	if err != nil {
		a.t.Fatal(err)
	}
	text, err := json.Marshal(a.config)
	if err != nil {
		a.t.Fatal(err)
	}
	file := filepath.Join(a.folder, "agent.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		a.t.Fatal(err)
	}
	if a.said, err = os.OpenFile(filepath.Join(a.folder, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		a.t.Fatal(err)
	}
	a.cmd = exec.Command(name, append([]string{"agent", "-config-file", file}, a.args...)...)
	a.cmd.Stdout, a.cmd.Stderr = a.said, a.said
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := a.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
}

// AwaitLeader returns when the agent's cluster takes writes.
func (a *Agent) AwaitLeader() {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startBound)
	defer cancel()
	for {
		_, err := a.API.KV().Put(&api.KVPair{Key: "consultest"}, (&api.WriteOptions{}).WithContext(ctx))
		if err == nil {
			if _, err = a.API.KV().Delete("consultest", nil); err == nil {
				return
			}
		}
		select {
		case <-ctx.Done():
			a.t.Fatalf("Consul has no leader after %s: %v", startBound, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Kill ends the agent at once; twice is fine.
func (a *Agent) Kill() {
	if a.cmd == nil || a.cmd.Process == nil {
		return
	}
	a.cmd.Process.Kill()
	a.cmd.Wait()
	a.said.Close()
	a.cmd = nil
}

// Freeze stops the agent where it is: connections are taken, nothing answers. Thaw lets it go on.
func (a *Agent) Freeze() {
	a.t.Helper()
	a.signal(syscall.SIGSTOP)
	for end := time.Now().Add(startBound); ; <-time.After(5 * time.Millisecond) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.cmd.Process.Pid))
		if err == nil && bytes.Contains(status, []byte("State:\tT")) {
			return
		}
		if time.Now().After(end) {
			a.t.Fatalf("Consul did not stop within %s of SIGSTOP: %v", startBound, err)
		}
	}
}

// Thaw ends Freeze.
func (a *Agent) Thaw() { a.signal(syscall.SIGCONT) }

func (a *Agent) signal(s os.Signal) {
	a.t.Helper()
	if err := a.cmd.Process.Signal(s); err != nil {
		a.t.Fatal(err)
	}
}

// Put writes a key past whoever is tested.
func (a *Agent) Put(key, value string) {
	a.t.Helper()
	if _, err := a.API.KV().Put(&api.KVPair{Key: key, Value: []byte(value)}, nil); err != nil {
		a.t.Fatal(err)
	}
}

// Token makes a token that may do what rules say, and returns it.
func (a *Agent) Token(name, rules string) (secret string) {
	a.t.Helper()
	a.Allow(name, rules)
	token, _, err := a.API.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{Name: name}}}, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return token.SecretID
}

// Allow gives tokens that were made with a name these rights instead of those they have.
func (a *Agent) Allow(name, rules string) {
	a.t.Helper()
	present, _, err := a.API.ACL().PolicyReadByName(name, nil)
	if err == nil && present != nil {
		present.Rules = rules
		_, _, err = a.API.ACL().PolicyUpdate(present, nil)
	} else {
		_, _, err = a.API.ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil)
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

// TokenFile keeps a token in a file, for policy.Consul.
func TokenFile(t testing.TB, token string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Refuses reports whether the HTTP API refuses a token to read a key.
func (a *Agent) Refuses(key, token string) bool {
	a.t.Helper()
	request, err := http.NewRequest(http.MethodGet, a.URL+"/v1/kv/"+key, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	request.Header.Set("X-Consul-Token", token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		a.t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode == http.StatusForbidden
}
