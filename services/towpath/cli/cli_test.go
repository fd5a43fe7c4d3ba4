package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/client"
	"towpath.dev/services/towpath/screen"
)

// command runs a command with nothing on stdin.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return commandIn(t, "", args...)
}

func commandIn(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "stdin")
	if err := os.WriteFile(name, []byte(stdin), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var out, errs bytes.Buffer
	code = Run(t.Context(), args, in, screen.Screen{Out: &out}, screen.Screen{Out: &errs})
	return code, out.String(), errs.String()
}

// elsewhere makes the commands of a test look at no Towpath of this machine.
func elsewhere(t *testing.T) (data string) {
	t.Helper()
	data = filepath.Join(t.TempDir(), "data")
	t.Setenv("TOWPATH_URL", "")
	t.Setenv("TOWPATH_TOKEN", "")
	t.Setenv("TOWPATH_DATA", data)
	return data
}

func TestWrongUsage(t *testing.T) {
	elsewhere(t)
	for _, line := range []string{
		"nonsense", "show", "show a b", "show hello/zero", "show /1", "approve hello", "replay hello", "wait hello/1 --timeout soon",
		"hold", "hold hello --all", "config set qa hello", "config set qa hello =x", "config set qa hello GREETING", "secret set qa hello KEY=value", "settings rules", "settings rules Not_a_slug",
		"submit", "submit --repo https://h/r", "submit --image x@sha256:1", "submit --app a --image x:latest", "submit --repo https://h/r --image x@sha256:1", "submit --repo https://h/r --commit 1 --definition x", "submit --image x@sha256:1 --definition /nowhere",
		"app add", "app add hello --poll 30s", "app add --repo https://h/r --poll 1ms", "rollback hello", "promote hello/1", "rollback hello --env qa --to other/1",
		"events --last 0", "events --limit -3", "events -n -1",
		"runs a --app b", "events a/1 --app b", "env nonsense", "runs --nonsense", "up --listen nowhere", "up --log-format xml",
		"actor nonsense", "actor add", "actor add Ann --speaks-for slack:", "actor map slack:x", "actor role", "keys bot", "keys bot u-1", "keys bot NOBODY -o x",
	} {
		code, stdout, stderr := command(t, strings.Fields(line)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, "--help") && !strings.Contains(stderr, "→") {
			t.Errorf("towpath %s: exit code %d, %q, %q", line, code, stdout, stderr)
		}
	}
}

func TestNothingRuns(t *testing.T) {
	data := elsewhere(t)
	code, _, stderr := command(t, "runs")
	if code != exitFailed || !strings.Contains(stderr, data) || !strings.Contains(stderr, "towpath up") {
		t.Errorf("no data folder: %d, %s", code, stderr)
	}
	t.Setenv("TOWPATH_URL", "http://127.0.0.1:1")
	if code, _, stderr := command(t, "runs"); code != exitUsage || !strings.Contains(stderr, "TOWPATH_TOKEN") {
		t.Errorf("no token: %d, %s", code, stderr)
	}
	t.Setenv("TOWPATH_TOKEN", "t")
	if code, _, stderr := command(t, "runs"); code != exitFailed || !strings.Contains(stderr, "127.0.0.1:1") || !strings.Contains(stderr, "refused") {
		t.Errorf("nobody listens: %d, %s", code, stderr)
	}
	t.Setenv("TOWPATH_URL", "nonsense")
	if code, _, stderr := command(t, "runs"); code != exitUsage || !strings.Contains(stderr, "TOWPATH_URL") {
		t.Errorf("no URL: %d, %s", code, stderr)
	}
}

// refusing starts a gateway that refuses everything with this status.
func refusing(t *testing.T, status int, e client.Error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]any{"error": e})
	}))
	t.Cleanup(server.Close)
	t.Setenv("TOWPATH_URL", server.URL)
	t.Setenv("TOWPATH_TOKEN", "t")
}

func TestExitCodes(t *testing.T) {
	for status, want := range map[int]int{
		400: exitUsage, 401: exitRefused, 403: exitRefused, 404: exitNotFound, 408: exitTimedOut, 409: exitRefused,
		413: exitUsage, 422: exitRefused, 500: exitFailed, 503: exitFailed, 504: exitTimedOut,
	} {
		refusing(t, status, client.Error{What: "approving", On: "hello/1", Why: "a reason", Do: "a remedy"})
		code, stdout, stderr := command(t, "runs")
		if code != want || stdout != "" || stderr != "error: approving hello/1: a reason\n  → a remedy\n" {
			t.Errorf("%d: exit code %d, want %d; %q %q", status, code, want, stdout, stderr)
		}
	}
}

// People are told of --help, not of the API's description.
func TestHintsAreForPeople(t *testing.T) {
	refusing(t, 400, client.Error{What: "commanding", Why: "env is missing", Do: describesAPI})
	if code, _, stderr := command(t, "approve", "hello/1", "--env", "dev"); code != exitUsage || stderr != "error: commanding: env is missing\n  → towpath approve --help\n" {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

func TestErrorsCannotSteerTheTerminal(t *testing.T) {
	refusing(t, 403, client.Error{What: "a\x1b[2J", Why: "b\x07\nc", Do: "d\x9b"})
	if _, _, stderr := command(t, "runs"); stderr != "error: a·[2J: b·\n  c\n  → d·\n" {
		t.Errorf("got %q", stderr)
	}
}

// answering starts a gateway that answers with what is written for a path, or for the folder that it is in, and keeps
// what it was sent.
func answering(t *testing.T, answers map[string]any) (sent map[string]string) {
	t.Helper()
	sent = map[string]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var body bytes.Buffer
		body.ReadFrom(req.Body)
		sent[req.Method+" "+req.URL.RequestURI()] = body.String()
		answer, ok := answers[req.Method+" "+req.URL.RequestURI()]
		for _, path := range []string{req.URL.Path, req.URL.Path[:strings.LastIndex(req.URL.Path, "/")+1]} {
			if !ok {
				answer, ok = answers[req.Method+" "+path]
			}
		}
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = map[string]any{"error": client.Error{What: "nothing there"}}
		}
		json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(server.Close)
	t.Setenv("TOWPATH_URL", server.URL)
	t.Setenv("TOWPATH_TOKEN", "t")
	return sent
}

func run(status fold.Status, stages ...view.Stage) view.Run {
	return view.Run{App: "hello", Run: "hello/3", Number: 3, Status: status, Digest: "sha256:1", Stages: stages}
}

func TestWaitSaysWhyNot(t *testing.T) {
	verify := func(s fold.Status) []view.Stage {
		return []view.Stage{{Stage: "promote", Env: "qa", Status: fold.Done}, {Stage: "verify", Env: "qa", Status: s}, {Stage: "promote", Env: "prod", Status: fold.Pending}}
	}
	for _, c := range []struct {
		run  view.Run
		env  string
		code int
	}{
		{run(fold.Running, verify(fold.Done)...), "qa", exitDone},
		{run(fold.Done, verify(fold.Done)...), "", exitDone},
		{run(fold.Failed, verify(fold.Failed)...), "qa", exitFailed},
		{run(fold.Stuck, verify(fold.Stuck)...), "qa", exitFailed},
		{run(fold.Stuck, verify(fold.Done)...), "qa", exitDone},
		{run(fold.Refused, verify(fold.Pending)...), "qa", exitRefused},
		{run(fold.CancelledRun, verify(fold.Pending)...), "qa", exitFailed},
		{run(fold.Superseded, verify(fold.Pending)...), "qa", exitFailed},
		{run(fold.Running, verify(fold.Running)...), "qa", exitTimedOut},
		{run(fold.Running, verify(fold.Running)...), "nowhere", exitNotFound},
	} {
		answering(t, map[string]any{"GET /v1/apps/hello/runs/3": c.run})
		args := []string{"wait", "hello/3", "--timeout", "200ms"}
		if c.env != "" {
			args = append(args, "--env", c.env)
		}
		if code, _, stderr := command(t, args...); code != c.code {
			t.Errorf("%s in %q: exit code %d, want %d: %s", c.run.Status, c.env, code, c.code, stderr)
		}
	}
}

func TestApproveFindsWhereItIsWanted(t *testing.T) {
	waiting := run(fold.Waiting, view.Stage{Stage: "promote", Env: "qa", Status: fold.Done}, view.Stage{Stage: "promote", Env: "prod", Status: fold.Waiting, For: "an approver"})
	sent := answering(t, map[string]any{"GET /v1/apps/hello/runs/3": waiting, "POST /v1/commands": view.Answer{Text: "approved"}})
	code, stdout, stderr := command(t, "approve", "hello/3", "--reason", "seen")
	if code != exitDone || stdout != "approved\n" {
		t.Fatalf("%d %q %q", code, stdout, stderr)
	}
	var cmd client.Command
	if err := json.Unmarshal([]byte(sent["POST /v1/commands"]), &cmd); err != nil {
		t.Fatal(err)
	}
	if cmd.ID == "" || cmd.Verb != "approve" || cmd.App != "hello" || cmd.Run != 3 || cmd.Env != "prod" || cmd.Digest != "sha256:1" || cmd.Reason != "seen" {
		t.Errorf("sent %+v", cmd)
	}
}

func TestReplayFindsWhatStopped(t *testing.T) {
	preview := view.Preview{
		Stage: "promote", Env: "qa", Attempt: 3, Maybe: []string{"promote to dev, attempt 2"}, Fenced: []string{"promote to qa, attempt 2, is under way"},
		Text: "2 effects already done are kept, 1 will run, no rebuild", Kept: []string{"image 1"}, Runs: []string{"promote to qa, attempt 2"},
		Settings: []view.SettingChange{{Key: "GREETING", Kind: "config", Was: 1, Is: 3}, {Key: "PASSWORD", Kind: "secret", Missing: true}},
		Approvals: []view.Approval{
			{Env: "prod", Actor: "a1", Why: "the newest policy asks for 2 approvals in prod, not 1"},
			{Env: "prod", Actor: "a2", Kept: true, Why: "unless the image differs"}, {Env: "prod", Actor: "a3", Kept: true, Denial: true},
		},
	}
	sent := answering(t, map[string]any{"POST /v1/commands?dryRun=1": preview, "POST /v1/commands": view.Answer{Text: "replaying"}})
	code, stdout, stderr := command(t, "replay", "hello/3", "--policy", "current", "--reason", "mended")
	if code != exitDone {
		t.Fatalf("%d %q %q", code, stdout, stderr)
	}
	for _, line := range []string{
		"  kept      image 1\n", "  will run  promote to qa, attempt 2\n", "  setting   GREETING: version 3, was 1\n",
		"  setting   PASSWORD (secret) has no value: it will wait for one\n", "  approval  of a1 for prod is dropped: the newest policy asks for 2",
		"  approval  of a2 for prod counts on, unless the image differs\n", "  denial    of a3 for prod stands\n",
		"  may run   promote to dev, attempt 2, if the image differs\n", "  fenced    promote to qa, attempt 2, is under way: it will be fenced off\n",
		"no rebuild\n→ towpath show hello/3 --follow\n",
	} {
		if !strings.Contains(stdout, line) {
			t.Errorf("no %q in %q", line, stdout)
		}
	}
	for where, want := range map[string]string{
		"POST /v1/commands?dryRun=1": `"run":3,"reason":"mended","policy":"current"`,
		"POST /v1/commands":          `"run":3,"stage":"promote","env":"qa","reason":"mended","attempt":3,"policy":"current"`, // what the preview was about
	} {
		if got := sent[where]; !strings.Contains(got, want) {
			t.Errorf("%s: %q", where, got)
		}
	}
	delete(sent, "POST /v1/commands")
	code, stdout, _ = command(t, "replay", "hello/3", "--dry-run", "--json")
	var shown view.Preview
	if err := json.Unmarshal([]byte(stdout), &shown); code != exitDone || err != nil || !reflect.DeepEqual(shown, preview) {
		t.Errorf("%d %v %q", code, err, stdout)
	}
	if sent["POST /v1/commands"] != "" {
		t.Error("a dry run was recorded")
	}
}

func TestReplayOfAllThatIsStuck(t *testing.T) {
	stage := func(run string, result view.Result, command string) view.ReplayStage {
		return view.ReplayStage{Run: run, Stage: "promote", Env: "qa", Attempt: 1, Result: result, Command: command}
	}
	groups := []view.StuckGroup{{Cause: "no registry", Stages: []view.ReplayStage{stage("a/1", "", ""), stage("b/1", "", "")}}}
	done := view.Replays{Finished: true, Why: "3 alike", Groups: []view.StuckGroup{{Cause: "no registry", Stages: []view.ReplayStage{
		stage("a/1", "went on", ""), stage("b/1", "stopped", "towpath replay b/1 promote --env qa"),
	}}}}
	answering(t, map[string]any{
		"POST /v1/commands?dryRun=1": view.Preview{Text: "2 stuck stages", Groups: groups}, "POST /v1/commands": view.Answer{Text: "2 stuck stages"},
		"GET /v1/replays/": done,
	})
	code, stdout, stderr := command(t, "replay", "--all-stuck")
	if code != exitFailed || stderr != "" {
		t.Fatalf("%d %q %q", code, stdout, stderr)
	}
	for _, line := range []string{"  no registry\n    a/1  qa promote\n", "a/1  qa promote  went on\n", "It ended before everything was tried: 3 alike\n", "  left  b/1  qa promote → towpath replay b/1", "1 went on, 1 stopped\n"} {
		if !strings.Contains(stdout, line) {
			t.Errorf("no %q in %q", line, stdout)
		}
	}
}

func TestSecretsComeFromStdin(t *testing.T) {
	sent := answering(t, map[string]any{"PUT /v1/secrets/qa/hello/PASSWORD": client.Setting{Version: 2}})
	code, stdout, stderr := commandIn(t, "two words\n", "secret", "set", "qa", "hello", "PASSWORD")
	if code != exitDone || strings.Contains(stdout+stderr, "two words") {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
	if got := sent["PUT /v1/secrets/qa/hello/PASSWORD"]; got != `{"value":"two words"}` {
		t.Errorf("sent %q", got)
	}
	if code, _, _ := commandIn(t, "\n", "secret", "set", "qa", "hello", "PASSWORD"); code != exitUsage {
		t.Errorf("an empty value: %d", code)
	}
	for _, args := range [][]string{{"PASSWORD", "canary"}, {"PASSWORD=canary"}, {"PASSWORD", "--", "canary"}} {
		code, stdout, stderr := commandIn(t, "x\n", append([]string{"secret", "set", "qa", "hello"}, args...)...)
		if code != exitUsage || !strings.Contains(stderr, "never an argument") || !strings.Contains(stderr, "on stdin") || strings.Contains(stdout+stderr, "canary") {
			t.Errorf("%q: %d %q", args, code, stderr)
		}
	}
	if got := sent["PUT /v1/secrets/qa/hello/PASSWORD"]; got != `{"value":"two words"}` {
		t.Errorf("a refused one was sent: %q", got)
	}
	// What is no text is taken to its last byte.
	if code, _, stderr := commandIn(t, "\xff\x00\n", "secret", "set", "qa", "hello", "PASSWORD"); code != exitDone {
		t.Errorf("%d %s", code, stderr)
	}
	if got := sent["PUT /v1/secrets/qa/hello/PASSWORD"]; got != `{"value":"/wAK","encoding":"base64"}` {
		t.Errorf("sent %q", got)
	}
}

func TestSettingsRulesArePrintedOffline(t *testing.T) {
	data := elsewhere(t)
	file := filepath.Join(data, "platform.yaml")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	text := `settings:
  prod:
    consul: {address: "https://consul.prod:8501", tokenFile: "/etc/towpath/{service}.token", path: "config/{env}/{app}/{key}", shared: "config/{env}/all/{key}"}
    vault: {address: "https://vault.prod:8200", roleIDFile: "/etc/towpath/{service}.role-id", secretIDFile: "/etc/towpath/{service}.secret-id"}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := command(t, "settings", "rules", "prod", "--discover")
	if code != exitDone {
		t.Fatalf("%d %s", code, stderr)
	}
	for _, want := range []string{
		"consul acl policy create -name towpath-prod-gateway", `key_prefix "config/prod/" { policy = "write" }`, `key_prefix "config/prod/all/" { policy = "read" }`,
		"> /etc/towpath/promote.token", "vault policy write towpath-prod-promote", `path "secret/data/prod/+/+"`,
		"auth/approle/role/towpath-prod-promote/secret-id > /etc/towpath/promote.secret-id", "secret_id_num_uses=1", `acl = "write"`,
		"auth/token/roles/towpath-prod-app",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	if code, stdout, _ := command(t, "settings", "rules", "qa"); code != exitDone || strings.Count(stdout, "nothing to do") != 2 {
		t.Errorf("%d %s", code, stdout)
	}
	if code, _, stderr := command(t, "settings", "rules", "qa", "--platform", file+".missing"); code != exitFailed || !strings.Contains(stderr, ".missing") {
		t.Errorf("%d %s", code, stderr)
	}
}

func TestInitWritesOnce(t *testing.T) {
	elsewhere(t)
	folder := filepath.Join(t.TempDir(), "Hello World")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(folder)
	if code, _, stderr := command(t, "init"); code != exitNotFound || !strings.Contains(stderr, "Dockerfile") {
		t.Errorf("without a Dockerfile: %d %s", code, stderr)
	}
	if err := os.WriteFile("Dockerfile", []byte("FROM scratch\nEXPOSE 9000\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := command(t, "init")
	if code != exitDone || !strings.Contains(stdout, "towpath remote") || !strings.Contains(stdout, "towpath up") {
		t.Errorf("%d %q %q", code, stdout, stderr)
	}
	text, err := os.ReadFile(pipeline.FileName)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := pipeline.Parse(pipeline.FileName, text); err != nil || d.App != "hello-world" || d.Service.Port != 9000 {
		t.Errorf("wrote %s: %v", text, err)
	}
	if code, _, stderr := command(t, "init"); code != exitFailed || !strings.Contains(stderr, "towpath.yaml") {
		t.Errorf("again: %d %s", code, stderr)
	}
	if again, err := os.ReadFile(pipeline.FileName); err != nil || !bytes.Equal(again, text) {
		t.Errorf("it was overwritten: %v", err)
	}
}

// git asks the credential helper that `towpath remote` sets up, and gets the token for the gateway alone.
func TestRemoteAndCredentials(t *testing.T) {
	data := elsewhere(t)
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{client.URLFile: "http://127.0.0.1:7070\n", client.TokenFile: "tp_secret\n"} {
		if err := os.WriteFile(filepath.Join(data, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(t.TempDir())
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	if out, err := exec.Command("git", "init", "-q").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for range 2 { // the second time changes what is there
		if code, _, stderr := command(t, "remote", "hello"); code != exitDone {
			t.Fatal(stderr)
		}
	}
	for args, want := range map[string]string{
		"remote get-url towpath": "http://127.0.0.1:7070/git/hello.git",
		"config --get-urlmatch credential.helper http://127.0.0.1:7070/git/hello.git": "git-credential",
	} {
		out, err := exec.Command("git", strings.Fields(args)...).Output()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("git %s: %v %q", args, err, out)
		}
	}
	for host, want := range map[string]string{"127.0.0.1:7070": "username=towpath\npassword=tp_secret\n", "127.0.0.1:7071": "", "example.org": ""} {
		code, stdout, _ := commandIn(t, fmt.Sprintf("protocol=http\nhost=%s\n\n", host), "git-credential", "get")
		if code != exitDone || stdout != want {
			t.Errorf("%s: %d %q", host, code, stdout)
		}
	}
}

// Every command says what it does and shows an example; every list has --json.
func TestHelp(t *testing.T) {
	p := &program{out: screen.Screen{}, err: screen.Screen{}}
	lists := 0
	for _, c := range p.root().Commands() {
		commands := append(c.Commands(), c)
		for _, c := range commands {
			if c.Hidden || c.Name() == "completion" || c.Name() == "help" {
				continue
			}
			if c.Short == "" || !c.HasSubCommands() && c.Example == "" {
				t.Errorf("%s: no short text or no example", c.CommandPath())
			}
			switch c.Name() {
			case "list", "show", "runs", "stuck", "events", "doctor", "version", "wait", "get":
				lists++
				if c.Flags().Lookup("json") == nil && !c.HasSubCommands() {
					t.Errorf("%s has no --json", c.CommandPath())
				}
			}
		}
	}
	if lists < 10 {
		t.Errorf("only %d lists", lists)
	}
}

// TestStuckHasASectionForEach: stages with their command, what is tried again by itself, and what was set aside.
func TestStuckHasASectionForEach(t *testing.T) {
	next := time.Now().Add(time.Minute)
	answers := map[string]any{
		"GET /v1/alarms": []view.Alarm{{Env: "qa", What: "login of promote", Why: "it was used already", Do: "find out who", Since: time.Now().Add(-time.Hour)}},
		"GET /v1/stuck": []view.StuckStage{{
			Run: "hello/3", Stage: "promote", Env: "qa", Since: time.Now().Add(-time.Hour), Why: "no engine", Cause: "no engine", Attempt: 2, Tries: 12,
			Command: "towpath replay hello/3 promote --env qa",
		}},
		"GET /v1/messages": []view.Message{
			{State: ledger.Parked, Seq: 7, Subject: "event.1.x", Type: "newer.0.2.0", Services: []string{"build", "vet"}, Since: time.Now(), Why: "unknown event type", Do: "upgrade Towpath to read it"},
			{State: ledger.Retrying, Seq: 8, Subject: "event.1.y", Services: []string{"build"}, Run: "hello/4", Since: time.Now(), Why: "the registry is away", Tries: 3, Allowed: 13, Next: &next},
		},
	}
	answering(t, answers)
	code, stdout, stderr := command(t, "stuck")
	if code != exitDone {
		t.Fatalf("%d %s", code, stderr)
	}
	at := 0
	for _, want := range []string{
		"ALARM  login of promote  1h", "it was used already", "→ find out who",
		"hello/3  qa promote", "attempt 2, tried 12 times", "no engine", "→ towpath replay hello/3 promote --env qa",
		"Tried again by itself:", "hello/4  build  try 3 of 13 failed, the next in", "the registry is away",
		"Set aside, nobody acts on it:", "event 7  newer.0.2.0", "met by build, vet", "unknown event type", "→ upgrade Towpath to read it",
	} {
		i := strings.Index(stdout[at:], want)
		if i < 0 {
			t.Fatalf("no %q behind the rest in\n%s", want, stdout)
		}
		at += i
	}
	var list []struct {
		Kind, Run, Command, State, Cause string
		Seq                              int
	}
	_, stdout, _ = command(t, "stuck", "--json")
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || len(list) != 4 || list[0].Kind != "alarm" ||
		list[1].Kind != "stage" || list[1].Cause != "no engine" || list[2].Kind != "message" || list[2].Seq != 7 {
		t.Errorf("%v: %s", err, stdout)
	}
	answering(t, map[string]any{"GET /v1/alarms": []view.Alarm{}, "GET /v1/stuck": []view.StuckStage{}, "GET /v1/messages": []view.Message{}})
	if _, stdout, _ := command(t, "stuck"); stdout != "Nothing is stuck.\n" {
		t.Errorf("nothing: %q", stdout)
	}
	if _, stdout, _ := command(t, "stuck", "--json"); strings.TrimSpace(stdout) != "[]" {
		t.Errorf("nothing: %q", stdout)
	}
}
