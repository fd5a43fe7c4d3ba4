package engine_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/engine/enginetest"
)

// forward joins conn and the local engine's socket until either ends.
func forward(t *testing.T, conn io.ReadWriteCloser) {
	socket := strings.TrimPrefix(enginetest.EnsureEngine(t).Host().URL, "unix://")
	local, err := net.Dial("unix", socket)
	if err != nil {
		conn.Close()
		return
	}
	go func() {
		io.Copy(local, conn)
		local.(*net.UnixConn).CloseWrite()
	}()
	io.Copy(conn, local)
	conn.Close()
	local.Close()
}

// useEngine does what needs requests, streams and hijacked connections.
func useEngine(t *testing.T, e *engine.Engine) {
	t.Helper()
	ctx := t.Context()
	c := engine.Container{
		Name: "towpath-test-remote", Labels: labels(t), Port: 8080,
		Image: image(t, enginetest.EnsureEngine(t), enginetest.App{Args: []string{"serve"}}),
	}
	id, err := e.Create(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Start(ctx, id); err != nil {
		t.Fatal(err)
	}
	if s, err := e.Inspect(ctx, id); err != nil || !strings.HasPrefix(s.Addresses[8080], "127.0.0.1:") {
		t.Errorf("%+v, %v", s, err)
	}
	if r, err := e.Exec(ctx, id, []string{enginetest.Program, "print", "inside"}, engine.Bounds{Timeout: 10 * time.Second, Output: 100}); err != nil || r.Output != "inside\n" {
		t.Errorf("exec: %+v, %v", r, err)
	}
	if err := e.Remove(ctx, id); err != nil {
		t.Error(err)
	}
	conn, err := e.DialHijack(ctx, "/grpc", "h2c", nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestEngineOverSSH(t *testing.T) {
	program, err := exec.LookPath("ssh")
	if err != nil {
		t.Fatalf("this test needs an ssh client (apt-get install openssh-client): %v", err)
	}
	folder := t.TempDir()
	clientKey, clientPEM := sshKey(t)
	hostKey, _ := sshKey(t)
	asked := make(chan string, 64)
	address := serveSSH(t, hostKey, clientKey.PublicKey(), asked)
	host, port, _ := net.SplitHostPort(address)
	write(t, filepath.Join(folder, "key"), clientPEM)
	write(t, filepath.Join(folder, "known"), fmt.Appendf(nil, "[%s]:%s %s", host, port, ssh.MarshalAuthorizedKey(hostKey.PublicKey())))
	write(t, filepath.Join(folder, "config"), fmt.Appendf(nil, "IdentityFile %[1]s/key\nIdentitiesOnly yes\nUserKnownHostsFile %[1]s/known\n", folder))
	// ssh reads its settings from the user's home as the system knows it; the test's are given to it here.
	script := fmt.Sprintf("#!/bin/sh\nexec %s -F %s/config \"$@\"\n", program, folder)
	if err := os.WriteFile(filepath.Join(folder, "ssh"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", folder+":"+os.Getenv("PATH"))

	e, err := engine.Connect(t.Context(), engine.Host{URL: "ssh://deploy@" + address})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	useEngine(t, e)
	if command := <-asked; command != "docker system dial-stdio" {
		t.Errorf("ran %q on the other machine", command)
	}

	// What looks like an option or a command of a shell must be neither.
	for _, hostile := range []string{"ssh://-oProxyCommand=touch%20" + folder + "%2Fpwned/", "ssh://$(touch " + folder + "/pwned)", "ssh://a;touch%20" + folder + "%2Fpwned@127.0.0.1:" + port} {
		if e, err := engine.Connect(t.Context(), engine.Host{URL: hostile, Publish: "127.0.0.1"}); err == nil {
			e.Close()
			t.Errorf("%s: connected", hostile)
		}
	}
	if _, err := os.Stat(filepath.Join(folder, "pwned")); err == nil {
		t.Error("a host's name was run as a command")
	}

	if err := os.Remove(filepath.Join(folder, "key")); err != nil {
		t.Fatal(err)
	}
	_, err = engine.Connect(t.Context(), engine.Host{URL: "ssh://deploy@" + address})
	if !engine.IsUnreachable(err) || !strings.Contains(err.Error(), "ssh deploy@"+address) && !strings.Contains(err.Error(), "docker version") {
		t.Errorf("refused by the other machine: %v", err)
	}
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func sshKey(t *testing.T) (ssh.Signer, []byte) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

// serveSSH is an SSH server whose only command reaches the local engine.
func serveSSH(t *testing.T, hostKey ssh.Signer, client ssh.PublicKey, asked chan<- string) string {
	t.Helper()
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(client.Marshal()) {
			return nil, fmt.Errorf("unknown key")
		}
		return nil, nil
	}}
	config.AddHostKey(hostKey)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serveSSHConn(t, conn, config, asked)
		}
	}()
	return listener.Addr().String()
}

func serveSSHConn(t *testing.T, conn net.Conn, config *ssh.ServerConfig, asked chan<- string) {
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range requests {
				if r.Type != "exec" {
					r.Reply(false, nil)
					continue
				}
				var command struct{ Line string }
				ssh.Unmarshal(r.Payload, &command)
				r.Reply(true, nil)
				asked <- command.Line
				go forward(t, succeeding{channel})
			}
		}()
	}
}

// succeeding is a channel whose command ends with exit code 0.
type succeeding struct{ ssh.Channel }

func (s succeeding) Close() error {
	s.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{0}))
	return s.Channel.Close()
}

func TestEngineOverTLS(t *testing.T) {
	folder := t.TempDir()
	ca, caKey := certificate(t, folder, "ca", nil, nil)
	certificate(t, folder, "server", ca, caKey)
	certificate(t, folder, "client", ca, caKey)
	certificate(t, folder, "stranger", nil, nil)
	server, err := tls.LoadX509KeyPair(filepath.Join(folder, "server.pem"), filepath.Join(folder, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{server}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go forward(t, conn)
		}
	}()
	host := engine.Host{URL: "tcp://" + listener.Addr().String(), TLS: engine.TLS{
		CA: filepath.Join(folder, "ca.pem"), Cert: filepath.Join(folder, "client.pem"), Key: filepath.Join(folder, "client.key"),
	}}
	e, err := engine.Connect(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if e.Local() {
		t.Error("an engine over TCP is not local")
	}
	useEngine(t, e)

	stranger := host
	stranger.TLS.Cert, stranger.TLS.Key = filepath.Join(folder, "stranger.pem"), filepath.Join(folder, "stranger.key")
	if _, err := engine.Connect(t.Context(), stranger); !engine.IsUnreachable(err) {
		t.Errorf("a client that the engine does not know: %v", err)
	}
	impostor := host
	impostor.TLS.CA = filepath.Join(folder, "stranger.pem")
	if _, err := engine.Connect(t.Context(), impostor); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an engine that is not the one meant: %v", err)
	}
}

func certificate(t *testing.T, folder, name string, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: ca == nil,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	parent, parentKey := ca, caKey
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(folder, name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, filepath.Join(folder, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}
