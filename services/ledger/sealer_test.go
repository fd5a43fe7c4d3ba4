package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	client "towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/seal"
	"towpath.dev/pkg/worker"
	"towpath.dev/services/ledger"
	"towpath.dev/services/ledger/witness"
)

// sealing is a running ledger service.
type sealing struct {
	t    *testing.T
	l    *ledgertest.Ledger
	stop func()
}

// start runs the service in place of the test ledger's own door.
func start(t *testing.T, l *ledgertest.Ledger, cfg ledger.Config) *sealing {
	t.Helper()
	l.CloseDoor()
	return beside(t, l, cfg)
}

// beside runs a further service.
func beside(t *testing.T, l *ledgertest.Ledger, cfg ledger.Config) *sealing {
	t.Helper()
	rt, err := worker.Open(t.Context(), worker.Options{Service: "ledger", Bus: l.URL, Keys: l.Keys, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ready, done := make(chan struct{}), make(chan error, 1)
	s, err := ledger.New(cfg, ledger.Deps{Runtime: rt, Ready: func() { close(ready) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- s.Run(ctx) }()
	<-ready
	running := &sealing{t: t, l: l}
	running.stop = func() {
		running.stop = func() {}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		rt.Close()
	}
	t.Cleanup(func() { running.stop() })
	return running
}

func create(t *testing.T, l *ledgertest.Ledger, names ...string) {
	t.Helper()
	for _, name := range names {
		s, e := ledgertest.AppCreated(events.Slug(name))
		if _, err := l.Client("gateway").Append(t.Context(), s, e); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *sealing) now() seal.Status {
	s.t.Helper()
	status, err := seal.Now(s.t.Context(), s.l.Client("gateway").Conn())
	if err != nil {
		s.t.Fatal(err)
	}
	return status
}

// alarm waits for the service to say that the ledger is not what was sealed.
func (s *sealing) alarm() string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		status, err := seal.Ask(ctx, s.l.Client("gateway").Conn())
		if err == nil && status.Alarm != "" {
			return status.Alarm
		}
		timer := time.NewTimer(10 * time.Millisecond)
		<-timer.C
	}
	s.t.Fatal("no alarm")
	return ""
}

// checkpoints returns the events that seal.
func checkpoints(t *testing.T, l *ledgertest.Ledger) (all []*events.CheckpointSealed, seqs []uint64) {
	t.Helper()
	_, err := l.Client("gateway").Read(t.Context(), 0, func(r client.Record) error {
		if b, ok := r.Event.Body.(*events.CheckpointSealed); ok {
			all, seqs = append(all, b), append(seqs, r.Seq)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, seqs
}

// root computes the tree anew from the stream.
func root(t *testing.T, l *ledgertest.Ledger, size uint64) seal.Hash {
	t.Helper()
	tree, err := seal.OpenTree("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Client("gateway").ReadStored(t.Context(), 0, func(m client.Stored) error { return tree.Append(seal.LeafOf(m)) }); err != nil {
		t.Fatal(err)
	}
	h, err := tree.Root(size)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestWhatIsNewIsSealedOnce(t *testing.T) {
	l := ledgertest.Start(t)
	s := start(t, l, ledger.Config{State: t.TempDir(), Every: 10 * time.Millisecond})
	create(t, l, "one", "two", "three")
	first := s.now()
	if first.Size < 3 || first.Alarm != "" {
		t.Fatalf("sealed %+v", first)
	}
	trust := l.Client("gateway").Trust()
	signed, err := seal.Open(first.Checkpoint, trust)
	if err != nil {
		t.Fatal(err)
	}
	if signed.Size != first.Size || signed.Root != root(t, l, signed.Size) {
		t.Errorf("checkpoint %+v is not the root of the stream", signed.Checkpoint)
	}
	// Nothing but checkpoints came since: nothing is sealed, however often it is asked for.
	for range 5 {
		if again := s.now(); again.Serial != first.Serial {
			t.Fatalf("checkpoint %d follows %d though nothing is new", again.Serial, first.Serial)
		}
	}
	create(t, l, "four")
	if next := s.now(); next.Size <= first.Size || next.Serial <= first.Serial {
		t.Errorf("after one more event: %+v", next)
	}
	all, seqs := checkpoints(t, l)
	for i, b := range all {
		if b.TreeSize >= seqs[i] || b.ID != fmt.Sprintf("checkpoint/%d", i+1) {
			t.Errorf("checkpoint %d: %+v at %d", i+1, b, seqs[i])
		}
	}
}

func TestLostFilesAreMadeAnew(t *testing.T) {
	l := ledgertest.Start(t)
	state := t.TempDir()
	s := start(t, l, ledger.Config{State: state, Every: time.Hour})
	create(t, l, "one", "two", "three", "four", "five")
	before := s.now()
	s.stop()
	for i, lose := range []func(){
		func() {},
		func() { os.Remove(filepath.Join(state, seal.HashesFile)) },
		func() { os.RemoveAll(state) },
		func() { os.Truncate(filepath.Join(state, seal.HashesFile), 100) },
		func() {
			file, err := os.OpenFile(filepath.Join(state, seal.HashesFile), os.O_WRONLY, 0)
			if err == nil {
				_, err = file.WriteAt([]byte("spoiled"), 40)
				file.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		lose()
		again := beside(t, l, ledger.Config{State: state, Every: time.Hour})
		if status := again.now(); status.Serial != before.Serial || status.Checkpoint != before.Checkpoint {
			t.Errorf("loss %d: %+v, before %+v", i, status, before)
		}
		again.stop()
	}
	for _, name := range []string{seal.HashesFile, seal.CheckpointFile} {
		if _, err := os.Stat(filepath.Join(state, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestTwoSealersMakeOneChain(t *testing.T) {
	l := ledgertest.Start(t)
	one := start(t, l, ledger.Config{State: t.TempDir(), Every: time.Millisecond})
	beside(t, l, ledger.Config{State: t.TempDir(), Every: time.Millisecond})
	for i := range 40 {
		create(t, l, fmt.Sprintf("app-%d", i))
	}
	last := one.now()
	all, _ := checkpoints(t, l)
	if len(all) < last.Serial || last.Alarm != "" {
		t.Errorf("%d checkpoints, status %+v", len(all), last)
	}
	trust := l.Client("gateway").Trust()
	for i, b := range all {
		signed, err := seal.Open(b.Checkpoint, trust)
		if err != nil || signed.Root != root(t, l, b.TreeSize) {
			t.Errorf("checkpoint %d: %v", i+1, err)
		}
	}
}

// rewrite puts the ledger's messages back as an administrator of the bus could, after change had its way.
func rewrite(t *testing.T, l *ledgertest.Ledger, change func([]*nats.Msg) []*nats.Msg) {
	t.Helper()
	var all []*nats.Msg
	_, err := l.Client("gateway").ReadStored(t.Context(), 0, func(m client.Stored) error {
		all = append(all, &nats.Msg{Subject: m.Subject, Data: m.Body, Header: nats.Header{identity.SignatureHeader: {m.Signature}}})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Stop()
	l.Wipe()
	l.Restart()
	l.Provision()
	conn := l.Connect("ledger").Conn()
	for _, m := range change(all) {
		if _, err := conn.RequestMsg(m, 5*time.Second); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnEditedLedgerIsFound(t *testing.T) {
	for name, change := range map[string]func([]*nats.Msg) []*nats.Msg{
		"edited":       func(m []*nats.Msg) []*nats.Msg { m[2].Data[len(m[2].Data)-5] ^= 1; return m },
		"dropped":      func(m []*nats.Msg) []*nats.Msg { return append(m[:2], m[3:]...) },
		"reordered":    func(m []*nats.Msg) []*nats.Msg { m[1], m[2] = m[2], m[1]; return m },
		"written anew": func(m []*nats.Msg) []*nats.Msg { return m }, // with other times
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := ledgertest.Start(t)
			state := t.TempDir()
			s := start(t, l, ledger.Config{State: state, Every: time.Hour})
			create(t, l, "one", "two", "three", "four", "five")
			s.now()
			s.stop()
			rewrite(t, l, change)
			again := beside(t, l, ledger.Config{State: state, Every: time.Hour})
			if why := again.alarm(); !strings.Contains(why, "edited") {
				t.Errorf("alarm %q", why)
			}
			before, err := os.ReadFile(filepath.Join(state, seal.CheckpointFile))
			if err != nil {
				t.Fatal(err)
			}
			again.stop()
			// The alarm stands until an operator ends it, and the checkpoint is kept.
			again = beside(t, l, ledger.Config{State: state, Every: time.Hour})
			if !strings.Contains(again.alarm(), "found earlier") {
				t.Error("the alarm did not survive a restart")
			}
			if after, err := os.ReadFile(filepath.Join(state, seal.CheckpointFile)); err != nil || string(after) != string(before) {
				t.Errorf("the checkpoint was overwritten: %v", err)
			}
			// A ledger that contradicts its own checkpoints is alarmed again, whoever ends the alarm.
			if _, err := seal.EndAlarm(t.Context(), l.Client("operator").Conn(), "so what"); err != nil {
				t.Fatal(err)
			}
			if _, err := seal.Now(t.Context(), l.Client("gateway").Conn()); !errors.Is(err, seal.ErrAlarm) || strings.Contains(err.Error(), "found earlier") {
				t.Errorf("after the alarm was ended: %v", err)
			}
		})
	}
}

// rolledBack returns a ledger whose whole store is an older copy, bit for bit, the folder of what was sealed before, and
// the newest checkpoint of then.
func rolledBack(t *testing.T) (l *ledgertest.Ledger, state, newest string) {
	t.Helper()
	l, state = ledgertest.Start(t), t.TempDir()
	s := start(t, l, ledger.Config{State: state, Every: time.Hour})
	create(t, l, "one", "two")
	s.now()
	s.stop()
	l.Stop()
	store, copied := filepath.Join(filepath.Dir(l.Keys), "nats"), filepath.Join(t.TempDir(), "nats")
	if err := os.CopyFS(copied, os.DirFS(store)); err != nil {
		t.Fatal(err)
	}
	l.Restart()
	s = beside(t, l, ledger.Config{State: state, Every: time.Hour})
	create(t, l, "three", "four")
	newest = s.now().Checkpoint
	s.stop()
	l.Stop()
	l.Wipe()
	if err := os.CopyFS(store, os.DirFS(copied)); err != nil {
		t.Fatal(err)
	}
	l.Restart()
	return l, state, newest
}

func TestARollbackIsFound(t *testing.T) {
	l, state, _ := rolledBack(t)
	cfg := ledger.Config{State: state, Every: time.Hour, Absence: 100 * time.Millisecond}
	s := beside(t, l, cfg)
	if why := s.alarm(); !strings.Contains(why, "rolled back") {
		t.Errorf("alarm %q", why)
	}
	// What is asked meanwhile is answered: how far it was sealed, and why no proof can be made.
	gateway := l.Client("gateway").Conn()
	if _, err := seal.Hashes(t.Context(), gateway).ReadHashes([]int64{0}); err == nil || !strings.Contains(err.Error(), "rolled back") {
		t.Errorf("hashes of a tree under alarm: %v", err)
	}
	s.ended(cfg)
}

// ended ends the alarm, and expects everything to be sealed anew, and that to be on record.
func (s *sealing) ended(cfg ledger.Config) {
	t := s.t
	t.Helper()
	why := s.alarm()
	operator := s.l.Client("operator").Conn()
	if _, err := seal.EndAlarm(t.Context(), operator, ""); err == nil || !strings.Contains(err.Error(), "reason") {
		t.Errorf("without a reason: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := seal.EndAlarm(short, s.l.Client("gateway").Conn(), "mine"); err == nil {
		t.Error("the gateway ended an alarm")
	}
	if was, err := seal.EndAlarm(t.Context(), operator, "ticket 4711"); err != nil || was.Alarm != why {
		t.Fatalf("ending the alarm: %+v, %v", was, err)
	}
	status := s.now()
	if status.Alarm != "" || status.Size == 0 {
		t.Errorf("after the alarm: %+v", status)
	}
	if _, err := seal.Hashes(t.Context(), operator).ReadHashes([]int64{0}); err == nil {
		t.Error("the operator reads hashes")
	}
	if _, err := seal.Hashes(t.Context(), s.l.Client("gateway").Conn()).ReadHashes([]int64{0}); err != nil {
		t.Errorf("hashes after the alarm: %v", err)
	}
	var record *events.AlarmEnded
	if _, err := s.l.Client("gateway").Read(t.Context(), 0, func(r client.Record) error {
		if b, ok := r.Event.Body.(*events.AlarmEnded); ok {
			record = b
		}
		return nil
	}); err != nil || record == nil || record.Alarm != why || record.Reason != "ticket 4711" || record.Actor != "operator" || record.Sealed == 0 {
		t.Fatalf("recorded: %+v, %v", record, err)
	}
	if _, err := os.Stat(filepath.Join(cfg.State, record.Aside, seal.CheckpointFile)); err != nil {
		t.Error(err)
	}
	if _, err := seal.EndAlarm(t.Context(), operator, "again"); err == nil || !strings.Contains(err.Error(), "no alarm") {
		t.Errorf("ended twice: %v", err)
	}
	s.stop()
	if again := beside(t, s.l, cfg).now(); again.Alarm != "" || again.Serial < status.Serial {
		t.Errorf("at the next start: %+v", again)
	}
}

// TestAnEditIsFoundWithoutFiles: the checkpoints in the ledger itself tell as well.
func TestAnEditIsFoundWithoutFiles(t *testing.T) {
	l := ledgertest.Start(t)
	s := start(t, l, ledger.Config{Every: time.Hour})
	create(t, l, "one", "two", "three")
	s.now()
	s.stop()
	rewrite(t, l, func(m []*nats.Msg) []*nats.Msg { m[1].Data[20] ^= 1; return m })
	if why := beside(t, l, ledger.Config{Every: time.Hour}).alarm(); !strings.Contains(why, "checkpoint 1") {
		t.Errorf("alarm %q", why)
	}
}

// watching starts a witness and returns its configuration for the ledger service.
func watching(t *testing.T, l *ledgertest.Ledger, dir string) (url string, w *witness.Service) {
	t.Helper()
	w, err := witness.New(witness.Config{Name: "witness.example", Dir: dir, Listen: "127.0.0.1:0",
		Trust: filepath.Join(l.Keys, identity.TrustFile)}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(w.Handler())
	t.Cleanup(func() { server.Close(); w.Close() })
	return server.URL, w
}

// A key that was retired, perhaps because it was stolen, takes the witness nowhere, were it to what it saw before.
func TestAWitnessRefusesARetiredKey(t *testing.T) {
	l := ledgertest.Start(t)
	dir := t.TempDir()
	url, w := watching(t, l, dir)
	s := start(t, l, ledger.Config{State: t.TempDir(), Every: time.Hour, Witness: url, WitnessKey: w.Key().String()})
	create(t, l, "one")
	seen := s.now()
	s.stop()
	state, err := os.ReadFile(filepath.Join(dir, witness.StateFile))
	if err != nil || seen.Witnessed == nil {
		t.Fatalf("nothing was witnessed: %+v, %v", seen, err)
	}
	lines := strings.SplitAfter(string(state), "\n")
	note := strings.Join(lines[:len(lines)-2], "") // without the witness's own line
	ask := func() (int, string) {
		answer, err := http.Post(url+"/add-checkpoint", "text/plain", strings.NewReader(fmt.Sprintf("old %d\n\n%s", seen.Size, note)))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(text)
	}
	if status, text := ask(); status != http.StatusOK {
		t.Fatalf("before the rotation: %d %s", status, text)
	}
	if _, err := identity.Prepare(l.Keys, identity.Change{Identities: []string{"ledger"}, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := identity.Switch(l.Keys); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(10 * time.Second); ; {
		status, text := ask()
		if status == http.StatusForbidden && strings.Contains(text, "retired") {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("10 s after the rotation: %d %s", status, text)
		}
	}
}

// A witness that was given a new start cosigns with another key, and tells why.
func TestAWitnessBeginsAnew(t *testing.T) {
	l := ledgertest.Start(t)
	dir := t.TempDir()
	if _, err := witness.Reset(dir, "r", time.Now()); !errors.Is(err, witness.ErrNoWitness) {
		t.Errorf("a folder of nobody: %v", err)
	}
	cfg := witness.Config{Name: "witness.example", Dir: dir, Listen: "127.0.0.1:0", Trust: filepath.Join(l.Keys, identity.TrustFile)}
	open := func() *witness.Service {
		w, err := witness.New(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	first := open()
	server := httptest.NewServer(first.Handler())
	s := start(t, l, ledger.Config{Every: time.Hour, Witness: server.URL, WitnessKey: first.Key().String()})
	create(t, l, "one")
	seen := s.now()
	s.stop()
	server.Close()
	if _, err := witness.Reset(dir, "while it runs", time.Now()); err == nil {
		t.Error("a witness that runs was reset")
	}
	first.Close()
	n, err := witness.Reset(dir, "restored on Monday", time.Now())
	if err != nil || n.Key != first.Key().String() || seen.Witnessed == nil || !strings.HasPrefix(seen.Checkpoint, n.Checkpoint+"\n") {
		t.Fatalf("%+v, %v; it had seen %q", n, err, seen.Checkpoint)
	}
	for _, name := range []string{witness.KeyFile, witness.StateFile} {
		if _, err := os.Stat(filepath.Join(dir, n.Aside, name)); err != nil {
			t.Error(err)
		}
	}
	second := open()
	defer second.Close()
	if second.Key().String() == first.Key().String() {
		t.Error("the key is that of before")
	}
	server = httptest.NewServer(second.Handler())
	defer server.Close()
	answer, err := http.Get(server.URL + "/resets")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	if !strings.Contains(string(text), "restored on Monday") || !strings.Contains(string(text), n.Key) {
		t.Errorf("it tells %q", text)
	}
	// Checkpoints in the ledger bear the signature of before, which nobody here can check. The new key signs what is there
	// without waiting for something new, once.
	s = beside(t, l, ledger.Config{Every: time.Hour, Witness: server.URL, WitnessKey: second.Key().String()})
	asked := func() seal.Status {
		status, err := seal.Ask(t.Context(), l.Client("gateway").Conn())
		if err != nil {
			t.Fatal(err)
		}
		return status
	}
	ledgertest.Soon(t, "the new key signs what is there", func() bool { w := asked().Witnessed; return w != nil && w.Size > seen.Size })
	signed := asked()
	if again := s.now(); again.Serial != signed.Serial || again.Serial != seen.Serial+1 {
		t.Errorf("checkpoint %d follows %d, which follows %d, though nothing is new", again.Serial, signed.Serial, seen.Serial)
	}
	create(t, l, "two")
	if after := s.now(); after.Witnessed == nil || after.Witnessed.Size != after.Size || after.Alarm != "" {
		t.Errorf("the new key signs: %+v", after)
	}
}

func TestAWitnessCosignsWhatExtends(t *testing.T) {
	l := ledgertest.Start(t)
	dir, state := t.TempDir(), t.TempDir()
	url, w := watching(t, l, dir)
	cfg := ledger.Config{State: state, Every: time.Hour, Witness: url, WitnessKey: w.Key().String()}
	s := start(t, l, cfg)
	create(t, l, "one")
	first := s.now()
	create(t, l, "two", "three")
	second := s.now()
	if first.Witnessed == nil || second.Witnessed == nil || second.Witnessed.Size != second.Size || second.Trouble != "" {
		t.Fatalf("witnessed %+v, then %+v", first, second)
	}
	trust := l.Client("gateway").Trust()
	kept, err := seal.Witnessed(state, trust, w.Key())
	if err != nil || kept == nil || kept.Size != second.Size || len(kept.Cosignatures) != 1 {
		t.Fatalf("kept %+v: %v", kept, err)
	}
	own, err := seal.Read(filepath.Join(dir, witness.StateFile), trust, w.Key())
	if err != nil || own.Size != second.Size {
		t.Fatalf("the witness's own state: %+v, %v", own, err)
	}
	// Everything but the witness is rolled back and goes another way: the witness does not follow.
	s.stop()
	os.RemoveAll(state)
	rewrite(t, l, func(m []*nats.Msg) []*nats.Msg { return m[:1] })
	forked := beside(t, l, cfg)
	create(t, l, "four")
	if status := forked.now(); status.Witnessed != nil || !strings.Contains(status.Trouble, "rolled back") && !strings.Contains(status.Trouble, "not what") {
		t.Errorf("a ledger that was rolled back: %+v", status)
	}
	for i := range 6 {
		create(t, l, fmt.Sprintf("five-%d", i))
	}
	if status := forked.now(); status.Witnessed != nil || status.Trouble == "" {
		t.Errorf("a ledger that was forked: %+v", status)
	}
	if after, err := seal.Read(filepath.Join(dir, witness.StateFile), trust, w.Key()); err != nil || after.Note != own.Note {
		t.Errorf("the witness's state moved: %+v, %v", after, err)
	}
}

// What tells of a rollback is still there when the service ends before it is sure.
func TestARollbackIsFoundAtTheSecondStart(t *testing.T) {
	l, state, newest := rolledBack(t)
	s := beside(t, l, ledger.Config{State: state, Every: time.Hour, Absence: time.Hour})
	ledgertest.Soon(t, "the ledger is read", func() bool {
		status, err := seal.Ask(t.Context(), l.Client("gateway").Conn())
		return err == nil && status.Head > 0
	})
	s.stop()
	if kept, err := os.ReadFile(filepath.Join(state, seal.CheckpointFile)); err != nil || string(kept) != newest {
		t.Errorf("kept is %s (%v), sealed was %s", kept, err, newest)
	}
	s = beside(t, l, ledger.Config{State: state, Every: time.Hour, Absence: 100 * time.Millisecond})
	if why := s.alarm(); !strings.Contains(why, "rolled back") {
		t.Errorf("alarm %q", why)
	}
}
