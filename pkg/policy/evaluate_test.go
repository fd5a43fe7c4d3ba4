package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"towpath.dev/events"
)

var environments = []events.Slug{"dev", "qa", "prod"}

func finding(r Rule, message string) events.Finding {
	return events.Finding{Rule: string(r), Severity: r.Severity(), Message: message}
}

func TestEvaluateDefaultPolicy(t *testing.T) {
	p := Default().Policy
	for _, c := range []struct {
		name     string
		findings []events.Finding
		want     string // dev, qa, prod, and an environment that nobody named
	}{
		{"nothing found", nil, "pass pass pass pass"},
		{"unknown base", []events.Finding{finding(BaseUnknown, "m")}, "warn warn warn warn"},
		{"denied licence", []events.Finding{finding(LicenceDenied, "m")}, "warn warn fail fail"},
		{"unknown licence", []events.Finding{finding(LicenceUnknown, "m")}, "warn warn warn warn"},
		{"licence to review", []events.Finding{finding(LicenceReview, "m")}, "warn warn warn warn"},
		{"no provenance", []events.Finding{finding(ProvenanceMissing, "m")}, "warn warn warn warn"},
		{"provenance of another commit", []events.Finding{finding(ProvenanceMismatch, "m")}, "warn warn fail fail"},
		{"forged provenance", []events.Finding{finding(ProvenanceForged, "m")}, "fail fail fail fail"},
		{"malformed image", []events.Finding{finding(ImageMalformed, "m")}, "fail fail fail fail"},
		{"image too large", []events.Finding{finding(ImageTooLarge, "m")}, "fail fail fail fail"},
		{"file not read", []events.Finding{finding(FileUnread, "m")}, "warn warn warn warn"},
		{"platform not read", []events.Finding{finding(PlatformUnread, "m")}, "warn warn warn warn"},
		{"not all scanned", []events.Finding{finding(ScanIncomplete, "m")}, "warn warn fail fail"},
		{"a rule that nobody knows", []events.Finding{finding("from-the-future", "m")}, "fail fail fail fail"},
		{"the worst counts", []events.Finding{finding(LicenceUnknown, "m"), finding(LicenceDenied, "m")}, "warn warn fail fail"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, v := range Evaluate(c.findings, p, append(slices.Clone(environments), "live")) {
				got = append(got, string(v.Verdict))
				if (v.Verdict == events.Pass) != (len(v.Reasons) == 0) {
					t.Errorf("%s in %s with reasons %q", v.Verdict, v.Environment, v.Reasons)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %s, want %s", strings.Join(got, " "), c.want)
			}
		})
	}
}

func TestReasonsAreForPeople(t *testing.T) {
	findings := []events.Finding{
		finding(LicenceUnknown, "nothing says the licence of package example.com/a 1.0"),
		finding(LicenceDenied, "package ghostscript 10.0 is under AGPL-3.0-or-later, which the policy denies"),
		finding(LicenceDenied, "package ghostscript 9.0 is under AGPL-3.0-or-later, which the policy denies"),
		finding(ProvenanceForged, "the provenance is signed by vet"),
	}
	got, err := json.MarshalIndent(Evaluate(findings, Default().Policy, environments), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/reasons.json", append(got, '\n'))
}

func TestReasonsAreBounded(t *testing.T) {
	var findings []events.Finding
	for i := range 100 {
		findings = append(findings, finding(Rule(fmt.Sprint("rule-", i)), "m"))
	}
	reasons := Evaluate(findings, Default().Policy, environments)[0].Reasons
	if len(reasons) != MaxReasons || reasons[MaxReasons-1] != "and 89 more rules" {
		t.Errorf("%d reasons, the last %q", len(reasons), reasons[len(reasons)-1])
	}
}

func TestPolicyTextComesBack(t *testing.T) {
	p := Default().Policy
	text := p.Text()
	golden(t, "testdata/default-policy.json", append(slices.Clone(text), '\n'))
	again, err := ParseText(text)
	if err != nil || again.Digest() != p.Digest() {
		t.Errorf("digest %s, want %s; %v", again.Digest(), p.Digest(), err)
	}
}

// TestOldPolicyTexts reads every text that was ever published by default: runs pin them for ever.
// An event that holds the text holds its very bytes, whatever characters a name has.
func TestPolicyTextSurvivesAnEvent(t *testing.T) {
	p := Default().Policy
	p.Bases = []Base{{Name: "R&D <base>", DiffIDs: []string{"sha256:" + strings.Repeat("a", 64)}}}
	event, err := json.Marshal(struct{ Text json.RawMessage }{p.Text()})
	if err != nil || !bytes.Contains(event, p.Text()) {
		t.Errorf("%s does not hold %s (%v)", event, p.Text(), err)
	}
}

func TestOldPolicyTexts(t *testing.T) {
	for _, file := range []string{"testdata/policy-0.1.json"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = []byte(strings.TrimSpace(string(text)))
		p, err := ParseText(text)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if string(p.Text()) != string(text) {
			t.Errorf("%s comes back as\n%s", file, p.Text())
		}
	}
}

func TestParseTextRefuses(t *testing.T) {
	good := string(Default().Policy.Text())
	for name, text := range map[string]string{
		"nothing":            "",
		"no object":          "[]",
		"two objects":        good + good,
		"unknown field":      strings.Replace(good, `{"bases"`, `{"waivers":[],"bases"`, 1),
		"no verdict":         strings.Replace(good, `"default":"fail"`, `"default":"ok"`, 1),
		"no default":         strings.Replace(good, `"base-unknown":{"default":"warn"}`, `"base-unknown":{"dev":"warn"}`, 1),
		"a base of nothing":  strings.Replace(good, `"bases":[]`, `"bases":[{"name":"x","diffIDs":[]}]`, 1),
		"no deadline":        strings.Replace(good, `"vet":"10m0s"`, `"vet":"0s"`, 1),
		"count below zero":   strings.Replace(good, `"count":1`, `"count":-1`, 1),
		"deadlines left out": `{"bases":[],"rules":{},"approvals":{"default":{}}}`,
	} {
		if text == good {
			t.Fatalf("%s: the text was not changed", name)
		}
		if _, err := ParseText([]byte(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

var (
	verdicts = rapid.SampledFrom([]events.Verdict{events.Pass, events.Warn, events.Fail})
	someEnvs = rapid.SampledFrom([]events.Slug{"dev", "qa", "prod", "live", DefaultEnvironment})
	someRule = rapid.Custom(func(t *rapid.T) Rule {
		if rapid.IntRange(0, 9).Draw(t, "unknown") == 0 {
			return "from-the-future"
		}
		return Rules[rapid.IntRange(0, len(Rules)-1).Draw(t, "rule")].Rule
	})
	someFindings = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) events.Finding {
		return finding(someRule.Draw(t, "rule"), rapid.StringN(0, 20, -1).Draw(t, "message"))
	}), 0, 20)
	somePolicy = rapid.Custom(func(t *rapid.T) Policy {
		p := Default().Policy
		for range rapid.IntRange(0, 10).Draw(t, "changes") {
			p.Rules[someRule.Draw(t, "rule")] = everywhere(verdicts.Draw(t, "default"))
		}
		for _, r := range Rules {
			p.Rules[r.Rule][someEnvs.Draw(t, "env")] = verdicts.Draw(t, "verdict")
		}
		p.Approvals[someEnvs.Draw(t, "env")] = Approval{
			Count: rapid.IntRange(0, 3).Draw(t, "count"), AuthorMayApprove: rapid.Bool().Draw(t, "author"),
			Approvers: rapid.SliceOfN(rapid.SampledFrom([]string{"operator", "release-manager"}), 0, 2).Draw(t, "roles"),
		}
		return p
	})
)

// noBetter reports whether no environment's verdict in b is better than in a.
func noBetter(a, b []events.EnvironmentVerdict) bool {
	for i := range a {
		if rank(b[i].Verdict) < rank(a[i].Verdict) {
			return false
		}
	}
	return true
}

func TestMoreFindingsAreNeverBetter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, some, more := somePolicy.Draw(t, "policy"), someFindings.Draw(t, "some"), someFindings.Draw(t, "more")
		before := Evaluate(some, p, environments)
		after := Evaluate(append(slices.Clone(some), more...), p, environments)
		if !noBetter(before, after) {
			t.Fatalf("%+v became %+v", before, after)
		}
	})
}

func TestStricterPolicyIsNeverBetter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, findings := somePolicy.Draw(t, "policy"), someFindings.Draw(t, "findings")
		before := Evaluate(findings, p, environments)
		r, env := someRule.Draw(t, "rule"), someEnvs.Draw(t, "env")
		if p.Rules[r] == nil {
			return // a rule without a row fails already, or does its default
		}
		if v := verdicts.Draw(t, "stricter"); rank(v) > rank(p.Rules[r].in(env)) {
			p.Rules[r][env] = v
		}
		if after := Evaluate(findings, p, environments); !noBetter(before, after) {
			t.Fatalf("%+v became %+v", before, after)
		}
	})
}

func TestOrderOfFindingsMeansNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, findings := somePolicy.Draw(t, "policy"), someFindings.Draw(t, "findings")
		a, b := Evaluate(findings, p, environments), Evaluate(rapid.Permutation(findings).Draw(t, "order"), p, environments)
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("%+v\n%+v", a, b)
		}
	})
}

// TestRepositoryOnlyTightens: whatever a pipeline asks for, who was refused stays refused and no fewer
// people are needed.
func TestRepositoryOnlyTightens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, env := somePolicy.Draw(t, "policy"), someEnvs.Draw(t, "env")
		own := p.ApprovalRule(env, 0)
		asked := p.ApprovalRule(env, rapid.IntRange(-5, 20).Draw(t, "asked"))
		if asked.Count < own.Count {
			t.Fatalf("count %d became %d", own.Count, asked.Count)
		}
		roles := rapid.SliceOfN(rapid.SampledFrom([]string{"operator", "developer"}), 0, 2).Draw(t, "roles")
		author := rapid.Bool().Draw(t, "author")
		if own.Refuses(roles, author) != "" && asked.Refuses(roles, author) == "" {
			t.Fatalf("%v, author %v: refused by %+v and not by %+v", roles, author, own, asked)
		}
	})
}

func TestApprovalRefuses(t *testing.T) {
	for _, c := range []struct {
		rule   Approval
		roles  []string
		author bool
		want   string
	}{
		{Approval{}, nil, false, ""},
		{Approval{}, nil, true, "you wrote part of this change; somebody else has to approve it"},
		{Approval{AuthorMayApprove: true}, nil, true, ""},
		{Approval{Approvers: []string{"operator"}}, []string{"developer", "operator"}, false, ""},
		{Approval{Approvers: []string{"operator", "release-manager"}}, []string{"developer"}, false,
			"an approver here is operator or release-manager; you have the roles: developer"},
		{Approval{Approvers: []string{"operator"}}, nil, false, "an approver here is operator; you have the roles: none"},
	} {
		if got := c.rule.Refuses(c.roles, c.author); got != c.want {
			t.Errorf("%+v %v %v: %q, want %q", c.rule, c.roles, c.author, got, c.want)
		}
	}
}
