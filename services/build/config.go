package build

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"towpath.dev/pkg/registry"
)

// Config of the service. The zero value of a field with a default means the default.
type Config struct {
	// Registry is where images are pushed: host:port, with a path where the registry has namespaces. An
	// app's repository is <Registry>/<app>. The build engine and the environments' engines must reach it
	// under this name. Default: the platform's registry.address.
	Registry string
	// Gateway is the URL of the gateway, which hosts the repositories of runs that name no other. Required.
	Gateway string
	// Work is the folder for sources while they are built; what a process that died left in it is removed.
	// Default: towpath-build in the system's folder for temporary files.
	Work string
	// Concurrency is how many builds run at once; 0: 2. Others wait, and build.queued says so.
	Concurrency int
	// FetchTimeout bounds one fetch; 0: 5 min.
	FetchTimeout time.Duration
	// MaxSource is the most bytes of history, and of files; 0: 2 GiB.
	MaxSource int64
	// MaxFiles is the most files in a source, submodules included; 0: 200,000.
	MaxFiles int
	// MaxLog is the most bytes of one build's log; 0: 8 MiB.
	MaxLog int64
	// Git is how private repositories are opened.
	Git Access
	// SubmoduleFolders are folders of this machine whose repositories any app may have as submodules by
	// file URL (relative addresses in repositories that are file URLs come to that). None: no submodule
	// is read from this machine's disk.
	SubmoduleFolders []string
}

func (c Config) withDefaults() Config {
	setDefault(&c.Work, filepath.Join(os.TempDir(), "towpath-build"))
	setDefault(&c.Concurrency, 2)
	setDefault(&c.FetchTimeout, 5*time.Minute)
	setDefault(&c.MaxSource, 2<<30)
	setDefault(&c.MaxFiles, 200_000)
	setDefault(&c.MaxLog, 8<<20)
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
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("build: "+format, args...)) }
	if _, err := registry.ParseRepository(c.Registry + "/app"); err != nil || c.Registry == "" {
		fault("registry: %q is not host:port or host:port/path (give it, or registry.address in the platform file)", c.Registry)
	}
	if c.Concurrency < 0 || c.Concurrency > 64 {
		fault("concurrency: %d is not 1 to 64", c.Concurrency)
	}
	if u, err := parseRepository(c.Gateway + "/git/app.git"); err != nil || u.scheme != "http" && u.scheme != "https" {
		fault("gateway: %q is not http(s)://host[:port]", c.Gateway)
	}
	if c.FetchTimeout < 0 {
		fault("fetchTimeout must not be negative")
	}
	if c.MaxSource < 0 || c.MaxFiles < 0 || c.MaxLog < 0 {
		fault("maxSource, maxFiles and maxLog must not be negative")
	}
	for name, path := range map[string]string{
		"work": c.Work, "git.credentials": c.Git.Credentials, "git.sshKey": c.Git.SSHKey, "git.sshKnownHosts": c.Git.SSHKnownHosts,
	} {
		if path != "" && !filepath.IsAbs(path) {
			fault("%s: %q is not an absolute path", name, path)
		}
	}
	for _, folder := range c.SubmoduleFolders {
		if !filepath.IsAbs(folder) || filepath.Clean(folder) == "/" {
			fault("submoduleFolders: %q is not an absolute path below /", folder)
		}
	}
	return errors.Join(faults...)
}
