package vet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/registry/provenance"
	"towpath.dev/pkg/registry/registryserver"
	"towpath.dev/services/vet/contents"
	"towpath.dev/services/vet/imagetest"
	"towpath.dev/services/vet/inventory"
	"towpath.dev/services/vet/layers"
)

// taker is shared: preparing one takes a second.
var taker inventory.Taker

// bench is a registry with the keys of every service.
type bench struct {
	*effects
	t          testing.TB
	keys       string
	repository registry.Repository
}

func newBench(t testing.TB) bench {
	t.Helper()
	server, err := registryserver.Start(registryserver.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(context.WithoutCancel(t.Context())) })
	keys := t.TempDir()
	if err := identity.Init(keys); err != nil {
		t.Fatal(err)
	}
	trust, err := identity.LoadTrust(keys + "/" + identity.TrustFile)
	if err != nil {
		t.Fatal(err)
	}
	repository, err := registry.ParseRepository(server.Addr() + "/hello")
	if err != nil {
		t.Fatal(err)
	}
	b := bench{t: t, keys: keys, repository: repository, effects: &effects{
		cfg: Config{Platform: "linux/amd64"}.withDefaults(), limits: layers.Limits{Bytes: 1 << 30, Files: 100_000},
		registry: registry.New(registry.Options{Attempts: 2, Pause: time.Millisecond}), trust: trust, taker: &taker, work: t.TempDir(),
		files: &files{limits: contents.Limits{Bytes: 1 << 30, Files: 100_000}},
	}}
	b.signer = b.signerOf(events.Vet)
	return b
}

func (b bench) signerOf(w events.Writer) *identity.Signer {
	b.t.Helper()
	s, err := identity.LoadSigner(b.keys, string(w))
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b bench) push(image v1.Image) registry.Artifact {
	b.t.Helper()
	digest, err := b.registry.Push(b.t.Context(), b.repository, "run-1-1", image)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.repository.At(digest)
}

// state signs provenance of a commit, as a service, and puts it beside the image.
func (b bench) state(w events.Writer, a registry.Artifact, commit string) {
	b.t.Helper()
	var p provenance.Predicate
	p.BuildDefinition.ExternalParameters.Commit = commit
	p.BuildDefinition.InternalParameters.App = "hello"
	if _, err := provenance.Attach(b.t.Context(), b.registry, b.signerOf(w), a, p); err != nil {
		b.t.Fatal(err)
	}
}

const commit = "0123456789abcdef0123456789abcdef01234567"

func jobFor(a registry.Artifact, p policy.Policy) job {
	judge, err := p.Judge()
	if err != nil {
		panic(err)
	}
	return job{
		artifact: a, policy: p, policyDigest: p.Digest(), judge: judge, environments: []place{{name: "dev"}, {name: "qa"}, {name: "prod"}},
		origin: origin{app: "hello", commit: commit},
	}
}

func (b bench) judge(j job) (verdict, string) {
	b.t.Helper()
	var log bytes.Buffer
	v, err := b.perform(b.t.Context(), j, &log)
	if err != nil {
		b.t.Fatal(err)
	}
	return v, log.String()
}

// rules are the rules of the findings, and the verdicts: "provenance-missing: warn warn warn".
func rules(r Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		b.WriteString(f.Rule + " ")
	}
	b.WriteString("|")
	for _, v := range r.Verdicts {
		b.WriteString(" " + string(v.Verdict))
	}
	return b.String()
}

func program(t testing.TB) v1.Image {
	return imagetest.Image(t, imagetest.Layer(t, imagetest.Tar(t, imagetest.File{Path: "app", Body: []byte("#!/nothing"), Mode: 0o755})))
}

func TestHonestImagePassesEverywhere(t *testing.T) {
	b := newBench(t)
	image := imagetest.Image(t, imagetest.Layer(t, imagetest.Tar(t, imagetest.File{Path: "app", Body: imagetest.GoProgram(t), Mode: 0o755})))
	a := b.push(image)
	b.state(events.Build, a, commit)
	j := jobFor(a, policy.Default().Policy)
	v, _ := b.judge(j)
	if got := rules(v.report); got != "licence-unknown | warn warn warn" { // of the module that the program depends on
		t.Error(got)
	}
	if !v.report.Bare || v.report.Packages != 3 || v.reused {
		t.Errorf("%+v", v.report)
	}
	all, err := b.registry.Referrers(t.Context(), a, "")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]int{}
	for _, r := range all {
		types[r.ArtifactType]++
	}
	if fmt.Sprint(types) != "map[application/spdx+json:1 application/vnd.in-toto+json:2]" {
		t.Errorf("beside the image are %v", types)
	}
	body, _, err := b.registry.Read(t.Context(), v.referrer, maxReport)
	if err != nil {
		t.Fatal(err)
	}
	read, _, err := ReadReport(b.trust, a, body)
	if err != nil || rules(read) != rules(v.report) {
		t.Errorf("%+v, %v", read, err)
	}
	if v.signature == "" || v.keyID == "" || v.sbom() == nil || v.sbom().Digest != v.report.Documents[0].Referrer {
		t.Errorf("%+v", v)
	}
}

func TestReportIsReused(t *testing.T) {
	b := newBench(t)
	a := b.push(program(t))
	b.state(events.Build, a, commit)
	p := policy.Default().Policy
	first, _ := b.judge(jobFor(a, p))
	second, log := b.judge(jobFor(a, p))
	if !second.reused || second.referrer.Digest != first.referrer.Digest || second.signature != first.signature || !strings.Contains(log, "looked at before") {
		t.Errorf("reused %v, %s after %s\n%s", second.reused, second.referrer.Digest, first.referrer.Digest, log)
	}
	// Another commit with the same image: its content is known, where it comes from is not.
	other := jobFor(a, p)
	other.origin.commit = strings.Repeat("f", 40)
	third, log := b.judge(other)
	if third.reused || rules(third.report) != "provenance-mismatch | warn warn fail" || !strings.Contains(log, "looked at before") {
		t.Errorf("%v %s\n%s", third.reused, rules(third.report), log)
	}
	// Another policy: judged afresh.
	p.Licences.Others = policy.Deny
	fourth, log := b.judge(jobFor(a, p))
	if fourth.reused || strings.Contains(log, "looked at before") {
		t.Errorf("reused under another policy\n%s", log)
	}
	// More environments, under the first policy.
	more := jobFor(a, policy.Default().Policy)
	more.environments = append(more.environments, place{name: "live"})
	fifth, _ := b.judge(more)
	if fifth.reused || len(fifth.report.Verdicts) != 4 {
		t.Errorf("%+v", fifth.report.Verdicts)
	}
	all, err := b.registry.Referrers(t.Context(), a, spdxType)
	if err != nil || len(all) != 1 {
		t.Errorf("%d SPDX documents of one image, %v", len(all), err)
	}
}

// What keeps something out because it is new is compared with what runs there, as the same eyes see it.
func TestFindingsAreComparedWithWhatRuns(t *testing.T) {
	b := newBench(t)
	agpl := imagetest.DebPackage{Name: "ghostscript", Version: "10", Licence: "AGPL-3+"}
	image := func(packages ...imagetest.DebPackage) registry.Artifact {
		a := b.push(imagetest.Image(t, imagetest.Layer(t, imagetest.Tar(t, imagetest.Debian(packages...)...))))
		b.state(events.Build, a, commit)
		return a
	}
	clean := image(imagetest.DebPackage{Name: "zlib1g", Version: "1", Licence: "Zlib"})
	old := image(agpl)
	agpl.Version = "11"
	changed := image(agpl, imagetest.DebPackage{Name: "mongodb", Version: "1", Licence: "SSPL-1.0"})
	gone := b.repository.At(registry.Digest("sha256:" + strings.Repeat("9", 64)))
	for _, c := range []struct {
		name     string
		artifact registry.Artifact
		prod     registry.Artifact
		want     string // verdicts of dev, where nothing runs, and prod
		newIn    string // of each finding
	}{
		{"nothing runs", old, registry.Artifact{}, "licence-denied base-unknown | warn fail", "[dev prod] [dev prod]"},
		{"the same runs", old, old, "licence-denied base-unknown | warn warn", "[dev] [dev]"},
		{"something clean runs", old, clean, "licence-denied base-unknown | warn fail", "[dev prod] [dev]"},
		{"an older version runs, and something is added", changed, old, "licence-denied licence-denied base-unknown | warn fail", "[dev] [dev prod] [dev]"},
		{"something clean follows", clean, old, "base-unknown | warn warn", "[dev]"},
		{"what runs is gone from the registry", old, gone, "licence-denied base-unknown | warn fail", "[dev prod] [dev prod]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := jobFor(c.artifact, policy.Default().Policy)
			j.environments = []place{{name: "dev"}, {name: "prod", running: c.prod, origin: j.origin}}
			for _, again := range []string{"first", "again"} {
				v, log := b.judge(j)
				var newIn []string
				for _, f := range v.report.Findings {
					newIn = append(newIn, fmt.Sprint(f.NewIn))
				}
				if rules(v.report) != c.want || strings.Join(newIn, " ") != c.newIn || v.report.Verdicts[1].Against != string(c.prod.Digest) {
					t.Errorf("%s: %s new in %v\n%s", again, rules(v.report), newIn, log)
				}
			}
		})
	}
}

func TestForgedEvidence(t *testing.T) {
	scanner, err := (&files{}).version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	passing := Report{Policy: policy.Default().Policy.Digest(), Scanner: scanner, Platform: "linux/amd64", App: "hello", Commit: commit,
		Documents: []Document{{spdxType, "sha256:" + strings.Repeat("0", 64)}},
		Verdicts:  []events.EnvironmentVerdict{{Environment: "prod", Verdict: events.Pass}}}
	// put puts a report beside an image that says it is about another, or is signed by another.
	put := func(b bench, beside, about registry.Artifact, w events.Writer, r Report) {
		text, err := r.encode(about)
		if err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(b.signerOf(w).SignPayload(registry.StatementType, text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = b.registry.Attach(t.Context(), beside, registry.Document{
			ArtifactType: registry.StatementType, MediaType: registry.EnvelopeType, Annotations: passing.annotations(), Body: body,
		}); err != nil {
			t.Fatal(err)
		}
	}
	agpl := func(t *testing.T) v1.Image {
		return imagetest.Image(t, imagetest.Layer(t, imagetest.Tar(t, imagetest.Debian(imagetest.DebPackage{Name: "ghostscript", Version: "10", Licence: "AGPL-3+"})...)))
	}
	older := passing
	older.Policy = "sha256:" + strings.Repeat("1", 64)
	const want = "licence-denied base-unknown | warn warn fail"
	for name, forge := range map[string]func(b bench, a, other registry.Artifact){
		"signed by build":      func(b bench, a, _ registry.Artifact) { put(b, a, a, events.Build, passing) },
		"about another image":  func(b bench, a, other registry.Artifact) { put(b, a, other, events.Vet, passing) },
		"under another policy": func(b bench, a, _ registry.Artifact) { put(b, a, a, events.Vet, older) },
		"no envelope": func(b bench, a, _ registry.Artifact) {
			if _, err := b.registry.Attach(t.Context(), a, registry.Document{
				ArtifactType: registry.StatementType, Annotations: passing.annotations(), Body: []byte("{}")}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			a, other := b.push(agpl(t)), b.push(program(t))
			b.state(events.Build, a, commit)
			forge(b, a, other)
			if v, log := b.judge(jobFor(a, policy.Default().Policy)); rules(v.report) != want || strings.Contains(log, "looked at before") {
				t.Errorf("%s\n%s", rules(v.report), log)
			}
		})
	}
	t.Run("provenance signed by vet", func(t *testing.T) {
		b := newBench(t)
		a := b.push(program(t))
		b.state(events.Vet, a, commit)
		if v, _ := b.judge(jobFor(a, policy.Default().Policy)); rules(v.report) != "provenance-forged | fail fail fail" {
			t.Error(rules(v.report))
		}
	})
}

func TestImagesThatCannotBeRead(t *testing.T) {
	b := newBench(t)
	honest := imagetest.Layer(t, imagetest.Tar(t, imagetest.File{Path: "app", Body: []byte("x")}))
	config, err := imagetest.Image(t, honest).ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	lying := config.DeepCopy()
	lying.RootFS.DiffIDs[0].Hex = strings.Repeat("0", 64)
	liar, err := mutate.ConfigFile(imagetest.Image(t, honest), lying)
	if err != nil {
		t.Fatal(err)
	}
	a := b.push(liar)
	b.state(events.Build, a, commit)
	v, _ := b.judge(jobFor(a, policy.Default().Policy))
	if rules(v.report) != "image-malformed | fail fail fail" || len(v.report.Documents) != 0 {
		t.Errorf("%s %+v", rules(v.report), v.report)
	}
	if again, log := b.judge(jobFor(a, policy.Default().Policy)); strings.Contains(log, "looked at before") || again.referrer.Digest != v.referrer.Digest {
		t.Errorf("an image that was not read is taken as known: %s", log)
	}
	b.limits.Bytes = 100
	a = b.push(program(t))
	b.state(events.Build, a, commit)
	if v, _ := b.judge(jobFor(a, policy.Default().Policy)); rules(v.report) != "image-too-large | fail fail fail" {
		t.Error(rules(v.report))
	}
	if left, _ := os.ReadDir(b.work); len(left) != 0 {
		t.Errorf("%v is left behind", left)
	}
}

func TestImageForSeveralPlatforms(t *testing.T) {
	b := newBench(t)
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: program(t), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: program(t), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: program(t), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "unknown", Architecture: "unknown"}}})
	ref, err := name.NewTag(b.repository.String() + ":several")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index); err != nil {
		t.Fatal(err)
	}
	digest, err := b.registry.Resolve(t.Context(), b.repository, "several")
	if err != nil {
		t.Fatal(err)
	}
	a := b.repository.At(digest)
	b.state(events.Build, a, commit)
	if v, _ := b.judge(jobFor(a, policy.Default().Policy)); rules(v.report) != "platform-unread | warn warn warn" || !strings.Contains(v.report.Findings[0].Message, "linux/arm64;") {
		t.Errorf("%s %+v", rules(v.report), v.report.Findings)
	}
	b.cfg.Platform = "linux/s390x"
	if v, _ := b.judge(jobFor(a, policy.Default().Policy)); rules(v.report) != "image-malformed | fail fail fail" {
		t.Error(rules(v.report))
	}
}

func TestPerformEndsWithItsContext(t *testing.T) {
	b := newBench(t)
	a := b.push(program(t))
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := b.perform(ctx, jobFor(a, policy.Default().Policy), &bytes.Buffer{}); !errors.Is(err, why) && !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestMissingImageIsNoVerdict(t *testing.T) {
	b := newBench(t)
	a := b.repository.At(registry.Digest("sha256:" + strings.Repeat("0", 64)))
	if _, err := b.perform(t.Context(), jobFor(a, policy.Default().Policy), &bytes.Buffer{}); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// FuzzReadReport: no bytes pass for vet's report.
func FuzzReadReport(f *testing.F) {
	keys := f.TempDir()
	if err := identity.Init(keys); err != nil {
		f.Fatal(err)
	}
	trust, err := identity.LoadTrust(keys + "/" + identity.TrustFile)
	if err != nil {
		f.Fatal(err)
	}
	build, err := identity.LoadSigner(keys, string(events.Build))
	if err != nil {
		f.Fatal(err)
	}
	repository, err := registry.ParseRepository("127.0.0.1:5000/hello")
	if err != nil {
		f.Fatal(err)
	}
	a := repository.At(registry.Digest("sha256:" + strings.Repeat("0", 64)))
	text, err := Report{}.encode(a)
	if err != nil {
		f.Fatal(err)
	}
	body, err := json.Marshal(build.SignPayload(registry.StatementType, text))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, _, err := ReadReport(trust, a, body); !errors.Is(err, ErrReport) {
			t.Fatalf("accepted: %v", err)
		}
	})
}

// What keys stated that have been retired since counts only where the ledger names it: they may have been stolen.
func TestRetiredKeysVouchForNothing(t *testing.T) {
	b := newBench(t)
	a := b.push(program(t))
	b.state(events.Build, a, commit)
	j := jobFor(a, policy.Default().Policy)
	first, _ := b.judge(j)
	if rules(first.report) != "| pass pass pass" {
		t.Fatalf("before: %s", rules(first.report))
	}
	named, _, err := provenance.Find(t.Context(), b.registry, b.trust, a)
	if err != nil || len(named) != 1 {
		t.Fatalf("%d statements: %v", len(named), err)
	}
	if _, err := identity.Prepare(b.keys, identity.Change{Identities: []string{"build", "vet"}, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := identity.Switch(b.keys); err != nil {
		t.Fatal(err)
	}
	b.signer = b.signerOf(events.Vet)
	if b.trust, err = identity.LoadTrust(b.keys + "/" + identity.TrustFile); err != nil {
		t.Fatal(err)
	}
	second, log := b.judge(j)
	if strings.Contains(log, "looked at before") || second.reused {
		t.Errorf("a report of a retired key was taken for one\n%s", log)
	}
	if got := rules(second.report); !strings.HasPrefix(got, "provenance-forged") {
		t.Errorf("a retired key's statement: %s", got)
	}
	j.origin.provenance = string(named[0].Referrer.Digest)
	if third, log := b.judge(j); rules(third.report) != "| pass pass pass" || !strings.Contains(log, "looked at before") {
		t.Errorf("the statement that the ledger names: %s\n%s", rules(third.report), log)
	}
}
