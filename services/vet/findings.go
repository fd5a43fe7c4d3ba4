package vet

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
	"towpath.dev/services/vet/inventory"
	"towpath.dev/services/vet/layers"
)

// content is what was found out about an image, whoever built it.
type content struct {
	faults    []layers.Fault
	diffIDs   []string             // of the layers that were read
	inventory *inventory.Inventory // nil: not made
	broke     error                // why the inventory could not be made; nil: nothing broke
	others    []string             // platforms of the artifact that were not looked at
	platform  string               // the one that was

	config     *v1.Config // how it is to be run; nil: not known
	users      map[string]string
	privileged []layers.Privileged
	files      []found // by layer
	// secretNames and suspectedNames are variables of config.
	secretNames, suspectedNames []string
}

// Lengths of texts in findings, in bytes: they go into an event, of which there is a largest size.
const (
	maxWord    = 160
	maxMessage = 400
)

// newFinding returns a finding of a rule with its severity.
func newFinding(r policy.Rule, fix, format string, args ...any) events.Finding {
	return events.Finding{
		Rule: string(r), Class: string(r.Class()), Severity: r.Severity(), Message: tidy(fmt.Sprintf(format, args...), maxMessage), Fix: tidy(fix, maxMessage),
	}
}

// tidy makes what an image says fit to be shown: one line without control characters, at most so many
// bytes.
func tidy(s string, longest int) string {
	s = strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return '�'
	}, strings.ToValidUTF8(s, "�"))
	if len(s) <= longest {
		return s
	}
	return strings.ToValidUTF8(s[:longest-len("…")], "") + "…"
}

// contentFindings judges the content of an image by the policy, the gravest first.
func contentFindings(c content, p policy.Policy) []events.Finding {
	found := formFindings(c)
	if c.inventory != nil {
		for _, one := range c.inventory.Packages {
			found = append(found, licenceFindings(one, p.Licences)...)
		}
		for _, u := range c.inventory.Unread {
			f := newFinding(policy.FileUnread, "remove the file from the image if it is of no use there",
				"%s looks like a list of packages and cannot be read: %s", u.Path, u.Why)
			f.Path, f.Layer = tidy(u.Path, maxWord), u.Layer
			found = append(found, f)
		}
	}
	found = append(found, baseFindings(c, p.Bases)...)
	found = append(found, configFindings(c)...)
	base := baseOf(c.diffIDs, p.Bases)
	found = append(found, privilegedFindings(c, base)...)
	found = append(found, fileFindings(c, base)...)
	slices.SortFunc(found, policy.Worse)
	return found
}

// formFindings are about what the image is made of, not about what is in it.
func formFindings(c content) []events.Finding {
	var found []events.Finding
	for _, fault := range c.faults {
		rule, fix := policy.ImageMalformed, "build the image anew; no engine can run it as it says"
		if fault.Kind == layers.TooLarge {
			rule, fix = policy.ImageTooLarge, "leave out what the service does not need at run time, or ask the platform's operator for more (limits in the platform file)"
		}
		message := fault.What
		if fault.Path != "" {
			message = fault.Path + ": " + message
		}
		f := newFinding(rule, fix, "%s", message)
		f.Path, f.Layer = tidy(fault.Path, maxWord), fault.Layer
		found = append(found, f)
	}
	if c.broke != nil {
		found = append(found, newFinding(policy.ScanIncomplete, "replay vet; if it breaks off again, find out with `syft` what in the image it is", "what is in the image is not known: %v", c.broke))
	}
	if len(c.others) > 0 {
		found = append(found, newFinding(policy.PlatformUnread, "submit the digest of the variant that runs",
			"the image has variants that were not looked at: %s; looked at was %s", strings.Join(c.others, ", "), c.platform))
	}
	return found
}

// licenceFindings judges one package.
func licenceFindings(one inventory.Package, allowed policy.Licences) []events.Finding {
	if one.Own {
		return nil
	}
	names := []string{}
	judged := map[policy.Disposition][]string{}
	declared := slices.ContainsFunc(one.Licences, func(l inventory.Licence) bool { return !isText(l) })
	for _, l := range one.Licences {
		if isText(l) && declared {
			continue // the full text of what is declared
		}
		expression, d := disposition(l, allowed)
		judged[d] = append(judged[d], expression)
		names = append(names, expression)
	}
	about := fmt.Sprintf("package %s %s (%s)", one.Name, one.Version, one.Type)
	var found []events.Finding
	add := func(rule policy.Rule, licences []string, fix, format string, args ...any) {
		slices.Sort(licences)
		licences = slices.Compact(licences)
		f := newFinding(rule, fix, "%s "+format, append([]any{about}, args...)...)
		f.Package, f.Version, f.Licence = tidy(one.Name, maxWord), tidy(one.Version, maxWord), tidy(strings.Join(licences, " AND "), maxWord)
		f.Path, f.Layer = tidy(one.Path, maxWord), one.Layer
		found = append(found, f)
	}
	if l := judged[policy.Deny]; len(l) > 0 {
		add(policy.LicenceDenied, l, "replace the package by one under another licence, or leave it out",
			"is under %s, which the policy denies", list(l))
	}
	if l := judged[policy.Review]; len(l) > 0 {
		add(policy.LicenceReview, l, "have somebody who may decide it look at the licence",
			"is under %s, which the policy wants a person to look at", list(l))
	}
	switch l := judged[policy.Unknown]; {
	case len(names) == 0:
		add(policy.LicenceUnknown, nil, "find out the licence; the image does not say it", "says no licence")
	case len(l) > 0:
		add(policy.LicenceUnknown, l, "look at the licence, and list it in the platform file if it is acceptable",
			"is under %s, which is none of the SPDX list", list(l))
	}
	return found
}

// isText reports whether the licence is a text that syft recognised as none of the SPDX list.
func isText(l inventory.Licence) bool { return l.SPDX == "" && strings.HasPrefix(l.Name, "sha256:") }

// disposition judges one licence of a package, and returns how to call it.
func disposition(l inventory.Licence, allowed policy.Licences) (name string, d policy.Disposition) {
	if isText(l) {
		return "a text of its own", policy.Unknown
	}
	expression := l.SPDX
	if expression == "" {
		expression, _ = normalise(l.Name)
	}
	for _, text := range []string{expression, l.Name} { // the name may be a LicenseRef that the policy lists
		if d, err := allowed.Judge(text); err == nil && (d != policy.Unknown || text == l.SPDX) {
			return text, d
		}
	}
	return fmt.Sprintf("%q", tidy(l.Name, 60)), policy.Unknown
}

// list joins licences for a message: at most six of them, each once.
func list(names []string) string {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if len(names) > 6 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:6], ", "), len(names)-6)
	}
	return strings.Join(names, ", ")
}

// baseOf returns the trusted base that the image stands on: that of most layers; nil: none.
func baseOf(diffIDs []string, bases []policy.Base) *policy.Base {
	var best *policy.Base
	for i, b := range bases {
		if len(b.DiffIDs) <= len(diffIDs) && slices.Equal(b.DiffIDs, diffIDs[:len(b.DiffIDs)]) &&
			(best == nil || len(b.DiffIDs) > len(best.DiffIDs)) {
			best = &bases[i]
		}
	}
	return best
}

func baseFindings(c content, bases []policy.Base) []events.Finding {
	if baseOf(c.diffIDs, bases) != nil || c.inventory == nil || c.inventory.Bare {
		return nil // an image that could not be read has graver findings
	}
	system := c.inventory.Distribution
	if system == "" {
		system = "a system that does not say what it is"
	}
	names := []string{}
	for _, b := range bases {
		names = append(names, b.Name)
	}
	why := "the platform trusts no base yet"
	if len(names) > 0 {
		why = "trusted are " + list(names)
	}
	f := newFinding(policy.BaseUnknown, "build FROM a trusted base; the platform's operator lists them under policy.bases in the platform file",
		"the image stands on %s, which is no trusted base: %s", system, why)
	if len(c.diffIDs) > 0 {
		f.Layer = c.diffIDs[0]
	}
	return []events.Finding{f}
}
