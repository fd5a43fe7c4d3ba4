// Package towpath runs everything in one process: the bus, the registry and every service, each
// started with the same New and Run as in a process of its own, with the same identities and rights.
//
// It guarantees that one data folder has one process, that a stop drains what has begun, and that a
// process which was killed goes on from its data folder where it was. It holds no logic of the
// services: what differs from separate processes is how they are started, and nothing else.
package towpath

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"towpath.dev/pkg/ledger"
	"towpath.dev/services/towpath/client"
)

// Default addresses. All are on the loopback interface: nobody else reaches them unless asked for.
const (
	DefaultListen         = "127.0.0.1:7070"
	DefaultEdgeListen     = "127.0.0.1:7080"
	DefaultRegistryListen = "127.0.0.1:7050"
)

// Config says where everything is kept and where it listens.
type Config struct {
	// Data is the folder of all state; made with mode 0700 when absent.
	Data string
	// Listen is the gateway's address, host:port. Port 0 takes the port of the start before, or else a
	// free one; so it does in the next two. Empty means DefaultListen.
	Listen string
	// EdgeListen is the address at which apps are reached. Empty means DefaultEdgeListen.
	EdgeListen string
	// RegistryListen is the address of the registry inside. Empty means DefaultRegistryListen. It is
	// part of images' names, so that it should stay what it was. Not used where the platform file
	// names a registry elsewhere.
	RegistryListen string
	// BusListen is the address at which bots and services elsewhere reach the bus. Empty: nobody outside this process
	// does.
	BusListen string
	// DrainTimeout bounds how long a stop waits for what has begun. 0 means 30 s.
	DrainTimeout time.Duration
	// AckWait is how long a service may show no sign of life about a message before the message is given to
	// another, or to the same one again. At least ledger.MinAckWait; 0 means
	// ledger.DefaultAckWait.
	AckWait time.Duration
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field     *string
		otherwise string
	}{{&c.Listen, DefaultListen}, {&c.EdgeListen, DefaultEdgeListen}, {&c.RegistryListen, DefaultRegistryListen}} {
		if *d.field == "" {
			*d.field = d.otherwise
		}
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 30 * time.Second
	}
	return c
}

// Validate reports all faults at once.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	if c.Data == "" {
		faults = append(faults, errors.New("the data folder is missing (--data)"))
	}
	if c.DrainTimeout < 0 {
		faults = append(faults, fmt.Errorf("drain timeout %s is negative", c.DrainTimeout))
	}
	if c.AckWait != 0 && c.AckWait < ledger.MinAckWait {
		faults = append(faults, fmt.Errorf("ack wait %s is too short: at least %s (--ack-wait)", c.AckWait, ledger.MinAckWait))
	}
	for _, a := range c.addresses() {
		_, port, err := net.SplitHostPort(*a.address)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s %q must be host:port: %w", a.flag, *a.address, err))
			continue
		}
		if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
			faults = append(faults, fmt.Errorf("%s %q: the port must be 0–65535", a.flag, *a.address))
		}
	}
	return errors.Join(faults...)
}

// listenAddress is one of the addresses, and how people call it.
type listenAddress struct {
	name    string
	flag    string
	address *string
}

func (c *Config) addresses() []listenAddress {
	all := []listenAddress{
		{"gateway", "--listen", &c.Listen},
		{"edge", "--edge-listen", &c.EdgeListen},
		{"registry", "--registry-listen", &c.RegistryListen},
	}
	if c.BusListen != "" {
		all = append(all, listenAddress{"bus", "--bus-listen", &c.BusListen})
	}
	return all
}

// Names in the data folder.
func (c Config) lockFile() string      { return filepath.Join(c.Data, "lock") }
func (c Config) keys() string          { return filepath.Join(c.Data, "keys") }
func (c Config) busStore() string      { return filepath.Join(c.Data, "nats") }
func (c Config) snapshots() string     { return filepath.Join(c.Data, "snapshots") }
func (c Config) registryStore() string { return filepath.Join(c.Data, "registry") }
func (c Config) seals() string         { return filepath.Join(c.Data, "seal") }
func (c Config) tokenFile() string     { return filepath.Join(c.Data, client.TokenFile) }
func (c Config) urlFile() string       { return filepath.Join(c.Data, client.URLFile) }
func (c Config) sources() string       { return filepath.Join(c.Data, "work", "build") }
func (c Config) images() string        { return filepath.Join(c.Data, "work", "vet") }
