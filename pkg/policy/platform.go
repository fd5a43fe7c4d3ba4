// Package policy reads platform.yaml: where the platform's engines and registry are, what anybody may
// use of them, and the organisation's policy, by which every artifact is judged.
//
// It guarantees that a Platform which came out of Parse is complete (every default is written into it),
// that its Policy has one canonical text whose digest names it and from which it can be read back, and
// that judging is a pure function of findings and policy: more findings, or a stricter policy, never
// give a better verdict. It finds nothing out itself, and takes nothing from a pushed tree but what is
// stricter than the platform's own rule.
package policy

import (
	"fmt"
	"os"
	"time"

	"towpath.dev/events"
)

// FileName is the name of the platform file in the data folder.
const FileName = "platform.yaml"

// DefaultEnvironment is the name under which a table holds what counts for the environments that it
// does not name.
const DefaultEnvironment events.Slug = "default"

// Platform is one platform.yaml with every default applied.
type Platform struct {
	Engines  Engines
	Registry Registry
	Witness  Witness
	Limits   Limits
	Vet      Vet
	Notify   []Receiver
	Settings map[events.Slug]Stores // always has DefaultEnvironment
	Policy   Policy
	// Examples are those of the policy's conditions, in the order of the file.
	Examples []Example
}

// Receiver is a webhook that is told what somebody has to act on, or waits for. No policy text holds it.
type Receiver struct {
	Name string // a slug
	// URL or URLFile is where: the address, or a file that holds it because it is a secret. One of them is empty.
	URL     string
	URLFile string
	Kinds   []string // of NoticeKinds
}

// The kinds of notifications.
const (
	NoticeApproval = "approval" // an approval is wanted
	NoticeStuck    = "stuck"    // an operator has to act
	NoticeFailed   = "failed"   // the author has to act
	NoticeDone     = "done"     // a run is verified in its last environment
	NoticeDrift    = "drift"    // something was changed behind Towpath's back
	NoticeAlarm    = "alarm"    // somebody else may hold what was handed over for a service or a container alone
)

// NoticeKinds are all kinds of notifications.
var NoticeKinds = []string{NoticeApproval, NoticeStuck, NoticeFailed, NoticeDone, NoticeDrift, NoticeAlarm}

// Engines says which Docker Engine does what.
type Engines struct {
	Build        Engine
	Environments map[events.Slug]Engine // always has DefaultEnvironment
}

// Engine is one Docker Engine and how its containers are reached.
type Engine struct {
	Host      string // unix:///path, ssh://[user@]host[:port] or tcp://host:port
	TLS       TLS    // for tcp:// only
	Publish   string // IP address on which containers' ports are published; empty: the engine's own
	Dedicated bool   // nothing but builds runs on it, so limits may be put on the whole engine
}

// TLS names PEM files for tcp://: all three, or none.
type TLS struct{ CA, Cert, Key string }

// Registry is where images are kept.
type Registry struct {
	// Address is host[:port] with an optional path in front of the apps' names; empty: the registry
	// that `towpath up` runs. Credentials come from Docker's configuration file.
	Address string
}

// Witness is who cosigns the ledger's checkpoints, somewhere that the ledger's administrators cannot reach:
// a C2SP tlog-witness such as `towpath witness`. Its zero value: nobody.
type Witness struct {
	URL string // http:// or https://
	Key string // verifier key, as the witness prints it: "name+0123abcd+base64"
}

// Vet says what vetting looks for malicious files with, besides what it knows itself.
type Vet struct {
	Clamd      string // unix:///path or tcp://host:port; empty: none
	Signatures string // folder of .hsb and .ndb files; empty: none
}

// Limits are the largest amounts of anything that a pushed tree can make the platform use. No policy
// text holds them: they protect the platform and judge nothing.
type Limits struct {
	Build BuildLimits
	Push  int64 // bytes of one git push
	Image int64 // bytes of an image's unpacked content; vet reads no more
	Files int   // entries in an image's layers; vet reads no more
}

// BuildLimits bound one build. Memory, CPUs and PIDs hold only where the build engine is dedicated.
type BuildLimits struct {
	Timeout time.Duration
	Memory  int64   // bytes
	CPUs    float64 // cores
	PIDs    int     // processes and threads
}

// Engine returns the engine that an environment runs on.
func (p *Platform) Engine(env events.Slug) Engine {
	if e, ok := p.Engines.Environments[env]; ok {
		return e
	}
	return p.Engines.Environments[DefaultEnvironment]
}

// BuildTimeout returns how long a build may take for which a pipeline asks for asked; 0: it does not
// ask. The pipeline can only shorten it.
func (p *Platform) BuildTimeout(asked time.Duration) time.Duration {
	timeout := min(p.Limits.Build.Timeout, p.Policy.Deadlines.Build)
	if asked > 0 {
		timeout = min(timeout, asked)
	}
	return timeout
}

// Load reads a platform file. A file that cannot be read or has faults is an error; the faults are a
// *strictyaml.Faults.
func Load(path string) (*Platform, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the platform file: %w", err)
	}
	return Parse(path, data)
}

// localEngine is where the Docker Engine of this machine answers.
const localEngine = "unix:///var/run/docker.sock"

// Default is the platform of a fresh `towpath up`; DefaultText says the same with reasons.
func Default() *Platform {
	return &Platform{
		Engines: Engines{
			Build:        Engine{Host: localEngine},
			Environments: map[events.Slug]Engine{DefaultEnvironment: {Host: localEngine}},
		},
		Settings: map[events.Slug]Stores{DefaultEnvironment: {}},
		Limits: Limits{
			Build: BuildLimits{Timeout: 20 * time.Minute, Memory: 4 << 30, CPUs: 2, PIDs: 4096},
			Push:  512 << 20,
			Image: 8 << 30,
			Files: 500_000,
		},
		Policy: defaultPolicy(),
	}
}
