package promote_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/worker"
	"towpath.dev/services/promote"
)

var hello = foldtest.Definition(`
app: hello
service: {port: 8080}
release: [migrate]
config: [KEY]
environments: [{name: dev}, {name: qa}, {name: prod}]
`)

// fakeEngine stands in for engines, table and edge, so that they can be made to fail and to wait.
type fakeEngine struct {
	mu       sync.Mutex
	replicas map[string]string // name → digest
	started  map[string]int    // name → times
	released map[int]int       // slot → times
	traffic  map[events.Slug]int
	digests  map[events.Slug]string                       // with the traffic
	prepare  func(context.Context, promote.Version) error // before Prepare answers
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{
		replicas: map[string]string{}, started: map[string]int{}, released: map[int]int{},
		traffic: map[events.Slug]int{}, digests: map[events.Slug]string{},
	}
}

func (f *fakeEngine) Prepare(ctx context.Context, v promote.Version) ([]events.Instance, error) {
	name := fmt.Sprintf("%s-%d", v.Env, v.Slot.N)
	if v.From != nil {
		name = v.From.Instances[0].ID
	}
	f.mu.Lock()
	if f.replicas[name] == "" {
		f.replicas[name] = v.Slot.Digest
		f.started[name]++
	}
	if v.Slot.Kind == events.KindDeploy && len(v.Run.Definition.Release) > 0 {
		f.released[v.Slot.N] = 1 // by its name, once
	}
	prepare := f.prepare
	f.mu.Unlock()
	if prepare != nil {
		if err := prepare(ctx, v); err != nil {
			return nil, err
		}
	}
	return []events.Instance{{ID: name, Address: "127.0.0.1:1"}}, nil
}

func (f *fakeEngine) Switch(_ context.Context, v promote.Version) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v.Slot.N >= f.traffic[v.Env] {
		f.traffic[v.Env], f.digests[v.Env] = v.Slot.N, v.Slot.Digest
	}
	return nil
}

func (f *fakeEngine) Clean(_ context.Context, p promote.Place, keep []*fold.Slot, upTo int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for slot := 1; slot <= upTo; slot++ {
		name := fmt.Sprintf("%s-%d", p.Env, slot)
		if !slices.ContainsFunc(keep, func(k *fold.Slot) bool { return k.N == slot || k.Instances[0].ID == name }) {
			delete(f.replicas, name)
		}
	}
	return nil
}

func (f *fakeEngine) Heal(context.Context, promote.Version) error { return nil }

func (f *fakeEngine) Look(context.Context, promote.Version, *fold.Env, bool) ([]promote.Finding, error) {
	return nil, nil
}

func (f *fakeEngine) Left(_ context.Context, among []events.Slug) (left []events.Slug, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, env := range among {
		if _, there := f.traffic[env]; there {
			left = append(left, env)
		}
	}
	return left, nil
}

func (f *fakeEngine) Raze(_ context.Context, env events.Slug, _ map[events.Slug]int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.traffic, env)
	delete(f.digests, env)
	return nil
}

func (f *fakeEngine) preparing(p func(context.Context, promote.Version) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prepare = p
}

// stage is a real ledger with promote on it, and the test in the roles of everybody else.
type stage struct {
	t       testing.TB
	ledger  *ledgertest.Ledger
	engine  *fakeEngine
	gateway *worker.Runtime
	verify  *worker.Runtime
	store   *settings.Store
	policy  string

	platform *policy.Platform // of promote; nil: the default

	mu       sync.Mutex
	outcomes map[string]events.Outcome // of verification, by digest
}

// newStage has verify answered by the test, at once.
func newStage(t testing.TB) *stage {
	t.Helper()
	s := newBareStage(t)
	s.verify = s.open("verify")
	ctx, stop := context.WithCancel(context.Background())
	var verifying sync.WaitGroup
	verifying.Go(func() { s.verifyAll(ctx) })
	t.Cleanup(func() { stop(); verifying.Wait() })
	return s
}

// newBareStage has nobody in verify's place.
func newBareStage(t testing.TB) *stage {
	t.Helper()
	s := &stage{t: t, ledger: ledgertest.Start(t), engine: newFakeEngine(), outcomes: map[string]events.Outcome{}}
	s.gateway = s.open("gateway")
	key, err := identity.LoadSettingsKey(s.ledger.Keys)
	if err != nil {
		t.Fatal(err)
	}
	if s.store, err = settings.Open(s.gateway.Ledger, key); err != nil {
		t.Fatal(err)
	}
	p := policy.Default().Policy
	s.policy = p.Digest()
	published := &events.PolicyPublished{Digest: s.policy, Text: p.Text(), Actor: "operator"}
	published.ID = s.policy
	s.write(s.gateway, events.PolicySubject(1, 1), "", published)
	return s
}

func (s *stage) open(service string) *worker.Runtime {
	s.t.Helper()
	level := slog.New(slog.NewTextHandler(io.Discard, nil))
	if os.Getenv("TOWPATH_TEST_LOG") != "" {
		level = slog.Default()
	}
	rt, err := worker.Open(context.Background(), worker.Options{Service: service, Bus: s.ledger.URL, Keys: s.ledger.Keys, Logger: level})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(rt.Close)
	return rt
}

// start runs promote on the fake engine until stop.
func (s *stage) start(cfg promote.Config) (stop func()) {
	s.t.Helper()
	return s.startWith(cfg, promote.Deps{Effects: s.engine})
}

func (s *stage) startWith(cfg promote.Config, deps promote.Deps) (stop func()) {
	s.t.Helper()
	rt := s.open("promote")
	if s.platform != nil {
		rt.Platform = s.platform
	}
	deps.Runtime = rt
	service, err := promote.New(cfg, deps)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("promote ended: %v", err)
		}
		rt.Close()
	})
	s.t.Cleanup(stop)
	return stop
}

func (s *stage) write(rt *worker.Runtime, subject events.Subject, chain string, b events.Body) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := rt.Append(ctx, subject, events.New(subject.Writer, time.Now(), chain, b)); err != nil {
		s.t.Fatal(err)
	}
}

// replay writes what a story holds with the identities of those who write such things.
func (s *stage) replay(story *foldtest.Ledger, after uint64) {
	s.t.Helper()
	for _, r := range story.Records(after) {
		rt := s.gateway
		if r.Subject.Writer != events.Gateway {
			rt = s.open(string(r.Subject.Writer))
			defer rt.Close()
		}
		s.write(rt, r.Subject, r.Event.ChainID, r.Event.Body)
	}
}

// ready pushes, builds and vets run n of an app.
func (s *stage) ready(d pipeline.Definition, n int) {
	s.t.Helper()
	s.readyImage(d, n, "registry/hello", foldtest.Digest(fmt.Sprint("run", n)))
}

func (s *stage) readyImage(d pipeline.Definition, n int, repository, digest string) {
	s.t.Helper()
	story := foldtest.New()
	story.PushNumber(d, s.policy, n)
	story.BuiltIn(d.App, n, 1, repository, digest)
	story.Vetted(d.App, n, 1, digest, d.EnvironmentNames())
	s.replay(story, 0)
}

func (s *stage) command(c events.Command) {
	s.t.Helper()
	c.App, c.Actor, c.Channel = "hello", "bob", "test"
	b := &events.CommandReceived{Command: c}
	b.ID = events.NewID()
	s.write(s.gateway, events.CommandSubject(1, b.Type(), c.App, c.Run, c.Environment, b.ID), "", b)
}

func (s *stage) set(env events.Slug, value string) {
	s.t.Helper()
	version, err := s.store.SetConfig(s.t.Context(), env, "hello", "KEY", value)
	if err != nil {
		s.t.Fatal(err)
	}
	b := &events.SettingChanged{Key: "KEY", App: "hello", Environment: env, Version: version, Actor: "bob"}
	b.ID = string(env) + "/hello/KEY"
	s.write(s.gateway, events.SettingSubject(1, b.Type(), "hello", env, "KEY", "", version), "", b)
}

// verifyAll does what verify does, at once.
func (s *stage) verifyAll(ctx context.Context) {
	for seq := uint64(0); ; {
		a, err := s.verify.Fold.WaitApp(ctx, "hello", seq)
		if err != nil {
			return
		}
		seq = a.Seq
		for env, e := range a.Envs {
			if live := e.Last(); live != nil && live.Decision == events.Live && live.Open() && live.Trial == nil && live.Kind != events.KindRemove {
				s.verified(ctx, env, live)
			}
		}
	}
}

func (s *stage) verified(ctx context.Context, env events.Slug, live *fold.Slot) {
	s.mu.Lock()
	o, ok := s.outcomes[live.Digest]
	s.mu.Unlock()
	if !ok {
		o = events.Success
	}
	b := &events.TestSuiteRunFinished{
		Environment: events.Reference{ID: string(env)}, Outcome: o, Reason: string(o),
		Trial: events.Trial{Slot: live.N, Attempt: live.TrialAttempt, Digest: live.Digest},
	}
	b.ID = fmt.Sprintf("hello/%d/%s/%d", live.Run, env, live.N)
	subject := events.VerifySubject(1, b.Type(), "hello", live.Run, env, live.N, 0, live.TrialAttempt)
	_, err := s.verify.Append(ctx, subject, events.New(events.Verify, time.Now(), "", b))
	var exists *ledger.ExistsError
	if err != nil && !errors.As(err, &exists) && ctx.Err() == nil {
		s.t.Error(err)
	}
}

// until waits until the app is as wanted.
func (s *stage) until(what string, ok func(*fold.App) bool) *fold.App {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for seq := uint64(0); ; {
		a, err := s.gateway.Fold.WaitApp(ctx, "hello", seq)
		if err != nil {
			a := s.gateway.Fold.App("hello")
			for r := range a.Runs.All() {
				s.t.Logf("%s is %s", r.Name(), r.Status())
				for _, e := range r.Envs {
					s.t.Logf("  %s: %+v %+v waiting %+v", e.Name, e.Promote, e.Verify, e.Waiting)
				}
			}
			s.t.Fatalf("waiting until %s: %v", what, err)
		}
		if ok(a) {
			return a
		}
		seq = a.Seq
	}
}

func (s *stage) untilRun(n int, want fold.Status) *fold.App {
	s.t.Helper()
	return s.until(fmt.Sprintf("run %d is %s", n, want), func(a *fold.App) bool {
		return a.Run(n) != nil && a.Run(n).Status() == want
	})
}

func (s *stage) approve(n int) {
	s.t.Helper()
	s.command(events.Command{
		Verb: events.VerbApprove, Run: n, Environment: "prod", Digest: foldtest.Digest(fmt.Sprint("run", n)),
	})
}

// written lists what promote has written about an environment, in order.
func (s *stage) written(env events.Slug) []string {
	s.t.Helper()
	var all []string
	_, err := s.gateway.Ledger.Read(s.t.Context(), 0, func(r ledger.Record) error {
		if r.Subject.Writer == events.Promote && r.Subject.Env == env {
			all = append(all, r.Subject.Subject+"."+r.Subject.Predicate)
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

func TestFromDevToProd(t *testing.T) {
	s := newStage(t)
	s.start(promote.Config{})
	s.set("dev", "a")
	s.set("prod", "c")
	s.ready(hello, 1)
	a := s.until("qa waits for its setting", func(a *fold.App) bool {
		return a.Run(1) != nil && a.Run(1).Env("qa").Waiting != nil
	})
	if w := a.Run(1).Env("qa").Waiting; w.Reason != "KEY has no value in qa" || !strings.HasPrefix(w.Command, "towpath config set qa hello KEY") {
		t.Errorf("waits for %+v", w)
	}
	s.set("qa", "b")
	s.until("prod waits for an approval", func(a *fold.App) bool {
		w := a.Run(1).Env("prod").Waiting
		return w != nil && w.Command == "towpath approve hello/1 --env prod"
	})
	s.approve(1)
	a = s.untilRun(1, fold.Done)
	for _, env := range hello.EnvironmentNames() {
		live := a.Env(env).Live()
		if live.Digest != foldtest.Digest("run1") || s.engine.digests[env] != live.Digest || live.Pins.Config["KEY"] == 0 {
			t.Errorf("%s: %+v, traffic at %s", env, live, s.engine.digests[env])
		}
	}
	deployed := "slot.taken pipelinerun.started slot.decided service.deployed slot.closed"
	for env, want := range map[events.Slug]string{
		"dev":  deployed + " pipelinerun.finished",
		"qa":   "pipelinerun.queued " + deployed + " pipelinerun.finished",
		"prod": "promotion.requested pipelinerun.queued promotion.approved " + deployed,
	} {
		if got := strings.Join(s.written(env), " "); !strings.HasPrefix(got, want) {
			t.Errorf("written about %s: %s, want %s", env, got, want)
		}
	}
}

func TestRejectedVersionGoesBack(t *testing.T) {
	s := newStage(t)
	s.outcomes[foldtest.Digest("run2")] = events.Failure
	s.start(promote.Config{})
	for _, env := range hello.EnvironmentNames() {
		s.set(env, "a")
	}
	s.ready(hello, 1)
	s.until("1 is in qa", func(a *fold.App) bool { return a.Run(1) != nil && a.Run(1).Env("qa").Verified })
	s.ready(hello, 2)
	s.untilRun(2, fold.Failed)
	a := s.until("1 is back in dev", func(a *fold.App) bool {
		live := a.Env("dev").Live()
		return live.Kind == events.KindRollback && live.Closing == events.Verified && a.Run(2).Env("dev").Concluded
	})
	if live := a.Env("dev").Live(); live.N != 3 || live.Instances[0].ID != "dev-1" {
		t.Errorf("live is %+v", live)
	}
	if s.engine.started["dev-1"] != 1 || s.engine.digests["dev"] != foldtest.Digest("run1") {
		t.Errorf("dev-1 was started %d times, traffic at %s", s.engine.started["dev-1"], s.engine.digests["dev"])
	}
	if a.Run(2).Env("qa").Slot != 0 {
		t.Error("qa has seen the rejected version")
	}
}

// A run that is being brought up is cancelled: its slot is free at once, although the engine does not
// answer.
func TestCancelDoesNotWait(t *testing.T) {
	s := newStage(t)
	s.start(promote.Config{})
	s.set("dev", "a")
	hanging := make(chan struct{}, 8)
	s.engine.preparing(func(ctx context.Context, v promote.Version) error {
		if v.Slot.Run != 1 {
			return nil
		}
		hanging <- struct{}{}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	s.ready(hello, 1)
	<-hanging
	begun := time.Now()
	s.command(events.Command{Verb: events.VerbCancel, Run: 1})
	a := s.until("the slot is free", func(a *fold.App) bool { return a.Env("dev").Slot(1).Decision == events.Abandoned })
	t.Logf("free after %s", time.Since(begun))
	if a.Run(1).Status() != fold.CancelledRun {
		t.Errorf("run is %s", a.Run(1).Status())
	}
	s.ready(hello, 2)
	s.until("2 is verified", func(a *fold.App) bool { return a.Run(2) != nil && a.Run(2).Env("dev").Verified })
	s.until("1 is concluded", func(a *fold.App) bool { return a.Run(1).Env("dev").Promote.Outcome == events.Cancel })
}

// What others wait for is said while somebody is at work.
func TestWaitingIsSaidDuringADeploy(t *testing.T) {
	s := newStage(t)
	s.start(promote.Config{})
	s.set("dev", "a")
	goOn := make(chan struct{})
	s.engine.preparing(func(ctx context.Context, v promote.Version) error {
		select {
		case <-goOn:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	s.ready(hello, 1)
	s.until("1 has a slot", func(a *fold.App) bool { return a.Env("dev").Slots.Len() == 1 })
	s.ready(hello, 2)
	s.until("2 says that it waits", func(a *fold.App) bool {
		return a.Run(2) != nil && a.Run(2).Env("dev").Waiting != nil && a.Run(2).Env("dev").Waiting.For == "run hello/1"
	})
	close(goOn)
	s.until("2 is verified", func(a *fold.App) bool { return a.Run(2).Env("dev").Verified })
}

// promote ends in the middle of a deploy; the next one takes over what is there.
func TestTakesOverAfterTheEnd(t *testing.T) {
	s := newStage(t)
	stop := s.start(promote.Config{DrainTimeout: time.Millisecond})
	s.set("dev", "a")
	hanging := make(chan struct{}, 1)
	s.engine.preparing(func(ctx context.Context, v promote.Version) error {
		hanging <- struct{}{}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	s.ready(hello, 1)
	<-hanging
	stop()
	s.engine.preparing(nil)
	s.start(promote.Config{})
	a := s.until("1 is verified", func(a *fold.App) bool { return a.Run(1).Env("dev").Verified })
	if a.Env("dev").Slots.Len() != 1 || s.engine.started["dev-1"] != 1 || s.engine.released[1] != 1 {
		t.Errorf("%d slots, started %d times, released %d times", a.Env("dev").Slots.Len(), s.engine.started["dev-1"], s.engine.released[1])
	}
}

// An engine that does not answer is tried again; when the tries are used up an operator is asked, and the
// replay goes on.
func TestEngineAway(t *testing.T) {
	s := newStage(t)
	s.start(promote.Config{MaxAttempts: 2})
	s.set("dev", "a")
	s.engine.preparing(func(context.Context, promote.Version) error { return errors.New("the engine does not answer") })
	s.ready(hello, 1)
	a := s.untilRun(1, fold.Stuck)
	e := a.Run(1).Env("dev")
	if e.Promote.Outcome != events.Error || !strings.Contains(e.Promote.Trouble.Do, "towpath replay hello/1 promote --env dev") {
		t.Errorf("stage %+v", e.Promote)
	}
	s.engine.preparing(nil)
	story := foldtest.New()
	story.Replay("hello", 1, fold.StagePromote, "dev")
	s.replay(story, 0)
	a = s.until("1 is verified", func(a *fold.App) bool { return a.Run(1).Env("dev").Verified })
	if s := a.Env("dev").Live(); s.N != 2 || s.Attempt != 2 {
		t.Errorf("live %+v", s)
	}
}

// A store of settings that does not answer uses up no tries, and why it is waited for can be read.
func TestSettingsAway(t *testing.T) {
	s := newStage(t)
	s.start(promote.Config{MaxAttempts: 2})
	s.set("dev", "a")
	var asked atomic.Int32
	s.engine.preparing(func(context.Context, promote.Version) error {
		if asked.Add(1) > 3 {
			return nil
		}
		return fmt.Errorf("reading settings: %w", &settings.UnavailableError{Store: "Vault of dev", What: "reading a secret", Why: "it is sealed", Do: "unseal it"})
	})
	s.ready(hello, 1)
	s.until("1 has its slot", func(a *fold.App) bool { return a.Env("dev").Last() != nil })
	noted := func() bool {
		notes, err := s.gateway.Ledger.Notes(t.Context(), events.BucketTries, events.Promote)
		return err == nil && slices.ContainsFunc(notes, func(n ledger.Note) bool {
			return strings.Contains(n.Why, "Vault of dev: reading a secret: it is sealed; unseal it")
		})
	}
	for bound := time.After(10 * time.Second); !noted(); {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-bound:
			t.Fatal("nothing says that Vault is waited for")
		}
	}
	a := s.until("1 is verified", func(a *fold.App) bool { return a.Run(1).Env("dev").Verified })
	if n := a.Env("dev").Last().N; n != 1 || asked.Load() != 4 {
		t.Errorf("slot %d after asking %d times, want slot 1 at the fourth", n, asked.Load())
	}
}

// Several promote processes share the work; each slot is decided once.
func TestSeveralProcesses(t *testing.T) {
	s := newStage(t)
	for range 3 {
		s.start(promote.Config{})
	}
	for _, env := range hello.EnvironmentNames() {
		s.set(env, "a")
	}
	for n := 1; n <= 4; n++ {
		s.ready(hello, n)
	}
	s.until("4 is in qa", func(a *fold.App) bool { return a.Run(4) != nil && a.Run(4).Env("qa").Verified })
	s.approve(4)
	a := s.untilRun(4, fold.Done)
	for n := 1; n <= 3; n++ {
		if !a.Run(n).Status().Ended() && a.Run(n).Status() != fold.Superseded {
			t.Errorf("%s is %s", a.Run(n).Name(), a.Run(n).Status())
		}
	}
	for env, e := range a.Envs {
		if live := e.Live(); live.Run != 4 || s.engine.traffic[env] != live.N {
			t.Errorf("%s: live %d, traffic at slot %d of %d", env, live.Run, s.engine.traffic[env], live.N)
		}
	}
}

// BenchmarkRun is a run from the verdict through three environments, with effects and checks that take
// no time: what deciding and recording take.
func BenchmarkRun(b *testing.B) {
	s := newStage(b)
	s.start(promote.Config{})
	for _, env := range hello.EnvironmentNames() {
		s.set(env, "a")
	}
	d := hello
	d.Environments = slices.Clone(d.Environments)
	n := 0
	var spent time.Duration
	for b.Loop() {
		n++
		story := foldtest.New()
		digest := foldtest.Digest(fmt.Sprint("run", n))
		story.PushNumber(d, s.policy, n)
		story.Built(d.App, n, 1, digest)
		s.replay(story, 0)
		s.approve(n)
		after := uint64(len(story.Records(0)))
		story.Vetted(d.App, n, 1, digest, d.EnvironmentNames())
		begun := time.Now()
		s.replay(story, after)
		s.untilRun(n, fold.Done)
		spent += time.Since(begun)
	}
	b.ReportMetric(float64(spent.Microseconds())/float64(n)/1000, "ms/run")
}
