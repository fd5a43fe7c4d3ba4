// Package snapshot keeps a fold's state in a file, so that a process need not read the whole ledger when it starts.
//
// It guarantees that Load returns only what the same identity saved with its present key, whole, for a fold that
// means the same by it; anything else is an error that says why, and no reason to fail: the ledger holds everything.
// Whether the ledger that is there now is the one that the state was made of is for ledger.Client.Resume to say. A
// file is of no use to another identity, and cannot be made by one.
package snapshot

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/wholefile"
)

// Snapshot is a fold's state at a place in the ledger.
type Snapshot struct {
	Mark  ledger.Mark
	State fold.State
}

// File is where an identity's snapshot is kept, in a folder of its own or one that it shares.
func File(folder, service string) string { return filepath.Join(folder, service+".snapshot") }

// A file is a line that says what it is, a line of JSON (header), the state's bytes, and a seal over all before it.
const (
	firstLine = "towpath snapshot 1\n"
	purpose   = "snapshot"
	// maxHeader bounds the line of JSON, in bytes.
	maxHeader = 1 << 20
)

// header is what a person sees with `head -n 2`.
type header struct {
	Service string      `json:"service"`
	Made    time.Time   `json:"made"`
	Format  string      `json:"format"` // fold.Format
	Size    int         `json:"size"`   // of the state, in bytes
	Digest  ledger.Hash `json:"digest"` // of the state
	Mark    ledger.Mark `json:"mark"`
}

// ErrUnusable is wrapped by Load for a file that was not saved by this identity with its present key and this build's
// fold, or was damaged since. Why says the error.
var ErrUnusable = errors.New("the snapshot cannot be used")

// Save writes a snapshot over the one before: after a crash there is the old file or the new one, never half of one.
// It returns the file's size in bytes.
func Save(path string, signer *identity.Signer, s Snapshot, now time.Time) (size int, err error) {
	state := s.State.Encode()
	head, err := json.Marshal(header{
		Service: signer.ID, Made: now.UTC(), Format: fold.Format(), Size: len(state), Digest: sha256.Sum256(state), Mark: s.Mark,
	})
	if err != nil {
		return 0, fmt.Errorf("saving a snapshot: %w", err)
	}
	data := make([]byte, 0, len(firstLine)+len(head)+1+len(state)+sha256.Size)
	data = append(data, firstLine...)
	data = append(append(data, head...), '\n')
	data = append(data, state...)
	seal, err := signer.Seal(purpose, data)
	if err != nil {
		return 0, fmt.Errorf("saving a snapshot: %w", err)
	}
	data = append(data, seal[:]...)
	err = os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = wholefile.Write(path, data, 0o600)
	}
	if err != nil {
		return 0, fmt.Errorf("saving a snapshot: %w", err)
	}
	return len(data), nil
}

// Load reads the snapshot that signer's identity saved. The error wraps fs.ErrNotExist where there is none, and
// ErrUnusable where it must be thrown away.
func Load(path string, signer *identity.Signer) (Snapshot, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Snapshot{}, fmt.Errorf("reading a snapshot: %w", err)
	}
	if err != nil {
		return Snapshot{}, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	s, err := read(data, signer)
	if err != nil {
		return Snapshot{}, fmt.Errorf("%w: %s: %w", ErrUnusable, path, err)
	}
	return s, nil
}

// read believes nothing in the file before its seal was checked.
func read(data []byte, signer *identity.Signer) (Snapshot, error) {
	if len(data) < sha256.Size {
		return Snapshot{}, errors.New("it is cut off")
	}
	sealed, seal := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	want, err := signer.Seal(purpose, sealed)
	if err != nil {
		return Snapshot{}, err
	}
	if !hmac.Equal(want[:], seal) {
		return Snapshot{}, fmt.Errorf("it is damaged, or %s has not sealed it with its present key", signer.ID)
	}
	rest, ok := bytes.CutPrefix(sealed, []byte(firstLine))
	head, state, found := bytes.Cut(rest, []byte("\n"))
	if !ok || !found || len(head) > maxHeader {
		return Snapshot{}, errors.New("it has another form")
	}
	var h header
	if err := json.Unmarshal(head, &h); err != nil {
		return Snapshot{}, fmt.Errorf("its header: %w", err)
	}
	switch {
	case h.Service != signer.ID:
		return Snapshot{}, fmt.Errorf("it is %.40s's", h.Service)
	case h.Format != fold.Format():
		return Snapshot{}, fmt.Errorf("its format is %.40s, this build's is %s", h.Format, fold.Format())
	case h.Size != len(state) || h.Digest != sha256.Sum256(state):
		return Snapshot{}, errors.New("the state is not the one that its header names")
	}
	s := Snapshot{Mark: h.Mark}
	if s.State, err = fold.DecodeState(state); err != nil {
		return Snapshot{}, err
	}
	if s.State.Seq != s.Mark.Seq || s.State.LedgerID != s.Mark.Ledger {
		return Snapshot{}, fmt.Errorf("the state is at %d, its mark at %d", s.State.Seq, s.Mark.Seq)
	}
	return s, nil
}
