package seal

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
)

// Checkpoint is the head of the tree at a size.
type Checkpoint struct {
	Origin string // which ledger
	Size   uint64 // leaves
	Root   Hash
}

const originPrefix = "towpath.dev/ledger/"

// Origin names the log of one epoch of a ledger, which its first event's id tells from all others
// (ledger.Record.ID).
func Origin(ledgerID string, epoch int) string {
	return originPrefix + ledgerID + "/" + strconv.Itoa(epoch)
}

// LedgerOf returns the id of the ledger that an origin names.
func LedgerOf(origin string) (id string, err error) {
	id, epoch, ok := strings.Cut(strings.TrimPrefix(origin, originPrefix), "/")
	if _, err := strconv.Atoi(epoch); !ok || err != nil || len(id) != 64 || !strings.HasPrefix(origin, originPrefix) {
		return "", fmt.Errorf("%.120q names no ledger: it is written %s<64 hexadecimal digits>/<epoch>", origin, originPrefix)
	}
	return id, nil
}

// Text is what is signed: origin, size and root, each on a line.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// ErrCheckpoint is wrapped for what is no checkpoint that the caller has reason to trust.
var ErrCheckpoint = errors.New("checkpoint not accepted")

// parse reads what Text wrote, and nothing else.
func parse(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 {
		return Checkpoint{}, fmt.Errorf("%w: its text has %d lines, not 3", ErrCheckpoint, len(lines)-1)
	}
	size, err := strconv.ParseUint(lines[1], 10, 62)
	root, rootErr := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || rootErr != nil || len(root) != len(Hash{}) {
		return Checkpoint{}, fmt.Errorf("%w: size %.30q or root %.60q is malformed", ErrCheckpoint, lines[1], lines[2])
	}
	c := Checkpoint{Origin: lines[0], Size: size, Root: Hash(root)}
	if c.Text() != text {
		return Checkpoint{}, fmt.Errorf("%w: it is not written in the one way that there is", ErrCheckpoint)
	}
	return c, nil
}

// Algorithms of signatures on notes, as C2SP signed-note numbers them.
const (
	algEd25519     = 1
	algCosignature = 4
)

func keyHash(name string, alg byte, public ed25519.PublicKey) uint32 {
	h := sha256.New()
	h.Write([]byte(name + "\n"))
	h.Write([]byte{alg})
	h.Write(public)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// verifier checks one key's signatures on notes.
type verifier struct {
	name   string
	alg    byte
	public ed25519.PublicKey
}

func (v verifier) Name() string    { return v.name }
func (v verifier) KeyHash() uint32 { return keyHash(v.name, v.alg, v.public) }

func (v verifier) Verify(text, sig []byte) bool {
	if v.alg == algEd25519 {
		return ed25519.Verify(v.public, text, sig)
	}
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	at := binary.BigEndian.Uint64(sig)
	return at < 1<<62 && ed25519.Verify(v.public, cosigned(string(text), at), sig[8:])
}

// cosigned is what a witness signs.
func cosigned(text string, at uint64) []byte {
	return fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, text)
}

// Sign returns the signed note of a checkpoint. The key's name is the log's origin.
func Sign(key *identity.Signer, c Checkpoint) string {
	public, sig := key.SignCheckpoint([]byte(c.Text()))
	raw := append(binary.BigEndian.AppendUint32(nil, keyHash(c.Origin, algEd25519, public)), sig...)
	return c.Text() + "\n— " + c.Origin + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
}

// Cosignature is a witness's word that it saw this checkpoint and that it extends all those before.
type Cosignature struct {
	Witness string    `json:"witness"`
	At      time.Time `json:"at"`
}

// Signed is a checkpoint that was verified.
type Signed struct {
	Checkpoint
	Note string
	// Keys are the ledger's keys that signed it, at least one; whether they might at the time is for the caller.
	Keys         []identity.PublicKey
	Cosignatures []Cosignature // verified
	// Unknown are the names of those who signed as well and whose keys were not given.
	Unknown []string
}

// Open reads a signed note. At least one of the ledger's keys in trust must have signed it, every
// signature of a known key must be good, and it must be written in the one way that there is. The error
// wraps ErrCheckpoint.
func Open(text string, trust *identity.Trust, witnesses ...Witness) (Signed, error) {
	origin, _, _ := strings.Cut(text, "\n")
	var known []note.Verifier
	ledgers := trust.PublicKeys(events.Ledger)
	for _, k := range ledgers {
		known = append(known, verifier{origin, algEd25519, k.Key})
	}
	for _, w := range witnesses {
		known = append(known, verifier{w.Name, algCosignature, w.Public})
	}
	opened, err := note.Open([]byte(text), note.VerifierList(known...))
	if err != nil {
		return Signed{}, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	s := Signed{Note: text}
	if s.Checkpoint, err = parse(opened.Text); err != nil {
		return Signed{}, err
	}
	canonical := opened.Text + "\n"
	for _, sig := range opened.Sigs {
		for i, v := range known {
			if v.Name() != sig.Name || v.KeyHash() != sig.Hash {
				continue
			}
			if i < len(ledgers) {
				s.Keys = append(s.Keys, ledgers[i])
			} else {
				s.Cosignatures = append(s.Cosignatures, Cosignature{sig.Name, cosignedAt(sig.Base64)})
			}
		}
		canonical += line(sig)
	}
	for _, sig := range opened.UnverifiedSigs {
		s.Unknown = append(s.Unknown, sig.Name)
		canonical += line(sig)
	}
	switch {
	case len(s.Keys) == 0:
		return Signed{}, fmt.Errorf("%w: none of the ledger's trusted keys signed it", ErrCheckpoint)
	case canonical != text:
		return Signed{}, fmt.Errorf("%w: its signatures are not written in the one way that there is", ErrCheckpoint)
	}
	return s, nil
}

// line writes a signature as it has to be written.
func line(sig note.Signature) string {
	raw, err := base64.StdEncoding.DecodeString(sig.Base64)
	if err != nil {
		return ""
	}
	return "— " + sig.Name + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
}

func cosignedAt(sig string) time.Time {
	raw, err := base64.StdEncoding.DecodeString(sig)
	if err != nil || len(raw) < 12 {
		return time.Time{}
	}
	return time.Unix(int64(binary.BigEndian.Uint64(raw[4:12])), 0).UTC()
}
