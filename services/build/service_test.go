package build

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/engine/enginetest"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/registry/provenance"
	"towpath.dev/pkg/registry/registryserver"
	"towpath.dev/pkg/source"
	"towpath.dev/pkg/worker"
)

// bench is a build service with all that it works with: a real bus, Engine, registry and git.
type bench struct {
	t        testing.TB
	ledger   *ledgertest.Ledger
	gateway  *worker.Runtime
	build    *worker.Runtime
	registry *registryserver.Server
	regDir   string
	client   *registry.Client
	platform *policy.Platform
	cfg      Config
	service  *Service
	stopped  chan error
	stop     context.CancelFunc
	repo     *repo
	base     string
}

func newBench(t testing.TB, change ...func(*bench)) *bench {
	t.Helper()
	b := &bench{t: t, ledger: ledgertest.Start(t), regDir: t.TempDir(), repo: newRepo(t), client: registry.New(registry.Options{Attempts: 2, Pause: time.Millisecond})}
	b.startRegistry("127.0.0.1:0")
	e := testEngine(t)
	b.base = busyboxImage(t, e)
	b.platform = policy.Default()
	b.platform.Engines.Build.Host = e.Host().URL
	b.platform.Registry.Address = b.registry.Addr()
	b.cfg = Config{Gateway: "http://127.0.0.1:1", Work: t.TempDir()}
	for _, c := range change {
		c(b)
	}
	b.gateway, b.build = b.open("gateway"), b.open("build")
	b.start()
	t.Cleanup(func() { b.end() })
	return b
}

func (b *bench) open(id string) *worker.Runtime {
	b.t.Helper()
	rt, err := worker.Open(b.t.Context(), worker.Options{
		Service: id, Bus: b.ledger.URL, Keys: b.ledger.Keys, Platform: b.platform, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(rt.Close)
	return rt
}

func (b *bench) startRegistry(listen string) {
	b.t.Helper()
	s, err := registryserver.Start(registryserver.Config{Dir: b.regDir, Listen: listen})
	if err != nil {
		b.t.Fatal(err)
	}
	b.registry = s
	b.t.Cleanup(func() { s.Close(contextOf(b.t)) })
}

// start runs the service.
func (b *bench) start() {
	b.t.Helper()
	s, err := New(b.cfg, Deps{Runtime: b.build, Registry: b.client})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(contextOf(b.t))
	stopped := make(chan error, 1)
	go func() { stopped <- s.Run(ctx) }()
	b.service, b.stop, b.stopped = s, cancel, stopped
}

// end drains the service.
func (b *bench) end() {
	b.t.Helper()
	if b.stop == nil {
		return
	}
	b.stop()
	if err := <-b.stopped; err != nil {
		b.t.Errorf("the service ended: %v", err)
	}
	b.stop = nil
	checkEmpty(b.t, b.service.cfg.Work)
}

// dockerfile is one on the bench's base image.
func (b *bench) dockerfile(lines ...string) string {
	return "FROM " + b.base + "\n" + strings.Join(lines, "\n") + "\n"
}

// push starts a run as the gateway does. yaml is the definition's build part and whatever follows.
func (b *bench) push(app events.Slug, commit, yaml string, change ...func(*events.RunStart)) int {
	b.t.Helper()
	d, err := pipeline.Parse(pipeline.FileName, []byte("app: "+string(app)+"\n"+yaml+"\nenvironments: [{name: dev}]\n"))
	if err != nil {
		b.t.Fatal(err)
	}
	n := 1
	if a := b.gateway.Fold.App(app); a != nil {
		n = a.Runs.Len() + 1
	}
	start := events.RunStart{
		App: app, RepositoryURL: b.repo.url(), Ref: "refs/heads/main", SHA: commit, Predecessor: n - 1,
		Definition: d.Canonical(), DefinitionDigest: d.Digest(), PolicyDigest: "sha256:" + strings.Repeat("0", 64), Actor: "actor-1",
	}
	for _, c := range change {
		c(&start)
	}
	s := events.RunStartSubject(1, events.TypeChangeMerged, app, start.RepositoryURL, start.Ref, start.Predecessor, commit)
	body := &events.ChangeMerged{About: events.About{ID: commit}, Repository: events.Reference{ID: string(app)}, Run: start}
	b.append(b.gateway, s, events.New(events.Gateway, time.Now(), events.NewID(), body))
	return n
}

func (b *bench) append(rt *worker.Runtime, s events.Subject, e events.Event) {
	b.t.Helper()
	if _, err := rt.Append(b.t.Context(), s, e); err != nil {
		b.t.Fatal(err)
	}
}

// command sends a command about a run, or about the app where run is 0.
func (b *bench) command(verb string, app events.Slug, run int) {
	b.t.Helper()
	id := events.NewID()
	body := &events.CommandReceived{About: events.About{ID: id}, Command: events.Command{Verb: verb, App: app, Run: run, Actor: "actor-1", Channel: "cli"}}
	b.append(b.gateway, events.CommandSubject(1, events.TypeCommandReceived, app, run, "", id), events.New(events.Gateway, time.Now(), "", body))
}

func (b *bench) replay(app events.Slug, run int, rebuild bool) {
	b.t.Helper()
	id := events.NewID()
	body := &events.ReplayRequested{About: events.About{ID: id}, Stage: fold.StageBuild, Actor: "actor-1", Rebuild: rebuild}
	b.append(b.gateway, events.CommandSubject(1, events.TypeReplayRequested, app, run, "", id), events.New(events.Gateway, time.Now(), "", body))
}

// until waits until the run is as wanted, and returns it.
func (b *bench) until(app events.Slug, n int, what string, is func(*fold.Run) bool) *fold.Run {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	var r *fold.Run
	for seq := uint64(0); ; {
		a, err := b.build.Fold.WaitApp(ctx, app, seq)
		if err != nil {
			b.t.Fatalf("run %s/%d is not %s: build %+v\n%s", app, n, what, r.Build, b.log(app, n, r.Build.Attempt))
		}
		seq = a.Seq
		if r = a.Run(n); r != nil && is(r) {
			return r
		}
	}
}

func (b *bench) ended(app events.Slug, n, attempt int) *fold.Run {
	b.t.Helper()
	return b.until(app, n, "built", func(r *fold.Run) bool { return r.Build.Attempt == attempt && r.Build.Ended() })
}

// built waits for a success and returns the artifact.
func (b *bench) built(app events.Slug, n, attempt int) (*fold.Run, registry.Artifact) {
	b.t.Helper()
	r := b.ended(app, n, attempt)
	if r.Build.Outcome != events.Success {
		b.t.Fatalf("%s ended with %s: %+v\n%s", r.Name(), r.Build.Outcome, r.Build.Trouble, b.log(app, n, attempt))
	}
	a, err := registry.ParsePURL(r.ArtifactID)
	if err != nil || string(a.Digest) != r.Artifact.Digest || a.Repository.String() != r.Artifact.Repository {
		b.t.Fatalf("artifact %q is %+v, %v", r.ArtifactID, r.Artifact, err)
	}
	return r, a
}

func (b *bench) log(app events.Slug, n, attempt int) string {
	var log bytes.Buffer
	key := ledger.LogKey{Service: "build", App: app, Run: n, Stage: "build", Attempt: attempt}
	if err := b.gateway.Ledger.ReadLog(b.t.Context(), key, false, &log); err != nil {
		b.t.Error(err)
	}
	return log.String()
}

// types lists the types of the events of an attempt, in order.
func (b *bench) types(app events.Slug, n, attempt int) []string {
	b.t.Helper()
	var all []string
	_, err := b.gateway.Ledger.Read(b.t.Context(), 0, func(r ledger.Record) error {
		if s := r.Subject; s.App == app && s.Run == n && s.Attempt == attempt && s.Writer == events.Build {
			all = append(all, s.Subject+"."+s.Predicate)
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

var whole = []string{"build.started", "artifact.packaged", "artifact.signed", "artifact.published", "build.finished", "taskrun.finished"}

func (b *bench) wantTypes(app events.Slug, n, attempt int, want ...string) {
	b.t.Helper()
	enginetest.Eventually(b.t, 10*time.Second, fmt.Sprintf("the events of %s/%d are %v", app, n, want), func() bool {
		return slices.Equal(b.types(app, n, attempt), want)
	})
}

func TestRunIsBuilt(t *testing.T) {
	b := newBench(t)
	commit := b.repo.commit("Dockerfile", b.dockerfile("COPY file /file", "RUN echo building; cat /file"), "file", "content\n")
	b.repo.commit("file", "not this\n")
	n := b.push("hello", commit, "build: {args: {COLOUR: blue}}")
	r, a := b.built("hello", n, 1)
	b.wantTypes("hello", n, 1, whole...)

	image, err := b.client.Image(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"org.opencontainers.image.source":   b.repo.url(),
		"org.opencontainers.image.revision": commit,
		"org.opencontainers.image.created":  "2024-05-06T07:08:09Z",
		"org.opencontainers.image.version":  "20240506070809-" + commit[:12],
	} {
		if got := manifest.Annotations[key]; got != want {
			t.Errorf("annotation %s is %q, want %q", key, got, want)
		}
		if got := config.Config.Labels[key]; got != want {
			t.Errorf("label %s is %q, want %q", key, got, want)
		}
	}
	if manifest.MediaType != "application/vnd.oci.image.manifest.v1+json" || !config.Created.Equal(time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)) {
		t.Errorf("manifest %s, created %v", manifest.MediaType, config.Created)
	}

	signed, refused, err := provenance.Find(t.Context(), b.client, b.gateway.Ledger.Trust(), a)
	if err != nil || len(signed) != 1 || len(refused) != 0 {
		t.Fatalf("provenance %v, refused %v, %v", signed, refused, err)
	}
	p := signed[0].Predicate
	if string(signed[0].Referrer.Digest) != r.Artifact.Provenance {
		t.Errorf("the event names provenance %s, the registry has %s", r.Artifact.Provenance, signed[0].Referrer.Digest)
	}
	if x := p.BuildDefinition.ExternalParameters; x.Commit != commit || x.Repository != b.repo.url() || x.Args["COLOUR"] != "blue" || x.DefinitionDigest != r.Start.DefinitionDigest {
		t.Errorf("external parameters %+v", x)
	}
	if x := p.BuildDefinition.InternalParameters; x.App != "hello" || x.Run != n || x.Inputs != r.Artifact.Tree || x.Tree != b.repo.git("rev-parse", commit+"^{tree}") {
		t.Errorf("internal parameters %+v", x)
	}
	if d := p.BuildDefinition.ResolvedDependencies; len(d) != 3 || d[0].Digest["gitCommit"] != commit || !strings.Contains(d[1].URI, b.base) ||
		d[2].Name != provenance.DockerfileName || !strings.HasPrefix(string(d[2].Content), "FROM ") {
		t.Errorf("dependencies %+v", d)
	}

	log := b.log("hello", n, 1)
	for _, want := range []string{"source: commit " + commit, " building\n", " content\n", "image: " + a.String()} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %q:\n%s", want, log)
		}
	}
	e := testEngine(t)
	if _, err := e.Image(t.Context(), a.Repository.String()+":run-1-1"); err == nil {
		t.Error("the engine still has the image under its temporary name")
	}
	if _, err := e.Pull(t.Context(), a.Repository.String(), string(a.Digest), engine.Credentials{}); err != nil {
		t.Errorf("pulling it: %v", err)
	} else {
		removeImage(t, e, a.String())
	}
}

func TestSameTreeIsRecognised(t *testing.T) {
	b := newBench(t)
	first := b.repo.commit("Dockerfile", b.dockerfile("RUN cat /proc/sys/kernel/random/uuid > /id"))
	b.built("hello", b.push("hello", first, ""), 1)
	second := b.repo.commit() // another commit, the same tree
	if first == second {
		second = b.repo.git("commit-tree", "-m", "again", "-p", first, first+"^{tree}")
		b.repo.git("update-ref", "refs/heads/main", second)
	}
	one, a := b.built("hello", 1, 1)
	two, again := b.built("hello", b.push("hello", second, ""), 1)
	if again != a || two.Artifact.ReusedFrom != 1 || two.Artifact.Tree != one.Artifact.Tree {
		t.Errorf("the same tree came out as %+v, first %+v", two.Artifact, one.Artifact)
	}
	b.wantTypes("hello", 2, 1, whole...)
	if log := b.log("hello", 2, 1); !strings.Contains(log, "built by hello/1 from the same tree") || strings.Contains(log, "RUN") {
		t.Errorf("log:\n%s", log)
	}
	signed, _, err := provenance.Find(t.Context(), b.client, b.gateway.Ledger.Trust(), a)
	if err != nil || len(signed) != 2 {
		t.Fatalf("provenance %v, %v, want one for each commit", signed, err)
	}
	for _, s := range signed {
		x, in := s.Predicate.BuildDefinition.ExternalParameters, s.Predicate.BuildDefinition.InternalParameters
		if want := map[int]string{1: first, 2: second}[in.Run]; x.Commit != want || len(s.Predicate.BuildDefinition.ResolvedDependencies) != 3 {
			t.Errorf("provenance of run %d: %+v", in.Run, s.Predicate.BuildDefinition)
		}
	}

	three, rebuilt := b.built("hello", b.push("hello", second, "", func(s *events.RunStart) { s.Rebuild = true }), 1)
	if rebuilt == a || three.Artifact.ReusedFrom != 0 {
		t.Errorf("asked to rebuild, got %+v", three.Artifact)
	}
	_, other := b.built("hello", b.push("hello", second, "build: {args: {X: \"1\"}}"), 1)
	if other == a {
		t.Error("another build argument came out as the same image")
	}
	if _, elsewhere := b.built("other", b.push("other", second, ""), 1); elsewhere.Repository == a.Repository {
		t.Error("another app's image is in the same repository")
	}
	b.replay("hello", 2, false)
	if r, replayed := b.built("hello", 2, 2); replayed != rebuilt || !r.Build.Replayed {
		t.Errorf("a replay of run 2 came out as %v, want what was built last, %v", replayed, rebuilt)
	}
	b.wantTypes("hello", 2, 2, append([]string{"stage.replayed"}, whole...)...)
	b.replay("hello", 2, true)
	if _, replayed := b.built("hello", 2, 3); replayed == rebuilt {
		t.Error("a replay that asks to rebuild came out as the same image")
	}
}

// TestForgedRecognitionIsRefused has somebody else point the tag of a tree at an image of their own.
func TestForgedRecognitionIsRefused(t *testing.T) {
	b := newBench(t)
	commit := b.repo.commit("Dockerfile", b.dockerfile("RUN cat /proc/sys/kernel/random/uuid > /id"))
	one, a := b.built("hello", b.push("hello", commit, ""), 1)
	evil := b.repo.commit("evil", "1")
	_, forged := b.built("hello", b.push("hello", evil, ""), 1)
	if err := b.client.Tag(t.Context(), forged, inputsTag(one.Artifact.Tree)); err != nil {
		t.Fatal(err)
	}
	vet := b.open("vet")
	lie := provenance.Predicate{BuildDefinition: provenance.BuildDefinition{InternalParameters: provenance.InternalParameters{App: "hello", Inputs: one.Artifact.Tree}}}
	if _, err := provenance.Attach(t.Context(), b.client, vet.Ledger.Signer(), forged, lie); err != nil {
		t.Fatal(err)
	}
	if _, refused, err := provenance.Find(t.Context(), b.client, b.gateway.Ledger.Trust(), forged); err != nil || len(refused) != 1 {
		t.Errorf("refused %v, %v, want vet's statement", refused, err)
	}
	if three, again := b.built("hello", b.push("hello", commit, ""), 1); again == forged || three.Artifact.ReusedFrom != 0 {
		t.Errorf("the forged image was taken: %+v (first %v)", three.Artifact, a)
	}
}

func TestFailuresAreRecorded(t *testing.T) {
	b := newBench(t)
	for app, tc := range map[events.Slug]struct {
		dockerfile, yaml, on, why string
	}{
		"failing": {b.dockerfile("RUN seq 50; exit 4"), "", "Dockerfile:2: RUN seq 50; exit 4", "exit code 4"},
		"endless": {b.dockerfile("RUN echo on; while true; do sleep 1; done"), "build: {timeout: 2s}", "Dockerfile:2: RUN echo on", "longer than 2s (build.timeout in towpath.yaml)"},
		"absent":  {"-", "build: {dockerfile: Nowhere}", "Nowhere", "no such file"},
	} {
		commit := b.repo.commit("Dockerfile", tc.dockerfile)
		n := b.push(app, commit, tc.yaml)
		r := b.ended(app, n, 1)
		trouble := r.Build.Trouble
		if r.Build.Outcome != events.Failure || trouble == nil || !strings.HasPrefix(trouble.On, tc.on) || !strings.Contains(trouble.Why, tc.why) || !strings.Contains(trouble.Do, "push") {
			t.Errorf("%s: %s, %+v, want a failure on %q because of %q", app, r.Build.Outcome, trouble, tc.on, tc.why)
		}
		if app == "failing" && (len(trouble.Log) != maxLogTail || trouble.Log[maxLogTail-1] != "50") {
			t.Errorf("%s: the trouble's log is %q", app, trouble.Log)
		}
		b.wantTypes(app, n, 1, "build.started", "taskrun.finished", "build.finished")
		if log := b.log(app, n, 1); !strings.Contains(log, "ERROR: ") {
			t.Errorf("%s: log:\n%s", app, log)
		}
		if r.Status() != fold.Failed {
			t.Errorf("%s: the run is %s", app, r.Status())
		}
	}
	n := b.push("gone", strings.Repeat("ab", 20), "")
	if r := b.ended("gone", n, 1); r.Build.Outcome != events.Failure || !strings.Contains(r.Build.Trouble.String(), "no such commit") {
		t.Errorf("a commit that is not there: %s %+v", r.Build.Outcome, r.Build.Trouble)
	}
	commit := b.repo.commit("Dockerfile", "FROM scratch\n")
	n = b.push("nowhere", commit, "", func(s *events.RunStart) { s.RepositoryURL = "file:///nowhere.git" })
	if r := b.ended("nowhere", n, 1); r.Build.Outcome != events.Error || r.Status() != fold.Stuck || r.Build.Trouble.Do == "" {
		t.Errorf("a repository that is not there: %s %+v", r.Build.Outcome, r.Build.Trouble)
	}
}

func TestCancelStopsTheBuild(t *testing.T) {
	b := newBench(t)
	marker := fmt.Sprintf("cancelled-%d", time.Now().UnixNano())
	commit := b.repo.commit("Dockerfile", b.dockerfile("RUN : "+marker+"; while true; do sleep 1; done"))
	n := b.push("hello", commit, "")
	enginetest.Eventually(t, 30*time.Second, "the step runs", func() bool { return processRuns(t, marker) })
	b.command(events.VerbCancel, "hello", n)
	r := b.ended("hello", n, 1)
	if r.Build.Outcome != events.Cancel || r.Status() != fold.CancelledRun {
		t.Errorf("after a cancellation: %s, %s", r.Build.Outcome, r.Status())
	}
	enginetest.Eventually(t, 10*time.Second, "the step is gone", func() bool { return !processRuns(t, marker) })
	b.wantTypes("hello", n, 1, "build.started", "taskrun.finished", "build.finished")
}

// TestReplayFencesTheAttempt replays a build that still runs: the old attempt stops and writes nothing.
func TestReplayFencesTheAttempt(t *testing.T) {
	b := newBench(t)
	marker := fmt.Sprintf("replayed-%d", time.Now().UnixNano())
	commit := b.repo.commit("Dockerfile", b.dockerfile("RUN : "+marker+"; while true; do sleep 1; done"))
	n := b.push("hello", commit, "build: {timeout: 3s}")
	enginetest.Eventually(t, 30*time.Second, "the step runs", func() bool { return processRuns(t, marker) })
	b.replay("hello", n, false)
	r := b.ended("hello", n, 2)
	if r.Build.Outcome != events.Failure {
		t.Errorf("attempt 2: %s", r.Build.Outcome)
	}
	b.wantTypes("hello", n, 1, "build.started")
}

func TestHoldKeepsBuildsBack(t *testing.T) {
	b := newBench(t)
	commit := b.repo.commit("Dockerfile", b.dockerfile("RUN true"))
	b.command(events.VerbHold, "", 0)
	n := b.push("hello", commit, "")
	m := b.push("other", commit, "")
	b.command(events.VerbCancel, "other", m)
	enginetest.Eventually(t, 10*time.Second, "every message is handled", func() bool {
		info, err := b.build.Ledger.JetStream().Consumer(t.Context(), events.StreamName(1), "build")
		return err == nil && info.CachedInfo().NumPending == 0 && info.CachedInfo().NumAckPending == 0
	})
	if types := b.types("hello", n, 1); len(types) > 0 {
		t.Errorf("while everything is on hold: %v", types)
	}
	b.command(events.VerbResume, "", 0)
	b.built("hello", n, 1)
	if types := b.types("other", m, 1); len(types) > 0 {
		t.Errorf("of a run that was cancelled before it began: %v", types)
	}
}

func TestBuildsWaitForTheirTurn(t *testing.T) {
	b := newBench(t, func(b *bench) { b.cfg.Concurrency = 1 })
	marker := fmt.Sprintf("slow-%d", time.Now().UnixNano())
	slow := b.repo.commit("Dockerfile", b.dockerfile("RUN : "+marker+"; sleep 3; true"))
	quick := b.repo.commit("Dockerfile", b.dockerfile("RUN true"))
	n := b.push("hello", slow, "")
	enginetest.Eventually(t, 30*time.Second, "the step runs", func() bool { return processRuns(t, marker) })
	m := b.push("hello", quick, "")
	b.until("hello", m, "queued", func(r *fold.Run) bool { return r.Build.Status == fold.Queued })
	b.built("hello", n, 1)
	b.built("hello", m, 1)
	b.wantTypes("hello", n, 1, whole...)
	b.wantTypes("hello", m, 1, append([]string{"build.queued"}, whole...)...)
}

// TestRegistryIsAwayForAWhile takes the registry away before a build and brings it back.
func TestRegistryIsAwayForAWhile(t *testing.T) {
	b := newBench(t)
	addr := b.registry.Addr()
	if err := b.registry.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	commit := b.repo.commit("Dockerfile", b.dockerfile("RUN true"))
	n := b.push("hello", commit, "")
	enginetest.Eventually(t, 30*time.Second, "the log says that the registry is away", func() bool {
		return strings.Contains(b.log("hello", n, 1), "registry is unavailable")
	})
	if r := b.build.Fold.App("hello").Run(n); r.Build.Ended() {
		t.Errorf("the build ended with %s", r.Build.Outcome)
	}
	b.startRegistry(addr)
	b.built("hello", n, 1)
	b.wantTypes("hello", n, 1, whole...)
}

// TestEngineIsAwayForAWhile freezes and kills the build engine, and brings it back.
func TestEngineIsAwayForAWhile(t *testing.T) {
	d := enginetest.StartDockerd(t)
	b := newBench(t, func(b *bench) { b.platform.Engines.Build.Host = d.Host.URL })
	commit := b.repo.commit("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")
	d.Kill()
	n := b.push("hello", commit, "")
	enginetest.Eventually(t, 30*time.Second, "the log says that the engine is away", func() bool {
		return strings.Contains(b.log("hello", n, 1), "does not answer")
	})
	d.Start()
	b.built("hello", n, 1)
}

// TestBuildSurvivesTheServicesDeath stops the service in the middle of a build; another takes it up.
func TestBuildSurvivesTheServicesDeath(t *testing.T) {
	b := newBench(t)
	marker := fmt.Sprintf("survives-%d", time.Now().UnixNano())
	commit := b.repo.commit("Dockerfile", b.dockerfile("RUN : "+marker+"; sleep 4; true"))
	n := b.push("hello", commit, "")
	enginetest.Eventually(t, 30*time.Second, "the step runs", func() bool { return processRuns(t, marker) })
	b.end() // it has time to drain
	b.built("hello", n, 1)
	b.start()
	b.wantTypes("hello", n, 1, whole...)
}

// TestAdoptsWhatATryHasMade has a try die between its effect and its events.
func TestAdoptsWhatATryHasMade(t *testing.T) {
	b := newBench(t)
	b.end()
	commit := b.repo.commit("Dockerfile", b.dockerfile("RUN cat /proc/sys/kernel/random/uuid > /id"))
	n := b.push("hello", commit, "", func(s *events.RunStart) { s.Rebuild = true })
	run := b.until("hello", n, "known", func(*fold.Run) bool { return true })
	s, err := New(b.cfg, Deps{Runtime: b.build, Registry: b.client})
	if err != nil {
		t.Fatal(err)
	}
	d := decide(b.build.Fold.App("hello"), run)
	if !d.fresh {
		t.Errorf("decided %+v, want a fresh build", d)
	}
	made, err := s.perform(t.Context(), s.job(recorder{book: b.build, run: run, attempt: 1}, d), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	b.start()
	if _, a := b.built("hello", n, 1); a != made.artifact {
		t.Errorf("the image was made again: %v, first %v", a, made.artifact)
	}
	b.wantTypes("hello", n, 1, whole...)
	if log := b.log("hello", n, 1); !strings.Contains(log, "before this attempt was interrupted") {
		t.Errorf("log:\n%s", log)
	}
	signed, _, err := provenance.Find(t.Context(), b.client, b.gateway.Ledger.Trust(), made.artifact)
	if err != nil || len(signed) != 1 {
		t.Errorf("provenance %v, %v, want the first try's", signed, err)
	}
}

// TestHostedRepository builds from the gateway's own repository, which it opens with what it signs.
func TestHostedRepository(t *testing.T) {
	b := newBench(t, func(b *bench) {
		root := filepath.Dir(b.repo.dir)
		url := gitServer(t, root, 2, func(r *http.Request) bool {
			user, password, _ := r.BasicAuth()
			service, err := source.Verify(b.build.Ledger.Trust(), "hello", password, time.Now())
			if user != source.User || err != nil || service != "build" {
				return false
			}
			r.URL.Path = strings.Replace(r.URL.Path, "/git/hello.git", "/repo/.git", 1)
			return true
		})
		b.cfg.Gateway = url
	})
	commit := b.repo.commit("Dockerfile", b.dockerfile("RUN true"))
	hosted := func(s *events.RunStart) { s.RepositoryURL = "" }
	_, a := b.built("hello", b.push("hello", commit, "", hosted), 1)
	image, err := b.client.Image(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := image.Manifest()
	if err != nil || manifest.Annotations["org.opencontainers.image.source"] != b.cfg.Gateway+"/git/hello.git" {
		t.Errorf("annotations %v, %v", manifest.Annotations, err)
	}
	n := b.push("other", commit, "", hosted)
	if r := b.ended("other", n, 1); r.Build.Outcome != events.Error || strings.Contains(r.Build.Trouble.String()+b.log("other", n, 1), "Basic") {
		t.Errorf("a repository that refuses: %s %+v", r.Build.Outcome, r.Build.Trouble)
	}
}

// TestGivingUp has a base image whose registry never answers, and one's own registry that stays away.
func TestGivingUp(t *testing.T) {
	b := newBench(t)
	n := b.push("hello", b.repo.commit("Dockerfile", "FROM 127.0.0.1:1/base:1\n"), "")
	r := b.ended("hello", n, 1)
	if r.Status() != fold.Stuck || !strings.Contains(r.Build.Trouble.String(), "finding the base image 127.0.0.1:1/base:1: Dockerfile:1") || !strings.Contains(r.Build.Trouble.Do, "replay") {
		t.Errorf("given up: %s %+v", r.Status(), *r.Build.Trouble)
	}
	b.wantTypes("hello", n, 1, "build.started", "taskrun.finished", "build.finished")
	b.end()

	n = b.push("hello", b.repo.commit("Dockerfile", b.dockerfile("RUN true")), "")
	run := b.until("hello", n, "known", func(*fold.Run) bool { return true })
	var start ledger.Record
	_, err := b.gateway.Ledger.Read(t.Context(), 0, func(r ledger.Record) error {
		if r.Event.ID == run.StartEvent {
			start = r
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.service.giveUp(t.Context(), worker.Message{Record: start}, registry.ErrUnavailable); err != nil {
		t.Fatal(err)
	}
	r = b.ended("hello", n, 1)
	if r.Status() != fold.Stuck || !strings.Contains(r.Build.Trouble.String(), "registry is unavailable") || !strings.Contains(r.Build.Trouble.Do, r.ReplayCommand(fold.StageBuild, "")) {
		t.Errorf("given up: %s %+v", r.Status(), *r.Build.Trouble)
	}
	b.wantTypes("hello", n, 1, "taskrun.finished", "build.finished")
}
