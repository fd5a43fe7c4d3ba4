package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"towpath.dev/e2e/system"
)

// The commands that scenarios have beside testscript's own. scenarios/README.md explains them to their authors.
var commands = map[string]func(*testscript.TestScript, bool, []string){
	"newapp":     newApp,
	"foreignapp": foreignApp,
	"commit":     commit,
	"push":       push,
	"http":       getThroughEdge,
	"exits":      exits,
	"waitfor":    waitFor,
	"within":     within,
	"json":       jsonValue,
	"same":       same,
	"containers": containers,
	"inspect":    inspect,
	"starts":     starts,
	"events":     events,
	"canary":     canary,
	"up":         up,
	"down":       down,
	"kill9":      kill9,
	"kill9at":    kill9at,
	"base":       baseCommand,
	"module":     moduleCommand,
	"otherci":    otherCI,
	"gitserver":  gitServer,
	"fetch":      fetch,
	"shutdown":   shutdown,
	"restart":    restart,
	"engine":     engineCommand,
	"consul":     consulCommand,
	"reloadbus":  reloadBus,
	"registry":   registryCommand,
	"disk":       diskCommand,
	"load":       loadCommand,
	"spoil":      spoil,
	"witness":    witnessCommand,
	"vault":      vaultCommand,
}

// testscript prefers its own command of a name: a scenario that means ours would end there, or do something else.
func TestCommandsAreNotTestscriptsOwn(t *testing.T) {
	for _, name := range []string{
		"cat", "cd", "chmod", "cmp", "cmpenv", "cp", "env", "exec", "exists", "grep", "kill", "mkdir", "mv", "rm", "skip", "stderr", "stdin",
		"stdout", "stop", "symlink", "ttyin", "ttyout", "unix2dos", "unquote", "wait",
	} {
		if commands[name] != nil {
			t.Errorf("%s is testscript's", name)
		}
	}
}

// running returns the system that a script runs against.
func running(ts *testscript.TestScript) *system.System {
	s := held(ts).system
	if s == nil {
		ts.Fatalf("no system is up: the script has to say \"up\" first")
	}
	return s
}

// flags takes "-name value" pairs off the front of args.
func flags(ts *testscript.TestScript, args []string, known ...string) (values map[string]string, rest []string) {
	values = map[string]string{}
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		name := strings.TrimPrefix(args[0], "-")
		found := false
		for _, k := range known {
			found = found || k == name
		}
		if !found || len(args) < 2 {
			ts.Fatalf("unknown flag or missing value: %s (known: %s)", args[0], strings.Join(known, ", "))
		}
		values[name], args = args[1], args[2:]
	}
	return values, args
}

func duration(ts *testscript.TestScript, text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		ts.Fatalf("%v", err)
	}
	return d
}

// run runs a program in the script's folder and environment, keeps its output for stdout and stderr, and
// returns its exit code.
func run(ts *testscript.TestScript, name string, args ...string) (code int, stdout, stderr string) {
	path := name
	if found, err := lookPath(ts, name); err == nil {
		path = found
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = environment(ts)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		ts.Fatalf("running %s: %v", name, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func lookPath(ts *testscript.TestScript, name string) (string, error) {
	for _, folder := range filepath.SplitList(ts.Getenv("PATH")) {
		if info, err := os.Stat(filepath.Join(folder, name)); err == nil && info.Mode()&0o111 != 0 && !info.IsDir() {
			return filepath.Join(folder, name), nil
		}
	}
	return "", exec.ErrNotFound
}

// environment is the environment of programs that the script runs, as the script has set it.
func environment(ts *testscript.TestScript) []string {
	var env []string
	for name := range held(ts).variables {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

func show(ts *testscript.TestScript, stdout, stderr string) {
	fmt.Fprint(ts.Stdout(), stdout)
	fmt.Fprint(ts.Stderr(), stderr)
}

// newapp NAME [MODE...]: a git repository $WORK/NAME with what the script gives, and with defaults for what it
// does not: the sample app in the given mode, a Dockerfile, a version file, a towpath.yaml with dev, qa and
// prod. All is committed on main; the remote origin is the gateway.
func newApp(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: newapp NAME [MODE...]")
	}
	name, mode := args[0], args[1:]
	folder := ts.MkAbs(name)
	ts.Check(os.MkdirAll(folder, 0o755))
	if len(mode) == 0 {
		mode = []string{"serve"}
	}
	entry, err := json.Marshal(append([]string{"/sample"}, mode...))
	ts.Check(err)
	defaults := map[string]string{
		"version":    name + "-1\n",
		"Dockerfile": "FROM scratch\nCOPY sample version /\nENTRYPOINT " + string(entry) + "\n",
		"towpath.yaml": "app: " + name + "\nservice: {port: 8080, health: /health, healthTimeout: 30s}\n" +
			"environments:\n  - name: dev\n  - name: qa\n  - name: prod\n",
	}
	for file, text := range defaults {
		if _, err := os.Stat(filepath.Join(folder, file)); errors.Is(err, os.ErrNotExist) {
			ts.Check(os.WriteFile(filepath.Join(folder, file), []byte(text), 0o644))
		}
	}
	binary, err := os.ReadFile(binaries.Sample)
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(folder, "sample"), binary, 0o755))
	repository(ts, name)
}

// foreignapp NAME: makes a git repository of the folder as it is, with everything committed.
func foreignApp(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: foreignapp NAME")
	}
	repository(ts, args[0])
}

// repository makes a git repository of a folder, with one commit on main and the gateway as its origin.
func repository(ts *testscript.TestScript, name string) {
	for _, command := range [][]string{
		{"init", "-q", "-b", "main"}, {"add", "-A", "-f"}, {"commit", "-q", "-m", "first"},
		{"remote", "add", "origin", ts.Getenv("GIT") + "/" + name + ".git"},
	} {
		if code, _, stderr := run(ts, "git", append([]string{"-C", name}, command...)...); code != 0 {
			ts.Fatalf("git %s: %s", strings.Join(command, " "), stderr)
		}
	}
}

// commit NAME [FILE TEXT]...: writes the files (a final newline is added) and commits everything.
func commit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args)%2 != 1 {
		ts.Fatalf("usage: commit NAME [FILE TEXT]...")
	}
	for i := 1; i < len(args); i += 2 {
		ts.Check(os.WriteFile(ts.MkAbs(filepath.Join(args[0], args[i])), []byte(args[i+1]+"\n"), 0o644))
	}
	for _, command := range [][]string{{"add", "-A"}, {"commit", "-q", "--allow-empty", "-m", "change"}} {
		if code, _, stderr := run(ts, "git", append([]string{"-C", args[0]}, command...)...); code != 0 {
			ts.Fatalf("git %s: %s", strings.Join(command, " "), stderr)
		}
	}
}

// push NAME [ARGS...]: git push origin main (or what ARGS say); its remote: lines are stderr.
func push(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: push NAME [ARGS...]")
	}
	rest := args[1:]
	if len(rest) == 0 {
		rest = []string{"origin", "main"}
	}
	code, stdout, stderr := run(ts, "git", append([]string{"-C", args[0], "push"}, rest...)...)
	show(ts, stdout, stderr)
	if neg != (code != 0) {
		ts.Fatalf("git push ended with %d", code)
	}
}

// exits CODE PROGRAM ARGS...: the program ends with exactly this code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	code, stdout, stderr := run(ts, args[1], args[2:]...)
	show(ts, stdout, stderr)
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("%s ended with %d, not %s", args[1], code, args[0])
	}
}

// waitfor BOUND REGEXP PROGRAM ARGS...: runs the program again and again until its output matches.
// With ! it waits until the output no longer matches.
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: [!] waitfor BOUND REGEXP PROGRAM ARGS...")
	}
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	end := time.Now().Add(duration(ts, args[0]))
	for {
		_, stdout, stderr := run(ts, args[2], args[3:]...)
		if pattern.MatchString(stdout+stderr) != neg {
			show(ts, stdout, stderr)
			return
		}
		if time.Now().After(end) {
			show(ts, stdout, stderr)
			ts.Fatalf("not within %s", args[0])
		}
		pause(100 * time.Millisecond)
	}
}

// within BOUND WHAT PROGRAM ARGS...: the program ends well within the bound; how long that took is reported as WHAT.
func within(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: within BOUND WHAT PROGRAM ARGS...")
	}
	begun := time.Now()
	code, stdout, stderr := run(ts, args[2], args[3:]...)
	took := time.Since(begun).Round(100 * time.Millisecond)
	show(ts, stdout, stderr)
	if bound := duration(ts, args[0]); code != 0 || took > bound {
		ts.Fatalf("%s: ended with %d after %s, not well within %s", args[1], code, took, bound)
	}
	held(ts).figure(args[1] + ": " + took.String())
}

// reloadbus: has the bus take up a bot's key.
func reloadBus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: reloadbus")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ts.Check(running(ts).ReloadBus(ctx))
}

// pause waits between two looks at something that only time can change.
func pause(d time.Duration) { <-time.After(d) }

// http [-wait BOUND] [-status N] [-match REGEXP] ENV APP PATH: GET through the edge; the body is stdout.
// With ! nothing may answer with the status.
func getThroughEdge(ts *testscript.TestScript, neg bool, args []string) {
	options, args := flags(ts, args, "wait", "status", "match")
	if len(args) != 3 {
		ts.Fatalf("usage: [!] http [-wait BOUND] [-status N] [-match REGEXP] ENV APP PATH")
	}
	s := running(ts)
	wait, want := time.Duration(0), "200"
	if options["wait"] != "" {
		wait = duration(ts, options["wait"])
	}
	if options["status"] != "" {
		want = options["status"]
	}
	pattern, err := regexp.Compile(options["match"])
	ts.Check(err)
	end := time.Now().Add(wait)
	for {
		status, body, err := s.Get(args[0], args[1], args[2])
		got := strconv.Itoa(status)
		if good := err == nil && got == want && pattern.MatchString(body); good != neg {
			fmt.Fprint(ts.Stdout(), body)
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s.%s%s answered %s (%v): %s", args[1], args[0], args[2], got, err, body)
		}
		pause(50 * time.Millisecond)
	}
}

// fetch [-status N] URL: GET without a token, as a browser does; the body is stdout.
func fetch(ts *testscript.TestScript, neg bool, args []string) {
	options, args := flags(ts, args, "status")
	if neg || len(args) != 1 {
		ts.Fatalf("usage: fetch [-status N] URL")
	}
	want := "200"
	if options["status"] != "" {
		want = options["status"]
	}
	status, body, err := system.Fetch(context.Background(), args[0])
	ts.Check(err)
	show(ts, body, "")
	if strconv.Itoa(status) != want {
		ts.Fatalf("%s answered %d, not %s", args[0], status, want)
	}
}

// json VARIABLE FILE PATH: sets the variable to a value of a JSON file ("stdout" is the last output). PATH is
// names and numbers with dots between them; [name=value,...] picks the last element of a list that fits.
func jsonValue(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: [!] json VARIABLE FILE PATH")
	}
	var document any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &document))
	value, err := jsonAt(document, args[2])
	if neg {
		if err == nil {
			ts.Fatalf("%s is there: %v", args[2], value)
		}
		return
	}
	ts.Check(err)
	text, ok := value.(string)
	if !ok {
		encoded, err := json.Marshal(value)
		ts.Check(err)
		text = string(encoded)
	}
	ts.Setenv(args[0], text)
	ts.Logf("%s=%s", args[0], text)
}

var jsonStep = regexp.MustCompile(`^\.?(?:\[([^\]]*)\]|([^.\[]+))`)

func jsonAt(value any, path string) (any, error) {
	for rest := path; rest != ""; {
		step := jsonStep.FindStringSubmatch(rest)
		if step == nil {
			return nil, fmt.Errorf("path %q: cannot read %q", path, rest)
		}
		rest = rest[len(step[0]):]
		switch at := value.(type) {
		case map[string]any:
			next, ok := at[step[2]]
			if !ok {
				return nil, fmt.Errorf("path %q: no %q", path, step[2])
			}
			value = next
		case []any:
			next, err := element(at, step[1], step[2])
			if err != nil {
				return nil, fmt.Errorf("path %q: %w", path, err)
			}
			value = next
		default:
			return nil, fmt.Errorf("path %q: %q of a plain value", path, step[0])
		}
	}
	return value, nil
}

// element picks the last element of a list that fits conditions ("stage=promote,env=qa"), or the one at index.
func element(list []any, conditions, index string) (any, error) {
	if conditions == "" {
		i, err := strconv.Atoi(index)
		if err != nil || i < 0 || i >= len(list) {
			return nil, fmt.Errorf("no element %q of %d", index, len(list))
		}
		return list[i], nil
	}
	for i := len(list) - 1; i >= 0; i-- {
		object, _ := list[i].(map[string]any)
		fits := true
		for _, condition := range strings.Split(conditions, ",") {
			name, want, _ := strings.Cut(condition, "=")
			fits = fits && fmt.Sprint(object[name]) == want
		}
		if fits {
			return list[i], nil
		}
	}
	return nil, fmt.Errorf("no element with %s", conditions)
}

// same A B: the two texts are equal and not empty; with ! they differ.
func same(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || args[0] == "" || args[1] == "" {
		ts.Fatalf("usage: [!] same A B, both not empty (got %q)", args)
	}
	if (args[0] == args[1]) == neg {
		ts.Fatalf("%q and %q", args[0], args[1])
	}
}

// settle is how long what was replaced may take to be gone after the event that says so.
const settle = 30 * time.Second

// containers [-all yes] [-match REGEXP] [-count N] APP [ENV]: one line for each container of the app: name, state,
// labels, digests of its image. With -count it waits until so many lines match; with ! until none does.
func containers(ts *testscript.TestScript, neg bool, args []string) {
	options, args := flags(ts, args, "all", "match", "count")
	if len(args) == 0 || neg && options["count"] != "" {
		ts.Fatalf("usage: [!] containers [-all yes] [-match REGEXP] [-count N] APP [ENV]")
	}
	pattern, err := regexp.Compile(options["match"])
	ts.Check(err)
	want := -1
	if neg {
		want = 0
	} else if options["count"] != "" {
		want, err = strconv.Atoi(options["count"])
		ts.Check(err)
	}
	end := time.Now().Add(settle)
	for {
		list, err := running(ts).Containers(context.Background(), options["all"] != "", args[0], strings.Join(args[1:], ""))
		ts.Check(err)
		count := 0
		for _, line := range list {
			if pattern.MatchString(line) {
				count++
			}
		}
		if want < 0 || count == want {
			show(ts, strings.Join(list, ""), "")
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%d containers match, not %d, after %s:\n%s", count, want, settle, strings.Join(list, ""))
		}
		pause(100 * time.Millisecond)
	}
}

// inspect APP: what docker inspect says of every container of the app.
func inspect(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: inspect APP")
	}
	text, err := running(ts).Inspect(context.Background(), args[0])
	ts.Check(err)
	fmt.Fprint(ts.Stdout(), text)
}

// starts COUNT REGEXP: so many containers whose names match were started since the system is up.
func starts(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: starts COUNT REGEXP")
	}
	pattern, err := regexp.Compile(args[1])
	ts.Check(err)
	names := running(ts).Started(pattern)
	if strconv.Itoa(len(names)) != args[0] {
		ts.Fatalf("%d containers were started: %q", len(names), names)
	}
}

// events [-count N] APP [TYPE]: the app's events (whose types hold the text), one JSON object a line.
func events(ts *testscript.TestScript, neg bool, args []string) {
	options, args := flags(ts, args, "count")
	if neg || len(args) == 0 {
		ts.Fatalf("usage: events [-count N] APP [TYPE]")
	}
	list, err := running(ts).Events(context.Background(), args[0])
	ts.Check(err)
	count := 0
	var text strings.Builder
	for _, event := range list {
		if len(args) == 1 || strings.Contains(event.Type, args[1]) {
			count++
			fmt.Fprintf(&text, "%s\n", event.Line)
		}
	}
	show(ts, text.String(), "")
	if options["count"] != "" && options["count"] != strconv.Itoa(count) {
		ts.Fatalf("%d events, not %s", count, options["count"])
	}
}

// canary VALUE: the value is nowhere to be seen: events, logs, API, images, containers, files.
func canary(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: canary APP VALUE")
	}
	places, err := running(ts).Sightings(context.Background(), args[0], args[1])
	ts.Check(err)
	if len(places) > 0 {
		ts.Fatalf("seen in:\n%s", strings.Join(places, "\n"))
	}
}

// load start NAME RATE FOR ENV APP PATH, load done NAME: RATE requests a second through the edge; done waits for
// the end and fails on the first failed request.
func loadCommand(ts *testscript.TestScript, neg bool, args []string) {
	h := held(ts)
	switch {
	case !neg && len(args) == 7 && args[0] == "start":
		rate, err := strconv.Atoi(args[2])
		ts.Check(err)
		h.loads[args[1]] = running(ts).StartLoad(rate, duration(ts, args[3]), args[4], args[5], args[6])
	case !neg && len(args) == 2 && args[0] == "done":
		load := h.loads[args[1]]
		if load == nil {
			ts.Fatalf("no load %s was started", args[1])
		}
		result := load.Wait()
		ts.Logf("%s", result)
		h.figure(result.String())
		if result.Failed > 0 || result.Sent < result.Wanted*9/10 {
			ts.Fatalf("%s", result)
		}
		show(ts, result.Bodies(), "")
	default:
		ts.Fatalf("usage: load start NAME RATE FOR ENV APP PATH | load done NAME")
	}
}
