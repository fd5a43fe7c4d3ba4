package e2e

import (
	"context"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"towpath.dev/e2e/system"
	"towpath.dev/pkg/engine/enginetest"
)

// own returns the script's holder, and fails where the system belongs to other scripts as well.
func own(ts *testscript.TestScript) *holder {
	h := held(ts)
	if h.shared {
		ts.Fatalf("this script shares its system with others: it belongs into scenarios/own")
	}
	return h
}

// up [-platform FILE] [-data FOLDER]: starts a system for this script. The file is what platform.yaml says
// besides the harness's own lines.
func up(ts *testscript.TestScript, neg bool, args []string) {
	h := own(ts)
	options, rest := flags(ts, args, "platform", "data")
	if neg || len(rest) > 0 || h.system != nil {
		ts.Fatalf("usage: up [-platform FILE] [-data FOLDER], once")
	}
	registry := ""
	if h.registry != nil {
		registry = h.registry.Address()
	}
	o := system.Options{Registry: registry, Shape: h.shape, Folder: ts.MkAbs("system"), Binaries: binaries}
	if options["platform"] != "" {
		o.Platform = os.Expand(ts.ReadFile(options["platform"]), ts.Getenv)
	}
	if options["data"] != "" {
		o.Data = ts.MkAbs(options["data"])
	}
	s, err := system.Start(context.Background(), o)
	ts.Check(err)
	h.system = s
	for name, value := range s.Variables() {
		ts.Setenv(name, value)
	}
}

// down: stops the whole system with SIGTERM; what it deployed keeps running.
func down(ts *testscript.TestScript, neg bool, args []string) {
	own(ts)
	if neg || len(args) > 0 {
		ts.Fatalf("usage: down")
	}
	ts.Check(running(ts).Down())
}

// kill9at SERVICE APP REGEXP: waits until an event of the app matches, and kills at that moment.
func kill9at(ts *testscript.TestScript, neg bool, args []string) {
	own(ts)
	if neg || len(args) != 3 {
		ts.Fatalf("usage: kill9at SERVICE APP REGEXP")
	}
	pattern, err := regexp.Compile(args[2])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	ts.Check(running(ts).Await(ctx, args[1], pattern))
	ts.Check(running(ts).Kill(args[0]))
}

// kill9 SERVICE: kills the process that holds the service with SIGKILL: the service's own, or the only one.
func kill9(ts *testscript.TestScript, neg bool, args []string) {
	own(ts)
	if neg || len(args) != 1 {
		ts.Fatalf("usage: kill9 SERVICE")
	}
	ts.Check(running(ts).Kill(args[0]))
}

// shutdown SERVICE: stops the process that holds the service with SIGTERM and waits until it has drained.
func shutdown(ts *testscript.TestScript, neg bool, args []string) {
	own(ts)
	if neg || len(args) != 1 {
		ts.Fatalf("usage: shutdown SERVICE")
	}
	ts.Check(running(ts).Stop(args[0]))
}

// restart SERVICE: starts the process that holds the service again and waits until the system is ready; with
// "all", everything that does not run.
func restart(ts *testscript.TestScript, neg bool, args []string) {
	own(ts)
	if neg || len(args) != 1 {
		ts.Fatalf("usage: restart SERVICE|all")
	}
	ts.Check(running(ts).Restart(context.Background(), args[0]))
}

// engine start NAME: a Docker Engine of its own; $NAME is its address. engine freeze|thaw|kill|again NAME:
// SIGSTOP, SIGCONT, SIGKILL, start again. engine containers NAME [REGEXP COUNT]: what runs there, once so many match.
// engine beside|without|halt|limit|double NAME CONTAINER: what somebody does there who goes around Towpath.
func engineCommand(ts *testscript.TestScript, neg bool, args []string) {
	h := own(ts)
	if neg || len(args) != 2 && (len(args) != 4 || args[0] != "containers") && (len(args) != 3 || besideTowpath[args[0]] == nil) {
		ts.Fatalf("usage: engine start|freeze|thaw|kill|again NAME, engine containers NAME [REGEXP COUNT], engine beside|without|halt|limit|double NAME CONTAINER")
	}
	verb, name := args[0], args[1]
	if verb == "start" {
		engine := enginetest.StartDockerd(h.t)
		if h.engines == nil {
			h.engines = map[string]*enginetest.Dockerd{}
		}
		h.engines[name] = engine
		ts.Setenv(name, engine.Host.URL)
		return
	}
	engine := h.engines[name]
	if engine == nil {
		ts.Fatalf("no engine %s was started", name)
	}
	switch verb {
	case "freeze":
		engine.Freeze()
	case "thaw":
		engine.Thaw()
	case "kill":
		engine.Kill()
	case "again":
		engine.Start()
	case "containers":
		engineContainers(ts, engine, args[2:])
	default:
		if besideTowpath[verb] == nil || len(args) != 3 {
			ts.Fatalf("unknown verb %q", verb)
		}
		ts.Check(besideTowpath[verb](context.Background(), engine.Host.URL, args[2]))
	}
}

// besideTowpath is what somebody does on an Engine who goes around Towpath.
var besideTowpath = map[string]func(ctx context.Context, host, container string) error{
	"beside": system.StartBeside, "double": system.StartDouble,
	"without": system.RemoveContainer, "halt": system.StopContainer, "limit": system.LimitContainer,
}

// engineContainers shows what runs on an Engine: at once, or when COUNT lines match REGEXP.
func engineContainers(ts *testscript.TestScript, engine *enginetest.Dockerd, args []string) {
	pattern, want := regexp.MustCompile(""), -1
	if len(args) == 2 {
		var err error
		pattern, err = regexp.Compile("(?m)" + args[0])
		ts.Check(err)
		want, err = strconv.Atoi(args[1])
		ts.Check(err)
	}
	end := time.Now().Add(settle)
	for {
		list, err := system.ContainersOf(context.Background(), engine.Host.URL)
		ts.Check(err)
		count := len(pattern.FindAllString(list, -1))
		if want < 0 || count == want {
			show(ts, list, "")
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%d containers match, not %d, after %s:\n%s", count, want, settle, list)
		}
		pause(100 * time.Millisecond)
	}
}

// registry start: the real registry program; $REGISTRY is its address. registry kill, registry again.
func registryCommand(ts *testscript.TestScript, neg bool, args []string) {
	h := own(ts)
	if neg || len(args) != 1 {
		ts.Fatalf("usage: registry start|kill|again")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	switch {
	case args[0] == "start" && h.registry == nil:
		registry, err := system.StartRegistry(ctx, binaries, ts.MkAbs("registry"))
		ts.Check(err)
		h.registry = registry
		ts.Setenv("REGISTRY", registry.Address())
	case args[0] == "kill" && h.registry != nil:
		h.registry.Kill()
	case args[0] == "again" && h.registry != nil:
		ts.Check(h.registry.Again(ctx))
	default:
		ts.Fatalf("usage: registry start, then kill or again")
	}
}

// disk mount SIZE: a small file system at $WORK/disk (SIZE as mount's tmpfs takes it). disk fill: until nothing
// more fits. disk free: what fill wrote goes again.
func diskCommand(ts *testscript.TestScript, neg bool, args []string) {
	h := own(ts)
	switch {
	case !neg && len(args) == 2 && args[0] == "mount" && h.disk == nil:
		disk, err := system.MountDisk(ts.MkAbs("disk"), args[1])
		ts.Check(err)
		h.disk = disk
	case !neg && len(args) == 1 && args[0] == "fill" && h.disk != nil:
		ts.Check(h.disk.Fill())
	case !neg && len(args) == 1 && args[0] == "free" && h.disk != nil:
		ts.Check(h.disk.Free())
	default:
		ts.Fatalf("usage: disk mount SIZE, then fill or free")
	}
}

// base ENGINE toolchain|empty NAME: gives an Engine that was started here a base image of that name, made from this
// machine's files.
func baseCommand(ts *testscript.TestScript, neg bool, args []string) {
	h := own(ts)
	if neg || len(args) != 3 || h.engines[args[0]] == nil {
		ts.Fatalf("usage: base ENGINE toolchain|empty NAME")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	ts.Check(system.ImportBase(ctx, h.engines[args[0]].Host.URL, args[1], args[2]))
}

// module PATH@VERSION FOLDER: the source of a Go module, as the module proxy gives it, in a folder of the script.
func moduleCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: module PATH@VERSION FOLDER")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	ts.Check(system.CopyModule(ctx, args[0], ts.MkAbs(args[1])))
}

// otherci APP VERSION: another CI builds an image of the app and pushes it to the system's registry, without any
// evidence; $IMAGE names it by digest.
func otherCI(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: otherci APP VERSION")
	}
	registry := running(ts).Variables()["REGISTRY"]
	repository, digest := enginetest.Push(held(ts).t, registry, "otherci/"+args[0], enginetest.App{Args: []string{"serve"}, Version: args[1]})
	ts.Setenv("IMAGE", repository+"@"+digest)
	ts.Setenv("IMAGE_DIGEST", digest)
}

// gitserver: serves every repository of the script's folder over HTTP, to read; $HTTPGIT is its URL.
func gitServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: gitserver")
	}
	program, err := exec.LookPath("git")
	ts.Check(err)
	server := httptest.NewServer(&cgi.Handler{
		Path: program, Args: []string{"http-backend"},
		Env: []string{"GIT_PROJECT_ROOT=" + ts.MkAbs("."), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	})
	ts.Defer(server.Close)
	ts.Setenv("HTTPGIT", server.URL)
	held(ts).variables["HTTPGIT"] = true
}
