package promote

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Config of the service. Zero means the default.
type Config struct {
	// Gateway is the gateway's URL, which leads people from an event to its run. Default
	// http://127.0.0.1:7070.
	Gateway string
	// Domain is what the host names of apps end in, as at the edge. Default localhost.
	Domain string
	// Concurrency is how many events are handled at once. Each may have deploys under way, and a command must
	// not wait for them. Default 64.
	Concurrency int
	// MaxAttempts is how often a step that fails for a technical reason (an engine that does not answer)
	// is tried before an operator is asked. The pauses grow from 250 ms to 30 s; the default, 12, is
	// about two and a half minutes.
	MaxAttempts int
	// LookEvery is how often everything is looked at, besides at events: replicas that somebody removed
	// are made again, and what could not be removed is tried again. Default 1 min.
	LookEvery time.Duration
	// DrainTimeout is how long deploys under way may go on when the service is told to end; the next
	// start takes over what is left. Default 20 s.
	DrainTimeout time.Duration
}

func (c Config) withDefaults() Config {
	c.Gateway = strings.TrimRight(cmp.Or(c.Gateway, "http://127.0.0.1:7070"), "/")
	c.Domain = cmp.Or(c.Domain, "localhost")
	c.Concurrency = cmp.Or(c.Concurrency, 64)
	c.MaxAttempts = cmp.Or(c.MaxAttempts, 12)
	c.LookEvery = cmp.Or(c.LookEvery, time.Minute)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 20*time.Second)
	return c
}

// Validate reports all faults at once.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	if u, err := url.Parse(c.Gateway); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		faults = append(faults, fmt.Errorf("promote: gateway %q: must be http://host:port or https://host:port", c.Gateway))
	}
	if c.Concurrency < 1 || c.Concurrency > 256 {
		faults = append(faults, fmt.Errorf("promote: concurrency %d: must be 1–256", c.Concurrency))
	}
	if c.MaxAttempts < 1 {
		faults = append(faults, fmt.Errorf("promote: attempts %d: must be above 0", c.MaxAttempts))
	}
	if c.LookEvery < 0 || c.DrainTimeout < 0 {
		faults = append(faults, fmt.Errorf("promote: look interval %s and drain timeout %s: must be above 0", c.LookEvery, c.DrainTimeout))
	}
	return errors.Join(faults...)
}
