package bus

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"towpath.dev/pkg/identity"
)

// Cluster is what one server needs to know of the others. Three servers lose one without a pause that
// anybody notices for longer than an election takes.
type Cluster struct {
	// Server is this server's name, different from the others'.
	Server string
	// Listen is the address at which the others reach it, host:port.
	Listen string
	// Routes are the addresses of all of them, host:port; its own may be among them.
	Routes []string
}

// TLS are PEM files. With them clients must use tls:// URLs; between servers both sides show a certificate
// that Authority vouches for.
type TLS struct {
	Certificate string // of this server, for its clients and for the other servers
	Key         string // its private key
	Authority   string // who vouches for the other servers; a cluster needs it
}

// clusterName is the name of every cluster: servers of another name are not let in.
const clusterName = "towpath"

func (c Cluster) validate() []error {
	var faults []error
	if c.Server == "" || strings.ContainsAny(c.Server, " \t\n.*>") {
		faults = append(faults, fmt.Errorf("server name %q: a cluster's servers need names, without spaces, dots and wild cards", c.Server))
	}
	for _, address := range append([]string{c.Listen}, c.Routes...) {
		if _, port, err := net.SplitHostPort(address); err != nil || port == "" || port == "0" {
			faults = append(faults, fmt.Errorf("cluster address %q must be host:port", address))
		}
	}
	if len(c.Routes) == 0 {
		faults = append(faults, errors.New("a cluster needs the addresses of its servers (routes)"))
	}
	return faults
}

func (t TLS) validate(cluster bool) []error {
	var faults []error
	if (t.Certificate == "") != (t.Key == "") {
		faults = append(faults, errors.New("TLS needs both a certificate and its key"))
	}
	if cluster && t.Certificate != "" && t.Authority == "" {
		faults = append(faults, errors.New("TLS between servers needs the authority that vouches for them"))
	}
	return faults
}

// writeCluster writes how the servers find and know each other: by a secret of the keys folder, and by
// their certificates where they have some.
func writeCluster(b *bytes.Buffer, cfg Config) error {
	if cfg.TLS.Certificate != "" {
		fmt.Fprintf(b, "tls {\n  cert_file: %s\n  key_file: %s\n}\n", quote(cfg.TLS.Certificate), quote(cfg.TLS.Key))
	}
	if cfg.Cluster == nil {
		return nil
	}
	secret, err := identity.ClusterSecret(cfg.Keys)
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "server_name: %s\ncluster {\n  name: %s\n  listen: %s\n", quote(cfg.Cluster.Server), clusterName, quote(cfg.Cluster.Listen))
	fmt.Fprintf(b, "  authorization { user: towpath, password: %s }\n", quote(secret))
	routes := make([]string, len(cfg.Cluster.Routes))
	for i, address := range cfg.Cluster.Routes {
		route := url.URL{Scheme: "nats-route", User: url.UserPassword("towpath", secret), Host: address}
		routes[i] = route.String()
	}
	fmt.Fprintf(b, "  routes: %s\n", list(routes))
	if cfg.TLS.Certificate != "" {
		fmt.Fprintf(b, "  tls {\n    cert_file: %s\n    key_file: %s\n    ca_file: %s\n    verify: true\n  }\n",
			quote(cfg.TLS.Certificate), quote(cfg.TLS.Key), quote(cfg.TLS.Authority))
	}
	fmt.Fprintln(b, "}")
	return nil
}
