package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/wholefile"
	"towpath.dev/services/gateway/view"
)

// write appends an event as the service that its subject names, and waits until the gateway has it.
func (s *station) write(subject events.Subject, chain string, body events.Body) {
	s.t.Helper()
	record, err := s.ledger.Client(string(subject.Writer)).Append(s.t.Context(), subject, events.New(subject.Writer, time.Now(), chain, body))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.fold().Wait(s.t.Context(), record.Seq); err != nil {
		s.t.Fatal(err)
	}
}

const imageHost = "127.0.0.1:7050/"

// built lets build and vet have done their work on a run.
func (s *station) built(app events.Slug, n int) (digest string) {
	s.t.Helper()
	run := s.run(app, n)
	digest = foldtest.Digest(fmt.Sprint("run", n))
	purl := "pkg:oci/" + string(app) + "@" + digest + "?repository_url=" + imageHost + string(app)
	started := &events.BuildStarted{About: events.About{ID: run.Name()}}
	s.write(events.BuildSubject(1, started.Type(), app, n, "", 1), run.ChainID, started)
	published := &events.ArtifactPublished{About: events.About{ID: purl}}
	published.Published.Artifact = events.Artifact{Repository: imageHost + string(app), Digest: digest}
	s.write(events.BuildSubject(1, published.Type(), app, n, "", 1), run.ChainID, published)
	vetted := &events.VetRunFinished{About: events.About{ID: run.Name()}, ArtifactID: purl, Policy: run.Policy, Outcome: events.Success}
	for _, env := range run.Definition.EnvironmentNames() {
		vetted.Verdicts = append(vetted.Verdicts, events.EnvironmentVerdict{Environment: env, Verdict: events.Pass})
	}
	vetted.Result.Attempt = 1
	s.write(events.VetSubject(1, vetted.Type(), app, n, "", 1), run.ChainID, vetted)
	return digest
}

// live lets promote and verify have done their work in an environment.
func (s *station) live(app events.Slug, n int, env events.Slug) {
	s.t.Helper()
	run := s.run(app, n)
	slot := s.fold().App(app).Env(env).Slots.Len() + 1
	about := events.About{ID: fmt.Sprintf("%s/%s/%d", app, env, slot)}
	taken := &events.SlotTaken{About: about, Slot: slot, Run: n, Attempt: run.Env(env).Promote.Attempt, ArtifactID: run.ArtifactID, Digest: run.Artifact.Digest, Kind: events.KindDeploy, Environment: env}
	s.write(events.SlotSubject(1, taken.Type(), app, env, slot), run.ChainID, taken)
	decided := &events.SlotDecided{About: about, Slot: slot, Decision: events.Live, Environment: env}
	s.write(events.SlotSubject(1, decided.Type(), app, env, slot), run.ChainID, decided)
	verified := &events.TestSuiteRunFinished{About: about, Environment: events.Reference{ID: string(env)}, Outcome: events.Success, Trial: events.Trial{Slot: slot, Attempt: 1}}
	s.write(events.VerifySubject(1, verified.Type(), app, n, env, slot, 0, 1), run.ChainID, verified)
	closed := &events.SlotClosed{About: about, Slot: slot, Closing: events.Verified, Environment: env}
	s.write(events.SlotSubject(1, closed.Type(), app, env, slot), run.ChainID, closed)
}

// pushed is a station with one run of app hello.
func pushed(t *testing.T) (*station, working) {
	t.Helper()
	s := newStation(t)
	w := newWorking(t, helloYAML)
	w.git("push", s.remote("hello"), "main")
	return s, w
}

func TestRunsAndEnvironments(t *testing.T) {
	s, w := pushed(t)
	digest := s.built("hello", 1)
	s.live("hello", 1, "dev")
	w.commit("Second")
	w.git("push", s.remote("hello"), "main")

	runs := get[[]view.Run](s, "GET", "/v1/runs?app=hello", nil)
	if len(runs) != 2 || runs[0].Run != "hello/2" || runs[0].Status != "queued" || runs[1].Status != "running" {
		t.Errorf("runs %+v", runs)
	}
	if queued := get[[]view.Run](s, "GET", "/v1/runs?state=queued", nil); len(queued) != 1 || queued[0].Number != 2 {
		t.Errorf("queued runs %+v", queued)
	}
	run := get[view.Run](s, "GET", "/v1/apps/hello/runs/1", nil)
	if run.Digest != digest || len(run.Stages) != 6 || run.Stages[2].Env != "dev" || run.Stages[2].Status != "done" || run.Stages[4].Status != "pending" {
		t.Errorf("run %+v", run)
	}
	if !strings.HasPrefix(run.URL, s.url+"/runs/hello/1?key=") || run.Commit == "" || run.Created.IsZero() || run.Seq == 0 {
		t.Errorf("run %+v", run)
	}
	environments := get[[]view.Environment](s, "GET", "/v1/environments", nil)
	if len(environments) != 2 || environments[0].Name != "dev" || environments[1].Apps[0] != "hello" {
		t.Errorf("environments %+v", environments)
	}
	deployed := get[[]view.Deployment](s, "GET", "/v1/environments/dev", nil)
	if len(deployed) != 1 || deployed[0].Digest != digest || deployed[0].Run != "hello/1" || deployed[0].Endpoints[0] != "http://hello.dev.localhost:7080/" || deployed[0].Since.IsZero() {
		t.Errorf("dev %+v", deployed)
	}
	if prod := get[[]view.Deployment](s, "GET", "/v1/environments/prod", nil); prod == nil || len(prod) != 0 {
		t.Errorf("prod %+v", prod)
	}
	apps := get[[]view.App](s, "GET", "/v1/apps", nil)
	if len(apps) != 1 || apps[0].App != "hello" || apps[0].Runs != 2 || apps[0].Git != s.url+"/git/hello.git" || apps[0].Branch != "main" {
		t.Errorf("apps %+v", apps)
	}
	for path, want := range map[string]string{
		"/v1/apps/hello/runs/99": "there is no such run", "/v1/apps/hell/runs/1": "did you mean hello?", "/v1/environments/moon": "there are: dev, prod", "/v1/runs?app=none": "a first push makes it",
	} {
		status, answer := s.ask(s.token, "GET", path, nil)
		if status != http.StatusNotFound || !strings.Contains(answer, want) {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
}

func TestLongPoll(t *testing.T) {
	s, _ := pushed(t)
	run := get[view.Run](s, "GET", "/v1/apps/hello/runs/1", nil)
	began := time.Now()
	if same := get[view.Run](s, "GET", fmt.Sprintf("/v1/apps/hello/runs/1?after=%d&timeout=50ms", run.Seq), nil); same.Seq != run.Seq || time.Since(began) < 50*time.Millisecond {
		t.Errorf("answered early: %+v after %s", same, time.Since(began))
	}
	changed := make(chan view.Run)
	go func() {
		changed <- get[view.Run](s, "GET", fmt.Sprintf("/v1/apps/hello/runs/1?after=%d&timeout=30s", run.Seq), nil)
	}()
	s.built("hello", 1)
	if next := <-changed; next.Seq <= run.Seq || next.Stages[0].Status == "pending" {
		t.Errorf("changed %+v", next)
	}
	for _, wrong := range []string{"after=x", "after=1&timeout=x", "after=1&timeout=-1s", "after=-1"} {
		if status, answer := s.ask(s.token, "GET", "/v1/apps/hello/runs/1?"+wrong, nil); status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", wrong, status, answer)
		}
	}
}

func TestCommands(t *testing.T) {
	s, w := pushed(t)
	ask := func(o order) (int, string) { return s.ask(s.token, "POST", "/v1/commands", o) }
	if status, answer := ask(order{ID: id("early", 1), Verb: "approve", App: "hello", Run: 1, Env: "prod"}); status != http.StatusConflict || !strings.Contains(answer, "it has no image yet") {
		t.Errorf("approving what is not built: %d %s", status, answer)
	}
	digest := s.built("hello", 1)
	s.live("hello", 1, "dev")

	approve := order{ID: id("approve", 1), Verb: "approve", App: "hello", Run: 1, Env: "prod", Digest: digest, Reason: "seen in dev"}
	first := get[view.Answer](s, "POST", "/v1/commands", approve)
	again := get[view.Answer](s, "POST", "/v1/commands", approve)
	if first.Seq == 0 || again != first || !strings.Contains(first.Text, "1 of 1") {
		t.Errorf("answers %+v, %+v", first, again)
	}
	responses := s.run("hello", 1).Env("prod").Responses
	if len(responses) != 1 || responses[0].Digest != digest || responses[0].Actor == "" || responses[0].Reason != "seen in dev" {
		t.Errorf("responses %+v", responses)
	}
	other := approve
	other.Verb = "deny"
	if status, answer := ask(other); status != http.StatusConflict && status != http.StatusOK {
		t.Errorf("another command under the same id: %d %s", status, answer)
	}
	stale := order{ID: id("approve", 2), Verb: "approve", App: "hello", Run: 1, Env: "prod", Digest: foldtest.Digest("other")}
	if status, answer := ask(stale); status != http.StatusConflict || !strings.Contains(answer, "look again") {
		t.Errorf("approving another digest: %d %s", status, answer)
	}
	if types := s.records("hello"); count(types, "command.refused") < 2 {
		t.Errorf("refusals are not recorded: %v", types)
	}

	hold := get[view.Answer](s, "POST", "/v1/commands", order{ID: id("hold", 1), Verb: "hold", App: "hello", Reason: "fire drill"})
	if s.fold().App("hello").Hold == nil || hold.Text == "" {
		t.Error("it is not held")
	}
	contains(t, get[view.App](s, "POST", "/v1/apps", map[string]string{"app": "hello", "branch": "main"}).Held, "fire drill")
	w.commit("While held")
	contains(t, w.git("push", s.remote("hello"), "main"), "hello is held back (held: fire drill) → towpath resume hello")
	if held := get[view.Run](s, "GET", "/v1/apps/hello/runs/2", nil); held.Status != "waiting" || held.Command != "towpath resume hello" || held.For != "an operator" {
		t.Errorf("held run %+v", held)
	}
	get[view.Answer](s, "POST", "/v1/commands", order{ID: id("hold", 1), Verb: "hold", App: "hello"})
	get[view.Answer](s, "POST", "/v1/commands", order{ID: id("resume", 1), Verb: "resume", App: "hello"})
	if status, _ := ask(order{ID: id("resume", 2), Verb: "resume", App: "hello"}); status != http.StatusConflict {
		t.Errorf("resuming what is not held: %d", status)
	}
	get[view.Answer](s, "POST", "/v1/commands", order{ID: id("hold", 3), Verb: "hold"})
	if s.fold().Held() == nil {
		t.Error("not everything is held")
	}
	get[view.Answer](s, "POST", "/v1/commands", order{ID: id("resume", 3), Verb: "resume"})

	get[view.Answer](s, "POST", "/v1/commands", order{ID: id("cancel", 1), Verb: "cancel", App: "hello", Run: 2, Reason: "wrong branch"})
	if run := get[view.Run](s, "GET", "/v1/apps/hello/runs/2", nil); run.Status != "cancelled" || run.Detail != "wrong branch" || run.Finished == nil {
		t.Errorf("cancelled run %+v", run)
	}
	if status, answer := ask(order{ID: id("approve", 3), Verb: "approve", App: "hello", Run: 2, Env: "prod"}); status != http.StatusConflict || !strings.Contains(answer, "hello/2 is cancelled") {
		t.Errorf("approving what was cancelled: %d %s", status, answer)
	}
	for _, wrong := range []order{
		{}, {ID: "short", Verb: "hold"}, {ID: id("x", 1), Verb: "destroy"}, {ID: id("x", 2), Verb: "approve"}, {ID: id("x", 3), Verb: "cancel", App: "Hello"},
		{ID: id("x", 4), Verb: "replay", App: "hello", Run: 1, Stage: "deploy"}, {ID: id("x", 5), Verb: "hold", App: "hello", Reason: strings.Repeat("x", 3000)}, {ID: id("x", 6), Verb: "cancel", App: "hello", Run: -1},
	} {
		if status, answer := ask(wrong); status != http.StatusBadRequest {
			t.Errorf("%+v: %d %s", wrong, status, answer)
		}
	}
}

// A person who wrote the commits may not approve where the policy says so; a bot approves nothing by itself.
func TestWhoApproves(t *testing.T) {
	s, _ := pushed(t)
	s.built("hello", 1)
	bot := s.newToken(t, identity.KindBot, identity.RoleBot, identity.RoleApprover)
	status, answer := s.ask(bot, "POST", "/v1/commands", order{ID: id("bot", 1), Verb: "approve", App: "hello", Run: 1, Env: "prod"})
	if status != http.StatusForbidden || !strings.Contains(answer, "a bot decides nothing for itself") {
		t.Errorf("a bot approved: %d %s", status, answer)
	}
	person := s.newToken(t, identity.KindPerson, identity.RoleApprover)
	if status, answer := s.ask(person, "POST", "/v1/commands", order{ID: id("person", 1), Verb: "approve", App: "hello", Run: 1, Env: "prod"}); status != http.StatusOK {
		t.Errorf("an approver may not approve: %d %s", status, answer)
	}
	if status, answer := s.ask(person, "POST", "/v1/commands", order{ID: id("person", 2), Verb: "approve", App: "hello", Run: 1, Env: "dev"}); status != http.StatusConflict || !strings.Contains(answer, "dev asks for no approval") {
		t.Errorf("approving where nobody asks: %d %s", status, answer)
	}
}

func TestReplay(t *testing.T) {
	s, _ := pushed(t)
	s.built("hello", 1)
	s.live("hello", 1, "dev")
	run := s.run("hello", 1)
	failed := &events.PipelineRunFinished{About: events.About{ID: "hello/1/prod"}, Outcome: events.Error, Errors: "no engine"}
	failed.Result = events.Result{Environment: "prod", Attempt: 1, Trouble: &events.Trouble{What: "deploying", Why: "no engine", Log: []string{"one", "two"}}}
	s.write(events.PromoteSubject(1, failed.Type(), "hello", 1, "prod", "", 1), run.ChainID, failed)

	stuck := get[[]view.StuckStage](s, "GET", "/v1/stuck", nil)
	if len(stuck) != 1 || stuck[0].Run != "hello/1" || stuck[0].Stage != "promote" || stuck[0].Env != "prod" || stuck[0].Command != "towpath replay hello/1 promote --env prod" ||
		stuck[0].Why != "deploying: no engine\none\ntwo" || stuck[0].Since.IsZero() {
		t.Fatalf("stuck %+v", stuck)
	}
	replay := order{ID: id("replay", 1), Verb: "replay", App: "hello", Run: 1, Stage: "promote", Env: "prod", Reason: "mended"}
	before := s.fold().Seq()
	preview := get[view.Preview](s, "POST", "/v1/commands?dryRun=1", replay)
	if preview.Text != "3 effects already done are kept, 2 will run, no rebuild" || len(preview.Kept) != 3 || preview.Runs[0] != "promote to prod, attempt 2" || s.fold().Seq() != before {
		t.Errorf("preview %+v", preview)
	}
	done := get[view.Answer](s, "POST", "/v1/commands", replay)
	if again := get[view.Answer](s, "POST", "/v1/commands", replay); again != done {
		t.Errorf("the same replay again: %+v, %+v", done, again)
	}
	if stage := s.run("hello", 1).Env("prod").Promote; stage.Attempt != 2 || stage.Replay == nil || stage.Replay.Reason != "mended" {
		t.Errorf("stage %+v", stage)
	}
	if run := get[view.Run](s, "GET", "/v1/apps/hello/runs/1", nil); run.Stages[4].Status != "queued" || run.Stages[4].Attempt != 2 {
		t.Errorf("run %+v", run.Stages[4])
	}
	s.restart()
	get[view.Answer](s, "POST", "/v1/commands", order{ID: id("replay", 2), Verb: "replay", App: "hello", Run: 1, Stage: "vet"})
	if status, answer := s.ask(s.token, "POST", "/v1/commands", order{ID: id("replay", 3), Verb: "replay", App: "hello", Run: 1, Stage: "verify", Env: "prod"}); status != http.StatusConflict || !strings.Contains(answer, "it has not begun") {
		t.Errorf("replaying what has not begun: %d %s", status, answer)
	}
}

const canary = "canary-2b7e-do-not-print"

func TestSettings(t *testing.T) {
	s, _ := pushed(t)
	one := get[setting](s, "PUT", "/v1/settings/prod/hello/DATABASE_URL", map[string]string{"value": "postgres://x"})
	again := get[setting](s, "PUT", "/v1/settings/prod/hello/DATABASE_URL", map[string]string{"value": "postgres://x"})
	if one.Version == 0 || again.Version != one.Version || *one.Value != "postgres://x" || one.Actor == "" {
		t.Errorf("set %+v, %+v", one, again)
	}
	secret := get[setting](s, "PUT", "/v1/secrets/prod/hello/PASSWORD", map[string]string{"value": canary})
	if secret.Value != nil || secret.Version == 0 {
		t.Errorf("secret %+v", secret)
	}
	if list := get[[]setting](s, "GET", "/v1/settings/prod/hello", nil); len(list) != 1 || *list[0].Value != "postgres://x" || list[0].Changed == nil {
		t.Errorf("settings %+v", list)
	}
	binary := map[string]string{"value": "/wA=", "encoding": "base64"}
	get[setting](s, "PUT", "/v1/secrets/prod/hello/CERT", binary)
	if value, _, err := s.settings.GetSecret(t.Context(), "prod", "hello", "CERT"); err != nil || value.Reveal() != "\xff\x00" {
		t.Errorf("a binary secret is %q (%v)", value.Reveal(), err)
	}
	get[setting](s, "DELETE", "/v1/secrets/prod/hello/CERT", nil)
	status, answer := s.ask(s.token, "GET", "/v1/secrets/prod/hello", nil)
	if status != http.StatusOK || !strings.Contains(answer, "PASSWORD") || strings.Contains(answer, canary) {
		t.Errorf("secrets %d %s", status, answer)
	}
	if status, answer := s.ask(s.token, "PUT", "/v1/settings/prod/hello/DATABASE_URL", newValueOf("y", one.Version+1)); status != http.StatusConflict {
		t.Errorf("setting over a version that was not seen: %d %s", status, answer)
	}
	get[setting](s, "PUT", "/v1/settings/prod/hello/DATABASE_URL", newValueOf("y", one.Version))
	get[setting](s, "DELETE", "/v1/secrets/prod/hello/PASSWORD", nil)
	if status, answer := s.ask(s.token, "DELETE", "/v1/secrets/prod/hello/PASSWORD", nil); status != http.StatusNotFound {
		t.Errorf("removing what is gone: %d %s", status, answer)
	}
	types := s.records("hello")
	if count(types, "setting.changed") != 2 || count(types, "secret.changed") != 4 {
		t.Errorf("events %v", types)
	}
	for path, body := range map[string]any{
		"/v1/settings/moon/hello/A":         map[string]string{"value": "x"},
		"/v1/settings/prod/hello/A..B":      map[string]string{"value": "x"},
		"/v1/settings/prod/hello/TOWPATH_X": map[string]string{"value": "x"},
		"/v1/settings/prod/hello/A":         map[string]string{},
		"/v1/secrets/prod/hello/A":          map[string]string{"value": canary + strings.Repeat("x", 70_000)},
		"/v1/secrets/prod/hello/B":          map[string]string{"valeu": canary},
		"/v1/secrets/prod/hello/C":          `{"value": "` + canary,
		"/v1/secrets/prod/hello/D":          map[string]string{"value": canary, "encoding": "base64"},
		"/v1/secrets/prod/hello/E":          map[string]string{"value": canary, "encoding": "rot13"},
	} {
		status, answer := s.ask(s.token, "PUT", path, body)
		if status != http.StatusBadRequest && status != http.StatusNotFound || strings.Contains(answer, canary) {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	if _, answer := s.ask(s.token, "GET", "/v1/events", nil); strings.Contains(answer, canary) || strings.Contains(answer, "postgres://x") {
		t.Error("a value is in the ledger")
	}
	// An app may have its settings before its first push.
	get[setting](s, "PUT", "/v1/settings/anywhere/later/A", map[string]string{"value": "x"})
}

func newValueOf(value string, version uint64) newValue {
	return newValue{Value: &value, Version: &version}
}

// A setting that was stored just before a crash is told to the ledger at the next start, once.
func TestCrashBetweenSettingAndLedger(t *testing.T) {
	s, _ := pushed(t)
	get[setting](s, "PUT", "/v1/settings/prod/hello/DATABASE_URL", map[string]string{"value": "x"})
	if _, err := s.settings.SetConfig(t.Context(), "dev", "hello", "DATABASE_URL", "unsaid"); err != nil {
		t.Fatal(err)
	}
	s.restart()
	s.restart()
	if types := s.records("hello"); count(types, "setting.changed") != 2 {
		t.Errorf("events %v", types)
	}
}

// Two gateways never share repositories.
func TestSecondGateway(t *testing.T) {
	s := newStation(t)
	second, err := New(Config{Listen: "127.0.0.1:0", Data: s.cfg.Data}, Deps{Runtime: s.rt})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another gateway has the repositories") {
		t.Errorf("a second gateway: %v", err)
	}
	if status, _ := s.ask("", "GET", "/healthz", nil); status != http.StatusOK {
		t.Error("the first was disturbed")
	}
}

func TestEvents(t *testing.T) {
	s, w := pushed(t)
	other := newWorking(t, "app: other\nenvironments: [{name: dev}]\n")
	other.git("push", s.remote("other"), "main")
	if all := s.records(""); count(all, "change.merged") != 2 || count(all, "policy.published") != 1 {
		t.Errorf("events %v", all)
	}
	if hello := s.records("hello"); len(hello) != 2 {
		t.Errorf("events of hello %v", hello)
	}
	for query, want := range map[string]int{"type=change.merged": 2, "type=change": 2, "type=dev.cdevents.change.merged.0.3.0&app=other": 1, "app=hello&run=1": 1, "after=1000": 0} {
		status, answer := s.ask(s.token, "GET", "/v1/events?"+query, nil)
		if lines := strings.Count(answer, "\n"); status != http.StatusOK || lines != want {
			t.Errorf("%s: %d, %d lines", query, status, lines)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "GET", s.url+"/v1/events?app=hello&type=change.merged&follow=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+s.token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	read := func() view.EventLine {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		var e view.EventLine
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if _, err := events.Decode(e.Event); err != nil {
			t.Errorf("event %s: %v", e.Event, err)
		}
		return e
	}
	first := read()
	w.commit("Next")
	w.git("push", s.remote("hello"), "main")
	if second := read(); second.Seq <= first.Seq || second.Time.IsZero() || !strings.HasPrefix(second.Subject, "event.1.gateway.hello.") {
		t.Errorf("second %+v", second)
	}
	s.end() // a stop ends the stream
	if lines.Scan() {
		t.Errorf("after the stop: %s", lines.Text())
	}
}

func TestLogs(t *testing.T) {
	s, _ := pushed(t)
	run := s.run("hello", 1)
	started := &events.BuildStarted{About: events.About{ID: run.Name()}}
	s.write(events.BuildSubject(1, started.Type(), "hello", 1, "", 1), run.ChainID, started)
	out := s.ledger.Client("build").Log(ledger.LogKey{Service: "build", App: "hello", Run: 1, Stage: "build", Attempt: 1})
	fmt.Fprintln(out, "step 1")

	request, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/v1/apps/hello/runs/1/logs?stage=build&follow=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+s.token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	if line, err := lines.ReadString('\n'); line != "step 1\n" {
		t.Fatalf("%q %v", line, err)
	}
	fmt.Fprintln(out, "step 2")
	if line, err := lines.ReadString('\n'); line != "step 2\n" {
		t.Fatalf("%q %v", line, err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(lines); len(rest) != 0 || err != nil {
		t.Errorf("after the end: %q %v", rest, err)
	}
	if status, answer := s.ask(s.token, "GET", "/v1/apps/hello/runs/1/logs", nil); status != http.StatusOK || answer != "── build\nstep 1\nstep 2\n" {
		t.Errorf("%d %q", status, answer)
	}
	// A log without an end, because its writer was killed, ends with its stage.
	vet := s.ledger.Client("vet").Log(ledger.LogKey{Service: "vet", App: "hello", Run: 1, Stage: "vet", Attempt: 1})
	defer vet.Close()
	fmt.Fprintln(vet, "looking")
	ended := make(chan string)
	go func() {
		_, answer := s.ask(s.token, "GET", "/v1/apps/hello/runs/1/logs?stage=vet&follow=1", nil)
		ended <- answer
	}()
	finished := &events.VetRunFinished{About: events.About{ID: run.Name()}, Outcome: events.Error}
	finished.Result.Attempt = 1
	s.write(events.VetSubject(1, finished.Type(), "hello", 1, "", 1), run.ChainID, finished)
	if got := <-ended; got != "looking\n" {
		t.Errorf("%q", got)
	}
	for _, wrong := range []string{"stage=deploy", "env=moon", "attempt=0", "stage=build&env=dev"} {
		if status, answer := s.ask(s.token, "GET", "/v1/apps/hello/runs/1/logs?"+wrong, nil); status != http.StatusNotFound && status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", wrong, status, answer)
		}
	}
}

func TestDoctor(t *testing.T) {
	s := newStation(t)
	states := map[string]string{}
	for _, c := range get[[]check](s, "GET", "/v1/doctor", nil) {
		states[c.Name] = c.Status
		if c.Detail == "" || c.Status != checkOK && c.Fix == "" {
			t.Errorf("check %+v", c)
		}
	}
	for name, want := range map[string]string{"bus": checkOK, "door": checkOK, "edge": checkBroken, "policy": checkOK, "pushes": checkOK, "builds": checkWarning, "followed repositories": checkOK} {
		if states[name] != want {
			t.Errorf("%s is %s, want %s", name, states[name], want)
		}
	}
	s.ledger.CloseDoor()
	for _, c := range get[[]check](s, "GET", "/v1/doctor", nil) {
		if c.Name == "door" && c.Status != checkBroken {
			t.Errorf("the door is shut: %+v", c)
		}
	}
	s.ledger.OpenDoor()
}

// What a person must look into is listed, and doctor says so, until it is mended.
func TestAlarms(t *testing.T) {
	s := newStation(t)
	doctor := func() check {
		t.Helper()
		for _, c := range get[[]check](s, "GET", "/v1/doctor", nil) {
			if c.Name == "alarms" {
				return c
			}
		}
		t.Fatal("doctor does not look")
		return check{}
	}
	if list := get[[]view.Alarm](s, "GET", "/v1/alarms", nil); len(list) > 0 || doctor().Status != checkOK {
		t.Errorf("%+v, doctor %+v", list, doctor())
	}
	alarm := events.Alarm{Environment: "prod", What: "login of promote at Vault of prod", Why: "it was used already", Do: "find out who"}
	raised := &events.AlarmRaised{About: events.About{ID: "prod/login"}, Alarm: alarm}
	s.write(events.AlarmSubject(1, events.Promote, raised.Type(), "", "prod", 1), "", raised)
	list := get[[]view.Alarm](s, "GET", "/v1/alarms", nil)
	if len(list) != 1 || list[0].Since.IsZero() || list[0].Env != "prod" || list[0].What != alarm.What || list[0].Why != alarm.Why || list[0].Do != alarm.Do {
		t.Errorf("%+v", list)
	}
	if c := doctor(); c.Status != checkBroken || c.Detail != "ALARM: login of promote at Vault of prod: it was used already" || c.Fix != "find out who" {
		t.Errorf("%+v", c)
	}
	resolved := &events.AlarmResolved{About: raised.About, Alarm: alarm}
	s.write(events.AlarmSubject(1, events.Promote, resolved.Type(), "", "prod", 1), "", resolved)
	if list := get[[]view.Alarm](s, "GET", "/v1/alarms", nil); len(list) > 0 || doctor().Status != checkOK {
		t.Errorf("it is mended: %+v, doctor %+v", list, doctor())
	}
}

// The first token stays over restarts, opens an administrator, and is replaced where it opens nobody.
func TestFirstToken(t *testing.T) {
	s := newStation(t)
	before := s.token
	s.restart()
	if s.token != before {
		t.Error("another token after a restart")
	}
	if err := wholefile.Write(s.cfg.TokenFile, []byte("lost\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.restart()
	if s.token == "lost" {
		t.Error("a token of nobody stays")
	}
	if status, _ := s.ask(s.token, "GET", "/v1/runs", nil); status != http.StatusOK {
		t.Errorf("the new token: %d", status)
	}
}

func TestConfig(t *testing.T) {
	if err := (Config{Data: "x"}).Validate(); err != nil {
		t.Error(err)
	}
	err := Config{Listen: "nowhere", URL: "ftp://x", Edge: "http://h/path", DrainTimeout: -1}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	contains(t, err.Error(), "data folder is missing", "listen", "url", "edge", "drain")
}

// A run's page shows only with its capability, and never more than its run.
func TestPages(t *testing.T) {
	s, w := pushed(t)
	w.commit("<script>alert(1)</script>")
	w.git("push", s.remote("hello"), "main")
	s.built("hello", 1)
	s.live("hello", 1, "dev")
	path := strings.TrimPrefix(s.runURL("hello", 1), s.url)
	status, answer := s.ask("", "GET", path, nil)
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, answer)
	}
	contains(t, answer, "hello/1", `<a href="http://hello.dev.localhost:7080/">dev</a>`, "<noscript><meta http-equiv=\"refresh\"", `aria-label="The path of this run"`)
	if status, _ := s.ask("", "GET", strings.Replace(path, "/1?", "/2?", 1), nil); status != http.StatusForbidden {
		t.Errorf("another run with this capability: %d", status)
	}
	_, key, _ := strings.Cut(path, "key=")
	part := fmt.Sprintf("/runs/hello/1/part?key=%s&after=", key)
	seq := s.fold().App("hello").Seq
	if status, answer := s.ask("", "GET", fmt.Sprint(part, seq-1), nil); status != http.StatusOK || !strings.Contains(answer, fmt.Sprintf(`data-seq="%d"`, seq)) {
		t.Errorf("%d %s", status, answer)
	}
	if status, _ := s.ask("", "GET", part+"x", nil); status != http.StatusBadRequest {
		t.Errorf("part: %d", status)
	}
	if status, answer := s.ask("", "GET", "/runs/hello/1/log?stage=build&key="+key, nil); status != http.StatusOK {
		t.Errorf("log: %d %s", status, answer)
	}
	status, answer = s.ask("", "GET", strings.TrimPrefix(s.IndexURL(), s.url), nil)
	if status != http.StatusOK || !strings.Contains(answer, "/runs/hello/2?key=") {
		t.Errorf("index: %d %s", status, answer)
	}
	response, err := http.Get(s.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if policy := response.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || response.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("headers %v", response.Header)
	}
}

// What a stop leaves behind: no request hangs, and a push that has begun is finished.
func TestStopDuringPush(t *testing.T) {
	s, w := pushed(t)
	s.ledger.CloseDoor()
	w.commit("While it stops")
	done := make(chan string)
	go func() { done <- w.git("push", s.remote("hello"), "main") }()
	eventually(t, "git has taken the push in", func() bool {
		heads, err := s.git.Repository("hello").Heads(t.Context())
		return err == nil && string(heads["refs/heads/main"]) == w.git("rev-parse", "HEAD")
	})
	ended := make(chan struct{})
	go func() { s.end(); close(ended) }()
	s.ledger.OpenDoor()
	contains(t, <-done, "hello/2")
	<-ended
}

// TestWhatServicesCannotSettleIsShown: what build tries again is at its run, and with what was set aside in the list.
func TestWhatServicesCannotSettleIsShown(t *testing.T) {
	s, _ := pushed(t)
	build := s.ledger.Client("build")
	again := ledger.Note{
		Service: events.Build, Durable: "build", Seq: 3, State: ledger.Retrying, App: "hello", Event: s.run("hello", 1).StartEvent,
		Failed: 2, Allowed: 13, Why: "the registry is away", First: time.Now(), Last: time.Now(),
	}
	aside := ledger.Note{Service: events.Build, Durable: "build", Seq: 9, State: ledger.SetAside, Why: "signature not accepted", First: time.Now()}
	for _, n := range []ledger.Note{again, aside} {
		if err := build.Keep(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	messages := func() (list []view.Message) { return get[[]view.Message](s, "GET", "/v1/messages", nil) }
	eventually(t, "both are listed", func() bool { return len(messages()) == 2 })
	if list := messages(); list[0].Run != "hello/1" || list[0].Tries != 2 || list[1].State != "aside" || list[1].Why != "signature not accepted" {
		t.Errorf("messages %+v", list)
	}
	shown := get[view.Run](s, "GET", "/v1/apps/hello/runs/1", nil)
	if !strings.Contains(shown.Detail, "try 2 of 13 failed") || shown.Stages[0].Tries != 2 {
		t.Errorf("shown %+v", shown)
	}
	if err := build.Drop(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the settled one left", func() bool { return len(messages()) == 1 })
	if shown := get[view.Run](s, "GET", "/v1/apps/hello/runs/1", nil); shown.Detail != "" {
		t.Errorf("shown %+v", shown)
	}
}

// What was set aside leaves the list by an operator's word alone, which is recorded with the roles that the operator had.
func TestAMessageThatWasSetAsideIsDismissed(t *testing.T) {
	s := newStation(t)
	now := time.Now()
	for _, n := range []ledger.Note{
		{Service: events.Build, Durable: "build", Seq: 900, State: ledger.SetAside, Why: "signature not accepted", First: now},
		{Service: events.Build, Durable: "build", Seq: 901, State: ledger.Parked, Type: "dev.cdevents.build.queued.9.0.0", Why: "too new", First: now.Add(time.Second)},
	} {
		if err := s.ledger.Client("build").Keep(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	messages := func(query string) (list []view.Message) {
		return get[[]view.Message](s, "GET", "/v1/messages"+query, nil)
	}
	eventually(t, "both are listed", func() bool { return len(messages("")) == 2 })
	contains(t, messages("")[0].Do, "towpath dismiss 900 --reason")
	dismiss := func(token, id string, seq uint64, reason string) (int, string) {
		return s.ask(token, "POST", "/v1/commands", map[string]any{"id": id, "verb": "dismiss", "message": seq, "reason": reason})
	}
	developer, operator := s.newToken(t, "person", "developer"), s.newToken(t, "person", "operator")
	for name, c := range map[string]struct {
		token, reason string
		seq           uint64
		want          int
	}{
		"by a developer": {developer, "seen", 900, http.StatusForbidden},
		"without reason": {operator, "", 900, http.StatusBadRequest},
		"without number": {operator, "seen", 0, http.StatusBadRequest},
		"of nothing":     {operator, "seen", 7, http.StatusNotFound},
		"of a newer one": {operator, "seen", 901, http.StatusConflict},
	} {
		if status, answer := dismiss(c.token, "refused-"+strings.ReplaceAll(name, " ", "-"), c.seq, c.reason); status != c.want {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	if len(messages("")) != 2 {
		t.Errorf("%+v", messages(""))
	}
	for range 2 { // the same command again is the same
		if status, answer := dismiss(operator, "dismissal-1", 900, "forged in a test"); status != http.StatusOK || !strings.Contains(answer, "event 900 is off the list") {
			t.Fatalf("%d %s", status, answer)
		}
	}
	if status, answer := dismiss(operator, "dismissal-2", 900, "again"); status != http.StatusConflict {
		t.Errorf("%d %s", status, answer)
	}
	left := func() {
		t.Helper()
		eventually(t, "the list holds what is not dismissed", func() bool {
			list, all := messages(""), messages("?all=1")
			return len(list) == 1 && list[0].Seq == 901 && len(all) == 2 && all[0].Dismissed && all[0].Why == "signature not accepted" && !all[1].Dismissed
		})
	}
	left()
	s.restart()
	left()
	var command *events.CommandReceived
	_, err := s.rt.Ledger.Read(t.Context(), 0, func(r ledger.Record) error {
		if b, is := r.Event.Body.(*events.CommandReceived); is && b.Verb == events.VerbDismiss {
			command = b
		}
		return nil
	})
	if err != nil || command == nil || command.Message != 900 || command.Reason != "forged in a test" || !slices.Equal(command.Roles, []string{"operator"}) {
		t.Errorf("recorded %+v (%v)", command, err)
	}
}
