package system

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"towpath.dev/pkg/freeport"
)

// Witness is `towpath witness` as a process of its own, with its key and its state in a folder outside the
// system's data.
type Witness struct {
	folder, address, trust, program string
	process                         *process
}

// StartWitness starts a witness on a free port of 127.0.0.1 that knows the ledger's keys from a trust.json.
func StartWitness(ctx context.Context, b Binaries, folder, trust string) (*Witness, error) {
	port, err := freeport.Port()
	if err != nil {
		return nil, err
	}
	w := &Witness{folder: folder, address: fmt.Sprintf("127.0.0.1:%d", port)}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	w.trust, w.program = trust, filepath.Join(b.Folder, "towpath")
	if err := w.Again(ctx); err != nil {
		return nil, err
	}
	return w, nil
}

// Again starts a witness that does not run.
func (w *Witness) Again(ctx context.Context) error {
	var err error
	w.process, err = startProcess("witness", filepath.Join(w.folder, "log"), os.Environ(), w.program,
		"witness", "--name", "witness.example", "--dir", w.Folder(), "--keys", w.trust, "--listen", w.address)
	if err != nil {
		return err
	}
	return until(ctx, "the witness", 20*time.Second, []*process{w.process}, func(ctx context.Context) error {
		return answers(ctx, "http://"+w.address+"/resets", http.StatusOK)
	})
}

// Folder holds its key and what it saw.
func (w *Witness) Folder() string { return filepath.Join(w.folder, "state") }

// URL is where the ledger service reaches it.
func (w *Witness) URL() string { return "http://" + w.address }

// Key is its public key, as it wrote it down.
func (w *Witness) Key() (string, error) {
	text, err := os.ReadFile(filepath.Join(w.Folder(), "witness.pub"))
	return strings.TrimSpace(string(text)), err
}

// Close ends the witness.
func (w *Witness) Close() { w.process.kill() }
