package seal

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"towpath.dev/pkg/identity"
)

// Witness is the public key of a witness.
type Witness struct {
	Name   string
	Public ed25519.PublicKey
}

// String is the key as a C2SP verifier key: "<name>+<8 hexadecimal digits>+<base64>".
func (w Witness) String() string {
	return fmt.Sprintf("%s+%08x+%s", w.Name, keyHash(w.Name, algCosignature, w.Public),
		base64.StdEncoding.EncodeToString(append([]byte{algCosignature}, w.Public...)))
}

// ParseWitness reads what String writes.
func ParseWitness(text string) (Witness, error) {
	refuse := func(why string) (Witness, error) {
		return Witness{}, fmt.Errorf("witness key %.120q %s: copy what `towpath witness` printed", text, why)
	}
	name, rest, _ := strings.Cut(strings.TrimSpace(text), "+")
	hash, key, _ := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.Strict().DecodeString(key)
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != algCosignature {
		return refuse("is not <name>+<id>+<base64 of a cosignature key>")
	}
	if name == "" || strings.ContainsAny(name, " \n+") {
		return refuse("has no name without spaces")
	}
	w := Witness{name, ed25519.PublicKey(raw[1:])}
	if id, err := strconv.ParseUint(hash, 16, 32); err != nil || uint32(id) != keyHash(name, algCosignature, w.Public) {
		return refuse("does not have the id that its name and key make")
	}
	return w, nil
}

// Cosign returns a witness's signature line for a checkpoint's text.
func Cosign(name string, key ed25519.PrivateKey, c Checkpoint, at time.Time) string {
	sig := binary.BigEndian.AppendUint32(nil, keyHash(name, algCosignature, key.Public().(ed25519.PublicKey)))
	sig = binary.BigEndian.AppendUint64(sig, uint64(at.Unix()))
	sig = append(sig, ed25519.Sign(key, cosigned(c.Text(), uint64(at.Unix())))...)
	return "— " + name + " " + base64.StdEncoding.EncodeToString(sig) + "\n"
}

// Files in the ledger service's folder.
const (
	HashesFile     = "hashes"     // the tree
	CheckpointFile = "checkpoint" // the newest signed note
	WitnessedFile  = "witnessed"  // the newest that a witness cosigned
	AlarmFile      = "alarm"      // why sealing has stopped
)

// Read opens the checkpoint that a file holds: what the ledger service keeps, what a witness keeps, or
// what an auditor saved. A file that is not there wraps fs.ErrNotExist.
func Read(path string, trust *identity.Trust, witnesses ...Witness) (Signed, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Signed{}, fmt.Errorf("reading the checkpoint: %w", err)
	}
	s, err := Open(string(text), trust, witnesses...)
	if err != nil {
		return Signed{}, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// Witnessed returns the last checkpoint that a witness cosigned, from the ledger service's folder; nil
// where there has been none. With witnesses given, one of them must have signed it; without, its
// cosignature is taken on trust, since only the ledger service writes the folder.
func Witnessed(folder string, trust *identity.Trust, witnesses ...Witness) (*Signed, error) {
	s, err := Read(filepath.Join(folder, WitnessedFile), trust, witnesses...)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case len(witnesses) > 0 && len(s.Cosignatures) == 0:
		return nil, fmt.Errorf("%s: %w: none of the witnesses signed it", filepath.Join(folder, WitnessedFile), ErrCheckpoint)
	}
	return &s, nil
}
