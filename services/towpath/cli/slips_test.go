package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"towpath.dev/pkg/audit"
	"towpath.dev/services/gateway/view"
	"towpath.dev/services/towpath/screen"
)

// file writes a file of its own and returns its name.
func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// FORGED is said of proofs: an auditor who names the wrong file is told so.
func TestVerifyTakesNoOtherFile(t *testing.T) {
	elsewhere(t)
	keys := filepath.Join(t.TempDir(), "keys")
	if code, _, stderr := command(t, "keys", "init", "--keys", keys); code != exitDone {
		t.Fatal(stderr)
	}
	trust := filepath.Join(keys, "trust.json")
	log := file(t, "2026-01-02T03:04:05Z INFO the gateway answers\n")
	changed := file(t, `{"format":"towpath.dev/proof/v1","abo`)
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"a log":            {[]string{log}, exitUsage, "it is no proof"},
		"a changed proof":  {[]string{changed}, exitFailed, "FORGED"},
		"a log to hold to": {[]string{changed, "--checkpoint", log}, exitUsage, "reading the checkpoint " + log},
		"no file at all":   {[]string{log + "-not"}, exitNotFound, "there is no such file"},
	} {
		code, stdout, stderr := command(t, append([]string{"audit", "verify", "--keys", trust}, c.args...)...)
		if code != c.code || !strings.Contains(stdout+stderr, c.says) || strings.Contains(stdout, "FORGED") != (c.says == "FORGED") {
			t.Errorf("%s: exit code %d, want %d and %q: %s%s", name, code, c.code, c.says, stdout, stderr)
		}
	}
}

// Who rotates keys is an actor whom the gateway knows, or one who only claims to be.
func TestWhoRotates(t *testing.T) {
	p := &program{data: elsewhere(t)}
	t.Setenv("SUDO_UID", "")
	for named, want := range map[string]string{"ann": "claimed-ann", "claimed-ann": "claimed-ann", "": "claimed-uid-", "ann@example.org": "", "Ann": ""} {
		got, err := p.rotator(t.Context(), named)
		if (err == nil) != (want != "") || !strings.HasPrefix(got, want) || err != nil && exitCode(err) != exitUsage {
			t.Errorf("nobody can be asked about %q: %q, %v, want %q", named, got, err, want)
		}
	}
	answering(t, map[string]any{"GET /v1/actors": []view.Actor{{ID: "u-1", Email: "ann@example.org"}, {ID: "u-2", Erased: true}}})
	for named, want := range map[string]string{"u-1": "u-1", "Ann@example.org": "u-1", "u-2": "", "operator": "", "": "claimed-uid-"} {
		got, err := p.rotator(t.Context(), named)
		if (err == nil) != (want != "") || !strings.HasPrefix(got, want) || err != nil && exitCode(err) != exitNotFound {
			t.Errorf("the gateway is asked about %q: %q, %v, want %q", named, got, err, want)
		}
	}
}

// A backup takes the place of no file, and it is said before anybody types a passphrase.
func TestBackupOntoAFile(t *testing.T) {
	elsewhere(t)
	const text = "127.0.0.1 localhost\n"
	name := file(t, text)
	for _, args := range [][]string{{"backup", name}, {"backup", name, "--keys-in-clear"}, {"backup", name, "--overwrite"}} {
		code, _, stderr := command(t, args...)
		if code != exitFailed || !strings.Contains(stderr, "it exists") || !strings.Contains(stderr, "→ name another, or a folder") {
			t.Errorf("%v: exit code %d, %q", args, code, stderr)
		}
	}
	if got, err := os.ReadFile(name); err != nil || string(got) != text {
		t.Errorf("the file has %q, %v", got, err)
	}
}

func TestRestoreFromWhatIsNoBackup(t *testing.T) {
	elsewhere(t)
	other := file(t, strings.Repeat("x", 2048))
	for _, name := range []string{other, other + "-not"} {
		data := filepath.Join(t.TempDir(), "data")
		code, _, stderr := command(t, "restore", name, "--data", data, "--force", "--reason", "a test")
		if _, err := os.Stat(data); err == nil || code != exitNotFound || !strings.Contains(stderr, "→ give a file that towpath backup wrote") {
			t.Errorf("%s: exit code %d, %q (%v)", name, code, stderr, err)
		}
	}
}

// A ledger that is not what was sealed comes before everything else.
func TestStuckShowsTheAlarm(t *testing.T) {
	answers := map[string]any{"GET /v1/alarms": []view.Alarm{}, "GET /v1/stuck": []view.StuckStage{}, "GET /v1/messages": []view.Message{}}
	answering(t, answers)
	if _, stdout, stderr := command(t, "stuck"); stdout != "Nothing is stuck.\n" {
		t.Errorf("who may not ask about the seal is told %q %q", stdout, stderr)
	}
	answers["GET /v1/audit/checkpoint"] = map[string]any{"alarm": "leaf 7 is another"}
	if _, stdout, stderr := command(t, "stuck"); !strings.HasPrefix(stdout, "ALARM  the ledger is not what was sealed\n    leaf 7 is another\n    → towpath audit checkpoint\n") {
		t.Errorf("it begins %q %q", stdout, stderr)
	}
	const want = `[{"kind":"alarm","what":"the ledger is not what was sealed","why":"leaf 7 is another","do":"towpath audit checkpoint"}]`
	_, stdout, stderr := command(t, "stuck", "--json")
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(stdout)); err != nil || strings.TrimSpace(compact.String()) != want {
		t.Errorf("%s %s (%v)", stdout, stderr, err)
	}
}

func TestStorySaysThatThereAreNoWaivers(t *testing.T) {
	var out bytes.Buffer
	p := &program{out: screen.Screen{Out: &out}}
	p.vetting(sheet{p}, audit.Vetting{Outcome: "success"})
	if !strings.Contains(out.String(), "waivers     none: they are not supported yet") {
		t.Error(out.String())
	}
}

func TestOneIsNotMany(t *testing.T) {
	for n, want := range map[int]string{0: "0 changes", 1: "1 change", 2: "2 changes"} {
		if got := many(n, "change"); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
}
