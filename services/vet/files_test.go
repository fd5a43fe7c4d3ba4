package vet

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"towpath.dev/events"
	"towpath.dev/pkg/policy"
	"towpath.dev/services/vet/contents"
	"towpath.dev/services/vet/contents/clamdtest"
	"towpath.dev/services/vet/imagetest"
)

// eicar is the antivirus test file, in two parts so that this file is none.
const eicar = `X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR` + `-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*`

// token has the form of a GitHub token.
const token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"

// Each hostile image is refused in every environment, for the right reason, and what is secret is not said.
func TestHostileFilesGoNowhere(t *testing.T) {
	b := newBench(t)
	layer := func(files ...imagetest.File) v1.Layer { return imagetest.Layer(t, imagetest.Tar(t, files...)) }
	app := imagetest.File{Path: "app", Body: []byte("#!/nothing"), Mode: 0o755}
	for name, c := range map[string]struct {
		image v1.Image
		rule  policy.Rule
		says  string // the finding's message
	}{
		"EICAR":                   {imagetest.Image(t, layer(app, imagetest.File{Path: "opt/x", Body: []byte(eicar)})), policy.Malware, "/opt/x is known to be malicious: Eicar-Test-Signature"},
		"a planted key":           {imagetest.Image(t, layer(app, imagetest.File{Path: "etc/app.env", Body: []byte("A=1\nT=" + token + "\n")})), policy.Secret, "/etc/app.env, line 2, holds a secret: github-pat"},
		"a key in a deleted file": {imagetest.Image(t, layer(app, imagetest.File{Path: "tmp/t", Body: []byte(token)}), layer(imagetest.File{Path: "tmp/.wh.t"})), policy.Secret, "/tmp/t, line 1, holds a secret: github-pat"},
		"a key in the environment": {imagetest.With(t, imagetest.Image(t, layer(app)), func(c *v1.Config) { c.Env = []string{"PATH=/bin", "DEPLOY=" + token} }),
			policy.Secret, "the image's environment holds a secret: DEPLOY"},
	} {
		t.Run(name, func(t *testing.T) {
			a := b.push(c.image)
			b.state(events.Build, a, commit)
			v, log := b.judge(jobFor(a, policy.Default().Policy))
			if len(v.report.Findings) != 1 || v.report.Findings[0].Rule != string(c.rule) || v.report.Findings[0].Message != c.says || v.report.Findings[0].Fix == "" {
				t.Errorf("%+v", v.report.Findings)
			}
			for _, e := range v.report.Verdicts {
				if e.Verdict != events.Fail {
					t.Errorf("%+v", e)
				}
			}
			text, err := v.report.encode(a)
			if err != nil || bytes.Contains(text, []byte(token)) || strings.Contains(log, token) {
				t.Errorf("the secret is shown (%v):\n%s\n%s", err, text, log)
			}
		})
	}
}

// Keys that a trusted base ships, such as those of its test data, came with the trust in it; malware did not.
func TestFilesOfATrustedBase(t *testing.T) {
	b := newBench(t)
	base := imagetest.Layer(t, imagetest.Tar(t, imagetest.File{Path: "usr/share/test.pem", Body: []byte(token)}))
	image := imagetest.Image(t, base, imagetest.Layer(t, imagetest.Tar(t, imagetest.File{Path: "app", Body: []byte("x")})))
	a := b.push(image)
	b.state(events.Build, a, commit)
	p := policy.Default().Policy
	p.Bases = []policy.Base{{Name: "base", DiffIDs: []string{imagetest.DiffID(t, base)}}}
	if v, _ := b.judge(jobFor(a, p)); rules(v.report) != "| pass pass pass" {
		t.Error(rules(v.report))
	}
	if v, _ := b.judge(jobFor(a, policy.Default().Policy)); rules(v.report) != "secret | fail fail fail" {
		t.Error(rules(v.report))
	}
}

// A layer that was looked into is not looked into again for another image; what looks into it says which.
func TestLayersAreLookedIntoOnce(t *testing.T) {
	b := newBench(t)
	base := imagetest.Layer(t, imagetest.Tar(t, imagetest.File{Path: "x", Body: []byte(token)}))
	for n, name := range []string{"one", "two"} {
		a := b.push(imagetest.Image(t, base, imagetest.Layer(t, imagetest.Tar(t, imagetest.File{Path: name, Body: []byte(name)}))))
		b.state(events.Build, a, commit)
		if v, _ := b.judge(jobFor(a, policy.Default().Policy)); rules(v.report) != "secret | fail fail fail" {
			t.Error(rules(v.report))
		}
		if got := len(b.files.known); got != n+2 {
			t.Errorf("%d layers are known after image %d", got, n+1)
		}
	}
}

// Without the clamd that is configured nothing is judged: there is an error, and no verdict. With it again there is one.
func TestWithoutClamdNothingPasses(t *testing.T) {
	b := newBench(t)
	daemon := clamdtest.Start(t, 0)
	b.files.platform.Clamd = daemon.Address
	bad := b.push(imagetest.Image(t, imagetest.Layer(t, imagetest.Tar(t, imagetest.File{Path: "x", Body: []byte(clamdtest.Sample)}))))
	good := b.push(program(t))
	b.state(events.Build, bad, commit)
	b.state(events.Build, good, commit)
	v, _ := b.judge(jobFor(bad, policy.Default().Policy))
	if rules(v.report) != "malware | fail fail fail" || !strings.Contains(v.report.Scanner, "ClamAV") {
		t.Errorf("%s by %s", rules(v.report), v.report.Scanner)
	}
	daemon.Kill()
	if _, err := b.perform(t.Context(), jobFor(good, policy.Default().Policy), &bytes.Buffer{}); !errors.Is(err, contents.ErrClamd) {
		t.Errorf("without clamd: %v", err)
	}
}
