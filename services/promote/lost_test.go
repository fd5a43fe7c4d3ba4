package promote_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/engine/enginetest"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/settings"
	"towpath.dev/services/promote"
	"towpath.dev/services/promote/deploy"
)

// A replica is lost, and the secret that it was given is no longer kept. It is not made again with another, and that is
// said, with what to do; where that is done, it is over.
func TestLostReplicaWhoseSecretIsGone(t *testing.T) {
	e := enginetest.EnsureEngine(t)
	used := enginetest.RemoveImages(t, e)
	s := newStage(t)
	install := s.gateway.Fold.LedgerID()[:8]
	enginetest.RemoveAll(t, e, map[string]string{deploy.LabelInstall: install})
	s.startWith(promote.Config{LookEvery: time.Second}, promote.Deps{})
	s.process("edge", "--listen", freeAddress(t))
	d := foldtest.Definition(`
app: hello
service: {port: 8080, health: /health, replicas: 2, healthTimeout: 20s}
config: [KEY]
secrets: [PASSWORD, OTHER]
environments: [{name: dev}]
`)
	s.set("dev", "a")
	secret := func(key, value string) {
		t.Helper()
		version, err := s.store.SetSecret(t.Context(), "dev", "hello", key, settings.NewSecret(value))
		if err != nil {
			t.Fatal(err)
		}
		b := &events.SecretChanged{Key: key, App: "hello", Environment: "dev", Version: version, Actor: "bob"}
		b.ID = "dev/hello/" + key
		s.write(s.gateway, events.SettingSubject(1, b.Type(), "hello", "dev", key, "", version), "", b)
	}
	secret("PASSWORD", "canary-of-the-lost")
	secret("OTHER", "kept")
	repository, digest := enginetest.Push(t, enginetest.Registry(t), "hello", enginetest.App{Args: []string{"serve"}})
	used(repository + "@" + digest)
	s.readyImage(d, 1, repository, digest)
	s.untilRun(1, fold.Done)
	first := replicas(t, e, install, "dev")
	version := s.gateway.Fold.App("hello").Env("dev").Live().Pins.Secrets["PASSWORD"]

	// Its version is gone with the key, and another is set: the one is not the other.
	if _, _, err := s.store.DeleteSecret(t.Context(), "dev", "hello", "PASSWORD"); err != nil {
		t.Fatal(err)
	}
	secret("PASSWORD", "canary-of-another")
	for _, name := range slices.Sorted(maps.Keys(first))[:1] {
		if err := e.Remove(t.Context(), first[name]); err != nil {
			t.Fatal(err)
		}
	}
	what := fmt.Sprintf("version %d of secret PASSWORD", version)
	told := func(a *fold.App) (found []fold.Drift) {
		for _, drift := range a.Env("dev").Drifts {
			if strings.Contains(drift.What, "PASSWORD") {
				found = append(found, drift)
			}
		}
		return found
	}
	a := s.until("it is said that the replica cannot be made again", func(a *fold.App) bool { return len(told(a)) > 0 })
	one := told(a)[0]
	for _, part := range []string{"no longer kept", "not made again", "towpath secret set dev hello PASSWORD", "towpath replay hello/1 promote --env dev"} {
		if one.What != what || !strings.Contains(one.Found, part) || strings.Contains(one.Found, "canary") {
			t.Errorf("%s: %s (want %q)", one.What, one.Found, part)
		}
	}
	containers, err := e.List(t.Context(), map[string]string{deploy.LabelInstall: install, deploy.LabelRole: "replica"})
	if err != nil || len(containers) != 1 {
		t.Errorf("there are %d replicas (%v), want the one that is left", len(containers), err)
	}

	story := foldtest.New()
	story.PushNumber(d, s.policy, 1)
	seq := story.Fold().Seq()
	story.Replay("hello", 1, fold.StagePromote, "dev")
	s.replay(story, seq)
	s.until("it is over", func(a *fold.App) bool {
		live := a.Env("dev").Live()
		return live.N == 2 && live.Closing == events.Verified && len(a.Env("dev").Drifts) == 0
	})
	if now := replicas(t, e, install, "dev"); len(now) != 2 {
		t.Errorf("replicas are %v", now)
	}
}
