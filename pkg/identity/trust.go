package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"towpath.dev/events"
)

// Trust is the set of public keys that may sign, and as whom. It does not change once loaded and is
// safe for concurrent use. It remembers what it verified last: a process that meets an event again, in
// another of its services or in a worker's message, does not pay for the signature twice.
type Trust struct {
	keys     map[string]trustedKey
	verified memory
}

// trustedKey is one entry of trust.json.
type trustedKey struct {
	ID        string            `json:"id"`
	Public    ed25519.PublicKey `json:"public"` // 32 bytes, base64
	Writer    events.Writer     `json:"writer"`
	NotBefore time.Time         `json:"notBefore,omitzero"` // zero: always
}

type trustFile struct {
	Keys []trustedKey `json:"keys"`
}

// LoadTrust reads a trust.json.
func LoadTrust(path string) (*Trust, error) {
	file, err := readTrust(path)
	if err != nil {
		return nil, err
	}
	t := &Trust{keys: map[string]trustedKey{}}
	for _, k := range file.Keys {
		if len(k.Public) != ed25519.PublicKeySize || k.ID != keyID(k.Public) {
			return nil, fmt.Errorf("trusted keys %s: key %.32q is not the Ed25519 key that its id names", path, k.ID)
		}
		if !slices.Contains(events.Writers, k.Writer) {
			return nil, fmt.Errorf("trusted keys %s: key %s: %.32q writes no events", path, k.ID, k.Writer)
		}
		t.keys[k.ID] = k
	}
	return t, nil
}

func readTrust(path string) (trustFile, error) {
	var file trustFile
	data, err := os.ReadFile(path)
	if err != nil {
		return file, fmt.Errorf("reading the trusted keys: %w", err)
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return file, fmt.Errorf("trusted keys %s: %w", path, err)
	}
	return file, nil
}

// extendTrust adds the writers' present keys to dir's trust.json. Keys that it already lists stay, so
// that what they signed can still be verified.
func extendTrust(dir string) error {
	path := filepath.Join(dir, TrustFile)
	file, err := readTrust(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	before := len(file.Keys)
	for _, w := range events.Writers {
		key, err := loadSigningKey(dir, string(w))
		if err != nil {
			return err
		}
		public := key.Public().(ed25519.PublicKey)
		if !slices.ContainsFunc(file.Keys, func(k trustedKey) bool { return k.ID == keyID(public) }) {
			file.Keys = append(file.Keys, trustedKey{ID: keyID(public), Public: public, Writer: w})
		}
	}
	if len(file.Keys) == before {
		return nil
	}
	data, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return err
	}
	return writeWhole(path, append(data, '\n'), 0o644)
}

// Verify checks a SignatureHeader's value over subject and body and returns the writer that the key
// belongs to. The error wraps ErrSignature. Whether that writer may write there is for the caller:
// it must be the subject's own writer.
func (t *Trust) Verify(subject string, body []byte, signature string) (writer string, err error) {
	k, err := t.verify(signedBytes(subject, body), signature)
	return string(k.Writer), err
}

// VerifyAt is Verify, and refuses a key that was not yet valid when the event was stored.
func (t *Trust) VerifyAt(subject string, body []byte, signature string, stored time.Time) (writer string, err error) {
	k, err := t.verify(signedBytes(subject, body), signature)
	if err != nil {
		return "", err
	}
	if stored.Before(k.NotBefore) {
		return "", fmt.Errorf("%w: key %s is valid from %s", ErrSignature, k.ID, k.NotBefore.Format(time.RFC3339))
	}
	return string(k.Writer), nil
}

// VerifyPayload checks a DSSE envelope and returns its payload and the writer whose key signed it. One
// good signature of a trusted key is enough. The error wraps ErrSignature.
func (t *Trust) VerifyPayload(e dsse.Envelope) (payload []byte, writer string, err error) {
	payload, err = e.DecodeB64Payload()
	if err != nil {
		return nil, "", fmt.Errorf("%w: %v", ErrSignature, err)
	}
	err = fmt.Errorf("%w: the envelope has no signature", ErrSignature)
	for _, s := range e.Signatures {
		k, failure := t.verify(dsse.PAE(e.PayloadType, payload), s.KeyID+" "+s.Sig)
		if failure == nil {
			return payload, string(k.Writer), nil
		}
		err = failure
	}
	return nil, "", err
}

func (t *Trust) verify(message []byte, signature string) (trustedKey, error) {
	id, sig, err := splitSignature(signature)
	if err != nil {
		return trustedKey{}, err
	}
	k, ok := t.keys[id]
	if !ok {
		return trustedKey{}, fmt.Errorf("%w: key %.32q is not trusted", ErrSignature, id)
	}
	proof := proofOf(k.Public, message, sig)
	if t.verified.has(proof) {
		return k, nil
	}
	if !ed25519.Verify(k.Public, message, sig) {
		return trustedKey{}, fmt.Errorf("%w: key %s (%s) did not sign this under this subject", ErrSignature, id, k.Writer)
	}
	t.verified.add(proof)
	return k, nil
}
