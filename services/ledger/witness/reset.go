package witness

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"towpath.dev/pkg/seal"
	"towpath.dev/pkg/wholefile"
)

// ResetsFile holds a line of JSON, a NewStart, for each time that the witness was given a new start.
const ResetsFile = "resets"

// NewStart says that a witness began anew, and what it had promised until then.
type NewStart struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
	// Key is the verifier key of before. It signs nothing any more, and what it signed stays true.
	Key string `json:"key,omitempty"`
	// Checkpoint is the text of the last one that it cosigned: origin, size and root; empty: none.
	Checkpoint string `json:"checkpoint,omitempty"`
	Aside      string `json:"aside"` // folder below the witness's, with the key and that checkpoint
}

// ErrNoWitness is wrapped where a folder is no witness's.
var ErrNoWitness = errors.New("no witness has its key here")

// Reset gives a witness a new start, as it needs after its ledger had to be brought back from an older backup: it puts key
// and last checkpoint aside and records why. The next New makes another key. The old one never signs again, so that what
// every key promises holds for ever: it signed no two checkpoints of which one does not extend the other. The witness must
// not run.
func Reset(dir, reason string, at time.Time) (NewStart, error) {
	fail := func(err error) (NewStart, error) {
		return NewStart{}, fmt.Errorf("giving the witness in %s a new start: %w", dir, err)
	}
	if _, err := os.Stat(filepath.Join(dir, KeyFile)); errors.Is(err, fs.ErrNotExist) {
		return fail(ErrNoWitness)
	}
	held, err := lock(dir)
	if err != nil {
		return fail(err)
	}
	defer held.Close()
	n := NewStart{At: at.UTC(), Reason: reason, Aside: "before-" + at.UTC().Format("20060102T150405.000000000Z")}
	key, err := os.ReadFile(filepath.Join(dir, PublicFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	note, err := os.ReadFile(filepath.Join(dir, StateFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	n.Key = strings.TrimSpace(string(key))
	n.Checkpoint, _, _ = strings.Cut(string(note), "\n\n")
	before, err := os.ReadFile(filepath.Join(dir, ResetsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	line, err := json.Marshal(n)
	if err != nil {
		return fail(err)
	}
	// Recorded first: a crash before the rest leaves a witness that is as it was.
	if err := wholefile.Write(filepath.Join(dir, ResetsFile), append(before, append(line, '\n')...), 0o600); err != nil {
		return fail(err)
	}
	// The key goes first: without it nothing can be signed that the checkpoint forbids.
	if err := seal.PutAside(dir, n.Aside, KeyFile, PublicFile, StateFile); err != nil {
		return fail(err)
	}
	return n, nil
}

// resets answers with every new start that the witness had.
func (s *Service) resets(w http.ResponseWriter, _ *http.Request) {
	text, err := os.ReadFile(filepath.Join(s.cfg.Dir, ResetsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		http.Error(w, "the witness cannot read its record", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/jsonl")
	w.Write(text)
}
