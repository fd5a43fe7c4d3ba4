package events

import "time"

// TypeKeyRotated is the type of the event that tells of changed keys; the ledger service writes it.
const TypeKeyRotated Type = "dev.cdeventsx.towpath-key.rotated.0.1.0"

// KeyRotated is written once for each change of an identity's keys, as soon as the ledger service reads of
// it in the list of trusted keys. It names keys and holds none. Its subject id is <identity>/<key>. Nobody
// acts on it: which keys may sign is in the list.
type KeyRotated struct {
	About
	Identity    string    `json:"identity"`
	Key         string    `json:"key"`              // id of the key that signs from then on
	Replaces    string    `json:"replaces"`         // id of the key that signed before
	BusKey      string    `json:"busKey,omitempty"` // NATS public keys; empty: the bus key stays
	ReplacesBus string    `json:"replacesBus,omitempty"`
	Retires     time.Time `json:"retires"` // from then on the key before signs nothing new
	Actor       string    `json:"actor"`
	Reason      string    `json:"reason,omitempty"`
}

func (*KeyRotated) Type() Type  { return TypeKeyRotated }
func (*KeyRotated) custom() any { return nil }

// KeyRotatedSubject is where key.rotated is stored: once for each new key of an identity.
func KeyRotatedSubject(epoch int, identity, key string) Subject {
	return at(epoch, Ledger, TypeKeyRotated, "", 0, "", Key(identity, key), 0)
}
