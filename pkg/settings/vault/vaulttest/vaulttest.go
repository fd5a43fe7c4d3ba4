// Package vaulttest runs the real Vault, of the version that deployments/servers pins, for tests.
//
// A server is initialised, unsealed and on disk, so that it can be sealed, paused, killed and started again with what it
// held. It ends with the process that started it.
package vaulttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"towpath.dev/pkg/freeport"
	"towpath.dev/pkg/pause"
)

// Server is a Vault server.
type Server struct {
	Address string // http:// or, with TLS, https://host:port
	Root    string // its root token
	Folder  string // its configuration, data, log and audit log (audit.log)

	key    string // that unseals it
	cmd    *exec.Cmd
	ended  chan struct{}
	client *api.Client
}

// Options say how a server differs from the usual one.
type Options struct {
	Host      string // to listen on; default 127.0.0.1
	Cert, Key string // PEM files: it speaks TLS
	CA        string // PEM file of who signed Cert
	// ClientCert and ClientKey are PEM files of a certificate: it takes connections alone that show one of who signed that.
	ClientCert, ClientKey string
}

// binary is the program, built once.
var binary = sync.OnceValues(func() (string, error) {
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(file), "../../../..")
	build := exec.Command(filepath.Join(root, "deployments/servers/build.sh"), "vault")
	var stderr bytes.Buffer
	build.Stderr = &stderr
	folder, err := build.Output()
	if err != nil {
		return "", fmt.Errorf("building Vault: %w: %s", err, stderr.Bytes())
	}
	return filepath.Join(strings.TrimSpace(string(folder)), "vault"), nil
})

// Program returns where the program is, which is also Vault's command line.
func (s *Server) Program() (string, error) { return binary() }

// Start runs a server until the test has ended.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Run(t.Context(), t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// Run runs a server with its files in folder.
func Run(ctx context.Context, folder string, o Options) (*Server, error) {
	host := o.Host
	if host == "" {
		host = "127.0.0.1"
	}
	address, err := freeport.Address(host)
	if err != nil {
		return nil, err
	}
	cluster, err := freeport.Address("127.0.0.1")
	if err != nil {
		return nil, err
	}
	s := &Server{Address: "http://" + address, Folder: folder}
	tls := "tls_disable = true"
	if o.Cert != "" {
		s.Address = "https://" + address
		tls = fmt.Sprintf("tls_cert_file = %q\n  tls_key_file = %q", o.Cert, o.Key)
		if o.ClientCert != "" {
			tls += fmt.Sprintf("\n  tls_require_and_verify_client_cert = true\n  tls_client_ca_file = %q", o.ClientCert)
		}
	}
	data := filepath.Join(folder, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`disable_mlock = true
api_addr = %q
cluster_addr = "https://%s"
storage "raft" {
  path = %q
  node_id = "one"
  performance_multiplier = 1
}
listener "tcp" {
  address = %q
  cluster_address = %q
  %s
}
`, s.Address, cluster, data, address, cluster, tls)
	if err := os.WriteFile(filepath.Join(folder, "vault.hcl"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	c := api.DefaultConfig()
	c.Address, c.Timeout, c.MaxRetries = s.Address, 30*time.Second, 0
	if o.CA != "" {
		if err := c.ConfigureTLS(&api.TLSConfig{CACert: o.CA, ClientCert: o.ClientCert, ClientKey: o.ClientKey}); err != nil {
			return nil, err
		}
	}
	if s.client, err = api.NewClient(c); err != nil {
		return nil, err
	}
	s.client.ClearToken()
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	made, err := s.client.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		s.Kill()
		return nil, fmt.Errorf("initialising Vault: %w", err)
	}
	s.Root, s.key = made.RootToken, made.KeysB64[0]
	s.client.SetToken(s.Root)
	err = errors.Join(s.Unseal(ctx), s.client.Sys().EnableAuditWithOptionsWithContext(ctx, "file", &api.EnableAuditOptions{
		Type: "file", Options: map[string]string{"file_path": filepath.Join(folder, "audit.log")},
	}))
	if err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

// start runs the program and waits until it answers.
func (s *Server) start(ctx context.Context) error {
	program, err := binary()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.Folder, "vault.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(program, "server", "-config", filepath.Join(s.Folder, "vault.hcl"))
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.cmd.Env = append(os.Environ(), "VAULT_SKIP_VERIFY=", "VAULT_TOKEN=")
	started := make(chan error, 1)
	ended := make(chan struct{})
	cmd := s.cmd
	// The kernel kills a child with the thread that started it, so that thread waits for it.
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread() // or the thread would end, and with it whatever it had started before
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting Vault: %w", err)
	}
	s.ended = ended
	for range 600 {
		if _, err = s.client.Sys().SealStatusWithContext(ctx); err == nil {
			return nil
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(filepath.Join(s.Folder, "vault.log"))
			return fmt.Errorf("the server (Vault) ended: %s", text)
		default:
		}
		if err := pause.For(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	s.Kill()
	return fmt.Errorf("the server (Vault) does not answer: %w", err)
}

// Client returns a client with a token.
func (s *Server) Client(token string) (*api.Client, error) {
	c, err := s.client.Clone()
	if err != nil {
		return nil, err
	}
	c.SetToken(token)
	return c, nil
}

// Write writes as root.
func (s *Server) Write(ctx context.Context, path string, data map[string]any) (*api.Secret, error) {
	return s.client.Logical().WriteWithContext(ctx, path, data)
}

// Read returns the data of a path of KV as root.
func (s *Server) Read(ctx context.Context, path string) (map[string]any, error) {
	got, err := s.client.Logical().ReadWithContext(ctx, path)
	if err != nil || got == nil {
		return nil, err
	}
	data, _ := got.Data["data"].(map[string]any)
	return data, nil
}

// Destroyed returns an error unless a version of a path is destroyed.
func (s *Server) Destroyed(ctx context.Context, mount, path string, version uint64) error {
	versions, err := s.client.KVv2(mount).GetVersionsAsList(ctx, path)
	if err != nil {
		return err
	}
	for _, v := range versions {
		if v.Version == int(version) && v.Destroyed {
			return nil
		}
	}
	return fmt.Errorf("version %d of %s is not destroyed: %v", version, path, versions)
}

// Mount has KV version 2 at a path, and waits until it answers.
func (s *Server) Mount(ctx context.Context, path string) error {
	err := s.client.Sys().MountWithContext(ctx, path, &api.MountInput{Type: "kv", Options: map[string]string{"version": "2"}})
	for i := 0; err == nil && i < 200; i++ {
		if _, err := s.client.Logical().ReadWithContext(ctx, path+"/config"); err == nil {
			return nil
		}
		err = pause.For(ctx, 20*time.Millisecond)
	}
	return fmt.Errorf("mounting %s: %w", path, err)
}

// WrapSecretID returns a token that wraps a secret id of an AppRole role.
func (s *Server) WrapSecretID(ctx context.Context, mount, role string, ttl time.Duration) (string, error) {
	c, err := s.client.Clone()
	if err != nil {
		return "", err
	}
	c.SetToken(s.Root)
	c.SetWrappingLookupFunc(func(string, string) string { return fmt.Sprint(ttl) })
	made, err := c.Logical().WriteWithContext(ctx, "auth/"+mount+"/role/"+role+"/secret-id", nil)
	if err != nil {
		return "", err
	}
	return made.WrapInfo.Token, nil
}

// Tokens returns how many tokens are there that a path made.
func (s *Server) Tokens(ctx context.Context, path string) (int, error) {
	n := 0
	err := s.each(ctx, path, func(string) error {
		n++
		return nil
	})
	return n, err
}

// RevokeLogins revokes the tokens that a path made.
func (s *Server) RevokeLogins(ctx context.Context, path string) error {
	return s.each(ctx, path, func(accessor string) error { return s.client.Auth().Token().RevokeAccessorWithContext(ctx, accessor) })
}

func (s *Server) each(ctx context.Context, path string, do func(accessor string) error) error {
	list, err := s.client.Logical().ListWithContext(ctx, "auth/token/accessors")
	if err != nil || list == nil {
		return err
	}
	accessors, _ := list.Data["keys"].([]any)
	for _, accessor := range accessors {
		found, err := s.client.Auth().Token().LookupAccessorWithContext(ctx, accessor.(string))
		var gone *api.ResponseError
		if errors.As(err, &gone) {
			continue // it expired meanwhile
		}
		if err != nil {
			return err
		}
		if found.Data["path"] == path {
			if err := do(accessor.(string)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Seal seals it.
func (s *Server) Seal(ctx context.Context) error { return s.client.Sys().SealWithContext(ctx) }

// Unseal unseals it, and waits until it works.
func (s *Server) Unseal(ctx context.Context) error {
	if _, err := s.client.Sys().UnsealWithContext(ctx, s.key); err != nil {
		return fmt.Errorf("unsealing Vault: %w", err)
	}
	for {
		if health, err := s.client.Sys().HealthWithContext(ctx); err == nil && !health.Standby && !health.Sealed {
			return nil
		}
		if err := pause.For(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// stopBound is how long it may take until the kernel has stopped what was sent a SIGSTOP.
const stopBound = 10 * time.Second

// Pause stops it with SIGSTOP: connections are taken, and nothing answers.
func (s *Server) Pause() error {
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for end := time.Now().Add(stopBound); ; <-time.After(5 * time.Millisecond) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
		if err == nil && bytes.Contains(status, []byte("State:\tT")) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the Vault did not stop within %s of SIGSTOP: %w", stopBound, err)
		}
	}
}

// Resume ends Pause.
func (s *Server) Resume() error { return s.cmd.Process.Signal(syscall.SIGCONT) }

// Kill ends it with SIGKILL.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.ended
}

// Restart starts it again after Kill, and unseals it.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	return s.Unseal(ctx)
}
