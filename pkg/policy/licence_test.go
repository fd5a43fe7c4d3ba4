package policy

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestJudgeLicences(t *testing.T) {
	house := Licences{
		Deny:   []string{"AGPL-*", "GPL-3.0-only", "LicenseRef-secret"},
		Review: []string{"GPL-2.0-only", "EPL-*"},
		Allow:  []string{"AGPL-1.0-only", "GPL-2.0-only WITH Classpath-exception-2.0", "LicenseRef-public-domain", "EPL-2.0"},
		Others: Allow,
	}
	for expression, want := range map[string]Disposition{
		"MIT":                  Allow,
		"mit":                  Allow,
		"AGPL-3.0-only":        Deny,
		"AGPL-3.0":             Deny,
		"AGPL-3.0+":            Deny,
		"agpl-3.0-or-later":    Deny,
		"AGPL-1.0-only":        Allow,
		"GPL-2.0":              Review,
		"GPL-2.0-or-later":     Allow, // nothing is said of it: an entry is about one id
		"GPL-3.0-only":         Deny,
		"EPL-1.0":              Review,
		"EPL-2.0":              Allow,
		"Apache-2.0+":          Allow,
		"MIT OR AGPL-3.0-only": Allow,
		"AGPL-3.0-only OR MIT": Allow,
		"MIT AND AGPL-3.0-only OR AGPL-1.0-or-later":              Deny,
		"(MIT AND AGPL-3.0-only) OR Apache-2.0":                   Allow,
		"MIT AND (AGPL-3.0-only OR Apache-2.0)":                   Allow,
		"MIT and (GPL-2.0 or GPL-3.0-only)":                       Review,
		"GPL-2.0-only WITH Classpath-exception-2.0":               Allow,
		"GPL-2.0-only WITH Autoconf-exception-2.0":                Review,
		"GPL-3.0-only WITH GCC-exception-3.1":                     Deny,
		"MIT WITH nonsense":                                       Unknown,
		"LicenseRef-public-domain":                                Allow,
		"LicenseRef-secret":                                       Deny,
		"LicenseRef-other":                                        Unknown,
		"DocumentRef-a:LicenseRef-other":                          Unknown,
		"Expat":                                                   Unknown,
		"NOASSERTION":                                             Unknown,
		"Expat OR MIT":                                            Allow,
		"Expat AND MIT":                                           Unknown,
		"Expat AND AGPL-3.0-only":                                 Deny,
		strings.Repeat("(", 32) + "MIT" + strings.Repeat(")", 32): Allow,
	} {
		got, err := house.Judge(expression)
		if err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", expression, got, err, want)
		}
	}
}

func TestJudgeOthers(t *testing.T) {
	strict := Licences{Allow: []string{"MIT", "Apache-2.0"}, Others: Deny}
	for expression, want := range map[string]Disposition{
		"MIT": Allow, "BSD-3-Clause": Deny, "MIT OR BSD-3-Clause": Allow, "MIT AND BSD-3-Clause": Deny, "LicenseRef-x": Unknown,
	} {
		if got, err := strict.Judge(expression); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", expression, got, err, want)
		}
	}
}

func TestJudgeRefusesWhatIsNoExpression(t *testing.T) {
	for _, text := range []string{
		"", " ", "MIT OR", "OR MIT", "MIT MIT", "(MIT", "MIT)", "()", "MIT WITH", "MIT WITH OR", "MIT, Apache-2.0", "MIT/X11",
		"see LICENSE", strings.Repeat("(", 40) + "MIT" + strings.Repeat(")", 40), strings.Repeat("A", maxExpression+1), "MIT:", ":MIT",
	} {
		if got, err := (Licences{Others: Allow}).Judge(text); !errors.Is(err, ErrExpression) || got != Unknown {
			t.Errorf("%.40q: %s, %v", text, got, err)
		}
	}
}

// TestAnotherHoldingLicenceIsNeverMilder and one more choice never stricter.
func TestAnotherHoldingLicenceIsNeverMilder(t *testing.T) {
	ids := rapid.SampledFrom([]string{"MIT", "AGPL-3.0-only", "GPL-2.0", "LicenseRef-x", "EPL-1.0"})
	expressions := rapid.Custom(func(t *rapid.T) string {
		e := ids.Draw(t, "id")
		for range rapid.IntRange(0, 5).Draw(t, "terms") {
			e = "(" + e + ") " + rapid.SampledFrom([]string{"AND", "OR"}).Draw(t, "operator") + " " + ids.Draw(t, "id")
		}
		return e
	})
	l := Licences{Deny: []string{"AGPL-*"}, Review: []string{"EPL-*"}, Others: Allow}
	rapid.Check(t, func(t *rapid.T) {
		a, b := expressions.Draw(t, "a"), expressions.Draw(t, "b")
		alone, err := l.Judge(a)
		both, err2 := l.Judge("(" + a + ") AND (" + b + ")")
		either, err3 := l.Judge("(" + a + ") OR (" + b + ")")
		if err := errors.Join(err, err2, err3); err != nil {
			t.Fatal(err)
		}
		if both.strictness() < alone.strictness() || either.strictness() > alone.strictness() {
			t.Fatalf("alone %s, with AND %s, with OR %s", alone, both, either)
		}
	})
}

func FuzzJudge(f *testing.F) {
	f.Add("MIT AND (AGPL-3.0-only OR Apache-2.0) WITH x+")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Default().Policy.Licences.Judge(text)
		if err != nil && !errors.Is(err, ErrExpression) || err != nil && got != Unknown {
			t.Fatalf("%s, %v", got, err)
		}
	})
}
