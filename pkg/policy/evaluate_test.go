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
	return events.Finding{Rule: string(r), Class: string(r.Class()), Severity: r.Severity(), Message: message}
}

// fresh judges findings for environments where nothing runs, so that all of them are new.
func fresh(t rapid.TB, findings []events.Finding, p Policy, names []events.Slug) []events.EnvironmentVerdict {
	t.Helper()
	var all []Environment
	for _, name := range names {
		all = append(all, Environment{Name: name})
	}
	findings = slices.Clone(findings)
	for i := range findings {
		findings[i].NewIn = names
	}
	return evaluate(t, findings, p, all)
}

func evaluate(t rapid.TB, findings []events.Finding, p Policy, environments []Environment) []events.EnvironmentVerdict {
	t.Helper()
	judge, err := p.Judge()
	if err != nil {
		t.Fatal(err)
	}
	return judge.Evaluate(findings, environments, RunFacts{App: "hello"})
}

// What keeps out of prod what prod does not have lets in what it has, and says so.
func TestDefaultConditions(t *testing.T) {
	p := Default().Policy
	running := []Environment{{Name: "qa", Against: "sha256:a"}, {Name: "prod", Against: "sha256:b"}}
	empty := []Environment{{Name: "qa"}, {Name: "prod"}}
	for _, c := range []struct {
		rule  Rule
		newIn []events.Slug
		where []Environment
		want  string
	}{
		{LicenceDenied, nil, running, "warn warn"},
		{LicenceDenied, []events.Slug{"qa"}, running, "warn warn"},
		{LicenceDenied, []events.Slug{"prod"}, running, "warn fail"},
		{LicenceDenied, []events.Slug{"qa", "prod"}, empty, "warn fail"},
		{BaseUnknown, []events.Slug{"prod"}, running, "warn fail"},
		{BaseUnknown, []events.Slug{"qa", "prod"}, empty, "warn warn"},
	} {
		f := finding(c.rule, "m")
		f.NewIn = c.newIn
		var got []string
		for i, v := range evaluate(t, []events.Finding{f}, p, c.where) {
			got = append(got, string(v.Verdict))
			if v.Against != c.where[i].Against {
				t.Errorf("%s: compared with %q", c.rule, v.Against)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s new in %v, %v: got %v, want %s", c.rule, c.newIn, c.where, got, c.want)
		}
	}
}

// The policy that ships as strict is a good one, and nowhere milder than the default.
func TestStrictPolicyIsStricter(t *testing.T) {
	strict, err := Load("../../deployments/platform-strict.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if failed, err := strict.Policy.Test(strict.Examples); err != nil || len(failed) > 0 || len(strict.Examples) == 0 {
		t.Errorf("of %d examples %+v fail, %v", len(strict.Examples), failed, err)
	}
	better := 0
	for _, r := range Rules {
		for _, against := range []string{"", "sha256:a"} {
			for _, newIn := range [][]events.Slug{nil, environments} {
				f := finding(r.Rule, "m")
				f.NewIn = newIn
				var where []Environment
				for _, name := range environments {
					where = append(where, Environment{Name: name, Against: against})
				}
				before := evaluate(t, []events.Finding{f}, Default().Policy, where)
				after := evaluate(t, []events.Finding{f}, strict.Policy, where)
				if !noBetter(before, after) {
					t.Errorf("%s: %+v by default, %+v by the strict policy", r.Rule, before, after)
				}
				if !noBetter(after, before) {
					better++
				}
			}
		}
	}
	if better == 0 {
		t.Error("it is nowhere stricter")
	}
}

// Who judges by a condition that has no value fails closed, and says why.
func TestConditionWithoutValueFails(t *testing.T) {
	p := Default().Policy
	p.Conditions = []Condition{{ID: "odd", When: "1 / finding.line == 1", Severity: "low", Message: "m", Effects: everywhere(events.Warn)}}
	got := fresh(t, []events.Finding{finding(FileUnread, "m")}, p, environments)[0]
	if got.Verdict != events.Fail || !strings.Contains(got.Reasons[0], "cannot be evaluated") {
		t.Errorf("%+v", got)
	}
	p.Conditions[0].When = "finding.sevrity"
	if _, err := p.Judge(); err == nil || !strings.Contains(err.Error(), "odd: 1:8: there is no field sevrity") {
		t.Errorf("%v", err)
	}
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
			for _, v := range fresh(t, c.findings, p, append(slices.Clone(environments), "live")) {
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
	got, err := json.MarshalIndent(fresh(t, findings, Default().Policy, environments), "", "  ")
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
	reasons := fresh(t, findings, Default().Policy, environments)[0].Reasons
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
	for _, file := range []string{"testdata/policy-0.1.json", "testdata/policy-0.2.json"} {
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
		"nothing":                    "",
		"no object":                  "[]",
		"two objects":                good + good,
		"unknown field":              strings.Replace(good, `{"bases"`, `{"waivers":[],"bases"`, 1),
		"no verdict":                 strings.Replace(good, `"default":"fail"`, `"default":"ok"`, 1),
		"no default":                 strings.Replace(good, `"base-unknown":{"default":"warn"}`, `"base-unknown":{"dev":"warn"}`, 1),
		"a condition without id":     strings.Replace(good, `"id":"new-base"`, `"id":""`, 1),
		"a condition of no severity": strings.Replace(good, `"severity":"high"`, `"severity":"grave"`, 1),
		"a base of nothing":          strings.Replace(good, `"bases":[]`, `"bases":[{"name":"x","diffIDs":[]}]`, 1),
		"no deadline":                strings.Replace(good, `"vet":"10m0s"`, `"vet":"0s"`, 1),
		"count below zero":           strings.Replace(good, `"count":1`, `"count":-1`, 1),
		"deadlines left out":         `{"bases":[],"rules":{},"approvals":{"default":{}}}`,
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
		if rapid.Bool().Draw(t, "condition") {
			p.Conditions = append(slices.Clone(p.Conditions), Condition{
				ID: "own", When: rapid.SampledFrom([]string{"finding.isNew", `finding.severity == "low"`, "environment.first", "1 / finding.line == 1"}).Draw(t, "when"),
				Severity: "high", Message: "m", Effects: everywhere(verdicts.Draw(t, "effect")),
			})
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
		before := fresh(t, some, p, environments)
		after := fresh(t, append(slices.Clone(some), more...), p, environments)
		if !noBetter(before, after) {
			t.Fatalf("%+v became %+v", before, after)
		}
	})
}

func TestStricterPolicyIsNeverBetter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, findings := somePolicy.Draw(t, "policy"), someFindings.Draw(t, "findings")
		before := fresh(t, findings, p, environments)
		r, env := someRule.Draw(t, "rule"), someEnvs.Draw(t, "env")
		if p.Rules[r] == nil {
			return // a rule without a row fails already, or does its default
		}
		if v := verdicts.Draw(t, "stricter"); rank(v) > rank(p.Rules[r].in(env)) {
			p.Rules[r][env] = v
		}
		if after := fresh(t, findings, p, environments); !noBetter(before, after) {
			t.Fatalf("%+v became %+v", before, after)
		}
	})
}

func TestOrderOfFindingsMeansNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, findings := somePolicy.Draw(t, "policy"), someFindings.Draw(t, "findings")
		a, b := fresh(t, findings, p, environments), fresh(t, rapid.Permutation(findings).Draw(t, "order"), p, environments)
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
