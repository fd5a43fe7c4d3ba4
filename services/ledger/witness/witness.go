// Package witness cosigns the checkpoints of one ledger (C2SP tlog-witness and tlog-cosignature), as a process
// that the ledger's administrators do not control, with a key and a state file of its own.
//
// It guarantees that it never cosigns two checkpoints of which one does not extend the other, across
// restarts too, as long as its state file survives; a new start (Reset) comes with a new key. It does not see the events, and says nothing of them.
package witness

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/seal"
	"towpath.dev/pkg/wholefile"
)

// Config of a witness.
type Config struct {
	// Name of the key, such as a host name: no spaces, no '+'.
	Name string
	// Dir is the folder with the key (made when absent) and the last checkpoint. It must not be restored
	// from a backup that is older than what it cosigned.
	Dir string
	// Listen is host:port.
	Listen string
	// Trust is the path of a trust.json with the ledger's public keys. It is read again when it has changed,
	// so that a key which the ledger rotates to is known once the file has it.
	Trust string
}

// Validate reports all faults at once.
func (c Config) Validate() error {
	var faults []error
	if c.Name == "" || strings.ContainsAny(c.Name, " +\n") {
		faults = append(faults, fmt.Errorf("the witness's name %.60q must be a word without '+'", c.Name))
	}
	if c.Dir == "" {
		faults = append(faults, errors.New("the witness's folder is missing"))
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		faults = append(faults, fmt.Errorf("the witness's address %q must be host:port: %w", c.Listen, err))
	}
	if c.Trust == "" {
		faults = append(faults, errors.New("the ledger's public keys are missing (trust.json)"))
	}
	return errors.Join(faults...)
}

// Files with the witness's private key, and with the public one.
const (
	KeyFile    = "witness.key"
	PublicFile = "witness.pub"
)

// Service is a witness. It is safe for concurrent use.
type Service struct {
	cfg    Config
	key    ed25519.PrivateKey
	trust  *identity.Trust
	logger *slog.Logger
	lock   *os.File

	mu sync.Mutex // one checkpoint at a time
}

// New opens the folder, and makes the key where there is none. Two witnesses cannot have one folder.
func New(cfg Config, logger *slog.Logger) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the witness's folder: %w", err)
	}
	lock, err := lock(cfg.Dir)
	if err != nil {
		return nil, err
	}
	key, err := loadKey(filepath.Join(cfg.Dir, KeyFile))
	var trust *identity.Trust
	if err == nil {
		trust, err = identity.LoadTrust(cfg.Trust)
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	s := &Service{cfg: cfg, key: key, trust: trust, logger: logger, lock: lock}
	if err := wholefile.Write(filepath.Join(cfg.Dir, PublicFile), []byte(s.Key().String()+"\n"), 0o600); err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

// lock takes the folder, which no two may have at once.
func lock(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the witness's folder: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("another witness has the folder %s (%w): stop it, or choose another folder", dir, err)
	}
	return file, nil
}

func loadKey(path string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("making the witness's key: %w", err)
		}
		return key, wholefile.Write(path, pem.EncodeToMemory(&pem.Block{Type: "WITNESS SEED", Bytes: key.Seed()}), 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the witness's key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || len(block.Bytes) != ed25519.SeedSize {
		return nil, fmt.Errorf("the witness's key %s is none: restore it, or remove it and give the new key to those who verify", path)
	}
	return ed25519.NewKeyFromSeed(block.Bytes), nil
}

// Key is the witness's public key.
func (s *Service) Key() seal.Witness {
	return seal.Witness{Name: s.cfg.Name, Public: s.key.Public().(ed25519.PublicKey)}
}

// Close gives the folder up.
func (s *Service) Close() error { return s.lock.Close() }

// Run answers until ctx ends. ready, where not nil, is called with the address once it does.
func (s *Service) Run(ctx context.Context, ready func(net.Addr)) error {
	listener, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("the witness cannot listen on %s: %w", s.cfg.Listen, err)
	}
	server := &http.Server{Handler: s.Handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	if ready != nil {
		ready(listener.Addr())
	}
	select {
	case err = <-ended:
	case <-ctx.Done():
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = server.Shutdown(drain)
	}
	return err
}

// Handler is the witness's one request, POST /add-checkpoint, and what it shows: GET /checkpoint, the last checkpoint
// that it cosigned, and GET /resets, when it was given a new start.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add-checkpoint", s.add)
	mux.HandleFunc("GET /checkpoint", s.show)
	mux.HandleFunc("GET /resets", s.resets)
	return mux
}

func (s *Service) show(w http.ResponseWriter, _ *http.Request) {
	text, err := os.ReadFile(s.statePath())
	if err != nil {
		http.Error(w, "nothing was cosigned yet", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write(text)
}

// refusal is why a checkpoint is not cosigned.
type refusal struct {
	status int
	why    string
}

func (r refusal) Error() string { return r.why }

func (s *Service) add(w http.ResponseWriter, r *http.Request) {
	line, err := s.decide(http.MaxBytesReader(w, r.Body, 64<<10))
	var no refusal
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, line)
	case !errors.As(err, &no):
		s.logger.Error("a checkpoint could not be cosigned", "err", err)
		http.Error(w, "the witness cannot keep its state", http.StatusInternalServerError)
	case no.status == http.StatusConflict:
		w.Header().Set("Content-Type", "text/x.tlog.size")
		w.WriteHeader(no.status)
		fmt.Fprintln(w, no.why)
	default:
		s.logger.Warn("a checkpoint was refused", "status", no.status, "why", no.why)
		http.Error(w, no.why, no.status)
	}
}

// decide judges a request and, where it is good, keeps the checkpoint before it signs.
func (s *Service) decide(body io.Reader) (line string, err error) {
	old, proof, text, err := readRequest(body)
	if err != nil {
		return "", refusal{http.StatusBadRequest, err.Error()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := seal.Open(text, s.trust)
	if err != nil {
		return "", refusal{http.StatusForbidden, err.Error()}
	}
	now := time.Now()
	if !slices.ContainsFunc(next.Keys, func(k identity.PublicKey) bool { return k.MaySign(now) == nil }) {
		return "", refusal{http.StatusForbidden, "the ledger's key that signed it has been retired, or is not valid yet: copy trust.json here after a rotation"}
	}
	if len(next.Unknown) > 0 {
		return "", refusal{http.StatusBadRequest, fmt.Sprintf("it is signed by %q too: send what the ledger signed", next.Unknown)}
	}
	last, err := seal.Read(s.statePath(), s.trust, s.Key())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := judge(last.Checkpoint, next.Checkpoint, old, proof); err != nil {
		return "", err
	}
	line = seal.Cosign(s.cfg.Name, s.key, next.Checkpoint, now)
	return line, wholefile.Write(s.statePath(), []byte(next.Note+line), 0o600)
}

// judge decides whether next may be cosigned by who cosigned last.
func judge(last, next seal.Checkpoint, old uint64, proof tlog.TreeProof) error {
	switch {
	case last.Origin != "" && next.Origin != last.Origin:
		return refusal{http.StatusNotFound, fmt.Sprintf("this witness watches %s, not %.200q", last.Origin, next.Origin)}
	case old > next.Size:
		return refusal{http.StatusBadRequest, "the old size is above the checkpoint's"}
	case old != last.Size:
		return refusal{http.StatusConflict, strconv.FormatUint(last.Size, 10)}
	case old == next.Size && (next.Root != last.Root || len(proof) > 0):
		return refusal{http.StatusUnprocessableEntity, fmt.Sprintf("another tree of %d leaves was cosigned: the ledger was forked", old)}
	case old == next.Size:
		return nil
	case old == 0 && len(proof) > 0:
		return refusal{http.StatusBadRequest, "a proof from nothing must be empty"}
	case old == 0:
		return nil
	}
	if err := tlog.CheckTree(proof, int64(next.Size), next.Root, int64(old), last.Root); err != nil {
		return refusal{http.StatusUnprocessableEntity, fmt.Sprintf("it does not extend the tree of %d leaves that was cosigned", old)}
	}
	return nil
}

// readRequest reads "old <size>", the proof's hashes, an empty line, and the note.
func readRequest(body io.Reader) (old uint64, proof tlog.TreeProof, text string, err error) {
	r := bufio.NewReader(body)
	line, err := r.ReadString('\n')
	if err != nil {
		return 0, nil, "", fmt.Errorf("reading the old size: %w", err)
	}
	number, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "old ")
	if old, err = strconv.ParseUint(number, 10, 62); err != nil || !ok {
		return 0, nil, "", fmt.Errorf("the first line is %.60q, not \"old <size>\"", line)
	}
	for {
		if line, err = r.ReadString('\n'); err != nil {
			return 0, nil, "", fmt.Errorf("reading the proof: %w", err)
		}
		if line = strings.TrimSuffix(line, "\n"); line == "" {
			break
		}
		raw, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(raw) != tlog.HashSize || len(proof) == 63 {
			return 0, nil, "", fmt.Errorf("the proof's line %.60q is no hash, or one too many", line)
		}
		proof = append(proof, tlog.Hash(raw))
	}
	rest, err := io.ReadAll(r)
	if err != nil {
		return 0, nil, "", fmt.Errorf("reading the checkpoint: %w", err)
	}
	return old, proof, string(rest), nil
}

// StateFile holds the last checkpoint that was cosigned, as a signed note.
const StateFile = "checkpoint"

func (s *Service) statePath() string { return filepath.Join(s.cfg.Dir, StateFile) }
