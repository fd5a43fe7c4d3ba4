package vet

import (
	"fmt"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/registry/provenance"
	"towpath.dev/services/vet/imagetest"
)

func TestRootBy(t *testing.T) {
	users := map[string]string{"app": "1000", "toor": "0", "root": "0"}
	for user, want := range map[string]string{
		"": "it names no user", ":1000": "it names no user", "root": "its user is root", "root:app": "its user is root", "0": "its user is 0", "0:1000": "its user is 0:1000",
		"00": "its user is 00", "toor": "its user toor has the id 0", "app": "", "1000": "", "nobody": "", "65532:65532": "",
	} {
		if got := rootBy(user, users); got != want {
			t.Errorf("%q: %q, want %q", user, got, want)
		}
	}
}

// stated pushes an image and states that it was built from a Dockerfile.
func (b bench) stated(image v1.Image, text string) registry.Artifact {
	b.t.Helper()
	a := b.push(image)
	var p provenance.Predicate
	d := &p.BuildDefinition
	d.ExternalParameters.Commit, d.ExternalParameters.Dockerfile, d.InternalParameters.App = commit, "deploy/Dockerfile", "hello"
	d.ResolvedDependencies = []provenance.Dependency{
		{URI: "git+https://example.com/hello"},
		{URI: provenance.BaseURI + "docker.io/library/debian:12", Digest: map[string]string{"sha256": strings.Repeat("d", 64)}},
		{URI: "git+https://example.com/hello#deploy/Dockerfile", Name: provenance.DockerfileName, Content: []byte(text)},
	}
	if _, err := provenance.Attach(b.t.Context(), b.registry, b.signerOf(events.Build), a, p); err != nil {
		b.t.Fatal(err)
	}
	return a
}

// said are the findings: rule, what it is about and where.
func said(r Report) string {
	var lines []string
	for _, f := range r.Findings {
		line := f.Rule + " " + f.Subject
		if f.Path != "" {
			line += " " + f.Path
		}
		if f.Line > 0 {
			line += fmt.Sprint(":", f.Line)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// An image that runs as root on a low port with a setuid shell in it, from a Dockerfile that hides where it comes from:
// each is found, with its line.
func TestHostileImageAndDockerfile(t *testing.T) {
	b := newBench(t)
	layer := imagetest.Layer(t, imagetest.Tar(t, imagetest.File{Path: "app", Body: []byte("x"), Mode: 0o755},
		imagetest.File{Path: "usr/bin/bash", Body: []byte("shell"), Mode: 0o4755}, imagetest.File{Path: "usr/bin/helper", Body: []byte("y"), Mode: 0o6755}))
	image := imagetest.With(t, imagetest.Image(t, layer), func(c *v1.Config) {
		c.User, c.ExposedPorts, c.Healthcheck = "root", map[string]struct{}{"80/tcp": {}, "8080/tcp": {}, "443/tcp": {}}, nil
	})
	const text = "FROM debian:12\nARG NPM_TOKEN=hunter2\nADD https://example.com/x /x\nRUN apt-get install -y git \\\n && curl https://example.com/i.sh | sh\n" +
		"EXPOSE 80 8080 443\nUSER root\n"
	a := b.stated(image, text)
	v, _ := b.judge(jobFor(a, policy.Default().Policy))
	const want = `setuid-shell  /usr/bin/bash
dockerfile-pipe-shell https://example.com/i.sh deploy/Dockerfile:5
dockerfile-secret NPM_TOKEN deploy/Dockerfile:2
base-unknown 
dockerfile-add-url https://example.com/x deploy/Dockerfile:3
setuid-program  /usr/bin/helper
user-root  deploy/Dockerfile:7
dockerfile-unpinned-base debian:12 deploy/Dockerfile:1
dockerfile-unpinned-package apt-get git deploy/Dockerfile:4
healthcheck-missing  deploy/Dockerfile:1
port-privileged 443/tcp deploy/Dockerfile:6
port-privileged 80/tcp deploy/Dockerfile:6`
	if said(v.report) != want {
		t.Errorf("got\n%s\nwant\n%s", said(v.report), want)
	}
	for _, f := range v.report.Findings {
		if f.Message == "" || f.Fix == "" && f.Rule != string(policy.LicenceUnknown) || f.Class == "" || strings.Contains(f.Message+f.Fix, "hunter2") {
			t.Errorf("%+v", f)
		}
	}
	for _, e := range v.report.Verdicts {
		if e.Verdict != events.Fail || !strings.Contains(e.Reasons[0], "setuid-shell: /usr/bin/bash is a shell") {
			t.Errorf("%+v", e)
		}
	}
	// The same again from the report that is there, and without what the run's definition makes up for.
	j := jobFor(a, policy.Default().Policy)
	if again, log := b.judge(j); said(again.report) != want || !again.reused {
		t.Errorf("again, reused %v:\n%s\n%s", again.reused, said(again.report), log)
	}
	j.origin.health = true
	if healthy, _ := b.judge(j); strings.Contains(said(healthy.report), "healthcheck") {
		t.Error(said(healthy.report))
	}
}

// What comes with a trusted base is trusted, but for a shell.
func TestSetuidProgramsOfATrustedBase(t *testing.T) {
	b := newBench(t)
	base := imagetest.Layer(t, imagetest.Tar(t, imagetest.File{Path: "usr/bin/passwd", Body: []byte("p"), Mode: 0o4755}, imagetest.File{Path: "bin/dash", Body: []byte("s"), Mode: 0o4755}))
	app := imagetest.Layer(t, imagetest.Tar(t, imagetest.File{Path: "usr/bin/own", Body: []byte("o"), Mode: 0o4755}))
	a := b.stated(imagetest.Image(t, base, app), "FROM scratch\n")
	p := policy.Default().Policy
	p.Bases = []policy.Base{{Name: "base", DiffIDs: []string{imagetest.DiffID(t, base)}}}
	v, _ := b.judge(jobFor(a, p))
	if said(v.report) != "setuid-shell  /bin/dash\nsetuid-program  /usr/bin/own" {
		t.Error(said(v.report))
	}
}

// Root is kept out of where it is not, and let in where it is.
func TestNewPrivilegeIsKeptOut(t *testing.T) {
	b := newBench(t)
	image := func(user, body string) registry.Artifact {
		layer := imagetest.Layer(t, imagetest.Tar(t, imagetest.File{Path: "app", Body: []byte(body), Mode: 0o755}))
		return b.stated(imagetest.With(t, imagetest.Image(t, layer), func(c *v1.Config) { c.User = user }), "FROM scratch\nCOPY app /\n")
	}
	root, rootToo, plain := image("", "a"), image("0", "b"), image("1000", "c")
	for _, c := range []struct {
		now, before registry.Artifact
		want        string
	}{
		{root, registry.Artifact{}, "user-root | warn"},
		{root, plain, "user-root | fail"},
		{root, rootToo, "user-root | warn"},
		{plain, root, "| pass"},
	} {
		j := jobFor(c.now, policy.Default().Policy)
		j.environments = []place{{name: "prod", running: c.before, origin: j.origin}}
		if v, _ := b.judge(j); rules(v.report) != c.want {
			t.Errorf("got %s, want %s", rules(v.report), c.want)
		}
	}
}

func TestDockerfileThatIsNone(t *testing.T) {
	b := newBench(t)
	a := b.stated(program(t), "FROM scratch\nNONSENSE\n")
	if v, _ := b.judge(jobFor(a, policy.Default().Policy)); said(v.report) != "dockerfile-unread  deploy/Dockerfile" || !strings.Contains(v.report.Findings[0].Message, "NONSENSE") {
		t.Errorf("%+v", v.report.Findings)
	}
}
