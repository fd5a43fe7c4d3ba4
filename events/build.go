package events

// Types that build writes. TaskRun events are also written by other services under their own name.
const (
	TypeBuildQueued       Type = "dev.cdevents.build.queued.0.3.0"
	TypeBuildStarted      Type = "dev.cdevents.build.started.0.3.0"
	TypeBuildFinished     Type = "dev.cdevents.build.finished.0.3.0"
	TypeArtifactPackaged  Type = "dev.cdevents.artifact.packaged.0.3.0"
	TypeArtifactPublished Type = "dev.cdevents.artifact.published.0.3.0"
	TypeArtifactSigned    Type = "dev.cdevents.artifact.signed.0.3.0"
	TypeTaskRunStarted    Type = "dev.cdevents.taskrun.started.0.3.0"
	TypeTaskRunFinished   Type = "dev.cdevents.taskrun.finished.0.3.0"
)

// Outcome is how an attempt at a stage ended, in CDEvents' words.
type Outcome string

// The outcomes. After Failure the author of the change acts, after Error an operator.
const (
	Success Outcome = "success"
	Failure Outcome = "failure"
	Cancel  Outcome = "cancel"
	Error   Outcome = "error"
)

// Trouble says what went wrong in the words that a person needs.
type Trouble struct {
	What string   `json:"what"`          // "building the image"
	On   string   `json:"on,omitempty"`  // "Dockerfile:7: RUN make"
	Why  string   `json:"why,omitempty"` // "exit code 2"
	Do   string   `json:"do,omitempty"`  // "fix and push"
	Log  []string `json:"log,omitempty"` // the last lines, at most 30, redacted
	// Tries is how often it was tried before the service gave up; 0 where once was enough to know.
	Tries int `json:"tries,omitempty"`
}

// String returns the trouble on one line.
func (t Trouble) String() string {
	s := t.What
	if t.On != "" {
		s += ": " + t.On
	}
	if t.Why != "" {
		s += ": " + t.Why
	}
	return s
}

// Result is the customData of every event that ends an attempt at a stage.
type Result struct {
	Environment Slug     `json:"environment,omitempty"`
	Attempt     int      `json:"attempt"`
	Trouble     *Trouble `json:"trouble,omitempty"` // nil on success
}

// BuildQueued is written when a build has to wait for a free builder, and only then. Its subject id
// is <app>/<run>, as for every build event.
type BuildQueued struct{ About }

// BuildStarted is written before the source is fetched.
type BuildStarted struct{ About }

// BuildFinished closes a build. It has no outcome: TaskRunFinished tells that.
type BuildFinished struct {
	About
	ArtifactID string `json:"artifactId,omitempty"`
}

// ArtifactPackaged is written when the image exists. Its subject id is the artifact's purl.
type ArtifactPackaged struct {
	About
	Change Reference `json:"change"`
}

// Artifact is an image in a registry.
type Artifact struct {
	Repository string `json:"repository"` // "127.0.0.1:7050/hello"
	Digest     string `json:"digest"`     // "sha256:…"
	// Tree is the digest of everything that the build read; the same tree is not built twice.
	Tree string `json:"tree,omitempty"`
	// ReusedFrom is the run whose artifact this is, where the tree was recognised.
	ReusedFrom int `json:"reusedFrom,omitempty"`
	// Provenance is the digest of the referrer that holds the signed provenance; empty: none.
	Provenance string `json:"provenance,omitempty"`
}

// Published is the customData of ArtifactPublished.
type Published struct {
	Artifact Artifact `json:"artifact"`
	// Run is given by the gateway alone: an image that another CI built starts a run.
	Run *RunStart `json:"run,omitempty"`
}

// ArtifactPublished is written when the registry has the image and its provenance. Its subject id is
// the artifact's purl. Vet acts on it. It is what makes a build attempt a success.
type ArtifactPublished struct {
	About
	SBOM *struct {
		URI string `json:"uri"`
	} `json:"sbom,omitempty"`
	Published Published `json:"-"`
}

// Signed is the customData of ArtifactSigned.
type Signed struct {
	Statement string `json:"statement"` // predicate type of the in-toto statement
	Referrer  string `json:"referrer"`  // digest of the referrer that holds it
	KeyID     string `json:"keyId"`
}

// ArtifactSigned is written when a signed statement about the artifact is in the registry: provenance
// by build, the verdict by vet. Its subject id is the artifact's purl.
type ArtifactSigned struct {
	About
	Signature string `json:"signature"` // base64
	Signed    Signed `json:"-"`
}

// TaskRunStarted is written when a step of a stage begins.
type TaskRunStarted struct {
	About
	TaskName    string     `json:"taskName,omitempty"`
	PipelineRun *Reference `json:"pipelineRun,omitempty"`
}

// TaskRunFinished is written when a step of a stage has ended. Written by build with task name "build"
// it ends the build attempt; with Failure or Error nothing comes after it but a replay.
type TaskRunFinished struct {
	About
	TaskName    string     `json:"taskName,omitempty"`
	PipelineRun *Reference `json:"pipelineRun,omitempty"`
	Outcome     Outcome    `json:"outcome,omitempty"`
	Errors      string     `json:"errors,omitempty"`
	Result      Result     `json:"-"`
}

func (*BuildQueued) Type() Type          { return TypeBuildQueued }
func (*BuildQueued) custom() any         { return nil }
func (*BuildStarted) Type() Type         { return TypeBuildStarted }
func (*BuildStarted) custom() any        { return nil }
func (*BuildFinished) Type() Type        { return TypeBuildFinished }
func (*BuildFinished) custom() any       { return nil }
func (*ArtifactPackaged) Type() Type     { return TypeArtifactPackaged }
func (*ArtifactPackaged) custom() any    { return nil }
func (*ArtifactPublished) Type() Type    { return TypeArtifactPublished }
func (b *ArtifactPublished) custom() any { return &b.Published }
func (*ArtifactSigned) Type() Type       { return TypeArtifactSigned }
func (b *ArtifactSigned) custom() any    { return &b.Signed }
func (*TaskRunStarted) Type() Type       { return TypeTaskRunStarted }
func (*TaskRunStarted) custom() any      { return nil }
func (*TaskRunFinished) Type() Type      { return TypeTaskRunFinished }
func (b *TaskRunFinished) custom() any   { return &b.Result }
