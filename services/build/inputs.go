package build

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/pipeline"
)

// inputs is everything that decides what a build comes out as, but for what its steps fetch themselves:
// two builds with equal inputs are one.
type inputs struct {
	App        events.Slug       `json:"app"`
	Tree       string            `json:"tree"` // of the commit; it covers the Dockerfile and the submodules' commits
	Dockerfile string            `json:"dockerfile"`
	Context    string            `json:"context"`
	Target     string            `json:"target"`
	Args       map[string]string `json:"args"`
	Platform   string            `json:"platform"`
}

func inputsOf(app events.Slug, tree string, b pipeline.Build, platform string) inputs {
	return inputs{App: app, Tree: tree, Dockerfile: b.Dockerfile, Context: b.Context, Target: b.Target, Args: b.Args, Platform: platform}
}

// digest is "sha256:" and the hex of SHA-256 over the inputs' JSON, whose keys are sorted.
func (in inputs) digest() string {
	text, err := json.Marshal(in)
	if err != nil {
		panic("build: inputs are texts: " + err.Error())
	}
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// inputsTag is the tag under which the registry has the image that came of the inputs. It is a hint:
// what it names is taken only with provenance that says the same.
func inputsTag(digest string) string { return strings.Replace(digest, "sha256:", "inputs-", 1) }

// annotations describe the image, in OCI's terms, on its manifest and as labels in its configuration.
func annotations(repository, ref string, c Commit) map[string]string {
	return map[string]string{
		"org.opencontainers.image.source":   repository,
		"org.opencontainers.image.revision": c.ID,
		"org.opencontainers.image.created":  c.Time.Format(time.RFC3339),
		"org.opencontainers.image.version":  version(ref, c),
	}
}

// version is the tag that was built, or else the commit's time and the beginning of its id, which sorts.
func version(ref string, c Commit) string {
	if tag, ok := strings.CutPrefix(ref, "refs/tags/"); ok {
		return tag
	}
	return c.Time.UTC().Format("20060102150405") + "-" + c.ID[:12]
}
