package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/nats-io/nkeys"

	"towpath.dev/events"
	"towpath.dev/pkg/wholefile"
)

// Rotation is one identity's change of keys, as the list of trusted keys tells of it. It names keys and
// holds none.
type Rotation struct {
	Identity    string    `json:"identity"`
	Key         string    `json:"key"`      // id of the key that signs from then on
	Replaces    string    `json:"replaces"` // id of the key that signed before
	BusKey      string    `json:"busKey,omitempty"`
	ReplacesBus string    `json:"replacesBus,omitempty"` // NATS public keys; empty: the bus key stays
	At          time.Time `json:"at"`
	Retires     time.Time `json:"retires"` // from then on the key before signs nothing new
	Actor       string    `json:"actor,omitempty"`
	Reason      string    `json:"reason,omitempty"`
}

// Change says how keys are rotated.
type Change struct {
	// Identities are whose; empty: everybody's.
	Identities []string
	// Bus is whether the keys that open the bus change as well. A server elsewhere must then be given its
	// configuration again.
	Bus bool
	// Overlap is how long the keys before may still sign, so that processes elsewhere have time to be
	// given theirs; 0: from now on not at all, which is for a stolen key.
	Overlap time.Duration
	// Now is the time of the change.
	Now time.Time
	// Actor is who does it, by opaque id, and Reason why.
	Actor, Reason string
}

// nextSuffix marks a key that is made and not yet in use.
const nextSuffix = ".next"

// Prepare makes the new keys of a rotation in dir, lists their public halves as trusted and gives those
// that they replace the time of their retirement. Nobody uses the new keys yet: first every reader must
// have the list, then Switch puts the keys in place. A rotation that was broken off is finished first.
// What Prepare says is in trust.json by then.
func Prepare(dir string, c Change) ([]Rotation, error) {
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := finishRotation(dir); err != nil {
		return nil, err
	}
	if len(c.Identities) == 0 {
		c.Identities = IDs
	}
	path := filepath.Join(dir, TrustFile)
	list, err := readTrust(path)
	if err != nil {
		return nil, err
	}
	var done []Rotation
	for _, id := range c.Identities {
		if !slices.Contains(IDs, id) {
			return nil, fmt.Errorf("rotating keys: %.40q is no identity; they are %v", id, IDs)
		}
		r, public, err := c.prepare(dir, id)
		if err != nil {
			return nil, fmt.Errorf("rotating the keys of %s: %w", id, err)
		}
		list.replace(r, public)
		done = append(done, r)
	}
	if err := list.write(path); err != nil {
		return nil, fmt.Errorf("writing the trusted keys: %w", err)
	}
	return done, nil
}

// prepare makes one identity's new keys beside those in use.
func (c Change) prepare(dir, id string) (Rotation, ed25519.PublicKey, error) {
	before, err := loadSigningKey(dir, id)
	if err != nil {
		return Rotation{}, nil, err
	}
	text, err := newSigningKey()
	if err != nil {
		return Rotation{}, nil, err
	}
	public, err := publicOf(text)
	if err != nil {
		return Rotation{}, nil, err
	}
	r := Rotation{
		Identity: id, Key: keyID(public), Replaces: keyID(before.Public().(ed25519.PublicKey)),
		At: c.Now.UTC(), Retires: c.Now.Add(c.Overlap).UTC(), Actor: c.Actor, Reason: c.Reason,
	}
	if c.Bus {
		if err := prepareBus(dir, id, &r); err != nil {
			return Rotation{}, nil, err
		}
	}
	return r, public, wholefile.Write(signingKeyFile(dir, id)+nextSuffix, text, 0o600)
}

func prepareBus(dir, id string, r *Rotation) error {
	before, err := LoadBusKey(dir, id)
	if err != nil {
		return err
	}
	seed, err := newBusSeed()
	if err != nil {
		return err
	}
	pair, err := nkeys.FromSeed(seed)
	if err != nil {
		return err
	}
	if r.BusKey, err = pair.PublicKey(); err != nil {
		return err
	}
	r.ReplacesBus = before.Public
	return wholefile.Write(busKeyFile(dir, id)+nextSuffix, seed, 0o600)
}

func publicOf(text []byte) (ed25519.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the new key is no PEM block")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return key.(ed25519.PrivateKey).Public().(ed25519.PublicKey), nil
}

// replace lists a new key, retires every other one of the same writer, and notes the rotation. A key that
// is retired already keeps its time.
func (f *trustFile) replace(r Rotation, public ed25519.PublicKey) {
	f.Rotations = append(f.Rotations, r)
	if !slices.Contains(events.Writers, events.Writer(r.Identity)) {
		return // it signs no events
	}
	for i, k := range f.Keys {
		if string(k.Writer) == r.Identity && (k.Retired.IsZero() || r.Retires.Before(k.Retired)) {
			f.Keys[i].Retired = r.Retires
		}
	}
	f.Keys = append(f.Keys, trustedKey{ID: r.Key, Public: public, Writer: events.Writer(r.Identity)})
}

// Switch puts the keys that Prepare made into use, in dir.
func Switch(dir string) error {
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	return finishRotation(dir)
}

// lock keeps other processes from changing the keys in dir until unlock.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the keys folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking the keys folder: %w", err)
	}
	return func() { f.Close() }, nil
}

// finishRotation puts prepared keys in place whose public half the list of trusted keys has, and takes
// others away: their rotation never came to anything.
func finishRotation(dir string) error {
	list, err := readTrust(filepath.Join(dir, TrustFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	listed := map[string]bool{}
	for _, r := range list.Rotations {
		listed[r.Key], listed[r.BusKey] = true, true
	}
	for _, id := range IDs {
		if err := finishSigning(dir, id, listed); err != nil {
			return fmt.Errorf("putting the new signing key of %s in place: %w", id, err)
		}
		if err := finishBus(dir, id, listed); err != nil {
			return fmt.Errorf("putting the new bus key of %s in place: %w", id, err)
		}
	}
	return nil
}

func finishSigning(dir, id string, listed map[string]bool) error {
	next := signingKeyFile(dir, id) + nextSuffix
	key, err := readSigningKey(next)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !listed[keyID(key.Public().(ed25519.PublicKey))] {
		return os.Remove(next)
	}
	return os.Rename(next, signingKeyFile(dir, id))
}

func finishBus(dir, id string, listed map[string]bool) error {
	next := busKeyFile(dir, id) + nextSuffix
	seed, err := os.ReadFile(next)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	pair, err := nkeys.FromSeed(seed)
	if err != nil {
		return err
	}
	public, err := pair.PublicKey()
	if err != nil {
		return err
	}
	if !listed[public] {
		return os.Remove(next)
	}
	return os.Rename(next, busKeyFile(dir, id))
}
