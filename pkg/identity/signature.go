package identity

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"towpath.dev/events"
)

// SignatureHeader is the message header that carries an event's signature: "<key id> <base64>".
const SignatureHeader = events.SignatureName

// PayloadType is the DSSE payload type of an event: its subject, a line feed, its body.
const PayloadType = "application/vnd.towpath.event.v1+json"

// ErrSignature is wrapped when a signature is missing, malformed, of an unknown key, or wrong.
var ErrSignature = errors.New("signature not accepted")

// Signer signs as one identity. It is safe for concurrent use. When the identity's key is rotated it signs
// with the new one, within half a second and without a restart.
type Signer struct {
	// ID is the identity, which for a service is its writer token.
	ID   string
	file *file[signingKey]
}

// signingKey is a private key and its name.
type signingKey struct {
	id      string
	private ed25519.PrivateKey
}

// LoadSigner reads the signing key of an identity from a keys folder.
func LoadSigner(dir, id string) (*Signer, error) {
	f, err := openFile(signingKeyFile(dir, id), func(path string) (signingKey, error) {
		key, err := readSigningKey(path)
		if err != nil {
			return signingKey{}, fmt.Errorf("reading the signing key of %s: %w", id, err)
		}
		return signingKey{keyID(key.Public().(ed25519.PublicKey)), key}, nil
	})
	if err != nil {
		return nil, err
	}
	return &Signer{ID: id, file: f}, nil
}

// Refresh reads the key again now: whoever was told that its key may not sign calls it before it tries
// again. It reports the id of the key that signs from now on.
func (s *Signer) Refresh() (keyID string) {
	key, _ := s.file.fresh() // where the file cannot be read, the key that is known stays
	return key.id
}

// Sign returns the value of SignatureHeader for a body that is stored under subject (DSSE 1.0, PAE).
func (s *Signer) Sign(subject string, body []byte) string {
	key := s.file.get()
	return key.id + " " + base64.StdEncoding.EncodeToString(ed25519.Sign(key.private, signedBytes(subject, body)))
}

// SignPayload signs any DSSE payload, such as an in-toto statement, and returns the envelope.
func (s *Signer) SignPayload(payloadType string, payload []byte) dsse.Envelope {
	key := s.file.get()
	sig := ed25519.Sign(key.private, dsse.PAE(payloadType, payload))
	return dsse.Envelope{
		PayloadType: payloadType,
		Payload:     base64.StdEncoding.EncodeToString(payload),
		Signatures:  []dsse.Signature{{KeyID: key.id, Sig: base64.StdEncoding.EncodeToString(sig)}},
	}
}

// signedBytes is DSSE's pre-authentication encoding of a subject, a line feed and a body.
func signedBytes(subject string, body []byte) []byte {
	message := make([]byte, 0, 64+len(PayloadType)+len(subject)+len(body))
	message = fmt.Appendf(message, "DSSEv1 %d %s %d %s\n", len(PayloadType), PayloadType, len(subject)+1+len(body), subject)
	return append(message, body...)
}

// splitSignature reads "<key id> <base64>".
func splitSignature(header string) (id string, sig []byte, err error) {
	id, text, ok := strings.Cut(header, " ")
	if !ok || len(header) > 256 {
		return "", nil, fmt.Errorf("%w: want \"<key id> <base64>\"", ErrSignature)
	}
	sig, err = base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return "", nil, fmt.Errorf("%w: %v", ErrSignature, err)
	}
	if len(sig) != ed25519.SignatureSize {
		return "", nil, fmt.Errorf("%w: it has %d bytes, not %d", ErrSignature, len(sig), ed25519.SignatureSize)
	}
	return id, sig, nil
}
