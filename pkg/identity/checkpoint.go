package identity

import (
	"cmp"
	"crypto/ed25519"
	"slices"
	"time"

	"towpath.dev/events"
)

// SignCheckpoint signs the text of a checkpoint of the sealed ledger, and says with which key. A
// checkpoint's first line names the ledger, so that its bytes are never those of an event or a statement,
// which begin with "DSSEv1".
func (s *Signer) SignCheckpoint(text []byte) (public ed25519.PublicKey, sig []byte) {
	key := s.file.get().private
	return key.Public().(ed25519.PublicKey), ed25519.Sign(key, text)
}

// PublicKey is one that the list of trusted keys has.
type PublicKey struct {
	ID    string
	Key   ed25519.PublicKey
	entry trustedKey
}

// ValidAt says why the key may not have signed about what was stored at a time, with the allowance of
// VerifyAt.
func (k PublicKey) ValidAt(stored time.Time) error { return k.entry.valid(stored, storedSlack) }

// Retired is from when on the key signs nothing new; zero: it has not been retired.
func (k PublicKey) Retired() time.Time { return k.entry.Retired }

// MaySign says why the key may sign nothing new now.
func (k PublicKey) MaySign(now time.Time) error { return k.entry.valid(now, 0) }

// PublicKeys returns every key that a writer signs or signed with, retired ones too, by their ids.
func (t *Trust) PublicKeys(w events.Writer) []PublicKey {
	known, _ := t.file.fresh() // where the file cannot be read, what is known stays
	var keys []PublicKey
	for _, k := range known.keys {
		if k.Writer == w {
			keys = append(keys, PublicKey{k.ID, k.Public, k})
		}
	}
	slices.SortFunc(keys, func(a, b PublicKey) int { return cmp.Compare(a.ID, b.ID) })
	return keys
}
