package vet

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/registry/provenance"
	"towpath.dev/services/vet/inventory"
	"towpath.dev/services/vet/layers"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
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

func TestNormalise(t *testing.T) {
	for name, want := range map[string]string{
		"MIT": "MIT", "mit": "MIT", "Expat": "MIT", "MIT/X11": "MIT", "X11": "X11",
		"GPL-2": "GPL-2.0-only", "GPL-2+": "GPL-2.0-or-later", "GPL-2.0+": "GPL-2.0-or-later", "GPL-3": "GPL-3.0-only", "GPLv2": "GPL-2.0-only", "GPLv3+": "GPL-3.0-or-later",
		"GPL": "GPL-1.0-or-later", "LGPL": "LGPL-2.0-or-later", "LGPL-2.1+": "LGPL-2.1-or-later", "LGPL-3": "LGPL-3.0-only", "AGPL-3+": "AGPL-3.0-or-later", "AGPL": "AGPL-3.0-only",
		"GPL-3+-WITH-BISON-EXCEPTION": "GPL-3.0-or-later", "GPL-2+ with Autoconf exception": "GPL-2.0-or-later",
		"GFDL-1.3": "GFDL-1.3-only", "GFDL-NIV-1.3+": "GFDL-1.3-no-invariants-or-later", "GFDL-1.3+-no-invariant": "GFDL-1.3-no-invariants-or-later",
		"BSD-3-clause": "BSD-3-Clause", "BSD-3-clause-Cambridge": "BSD-3-Clause", "BSD-2-clause-fjord": "BSD-2-Clause",
		"Apache 2.0": "Apache-2.0", "Apache License, Version 2.0": "Apache-2.0", "Artistic": "Artistic-1.0-Perl", "zlib": "Zlib",
		"public-domain": publicDomain, "public-domain-md5": publicDomain, "PD": publicDomain, "REGCOMP,": "",
		"": "", "NONE": "", "NOASSERTION": "", "permissive": "", "BSLA": "", "same-as-rest-of-p11kit": "", "GPL-9": "", "See LICENSE file": "",
	} {
		got, ok := normalise(name)
		if got != want && (want != "" || ok) || ok != (want != "") {
			t.Errorf("%q: %q, %v; want %q", name, got, ok, want)
		}
	}
}

// TestAliasesAreOfTheList: an alias that is not SPDX would make every package that uses it unknown.
func TestAliasesAreOfTheList(t *testing.T) {
	l := policy.Licences{Allow: []string{publicDomain}, Others: policy.Allow}
	for alias, expression := range aliases {
		if d, err := l.Judge(expression); err != nil || d != policy.Allow {
			t.Errorf("%s: %s is %s, %v", alias, expression, d, err)
		}
		if strings.ToLower(alias) != alias {
			t.Errorf("%s is not lower case", alias)
		}
	}
}

func one(name string, licences ...string) inventory.Package {
	p := inventory.Package{Name: name, Version: "1.0", Type: "deb", Path: "/var/lib/dpkg/status", Layer: "sha256:aa"}
	for _, l := range licences {
		p.Licences = append(p.Licences, inventory.Licence{Name: l})
	}
	return p
}

// completed judges findings for environments where nothing runs.
func completed(t rapid.TB, r Report, found []events.Finding, p policy.Policy) Report {
	t.Helper()
	judge, err := p.Judge()
	if err != nil {
		t.Fatal(err)
	}
	names := []events.Slug{"dev", "qa", "prod"}
	for i := range found {
		found[i].NewIn = names
	}
	return r.complete(found, judge, []policy.Environment{{Name: "dev"}, {Name: "qa"}, {Name: "prod"}}, policy.RunFacts{App: hello})
}

// TestVerdictTexts holds what people read about images of many kinds.
func TestVerdictTexts(t *testing.T) {
	own := one("example.com/app")
	own.Own, own.Type = true, "go-module"
	choice := one("choice")
	choice.Licences = []inventory.Licence{{Name: "MIT OR AGPL-3.0", SPDX: "MIT OR AGPL-3.0-only"}}
	debian := func(packages ...inventory.Package) content {
		return content{diffIDs: []string{"sha256:aa", "sha256:bb"}, platform: "linux/amd64",
			inventory: &inventory.Inventory{Distribution: "Debian GNU/Linux 12 (bookworm)", Packages: packages}}
	}
	unread := debian()
	unread.inventory.Unread = []inventory.Unread{{Path: "/app/package.json", Layer: "sha256:bb", Why: "unexpected EOF"}}
	several := content{inventory: &inventory.Inventory{Bare: true}, others: []string{"linux/arm64", "linux/s390x"}, platform: "linux/amd64"}
	strict := policy.Default().Policy
	strict.Bases = []policy.Base{{Name: "debian:bookworm", DiffIDs: []string{"sha256:cc"}}, {Name: "alpine:3", DiffIDs: []string{"sha256:dd"}}}
	strict.Licences = policy.Licences{Deny: []string{}, Review: []string{"GPL-*"}, Allow: []string{"MIT"}, Others: policy.Deny}
	trusting := policy.Default().Policy
	trusting.Bases = []policy.Base{{Name: "debian", DiffIDs: []string{"sha256:aa"}}, {Name: "debian with more", DiffIDs: []string{"sha256:aa", "sha256:bb"}}}

	cases := []struct {
		name    string
		content content
		policy  policy.Policy
	}{
		{"a program alone", content{diffIDs: []string{"sha256:aa"}, inventory: &inventory.Inventory{Bare: true, Packages: []inventory.Package{own, one("stdlib", "BSD-3-Clause")}}}, policy.Default().Policy},
		{"a Debian image", debian(one("libc6", "GPL-2+", "LGPL-2.1+", "public-domain"), one("zlib1g", "Zlib"), one("silent"), one("odd", "BSLA", "GPL-2", "permissive")), policy.Default().Policy},
		{"a denied licence", debian(one("ghostscript", "AGPL-3+", "MIT"), choice), policy.Default().Policy},
		{"a trusted base", debian(one("zlib1g", "Zlib")), trusting},
		{"a strict policy", debian(one("zlib1g", "Zlib"), one("bash", "GPL-3+"), one("ok", "MIT")), strict},
		{"a text of its own", debian(one("weird", "sha256:0123"), one("declared", "MIT", "sha256:0123")), policy.Default().Policy},
		{"a file that cannot be read", unread, policy.Default().Policy},
		{"several platforms", several, policy.Default().Policy},
		{"a broken layer", content{faults: []layers.Fault{{Kind: layers.Malformed, Layer: "sha256:aa", What: "the layer is cut short or is no archive: unexpected EOF"}}}, policy.Default().Policy},
		{"a bomb", content{faults: []layers.Fault{{Kind: layers.TooLarge, Layer: "sha256:aa", What: "unpacked, the image has more than 8192 MiB"}}}, policy.Default().Policy},
		{"a broken analysis", content{broke: errors.New("the analysis broke off: panic in task")}, policy.Default().Policy},
		{"names that would lie", debian(one("evil\x1b[2J\nname\u202e", "AGPL-3.0-only\x00")), policy.Default().Policy},
	}
	var b bytes.Buffer
	for _, c := range cases {
		base := baseOf(c.content.diffIDs, c.policy.Bases)
		r := Report{Packages: 2}
		if c.content.inventory != nil {
			r.Bare, r.Distribution, r.Packages = c.content.inventory.Bare, c.content.inventory.Distribution, len(c.content.inventory.Packages)
		}
		if base != nil {
			r.Base = base.Name
		}
		r = completed(t, r, contentFindings(c.content, c.policy), c.policy)
		b.WriteString("# " + c.name + "\n" + r.words() + "\n")
	}
	golden(t, "verdicts.txt", b.Bytes())
}

func TestOrigin(t *testing.T) {
	genuine := func(app, commit string) provenance.Signed {
		var s provenance.Signed
		s.Predicate.BuildDefinition.ExternalParameters.Commit = commit
		s.Predicate.BuildDefinition.InternalParameters.App = app
		return s
	}
	refused := []provenance.Refused{{Why: errors.New("vet signed it, not build")}}
	ours := origin{app: "hello", commit: "aaaaaaaaaaaaaaaa"}
	foreign := origin{app: "hello", elsewhere: true}
	for _, c := range []struct {
		name    string
		origin  origin
		genuine []provenance.Signed
		refused []provenance.Refused
		want    policy.Rule // "": nothing found
	}{
		{"genuine", ours, []provenance.Signed{genuine("hello", ours.commit)}, nil, ""},
		{"genuine beside a forged one", ours, []provenance.Signed{genuine("hello", ours.commit)}, refused, ""},
		{"one of several commits", ours, []provenance.Signed{genuine("hello", "bbbb"), genuine("hello", ours.commit)}, nil, ""},
		{"another commit", ours, []provenance.Signed{genuine("hello", "bbbb")}, nil, policy.ProvenanceMismatch},
		{"another app", ours, []provenance.Signed{genuine("other", ours.commit)}, nil, policy.ProvenanceMismatch},
		{"forged", ours, nil, refused, policy.ProvenanceForged},
		{"missing", ours, nil, nil, policy.ProvenanceMissing},
		{"built elsewhere", foreign, nil, nil, policy.ProvenanceMissing},
		{"built elsewhere, with another's statement", foreign, nil, refused, policy.ProvenanceMissing},
		{"built here, submitted as an image", foreign, []provenance.Signed{genuine("hello", "cccc")}, nil, ""},
	} {
		found := originFindings(c.origin, c.genuine, c.refused)
		if c.want == "" && len(found) > 0 || c.want != "" && (len(found) != 1 || found[0].Rule != string(c.want) || found[0].Severity != c.want.Severity()) {
			t.Errorf("%s: %+v, want %q", c.name, found, c.want)
		}
	}
}

func TestBaseOf(t *testing.T) {
	bases := []policy.Base{{Name: "a", DiffIDs: []string{"1"}}, {Name: "b", DiffIDs: []string{"1", "2"}}, {Name: "c", DiffIDs: []string{"2"}}}
	for diffIDs, want := range map[string]string{"1": "a", "1 2 3": "b", "1 3": "a", "3": "", "2 1": "c", "": ""} {
		got := ""
		if b := baseOf(strings.Fields(diffIDs), bases); b != nil {
			got = b.Name
		}
		if got != want {
			t.Errorf("%s: %q, want %q", diffIDs, got, want)
		}
	}
}

// TestFindingsFitAnEvent: whatever an image says, what vet says of it can be stored.
func TestFindingsFitAnEvent(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.StringN(0, 2000, 8000), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	rapid.Check(t, func(t *rapid.T) {
		c := content{diffIDs: []string{"sha256:aa"}, inventory: &inventory.Inventory{Distribution: text.Draw(t, "distribution")}}
		for range rapid.IntRange(0, 100).Draw(t, "packages") {
			p := inventory.Package{Name: text.Draw(t, "name"), Version: text.Draw(t, "version"), Type: "deb", Path: text.Draw(t, "path")}
			for range rapid.IntRange(0, 3).Draw(t, "licences") {
				p.Licences = append(p.Licences, inventory.Licence{Name: text.Draw(t, "licence")})
			}
			c.inventory.Packages = append(c.inventory.Packages, p)
		}
		p := policy.Default().Policy
		r := completed(t, Report{}, contentFindings(c, p), p)
		body, err := json.Marshal(events.VetRunFinished{Verdicts: r.Verdicts, Findings: r.inline(), Total: r.Total})
		if err != nil || len(body) > events.MaxEventSize/2 {
			t.Fatalf("%d bytes, %v", len(body), err)
		}
		for _, f := range r.Findings {
			if strings.ContainsAny(f.Message+f.Package+f.Path+f.Licence, "\n\r\x1b\x00\u202e") {
				t.Fatalf("%#v", f)
			}
		}
	})
}
