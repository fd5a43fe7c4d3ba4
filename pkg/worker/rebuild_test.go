package worker_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/ledger/snapshot"
	"towpath.dev/pkg/worker"
)

// done asks for a check or a rebuild and waits for its report.
func done(t *testing.T, rt *worker.Runtime, do string) worker.Report {
	t.Helper()
	answer := rt.AskState(do)
	for end := time.After(20 * time.Second); answer.Running; answer = rt.AskState(worker.DoStatus) {
		select {
		case <-end:
			t.Fatalf("%s takes more than 20 s", do)
		case <-time.After(time.Millisecond):
		}
	}
	if answer.Report == nil {
		t.Fatalf("%s: no report", do)
	}
	return *answer.Report
}

// same reports whether a check was made and all ways came to the same bytes.
func same(r worker.Report) bool { return r.Error == "" && r.Difference == "" }

func TestACheckProvesTheState(t *testing.T) {
	l, state := ledgertest.Start(t), t.TempDir()
	appendApps(t, l, "one", "two")
	rt, _ := reopen(t, l, "vet", state)
	if r := done(t, rt, worker.DoCheck); !same(r) || r.Seq != 2 || r.Resumed != nil || r.Live.SHA256 != r.Fresh.SHA256 || r.Live.Bytes == 0 {
		t.Errorf("without a snapshot: %+v", r)
	}
	rt.Close()
	rt, _ = reopen(t, l, "vet", state)
	defer rt.Close()
	appendApps(t, l, "three")
	if err := rt.Ledger.Await(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	r := done(t, rt, worker.DoCheck)
	if !same(r) || r.Seq != 3 || r.Resumed == nil || r.Resumed.After != 2 || r.Resumed.SHA256 != r.Live.SHA256 {
		t.Errorf("with a snapshot: %+v", r)
	}

	// A service may be asked by the gateway alone.
	for _, id := range []string{"gateway", "build"} {
		m, err := l.Client(id).Conn().Request(events.StateSubject(events.Vet), []byte(worker.DoStatus), time.Second)
		if (err == nil) != (id == "gateway") {
			t.Errorf("%s asks: %v", id, err)
		}
		var answer worker.StateAnswer
		if err == nil && (json.Unmarshal(m.Data, &answer) != nil || answer.Report == nil || answer.Report.Live != r.Live) {
			t.Errorf("%s is told %s", id, m.Data)
		}
	}
}

// TestACheckFindsWhatDiffers: a live state or a snapshot that is not what the ledger gives is found, with the field; a
// rebuild mends both.
func TestACheckFindsWhatDiffers(t *testing.T) {
	l, state := ledgertest.Start(t), t.TempDir()
	appendApps(t, l, "one", "two")
	rt, _ := reopen(t, l, "vet", state)
	defer func() { rt.Close() }()

	// Whoever has an app can change it, which nobody does; a fault in the fold would look the same.
	rt.Fold.App("two").Branch = "elsewhere"
	if r := done(t, rt, worker.DoCheck); same(r) || !strings.HasPrefix(r.Difference, "Apps[two].Branch: live elsewhere") {
		t.Errorf("a changed state: %+v", r)
	}
	if r := done(t, rt, worker.DoRebuild); !r.Rebuilt || !strings.HasPrefix(r.Difference, "Apps[two].Branch") {
		t.Errorf("rebuilding it: %+v", r)
	}
	if r := done(t, rt, worker.DoCheck); !same(r) || rt.Fold.App("two").Branch == "elsewhere" || r.Resumed == nil || r.Resumed.After != 2 {
		t.Errorf("after the rebuild: %+v", r)
	}

	// A snapshot that this service sealed and that says something else.
	wrong, ok := rt.Snapshot()
	if !ok {
		t.Fatal("no snapshot")
	}
	wrong.State.Policy = fold.PolicyVersion{Serial: 7}
	if _, err := snapshot.Save(snapshot.File(state, "vet"), l.Client("vet").Signer(), wrong, time.Now()); err != nil {
		t.Fatal(err)
	}
	if r := done(t, rt, worker.DoCheck); same(r) || !strings.HasPrefix(r.Difference, "Policy.Serial: live 0, a fold resumed from the snapshot 7") {
		t.Errorf("a wrong snapshot: %+v", r)
	}
	if err := os.WriteFile(snapshot.File(state, "vet"), []byte("noise"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := done(t, rt, worker.DoCheck); same(r) || !strings.Contains(r.Difference, "cannot be used") {
		t.Errorf("a damaged snapshot: %+v", r)
	}
	if r := done(t, rt, worker.DoRebuild); !r.Rebuilt || r.Difference != "" {
		t.Errorf("rebuilding: %+v", r)
	}
	if r := done(t, rt, worker.DoCheck); !same(r) || r.Resumed == nil {
		t.Errorf("after it: %+v", r)
	}
}

// TestARebuildWhileEventsCome: nothing is lost, and nobody who waits for an event waits in vain.
func TestARebuildWhileEventsCome(t *testing.T) {
	l, state := ledgertest.Start(t), t.TempDir()
	appendApps(t, l, "first")
	rt, _ := reopen(t, l, "vet", state)
	defer rt.Close()
	written := make(chan uint64, 1)
	go func() {
		var last uint64
		for i := range 100 {
			s, e := ledgertest.AppCreated(events.Slug("app-" + string(rune('a'+i/26)) + string(rune('a'+i%26))))
			r, err := l.Client("gateway").Append(t.Context(), s, e)
			if err != nil {
				t.Error(err)
				break
			}
			last = r.Seq
		}
		written <- last
	}()
	var last uint64
	for rebuilds := 0; last == 0; rebuilds++ {
		if r := done(t, rt, worker.DoRebuild); r.Error != "" || r.Difference != "" {
			t.Errorf("rebuild %d: %+v", rebuilds, r)
		}
		select {
		case last = <-written:
		default:
		}
	}
	if err := rt.Ledger.Await(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	wantApps(t, rt, l)
	if r := done(t, rt, worker.DoCheck); !same(r) || r.Seq != last || (r.Live.SHA256 == ledger.Hash{}) {
		t.Errorf("%+v", r)
	}
}
