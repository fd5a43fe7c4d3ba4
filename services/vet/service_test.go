package vet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/registry/provenance"
	"towpath.dev/pkg/registry/registryserver"
	"towpath.dev/pkg/worker"
	"towpath.dev/services/vet/imagetest"
)

// world is a ledger, a registry behind a gate that a test can close, and vet at work.
type world struct {
	t          *testing.T
	ledger     *ledgertest.Ledger
	gateway    *worker.Runtime
	build      *worker.Runtime
	vet        *worker.Runtime
	registry   *registry.Client
	repository registry.Repository
	gate       *gate
	policy     string // digest of the published policy
}

// gate lets requests through to the registry, holds them, or refuses them.
type gate struct {
	proxy   http.Handler
	refuse  atomic.Bool
	hold    atomic.Pointer[chan struct{}]
	arrived chan struct{} // gets a token for each request that is held
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.refuse.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if hold := g.hold.Load(); hold != nil {
		select {
		case g.arrived <- struct{}{}:
		default:
		}
		select {
		case <-*hold:
		case <-r.Context().Done():
		}
	}
	g.proxy.ServeHTTP(w, r)
}

func open(t *testing.T, l *ledgertest.Ledger, w events.Writer) *worker.Runtime {
	t.Helper()
	rt, err := worker.Open(t.Context(), worker.Options{Service: string(w), Bus: l.URL, Keys: l.Keys})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rt.Close)
	return rt
}

func newWorld(t *testing.T) *world {
	t.Helper()
	l := ledgertest.Start(t)
	server, err := registryserver.Start(registryserver.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(context.WithoutCancel(t.Context())) })
	g := &gate{proxy: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: server.Addr()}), arrived: make(chan struct{}, 1)}
	front := httptest.NewServer(g)
	t.Cleanup(front.Close)
	w := &world{t: t, ledger: l, gateway: open(t, l, events.Gateway), build: open(t, l, events.Build), vet: open(t, l, events.Vet), gate: g,
		registry: registry.New(registry.Options{Attempts: 1})}
	if w.repository, err = registry.ParseRepository(strings.TrimPrefix(front.URL, "http://") + "/hello"); err != nil {
		t.Fatal(err)
	}
	p := policy.Default().Policy
	w.policy = p.Digest()
	w.append(w.gateway, events.PolicySubject(1, 1), &events.PolicyPublished{About: events.About{ID: p.Digest()}, Digest: p.Digest(), Text: p.Text(), Actor: "operator"})
	w.start(Config{Work: t.TempDir()})
	return w
}

// start runs the service until the test ends.
func (w *world) start(cfg Config) {
	w.t.Helper()
	s, err := New(cfg, Deps{Runtime: w.vet, Registry: w.registry})
	if err != nil {
		w.t.Fatal(err)
	}
	s.effects.taker = &taker // one for all tests: making it takes a second
	ctx, stop := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			w.t.Errorf("vet ended: %v", err)
		}
	})
}

func (w *world) append(rt *worker.Runtime, s events.Subject, b events.Body) events.Event {
	w.t.Helper()
	r, err := rt.Append(w.t.Context(), s, events.New(s.Writer, time.Now(), "3b241101-e2bb-4255-8caf-4136c566a962", b))
	if err != nil {
		w.t.Fatal(err)
	}
	return r.Event
}

// push starts run n of a commit.
func (w *world) push(n int) {
	w.t.Helper()
	b := &events.ChangeMerged{About: events.About{ID: commit}, Repository: events.Reference{ID: "hello"}, Run: w.runStart()}
	b.Run.SHA, b.Run.Predecessor = commit, n-1
	w.append(w.gateway, events.RunStartSubject(1, b.Type(), hello, "", "refs/heads/main", n-1, commit), b)
}

func (w *world) runStart() events.RunStart {
	return events.RunStart{App: hello, Definition: definition.Canonical(), DefinitionDigest: definition.Digest(), PolicyDigest: w.policy, Actor: "ann"}
}

// built pushes the image of a run to the registry with its provenance, and says so.
func (w *world) built(n int, image v1.Image) registry.Artifact {
	w.t.Helper()
	digest, err := w.registry.Push(w.t.Context(), w.repository, fmt.Sprint("run-", n), image)
	if err != nil {
		w.t.Fatal(err)
	}
	a := w.repository.At(digest)
	var p provenance.Predicate
	p.BuildDefinition.ExternalParameters.Commit = commit
	p.BuildDefinition.InternalParameters.App = string(hello)
	if _, err := provenance.Attach(w.t.Context(), w.registry, w.build.Ledger.Signer(), a, p); err != nil {
		w.t.Fatal(err)
	}
	w.published(n, a)
	return a
}

func (w *world) published(n int, a registry.Artifact) {
	w.t.Helper()
	b := &events.ArtifactPublished{About: events.About{ID: a.PURL()}, Published: events.Published{Artifact: events.Artifact{
		Repository: a.Repository.String(), Digest: string(a.Digest)}}}
	w.append(w.build, events.BuildSubject(1, b.Type(), hello, n, "", 1), b)
}

func (w *world) command(c events.Command) {
	w.t.Helper()
	id := events.NewID()
	w.append(w.gateway, events.CommandSubject(1, events.TypeCommandReceived, c.App, c.Run, c.Environment, id),
		&events.CommandReceived{About: events.About{ID: id}, Command: c})
}

func (w *world) replay(n int) {
	w.t.Helper()
	id := events.NewID()
	w.append(w.gateway, events.CommandSubject(1, events.TypeReplayRequested, hello, n, "", id),
		&events.ReplayRequested{About: events.About{ID: id}, Stage: fold.StageVet, Actor: "bob"})
}

// until waits for the vet stage of a run to be as wanted.
func (w *world) until(n int, what string, wanted func(s fold.Stage) bool) *fold.Run {
	w.t.Helper()
	ctx, cancel := context.WithTimeoutCause(w.t.Context(), time.Minute, errors.New("a minute has passed"))
	defer cancel()
	var seq uint64
	for {
		a, err := w.gateway.Fold.WaitApp(ctx, hello, seq)
		if err != nil {
			s := w.gateway.Fold.App(hello).Run(n).Vet
			w.t.Fatalf("waiting until %s: %v; the stage is %+v, %v", what, err, s, s.Trouble)
		}
		if seq = a.Seq; a.Run(n) != nil && wanted(a.Run(n).Vet) {
			return a.Run(n)
		}
	}
}

func hasEnded(attempt int) func(fold.Stage) bool {
	return func(s fold.Stage) bool { return s.Attempt == attempt && s.Ended() }
}

func TestServiceJudgesWhatWasBuilt(t *testing.T) {
	w := newWorld(t)
	w.push(1)
	a := w.built(1, program(t))
	run := w.until(1, "it is judged", hasEnded(1))
	v := run.Verdict
	if run.Vet.Status != fold.Done || v == nil || v.Total != 0 || v.Policy != w.policy || v.ArtifactID != a.PURL() {
		t.Fatalf("%+v %+v", run.Vet, v)
	}
	for _, place := range places(w.vet.Fold.App(hello), run) {
		env := place.name
		if got, ok := run.VerdictFor(env); !ok || got.Verdict != events.Pass {
			t.Errorf("%s: %+v", env, got)
		}
	}
	if v.Report == nil || v.SBOM == nil {
		t.Fatalf("%+v", v)
	}
	referrer := registry.Referrer{Subject: a, Digest: registry.Digest(v.Report.Digest)}
	body, _, err := w.registry.Read(t.Context(), referrer, maxReport)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ReadReport(w.gateway.Ledger.Trust(), a, body); err != nil {
		t.Error(err)
	}
	// The same image in another run: its own events, the same report.
	w.push(2)
	w.published(2, a)
	second := w.until(2, "it is judged", hasEnded(1))
	if second.Verdict == nil || second.Verdict.Report.Digest != v.Report.Digest {
		t.Errorf("%+v", second.Verdict)
	}
}

func TestServiceJudgesImagesOfOthers(t *testing.T) {
	w := newWorld(t)
	digest, err := w.registry.Push(t.Context(), w.repository, "theirs", program(t))
	if err != nil {
		t.Fatal(err)
	}
	submit := func(n int, a registry.Artifact) {
		start := w.runStart()
		b := &events.ArtifactPublished{About: events.About{ID: a.PURL()}, Published: events.Published{
			Artifact: events.Artifact{Repository: a.Repository.String(), Digest: string(a.Digest)}, Run: &start}}
		w.append(w.gateway, events.RunStartSubject(1, b.Type(), hello, a.Repository.String(), "", n-1, string(a.Digest)), b)
	}
	submit(1, w.repository.At(digest))
	run := w.until(1, "it is judged", hasEnded(1))
	if v := run.Verdict; v == nil || v.Total != 1 || v.Findings[0].Rule != string(policy.ProvenanceMissing) {
		t.Fatalf("%+v", run.Verdict)
	}
	submit(2, w.repository.At(registry.Digest("sha256:"+strings.Repeat("0", 64))))
	run = w.until(2, "it has failed", hasEnded(1))
	if run.Vet.Status != fold.Failed || run.Vet.Trouble == nil || !strings.Contains(run.Vet.Trouble.Do, "submit it again") {
		t.Errorf("%+v %+v", run.Vet, run.Vet.Trouble)
	}
}

func TestServiceWithoutItsPolicyIsStuckAndReplays(t *testing.T) {
	w := newWorld(t)
	good := w.policy
	w.policy = "sha256:" + strings.Repeat("9", 64)
	w.push(1)
	w.built(1, program(t))
	run := w.until(1, "it has ended", hasEnded(1))
	if run.Vet.Outcome != events.Error || run.Vet.Trouble == nil || !strings.Contains(run.Vet.Trouble.Why, "has no policy") || run.Vet.Trouble.Do != "towpath replay hello/1 vet" {
		t.Fatalf("%+v %+v", run.Vet, run.Vet.Trouble)
	}
	w.policy = good
	w.replay(1)
	run = w.until(1, "the replay has ended", hasEnded(2))
	if run.Vet.Outcome != events.Error || !run.Vet.Replayed {
		t.Errorf("%+v", run.Vet)
	}
}

func TestServiceWaitsForTheRegistry(t *testing.T) {
	w := newWorld(t)
	w.push(1)
	digest, err := w.registry.Push(t.Context(), w.repository, "run-1", program(t))
	if err != nil {
		t.Fatal(err)
	}
	w.gate.refuse.Store(true)
	w.published(1, w.repository.At(digest))
	w.until(1, "it has begun", func(s fold.Stage) bool { return s.Status == fold.Running })
	w.gate.refuse.Store(false)
	if run := w.until(1, "it is judged", hasEnded(1)); run.Vet.Outcome != events.Success {
		t.Errorf("%+v", run.Vet)
	}
}

func TestServiceStopsWhatIsCancelled(t *testing.T) {
	w := newWorld(t)
	w.push(1)
	digest, err := w.registry.Push(t.Context(), w.repository, "run-1", program(t))
	if err != nil {
		t.Fatal(err)
	}
	hold := make(chan struct{})
	w.gate.hold.Store(&hold)
	defer close(hold)
	w.published(1, w.repository.At(digest))
	<-w.gate.arrived
	w.command(events.Command{Verb: events.VerbCancel, App: hello, Run: 1, Actor: "bob"})
	if run := w.until(1, "it has ended", hasEnded(1)); run.Vet.Outcome != events.Cancel || run.Verdict != nil {
		t.Errorf("%+v", run.Vet)
	}
}

func TestServiceWaitsForAHoldToEnd(t *testing.T) {
	w := newWorld(t)
	w.command(events.Command{Verb: events.VerbHold, Actor: "bob"})
	w.push(1)
	w.built(1, program(t))
	w.push(2)
	w.built(2, imagetest.Image(t))
	if s := w.vet.Fold.App(hello).Run(1).Vet; s.Status != fold.Pending {
		t.Errorf("%+v", s)
	}
	w.command(events.Command{Verb: events.VerbResume, Actor: "bob"})
	w.until(1, "it is judged", hasEnded(1))
	w.until(2, "it is judged", hasEnded(1))
}

func TestConfigReportsAllFaults(t *testing.T) {
	err := Config{Concurrency: -1, Work: "relative", Margin: -1, Platform: "linux"}.Validate()
	for _, want := range []string{"concurrency: -1", `work: "relative"`, "margin: -1ns", `platform: "linux"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestWorkFolderOfTheDeadIsRemoved(t *testing.T) {
	work := t.TempDir()
	first, closeFirst, err := openWork(work)
	if err != nil {
		t.Fatal(err)
	}
	second, closeSecond, err := openWork(work)
	if err != nil {
		t.Fatal(err)
	}
	defer closeSecond()
	if !exists(first) || !exists(second) {
		t.Error("the folder of a living process was removed")
	}
	closeFirst()
	if exists(first) {
		t.Error("its own folder is left")
	}
}

func exists(dir string) bool {
	_, err := os.Stat(dir)
	return err == nil
}
