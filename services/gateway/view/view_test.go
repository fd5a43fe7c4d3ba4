package view

import (
	"fmt"
	"strings"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
)

const text = "app: hello\nservice: {port: 8080}\nenvironments: [{name: dev}, {name: prod}]\n"

func noURL(events.Slug, int) string { return "" }

func shown(l *foldtest.Ledger, n int) Run {
	app := l.App("hello")
	return NewRun(app, app.Run(n), "http://page")
}

func live(l *foldtest.Ledger, run int, env events.Slug, kind events.Kind) {
	app := l.App("hello")
	n := app.Env(env).Slots.Len() + 1
	about := events.About{ID: fmt.Sprintf("hello/%s/%d", env, n)}
	r := app.Run(run)
	taken := &events.SlotTaken{About: about, Slot: n, Run: run, Attempt: 1, Digest: r.Artifact.Digest, Kind: kind, Environment: env}
	l.Write(events.SlotSubject(1, taken.Type(), "hello", env, n), "", taken)
	decided := &events.SlotDecided{About: about, Slot: n, Decision: events.Live, Environment: env}
	l.Write(events.SlotSubject(1, decided.Type(), "hello", env, n), "", decided)
	l.Verified("hello", run, env, n, 1, events.Success)
	closed := &events.SlotClosed{About: about, Slot: n, Closing: events.Verified, Environment: env}
	l.Write(events.SlotSubject(1, closed.Type(), "hello", env, n), "", closed)
}

func TestRunOnItsWay(t *testing.T) {
	l := foldtest.New()
	d := foldtest.Definition(text)
	policy := l.Policy(1, "{}")
	l.Push(d, policy)
	if r := shown(l, 1); r.Status != "queued" || len(r.Stages) != 6 || r.Stages[0].Status != "pending" || r.Finished != nil || r.URL != "http://page" {
		t.Errorf("pushed %+v", r)
	}
	digest := foldtest.Digest("a")
	l.Built("hello", 1, 1, digest)
	l.Vetted("hello", 1, 1, digest, d.EnvironmentNames(), "prod")
	if r := shown(l, 1); r.Digest != digest || r.Stages[0].Status != "done" || r.Stages[1].Detail != "prod: fail: licence AGPL-3.0 is denied" {
		t.Errorf("vetted %+v", r)
	}
	live(l, 1, "dev", events.KindDeploy)
	if r := shown(l, 1); r.Stages[2].Status != "done" || r.Stages[3].Status != "done" || r.Stages[3].Started == nil || r.Stages[3].Finished == nil {
		t.Errorf("in dev %+v", r.Stages)
	}
	live(l, 1, "prod", events.KindDeploy)
	if r := shown(l, 1); r.Status != "done" || r.Finished == nil {
		t.Errorf("through %+v", r)
	}
	got := Deployments([]*fold.App{l.App("hello")}, "prod", "http://127.0.0.1:7080")
	if len(got) != 1 || got[0].Run != "hello/1" || got[0].Digest != digest || got[0].Endpoints[0] != "http://hello.prod.localhost:7080/" || got[0].Since.IsZero() {
		t.Errorf("deployments %+v", got)
	}
	if got := Deployments([]*fold.App{l.App("hello")}, "prod", ""); len(got[0].Endpoints) != 0 || got[0].Endpoints == nil {
		t.Errorf("endpoints without an edge: %#v", got[0].Endpoints)
	}
	live(l, 1, "prod", events.KindRemove)
	if got := Deployments([]*fold.App{l.App("hello")}, "prod", ""); len(got) != 0 || got == nil {
		t.Errorf("removed: %+v", got)
	}
}

func TestWaiting(t *testing.T) {
	l := foldtest.New()
	l.Ready(foldtest.Definition(text), l.Policy(1, "{}"))
	queued := &events.PipelineRunQueued{About: events.About{ID: "hello/1/dev"}, Waiting: events.Waiting{
		Environment: "dev", Attempt: 1, Reason: "A has no value in dev", For: "an operator", Command: "towpath config set dev hello A=…",
	}}
	l.Write(events.PromoteSubject(1, queued.Type(), "hello", 1, "dev", "x", 1), "", queued)
	r := shown(l, 1)
	if r.Status != "waiting" || r.Detail != "A has no value in dev" || r.For != "an operator" || r.Command != r.Stages[2].Command || r.Command == "" {
		t.Errorf("waiting %+v", r)
	}
	// A hold does not hide what it waits for besides.
	l.Command(events.Command{Verb: events.VerbHold, App: "hello", Reason: "drill"})
	if r := shown(l, 1); r.Detail != "A has no value in dev" {
		t.Errorf("held %+v", r)
	}
	other := foldtest.New()
	other.Ready(foldtest.Definition(text), other.Policy(1, "{}"))
	other.Command(events.Command{Verb: events.VerbHold, App: "hello", Reason: "drill"})
	if r := shown(other, 1); r.Stages[2].Status != "waiting" || r.Stages[2].Detail != "held: drill" || r.Stages[2].Command != "towpath resume hello" {
		t.Errorf("held %+v", r.Stages[2])
	}
	other.Command(events.Command{Verb: events.VerbResume, App: "hello"})
	other.Command(events.Command{Verb: events.VerbHold})
	if app := NewApp(other.App("hello"), "git"); app.Held != "everything is held" || app.Git != "git" || app.Runs != 1 {
		t.Errorf("app %+v", app)
	}
	asked := foldtest.New()
	asked.Ready(foldtest.Definition(text), asked.Policy(1, "{}"))
	request := &events.PromotionRequested{About: events.About{ID: "hello/1/dev"}, Promotion: events.Promotion{Environment: "dev", Wanted: 2}}
	asked.Write(events.PromoteSubject(1, request.Type(), "hello", 1, "dev", "", 1), "", request)
	if r := shown(asked, 1); r.Detail != "0 of 2 approvals given" || r.For != "an approver" || r.Command != "towpath approve hello/1 --env dev" {
		t.Errorf("approval %+v", r)
	}
}

func TestTrouble(t *testing.T) {
	l := foldtest.New()
	l.Ready(foldtest.Definition(text), l.Policy(1, "{}"))
	finish := func(attempt int, outcome events.Outcome, do string) {
		b := &events.PipelineRunFinished{About: events.About{ID: "hello/1/dev"}, Outcome: outcome}
		b.Result = events.Result{Environment: "dev", Attempt: attempt, Trouble: &events.Trouble{What: "deploying", Why: "exit code 3", Do: do, Log: []string{"last", "words"}}}
		l.Write(events.PromoteSubject(1, b.Type(), "hello", 1, "dev", "", attempt), "", b)
	}
	finish(1, events.Failure, "fix and push")
	if r := shown(l, 1); r.Status != "failed" || r.Detail != "deploying: exit code 3\nlast\nwords" || r.Command != "fix and push" || r.For != "the author" || r.Finished == nil {
		t.Errorf("failed %+v", r)
	}
	if stuck := Stuck([]*fold.App{l.App("hello")}); len(stuck) != 0 || stuck == nil {
		t.Errorf("stuck %+v", stuck)
	}
	l.Replay("hello", 1, fold.StagePromote, "dev")
	if r := shown(l, 1); r.Stages[2].Status != "queued" || r.Stages[2].Attempt != 2 || r.Stages[2].Detail != "attempt 2 was asked for" {
		t.Errorf("replayed %+v", r.Stages[2])
	}
	finish(2, events.Error, "")
	stuck := Stuck([]*fold.App{l.App("hello")})
	if len(stuck) != 1 || stuck[0].Command != "towpath replay hello/1 promote --env dev" || !strings.HasPrefix(stuck[0].Why, "deploying: exit code 3") {
		t.Errorf("stuck %+v", stuck)
	}
}

// A failed verification may come from a wrong setting: it says how to try again.
func TestFailedVerification(t *testing.T) {
	l := foldtest.New()
	l.Ready(foldtest.Definition(text), l.Policy(1, "{}"))
	about := events.About{ID: "hello/dev/1"}
	taken := &events.SlotTaken{About: about, Slot: 1, Run: 1, Attempt: 1, Kind: events.KindDeploy, Environment: "dev"}
	l.Write(events.SlotSubject(1, taken.Type(), "hello", "dev", 1), "", taken)
	decided := &events.SlotDecided{About: about, Slot: 1, Decision: events.Live, Environment: "dev"}
	l.Write(events.SlotSubject(1, decided.Type(), "hello", "dev", 1), "", decided)
	l.Verified("hello", 1, "dev", 1, 1, events.Failure)
	r := shown(l, 1)
	if r.Status != "failed" || !strings.Contains(r.Command, "fix and push") || !strings.Contains(r.Command, "towpath replay hello/1 promote --env dev") {
		t.Errorf("failed %+v", r)
	}
}

func TestEnded(t *testing.T) {
	l := foldtest.New()
	d, policy := foldtest.Definition(text), l.Policy(1, "{}")
	l.Ready(d, policy)
	l.Ready(d, policy)
	live(l, 2, "dev", events.KindDeploy)
	if r := shown(l, 1); r.Status != "superseded" || r.Detail != "hello/2 took its place" || r.Finished == nil {
		t.Errorf("superseded %+v", r)
	}
	l.Command(events.Command{Verb: events.VerbCancel, App: "hello", Run: 2})
	if r := shown(l, 2); r.Status != "cancelled" || r.Detail != "" || r.Finished == nil {
		t.Errorf("cancelled %+v", r)
	}
	list := Runs([]*fold.App{l.App("hello")}, "", "", noURL)
	if len(list) != 2 || list[0].Number != 2 {
		t.Errorf("runs %+v", list)
	}
	if list := Runs([]*fold.App{l.App("hello")}, "hello", "superseded", noURL); len(list) != 1 || list[0].Number != 1 {
		t.Errorf("superseded runs %+v", list)
	}
	if list := Runs(nil, "", "", noURL); list == nil {
		t.Error("no runs are null")
	}
}

func TestEnvironments(t *testing.T) {
	l := foldtest.New()
	policy := l.Policy(1, "{}")
	l.Ready(foldtest.Definition("app: hello\nenvironments: [{name: old}]\n"), policy)
	live(l, 1, "old", events.KindDeploy)
	l.Push(foldtest.Definition(text), policy)
	other := foldtest.Definition("app: other\nenvironments: [{name: dev}, {name: qa}]\n")
	l.Push(other, policy)
	var got []string
	for _, e := range Environments(l.Fold().Apps(), nil) {
		got = append(got, e.Name+" "+strings.Join(e.Apps, "+"))
	}
	if want := "dev hello+other, prod hello, qa other, old hello"; strings.Join(got, ", ") != want {
		t.Errorf("environments %v", got)
	}
	if Environments(nil, nil) == nil {
		t.Error("no environments are null")
	}
	for edge, want := range map[string]string{"": "", "http://x": "http://a.b.localhost/", "https://x:443": "https://a.b.localhost:443/", ":": ""} {
		if got := Endpoint(edge, "a", "b"); got != want {
			t.Errorf("%q: %q", edge, got)
		}
	}
}

// What was verified, and is no longer as it was then, is said of the run whose version is there, and of no other.
func TestChangedSinceItWasVerified(t *testing.T) {
	l := foldtest.New()
	l.Ready(foldtest.Definition(text), l.Policy(1, "{}"))
	about := events.About{ID: "hello/dev/1"}
	taken := &events.SlotTaken{
		About: about, Slot: 1, Run: 1, Attempt: 1, Digest: foldtest.Digest("run1"), Kind: events.KindDeploy, Environment: "dev",
		Pins: events.Pins{Config: map[string]uint64{"KEY": 4}, ConfigStore: events.StoreEmbedded, Secrets: map[string]uint64{"WORD": 2}},
	}
	l.Write(events.SlotSubject(1, taken.Type(), "hello", "dev", 1), "", taken)
	decided := &events.SlotDecided{About: about, Slot: 1, Decision: events.Live, Environment: "dev"}
	l.Write(events.SlotSubject(1, decided.Type(), "hello", "dev", 1), "", decided)
	l.Verified("hello", 1, "dev", 1, 1, events.Success)
	closed := &events.SlotClosed{About: about, Slot: 1, Closing: events.Verified, Environment: "dev"}
	l.Write(events.SlotSubject(1, closed.Type(), "hello", "dev", 1), "", closed)
	says := func(run int) string {
		promote, _ := shown(l, run).Stage(fold.StagePromote, "dev")
		verify, _ := shown(l, run).Stage(fold.StageVerify, "dev")
		return strings.Join([]string{promote.Detail, verify.Detail, verify.Command}, "|")
	}
	if got := says(1); got != "||" {
		t.Errorf("as it was verified: %s", got)
	}
	set := &events.SettingChanged{About: events.About{ID: "dev/hello/KEY"}, Key: "KEY", App: "hello", Environment: "dev", Version: 6, Actor: "bob"}
	l.Write(events.SettingSubject(1, set.Type(), "hello", "dev", "KEY", "", 6), "", set)
	word := &events.SecretChanged{About: events.About{ID: "dev/hello/WORD"}, Key: "WORD", App: "hello", Environment: "dev", Version: 3, Deleted: true, Actor: "bob"}
	l.Write(events.SettingSubject(1, word.Type(), "hello", "dev", "WORD", "", 3), "", word)
	drift := &events.DriftDetected{About: events.About{ID: "hello/dev/x"}, Drift: events.Drift{App: "hello", Environment: "dev", Slot: 1, What: "container x", Expected: "running", Found: "gone"}}
	l.Write(events.DriftSubject(1, drift.Type(), "hello", "dev", 1), "", drift)
	want := "drift: container x: gone, expected running|stale: config KEY is version 6 now, and was verified with version 4\n" +
		"stale: secret WORD is gone now, and was verified with version 2|towpath replay hello/1 verify --env dev"
	if got := says(1); got != want {
		t.Errorf("changed since: %s", got)
	}
	moved := *set
	moved.Store, moved.Version = "Consul (x)", 2
	l.Write(events.SettingSubject(1, moved.Type(), "hello", "dev", "KEY", moved.Store, 2), "", &moved)
	want = strings.Replace(want, "is version 6 now, and was verified with version 4", "is version 2 now, moved from embedded, and was verified with version 4 of that", 1)
	if got := says(1); got != want {
		t.Errorf("set in another store: %s, want %s", got, want)
	}
	l.Push(foldtest.Definition(text), l.Policy(2, "{}"))
	if got := says(2); got != "||" {
		t.Errorf("of another run: %s", got)
	}
	over := &events.DriftResolved{About: drift.About, Drift: drift.Drift}
	l.Write(events.DriftSubject(1, over.Type(), "hello", "dev", 1), "", over)
	live(l, 1, "dev", events.KindRestore) // with other settings
	if got := says(1); strings.Contains(got, "drift") {
		t.Errorf("the drift is over: %s", got)
	}
}
