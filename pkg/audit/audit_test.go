package audit_test

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/audit"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
)

var definition = foldtest.Definition("app: hello\nservice: {port: 8080, health: /health}\nenvironments: [{name: dev}, {name: prod}]\n")

// history is a ledger that a test writes.
type history struct{ *foldtest.Ledger }

// push starts a run whose commits reach from old to sha.
func (h history) push(n int, old, sha string, authors ...string) {
	b := &events.ChangeMerged{Repository: events.Reference{ID: "hello"}, Run: events.RunStart{
		App: "hello", Ref: "refs/heads/main", OldSHA: old, SHA: sha, Predecessor: n - 1, PolicyDigest: "sha256:policy",
		Definition: definition.Canonical(), DefinitionDigest: definition.Digest(), Actor: "pusher", Authors: authors,
	}}
	b.ID = sha
	h.Write(events.RunStartSubject(foldtest.Epoch, b.Type(), "hello", "", "refs/heads/main", n-1, sha), foldtest.Chain("hello", n), b)
	digest := foldtest.Digest(fmt.Sprint("run", n))
	h.Built("hello", n, 1, digest)
	h.Vetted("hello", n, 1, digest, definition.EnvironmentNames())
}

// slot takes a slot of prod for a run, decides it live and closes it.
func (h history) slot(n, run int, kind events.Kind, command string, closing events.Closing) {
	taken := &events.SlotTaken{
		Slot: n, Run: run, Attempt: 1, Digest: foldtest.Digest(fmt.Sprint("run", run)), Kind: kind, Environment: "prod", Command: command,
		Pins: events.Pins{Config: map[string]uint64{"GREETING": 5}, Secrets: map[string]uint64{"KEY": 2}},
	}
	live := &events.SlotDecided{
		Slot: n, Decision: events.Live, Environment: "prod",
		Instances: []events.Instance{{ID: fmt.Sprintf("c-%d", n), Address: "127.0.0.1:20000", Engine: "ssh://prod"}},
	}
	id := fmt.Sprintf("hello/prod/%d", n)
	taken.ID, live.ID = id, id
	h.Write(events.SlotSubject(foldtest.Epoch, taken.Type(), "hello", "prod", n), "", taken)
	h.Write(events.SlotSubject(foldtest.Epoch, live.Type(), "hello", "prod", n), "", live)
	h.check(n, run, 1, events.Success)
	h.check(n, run, 2, events.Cancel)
	h.Verified("hello", run, "prod", n, 1, events.Success)
	if closing != "" {
		closed := &events.SlotClosed{Slot: n, Closing: closing, Environment: "prod"}
		closed.ID = id
		h.Write(events.SlotSubject(foldtest.Epoch, closed.Type(), "hello", "prod", n), "", closed)
	}
}

func (h history) check(slot, run, n int, o events.Outcome) {
	b := &events.TestCaseRunFinished{
		Environment: events.Reference{ID: "prod"}, Outcome: o, TestCase: &events.TestCase{ID: fmt.Sprint("check-", n), Name: fmt.Sprint("GET /", n)},
		Trial: events.Trial{Slot: slot, Attempt: 1},
	}
	b.ID = fmt.Sprintf("hello/%d/prod/%d/%d", run, slot, n)
	h.Write(events.VerifySubject(foldtest.Epoch, b.Type(), "hello", run, "prod", slot, n, 1), "", b)
}

func (h history) approved(run int, by string) {
	b := &events.PromotionApproved{Promotion: events.Promotion{
		ArtifactID: "pkg:oci/hello@" + foldtest.Digest(fmt.Sprint("run", run)), Environment: "prod", Policy: "sha256:policy", Responder: by, Decision: "approved",
	}}
	b.ID = fmt.Sprintf("hello/%d/prod", run)
	h.Write(events.PromoteSubject(foldtest.Epoch, b.Type(), "hello", run, "prod", events.Slug(by), 1), "", b)
}

func (h history) trail() *audit.Trail {
	t := audit.NewTrail("hello")
	for _, r := range h.Records(0) {
		t.Apply(r)
	}
	return t
}

// twoReleases is a first release, a second one of two pushes, and an operator's way back.
func twoReleases() history {
	h := history{foldtest.New()}
	set := &events.SettingChanged{Key: "GREETING", App: "hello", Environment: "prod", Version: 5, Actor: "setter"}
	set.ID = "prod/hello/GREETING"
	h.Write(events.SettingSubject(foldtest.Epoch, set.Type(), "hello", "prod", "GREETING", "", 5), "", set)
	h.push(1, "", "c1", "ann")
	h.approved(1, "carol")
	h.slot(1, 1, events.KindDeploy, "", events.Verified)
	h.push(2, "c1", "c2", "ben")
	h.push(3, "c2", "c3", "ann", "dora")
	h.Replay("hello", 3, fold.StagePromote, "prod")
	h.approved(3, "carol")
	h.slot(2, 3, events.KindDeploy, "", events.Verified)
	back := h.Command(events.Command{Verb: events.VerbRollback, App: "hello", Environment: "prod", Actor: "oscar", Reason: "it is slow"})
	h.slot(3, 1, events.KindRestore, back, events.Verified)
	return h
}

func ids(list []*audit.Person) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.ID)
	}
	slices.Sort(out)
	return out
}

func TestReport(t *testing.T) {
	changes := twoReleases().trail().Alterations("prod", time.Time{}, foldtest.Start.AddDate(1, 0, 0))
	if len(changes) != 3 {
		t.Fatalf("%d changes", len(changes))
	}
	first, second, back := changes[0], changes[1], changes[2]
	if first.Before != "" || first.Source != audit.Partly || !slices.Equal(ids(first.Authors), []string{"ann", "pusher"}) {
		t.Errorf("the first release: %+v, authors %v", first, ids(first.Authors))
	}
	if second.Before != first.After || second.BeforeRun != "hello/1" || second.Commits.String() != "c1..c3" ||
		second.Source != audit.FromEvents || !slices.Equal(ids(second.Authors), []string{"ann", "ben", "dora", "pusher"}) {
		t.Errorf("the second release: %+v, authors %v", second, ids(second.Authors))
	}
	if want := (audit.Tests{Passed: 1, Skipped: 1, Outcome: "success"}); second.Tests != want || !slices.Equal(ids(second.Approvers), []string{"carol"}) {
		t.Errorf("tests %+v, approvers %v", second.Tests, ids(second.Approvers))
	}
	if len(second.Overrides) != 1 || second.Overrides[0].Verb != "replay" || second.Overrides[0].By.ID != "bob" {
		t.Errorf("overrides %+v", second.Overrides)
	}
	if back.Kind != "restore" || !back.Commits.Back || len(back.Authors) != 0 || len(back.Overrides) != 1 || back.Overrides[0].Reason != "it is slow" {
		t.Errorf("the way back: %+v", back)
	}
	// The period has its beginning and not its end.
	if got := twoReleases().trail().Alterations("prod", second.At, back.At); len(got) != 1 || got[0].Slot != 2 {
		t.Errorf("from the second until the third: %+v", got)
	}
}

// Whoever denied what then serves is named, in the table too, and so is that they took it back.
func TestDenialsAreNamed(t *testing.T) {
	h := history{foldtest.New()}
	h.push(1, "", "c1", "ann")
	say := func(verb, actor, digest, reason string) {
		h.Command(events.Command{Verb: verb, App: "hello", Run: 1, Environment: "prod", Actor: actor, Digest: foldtest.Digest(digest), Reason: reason})
	}
	say(events.VerbDeny, "eve", "run1", "not on a Friday")
	say(events.VerbDeny, "dan", "run1", "")
	say(events.VerbDeny, "bob", "run2", "another image")
	say(events.VerbApprove, "dan", "run1", "")
	h.Replay("hello", 1, fold.StagePromote, "prod")
	h.slot(1, 1, events.KindDeploy, "", events.Verified)
	say(events.VerbDeny, "late", "run1", "")
	report := audit.Report{Environment: "prod", Changes: h.trail().Alterations("prod", time.Time{}, foldtest.Start.AddDate(1, 0, 0))}
	report.People(func(p *audit.Person) { p.Name = "N-" + p.ID })
	var text bytes.Buffer
	if err := report.CSV(&text); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&text).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := rows[1][slices.Index(audit.Columns, "denied")], "by N-eve (eve): not on a Friday; by N-dan (dan) (taken back)"; got != want {
		t.Errorf("denied %q, want %q", got, want)
	}
}

// A gap between two runs means that the ledger does not know every author.
func TestAuthorsOfAGap(t *testing.T) {
	for name, old := range map[string]string{"another beginning": "c9", "no beginning": ""} {
		h := history{foldtest.New()}
		h.push(1, "", "c1", "ann")
		h.slot(1, 1, events.KindDeploy, "", events.Verified)
		h.push(2, "c1", "c2", "ben")
		h.push(3, old, "c3", "dora")
		h.slot(2, 3, events.KindDeploy, "", events.Verified)
		changes := h.trail().Alterations("prod", time.Time{}, foldtest.Start.AddDate(1, 0, 0))
		if changes[1].Source != audit.Partly {
			t.Errorf("%s: from %s: %v", name, changes[1].Source, ids(changes[1].Authors))
		}
	}
	many := history{foldtest.New()}
	many.push(1, "", "c1", "ann")
	many.slot(1, 1, events.KindDeploy, "", events.Verified)
	var crowd []string
	for i := range 50 {
		crowd = append(crowd, fmt.Sprint("author-", i))
	}
	many.push(2, "c1", "c2", crowd...)
	many.slot(2, 2, events.KindDeploy, "", events.Verified)
	if got := many.trail().Alterations("prod", time.Time{}, foldtest.Start.AddDate(1, 0, 0))[1]; got.Source != audit.Partly {
		t.Errorf("as many authors as are recorded at most: from %s", got.Source)
	}
}

func TestStory(t *testing.T) {
	trail := twoReleases().trail()
	story, ok := trail.Story(3, "")
	if !ok {
		t.Fatal("no story")
	}
	if story.Change.Commit != "c3" || story.Change.Old != "c2" || story.Change.Pusher.ID != "pusher" || story.Digest != foldtest.Digest("run3") {
		t.Errorf("change %+v", story.Change)
	}
	prod := story.Environments[slices.IndexFunc(story.Environments, func(e audit.Environment) bool { return e.Name == "prod" })]
	if len(prod.Approvals) != 1 || prod.Approvals[0].By.ID != "carol" || !strings.HasSuffix(prod.Approvals[0].Artifact, story.Digest) || prod.Approvals[0].Policy != "sha256:policy" {
		t.Errorf("approvals %+v", prod.Approvals)
	}
	if len(prod.Deploys) != 1 {
		t.Fatalf("deploys %+v", prod.Deploys)
	}
	d := prod.Deploys[0]
	if d.Slot != 2 || d.BeforeRun != "hello/1" || d.Decision != "live" || d.Closing != "verified" || len(d.Checks) != 2 || d.Verified.Outcome != "success" ||
		len(d.Containers) != 1 || d.Containers[0].Engine != "ssh://prod" {
		t.Errorf("deploy %+v", d)
	}
	if len(d.Config) != 1 || d.Config[0].Version != 5 || d.Config[0].By.ID != "setter" || d.Secrets[0].By != nil {
		t.Errorf("pins %+v %+v", d.Config, d.Secrets)
	}
	if len(story.Acts) != 1 || story.Acts[0].Verb != "replay" {
		t.Errorf("acts %+v", story.Acts)
	}
	// The run that came back tells who brought it back; what serves is that run.
	first, _ := trail.Story(1, "prod")
	if n := len(first.Environments[0].Deploys); n != 2 || first.Environments[0].Deploys[1].By.ID != "oscar" || len(first.Acts) != 1 || trail.Live("prod") != 1 {
		t.Errorf("%d deploys of the first, acts %+v, live is %d", n, first.Acts, trail.Live("prod"))
	}
	if _, ok := trail.Story(4, ""); ok {
		t.Error("a story of a run that is not there")
	}
	if got := trail.Carriers(foldtest.Digest("run2")); !reflect.DeepEqual(got, []audit.Carrier{{Run: 2, Digest: foldtest.Digest("run2")}}) {
		t.Errorf("carriers %+v", got)
	}
	if got := trail.Carriers(foldtest.Digest("run2")[:70]); len(got) != 3 {
		t.Errorf("carriers of what three digests begin with: %+v", got)
	}
}

// Everybody in a story or report can be given a name, and an erased person shows as such.
func TestNames(t *testing.T) {
	trail := twoReleases().trail()
	name := func(p *audit.Person) { p.Name, p.Erased = "N-"+p.ID, p.ID == "carol" }
	report := audit.Report{Environment: "prod", Changes: trail.Alterations("prod", time.Time{}, foldtest.Start.AddDate(1, 0, 0))}
	report.People(name)
	var text bytes.Buffer
	if err := report.CSV(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"N-ann (ann)", "erased person (carol)", "N-oscar (oscar)", "N-dora (dora)"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	story, _ := trail.Story(1, "")
	story.People(name)
	if got := story.Environments[1].Deploys[0].Config[0].By.Name; got != "N-setter" {
		t.Errorf("who set a key is %q", got)
	}
}

// What an operator skipped, the policy that a replay changed to and a ledger that was brought back are in the report.
func TestWhatIsBesideTheWay(t *testing.T) {
	h := history{foldtest.New()}
	h.push(1, "", "c1", "ann")
	replay := &events.ReplayRequested{Stage: fold.StagePromote, Environment: "prod", Actor: "oscar", Reason: "newer rules", Policy: "sha256:new"}
	replay.ID = "command-replay"
	h.Write(events.CommandSubject(foldtest.Epoch, replay.Type(), "hello", 1, "prod", replay.ID), "", replay)
	h.slot(1, 1, events.KindDeploy, "", "")
	h.Command(events.Command{Verb: events.VerbSkip, App: "hello", Run: 1, Environment: "prod", Stage: fold.StageVerify, Actor: "oscar", Roles: []string{"approver", "operator"}, Reason: "night", Relay: "bot-1"})
	skip := &events.TestCaseRunSkipped{Environment: events.Reference{ID: "prod"}, TestCase: &events.TestCase{ID: "3", Name: "GET /3"}, Trial: events.Trial{Slot: 1, Attempt: 1}}
	skip.ID = "hello/1/prod/1/3"
	h.Write(events.VerifySubject(foldtest.Epoch, skip.Type(), "hello", 1, "prod", 1, 3, 1), "", skip)
	restored := &events.LedgerRestored{Backup: "b-1", Taken: foldtest.Start, Events: 7, Lost: 2, Forced: true, Reason: "fire", Actor: "operator"}
	restored.ID = "b-1"
	h.Write(events.RestoredSubject(foldtest.Epoch, "b-1", h.Now()), "", restored)
	unproven := &events.LedgerRestored{Backup: "b-2", Taken: foldtest.Start, Events: 7, Forced: true, Reason: "flood", Actor: "operator"}
	unproven.ID = "b-2"
	h.Write(events.RestoredSubject(foldtest.Epoch, "b-2", h.Now()), "", unproven)
	ended := &events.AlarmEnded{Alarm: "rolled back", Sealed: 9, Reason: "ticket 4711", Actor: "operator"}
	ended.ID = "alarm/1"
	h.Write(events.AlarmEndedSubject(foldtest.Epoch, h.Now()), "", ended)
	trail, end := h.trail(), foldtest.Start.AddDate(1, 0, 0)
	report := audit.Report{Environment: "prod", Changes: trail.Alterations("prod", time.Time{}, end), Restores: trail.Restores(time.Time{}, end), Alarms: trail.Alarms(time.Time{}, end)}
	if n := report.Changes[0].Tests.Skipped; n != 2 {
		t.Errorf("%d checks skipped", n)
	}
	var text bytes.Buffer
	if err := report.CSV(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"replay promote prod under policy sha256:new by oscar: newer rules", "skip verify prod by oscar (approver, operator) through bot-1: night",
		"ledger restored from backup b-1 of 2026-01-02T03:04:05Z, 7 events; 2 later ones lost, by force, by operator", "fire",
		"by force, held against no checkpoint, by operator", "flood",
		"the ledger was not what was sealed (rolled back); sealing began anew, by operator", "ticket 4711",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	if got := trail.Restores(end, end.AddDate(1, 0, 0)); len(got) != 0 {
		t.Errorf("restores of another period: %+v", got)
	}
}

func TestCSV(t *testing.T) {
	evil := "=HYPERLINK(\"http://evil\")\nsecond line, with a comma"
	report := audit.Report{Environment: "prod", Changes: []audit.Alteration{{
		App: "hello", Run: "hello/1", Why: evil, Before: "+1", After: "-1", Verdict: "@x", Pusher: &audit.Person{ID: "u-1", Name: "=1+1"},
	}}}
	var text bytes.Buffer
	if err := report.CSV(&text); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(text.Bytes())).ReadAll()
	if err != nil || len(rows) != 2 || len(rows[0]) != len(audit.Columns) || strings.Count(text.String(), "\r\n") != 3 {
		t.Fatalf("%v: %q", err, text.String())
	}
	for i, cell := range rows[1] {
		if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
			t.Errorf("%s: %q would be a formula", audit.Columns[i], cell)
		}
	}
	if why := rows[1][slices.Index(audit.Columns, "why")]; why != "'"+evil {
		t.Errorf("why is %q", why)
	}
}

func TestCoverage(t *testing.T) {
	h := twoReleases()
	// The test's ledger has no signed bytes, and so an id of its own.
	const ledgerID = "0123456789abcdef"
	app := h.App("hello")
	container := func(name, slot string, change ...func(*audit.Container)) audit.Container {
		c := audit.Container{Name: name, Image: "registry/hello", Digests: []string{"registry/hello@" + foldtest.Digest("run1")}, Labels: map[string]string{
			audit.LabelInstall: ledgerID[:8], audit.LabelApp: "hello", audit.LabelEnv: "prod", audit.LabelSlot: slot,
		}}
		for _, f := range change {
			f(&c)
		}
		return c
	}
	label := func(name, value string) func(*audit.Container) {
		return func(c *audit.Container) { c.Labels[name] = value }
	}
	for name, c := range map[string]struct {
		container audit.Container
		why       string // empty: explained
	}{
		"live":                          {container("c-3", "3"), ""},
		"keeper":                        {container("k", "3", func(c *audit.Container) { c.Keeper, c.Digests = true, nil }), ""},
		"no label":                      {audit.Container{Name: "stray"}, "beside Towpath"},
		"another installation":          {container("c", "3", label(audit.LabelInstall, "ffffffff")), "another installation"},
		"unknown app":                   {container("c", "3", label(audit.LabelApp, "other")), "does not know"},
		"unknown slot":                  {container("c", "9"), "no slot"},
		"another image":                 {container("c-3", "3", func(c *audit.Container) { c.Digests = []string{"x@sha256:1"} }), "another"},
		"an image without name":         {container("c-3", "3", func(c *audit.Container) { c.Digests = nil }), "another"},
		"a slot that is over":           {container("c-2", "2"), "over"},
		"hidden in another environment": {container("c", "1", label(audit.LabelEnv, "dev")), "no slot"},
	} {
		got := audit.Cover([]*fold.App{app}, ledgerID, "prod", audit.Inventory{Containers: []audit.Container{c.container}})
		switch {
		case c.why == "" && (len(got.Unexplained) != 0 || len(got.Explained) != 1 || got.Explained[0].Run != "hello/1"):
			t.Errorf("%s: %+v", name, got)
		case c.why != "" && (len(got.Unexplained) != 1 || !strings.Contains(got.Unexplained[0].Why, c.why)):
			t.Errorf("%s: %+v", name, got.Unexplained)
		}
		if missing := c.container.Name != "c-3"; missing != (len(got.Missing) == 1) {
			t.Errorf("%s: missing %+v", name, got.Missing)
		}
	}
	// While a slot is being brought up, its containers and those of the version before are explained.
	taken := &events.SlotTaken{Slot: 4, Run: 3, Attempt: 2, Digest: foldtest.Digest("run3"), Kind: events.KindDeploy, Environment: "prod"}
	taken.ID = "hello/prod/4"
	h.Write(events.SlotSubject(foldtest.Epoch, taken.Type(), "hello", "prod", 4), "", taken)
	coming := container("c-4", "4", func(c *audit.Container) { c.Digests = []string{"r@" + foldtest.Digest("run3")} })
	got := audit.Cover([]*fold.App{h.App("hello")}, ledgerID, "prod", audit.Inventory{Containers: []audit.Container{container("c-3", "3"), coming}})
	if len(got.Explained) != 2 || len(got.Unexplained) != 0 {
		t.Errorf("while slot 4 comes up: %+v", got)
	}
}
