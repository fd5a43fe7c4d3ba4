package identity

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"towpath.dev/events"
)

// Seal returns the code by which this identity, and nobody else, knows its own files again: HMAC-SHA-256 with a key
// that is derived from its present signing key for one purpose. It is no signature: nobody else can check it. After
// the key was rotated, what was sealed before is not known any more.
func (s *Signer) Seal(purpose string, data []byte) ([sha256.Size]byte, error) {
	key, err := hkdf.Key(sha256.New, s.file.get().private.Seed(), nil, "towpath seal: "+purpose, sha256.Size)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("deriving the key that seals a %s: %w", purpose, err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(data)
	return [sha256.Size]byte(mac.Sum(nil)), nil
}

// KeyOf returns the id of the key in a SignatureHeader's value, verified or not.
func KeyOf(signature string) (keyID string, err error) {
	keyID, _, err = splitSignature(signature)
	return keyID, err
}

// Holds reports whether a key is trusted, and as this writer's. Keys that are retired by now are.
func (t *Trust) Holds(keyID string, w events.Writer) bool {
	k, ok := t.file.get().keys[keyID]
	return ok && k.Writer == w
}
