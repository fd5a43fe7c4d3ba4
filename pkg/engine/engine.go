// Package engine speaks to Docker Engines: the one that builds, and those that environments run on.
//
// Every call is bounded in time, and its error says what was being done, on which engine and why it
// failed; an engine that does not answer is an *UnreachableError. Output that is read back is bounded in
// size. The package decides nothing about deployments, and nothing here retries.
package engine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/docker/cli/cli/connhelper"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"
	"golang.org/x/mod/semver"
)

// How long calls may take. A disk that is slow makes creating and starting the slowest.
const (
	pingBound   = 10 * time.Second
	readBound   = 20 * time.Second
	changeBound = 60 * time.Second
)

// minimumAPI is that of Engine 20.10.
const minimumAPI = "1.41"

// Engine is one Docker Engine. It is safe for concurrent use and keeps working when the engine was gone
// for a while.
type Engine struct {
	host    Host
	publish string
	api     *client.Client

	networks sync.Mutex // one network is made at a time
}

// Connect validates host, reaches the engine once and returns it. The error is an *UnreachableError when
// the engine does not answer within 10 s.
func Connect(ctx context.Context, host Host) (*Engine, error) {
	host = host.withDefaults()
	if err := host.Validate(); err != nil {
		return nil, err
	}
	publish, err := host.publishAddress()
	if err != nil {
		return nil, err
	}
	options, err := dialOptions(host)
	if err != nil {
		return nil, err
	}
	api, err := client.NewClientWithOpts(append(options, client.WithAPIVersionNegotiation(), client.WithUserAgent("towpath"))...)
	if err != nil {
		return nil, fmt.Errorf("docker engine %s: %w", host.URL, err)
	}
	e := &Engine{host: host, publish: publish, api: api}
	if err := e.Ping(ctx); err != nil {
		return nil, errors.Join(err, api.Close())
	}
	if version := api.ClientVersion(); versions.LessThan(version, minimumAPI) {
		return nil, errors.Join(fmt.Errorf("docker engine %s: its API %s is too old; install Docker Engine 20.10 or newer", host.URL, version), api.Close())
	}
	return e, nil
}

func dialOptions(host Host) ([]client.Opt, error) {
	switch {
	case strings.HasPrefix(host.URL, "ssh://"):
		// Without BatchMode, ssh would ask for a password on the terminal, where there is one.
		helper, err := connhelper.GetConnectionHelperWithSSHOpts(host.URL, []string{"-oBatchMode=yes", "-oConnectTimeout=10"})
		if err != nil {
			return nil, fmt.Errorf("docker engine %s: %w", host.URL, err)
		}
		transport := &http.Transport{DialContext: helper.Dialer}
		return []client.Opt{
			client.WithHTTPClient(&http.Client{Transport: transport}),
			client.WithHost(helper.Host), client.WithDialContext(helper.Dialer),
		}, nil
	case strings.HasPrefix(host.URL, "tcp://"):
		config, err := host.TLS.config()
		if err != nil {
			return nil, fmt.Errorf("docker engine %s: %w", host.URL, err)
		}
		return []client.Opt{
			client.WithHTTPClient(&http.Client{Transport: &http.Transport{TLSClientConfig: config}}),
			client.WithHost(host.URL), client.WithScheme("https"),
		}, nil
	}
	return []client.Opt{client.WithHost(host.URL)}, nil
}

func (t TLS) config() (*tls.Config, error) {
	pem, err := os.ReadFile(t.CA)
	if err != nil {
		return nil, fmt.Errorf("reading tls.ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls.ca %s holds no PEM certificate", t.CA)
	}
	cert, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("reading tls.cert and tls.key: %w", err)
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, nil
}

// Close lets go of idle connections. The engine and its containers are not touched.
func (e *Engine) Close() error { return e.api.Close() }

// Host returns what the engine was connected with, defaults filled in.
func (e *Engine) Host() Host { return e.host }

// Local reports whether the engine is reached through a socket of this machine. It usually sees this
// machine's folders then, but need not (a forwarded socket; this process in a container).
func (e *Engine) Local() bool { return e.host.local() }

// Publish returns the IP address on which containers' ports are published.
func (e *Engine) Publish() string { return e.publish }

// Ping asks for a sign of life, within 10 s.
func (e *Engine) Ping(ctx context.Context) error {
	return e.do(ctx, pingBound, "pinging", func(ctx context.Context) error {
		_, err := e.api.Ping(ctx)
		return err
	})
}

// DialHijack opens a connection that the engine hands over to protocol, as BuildKit inside the engine
// needs: ("/grpc", "h2c") for its API, ("/session", protocol and metadata of the session) for the files
// of a build. Reaching the engine is bounded by ctx; the connection lives until it is closed.
func (e *Engine) DialHijack(ctx context.Context, path, protocol string, meta map[string][]string) (net.Conn, error) {
	conn, err := e.api.DialHijack(ctx, path, protocol, meta)
	return conn, e.fault(ctx, 0, "opening "+path, err)
}

// Info is what `doctor` says of an engine.
type Info struct {
	// ID is the engine's own id with its data folder, because engines on one machine may share the
	// former: equal IDs are one engine, whatever the URL.
	ID            string
	Name          string // of its machine
	Version       string
	API           string
	OS            string // "linux"
	Architecture  string // in Go's and OCI's terms: "amd64"
	CPUs          int
	Memory        int64 // bytes
	StorageDriver string
	CgroupVersion string
	LogDriver     string
	Dedicated     bool // as configured
	Warnings      []string
	Time          time.Time // its machine's clock when it answered; zero: it did not say
}

// LocksUp reports whether the engine's release may stop answering for good when containers of one network end at the same
// moment (moby/moby#46661, mended in 20.10.27 and 23.0).
func (i Info) LocksUp() bool {
	version := "v" + i.Version
	return semver.IsValid(version) && semver.Compare(version, "v20.10.27") < 0
}

// Info asks the engine about itself.
func (e *Engine) Info(ctx context.Context) (Info, error) {
	info := Info{Dedicated: e.host.Dedicated}
	err := e.do(ctx, readBound, "asking for information", func(ctx context.Context) error {
		i, err := e.api.Info(ctx)
		if err != nil {
			return err
		}
		info.ID, info.Name, info.Version, info.API = i.ID+" "+i.DockerRootDir, i.Name, i.ServerVersion, e.api.ClientVersion()
		info.OS, info.Architecture = i.OSType, architecture(i.Architecture)
		info.CPUs, info.Memory = i.NCPU, i.MemTotal
		info.StorageDriver, info.CgroupVersion, info.LogDriver = i.Driver, i.CgroupVersion, i.LoggingDriver
		info.Warnings = i.Warnings
		if at, err := time.Parse(time.RFC3339Nano, i.SystemTime); err == nil {
			info.Time = at
		}
		return nil
	})
	return info, err
}

// architecture puts the kernel's name into OCI's.
func architecture(machine string) string {
	switch machine {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "armv7l", "armv6l":
		return "arm"
	case "i686", "i386":
		return "386"
	}
	return machine
}
