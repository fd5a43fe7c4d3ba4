package vet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Config of the service. The zero value of a field with a default means the default.
type Config struct {
	// Work is the folder in which images are unpacked while they are looked at, one at a time for each
	// place of Concurrency; what a process that died left in it is removed. It needs room for two
	// unpacked images a place. Default: towpath-vet in the system's folder for temporary files.
	Work string
	// Concurrency is how many images are looked at at once; 0: 2. An image of 200 MB takes about 250 MB
	// of memory.
	Concurrency int
	// Platform is the variant that is looked at where an artifact has several: that of the engines.
	// Default: linux/ and the architecture of this process.
	Platform string
	// Margin is how long before the policy's deadline for vet an attempt is broken off, so that it says
	// itself why it ended; 0: 15 s. It is at most half of the deadline.
	Margin time.Duration
}

func (c Config) withDefaults() Config {
	setDefault(&c.Work, filepath.Join(os.TempDir(), "towpath-vet"))
	setDefault(&c.Concurrency, 2)
	setDefault(&c.Platform, "linux/"+runtime.GOARCH)
	setDefault(&c.Margin, 15*time.Second)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate reports all faults at once.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("vet: "+format, args...)) }
	if c.Concurrency < 1 || c.Concurrency > 64 {
		fault("concurrency: %d is not 1 to 64", c.Concurrency)
	}
	if !filepath.IsAbs(c.Work) {
		fault("work: %q is not an absolute path", c.Work)
	}
	if c.Margin < 0 {
		fault("margin: %s is negative", c.Margin)
	}
	if !isPlatform(c.Platform) {
		fault("platform: %q is not an operating system and an architecture such as linux/amd64", c.Platform)
	}
	return errors.Join(faults...)
}
