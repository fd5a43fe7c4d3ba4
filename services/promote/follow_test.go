package promote

import (
	"fmt"
	"strings"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/settings"
)

// What waits comes first, what the embedded store keeps or nobody declares is left out, and there is an end to it.
func TestFollow(t *testing.T) {
	const most = 40
	var (
		apps    []*fold.App
		ledgers []*foldtest.Ledger
	)
	for i := range most {
		l := foldtest.New()
		d := foldtest.Definition(fmt.Sprintf("app: app-%02d\nconfig: [KEY]\nenvironments: [{name: dev}, {name: prod}]\n", i))
		if i%2 == 1 {
			d.Secrets = []string{"WORD"}
		}
		l.Policy(1, "{}")
		l.Ready(d, "")
		if i >= most-3 {
			b := &events.PipelineRunQueued{Waiting: events.Waiting{Environment: "prod", Attempt: 1, Reason: "KEY has no value"}}
			b.ID = "x"
			l.Write(events.PromoteSubject(1, b.Type(), d.App, 1, "prod", events.Key("missing"), 1), "", b)
		}
		apps, ledgers = append(apps, l.App(d.App)), append(ledgers, l)
	}
	said := func(external func(events.Slug, settings.Kind) bool) string {
		var all []string
		for _, f := range follow(apps, external) {
			all = append(all, fmt.Sprintf("%s/%s/%s/%t", f.at.App, f.at.Env, f.kind, f.waits))
		}
		return strings.Join(all, " ")
	}
	if got := said(func(events.Slug, settings.Kind) bool { return false }); got != "" {
		t.Errorf("embedded settings are followed: %s", got)
	}
	want := "app-37/prod/config/true app-37/prod/secret/true app-38/prod/config/true app-39/prod/config/true app-39/prod/secret/true"
	if got := said(func(events.Slug, settings.Kind) bool { return true }); got != want {
		t.Errorf("%s, want %s", got, want)
	}

	for i, l := range ledgers {
		about := events.About{ID: fmt.Sprintf("app-%02d/dev/1", i)}
		taken := &events.SlotTaken{About: about, Slot: 1, Run: 1, Attempt: 1, Digest: foldtest.Digest("run1"), Kind: events.KindDeploy, Environment: "dev"}
		app := events.Slug(fmt.Sprintf("app-%02d", i))
		l.Write(events.SlotSubject(1, taken.Type(), app, "dev", 1), "", taken)
		decided := &events.SlotDecided{About: about, Slot: 1, Decision: events.Live, Environment: "dev"}
		l.Write(events.SlotSubject(1, decided.Type(), app, "dev", 1), "", decided)
		apps[i] = l.App(app)
	}
	got := said(func(events.Slug, settings.Kind) bool { return true })
	if !strings.HasPrefix(got, want+" app-00/dev/config/false app-01/dev/config/false app-01/dev/secret/false") {
		t.Errorf("what runs follows what waits: %s", got)
	}
	if config, secrets := strings.Count(got, "config"), strings.Count(got, "secret"); config != mostConfig || secrets != mostSecrets {
		t.Errorf("%d places are followed in Consul, %d in Vault", config, secrets)
	}
}
