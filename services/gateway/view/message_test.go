package view

import (
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
)

// TestWhatIsTriedAgainShows: at the stage of the service that noted it, in the run that it names, and only while
// that stage is under way.
func TestWhatIsTriedAgainShows(t *testing.T) {
	l := foldtest.New()
	d := foldtest.Definition(text)
	l.Push(d, l.Policy(1, "{}"))
	start := l.App("hello").Run(1).StartEvent
	note := ledger.Note{Service: events.Build, State: ledger.Retrying, App: "hello", Event: start, Failed: 3, Allowed: 13, Why: "the registry is away", Next: time.Unix(9, 0)}
	show := func(n ledger.Note) Run {
		app := l.App("hello")
		return NewRun(app, app.Run(1), "").Retried(app.Run(1), []ledger.Note{n})
	}
	const words = "try 3 of 13 failed, and it is tried again by itself: the registry is away"
	if r := show(note); r.Detail != words || r.Stages[0].Detail != words || r.Stages[0].Status != "queued" || r.Stages[0].Tries != 3 || r.Stages[0].Next == nil {
		t.Errorf("build is tried again: %+v", r)
	}
	for name, change := range map[string]func(*ledger.Note){
		"another app":     func(n *ledger.Note) { n.App = "other" },
		"another event":   func(n *ledger.Note) { n.Event = "x" },
		"another service": func(n *ledger.Note) { n.Service = events.Gateway },
		"another stage":   func(n *ledger.Note) { n.Service = events.Verify },
		"set aside":       func(n *ledger.Note) { n.State = ledger.SetAside },
		"nothing is told": func(n *ledger.Note) { n.Failed, n.Why = 0, "" },
	} {
		n := note
		change(&n)
		if r := show(n); name != "another stage" && (r.Detail != "" || r.Stages[0].Tries != 0) {
			t.Errorf("%s: %+v", name, r.Stages[0])
		}
	}
	waits := note
	waits.Failed, waits.Why = 0, "Vault of dev: it is sealed; unseal it"
	if r := show(waits); r.Detail != "it is tried again by itself: "+waits.Why || r.Stages[0].Tries != 0 {
		t.Errorf("waiting for what is away is no failed try: %+v", r)
	}
	digest := foldtest.Digest("a")
	l.Built("hello", 1, 1, digest)
	if r := show(note); r.Stages[0].Detail != "" || r.Stages[0].Tries != 0 {
		t.Errorf("built: %+v", r.Stages[0])
	}
	vet := ledger.Note{Service: events.Vet, State: ledger.Retrying, App: "hello", Run: 1, Failed: 1, Allowed: 13, Why: "no blobs"}
	if r := show(vet); r.Stages[1].Tries != 1 || !strings.Contains(r.Stages[1].Detail, "no blobs") {
		t.Errorf("vetting: %+v", r.Stages[1])
	}
	l.Vetted("hello", 1, 1, digest, d.EnvironmentNames())
	taken := &events.SlotTaken{About: events.About{ID: "hello/dev/1"}, Slot: 1, Run: 1, Attempt: 1, Digest: digest, Kind: events.KindDeploy, Environment: "dev"}
	l.Write(events.SlotSubject(1, taken.Type(), "hello", "dev", 1), "", taken)
	decided := &events.SlotDecided{About: events.About{ID: "hello/dev/1"}, Slot: 1, Decision: events.Live, Environment: "dev"}
	l.Write(events.SlotSubject(1, decided.Type(), "hello", "dev", 1), "", decided)
	verify := ledger.Note{Service: events.Verify, State: ledger.Retrying, App: "hello", Env: "dev", Failed: 2, Allowed: 10, Why: "no engine"}
	if r := show(verify); r.Stages[3].Tries != 2 || r.Stages[5].Tries != 0 {
		t.Errorf("verifying: %+v", r.Stages)
	}
	verify.Env = "prod"
	if r := show(verify); r.Stages[3].Tries != 0 || r.Stages[5].Tries != 0 {
		t.Errorf("verifying elsewhere: %+v", r.Stages)
	}
}

func TestMessages(t *testing.T) {
	l := foldtest.New()
	l.Push(foldtest.Definition(text), l.Policy(1, "{}"))
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	notes := []ledger.Note{
		{Service: events.Vet, Durable: ledger.NoteFollower, Seq: 9, State: ledger.Parked, Type: "newer", Why: "unknown", First: at(20)},
		{Service: events.Build, Durable: "build", Seq: 9, State: ledger.Parked, Type: "newer", Why: "unknown", First: at(21)},
		{Service: events.Build, Durable: ledger.NoteFollower, Seq: 9, State: ledger.Parked, Type: "newer", Why: "unknown", First: at(22)},
		{Service: events.Build, Durable: "build", Seq: 3, State: ledger.Retrying, App: "hello", Run: 1, Failed: 2, Allowed: 13, Why: "away", First: at(30)},
		{Service: events.Vet, Durable: "vet", Seq: 3, State: ledger.Retrying, App: "hello", Run: 1, Failed: 1, Allowed: 13, Why: "away", First: at(31)},
		{Service: events.Watch, Durable: "promote", Seq: 4, State: ledger.Halted, Why: "stopped", First: at(40)},
		{Service: events.Promote, Durable: "promote", Seq: 4, State: ledger.Retrying, App: "hello", Failed: 2, Why: "stopped since", First: at(41)},
		{Service: events.Gateway, Durable: ledger.NoteFollower, Seq: 5, State: ledger.SetAside, Why: "signature", First: at(10)},
	}
	var got []string
	for _, m := range Messages([]*fold.App{l.App("hello")}, notes) {
		got = append(got, string(m.State)+" "+m.Run+" "+strings.Join(m.Services, ","))
		if m.Do == "" != (m.State == "retrying") {
			t.Errorf("what to do about %+v", m)
		}
	}
	want := []string{"aside  gateway", "parked  build,vet", "retrying hello/1 build", "retrying hello/1 vet", "stopped  watch"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("messages\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	l.Command(events.Command{Verb: events.VerbCancel, App: "hello", Run: 1})
	for _, m := range Messages([]*fold.App{l.App("hello")}, notes) {
		if m.State == "retrying" {
			t.Errorf("cancelled, and still tried again: %+v", m)
		}
	}
	if got := Messages(nil, nil); got == nil || len(got) != 0 {
		t.Errorf("nothing: %#v", got)
	}
}

func TestStuckIsOldestFirstAndLeavesWhenResolved(t *testing.T) {
	l := foldtest.New()
	l.Push(foldtest.Definition(text), l.Policy(1, "{}"))
	l.Push(foldtest.Definition(text), "")
	stuck := func(run int, cause string) {
		b := &events.StageStuck{About: events.About{ID: "x"}, Stage: fold.StageBuild, Attempt: 1, Deliveries: 13, LastError: cause + " at 7", Cause: cause, Command: "towpath replay"}
		l.Write(events.StuckSubject(1, "hello", run, "", fold.StageBuild, 1, 1), foldtest.Chain("hello", run), b)
		e := &events.TaskRunFinished{TaskName: "build", Outcome: events.Error, Result: events.Result{Attempt: 1, Trouble: &events.Trouble{What: cause, Tries: 13}}}
		e.ID = "x"
		l.Write(events.BuildSubject(1, e.Type(), "hello", run, "", 1), foldtest.Chain("hello", run), e)
	}
	stuck(2, "away")
	stuck(1, "full")
	got := Stuck([]*fold.App{l.App("hello")})
	if len(got) != 2 || got[0].Run != "hello/2" || got[1].Run != "hello/1" || got[0].Attempt != 1 || got[0].Tries != 13 || got[0].Cause != "away" {
		t.Fatalf("stuck %+v", got)
	}
	l.Replay("hello", 2, fold.StageBuild, "")
	if got := Stuck([]*fold.App{l.App("hello")}); len(got) != 1 || got[0].Run != "hello/1" {
		t.Errorf("after the replay %+v", got)
	}
}
