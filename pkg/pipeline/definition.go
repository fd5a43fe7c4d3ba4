// Package pipeline reads an app's towpath.yaml and holds its stages as data.
//
// It guarantees that a Definition which came out of Parse or ParseCanonical is complete (every default is
// written into it), within bounds (see the constants) and has exactly one canonical JSON form, whose digest
// names it. It does not look at any other file of the repository: whether the Dockerfile exists is for the
// build to say. It knows nothing of the platform's policy, which may only tighten what is written here.
package pipeline

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"towpath.dev/events"
)

// FileName is the name of the definition at the root of an app's repository.
const FileName = "towpath.yaml"

// OnNewer says what happens to a run on its way when a newer run of the same app reaches the same environment.
type OnNewer string

const (
	// Supersede lets the newer run pass: older ones that have not reached the environment end as superseded.
	Supersede OnNewer = "supersede"
	// Queue takes runs oldest first; a newer one waits for its turn.
	Queue OnNewer = "queue"
)

// Duration is a time.Duration that is written as a Go duration string ("1m30s") in JSON.
type Duration time.Duration

// MarshalJSON writes the duration as time.Duration prints it.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// UnmarshalJSON reads a Go duration string.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("a duration is a string such as \"30s\": %w", err)
	}
	value, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("duration %q: %w", text, err)
	}
	*d = Duration(value)
	return nil
}

// String is the duration as time.Duration prints it.
func (d Duration) String() string { return time.Duration(d).String() }

// Definition is one app's towpath.yaml with every default applied. Service is never nil in a parsed Definition.
//
// A field added later must be omitted from JSON at its zero value, and its zero must mean what was done before
// the field existed: definitions are pinned by digest in the ledger for ever.
type Definition struct {
	App          events.Slug   `json:"app"`                // at most 40 long
	Branch       string        `json:"branch"`             // the branch whose pushes start runs, without refs/heads/
	Build        Build         `json:"build"`              //
	Service      *Service      `json:"service"`            //
	Release      []string      `json:"release,omitempty"`  // command and arguments; once per promotion, before the switch
	Config       []string      `json:"config,omitempty"`   // configuration keys that every environment must have
	Secrets      []string      `json:"secrets,omitempty"`  // secret keys that every environment must have
	Discover     bool          `json:"discover,omitempty"` // the app finds its settings itself, in Consul and Vault; none is handed to it
	OnNewer      OnNewer       `json:"onNewer"`
	Environments []Environment `json:"environments"` // in the order in which a run passes them; never empty
}

// Build says how the image is made.
type Build struct {
	Dockerfile string            `json:"dockerfile"`       // path below the repository's root, slashes
	Context    string            `json:"context"`          // folder below the repository's root, "." for the root
	Target     string            `json:"target,omitempty"` // stage of the Dockerfile; empty: the last
	Args       map[string]string `json:"args,omitempty"`   // build arguments
	Timeout    Duration          `json:"timeout"`          // the platform's limit applies too
}

// Service says how containers of the image are run.
type Service struct {
	Port          int      `json:"port,omitempty"` // TCP port in the container, 1–65535; 0: the app listens on none
	Health        Health   `json:"health"`
	Replicas      int      `json:"replicas"`      // ≥ 1, unless an environment says otherwise
	HealthTimeout Duration `json:"healthTimeout"` // how long a new replica may take until it is healthy
	DrainTimeout  Duration `json:"drainTimeout"`  // how long requests in flight may take before an old replica is stopped
}

// Health says when a replica is healthy. At most one field is set. With neither, a replica that has a port is
// healthy when the port accepts a connection, and one without a port when its container keeps running.
type Health struct {
	Path    string   `json:"path,omitempty"`    // GET of this path on the port answers 200–399
	Command []string `json:"command,omitempty"` // run in the container, exits 0
}

// Environment is one stop on a run's way.
type Environment struct {
	Name      events.Slug `json:"name"`                // at most 40 long, unique
	Replicas  int         `json:"replicas"`            // ≥ 1; Service.Replicas unless the environment has its own
	Approvals int         `json:"approvals,omitempty"` // people who must approve; the platform may ask for more
	Verify    []Check     `json:"verify,omitempty"`    // after health; all must pass
}

// Check is one verification of a deployed version. Exactly one of HTTP and Command is set.
type Check struct {
	HTTP    *HTTPCheck `json:"http,omitempty"`
	Command []string   `json:"command,omitempty"` // run in a container of the same digest, exits 0
	Timeout Duration   `json:"timeout"`           // for the whole check, retries included
}

// HTTPCheck is a GET against the deployed app.
type HTTPCheck struct {
	Path     string `json:"path"`               // begins with /
	Status   int    `json:"status"`             // expected status code
	Contains string `json:"contains,omitempty"` // text that the body must hold
}

// String describes the check in a few words, for people.
func (c Check) String() string {
	if c.HTTP == nil {
		return "command " + fmt.Sprint(c.Command)
	}
	text := fmt.Sprintf("GET %s is %d", c.HTTP.Path, c.HTTP.Status)
	if c.HTTP.Contains != "" {
		text += fmt.Sprintf(" and contains %q", c.HTTP.Contains)
	}
	return text
}

// Environment finds an environment by name.
func (d Definition) Environment(name events.Slug) (Environment, bool) {
	for _, environment := range d.Environments {
		if environment.Name == name {
			return environment, true
		}
	}
	return Environment{}, false
}

// EnvironmentNames lists the environments in order.
func (d Definition) EnvironmentNames() []events.Slug {
	names := make([]events.Slug, len(d.Environments))
	for i, environment := range d.Environments {
		names[i] = environment.Name
	}
	return names
}

// Canonical is the one JSON form of the definition: fields in fixed order, map keys sorted, no white space, and
// <, > and & escaped, so that the bytes survive being embedded in other JSON as a json.RawMessage. Two definitions
// mean the same exactly when these bytes are equal.
func (d Definition) Canonical() []byte {
	data, err := json.Marshal(d)
	if err != nil {
		panic("pipeline: a Definition has only fields that JSON can hold: " + err.Error())
	}
	return data
}

// Digest is "sha256:" and the hex of SHA-256 over Canonical.
func (d Definition) Digest() string {
	sum := sha256.Sum256(d.Canonical())
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ParseCanonical reads what Canonical wrote. It refuses anything else, so that Digest of the result is the digest
// of data: other keys, another order, white space, missing defaults, values that Parse would refuse.
func ParseCanonical(data []byte) (Definition, error) {
	definition, err := parse("pinned definition", data, maxCanonical)
	if err != nil {
		return Definition{}, fmt.Errorf("reading a pinned pipeline definition: %w", err)
	}
	if !bytes.Equal(definition.Canonical(), data) {
		return Definition{}, errors.New("reading a pinned pipeline definition: it is not in canonical form")
	}
	return definition, nil
}
