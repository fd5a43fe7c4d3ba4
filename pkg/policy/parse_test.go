package policy

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/strictyaml"
)

var update = flag.Bool("update", false, "write the golden files")

func TestDefaultTextIsTheDefault(t *testing.T) {
	p, err := Parse(FileName, DefaultText)
	if err != nil {
		t.Fatal(err)
	}
	if failed, err := p.Policy.Test(p.Examples); err != nil || len(failed) > 0 || len(p.Examples) == 0 {
		t.Errorf("of %d examples %+v fail, %v", len(p.Examples), failed, err)
	}
	p.Examples = nil
	if !reflect.DeepEqual(p, Default()) {
		t.Errorf("platform.yaml says\n%+v\nDefault is\n%+v", p, Default())
	}
	if got, want := string(p.Policy.Text()), string(Default().Policy.Text()); got != want {
		t.Errorf("policy text\n%s\nwant\n%s", got, want)
	}
}

func TestExampleIsTheDefaultText(t *testing.T) {
	example, err := os.ReadFile("../../deployments/platform.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(example, DefaultText) {
		t.Error("deployments/platform.yaml differs from pkg/policy/platform.yaml: copy the one that is right")
	}
}

func TestEveryDefaultIsInTheExample(t *testing.T) {
	for _, r := range Rules {
		if !strings.Contains(string(DefaultText), "\n    "+string(r.Rule)+": ") {
			t.Errorf("platform.yaml does not show rule %s", r.Rule)
		}
	}
}

// TestFaults compares what Parse says of each testdata/faults/*.yaml with the .txt beside it.
func TestFaults(t *testing.T) {
	files, err := filepath.Glob("testdata/faults/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(FileName, data)
			if err == nil {
				t.Fatal("no error")
			}
			if _, ok := err.(*strictyaml.Faults); !ok {
				t.Fatalf("error is a %T", err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", []byte(err.Error()+"\n"))
		})
	}
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant:\n%s", path, got, want)
	}
}

func TestParseOverDefaults(t *testing.T) {
	p, err := Parse(FileName, []byte(`
engines:
  build: {host: ssh://builder@build-1, dedicated: true}
  environments:
    prod: {host: "tcp://prod-1:2376", publish: 10.0.0.5, tls: {ca: ca.pem, cert: cert.pem, key: key.pem}}
registry: {address: registry.example.com:5000/towpath}
limits: {build: {timeout: 5m, cpus: 0.5}, push: 64MiB}
vet: {clamd: "tcp://clamd:3310", signatures: /etc/towpath/signatures}
policy:
  licences: {deny: [gpl-2.0, GPL-3.0+, "mit WITH llvm-exception"], others: review}
  rules: {base-unknown: {prod: fail, default: warn}, licence-unknown: pass}
  approvals: {prod: {count: 2, approvers: [release-manager, operator, operator]}}
  deadlines: {vet: 1m}
  skipVerify: [qa, dev, qa]
  maySkip: [qa]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Engines.Build = Engine{Host: "ssh://builder@build-1", Dedicated: true}
	want.Engines.Environments["prod"] = Engine{Host: "tcp://prod-1:2376", Publish: "10.0.0.5", TLS: TLS{"ca.pem", "cert.pem", "key.pem"}}
	want.Registry.Address = "registry.example.com:5000/towpath"
	want.Limits.Build.Timeout, want.Limits.Build.CPUs, want.Limits.Push = 5*time.Minute, 0.5, 64<<20
	want.Vet = Vet{Clamd: "tcp://clamd:3310", Signatures: "/etc/towpath/signatures"}
	want.Policy.Licences.Deny = []string{"GPL-2.0-only", "GPL-3.0-or-later", "MIT WITH LLVM-exception"}
	want.Policy.Licences.Others = Review
	want.Policy.Rules[BaseUnknown] = Effects{"prod": events.Fail, DefaultEnvironment: events.Warn}
	want.Policy.Rules[LicenceUnknown] = Effects{DefaultEnvironment: events.Pass}
	want.Policy.Approvals["prod"] = Approval{Count: 2, Approvers: []string{"operator", "release-manager"}}
	want.Policy.Deadlines.Vet = time.Minute
	want.Policy.SkipVerify = []events.Slug{"dev", "qa"}
	want.Policy.MaySkip = []events.Slug{"qa"}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("got\n%+v\nwant\n%+v", p, want)
	}
	if e := p.Engine("prod"); e.Publish != "10.0.0.5" {
		t.Errorf("prod runs on %+v", e)
	}
	if e := p.Engine("qa"); e != p.Engines.Environments[DefaultEnvironment] {
		t.Errorf("qa runs on %+v", e)
	}
	if p.Policy.Verifies("qa") || !p.Policy.Verifies("prod") {
		t.Error("skipVerify is not honoured")
	}
	if p.Policy.MaySkipVerify("prod") || !p.Policy.MaySkipVerify("qa") || Default().Policy.MaySkipVerify("qa") {
		t.Error("maySkip is not honoured")
	}
}

const ownCondition = `
policy:
  conditions:
    new-licence: off
    no-friday:
      when: finding.package == "left-pad"
      severity: low
      message: nobody needs it
      environments: fail
      examples:
        - {finding: {rule: licence-unknown, package: left-pad}, environment: dev, expect: fail}
        - {finding: {rule: licence-unknown, package: right-pad}, expect: pass}
`

func TestConditionsOverDefaults(t *testing.T) {
	p, err := Parse(FileName, []byte(ownCondition))
	if err != nil {
		t.Fatal(err)
	}
	if got := conditionIDs(p.Policy.Conditions); strings.Join(got, " ") != "new-base new-privilege no-friday" {
		t.Errorf("conditions %v", got)
	}
	if failed, err := p.Policy.Test(p.Examples); err != nil || len(failed) != 0 || len(p.Examples) != 2 {
		t.Errorf("%d examples, %+v, %v", len(p.Examples), failed, err)
	}
	p, err = Parse(FileName, []byte(strings.Replace(ownCondition, "expect: fail", "expect: warn", 1)))
	if err != nil {
		t.Fatal(err)
	}
	failed, err := p.Policy.Test(p.Examples)
	if err != nil || len(failed) != 1 || failed[0].Got != events.Fail || failed[0].Example.Line != 11 {
		t.Errorf("%+v, %v", failed, err)
	}
}

func TestBlankFileIsTheDefault(t *testing.T) {
	for _, text := range []string{"", "\n\n", "# nothing\n   # yet\n"} {
		if p, err := Parse(FileName, []byte(text)); err != nil || !reflect.DeepEqual(p, Default()) {
			t.Errorf("%q: %+v, %v", text, p, err)
		}
	}
}

func TestBuildTimeoutOnlyShrinks(t *testing.T) {
	p := Default()
	for asked, want := range map[time.Duration]time.Duration{0: 20 * time.Minute, time.Minute: time.Minute, time.Hour: 20 * time.Minute} {
		if got := p.BuildTimeout(asked); got != want {
			t.Errorf("asked %s: %s, want %s", asked, got, want)
		}
	}
	p.Policy.Deadlines.Build = 10 * time.Minute
	if got := p.BuildTimeout(0); got != 10*time.Minute {
		t.Errorf("deadline 10m: %s", got)
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.yaml")
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("polici: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	if err == nil || !strings.HasPrefix(err.Error(), path+":1: polici: unknown key; allowed: engines, limits, notify, policy, registry, settings, vet, witness; did you mean policy?") {
		t.Errorf("unknown key: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(DefaultText)
	files, _ := filepath.Glob("testdata/faults/*.yaml")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("f", data)
		if err != nil {
			faults, ok := err.(*strictyaml.Faults)
			if !ok || len(faults.List) == 0 {
				t.Fatalf("error is a %T: %v", err, err)
			}
			for _, fault := range faults.List {
				if fault.Line < 1 || fault.Problem == "" {
					t.Fatalf("fault without line or problem: %+v", fault)
				}
			}
			return
		}
		text := p.Policy.Text()
		again, err := ParseText(text)
		if err != nil || !bytes.Equal(again.Text(), text) {
			t.Fatalf("the policy's text does not come back: %v\n%s\n%s", err, text, again.Text())
		}
		if p.Engine("prod").Host == "" || p.BuildTimeout(0) <= 0 {
			t.Fatalf("incomplete platform: %+v", p)
		}
	})
}
