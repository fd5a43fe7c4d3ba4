package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/github/go-spdx/v2/spdxexp"
	"github.com/github/go-spdx/v2/spdxexp/spdxlicenses"

	"towpath.dev/pkg/strictyaml"
)

// Licences says which licences may be shipped. An entry is an SPDX licence id, an id WITH an SPDX
// exception, a LicenseRef, or the beginning of ids followed by '*' ("AGPL-*"). The entry that says most
// about a licence counts: with its exception, then the id, then the longest beginning; of equals, the
// strictest.
type Licences struct {
	Deny   []string    `json:"deny"`
	Review []string    `json:"review"` // a person has to look at it
	Allow  []string    `json:"allow"`
	Others Disposition `json:"others"` // of ids of the SPDX list that no entry is about
}

// Disposition is what is to happen with a licence.
type Disposition string

// The dispositions. Unknown is that of what no entry is about and the SPDX list does not have.
const (
	Allow   Disposition = "allow"
	Unknown Disposition = "unknown"
	Review  Disposition = "review"
	Deny    Disposition = "deny"
)

// strictness orders dispositions: of licences that hold together the strictest counts, of those that one
// may choose between the mildest.
func (d Disposition) strictness() int {
	switch d {
	case Allow:
		return 0
	case Unknown:
		return 1
	case Review:
		return 2
	}
	return 3
}

func stricter(a, b Disposition) Disposition {
	if b.strictness() > a.strictness() {
		return b
	}
	return a
}

func milder(a, b Disposition) Disposition {
	if b.strictness() < a.strictness() {
		return b
	}
	return a
}

// ErrExpression is wrapped for a text that is no SPDX licence expression.
var ErrExpression = errors.New("not an SPDX licence expression")

// maxExpression bounds an expression, in bytes. The longest seen in Debian has 2 KiB.
const maxExpression = 16 << 10

// Judge returns what is to happen with a package under an SPDX licence expression (SPDX 2.3, annex D).
// Ids need not be on the SPDX list; those that are not are Unknown unless an entry is about them. The
// error wraps ErrExpression.
func (l Licences) Judge(expression string) (Disposition, error) {
	if len(expression) > maxExpression {
		return Unknown, fmt.Errorf("%w: %d bytes long, allowed are %d", ErrExpression, len(expression), maxExpression)
	}
	e := expressionReader{tokens: tokenize(expression), judge: l.leaf}
	result, err := e.alternatives(0)
	if err == nil && len(e.tokens) > 0 {
		err = fmt.Errorf("%q is not expected there", e.tokens[0])
	}
	if err != nil {
		return Unknown, fmt.Errorf("%w: %.80q: %v", ErrExpression, expression, err)
	}
	return result, nil
}

// leaf judges one licence; exception is what follows WITH, or "".
func (l Licences) leaf(id, exception string) Disposition {
	id, known := CanonicalLicence(id)
	if exception != "" {
		if d, ok := l.lookup(id+" WITH "+exception, false); ok {
			return d
		}
		_, known2 := spdxException(exception)
		known = known && known2
	}
	if d, ok := l.lookup(id, true); ok {
		return d
	}
	if known {
		return l.Others
	}
	return Unknown
}

// lookup finds the entry that says most about name. Without patterns only equal entries count.
func (l Licences) lookup(name string, patterns bool) (Disposition, bool) {
	longest, found := -1, Allow
	for _, list := range []struct {
		entries []string
		d       Disposition
	}{{l.Deny, Deny}, {l.Review, Review}, {l.Allow, Allow}} {
		for _, entry := range list.entries {
			length := matches(entry, name)
			if length > longest && (patterns || length == exactMatch) {
				longest, found = length, list.d
			}
		}
	}
	return found, longest >= 0
}

const exactMatch = 1 << 20

// matches returns how much entry says about name: the length of the beginning that they share,
// exactMatch where they are equal, -1 where it says nothing.
func matches(entry, name string) int {
	if beginning, ok := strings.CutSuffix(entry, "*"); ok {
		if len(name) >= len(beginning) && strings.EqualFold(name[:len(beginning)], beginning) {
			return len(beginning)
		}
		return -1
	}
	if strings.EqualFold(entry, name) {
		return exactMatch
	}
	return -1
}

// gnuFamilies are the licences whose old ids, without -only or -or-later, the SPDX list deprecates.
var gnuFamilies = []string{"AGPL-", "GFDL-", "GPL-", "LGPL-"}

// CanonicalLicence returns a licence id as the SPDX list writes it, and whether the list has it. The
// deprecated GNU ids become the present ones: GPL-2.0 is GPL-2.0-only, GPL-2.0+ is GPL-2.0-or-later.
// Of other ids a '+' is dropped: the licence is at least that.
func CanonicalLicence(id string) (canonical string, known bool) {
	base, plus := strings.CutSuffix(id, "+")
	for _, family := range gnuFamilies {
		if !strings.HasPrefix(strings.ToUpper(base), family) || hasGNUSuffix(base) {
			continue
		}
		suffix := "-only"
		if plus {
			suffix = "-or-later"
		}
		if ok, listed := spdxexp.ActiveLicense(base + suffix); ok {
			return listed, true
		}
	}
	if ok, listed := spdxexp.ActiveLicense(base); ok {
		return listed, true
	}
	if ok, listed := spdxlicenses.IsDeprecatedLicense(base); ok {
		return listed, true
	}
	return base, false
}

func hasGNUSuffix(id string) bool {
	lower := strings.ToLower(id)
	return strings.HasSuffix(lower, "-only") || strings.HasSuffix(lower, "-or-later")
}

func spdxException(id string) (canonical string, known bool) {
	ok, listed := spdxlicenses.IsException(id)
	return listed, ok
}

// checkEntry says what is wrong with an entry of a licence list; "": nothing.
func checkEntry(entry string) string {
	if beginning, ok := strings.CutSuffix(entry, "*"); ok {
		for _, id := range spdxlicenses.GetLicenses() {
			if beginning != "" && matches(entry, id) >= 0 {
				return ""
			}
		}
		return "no licence of the SPDX list begins so"
	}
	id, exception, with := strings.Cut(entry, " WITH ")
	if isReference(id) {
		return ""
	}
	if _, known := CanonicalLicence(id); !known {
		return "the SPDX list has no such licence"
	}
	if with {
		if _, known := spdxException(exception); !known {
			return "the SPDX list has no such exception"
		}
	}
	return ""
}

// isReference tells LicenseRef-… and DocumentRef-…:LicenseRef-….
func isReference(id string) bool {
	document, reference, ok := strings.Cut(id, ":")
	if !ok {
		document, reference = "DocumentRef-x", id
	}
	return isIDString(strings.TrimPrefix(document, "DocumentRef-")) && strings.HasPrefix(document, "DocumentRef-") &&
		strings.HasPrefix(reference, "LicenseRef-") && isIDString(strings.TrimPrefix(reference, "LicenseRef-"))
}

// canonicalEntry writes an entry that checkEntry accepts as the SPDX list writes it.
func canonicalEntry(entry string) string {
	if strings.HasSuffix(entry, "*") {
		return entry
	}
	id, exception, with := strings.Cut(entry, " WITH ")
	id, _ = CanonicalLicence(id)
	if !with {
		return id
	}
	exception, _ = spdxException(exception)
	return id + " WITH " + exception
}

// nearLicence is a hint that names the SPDX id which a mistyped one most likely meant.
func nearLicence(entry string) string {
	for _, id := range spdxlicenses.GetLicenses() {
		if len(entry) > 2 && len(id) > len(entry) && strings.EqualFold(id[:len(entry)], entry) {
			return "did you mean " + id + "?"
		}
	}
	return strictyaml.DidYouMean(strings.TrimSuffix(entry, "*"), spdxlicenses.GetLicenses())
}
