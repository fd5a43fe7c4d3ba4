package policy

import (
	"maps"

	"towpath.dev/events"
)

// Rule names what a finding is about. What a finding of it does to the verdict is the policy's to say.
type Rule string

// The rules.
const (
	// ArchiveUnread: an archive in the image is encrypted, broken, or lies too deep in others, so that not all of it was
	// looked at.
	ArchiveUnread Rule = "archive-unread"
	// BaseUnknown: the image's lowest layers are those of no trusted base. An image that holds nothing
	// but its program, with no operating system below it, stands on no base and has no such finding.
	BaseUnknown Rule = "base-unknown"
	// DockerfileAddURL: ADD fetches from a URL and says no checksum, so that nobody knows what will come.
	DockerfileAddURL Rule = "dockerfile-add-url"
	// DockerfilePipeShell: RUN hands what it fetched to a shell, unseen.
	DockerfilePipeShell Rule = "dockerfile-pipe-shell"
	// DockerfileSecret: ARG or ENV holds a secret, which everybody who has the image can read.
	DockerfileSecret Rule = "dockerfile-secret"
	// DockerfileUnpinnedBase: FROM names an image by a tag, which can be moved, and not by digest.
	DockerfileUnpinnedBase Rule = "dockerfile-unpinned-base"
	// DockerfileUnpinnedPackage: RUN installs packages without their versions.
	DockerfileUnpinnedPackage Rule = "dockerfile-unpinned-package"
	// DockerfileUnread: the Dockerfile that the image was built from could not be read as one.
	DockerfileUnread Rule = "dockerfile-unread"
	// FileUnread: a file that looks like a list of packages could not be read as one.
	FileUnread Rule = "file-unread"
	// HealthcheckMissing: neither the image nor its pipeline says how to tell that it is healthy.
	HealthcheckMissing Rule = "healthcheck-missing"
	// ImageMalformed: a layer is cut short, is no tar, is not the one that the configuration names, or
	// tries to write outside of the image.
	ImageMalformed Rule = "image-malformed"
	// ImageTooLarge: unpacked, the image is larger than the platform's limit, so that vet has not read
	// all of it.
	ImageTooLarge Rule = "image-too-large"
	// LicenceDenied: a package can be had only under a licence that the policy denies.
	LicenceDenied Rule = "licence-denied"
	// LicenceReview: a package can be had only under a licence that the policy wants a person to look at.
	LicenceReview Rule = "licence-review"
	// LicenceUnknown: nothing says a package's licence, or what it says names no licence of the SPDX list.
	LicenceUnknown Rule = "licence-unknown"
	// Malware: a file, or one in an archive, is known to be malicious.
	Malware Rule = "malware"
	// PlatformUnread: the image has variants for other platforms, which vet did not look at.
	PlatformUnread Rule = "platform-unread"
	// PortPrivileged: the image exposes a port below 1024.
	PortPrivileged Rule = "port-privileged"
	// ProvenanceMissing: no statement says how the image was made.
	ProvenanceMissing Rule = "provenance-missing"
	// ProvenanceMismatch: the statement is genuine but tells of another commit or repository than the
	// run's.
	ProvenanceMismatch Rule = "provenance-mismatch"
	// ProvenanceForged: the statement was not signed by the platform's build service, or is about another
	// image.
	ProvenanceForged Rule = "provenance-forged"
	// ScanIncomplete: the analysis of the image broke off, so that there may be more in it.
	ScanIncomplete Rule = "scan-incomplete"
	// Secret: a file in a layer, deleted later or not, or the image's environment holds what only a secret looks like: a private
	// key, an access token.
	Secret Rule = "secret"
	// SecretSuspected: the same of what looks like a secret, and may be none.
	SecretSuspected Rule = "secret-suspected"
	// SetuidProgram: whoever runs a program runs it as its owner or group, whoever they are.
	SetuidProgram Rule = "setuid-program"
	// SetuidShell: the same of a shell or an interpreter, so of everything.
	SetuidShell Rule = "setuid-shell"
	// UserRoot: the image's processes run as root unless somebody says otherwise.
	UserRoot Rule = "user-root"
)

// RuleInfo describes a rule.
type RuleInfo struct {
	Rule     Rule
	Severity string // of its findings, unless one says otherwise: low, medium, high or critical
	Class    Class
	effects  Effects
}

// Class is what kind of thing a finding is about.
type Class string

// The classes.
const (
	ClassBase       Class = "base"       // what the image stands on
	ClassDockerfile Class = "dockerfile" // how it is built
	ClassImage      Class = "image"      // its form and its configuration
	ClassLicence    Class = "licence"
	ClassMalware    Class = "malware"
	ClassProvenance Class = "provenance" // where it comes from
	ClassScan       Class = "scan"       // what vet could not look at
	ClassSecret     Class = "secret"
)

// Classes are all classes.
var Classes = []Class{ClassBase, ClassDockerfile, ClassImage, ClassLicence, ClassMalware, ClassProvenance, ClassScan, ClassSecret}

// Severities are all severities, the gravest last.
var Severities = []string{"low", "medium", "high", "critical"}

// defaults returns a copy of what the rule does where nobody said otherwise.
func (r RuleInfo) defaults() Effects { return maps.Clone(r.effects) }

// strictButEarly fails a finding everywhere but where changes are tried out.
func strictButEarly() Effects {
	return Effects{"dev": events.Warn, "qa": events.Warn, DefaultEnvironment: events.Fail}
}

func everywhere(v events.Verdict) Effects { return Effects{DefaultEnvironment: v} }

// Rules are all rules, by name, with the effects of a fresh `towpath up`: what is a lie (forged evidence,
// a broken image) fails everywhere; what is merely not known, or not as it should be, is said and does not stop
// anybody on the first day. What is new in production is a matter of conditions (see Conditions).
var Rules = []RuleInfo{
	{ArchiveUnread, "medium", ClassScan, everywhere(events.Warn)},
	{BaseUnknown, "medium", ClassBase, everywhere(events.Warn)},
	{DockerfileAddURL, "medium", ClassDockerfile, everywhere(events.Warn)},
	{DockerfilePipeShell, "high", ClassDockerfile, everywhere(events.Warn)},
	{DockerfileSecret, "high", ClassDockerfile, strictButEarly()},
	{DockerfileUnpinnedBase, "low", ClassDockerfile, everywhere(events.Warn)},
	{DockerfileUnpinnedPackage, "low", ClassDockerfile, everywhere(events.Pass)},
	{DockerfileUnread, "low", ClassScan, everywhere(events.Warn)},
	{FileUnread, "low", ClassScan, everywhere(events.Warn)},
	{HealthcheckMissing, "low", ClassImage, everywhere(events.Warn)},
	{ImageMalformed, "critical", ClassImage, everywhere(events.Fail)},
	{ImageTooLarge, "high", ClassImage, everywhere(events.Fail)},
	{LicenceDenied, "high", ClassLicence, everywhere(events.Warn)},
	{LicenceReview, "medium", ClassLicence, everywhere(events.Warn)},
	{LicenceUnknown, "low", ClassLicence, everywhere(events.Warn)},
	{Malware, "critical", ClassMalware, everywhere(events.Fail)},
	{PlatformUnread, "low", ClassScan, everywhere(events.Warn)},
	{PortPrivileged, "low", ClassImage, everywhere(events.Warn)},
	{ProvenanceForged, "critical", ClassProvenance, everywhere(events.Fail)},
	{ProvenanceMismatch, "high", ClassProvenance, strictButEarly()},
	{ProvenanceMissing, "medium", ClassProvenance, everywhere(events.Warn)},
	{ScanIncomplete, "high", ClassScan, strictButEarly()},
	{Secret, "critical", ClassSecret, everywhere(events.Fail)},
	{SecretSuspected, "medium", ClassSecret, everywhere(events.Warn)},
	{SetuidProgram, "medium", ClassImage, everywhere(events.Warn)},
	{SetuidShell, "critical", ClassImage, everywhere(events.Fail)},
	{UserRoot, "medium", ClassImage, everywhere(events.Warn)},
}

// rule returns what is known of a rule.
func rule(name Rule) (RuleInfo, bool) {
	for _, r := range Rules {
		if r.Rule == name {
			return r, true
		}
	}
	return RuleInfo{}, false
}

// Severity returns the severity of a rule's findings; critical for a rule that nobody knows.
func (r Rule) Severity() string {
	if info, ok := rule(r); ok {
		return info.Severity
	}
	return "critical"
}

// Class returns what kind of thing a rule's findings are about; empty for a rule that nobody knows.
func (r Rule) Class() Class {
	info, _ := rule(r)
	return info.Class
}
