package backup

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"

	"towpath.dev/pkg/ledger"
)

// Source is what is backed up. A folder that is empty is left out.
type Source struct {
	Ledger       *ledger.Client // as operator
	Registry     string         // folder of the registry inside
	Repositories string         // the gateway's folder of git repositories
	Keys         string
	Files        map[string]string // name in the backup → file; those that are not there are left out
	// Recipients can read the backup: a passphrase (age.NewScryptRecipient, alone) or public keys. None: it is in clear.
	Recipients []age.Recipient
	// Overwrite lets the backup take the place of another one.
	Overwrite bool
	// Progress, where not nil, is told what is copied and how many bytes there are so far.
	Progress func(what string, bytes int64)
}

// Result is what a backup holds.
type Result struct {
	Header Header `json:"backup"`
	Events uint64 `json:"events"`
	Files  int    `json:"files"`
	Bytes  int64  `json:"bytes"`
	// Encrypted says that nobody reads it without the passphrase or a recipient's identity.
	Encrypted bool     `json:"encrypted"`
	Damaged   []string `json:"damaged,omitempty"` // blobs of the registry that are not what their names say
}

// unfinished are the names of backups that are not whole, in the folder of the backup.
const unfinished = ".towpath-backup-*"

// clean removes what backups left that a crash ended. One that is being written is locked.
func clean(folder string) error {
	names, err := filepath.Glob(filepath.Join(folder, unfinished))
	for _, name := range names {
		f, openErr := os.Open(name)
		if openErr != nil {
			continue // it was finished just now
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			err = errors.Join(err, os.Remove(name))
		}
		f.Close()
	}
	return err
}

// Save writes a backup to a file, mode 0600, which appears when it is whole and never before. What runs meanwhile runs on.
// Its error wraps ErrExists where a file is there.
// It does so under a name of its own and not by wholefile, so that the next backup knows what a crash left of this one.
func Save(ctx context.Context, s Source, file string) (Result, error) {
	fail := func(err error) (Result, error) { return Result{}, fmt.Errorf("backing up to %s: %w", file, err) }
	if err := Free(file, s.Overwrite); err != nil {
		return fail(err)
	}
	if err := clean(filepath.Dir(file)); err != nil {
		return fail(err)
	}
	out, err := os.CreateTemp(filepath.Dir(file), unfinished) // mode 0600
	if err != nil {
		return fail(err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	if err := syscall.Flock(int(out.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fail(err)
	}
	result, err := s.write(ctx, out)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = put(out.Name(), file, s.Overwrite)
	}
	if err != nil {
		return fail(err)
	}
	if folder, err := os.Open(filepath.Dir(file)); err == nil {
		err = folder.Sync()
		if err := errors.Join(err, folder.Close()); err != nil {
			return fail(err)
		}
	}
	return result, nil
}

// saver is a backup that is being written.
type saver struct {
	Source
	*writer
	result Result
	doing  string
}

func (s Source) write(ctx context.Context, out *os.File) (Result, error) {
	now := time.Now().UTC().Truncate(time.Second)
	b := &saver{Source: s}
	var err error
	if b.writer, err = newWriter(out, s.Recipients, now, b.count); err != nil {
		return b.result, err
	}
	b.doing = "ledger"
	head, id, err := b.head(ctx)
	if err != nil {
		return b.result, err
	}
	b.manifest.Head = head
	b.result.Header = Header{Format: format, ID: newID(), Created: now, Ledger: id, Keys: s.Keys != ""}
	b.result.Events = head.Seq
	if _, err := b.addJSON(headerName, b.result.Header); err != nil {
		return b.result, err
	}
	// The ledger is the first of the streams: see the package's comment.
	for _, name := range s.Ledger.Streams() {
		b.doing = strings.ToLower(name)
		if err := b.stream(ctx, name); err != nil {
			return b.result, err
		}
	}
	for _, step := range []func(context.Context) error{b.registry, b.repositories, b.keys} {
		if err := step(ctx); err != nil {
			return b.result, err
		}
	}
	b.result.Encrypted = len(s.Recipients) > 0
	b.manifest.Damaged, b.result.Files = b.result.Damaged, len(b.manifest.Files)
	return b.result, b.close()
}

func (b *saver) count(n int64) {
	b.result.Bytes += n
	if b.Progress != nil {
		b.Progress(b.doing, b.result.Bytes)
	}
}

// head reads the ledger, checks every signature, and returns how far it goes.
func (b *saver) head(ctx context.Context) (Head, string, error) {
	var c chain
	id := ""
	_, err := b.Ledger.Read(ctx, 0, func(r ledger.Record) error {
		if id == "" {
			id = r.ID()
		}
		c.add(r)
		return nil
	})
	return c.head(), id, err
}

// stream copies a stream.
func (b *saver) stream(ctx context.Context, name string) error {
	to := &pieces{to: b.writer, name: path.Join(streamsFolder, name)}
	saved, err := b.Ledger.SaveStream(ctx, name, to)
	if err == nil {
		err = to.close()
	}
	b.manifest.Streams = append(b.manifest.Streams, saved)
	return err
}

// registry copies links before blobs: whatever a link names was there before the link was.
func (b *saver) registry(ctx context.Context) error {
	if b.Registry == "" {
		return nil
	}
	b.doing = "registry"
	root := filepath.Join(b.Registry, "docker", "registry", "v2")
	if err := b.tree(ctx, filepath.Join(root, "repositories"), "registry/docker/registry/v2/repositories", func(name string) bool {
		return strings.Contains("/"+name+"/", "/_uploads/")
	}); err != nil {
		return err
	}
	return b.tree(ctx, filepath.Join(root, "blobs"), "registry/docker/registry/v2/blobs", func(string) bool { return false })
}

// repositories copies of each repository first the references, then its objects: an object is there before a reference to
// it, and git neither packs nor removes any by itself (gc.auto is 0).
func (b *saver) repositories(ctx context.Context) error {
	if b.Repositories == "" {
		return nil
	}
	b.doing = "repositories"
	hosted := filepath.Join(b.Repositories, "hosted")
	entries, err := os.ReadDir(hosted)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".git") {
			continue
		}
		from, to := filepath.Join(hosted, e.Name()), "git/hosted/"+e.Name()
		objects := func(name string) bool { return name == "objects" || temporary(name) }
		if err := b.tree(ctx, from, to, objects); err != nil {
			return err
		}
		if err := b.tree(ctx, filepath.Join(from, "objects"), to+"/objects", temporary); err != nil {
			return err
		}
	}
	return nil
}

// temporary reports whether git will rename or remove a file or folder: half a push, a lock.
func temporary(name string) bool {
	base := path.Base(name)
	return strings.HasSuffix(base, ".lock") || strings.HasPrefix(base, "tmp_") || strings.HasPrefix(base, "incoming-") || strings.HasPrefix(base, "tmp-")
}

func (b *saver) keys(ctx context.Context) error {
	b.doing = "keys"
	if b.Keys != "" {
		if err := b.tree(ctx, b.Keys, "keys", temporary); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.Files)) {
		if err := b.file(b.Files[name], name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// tree copies a folder. What skip names, by its path below the folder, is left out.
func (b *saver) tree(ctx context.Context, from, to string, skip func(name string) bool) error {
	return filepath.WalkDir(from, func(file string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && file == from {
			return nil
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		below, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(below)
		switch {
		case name != "." && skip(name):
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.Type().IsRegular():
			return b.file(file, path.Join(to, name))
		}
		return nil
	})
}

func (b *saver) file(file, name string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	digest, err := b.add(name, info.Size(), f)
	if parts := strings.Split(name, "/blobs/sha256/"); err == nil && len(parts) == 2 && path.Base(name) == "data" {
		if want := path.Base(path.Dir(name)); want != digest {
			b.result.Damaged = append(b.result.Damaged, "sha256:"+want)
		}
	}
	return err
}

func newID() string {
	random := make([]byte, 8)
	rand.Read(random)
	return hex.EncodeToString(random)
}
