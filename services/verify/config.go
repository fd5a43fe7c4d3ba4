package verify

import (
	"errors"
	"time"
)

// Config of the service.
type Config struct {
	// Domain is what host names of apps end in; empty means "localhost". HTTP checks send it as their
	// Host, so that an app sees what it sees behind the edge.
	Domain string
	// Concurrency is how many verifications run at once; 0 means 32.
	Concurrency int
	// Tries is how often a verification is tried when an engine is away, with growing pauses; 0 means 10.
	Tries int
	// Retry is the pause between two tries of an HTTP check; 0 means 200 ms.
	Retry time.Duration
}

// Validate reports all faults.
func (c Config) Validate() error {
	var errs []error
	if c.Concurrency < 0 || c.Concurrency > 256 {
		errs = append(errs, errors.New("verify: concurrency must be 0–256"))
	}
	if c.Tries < 0 {
		errs = append(errs, errors.New("verify: tries must not be below 0"))
	}
	if c.Retry < 0 {
		errs = append(errs, errors.New("verify: retry pause must not be below 0"))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.Domain == "" {
		c.Domain = "localhost"
	}
	if c.Concurrency == 0 {
		c.Concurrency = 32
	}
	if c.Tries == 0 {
		c.Tries = 10
	}
	if c.Retry == 0 {
		c.Retry = 200 * time.Millisecond
	}
	return c
}
