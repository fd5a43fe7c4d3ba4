package events

import "slices"

// Types that vet writes, besides ArtifactSigned.
const (
	TypeVetRunStarted  Type = "dev.cdeventsx.towpath-vetrun.started.0.1.0"
	TypeVetRunFinished Type = "dev.cdeventsx.towpath-vetrun.finished.0.1.0"
)

// Verdict is what vetting says of an artifact in one environment.
type Verdict string

// The verdicts. Fail keeps the artifact out of the environment.
const (
	Pass Verdict = "pass"
	Warn Verdict = "warn"
	Fail Verdict = "fail"
)

// EnvironmentVerdict is the verdict for one environment.
type EnvironmentVerdict struct {
	Environment Slug     `json:"environment"`
	Verdict     Verdict  `json:"verdict"`
	Reasons     []string `json:"reasons,omitempty"` // for people; empty on pass
	// Against is the digest of the artifact that ran there then, with which findings were compared; empty: none.
	Against string `json:"against,omitempty"`
}

// Same reports whether two verdicts say the same, so that who let an artifact in under one did under the other.
func (v EnvironmentVerdict) Same(other EnvironmentVerdict) bool {
	return v.Verdict == other.Verdict && slices.Equal(v.Reasons, other.Reasons)
}

// Finding is one thing that vetting found.
type Finding struct {
	Rule     string `json:"rule"`            // "licence-denied", "base-unknown", "provenance-missing"
	Class    string `json:"class,omitempty"` // what kind of thing it is about: "licence", "image"
	Severity string `json:"severity"`        // low, medium, high, critical
	Message  string `json:"message"`
	Package  string `json:"package,omitempty"`
	Version  string `json:"version,omitempty"`
	Licence  string `json:"licence,omitempty"` // SPDX expression
	Subject  string `json:"subject,omitempty"` // what it is about where that is no package: a variable, a port
	Path     string `json:"path,omitempty"`
	Line     int    `json:"line,omitempty"`  // in the file; 0: none
	Layer    string `json:"layer,omitempty"` // DiffID
	NewIn    []Slug `json:"newIn,omitempty"` // environments where what runs does not have it
	Fix      string `json:"fix,omitempty"`
}

// VetRunStarted is written before the image is read. Its subject id is <app>/<run>.
type VetRunStarted struct {
	About
	ArtifactID string `json:"artifactId"`
	Policy     string `json:"policy"` // digest
}

// VetRunFinished ends an attempt at vetting. Outcome success means that a verdict was reached, which may
// well be fail; error that none could be. Promote acts on it.
type VetRunFinished struct {
	About
	ArtifactID string               `json:"artifactId"`
	Policy     string               `json:"policy"` // digest
	Outcome    Outcome              `json:"outcome"`
	Verdicts   []EnvironmentVerdict `json:"verdicts"`
	Findings   []Finding            `json:"findings,omitempty"` // at most 50, the gravest first
	Total      int                  `json:"total"`              // findings in the report
	Report     *Evidence            `json:"report,omitempty"`
	SBOM       *Evidence            `json:"sbom,omitempty"`
	Result     Result               `json:"-"`
}

// For returns the verdict for an environment; false where there is none.
func (b *VetRunFinished) For(env Slug) (EnvironmentVerdict, bool) {
	for _, v := range b.Verdicts {
		if v.Environment == env {
			return v, true
		}
	}
	return EnvironmentVerdict{}, false
}

// Evidence is a document in the registry that refers to the artifact.
type Evidence struct {
	URI    string `json:"uri"`
	Digest string `json:"digest"`
}

func (*VetRunStarted) Type() Type     { return TypeVetRunStarted }
func (*VetRunStarted) custom() any    { return nil }
func (*VetRunFinished) Type() Type    { return TypeVetRunFinished }
func (b *VetRunFinished) custom() any { return &b.Result }
