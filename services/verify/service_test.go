package verify_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/engine/enginetest"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/settings"
	"towpath.dev/pkg/worker"
	"towpath.dev/services/verify"
)

const canary = "canary-9f1c2e7a"

// bench is the service on a real engine and bus, and an app whose one slot is live.
type bench struct {
	*testing.T
	engine *engine.Engine
	ledger *ledgertest.Ledger
	rt     *worker.Runtime
	app    events.Slug
	repo   string
	digest string
}

func start(t *testing.T, image enginetest.App) *bench {
	t.Helper()
	b := &bench{T: t, engine: enginetest.EnsureEngine(t), ledger: ledgertest.Start(t), app: "hello"}
	used := enginetest.RemoveImages(t, b.engine)
	b.repo, b.digest = enginetest.Push(t, enginetest.Registry(t), "hello", image)
	used(b.repo + "@" + b.digest)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	rt, err := worker.Open(ctx, worker.Options{Service: "verify", Bus: b.ledger.URL, Keys: b.ledger.Keys})
	if err != nil {
		t.Fatal(err)
	}
	b.rt = rt
	s, err := verify.New(verify.Config{}, verify.Deps{Runtime: rt})
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- s.Run(run) }()
	t.Cleanup(func() {
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		rt.Close()
	})
	return b
}

// instance starts a container as promote would, with a secret in /run/secrets.
func (b *bench) instance() events.Instance {
	b.Helper()
	labels := map[string]string{"towpath.test": b.ledger.URL}
	enginetest.RemoveAll(b.T, b.engine, labels)
	image, err := b.engine.Pull(b.Context(), b.repo, b.digest, engine.Credentials{})
	if err != nil {
		b.Fatal(err)
	}
	secrets := b.TempDir()
	if err := os.WriteFile(filepath.Join(secrets, "PASSWORD"), []byte(canary), 0o600); err != nil {
		b.Fatal(err)
	}
	name := fmt.Sprintf("towpath-verify-test-%d", time.Now().UnixNano())
	id, err := b.engine.Create(b.Context(), engine.Container{
		Name: name, Image: image.ID, Labels: labels, Port: 8080, Env: map[string]string{"GREETING": "salve"},
		Mounts: []engine.Mount{{Folder: secrets, Target: "/run/secrets"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := b.engine.Start(b.Context(), id); err != nil {
		b.Fatal(err)
	}
	state, err := b.engine.Inspect(b.Context(), id)
	if err != nil {
		b.Fatal(err)
	}
	return events.Instance{ID: name, Address: state.Addresses[8080]}
}

func (b *bench) append(as events.Writer, s events.Subject, body events.Body) {
	b.Helper()
	if _, err := b.ledger.Client(string(as)).Append(b.Context(), s, events.New(as, time.Now(), "chain", body)); err != nil {
		b.Fatal(err)
	}
}

// deploy makes the instances live for run 1 in dev, with these checks.
func (b *bench) deploy(checks string, instances ...events.Instance) {
	b.Helper()
	b.deployAs("", checks, instances...)
}

// deployAs is deploy with more in the definition.
func (b *bench) deployAs(more, checks string, instances ...events.Instance) {
	b.Helper()
	d := foldtest.Definition(more + "app: hello\nservice: {port: 8080, health: /health, healthTimeout: 3s}\nenvironments: [{name: dev, verify: [" + checks + "]}]\n")
	start := &events.ChangeMerged{Repository: events.Reference{ID: "hello"}, Run: events.RunStart{
		App: "hello", SHA: "abc", Definition: d.Canonical(), DefinitionDigest: d.Digest(), Actor: "ann",
	}}
	start.ID = "abc"
	b.append(events.Gateway, events.RunStartSubject(1, start.Type(), "hello", "", "", 0, "abc"), start)
	taken := &events.SlotTaken{Slot: 1, Run: 1, Attempt: 1, Digest: b.digest, Kind: events.KindDeploy, Environment: "dev"}
	taken.ID = "hello/dev/1"
	b.append(events.Promote, events.SlotSubject(1, taken.Type(), "hello", "dev", 1), taken)
	live := &events.SlotDecided{Slot: 1, Decision: events.Live, Environment: "dev", Instances: instances}
	live.ID = "hello/dev/1"
	b.append(events.Promote, events.SlotSubject(1, live.Type(), "hello", "dev", 1), live)
}

// result waits for the verification's end.
func (b *bench) result() *fold.Trial {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	for seq := uint64(0); ; {
		a, err := b.rt.Fold.WaitApp(ctx, "hello", seq)
		if err != nil {
			b.Fatal(err)
		}
		seq = a.Seq
		if s := a.Env("dev").Slot(1); s != nil && s.Trial != nil {
			return s.Trial
		}
	}
}

func serving(arguments ...string) enginetest.App {
	return enginetest.App{Args: append([]string{"serve"}, arguments...)}
}

func TestPasses(t *testing.T) {
	b := start(t, serving("-text", "hello world"))
	b.deploy(`{http: {path: /, status: 200, contains: hello world}}, {http: {path: /nothing, status: 200}}, {command: ["/testapp", "print", "fine"]}`, b.instance(), b.instance())
	if r := b.result(); r.Outcome != events.Success {
		t.Errorf("%s: %s", r.Outcome, r.Reason)
	}
}

func TestFails(t *testing.T) {
	for name, c := range map[string]struct {
		image  enginetest.App
		checks string
		why    string
	}{
		"status":        {serving(), `{http: {path: /, status: 418}, timeout: 1s}`, "answers 200, not 418, for 1s"},
		"content":       {serving("-text", "bye"), `{http: {path: /, status: 200, contains: hello}, timeout: 1s}`, `does not contain "hello"`},
		"command":       {serving(), `{command: ["/testapp", "print", "no luck", "3"]}`, "exits with 3"},
		"no command":    {serving(), `{command: ["/nothing"]}`, "cannot be started"},
		"slow command":  {serving(), `{command: ["/testapp", "idle"], timeout: 1s}`, "had not ended within 1s"},
		"unhealthy":     {serving("-health", "500"), ``, "GET /health"},
		"never answers": {enginetest.App{Args: []string{"idle"}}, ``, "GET /health"},
		"exited":        {serving("-die", "1ms"), ``, "does not run"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t, c.image)
			i := b.instance()
			if name == "exited" {
				enginetest.Eventually(t, 10*time.Second, "the app to exit", func() bool {
					s, err := b.engine.Inspect(t.Context(), i.ID)
					return err == nil && !s.Running()
				})
			}
			b.deploy(c.checks, i)
			r := b.result()
			if r.Outcome != events.Failure || !strings.Contains(r.Reason, c.why) || r.Trouble == nil {
				t.Errorf("%s: %q, want failure with %q", r.Outcome, r.Reason, c.why)
			}
		})
	}
}

// A check that prints a secret does not carry it into the ledger or the log.
func TestNoSecretInOutput(t *testing.T) {
	b := start(t, serving())
	b.deploy(`{command: ["/testapp", "print", "the password is `+canary+`", "1"]}`, b.instance())
	r := b.result()
	if r.Outcome != events.Failure {
		t.Fatalf("%s: %s", r.Outcome, r.Reason)
	}
	if log := strings.Join(r.Trouble.Log, "\n"); strings.Contains(log, canary) || !strings.Contains(log, "the password is") {
		t.Errorf("log of the failed check: %q", log)
	}
}

// What an app finds itself is in no file: promote, which alone may read it, takes it out. While promote does not, nothing of
// the output is shown.
func TestNoSecretThatTheAppFindsInOutput(t *testing.T) {
	b := start(t, serving())
	const found = "battery-staple-41c0"
	var asked atomic.Int32
	promote, err := b.ledger.Client("promote").Conn().QueueSubscribe(events.RedactSubject, "promote", func(m *nats.Msg) {
		var r settings.RedactRequest
		reply := settings.RedactReply{Error: "it is sealed"}
		if err := json.Unmarshal(m.Data, &r); err != nil || r.App != "hello" || r.Env != "dev" || r.Slot != 1 {
			reply.Error = fmt.Sprintf("%+v: %v", r, err)
		} else if asked.Add(1) > 1 {
			reply = settings.RedactReply{Text: []byte(settings.Redact(string(r.Text), settings.NewSecret(found)))}
		}
		data, err := json.Marshal(reply)
		if err == nil {
			err = m.Respond(data)
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer promote.Unsubscribe()
	b.deployAs("discover: true\nsecrets: [PASSWORD]\n", `{command: ["/testapp", "print", "given `+canary+`, found `+found+`", "1"]}`, b.instance())
	r := b.result()
	log := strings.Join(r.Trouble.Log, "\n")
	if strings.Contains(log, found) || strings.Contains(log, canary) || !strings.Contains(log, "given") || asked.Load() < 2 {
		t.Errorf("log of the failed check, after asking %d times: %q", asked.Load(), log)
	}
}

// Health is asked of the engine, so an instance that is gone is a failure and not an error.
func TestGone(t *testing.T) {
	b := start(t, serving())
	b.deploy("", events.Instance{ID: "towpath-verify-test-gone", Address: "127.0.0.1:1"})
	if r := b.result(); r.Outcome != events.Failure || !strings.Contains(r.Reason, "is gone") {
		t.Errorf("%s: %s", r.Outcome, r.Reason)
	}
}
