package backup_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/bus"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/seal"
	"towpath.dev/services/towpath/backup"
)

// installation is a ledger with some events and the folders of a data folder.
type installation struct {
	*ledgertest.Ledger
	t      *testing.T
	folder string
}

func newInstallation(t *testing.T, count int) installation {
	t.Helper()
	i := installation{ledgertest.Start(t), t, t.TempDir()}
	i.append("app", count)
	blob := []byte("a layer")
	digest := fmt.Sprintf("%x", sha256.Sum256(blob))
	i.write("registry/docker/registry/v2/blobs/sha256/"+digest[:2]+"/"+digest+"/data", string(blob))
	i.write("registry/docker/registry/v2/repositories/hello/_manifests/revisions/sha256/"+digest+"/link", "sha256:"+digest)
	i.write("registry/docker/registry/v2/repositories/hello/_uploads/1/data", "half of one")
	i.write("git/hosted/hello.git/HEAD", "ref: refs/heads/main\n")
	i.write("git/hosted/hello.git/refs/heads/main.lock", "")
	i.write("git/hosted/hello.git/objects/aa/bb", "an object")
	i.write("git/hosted/hello.git/objects/tmp_objdir-incoming-x/cc", "half of a push")
	i.write("platform.yaml", "limits: {push: 1MiB}\n")
	return i
}

func (i installation) write(name, text string) {
	i.t.Helper()
	path := filepath.Join(i.folder, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		i.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		i.t.Fatal(err)
	}
}

func (i installation) append(name string, count int) {
	i.t.Helper()
	for n := range count {
		app := fmt.Sprintf("%s-%d", name, n)
		body := &events.AppCreated{About: events.About{ID: app}, Actor: "actor-1"}
		if _, err := i.Client("gateway").Append(i.t.Context(), events.AppSubject(1, events.Slug(app)), events.New(events.Gateway, time.Now(), "", body)); err != nil {
			i.t.Fatal(err)
		}
	}
}

func (i installation) source() backup.Source {
	return backup.Source{
		Ledger: i.Client("operator"), Registry: filepath.Join(i.folder, "registry"), Repositories: filepath.Join(i.folder, "git"), Keys: i.Keys,
		Files: map[string]string{"files/platform.yaml": filepath.Join(i.folder, "platform.yaml"), "files/token": filepath.Join(i.folder, "token")},
	}
}

// save backs up and returns the file.
func (i installation) save(s backup.Source) string {
	i.t.Helper()
	file := filepath.Join(i.t.TempDir(), "backup")
	result, err := backup.Save(i.t.Context(), s, file)
	if err != nil {
		i.t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o600 || result.Events == 0 || result.Bytes == 0 {
		i.t.Fatalf("%+v, %v, %v", result, info, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); len(left) > 0 {
		i.t.Errorf("left behind: %v", left)
	}
	return file
}

func open(t *testing.T, file string) *os.File {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func records(t *testing.T, c *ledger.Client) []ledger.Record {
	t.Helper()
	var list []ledger.Record
	if _, err := c.Read(t.Context(), 0, func(r ledger.Record) error { list = append(list, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return list
}

// restored reads the ledger of a data folder.
func restored(t *testing.T, data string) []ledger.Record {
	t.Helper()
	keys := filepath.Join(data, "keys")
	server, err := bus.Start(bus.Config{StoreDir: filepath.Join(data, "nats"), Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	c, err := ledger.Connect(t.Context(), ledger.Options{InProcess: server, Service: "operator", Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return records(t, c)
}

func passphrase(t *testing.T, text string) age.Recipient {
	t.Helper()
	r, err := age.NewScryptRecipient(text)
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(10)
	return r
}

func opener(t *testing.T, text string) []age.Identity {
	t.Helper()
	i, err := age.NewScryptIdentity(text)
	if err != nil {
		t.Fatal(err)
	}
	return []age.Identity{i}
}

// What a crash left is removed; what another backup is writing is not.
func TestWhatACrashLeft(t *testing.T) {
	i := newInstallation(t, 3)
	folder := t.TempDir()
	left, used := filepath.Join(folder, ".towpath-backup-1"), filepath.Join(folder, ".towpath-backup-2")
	for _, name := range []string{left, used} {
		if err := os.WriteFile(name, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	held := open(t, used)
	if err := syscall.Flock(int(held.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Save(t.Context(), i.source(), filepath.Join(folder, "backup")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a crash left: %v", err)
	}
	if _, err := os.Stat(used); err != nil {
		t.Errorf("what another writes: %v", err)
	}
}

// A restore that was killed left keys in clear beside the data folder: the next one removes them, and keeps out of the way of
// one that is under way.
func TestWhatAKilledRestoreLeft(t *testing.T) {
	i := newInstallation(t, 3)
	file := i.save(i.source())
	data := filepath.Join(t.TempDir(), "data")
	half := filepath.Join(filepath.Dir(data), ".data.restoring")
	if err := os.MkdirAll(filepath.Join(half, "keys", "old"), 0o700); err != nil {
		t.Fatal(err)
	}
	target := backup.Target{Data: data, Force: true, Reason: "a test"}
	under := open(t, half)
	if err := syscall.Flock(int(under.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Restore(t.Context(), open(t, file), target); err == nil || !strings.Contains(err.Error(), "under way") {
		t.Errorf("while another is under way: %v", err)
	}
	if _, err := os.Stat(filepath.Join(half, "keys", "old")); err != nil {
		t.Errorf("what another has restored: %v", err)
	}
	under.Close()
	if _, err := backup.Restore(t.Context(), open(t, file), target); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{half, filepath.Join(data, "keys", "old")} {
		if _, err := os.Stat(gone); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", gone, err)
		}
	}
}

// While a backup is written there is nothing beside it, and a stream of many pieces comes back as it was. A backup for a
// public key is opened by the private one alone.
func TestNothingIsSpooled(t *testing.T) {
	i := newInstallation(t, 3)
	big := bytes.Repeat([]byte("a line of output\n"), 20_000)
	for n := range 30 {
		if _, err := i.Client("gateway").Bucket(events.BucketConfig).Put(t.Context(), fmt.Sprintf("dev.app.KEY%d", n), big); err != nil {
			t.Fatal(err)
		}
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	source := i.source()
	source.Recipients = []age.Recipient{identity.Recipient()}
	source.Progress = func(string, int64) {
		if entries, err := os.ReadDir(folder); err != nil || len(entries) != 1 {
			t.Errorf("there are %v (%v)", entries, err)
		}
	}
	file := filepath.Join(folder, "backup")
	result, err := backup.Save(t.Context(), source, file)
	if err != nil || !result.Encrypted {
		t.Fatalf("%+v, %v", result, err)
	}
	data := filepath.Join(t.TempDir(), "data")
	target := backup.Target{Data: data, Identities: opener(t, "x"), Force: true}
	if _, err := backup.Restore(t.Context(), open(t, file), target); !errors.Is(err, backup.ErrEncrypted) {
		t.Errorf("with a passphrase: %v", err)
	}
	target.Identities = []age.Identity{identity}
	if _, err := backup.Restore(t.Context(), open(t, file), target); err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(data, "keys")
	server, err := bus.Start(bus.Config{StoreDir: filepath.Join(data, "nats"), Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	c, err := ledger.Connect(t.Context(), ledger.Options{InProcess: server, Service: "gateway", Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if value, _, err := c.Bucket(events.BucketConfig).Get(t.Context(), "dev.app.KEY29"); err != nil || !bytes.Equal(value, big) {
		t.Errorf("%d bytes came back, %v", len(value), err)
	}
}

func TestABackupComesBack(t *testing.T) {
	i := newInstallation(t, 40)
	before := records(t, i.Client("gateway"))
	source := i.source()
	source.Recipients = []age.Recipient{passphrase(t, "correct horse")}
	file := i.save(source)
	if text, err := os.ReadFile(file); err != nil || bytes.Contains(text, []byte("keys/")) {
		t.Errorf("it is not encrypted (%v)", err)
	}
	data := filepath.Join(t.TempDir(), "data")
	if _, err := backup.Restore(t.Context(), open(t, file), backup.Target{Data: data, Identities: opener(t, "wrong")}); !errors.Is(err, backup.ErrEncrypted) {
		t.Errorf("with a wrong passphrase: %v", err)
	}
	done, err := backup.Restore(t.Context(), open(t, file), backup.Target{Data: data, Identities: opener(t, "correct horse"), Force: true, Reason: "a test"})
	if err != nil || done.Events != 40 || done.Record != 41 || done.Against != "" {
		t.Fatalf("%+v, %v", done, err)
	}
	after := restored(t, data)
	if len(after) != 41 || !reflect.DeepEqual(after[:40], before) {
		t.Fatalf("%d events came back", len(after))
	}
	if b, ok := after[40].Event.Body.(*events.LedgerRestored); !ok || b.Events != 40 || !b.Forced || b.Reason != "a test" || b.Against != "" {
		t.Errorf("the last event is %+v", after[40].Event.Body)
	}
	for name, want := range map[string]bool{
		"platform.yaml": true, "git/hosted/hello.git/HEAD": true, "git/hosted/hello.git/refs/heads": true, "git/hosted/hello.git/objects/aa/bb": true,
		"keys/trust.json": true, "git/hosted/hello.git/refs/heads/main.lock": false, "git/hosted/hello.git/objects/tmp_objdir-incoming-x": false,
		"registry/docker/registry/v2/repositories/hello/_uploads": false, "streams": false, "token": false,
	} {
		if _, err := os.Stat(filepath.Join(data, filepath.FromSlash(name))); (err == nil) != want {
			t.Errorf("%s: %v, want it there %v", name, err, want)
		}
	}
	if _, err := backup.Restore(t.Context(), open(t, file), backup.Target{Data: data, Identities: opener(t, "correct horse")}); !errors.Is(err, backup.ErrInUse) {
		t.Errorf("over what is there: %v", err)
	}
}

// Events that come in while a backup is made are in it or not, and it is whole either way.
func TestABackupOfALedgerThatGrows(t *testing.T) {
	i := newInstallation(t, 40)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			i.append(fmt.Sprintf("later-%d", n), 1)
		}
		ended <- n
	}()
	file := i.save(i.source())
	stop()
	written := <-ended
	data := filepath.Join(t.TempDir(), "data")
	done, err := backup.Restore(t.Context(), open(t, file), backup.Target{Data: data, Force: true})
	if err != nil || done.Events < 40 || done.Events > uint64(40+written) {
		t.Fatalf("%+v, %v (%d written meanwhile)", done, err, written)
	}
}

// content is what tar reads of an archive: names, sizes and bytes.
func content(t *testing.T, archive []byte) []byte {
	t.Helper()
	var all bytes.Buffer
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		entry, err := r.Next()
		if err == nil {
			fmt.Fprintf(&all, "%q %d %d\n", entry.Name, entry.Size, entry.Typeflag)
			_, err = io.Copy(&all, r)
		}
		if err != nil {
			fmt.Fprintln(&all, err)
			return all.Bytes()
		}
	}
}

// Whatever byte is another, wherever it is cut: it is refused, and nothing is left behind.
func TestDamagedBackups(t *testing.T) {
	i := newInstallation(t, 10)
	whole, err := os.ReadFile(i.save(i.source()))
	if err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	data := filepath.Join(parent, "data")
	refused := func(what string, content io.Reader) {
		t.Helper()
		if _, err := backup.Restore(t.Context(), content, backup.Target{Data: data, Force: true}); err == nil {
			t.Fatalf("%s came back", what)
		}
		if left, _ := os.ReadDir(parent); len(left) > 0 {
			t.Fatalf("%s left %s behind", what, left[0].Name())
		}
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range 60 {
		at := random.IntN(len(whole))
		if whole[at] == 0 {
			continue // most of it is the padding of tar, which says nothing
		}
		other := bytes.Clone(whole)
		other[at] ^= 1 << random.IntN(8)
		if bytes.Equal(content(t, other), content(t, whole)) {
			continue
		}
		refused(fmt.Sprintf("a backup with another byte at %d", at), bytes.NewReader(other))
	}
	for range 20 {
		at := random.IntN(len(whole) * 9 / 10)
		refused(fmt.Sprintf("%d of %d bytes", at, len(whole)), bytes.NewReader(whole[:at]))
	}
	for name, text := range map[string]string{"nothing": "", "something else": strings.Repeat("x", 4096), "a word": "hello\n"} {
		refused(name, strings.NewReader(text))
		if _, err := backup.Restore(t.Context(), strings.NewReader(text), backup.Target{Data: data, Force: true}); !errors.Is(err, backup.ErrNoBackup) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An encrypted backup that was cut is damaged: whoever opened it knows that it is one.
func TestHalfOfAnEncryptedBackup(t *testing.T) {
	i := newInstallation(t, 3)
	s := i.source()
	s.Recipients = []age.Recipient{passphrase(t, "correct horse")}
	whole, err := os.ReadFile(i.save(s))
	if err != nil {
		t.Fatal(err)
	}
	target := backup.Target{Data: filepath.Join(t.TempDir(), "data"), Identities: opener(t, "correct horse"), Force: true}
	if _, err := backup.Restore(t.Context(), bytes.NewReader(whole[:min(20_000, len(whole)-1)]), target); !errors.Is(err, backup.ErrDamaged) || errors.Is(err, backup.ErrNoBackup) {
		t.Error(err)
	}
}

func TestCheckpoints(t *testing.T) {
	i := newInstallation(t, 10)
	file := i.save(i.source())
	id := records(t, i.Client("gateway"))[0].ID()
	signer, err := identity.LoadSigner(i.Keys, "ledger")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := seal.OpenTree("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Client("operator").ReadStored(t.Context(), 0, func(m ledger.Stored) error { return tree.Append(seal.LeafOf(m)) }); err != nil {
		t.Fatal(err)
	}
	note := func(origin string, size uint64, wrong bool) string {
		root, _ := tree.Root(min(size, 10))
		root[0] ^= map[bool]byte{true: 1}[wrong]
		return seal.Sign(signer, seal.Checkpoint{Origin: origin, Size: size, Root: root})
	}
	restore := func(target backup.Target) (backup.Restored, error) {
		target.Data = filepath.Join(t.TempDir(), "data")
		done, err := backup.Restore(t.Context(), open(t, file), target)
		if _, statErr := os.Stat(target.Data); (statErr == nil) != (err == nil) {
			t.Errorf("%v, and the data folder: %v", err, statErr)
		}
		return done, err
	}
	origin := seal.Origin(id, 1)
	var older *backup.OlderError
	if _, err := restore(backup.Target{Checkpoint: note(origin, 12, false)}); !errors.As(err, &older) || older.Sealed != 12 || older.Has != 10 {
		t.Errorf("a checkpoint of more: %v", err)
	}
	if done, err := restore(backup.Target{Checkpoint: note(origin, 8, false)}); err != nil || done.Older != 0 || !strings.Contains(done.Against, "8 events") {
		t.Errorf("a checkpoint of as many: %+v, %v", done, err)
	}
	var uncompared *backup.UncomparedError
	if _, err := restore(backup.Target{}); !errors.As(err, &uncompared) {
		t.Errorf("held against nothing: %v", err)
	}
	for _, wrong := range []string{note(origin, 8, true), note(seal.Origin(strings.Repeat("0", 64), 1), 8, false)} {
		if _, err := restore(backup.Target{Checkpoint: wrong, Force: true, Reason: "no reason"}); !errors.Is(err, backup.ErrOtherHistory) {
			t.Errorf("a checkpoint of another history: %v", err)
		}
	}
	good := note(origin, 8, false)
	for _, wrong := range []string{"x", strings.Replace(good, "\n8\n", "\n7\n", 1)} {
		if _, err := restore(backup.Target{Checkpoint: wrong}); !errors.Is(err, seal.ErrCheckpoint) {
			t.Errorf("%q passed as a checkpoint: %v", wrong, err)
		}
	}
	target := backup.Target{Checkpoint: note(origin, 12, false), Force: true, Reason: "the disk burned", Data: filepath.Join(t.TempDir(), "data")}
	done, err := backup.Restore(t.Context(), open(t, file), target)
	if err != nil || done.Older != 2 {
		t.Fatalf("forced: %+v, %v", done, err)
	}
	list := restored(t, target.Data)
	if b, ok := list[len(list)-1].Event.Body.(*events.LedgerRestored); !ok || !b.Forced || b.Lost != 2 || b.Against != done.Against || b.Reason != "the disk burned" {
		t.Errorf("the last event is %+v", list[len(list)-1].Event.Body)
	}
}

// A witness is asked for what it cosigned last: the one that is named, or else the one of the backup's platform.yaml.
func TestTheWitnessIsAsked(t *testing.T) {
	i := newInstallation(t, 10)
	list := records(t, i.Client("gateway"))
	signer, err := identity.LoadSigner(i.Keys, "ledger")
	if err != nil {
		t.Fatal(err)
	}
	note := func(size uint64) string {
		return seal.Sign(signer, seal.Checkpoint{Origin: seal.Origin(list[0].ID(), 1), Size: size})
	}
	public, private, _ := ed25519.GenerateKey(nil)
	key := seal.Witness{Name: "witness.example", Public: public}
	_, other, _ := ed25519.GenerateKey(nil)
	answer, status := "nothing was cosigned yet", http.StatusNotFound
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/checkpoint" {
			t.Errorf("%s was asked for", r.URL.Path)
		}
		w.WriteHeader(status)
		io.WriteString(w, answer)
	}))
	defer server.Close()
	i.write("platform.yaml", fmt.Sprintf("witness: {url: %q, key: %q}\n", server.URL, key))
	file := i.save(i.source())
	restore := func(target backup.Target) (backup.Restored, error) {
		target.Data = filepath.Join(t.TempDir(), "data")
		return backup.Restore(t.Context(), open(t, file), target)
	}
	var uncompared *backup.UncomparedError
	if _, err := restore(backup.Target{}); !errors.As(err, &uncompared) {
		t.Errorf("a witness that saw nothing: %v", err)
	}
	status = http.StatusOK
	checkpoint := func(size uint64) seal.Checkpoint {
		return seal.Checkpoint{Origin: seal.Origin(list[0].ID(), 1), Size: size}
	}
	answer = note(12) + seal.Cosign("witness.example", private, checkpoint(12), time.Now())
	var older *backup.OlderError
	if _, err := restore(backup.Target{}); !errors.As(err, &older) || older.Sealed != 12 {
		t.Errorf("the witness saw 12 events: %v", err)
	}
	done, err := restore(backup.Target{Force: true, Reason: "fire"})
	if err != nil || done.Older != 2 || !strings.Contains(done.Against, "witness.example") {
		t.Errorf("forced: %+v, %v", done, err)
	}
	// Not even force brings back what the witness's word cannot be checked for: somebody else may have answered.
	for what, text := range map[string]string{
		"no cosignature": note(12), "another's cosignature": note(12) + seal.Cosign("witness.example", other, checkpoint(12), time.Now()),
		"a cosignature of another checkpoint": note(12) + seal.Cosign("witness.example", private, checkpoint(8), time.Now()),
	} {
		answer = text
		if _, err := restore(backup.Target{Force: true, Reason: "fire"}); !errors.Is(err, seal.ErrCheckpoint) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := restore(backup.Target{Checkpoint: text, Force: true, Reason: "fire"}); !errors.Is(err, seal.ErrCheckpoint) {
			t.Errorf("%s, in a file: %v", what, err)
		}
	}
	server.Close()
	if _, err := restore(backup.Target{}); !errors.As(err, &uncompared) {
		t.Errorf("a witness that is away: %v", err)
	}
}

func TestWithoutKeys(t *testing.T) {
	i := newInstallation(t, 10)
	source := i.source()
	source.Keys = ""
	file := i.save(source)
	if text, err := os.ReadFile(file); err != nil || bytes.Contains(text, []byte("keys/")) {
		t.Errorf("keys are in it (%v)", err)
	}
	if _, err := backup.Restore(t.Context(), open(t, file), backup.Target{Data: filepath.Join(t.TempDir(), "data")}); err == nil || !strings.Contains(err.Error(), "--keys") {
		t.Errorf("without keys: %v", err)
	}
	data := filepath.Join(t.TempDir(), "data")
	if _, err := backup.Restore(t.Context(), open(t, file), backup.Target{Data: data, Keys: i.Keys, Force: true}); err != nil {
		t.Error(err)
	}
}

// A blob that is not what its name says is told, and the backup is made.
func TestDamagedBlob(t *testing.T) {
	i := newInstallation(t, 3)
	digest := strings.Repeat("ab", 32)
	i.write("registry/docker/registry/v2/blobs/sha256/ab/"+digest+"/data", "another layer")
	result, err := backup.Save(t.Context(), i.source(), filepath.Join(t.TempDir(), "backup"))
	if err != nil || len(result.Damaged) != 1 || result.Damaged[0] != "sha256:"+digest {
		t.Errorf("%+v, %v", result, err)
	}
}
