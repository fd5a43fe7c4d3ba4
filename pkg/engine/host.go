package engine

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Host says where one Docker Engine answers and how its containers are reached. It is comparable: equal
// hosts are one engine.
type Host struct {
	// URL is unix:///path/of/socket, ssh://[user@]host[:port][/path/of/socket] or tcp://host:port. Empty
	// means unix:///var/run/docker.sock.
	URL string
	// TLS is used, and required, by tcp://.
	TLS TLS
	// Publish is the IP address of the engine's machine on which containers' ports are published, and by
	// which they are then reached. Empty means 127.0.0.1 for unix://, else the address of URL's host.
	Publish string
	// Dedicated says that nothing but builds run on this engine, so that limits which hold for the whole
	// engine (memory, CPU, processes) may be put on it.
	Dedicated bool
}

// TLS names PEM files for tcp://. All three are needed: an engine that accepts clients without a
// certificate gives root on its machine to anybody.
type TLS struct {
	CA   string
	Cert string
	Key  string
}

// DefaultURL is where the local Docker Engine answers.
const DefaultURL = "unix:///var/run/docker.sock"

func (h Host) withDefaults() Host {
	if h.URL == "" {
		h.URL = DefaultURL
	}
	return h
}

// Validate reports every fault of h at once, each naming the field and what it may be.
func (h Host) Validate() error {
	h = h.withDefaults()
	var faults []error
	if u, err := url.Parse(h.URL); err != nil {
		faults = append(faults, fmt.Errorf("host %q: %w", h.URL, err))
	} else {
		faults = append(faults, h.validateURL(u)...)
	}
	if h.Publish != "" && net.ParseIP(h.Publish) == nil {
		faults = append(faults, fmt.Errorf("publish %q: must be an IP address of the engine's machine", h.Publish))
	}
	return errors.Join(faults...)
}

func (h Host) validateURL(u *url.URL) (faults []error) {
	fault := func(format string, a ...any) {
		faults = append(faults, fmt.Errorf("host %q: "+format, append([]any{h.URL}, a...)...))
	}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			fault("must be unix:///absolute/path")
		}
	case "ssh":
		if u.Hostname() == "" {
			fault("must be ssh://[user@]host[:port]")
		}
		if _, password := u.User.Password(); password {
			fault("must not hold a password; use a key or an agent")
		}
	case "tcp":
		if port, err := strconv.Atoi(u.Port()); u.Hostname() == "" || err != nil || port < 1 || port > 65535 {
			fault("must be tcp://host:port")
		}
		if h.TLS.CA == "" || h.TLS.Cert == "" || h.TLS.Key == "" {
			fault("needs tls with ca, cert and key: an engine without them gives root to anybody who reaches it")
		}
	default:
		fault("must begin with unix://, ssh:// or tcp://")
	}
	if u.Scheme != "tcp" && h.TLS != (TLS{}) {
		fault("takes no tls; only tcp:// does")
	}
	return faults
}

// local reports whether the engine is reached through a socket of this machine.
func (h Host) local() bool { return strings.HasPrefix(h.URL, "unix://") }

// publishAddress resolves Publish's default.
func (h Host) publishAddress() (string, error) {
	if h.Publish != "" {
		return h.Publish, nil
	}
	if h.local() {
		return "127.0.0.1", nil
	}
	u, err := url.Parse(h.URL)
	if err != nil {
		return "", err
	}
	if net.ParseIP(u.Hostname()) != nil {
		return u.Hostname(), nil
	}
	ips, err := net.LookupIP(u.Hostname())
	if err != nil || len(ips) == 0 {
		return "", fmt.Errorf("finding the address of %s, on which its containers' ports are to be published: %v; give it as publish", u.Hostname(), err)
	}
	for _, ip := range ips {
		if ip.To4() != nil {
			return ip.String(), nil
		}
	}
	return ips[0].String(), nil
}
