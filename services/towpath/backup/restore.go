package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/bus"
	"towpath.dev/pkg/ledger/door"
	"towpath.dev/pkg/policy"
)

// Target is where a backup goes.
type Target struct {
	// Data is the data folder of `towpath up`. It must be absent or empty.
	Data string
	// URL is a bus elsewhere that gets the streams; empty: `towpath up` finds them in Data.
	URL string
	// Keys are the keys of the installation, where the backup holds none.
	Keys string
	// Identities open a backup that is encrypted: a passphrase (age.NewScryptIdentity) or private keys.
	Identities []age.Identity
	// Checkpoint is the newest checkpoint that was kept outside the installation, as `towpath audit checkpoint --output` or a
	// witness keeps it; empty: the witness is asked.
	Checkpoint string
	// Witness is asked for the last checkpoint that it cosigned, and its cosignature is checked. Where it has no URL and no
	// key, it is the one that platform.yaml in the backup names.
	Witness policy.Witness
	// Force brings a backup back that is older than the checkpoint, or that nothing can be held against, and Reason says why.
	Force  bool
	Reason string
	Logger *slog.Logger
	// Progress, where not nil, is told what is brought back.
	Progress func(what string, bytes int64)
}

// Restored is what was brought back.
type Restored struct {
	Header  Header `json:"backup"`
	Events  uint64 `json:"events"`            // that it brought
	Older   uint64 `json:"older,omitempty"`   // events that the checkpoint knew and the backup does not have
	Against string `json:"against,omitempty"` // what it was held against; empty: nothing, so that nobody can tell whether it is the newest
	Record  uint64 `json:"record"`            // the event that says so
}

// ErrInUse is wrapped where the data folder holds something.
var ErrInUse = errors.New("the data folder is not empty")

// Restore brings a backup back. The data folder appears when everything in it was checked, and never before.
func Restore(ctx context.Context, backup io.Reader, t Target) (Restored, error) {
	var done Restored
	fail := func(err error) (Restored, error) { return done, fmt.Errorf("restoring to %s: %w", t.Data, err) }
	if err := empty(t.Data); err != nil {
		return fail(err)
	}
	if err := os.MkdirAll(filepath.Dir(t.Data), 0o755); err != nil {
		return fail(err)
	}
	folder := filepath.Join(filepath.Dir(t.Data), "."+filepath.Base(t.Data)+".restoring")
	release, err := claim(folder)
	if err != nil {
		return fail(err)
	}
	defer release()
	defer os.RemoveAll(folder)
	r := &restorer{Target: t, folder: folder, pieces: map[string]int{}}
	header, manifest, err := read(backup, t.Identities, r.begin, r.place)
	if err != nil {
		return fail(err)
	}
	done.Header = header
	if err := r.bus(ctx, header, manifest, &done); err != nil {
		return fail(err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(folder, streamsFolder)), r.settle()); err != nil {
		return fail(err)
	}
	if err := empty(t.Data); err != nil {
		return fail(err)
	}
	if err := os.Remove(t.Data); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	if err := os.Rename(folder, t.Data); err != nil {
		return fail(err)
	}
	return done, nil
}

// claim makes the folder for this process alone, and removes what a restore that was killed left there in clear.
func claim(folder string) (release func(), err error) {
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	f, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another restore to it is under way (%s): %w", folder, err)
	}
	left, err := f.Readdirnames(-1)
	for _, name := range left {
		err = errors.Join(err, os.RemoveAll(filepath.Join(folder, name)))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

func empty(data string) error {
	entries, err := os.ReadDir(data)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(entries) > 0 {
		return fmt.Errorf("%w: it holds %s", ErrInUse, entries[0].Name())
	}
	return err
}

// restorer puts files below a folder that is not in its place yet.
type restorer struct {
	Target
	folder string
	bytes  int64
	pieces map[string]int // of each stream, so far
}

// streamsFolder holds the streams, in a backup and while it is brought back.
const streamsFolder = "streams"

func (r *restorer) keys() string { return filepath.Join(r.folder, "keys") }

func (r *restorer) begin(h Header) error {
	if h.Keys {
		return nil
	}
	if r.Keys == "" {
		return errors.New("the backup holds no keys: give the installation's with --keys")
	}
	return os.CopyFS(r.keys(), os.DirFS(r.Keys))
}

func (r *restorer) place(name string, content io.Reader) error {
	top, _, _ := strings.Cut(name, "/")
	switch top {
	case streamsFolder, "registry", "git", "keys", "files":
	default:
		return damaged("it holds %.200q", name)
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if stream, number := path.Split(name); top == streamsFolder && strings.Count(name, "/") == 2 {
		name = path.Clean(stream)
		if number != strconv.Itoa(r.pieces[name]) {
			return damaged("piece %.100q follows piece %d of %s", number, r.pieces[name]-1, name)
		}
		if r.pieces[name]++; r.pieces[name] > 1 {
			flags = os.O_WRONLY | os.O_APPEND
		}
	}
	if top == "files" {
		name = strings.TrimPrefix(name, "files/")
	}
	to := filepath.Join(r.folder, filepath.FromSlash(path.Clean(name)))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(to, flags, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, content)
	r.bytes += n
	if r.Progress != nil {
		r.Progress(top, r.bytes)
	}
	return errors.Join(err, f.Close())
}

// settle makes what git expects of a repository and nobody can put into a file.
func (r *restorer) settle() error {
	repositories, err := filepath.Glob(filepath.Join(r.folder, "git", "hosted", "*.git"))
	for _, one := range repositories {
		for _, name := range []string{"refs/heads", "refs/tags", "objects/info", "objects/pack"} {
			err = errors.Join(err, os.MkdirAll(filepath.Join(one, filepath.FromSlash(name)), 0o700))
		}
	}
	return err
}

// bus makes the streams, holds the ledger against what was backed up and against the checkpoint, and records that it was
// brought back.
func (r *restorer) bus(ctx context.Context, header Header, manifest Manifest, done *Restored) error {
	logger := r.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	options := ledger.Options{URL: r.URL, Keys: r.keys(), Logger: logger}
	if r.URL == "" {
		server, err := bus.Start(bus.Config{StoreDir: filepath.Join(r.folder, "nats"), Keys: r.keys(), Logger: logger})
		if err != nil {
			return err
		}
		defer server.Shutdown()
		options.InProcess = server
	}
	open := func(id events.Writer) (*ledger.Client, error) {
		o := options
		o.Service = string(id)
		return ledger.Connect(ctx, o)
	}
	operator, err := open(events.Operator)
	if err != nil {
		return err
	}
	defer operator.Close()
	if err := r.streams(ctx, operator, manifest); err != nil {
		return err
	}
	provision := options
	provision.Service = string(events.Operator)
	if err := ledger.Provision(ctx, provision); err != nil {
		return err
	}
	has, err := check(ctx, operator, header, manifest)
	if err != nil {
		return err
	}
	done.Events = has
	if err := r.compare(ctx, operator, header.Ledger, done); err != nil {
		return err
	}
	writer, err := open(events.Ledger)
	if err != nil {
		return err
	}
	defer writer.Close()
	done.Record, err = r.record(ctx, writer, header, done)
	return err
}

func (r *restorer) streams(ctx context.Context, operator *ledger.Client, manifest Manifest) error {
	for _, saved := range manifest.Streams {
		if saved.Name != path.Base(saved.Name) {
			return damaged("a stream is called %.100q", saved.Name)
		}
		f, err := os.Open(filepath.Join(r.folder, streamsFolder, saved.Name))
		if err != nil {
			return damaged("stream %s is missing", saved.Name)
		}
		err = operator.LoadStream(ctx, saved, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// check reads the ledger that came back, every signature included, and returns how many events it has.
func check(ctx context.Context, operator *ledger.Client, header Header, manifest Manifest) (uint64, error) {
	var c chain
	id := ""
	same := manifest.Head.Seq == 0
	last, err := operator.Read(ctx, 0, func(rec ledger.Record) error {
		if id == "" {
			id = rec.ID()
		}
		c.add(rec)
		same = same || c.head() == manifest.Head
		return nil
	})
	if err != nil {
		return 0, err
	}
	if !same || header.Ledger != "" && id != header.Ledger {
		return 0, damaged("the ledger that it holds is not the one that was backed up")
	}
	return last, nil
}

// record appends the event that says that the ledger was brought back.
func (r *restorer) record(ctx context.Context, writer *ledger.Client, header Header, done *Restored) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	serving, stop := context.WithCancel(ctx)
	ready, ended := make(chan struct{}), make(chan error, 1)
	d := &door.Door{Conn: writer.Conn(), Trust: writer.Trust(), Epoch: writer.Epoch(), Logger: slog.New(slog.DiscardHandler)}
	go func() { ended <- d.Serve(serving, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-ended:
		stop()
		return 0, err
	}
	body := &events.LedgerRestored{
		About: events.About{ID: header.ID}, Backup: header.ID, Taken: header.Created, Events: done.Events,
		Against: done.Against, Lost: done.Older, Forced: done.Older > 0 || done.Against == "", Reason: r.Reason, Actor: string(events.Operator),
	}
	now := time.Now()
	at := events.RestoredSubject(writer.Epoch(), header.ID, now)
	stored, err := writer.Append(ctx, at, events.New(events.Ledger, now, "", body))
	stop()
	return stored.Seq, errors.Join(err, <-ended)
}
