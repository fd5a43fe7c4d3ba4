// Package deploy puts versions of apps on Docker Engines and gives them the traffic.
//
// Everything is keyed by app, environment and slot: names and labels follow from them, so that whoever
// comes after a crash finds what is there, adopts it and goes on. Doing a thing twice does it once. A
// slot gets no traffic before Switch, and traffic never goes back to a smaller slot. Secrets reach a
// container only as files in memory: they are in no image, label, argument, environment variable or
// error.
//
// An error that is the app's fault is an *UnhealthyError or a *ReleaseError; the author acts. Any other
// error is technical and worth another try; engine.IsUnreachable tells an engine that is down.
package deploy

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/discovery/catalog"
	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/settings"
)

// Config of a Deployer. Zero means the default.
type Config struct {
	// Install is the installation's id, 8 hexadecimal digits. Required.
	Install string
	// Domain is what host names end in, as at the edge. Default localhost.
	Domain string
	// FirstPort and LastPort bound the host ports that apps are published on. Default 20000–31999, which
	// Linux does not use for outgoing connections.
	FirstPort, LastPort int
	// Grace is how long a container may take to end after SIGTERM. Default 10 s.
	Grace time.Duration
	// Settle is how long a container that declares no health must run. Default 2 s.
	Settle time.Duration
	// Memory is a folder on tmpfs for secrets of local engines. Default: towpath-<install> below /run or
	// /dev/shm, whichever is on tmpfs; where neither is, secrets are kept as for remote engines.
	Memory string
}

// Deps are what a Deployer works with.
type Deps struct {
	Engines *engine.Fleet
	Table   discovery.Table
	// Catalog shows what the table says to whoever finds services in Consul; nil: nobody does.
	Catalog *catalog.Catalog
	// Access takes away what slots were granted to find their settings themselves; nil: none was.
	Access func(env events.Slug) []settings.Access
	Bus    *nats.Conn // of identity "promote", for asking the edge
	Logger *slog.Logger
}

// Deployer is safe for concurrent use, also by several processes: at most one of them should work on a
// slot at a time, because each waits for what the other has started.
type Deployer struct {
	cfg    Config
	deps   Deps
	memory string // folder on tmpfs; empty: none
	// seen says of local engines (engine.Host) whether they see this process's folders (bool).
	seen sync.Map
	// joining is held for reading between making sure of an environment's network and the start of a
	// container in it: an engine lets a network go that no running container is on.
	joining sync.RWMutex
}

// New validates and looks for a folder in memory.
func New(cfg Config, deps Deps) (*Deployer, error) {
	if cfg.Domain == "" {
		cfg.Domain = "localhost"
	}
	if cfg.FirstPort == 0 && cfg.LastPort == 0 {
		cfg.FirstPort, cfg.LastPort = 20000, 31999
	}
	if cfg.Grace == 0 {
		cfg.Grace = 10 * time.Second
	}
	if cfg.Settle == 0 {
		cfg.Settle = 2 * time.Second
	}
	var faults []error
	if !installID.MatchString(cfg.Install) {
		faults = append(faults, fmt.Errorf("deploy: install %q: must be 8 hexadecimal digits", cfg.Install))
	}
	if cfg.FirstPort < 1 || cfg.LastPort > 65535 || cfg.FirstPort > cfg.LastPort {
		faults = append(faults, fmt.Errorf("deploy: ports %d–%d: must be a range within 1–65535", cfg.FirstPort, cfg.LastPort))
	}
	if cfg.Grace < 0 || cfg.Settle < 0 {
		faults = append(faults, fmt.Errorf("deploy: grace %s, settle %s: must not be negative", cfg.Grace, cfg.Settle))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if deps.Logger == nil {
		deps.Logger = slog.Default()
	}
	return &Deployer{cfg: cfg, deps: deps, memory: memoryFolder(cfg)}, nil
}

var installID = regexp.MustCompile(`^[0-9a-f]{8}$`)

// Spec is one version of an app for one slot of an environment.
type Spec struct {
	Place   discovery.Place
	Slot    int
	Run     string // hello/42
	Attempt int
	// Adopt names containers of an earlier slot that may be taken over where they still run as this
	// version: the instances of a slot that comes back. They have the settings that they were started
	// with, so name them only where the slot's pins are the same.
	Adopt []string

	Repository  string // 127.0.0.1:7050/hello
	Digest      string // sha256:…
	Credentials engine.Credentials

	Port          int      // TCP port inside; 0: the app takes no requests
	HealthPath    string   // answers 200–399 when a replica is healthy
	HealthCommand []string // exits 0 when a replica is healthy
	Replicas      int
	HealthTimeout time.Duration // until a replica must be healthy. Default 60 s

	Release        []string      // command; empty: none
	ReleaseTimeout time.Duration // Default 10 min

	Config  map[string]string
	Secrets map[string]settings.Secret
	// Conceal are values that the app finds itself: they are nowhere in its containers, and are redacted all the same.
	Conceal []settings.Secret
	// Env are variables that Towpath itself gives, such as where an app finds its settings. Files are beside the
	// secrets, by name, as secret as they are, and have no variable of their own. A key of Config or Secrets goes before
	// one of theirs.
	Env   map[string]string
	Files map[string]settings.Secret
	// Own, where not nil, issues files to each container for each of its starts, which it finds in settings.OwnFolder.
	Own settings.Issuer
	// Redact, where not nil, cleans what the app has printed before it becomes part of an error; the
	// secrets above are taken out in any case.
	Redact func(string) string
}

var (
	digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	keyForm    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	fileForm   = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?$`)
)

func (s Spec) withDefaults() Spec {
	if s.HealthTimeout == 0 {
		s.HealthTimeout = time.Minute
	}
	if s.ReleaseTimeout == 0 {
		s.ReleaseTimeout = 10 * time.Minute
	}
	return s
}

// Validate reports all faults at once.
func (s Spec) Validate() error {
	var faults []error
	fault := func(bad bool, format string, a ...any) {
		if bad {
			faults = append(faults, fmt.Errorf("slot %d of %s: "+format, append([]any{s.Slot, s.Place}, a...)...))
		}
	}
	_, errApp := events.ParseSlug(string(s.Place.App))
	_, errEnv := events.ParseSlug(string(s.Place.Env))
	fault(errApp != nil || errEnv != nil, "app and environment must be slugs")
	fault(s.Slot < 1, "slots begin at 1")
	fault(!digestForm.MatchString(s.Digest), "digest %q is not sha256:<64 hexadecimal digits>", s.Digest)
	fault(s.Repository == "", "repository must be given")
	fault(s.Port < 0 || s.Port > 65535, "port %d is not within 1–65535", s.Port)
	fault(s.Replicas < 1, "replicas %d: at least 1", s.Replicas)
	fault(s.HealthPath != "" && (s.Port == 0 || !strings.HasPrefix(s.HealthPath, "/")), "health path %q must begin with / and needs a port", s.HealthPath)
	for key := range s.Config {
		fault(!keyForm.MatchString(key), "config key %q must be letters, digits and _", key)
	}
	for key := range s.Secrets {
		fault(!fileForm.MatchString(key), "secret key %q must be letters, digits, _, - and inner dots", key)
	}
	for key := range s.Env {
		fault(!keyForm.MatchString(key), "variable %q must be letters, digits and _", key)
	}
	for name := range s.Files {
		fault(!fileForm.MatchString(name), "file %q must be letters, digits, _, - and inner dots", name)
	}
	return errors.Join(faults...)
}

// files are all that containers find in secretsTarget.
func (s Spec) files() map[string]settings.Secret {
	all := maps.Clone(s.Files)
	if all == nil {
		all = map[string]settings.Secret{}
	}
	maps.Copy(all, s.Secrets)
	return all
}

// Hidden are the values that nobody but the app may see.
func (s Spec) Hidden() []settings.Secret {
	return slices.AppendSeq(slices.Clone(s.Conceal), maps.Values(s.files()))
}

// redact cleans output of the app.
func (s Spec) redact(text string) string {
	text = settings.Redact(text, s.Hidden()...)
	if s.Redact != nil {
		text = s.Redact(text)
	}
	return text
}
