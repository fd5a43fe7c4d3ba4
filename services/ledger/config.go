// Package ledger is the service that owns the ledger's door: the only way by which events get into the
// log. It keeps no state, so that any number of its processes may serve one bus.
package ledger

// Config of the service. It has no settings of its own: the bus, the keys and the epoch are the
// runtime's.
type Config struct{}

// Validate reports all faults at once.
func (Config) Validate() error { return nil }
