// Package gateway is the way in: git pushes over HTTP, submitted changes and images, the HTTP API, and a page for each
// run.
//
// It guarantees that every entry asks one function whether the actor may do this, that a push which git took in
// becomes a run (at once, or after a crash at the next start), and that what it shows is a function of the ledger. It
// advances no run: that is for the workers, who act on its events.
package gateway

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"time"
)

// Config of the service. The zero value of a field with a default means the default.
type Config struct {
	// Listen is the address of git, API and pages, host:port; port 0 takes a free one. Default 127.0.0.1:7070.
	Listen string
	// Data is the folder for repositories and the first token. Required.
	Data string
	// URL is the gateway's address as people reach it, without a slash at the end; empty: http:// and the address that
	// it listens on.
	URL string
	// Edge is the edge's address as people reach it, such as http://127.0.0.1:7080; empty: endpoints are not shown.
	Edge string
	// TokenFile is where the first administrator's token is kept, mode 0600; made where it is missing. Default: token
	// in Data.
	TokenFile string
	// Admin is who that token belongs to. An email address that the person's commits carry lets Towpath know whose
	// they are.
	Admin Admin
	// HookCommand is the program, with its first arguments, that git runs as a hook; the hook's name is added. It
	// must call hook.Run. Default: this executable with "hook".
	HookCommand []string
	// RefuseFiles keeps repositories on the gateway's own disk (file://) from being submitted.
	RefuseFiles bool
	// DrainTimeout bounds how long a stop waits for pushes that have begun. 0: 30 s.
	DrainTimeout time.Duration
}

// Admin is the first administrator.
type Admin struct{ Name, Email string }

func (c Config) withDefaults() Config {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:7070"
	}
	if c.TokenFile == "" {
		c.TokenFile = filepath.Join(c.Data, "token")
	}
	if c.Admin.Name == "" {
		c.Admin.Name = "admin"
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
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("gateway: "+format, args...)) }
	if c.Data == "" {
		fault("the data folder is missing")
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		fault("listen %q must be host:port", c.Listen)
	}
	for name, text := range map[string]string{"url": c.URL, "edge": c.Edge} {
		u, err := url.Parse(text)
		if text != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "") {
			fault("%s %q must be http://host:port or https://host:port, without a path", name, text)
		}
	}
	if c.DrainTimeout < 0 {
		fault("drain timeout %s is negative", c.DrainTimeout)
	}
	return errors.Join(faults...)
}

// Flags defines the flags by which a process of its own is configured.
func (c *Config) Flags(set *flag.FlagSet) {
	set.StringVar(&c.Listen, "listen", "127.0.0.1:7070", "address of git, API and pages, host:port")
	set.StringVar(&c.Data, "data", "data", "folder for repositories and the first token")
	set.StringVar(&c.URL, "url", "", "the gateway's address as others reach it (default: http:// and the listen address)")
	set.StringVar(&c.Edge, "edge", "", "the edge's address as people reach it, such as http://127.0.0.1:7080")
	set.StringVar(&c.TokenFile, "token-file", "", "where the first administrator's token is kept (default: token in the data folder)")
	set.StringVar(&c.Admin.Name, "admin-name", "", "name of the first administrator")
	set.StringVar(&c.Admin.Email, "admin-email", "", "email address that the first administrator's commits carry")
	set.BoolVar(&c.RefuseFiles, "refuse-files", false, "take no repositories from this machine's disk (file://)")
}

// repositories is the folder of git repositories.
func (c Config) repositories() string { return filepath.Join(c.Data, "git") }
