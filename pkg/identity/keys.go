// Package identity holds who a process is and who a person is: the NATS key that opens a service's
// account, the Ed25519 key that signs its events, the list of public keys that readers trust, the table
// of actors, and the one check of what an actor may do.
//
// It guarantees that a signature binds a body to the subject under which it is stored. It does not say
// whether what was signed is sensible, and it keeps no secret but the key files themselves.
package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"

	"towpath.dev/events"
	"towpath.dev/pkg/wholefile"
)

// IDs are the identities of an installation: one NATS account, NATS key and signing key each. The
// ledger's door and the operator share the account that owns the bus.
var IDs = append(slices.Clone(writerIDs()), string(events.Edge), string(events.Notify), string(events.Operator))

func writerIDs() []string {
	ids := make([]string, len(events.Writers))
	for i, w := range events.Writers {
		ids[i] = string(w)
	}
	return ids
}

// TrustFile is the name of the list of trusted public keys in a keys folder.
const TrustFile = "trust.json"

// SettingsKeyFile is the name of the file that holds the 32 bytes under which embedded secrets are
// encrypted. Only the gateway's and promote's keys folders have it.
const SettingsKeyFile = "settings.key"

// clusterFile is the name of the file with the secret by which the servers of a bus know each other.
const clusterFile = "cluster.key"

// Init makes every key that dir lacks and writes the list of trusted keys. What exists stays as it is,
// so that it can be run at each start. Private files have mode 0600, the folder 0700.
func Init(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the keys folder: %w", err)
	}
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := finishRotation(dir); err != nil {
		return err
	}
	for _, id := range IDs {
		if err := createOnce(busKeyFile(dir, id), newBusSeed); err != nil {
			return fmt.Errorf("making the bus key of %s: %w", id, err)
		}
		if err := createOnce(signingKeyFile(dir, id), newSigningKey); err != nil {
			return fmt.Errorf("making the signing key of %s: %w", id, err)
		}
	}
	if err := createOnce(filepath.Join(dir, SettingsKeyFile), newSettingsKey); err != nil {
		return fmt.Errorf("making the settings key: %w", err)
	}
	if err := createOnce(filepath.Join(dir, clusterFile), newClusterSecret); err != nil {
		return fmt.Errorf("making the secret of the bus's servers: %w", err)
	}
	if err := extendTrust(dir); err != nil {
		return fmt.Errorf("writing the trusted keys: %w", err)
	}
	return nil
}

func createOnce(path string, content func() ([]byte, error)) error {
	if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	data, err := content()
	if err != nil {
		return err
	}
	return wholefile.Write(path, data, 0o600)
}

func newBusSeed() ([]byte, error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return nil, err
	}
	return pair.Seed()
}

func newSigningKey() ([]byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func newSettingsKey() ([]byte, error) {
	key := make([]byte, 32)
	_, err := rand.Read(key)
	return key, err
}

func newClusterSecret() ([]byte, error) { return []byte(rand.Text() + "\n"), nil }

// ClusterSecret returns the secret by which the servers of a bus know each other. Who has it can join as a
// server and read and write everything.
func ClusterSecret(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, clusterFile))
	if err != nil {
		return "", fmt.Errorf("reading the secret of the bus's servers: %w", err)
	}
	secret := strings.TrimSpace(string(text))
	if len(secret) < 20 {
		return "", fmt.Errorf("the secret of the bus's servers in %s is too short: restore it from a backup, or remove it and run towpath keys init", dir)
	}
	return secret, nil
}

// LoadSettingsKey reads the 32 bytes that encrypt the embedded store's secrets.
func LoadSettingsKey(dir string) ([]byte, error) {
	key, err := os.ReadFile(filepath.Join(dir, SettingsKeyFile))
	if err != nil {
		return nil, fmt.Errorf("reading the settings key: %w", err)
	}
	if len(key) != 32 {
		return nil, fmt.Errorf("settings key in %s has %d bytes, not 32: restore it from a backup", dir, len(key))
	}
	return key, nil
}

// BusKey opens an account of the bus by signing the server's nonce.
type BusKey struct {
	Public string // NATS public user key, "U…"
	pair   nkeys.KeyPair
}

// LoadBusKey reads the NATS key of an identity.
func LoadBusKey(dir, id string) (*BusKey, error) {
	seed, err := os.ReadFile(busKeyFile(dir, id))
	if err != nil {
		return nil, fmt.Errorf("reading the bus key of %s: %w", id, err)
	}
	pair, err := nkeys.FromSeed(seed)
	if err != nil {
		return nil, fmt.Errorf("reading the bus key of %s in %s: %w", id, dir, err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("reading the bus key of %s in %s: %w", id, dir, err)
	}
	return &BusKey{Public: public, pair: pair}, nil
}

// Sign answers the server's nonce, as nats.Nkey asks.
func (k *BusKey) Sign(nonce []byte) ([]byte, error) { return k.pair.Sign(nonce) }

func signingKeyFile(dir, id string) string { return filepath.Join(dir, id+".key") }

func busKeyFile(dir, id string) string { return filepath.Join(dir, id+".nk") }

func loadSigningKey(dir, id string) (ed25519.PrivateKey, error) {
	key, err := readSigningKey(signingKeyFile(dir, id))
	if err != nil {
		return nil, fmt.Errorf("reading the signing key of %s: %w", id, err)
	}
	return key, nil
}

func readSigningKey(path string) (ed25519.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	if block == nil || len(rest) > 0 {
		return nil, fmt.Errorf("signing key %s is not one PEM block", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", path, err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("signing key %s is a %T, not Ed25519", path, key)
	}
	return private, nil
}

// keyID names a public key: the first 16 hexadecimal digits of its SHA-256.
func keyID(public ed25519.PublicKey) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:8])
}
