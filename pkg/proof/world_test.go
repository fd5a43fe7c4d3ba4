package proof

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/registry/provenance"
	"towpath.dev/pkg/seal"
)

// world is a ledger, its seals and a registry in memory, with real keys.
type world struct {
	t       testing.TB
	keys    string
	signers map[events.Writer]*identity.Signer
	trust   *identity.Trust
	witness ed25519.PrivateKey

	stored   []ledger.Stored
	serial   int
	head     seal.Status
	registry map[string]document // by referrer
	policy   policy.Policy
	at       time.Time
	chains   map[string]string
}

const appYAML = `app: hello
service: {port: 8080, health: /health}
config: [GREETING]
environments:
  - name: dev
  - name: qa
    verify:
      - http: {path: /, status: 200}
  - name: prod
`

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{
		t: t, keys: filepath.Join(t.TempDir(), "keys"), signers: map[events.Writer]*identity.Signer{},
		registry: map[string]document{}, at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), chains: map[string]string{},
	}
	if err := identity.Init(w.keys); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.trust, err = identity.LoadTrust(filepath.Join(w.keys, identity.TrustFile)); err != nil {
		t.Fatal(err)
	}
	for _, id := range events.Writers {
		if w.signers[id], err = identity.LoadSigner(w.keys, string(id)); err != nil {
			t.Fatal(err)
		}
	}
	_, w.witness, _ = ed25519.GenerateKey(nil)
	platform := policy.Default()
	w.policy = platform.Policy
	return w
}

func (w *world) witnessKey() seal.Witness {
	return seal.Witness{Name: "witness.example", Public: w.witness.Public().(ed25519.PublicKey)}
}

// add stores an event as the writer that its subject names.
func (w *world) add(s events.Subject, chain string, body events.Body) ledger.Stored {
	w.t.Helper()
	w.at = w.at.Add(time.Second)
	encoded, err := events.New(s.Writer, w.at, chain, body).Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	m := ledger.Stored{Seq: uint64(len(w.stored) + 1), Time: w.at, Subject: s.String(), Body: encoded}
	m.Signature = w.signers[s.Writer].Sign(m.Subject, m.Body)
	w.stored = append(w.stored, m)
	return m
}

// ReadStored implements Reader.
func (w *world) ReadStored(_ context.Context, after uint64, apply func(ledger.Stored) error) (uint64, error) {
	for _, m := range w.stored[after:] {
		if err := apply(m); err != nil {
			return after, err
		}
		after = m.Seq
	}
	return after, nil
}

// ReadWhole implements Registry.
func (w *world) ReadWhole(_ context.Context, _ registry.Artifact, referrer registry.Digest, _ int64) (manifest, body []byte, err error) {
	d, ok := w.registry[string(referrer)]
	if !ok {
		return nil, nil, fmt.Errorf("no referrer %s", referrer)
	}
	return d.Manifest, d.Body, nil
}

func (w *world) attach(a registry.Artifact, body []byte) (referrer string) {
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"layers":[{"digest":%q,"size":%d}],"subject":{"digest":%q}}`, digestOf(body), len(body), a.Digest)
	w.registry[digestOf(manifest)] = document{manifest, body}
	return digestOf(manifest)
}

func (w *world) sign(writer events.Writer, statement any) []byte {
	w.t.Helper()
	payload, err := json.Marshal(statement)
	if err != nil {
		w.t.Fatal(err)
	}
	envelope, err := json.Marshal(w.signers[writer].SignPayload(registry.StatementType, payload))
	if err != nil {
		w.t.Fatal(err)
	}
	return envelope
}

func (w *world) tree() *seal.Tree {
	w.t.Helper()
	tree, err := seal.OpenTree("")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range w.stored {
		if err := tree.Append(seal.LeafOf(m)); err != nil {
			w.t.Fatal(err)
		}
	}
	return tree
}

// seal signs what is there, has it witnessed, and adds the event about it.
func (w *world) seal() {
	w.t.Helper()
	tree := w.tree()
	root, err := tree.Root(tree.Size())
	if err != nil {
		w.t.Fatal(err)
	}
	c := seal.Checkpoint{Origin: seal.Origin(w.stored[0].ID(), 1), Size: tree.Size(), Root: root}
	note := seal.Sign(w.signers[events.Ledger], c) + seal.Cosign("witness.example", w.witness, c, w.at)
	w.serial++
	w.head = seal.Status{Origin: c.Origin, Serial: w.serial, Size: c.Size, At: w.at, Checkpoint: note,
		Witnessed: &seal.WitnessedAt{Size: c.Size, Checkpoint: note}}
	body := &events.CheckpointSealed{TreeSize: c.Size, RootHash: "-", Checkpoint: note}
	body.ID = fmt.Sprintf("checkpoint/%d", w.serial)
	w.add(events.CheckpointSubject(1, w.serial), "", body)
}

func (w *world) source() Source {
	return Source{Ledger: w, Hashes: w.tree(), Status: w.head, Trust: w.trust, Registry: w}
}

func (w *world) export(wish Wish) []byte {
	w.t.Helper()
	data, err := Export(context.Background(), w.source(), wish)
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

func (w *world) terms() Terms {
	return Terms{Trust: w.trust, Witnesses: []seal.Witness{w.witnessKey()}}
}

func (w *world) publishPolicy(serial int) {
	body := &events.PolicyPublished{Digest: w.policy.Digest(), Text: w.policy.Text(), Actor: "u-admin"}
	body.ID = body.Digest
	w.add(events.PolicySubject(1, serial), "", body)
}

func (w *world) set(env events.Slug, version uint64) {
	body := &events.SettingChanged{Key: "GREETING", App: "hello", Environment: env, Version: version, Actor: "u-ops"}
	body.ID = "s"
	w.add(events.SettingSubject(1, events.TypeSettingChanged, "hello", env, "GREETING", "", version), "", body)
}

func (w *world) image(run int) registry.Artifact {
	r, err := registry.ParseRepository("127.0.0.1:7050/hello")
	if err != nil {
		w.t.Fatal(err)
	}
	digest, err := registry.ParseDigest("sha256:" + strings.Repeat(fmt.Sprintf("%x", run%16), 64))
	if err != nil {
		w.t.Fatal(err)
	}
	return r.At(digest)
}

func commitOf(run int) string { return strings.Repeat(fmt.Sprintf("%x", run%16), 40) }

// startRun appends a run's first event.
func (w *world) startRun(app events.Slug, n int) (chain string) {
	w.t.Helper()
	definition, err := pipeline.Parse(pipeline.FileName, []byte(strings.Replace(appYAML, "app: hello", "app: "+string(app), 1)))
	if err != nil {
		w.t.Fatal(err)
	}
	chain = events.NewID()
	body := &events.ChangeMerged{Repository: events.Reference{ID: string(app)}, Run: events.RunStart{
		App: app, Ref: "refs/heads/main", SHA: commitOf(n), Definition: definition.Canonical(), DefinitionDigest: definition.Digest(),
		PolicyDigest: w.policy.Digest(), Actor: "u-push", Authors: []string{"u-author"},
	}}
	body.ID = commitOf(n)
	w.add(events.RunStartSubject(1, events.TypeChangeMerged, app, "", "refs/heads/main", n-1, commitOf(n)), chain, body)
	return chain
}

// build appends what building and vetting a run of hello writes.
func (w *world) build(n int, chain string) {
	w.t.Helper()
	a, name := w.image(n), fmt.Sprintf("hello/%d", n)
	statement := provenance.Statement{
		Type: provenance.StatementType, PredicateType: provenance.PredicateType,
		Subject: []provenance.Subject{{Name: a.Repository.String(), Digest: map[string]string{"sha256": a.Digest.Hex()}}},
	}
	definition, err := pipeline.Parse(pipeline.FileName, []byte(appYAML))
	if err != nil {
		w.t.Fatal(err)
	}
	statement.Predicate.BuildDefinition.ExternalParameters = provenance.ExternalParameters{Commit: commitOf(n), DefinitionDigest: definition.Digest()}
	statement.Predicate.BuildDefinition.InternalParameters = provenance.InternalParameters{App: "hello", Run: n, Attempt: 1}
	proved := w.attach(a, w.sign(events.Build, statement))
	w.add(events.BuildSubject(1, events.TypeBuildStarted, "hello", n, "", 1), chain, &events.BuildStarted{About: events.About{ID: name}})
	published := &events.ArtifactPublished{Published: events.Published{Artifact: events.Artifact{
		Repository: a.Repository.String(), Digest: string(a.Digest), Provenance: proved,
	}}}
	published.ID = a.PURL()
	w.add(events.BuildSubject(1, events.TypeArtifactPublished, "hello", n, "", 1), chain, published)

	w.vetted(n, chain, 1, events.Warn)
}

// vetted appends a verdict on a run's image, for prod as given.
func (w *world) vetted(n int, chain string, attempt int, prod events.Verdict) {
	w.t.Helper()
	a, name := w.image(n), fmt.Sprintf("hello/%d", n)
	verdicts := []events.EnvironmentVerdict{{Environment: "dev", Verdict: events.Pass}, {Environment: "qa", Verdict: events.Pass}, {Environment: "prod", Verdict: prod}}
	sbom := w.attach(a, fmt.Appendf(nil, `{"spdxVersion":"SPDX-2.3","name":"%s, attempt %d"}`, name, attempt))
	var report reportStatement
	report.Type, report.PredicateType = provenance.StatementType, reportType
	report.Subject = []provenance.Subject{{Name: a.Repository.String(), Digest: map[string]string{"sha256": a.Digest.Hex()}}}
	report.Predicate.Policy, report.Predicate.App, report.Predicate.Verdicts = w.policy.Digest(), "hello", verdicts
	report.Predicate.Documents = append(report.Predicate.Documents, struct {
		ArtifactType string `json:"artifactType"`
		Referrer     string `json:"referrer"`
	}{"application/spdx+json", sbom})
	reported := w.attach(a, w.sign(events.Vet, report))
	finished := &events.VetRunFinished{ArtifactID: a.PURL(), Policy: w.policy.Digest(), Outcome: events.Success, Verdicts: verdicts,
		Report: &events.Evidence{URI: "-", Digest: reported}, Result: events.Result{Attempt: attempt}}
	finished.ID = name
	w.add(events.VetSubject(1, events.TypeVetRunFinished, "hello", n, "", attempt), chain, finished)
}

// otherPolicy publishes a policy that asks for the same people and has another digest.
func (w *world) otherPolicy(serial int) {
	w.t.Helper()
	platform, err := policy.Parse("platform.yaml", []byte("policy: {deadlines: {build: 11m}}\n"))
	if err != nil {
		w.t.Fatal(err)
	}
	if platform.Policy.Digest() == w.policy.Digest() {
		w.t.Fatal("the other policy is the same")
	}
	w.policy = platform.Policy
	w.publishPolicy(serial)
}

// command appends a command about a run's image.
func (w *world) command(n int, env events.Slug, actor, verb string, overrules ...string) *events.CommandReceived {
	command := &events.CommandReceived{Command: events.Command{Verb: verb, App: "hello", Run: n, Environment: env, Digest: string(w.image(n).Digest), Actor: actor, Channel: "cli", Overrules: overrules}}
	if verb == events.VerbDeny {
		command.Reason = "not on a Friday"
	}
	command.ID = fmt.Sprintf("c-%s-%d-%s-%s", actor, n, env, verb)
	w.add(events.CommandSubject(1, events.TypeCommandReceived, "hello", n, env, command.ID), "", command)
	return command
}

// deny appends a command to deny and what promote makes of it.
func (w *world) deny(n int, chain string, env events.Slug, actor string, attempt int) {
	command := w.command(n, env, actor, events.VerbDeny)
	denied := &events.PromotionDenied{Promotion: events.Promotion{
		ArtifactID: w.image(n).PURL(), Environment: env, Policy: w.policy.Digest(), Responder: actor, Decision: "denied", Reason: command.Reason,
	}}
	denied.ID = fmt.Sprintf("hello/%d/%s", n, env)
	w.add(events.PromoteSubject(1, events.TypePromotionDenied, "hello", n, env, events.Key(command.ID), attempt), chain, denied)
}

// approve appends a command to approve and what promote makes of it.
func (w *world) approve(n int, chain string, env events.Slug, actor string, overrules ...string) {
	a := w.image(n)
	command := w.command(n, env, actor, events.VerbApprove, overrules...)
	approved := &events.PromotionApproved{Promotion: events.Promotion{ArtifactID: a.PURL(), Environment: env, Policy: w.policy.Digest(), Responder: actor, Decision: "approved"}}
	approved.ID = fmt.Sprintf("hello/%d/%s", n, env)
	w.add(events.PromoteSubject(1, events.TypePromotionApproved, "hello", n, env, events.Key(command.ID), 1), chain, approved)
}

// deploy appends a slot of the first attempt from taken to closed.
func (w *world) deploy(n int, chain string, env events.Slug, slot int, version uint64) {
	w.deployAttempt(n, chain, env, slot, version, 1)
}

func (w *world) deployAttempt(n int, chain string, env events.Slug, slot int, version uint64, attempt int) {
	a, about := w.image(n), events.About{ID: fmt.Sprintf("hello/%s/%d", env, slot)}
	w.add(events.SlotSubject(1, events.TypeSlotTaken, "hello", env, slot), chain, &events.SlotTaken{
		About: about, Slot: slot, Run: n, Attempt: attempt, ArtifactID: a.PURL(), Repository: a.Repository.String(), Digest: string(a.Digest),
		Kind: events.KindDeploy, Environment: env, Pins: events.Pins{Config: map[string]uint64{"GREETING": version}},
	})
	w.add(events.SlotSubject(1, events.TypeSlotDecided, "hello", env, slot), chain, &events.SlotDecided{About: about, Slot: slot, Decision: events.Live, Environment: env})
	tested := &events.TestSuiteRunFinished{Environment: events.Reference{ID: string(env)}, Outcome: events.Success,
		Trial: events.Trial{Slot: slot, Attempt: 1, Digest: string(a.Digest)}}
	tested.ID = fmt.Sprintf("hello/%d/%s/%d", n, env, slot)
	w.add(events.VerifySubject(1, events.TypeTestSuiteRunFinished, "hello", n, env, slot, 0, 1), chain, tested)
	w.add(events.SlotSubject(1, events.TypeSlotClosed, "hello", env, slot), chain, &events.SlotClosed{About: about, Slot: slot, Closing: events.Verified, Environment: env})
}

// newer stores an event of a type that this build does not know, as a newer build of the writer would.
func (w *world) newer(s events.Subject, chain string) ledger.Stored {
	m := w.add(s, chain, &events.PolicyPublished{About: events.About{ID: "p"}, Digest: "-", Actor: "u-admin"})
	last := &w.stored[len(w.stored)-1]
	last.Body = bytes.Replace(m.Body, []byte("policy.published.0.1.0"), []byte(s.Subject+"."+s.Predicate+".0.9.0"), 1)
	last.Signature = w.signers[s.Writer].Sign(last.Subject, last.Body)
	return *last
}

// populate makes three runs of hello, of which the second goes to prod, with those of another app in between.
func (w *world) populate() {
	w.publishPolicy(1)
	created := &events.AppCreated{Actor: "u-push"}
	created.ID = "hello"
	w.add(events.AppSubject(1, "hello"), "", created)
	for i, env := range []events.Slug{"dev", "qa", "prod"} {
		w.set(env, uint64(i+1))
	}
	first := w.startRun("hello", 1)
	w.build(1, first)
	w.deploy(1, first, "dev", 1, 1)
	w.seal()
	second := w.startRun("hello", 2)
	w.startRun("billing", 1)
	w.build(2, second)
	w.deploy(2, second, "dev", 2, 1)
	w.startRun("billing", 2)
	w.seal()
	third := w.startRun("hello", 3)
	w.deploy(2, second, "qa", 1, 2)
	w.build(3, third)
	w.startRun("billing", 3)
	w.approve(2, second, "prod", "u-approver")
	// A newer build writes as well, about everything, about this run, and about another.
	w.newer(events.PolicySubject(1, 2), "")
	w.newer(events.VetSubject(1, events.TypeVetRunFinished, "hello", 2, "", 2), second)
	w.newer(events.VetSubject(1, events.TypeVetRunFinished, "hello", 3, "", 2), third)
	w.deploy(2, second, "prod", 1, 3)
	w.seal()
}
