package bus_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger/bus"
)

// certificate writes one that vouches for itself, for 127.0.0.1.
func certificate(t *testing.T) bus.TLS {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert := write("cert.pem", "CERTIFICATE", der)
	return bus.TLS{Certificate: cert, Key: write("key.pem", "PRIVATE KEY", private), Authority: cert}
}

func TestClusterConfigurationIsWhatAServerReads(t *testing.T) {
	cfg := config(t)
	cfg.Listen = "127.0.0.1:4222"
	cfg.TLS = certificate(t)
	cfg.Cluster = &bus.Cluster{Server: "bus-1", Listen: "127.0.0.1:6222", Routes: []string{"127.0.0.1:6222", "127.0.0.1:6223", "127.0.0.1:6224"}}
	var text bytes.Buffer
	if err := bus.WriteConfig(&text, cfg); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := identity.ClusterSecret(cfg.Keys)
	if err != nil {
		t.Fatal(err)
	}
	if o.ServerName != "bus-1" || o.Cluster.Name != "towpath" || o.Cluster.Port != 6222 || len(o.Routes) != 3 {
		t.Errorf("read as %q in %q at %d with %d routes", o.ServerName, o.Cluster.Name, o.Cluster.Port, len(o.Routes))
	}
	if o.Cluster.Username != "towpath" || o.Cluster.Password != secret {
		t.Error("another server needs no secret")
	}
	if o.TLSConfig == nil || o.Cluster.TLSConfig == nil || o.Cluster.TLSConfig.ClientCAs == nil {
		t.Error("clients or servers need no certificate")
	}
	for name, change := range map[string]func(*bus.Config){
		"server name": func(c *bus.Config) { c.Cluster.Server = "" },
		"address":     func(c *bus.Config) { c.Cluster.Listen = "here" },
		"routes":      func(c *bus.Config) { c.Cluster.Routes = nil },
		"authority":   func(c *bus.Config) { c.TLS.Authority = "" },
		"its key":     func(c *bus.Config) { c.TLS.Key = "" },
	} {
		wrong, cluster := cfg, *cfg.Cluster
		wrong.Cluster = &cluster
		change(&wrong)
		if err := bus.WriteConfig(&text, wrong); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClientsOfABusWithACertificate(t *testing.T) {
	cfg := config(t)
	cfg.TLS = certificate(t)
	s, err := bus.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown()
	key, err := identity.LoadBusKey(cfg.Keys, "edge")
	if err != nil {
		t.Fatal(err)
	}
	address := strings.Replace(s.URL(), "nats://", "tls://", 1)
	if c, err := nats.Connect(address, nats.Nkey(key.Public, key.Sign)); err == nil {
		c.Close()
		t.Error("a stranger's certificate was believed")
	}
	c, err := nats.Connect(address, nats.Nkey(key.Public, key.Sign), nats.RootCAs(cfg.TLS.Authority))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.TLSConnectionState(); err != nil {
		t.Errorf("the connection is open to everybody: %v", err)
	}
}
