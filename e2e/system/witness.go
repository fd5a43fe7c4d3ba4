package system

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Witness is `towpath witness` as a process of its own, with its key and its state in a folder outside the
// system's data.
type Witness struct {
	folder, address string
	process         *process
}

// StartWitness starts a witness on a free port of 127.0.0.1 that knows the ledger's keys from a trust.json.
func StartWitness(ctx context.Context, b Binaries, folder, trust string) (*Witness, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	w := &Witness{folder: folder, address: fmt.Sprintf("127.0.0.1:%d", port)}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	w.process, err = startProcess("witness", filepath.Join(folder, "log"), os.Environ(), filepath.Join(b.Folder, "towpath"),
		"witness", "--name", "witness.example", "--dir", filepath.Join(folder, "state"), "--keys", trust, "--listen", w.address)
	if err != nil {
		return nil, err
	}
	return w, until(ctx, "the witness", 20*time.Second, []*process{w.process}, func(ctx context.Context) error {
		return answers(ctx, "http://"+w.address+"/checkpoint", http.StatusNotFound) // it has seen none yet
	})
}

// URL is where the ledger service reaches it.
func (w *Witness) URL() string { return "http://" + w.address }

// Key is its public key, as it wrote it down.
func (w *Witness) Key() (string, error) {
	text, err := os.ReadFile(filepath.Join(w.folder, "state", "witness.pub"))
	return strings.TrimSpace(string(text)), err
}

// Close ends the witness.
func (w *Witness) Close() { w.process.kill() }
