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
	"towpath.dev/pkg/wholefile"
)

// Trust is the set of public keys that may sign, and as whom. It reads its file again when that changes,
// within half a second, so that keys rotate while a process runs; it is safe for concurrent use. It
// remembers what it verified last: a process that meets an event again, in another of its services or in
// a worker's message, does not pay for the signature twice.
type Trust struct {
	file     *file[trusted]
	verified memory
}

// trusted is what a trust.json says.
type trusted struct {
	keys      map[string]trustedKey
	rotations []Rotation
}

// trustedKey is one entry of trust.json. An entry is never taken away: what the key signed stays signed.
//
//	valid ──(Retired passes)──> retired: verifies what was stored before, signs nothing new
type trustedKey struct {
	ID        string            `json:"id"`
	Public    ed25519.PublicKey `json:"public"` // 32 bytes, base64
	Writer    events.Writer     `json:"writer"`
	NotBefore time.Time         `json:"notBefore,omitzero"` // zero: always
	Retired   time.Time         `json:"retired,omitzero"`   // from then on it signs nothing new; zero: never
}

// valid says why a key may not sign at a time. slack widens its life at both ends.
func (k trustedKey) valid(at time.Time, slack time.Duration) error {
	switch {
	case at.Add(slack).Before(k.NotBefore):
		return fmt.Errorf("%w: key %s (%s) is valid from %s", ErrKey, k.ID, k.Writer, k.NotBefore.Format(time.RFC3339))
	case !k.Retired.IsZero() && !at.Add(-slack).Before(k.Retired):
		return fmt.Errorf("%w: key %s (%s) was retired at %s", ErrKey, k.ID, k.Writer, k.Retired.Format(time.RFC3339))
	}
	return nil
}

// storedSlack is how far the clocks of the door, the bus and whoever rotates keys may lie apart before an
// event that the door has let in is not believed by those who read it. The door itself allows none.
const storedSlack = time.Hour

// ErrKey is wrapped, beside ErrSignature, where a signature may be right and its key is not one that may
// sign now: unknown, retired, or not valid yet. Whoever signed should read its own key again.
var ErrKey = fmt.Errorf("%w: the key may not sign", ErrSignature)

type trustFile struct {
	Keys      []trustedKey `json:"keys"`
	Rotations []Rotation   `json:"rotations,omitempty"`
}

// LoadTrust reads a trust.json, and will read it again when it has changed.
func LoadTrust(path string) (*Trust, error) {
	f, err := openFile(path, parseTrust)
	if err != nil {
		return nil, err
	}
	return &Trust{file: f}, nil
}

func parseTrust(path string) (trusted, error) {
	file, err := readTrust(path)
	if err != nil {
		return trusted{}, err
	}
	t := trusted{keys: map[string]trustedKey{}, rotations: file.Rotations}
	for _, k := range file.Keys {
		if len(k.Public) != ed25519.PublicKeySize || k.ID != keyID(k.Public) {
			return trusted{}, fmt.Errorf("trusted keys %s: key %.32q is not the Ed25519 key that its id names", path, k.ID)
		}
		if !slices.Contains(events.Writers, k.Writer) {
			return trusted{}, fmt.Errorf("trusted keys %s: key %s: %.32q writes no events", path, k.ID, k.Writer)
		}
		t.keys[k.ID] = k
	}
	return t, nil
}

// Rotations returns every rotation that the list of trusted keys tells of, oldest first.
func (t *Trust) Rotations() []Rotation { return slices.Clone(t.file.get().rotations) }

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
	return file.write(path)
}

func (f trustFile) write(path string) error {
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return wholefile.Write(path, append(data, '\n'), 0o644)
}

// Verify checks a SignatureHeader's value over subject and body and returns the writer that the key
// belongs to. The error wraps ErrSignature. Whether that writer may write there is for the caller:
// it must be the subject's own writer.
func (t *Trust) Verify(subject string, body []byte, signature string) (writer string, err error) {
	k, err := t.verify(signedBytes(subject, body), signature)
	return string(k.Writer), err
}

// VerifyNew is Verify for an event that is to be stored now: its key must be one that may sign now. The
// error wraps ErrKey where that is what is wrong.
func (t *Trust) VerifyNew(subject string, body []byte, signature string, now time.Time) (writer string, err error) {
	return t.verifyAt(signedBytes(subject, body), signature, now, 0)
}

// VerifyAt is Verify for an event that was stored at a time: it refuses a key that had been retired, or
// was not yet valid, an hour before or after. Which keys may sign at a moment is the door's to decide, by
// its own clock; an hour allows for clocks that differ.
func (t *Trust) VerifyAt(subject string, body []byte, signature string, stored time.Time) (writer string, err error) {
	return t.verifyAt(signedBytes(subject, body), signature, stored, storedSlack)
}

func (t *Trust) verifyAt(message []byte, signature string, at time.Time, slack time.Duration) (writer string, err error) {
	k, err := t.verify(message, signature)
	if err == nil {
		err = k.valid(at, slack)
	}
	if err != nil {
		return "", err
	}
	return string(k.Writer), nil
}

// VerifyPayload checks a DSSE envelope and returns its payload and the writer whose key signed it. One
// good signature of a trusted key is enough, one that has been retired since included: a statement
// outlives the key that signed it. The error wraps ErrSignature.
func (t *Trust) VerifyPayload(e dsse.Envelope) (payload []byte, writer string, err error) {
	return t.verifyPayload(e, func(trustedKey) error { return nil })
}

// VerifyPayloadNew is VerifyPayload for what was signed just now, such as a password: the key must be one
// that may sign now.
func (t *Trust) VerifyPayloadNew(e dsse.Envelope, now time.Time) (payload []byte, writer string, err error) {
	return t.verifyPayload(e, func(k trustedKey) error { return k.valid(now, 0) })
}

// PresentKeys verifies payloads as Trust does, and takes only those of keys that may sign now: for a statement
// that nothing else bears out, which whoever got hold of a retired key could have made today.
type PresentKeys struct{ Trust *Trust }

// VerifyPayload is Trust.VerifyPayloadNew at the time of the call.
func (p PresentKeys) VerifyPayload(e dsse.Envelope) (payload []byte, writer string, err error) {
	return p.Trust.VerifyPayloadNew(e, time.Now())
}

func (t *Trust) verifyPayload(e dsse.Envelope, accepted func(trustedKey) error) (payload []byte, writer string, err error) {
	payload, err = e.DecodeB64Payload()
	if err != nil {
		return nil, "", fmt.Errorf("%w: %v", ErrSignature, err)
	}
	err = fmt.Errorf("%w: the envelope has no signature", ErrSignature)
	for _, s := range e.Signatures {
		k, failure := t.verify(dsse.PAE(e.PayloadType, payload), s.KeyID+" "+s.Sig)
		if failure == nil {
			failure = accepted(k)
		}
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
	k, ok := t.file.get().keys[id]
	if !ok { // it may have come into the file just now
		keys, unread := t.file.fresh()
		if k, ok = keys.keys[id]; !ok && unread != nil {
			return trustedKey{}, fmt.Errorf("%w: key %.32q is not trusted (%w)", ErrKey, id, unread)
		}
	}
	if !ok {
		return trustedKey{}, fmt.Errorf("%w: key %.32q is not trusted", ErrKey, id)
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
