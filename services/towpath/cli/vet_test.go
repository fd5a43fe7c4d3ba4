package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/policy"
	"towpath.dev/services/gateway/view"
)

// line is an event as the gateway sends it.
func line(t *testing.T, body events.Body) view.EventLine {
	t.Helper()
	text, err := events.New(events.Vet, time.Now(), "3b241101-e2bb-4255-8caf-4136c566a962", body).Encode()
	if err != nil {
		t.Fatal(err)
	}
	return view.EventLine{Seq: 1, Type: body.Type(), Event: text}
}

const vetted = `hello/3  image sha256:aaaaaaaaaaaa, by policy sha256:bbbbbbbbbbbb

  dev          warn
               warn: licence-denied: package ghostscript 10 (deb) is under AGPL-3.0-or-later
  prod         fail  (compared with sha256:cccccccccccc, which ran there)
               fail: new-licence: nothing that runs there is under this licence: package ghostscript 10 (deb)
               is under AGPL-3.0-or-later

high     licence-denied
         package ghostscript 10 (deb) is under AGPL-3.0-or-later (new in prod)
           /var/lib/dpkg/status, layer sha256:dddddddddddd
         → replace the package

low      licence-unknown (2)
         package a says no licence
         package b says no licence
         → find out the licence

and 1 more, in the signed report beside the image: registry/hello@sha256:e
`

func TestVetShow(t *testing.T) {
	digest := func(of string) string { return "sha256:" + strings.Repeat(of, 64) }
	b := &events.VetRunFinished{
		About: events.About{ID: "hello/3"}, ArtifactID: "pkg:oci/hello@" + digest("a") + "?repository_url=registry/hello", Policy: digest("b"),
		Outcome: events.Success, Total: 4, Report: &events.Evidence{URI: "registry/hello@sha256:e", Digest: digest("e")},
		Verdicts: []events.EnvironmentVerdict{
			{Environment: "dev", Verdict: events.Warn, Reasons: []string{"warn: licence-denied: package ghostscript 10 (deb) is under AGPL-3.0-or-later"}},
			{Environment: "prod", Verdict: events.Fail, Against: digest("c"),
				Reasons: []string{"fail: new-licence: nothing that runs there is under this licence: package ghostscript 10 (deb) is under AGPL-3.0-or-later"}},
		},
		Findings: []events.Finding{
			{Rule: "licence-denied", Severity: "high", Message: "package ghostscript 10 (deb) is under AGPL-3.0-or-later",
				Path: "/var/lib/dpkg/status", Layer: digest("d"), NewIn: []events.Slug{"dev", "prod"}, Fix: "replace the package"},
			{Rule: "licence-unknown", Severity: "low", Message: "package a says no licence", Fix: "find out the licence"},
			{Rule: "licence-unknown", Severity: "low", Message: "package b says no\x1b[2J licence", Fix: "find out the licence"},
		},
	}
	answers := map[string]any{"GET /v1/apps/hello/runs/3": run(fold.Running), "GET /v1/events": line(t, b)}
	answering(t, answers)
	code, stdout, stderr := command(t, "vet", "show", "hello/3")
	if want := strings.Replace(vetted, "b says no licence", "b says no·[2J licence", 1); code != exitDone || stdout != want {
		t.Errorf("%d %s\n%s\nwant\n%s", code, stderr, stdout, want)
	}
	var got vetting
	code, stdout, _ = command(t, "vet", "show", "hello/3", "--json")
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitDone || got.Total != 4 || len(got.Findings) != 3 || got.Run != "hello/3" {
		t.Errorf("%d %v %+v", code, err, got)
	}
	b.Outcome = events.Error
	answers["GET /v1/events"] = line(t, b)
	if code, _, stderr := command(t, "vet", "show", "hello/3"); code != exitNotFound || !strings.Contains(stderr, "vetting has not reached one") {
		t.Errorf("no verdict: %d %s", code, stderr)
	}
}

func TestPolicyTest(t *testing.T) {
	data := elsewhere(t)
	file := filepath.Join(data, policy.FileName)
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(string(policy.DefaultText))
	if code, stdout, stderr := command(t, "policy", "test"); code != exitDone || !strings.Contains(stdout, "new-licence") || strings.Contains(stdout, "failed") {
		t.Errorf("the default: %d %s %s", code, stdout, stderr)
	}
	write("# nothing\n")
	if code, stdout, _ := command(t, "policy", "test"); code != exitDone || !strings.Contains(stdout, "as Towpath tests it") {
		t.Errorf("nothing: %d %s", code, stdout)
	}
	write(strings.Replace(string(policy.DefaultText), "environment: qa, expect: warn", "environment: qa, expect: fail", 1))
	code, stdout, stderr := command(t, "policy", "test")
	if code != exitFailed || !strings.Contains(stdout, "1 failed") || !strings.Contains(stderr, "condition new-licence gives warn in qa for this licence-denied, expected is fail") {
		t.Errorf("a wrong example: %d %s %s", code, stdout, stderr)
	}
	write(strings.Replace(string(policy.DefaultText), "&& finding.isNew\n", "&& finding.isnew\n", 1))
	code, _, stderr = command(t, "policy", "test", file)
	if code != exitFailed || !strings.Contains(stderr, "there is no field isnew; did you mean isNew?") || !strings.Contains(stderr, "policy.conditions.new-licence.when") {
		t.Errorf("a misspelt field: %d %s", code, stderr)
	}
}
