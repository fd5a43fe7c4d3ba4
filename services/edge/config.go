// Package edge is the entry to every app: http://<app>.<env>.localhost:<port> reaches the healthy
// replicas of the greatest live slot. It follows the table that promote writes and decides nothing
// about deployments, so that no other service can hurt traffic by being down.
//
// A request is given to one replica; where that cannot be connected to, and so has seen nothing of it, the
// next one gets it. Nothing is tried again after that. While the bus is away the last table stays.
package edge

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// Config of the service. Zero means the default.
type Config struct {
	// Listen is the address that apps are reached at, host:port; port 0 takes a free one. Default
	// 127.0.0.1:7080.
	Listen string
	// Domain is what host names end in. Default localhost.
	Domain string
	// HealthInterval is the time between two checks of a replica's health path. Default 2 s.
	HealthInterval time.Duration
	// HealthTimeout bounds one check. Default 3 s.
	HealthTimeout time.Duration
	// DialTimeout bounds connecting to a replica. Default 2 s.
	DialTimeout time.Duration
	// HeaderTimeout bounds reading the header of a request. Default 10 s.
	HeaderTimeout time.Duration
	// IdleTimeout ends client connections that ask for nothing. Default 60 s.
	IdleTimeout time.Duration
	// MaxHeader bounds the header of a request, bytes. Default 64 KiB.
	MaxHeader int
	// DrainTimeout is how long requests under way may take when the service ends. Default 30 s.
	DrainTimeout time.Duration
}

func (c Config) withDefaults() Config {
	or := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:7080"
	}
	if c.Domain == "" {
		c.Domain = "localhost"
	}
	if c.MaxHeader == 0 {
		c.MaxHeader = 64 << 10
	}
	or(&c.HealthInterval, 2*time.Second)
	or(&c.HealthTimeout, 3*time.Second)
	or(&c.DialTimeout, 2*time.Second)
	or(&c.HeaderTimeout, 10*time.Second)
	or(&c.IdleTimeout, time.Minute)
	or(&c.DrainTimeout, 30*time.Second)
	return c
}

// Validate reports all faults at once.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		faults = append(faults, fmt.Errorf("edge: listen %q: must be host:port: %w", c.Listen, err))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"healthInterval", c.HealthInterval}, {"healthTimeout", c.HealthTimeout}, {"dialTimeout", c.DialTimeout},
		{"headerTimeout", c.HeaderTimeout}, {"idleTimeout", c.IdleTimeout}, {"drainTimeout", c.DrainTimeout},
	} {
		if d.value < 0 {
			faults = append(faults, fmt.Errorf("edge: %s %s: must not be negative", d.name, d.value))
		}
	}
	if c.MaxHeader < 1<<10 {
		faults = append(faults, fmt.Errorf("edge: maxHeader %d: must be at least 1024 bytes", c.MaxHeader))
	}
	return errors.Join(faults...)
}
