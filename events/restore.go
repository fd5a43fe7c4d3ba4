package events

import "time"

// TypeLedgerRestored is the type that a restore writes.
const TypeLedgerRestored Type = "dev.cdeventsx.towpath-ledger.restored.0.1.0"

// LedgerRestored is the first event after a ledger was brought back from a backup. Its subject id is the
// backup's. Nobody acts on it; reports show it.
type LedgerRestored struct {
	About
	Backup string    `json:"backup"` // id
	Taken  time.Time `json:"taken"`  // when the backup was begun
	Events uint64    `json:"events"` // that it held
	// Against says what the backup was held against, such as "the witness witness.example, which cosigned 42
	// events"; empty: nothing (or, where not Forced, an older Towpath wrote this and nobody knows).
	Against string `json:"against,omitempty"`
	// Lost is how many events Against knew of and the backup did not hold.
	Lost uint64 `json:"lost,omitempty"`
	// Forced says that an operator insisted, and Reason why: something was lost, or nobody can tell.
	Forced bool   `json:"forced,omitempty"`
	Reason string `json:"reason,omitempty"`
	Actor  string `json:"actor"`
}

// RestoredSubject is where ledger.restored is stored: once for each time that a ledger was brought back.
func RestoredSubject(epoch int, backup string, at time.Time) Subject {
	return Subject{
		Epoch: epoch, Writer: Ledger, Subject: TypeLedgerRestored.Subject(), Predicate: TypeLedgerRestored.Predicate(),
		Key: Key(backup, at.UTC().Format(time.RFC3339Nano)),
	}
}

func (*LedgerRestored) Type() Type  { return TypeLedgerRestored }
func (*LedgerRestored) custom() any { return nil }
