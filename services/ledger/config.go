// Package ledger is the service that owns the ledger's door, the only way by which events get into the
// log, and that seals what is in it. Any number of its processes may serve one bus: the door keeps no
// state, and of two that seal at once the ledger's own write-once subjects let one be first.
package ledger

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"towpath.dev/pkg/seal"
)

// Config of the service. The bus, the keys and the epoch are the runtime's.
type Config struct {
	// State is the folder of the sealed tree and the newest checkpoints. Empty: the tree is kept in memory
	// and computed at each start, and only the checkpoints in the ledger itself tell what was sealed.
	State string
	// Every is how long a new event may wait to be sealed, and the least time between two checkpoints.
	// 0 means 5 s.
	Every time.Duration
	// CheckEvery is the time between two comparisons of the whole ledger with what was sealed; the first
	// is at the start. 0 means 1 h.
	CheckEvery time.Duration
	// Absence is how long the end of the ledger may be missing on the replica that answers before that
	// counts as rolled back. 0 means 10 s.
	Absence time.Duration
	// Witness is the base URL of a C2SP tlog-witness that cosigns checkpoints; empty: none.
	Witness string
	// WitnessKey is its verifier key, as `towpath witness` prints it.
	WitnessKey string
}

func (c Config) withDefaults() Config {
	if c.Every == 0 {
		c.Every = 5 * time.Second
	}
	if c.CheckEvery == 0 {
		c.CheckEvery = time.Hour
	}
	if c.Absence == 0 {
		c.Absence = 10 * time.Second
	}
	return c
}

// Validate reports all faults at once.
func (c Config) Validate() error {
	var faults []error
	if c.Every < 0 || c.CheckEvery < 0 || c.Absence < 0 {
		faults = append(faults, fmt.Errorf("sealing every %s, checking every %s, absent for %s: none may be negative", c.Every, c.CheckEvery, c.Absence))
	}
	if (c.Witness == "") != (c.WitnessKey == "") {
		faults = append(faults, errors.New("a witness needs both its URL and its key"))
	}
	if c.Witness != "" {
		if u, err := url.Parse(c.Witness); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			faults = append(faults, fmt.Errorf("witness %.120q must be http:// or https:// with a host", c.Witness))
		}
		if _, err := seal.ParseWitness(c.WitnessKey); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
