package vet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/registry/provenance"
	"towpath.dev/services/vet/inventory"
	"towpath.dev/services/vet/layers"
)

// effects is what vet works on: the registry, and the local disk.
type effects struct {
	cfg      Config
	limits   layers.Limits
	registry *registry.Client
	signer   provenance.Signer
	trust    *identity.Trust
	taker    *inventory.Taker
	files    *files
	work     string // folder of this process
}

// job is one artifact to be judged.
type job struct {
	artifact     registry.Artifact
	policy       policy.Policy
	policyDigest string
	judge        *policy.Judge // by the policy
	environments []place
	origin       origin
	scanner      string // what looks into it; perform says so
}

// place is an environment and what runs there.
type place struct {
	name    events.Slug
	running registry.Artifact // its zero value: nothing of the app
	origin  origin            // of what runs
}

// empty says that nothing of the app runs there.
func (p place) empty() bool { return p.running == registry.Artifact{} }

// verdict is a report that stands beside the artifact in the registry.
type verdict struct {
	report    Report
	referrer  registry.Referrer
	keyID     string
	signature string // base64
	reused    bool   // it was there already
}

// sbom names the SPDX document; nil: there is none.
func (v verdict) sbom() *events.Evidence {
	for _, d := range v.report.Documents {
		if d.ArtifactType == spdxType {
			digest := registry.Digest(d.Referrer)
			return &events.Evidence{URI: v.referrer.Subject.Repository.At(digest).String(), Digest: d.Referrer}
		}
	}
	return nil
}

// known is a report that is in the registry.
type known struct {
	report    Report
	referrer  registry.Referrer
	statement []byte
	envelope  dsse.Envelope
}

// perform judges the artifact, and sees to it that the signed report stands beside it.
func (x *effects) perform(ctx context.Context, j job, log io.Writer) (verdict, error) {
	var err error
	if j.scanner, err = x.files.version(ctx); err != nil {
		return verdict{}, err
	}
	seen, err := x.look(ctx, j, log)
	if err != nil {
		return verdict{}, err
	}
	environments, err := x.compare(ctx, j, seen.findings, log)
	if err != nil {
		return verdict{}, err
	}
	seen.report.App, seen.report.Commit = j.origin.app, j.origin.commit
	run := policy.RunFacts{App: j.origin.app, Elsewhere: j.origin.elsewhere}
	return x.attest(ctx, j, seen.report.complete(seen.findings, j.judge, environments, run), seen.earlier)
}

// sight is what is to be said of an artifact, before it is judged.
type sight struct {
	report   Report
	findings []events.Finding
	earlier  *known // the report that the content is from; nil: it was looked at now
}

// look finds out what an artifact is made of and where it comes from. What was found out about the same image under
// the same policy before is not found out again.
func (x *effects) look(ctx context.Context, j job, log io.Writer) (sight, error) {
	earlier, err := x.recall(ctx, j)
	if err != nil {
		return sight{}, err
	}
	seen := sight{earlier: earlier}
	if earlier != nil {
		fmt.Fprintf(log, "the image was looked at before under this policy: %s\n", earlier.referrer.URI())
		seen.report = earlier.report
		seen.findings, _ = seen.report.content()
	} else if seen.report, seen.findings, err = x.examine(ctx, j, log); err != nil {
		return sight{}, err
	}
	genuine, refused, err := provenance.Find(ctx, x.registry, x.trust, j.artifact)
	if err != nil {
		return sight{}, err
	}
	genuine, refused = borneOut(genuine, refused, j.origin.provenance, x.trust.PublicKeys(events.Build), time.Now())
	seen.findings = append(seen.findings, originFindings(j.origin, genuine, refused)...)
	if made := madeBy(j.origin, genuine); made != nil {
		seen.findings = dockerfileFindings(seen.findings, *made)
	}
	seen.findings = healthy(seen.findings, j.origin.health)
	return seen, nil
}

// compare says of each finding in which environments what runs does not have it: as the same eyes see it now.
func (x *effects) compare(ctx context.Context, j job, findings []events.Finding, log io.Writer) ([]policy.Environment, error) {
	has := map[registry.Digest]map[string]bool{j.artifact.Digest: keysOf(findings)}
	var all []policy.Environment
	for _, p := range j.environments {
		all = append(all, policy.Environment{Name: p.name, Against: string(p.running.Digest)})
		there, looked := has[p.running.Digest]
		if !looked && !p.empty() {
			fmt.Fprintf(log, "comparing with %s, which runs in %s\n", p.running, p.name)
			other := j
			other.artifact, other.origin = p.running, p.origin
			seen, err := x.look(ctx, other, log)
			if errors.Is(err, registry.ErrNotFound) {
				fmt.Fprintf(log, "it is no longer in the registry, so that everything counts as new: %v\n", err)
			} else if err != nil {
				return nil, fmt.Errorf("looking at what runs in %s: %w", p.name, err)
			}
			there = keysOf(seen.findings)
			has[p.running.Digest] = there
		}
		for i, f := range findings {
			if !there[policy.Key(f)] {
				findings[i].NewIn = append(findings[i].NewIn, p.name)
			}
		}
	}
	return all, nil
}

func keysOf(findings []events.Finding) map[string]bool {
	keys := map[string]bool{}
	for _, f := range findings {
		keys[policy.Key(f)] = true
	}
	return keys
}

// recall returns a report on the artifact's content under the same policy and by the same scanner; nil:
// there is none.
func (x *effects) recall(ctx context.Context, j job) (*known, error) {
	referrers, err := x.registry.Referrers(ctx, j.artifact, registry.StatementType)
	if err != nil {
		return nil, err
	}
	wanted := Report{Policy: j.policyDigest, Scanner: j.scanner}.annotations()
	for _, r := range slices.Backward(referrers) {
		if slices.ContainsFunc([]string{registry.PredicateTypeAnnotation, "dev.towpath.vet.policy", "dev.towpath.vet.scanner"},
			func(name string) bool { return r.Annotations[name] != wanted[name] }) {
			continue
		}
		body, _, err := x.registry.Read(ctx, r, maxReport)
		if errors.Is(err, registry.ErrRefused) || errors.Is(err, registry.ErrNotFound) {
			continue // not one of ours
		}
		if err != nil {
			return nil, err
		}
		report, statement, err := ReadReport(identity.PresentKeys{Trust: x.trust}, j.artifact, body)
		if err != nil || report.Policy != j.policyDigest || report.Scanner != j.scanner || report.Platform != x.cfg.Platform {
			continue
		}
		if _, all := report.content(); !all || len(report.Documents) == 0 {
			continue // cut short, or the analysis broke off: look again
		}
		k := &known{report: report, referrer: r, statement: statement}
		return k, json.Unmarshal(body, &k.envelope)
	}
	return nil, nil
}

// examine looks into the image and puts its SBOM beside it.
func (x *effects) examine(ctx context.Context, j job, log io.Writer) (Report, []events.Finding, error) {
	report := Report{Policy: j.policyDigest, Scanner: j.scanner, Platform: x.cfg.Platform}
	dir, err := os.MkdirTemp(x.work, "image-")
	if err != nil {
		return report, nil, fmt.Errorf("making a folder for the image: %w", err)
	}
	keep := false // the folder, which an analysis that was given up still reads
	defer func() {
		if !keep {
			os.RemoveAll(dir)
		}
	}()
	start := time.Now()
	go x.taker.Prepare() // beside the transfer; an error is that of the inventory
	c, image, err := x.fetch(ctx, j, dir)
	if err != nil {
		return report, nil, err
	}
	if image != nil {
		fmt.Fprintf(log, "image read: %d layers, %d files, %.1f MiB (%s)\n",
			len(image.DiffIDs), image.Files, float64(image.Bytes)/(1<<20), time.Since(start).Round(time.Millisecond))
	}
	if image != nil && image.Whole() {
		start = time.Now()
		if c.files, err = x.files.look(ctx, image, j.scanner, dir); err != nil {
			return report, nil, err
		}
		c.secretNames, c.suspectedNames = x.files.environment(image.Config.Config.Env)
		fmt.Fprintf(log, "files looked into (%s)\n", time.Since(start).Round(time.Millisecond))
		start = time.Now()
		c.inventory, keep, err = x.analyse(ctx, j, image, dir)
		if errors.Is(err, inventory.ErrAnalysis) {
			c.broke = err
		} else if err != nil {
			return report, nil, err
		}
	}
	if c.inventory != nil {
		fmt.Fprintf(log, "image analysed: %d packages (%s)\n", len(c.inventory.Packages), time.Since(start).Round(time.Millisecond))
		report.Distribution, report.Bare, report.Packages = c.inventory.Distribution, c.inventory.Bare, len(c.inventory.Packages)
		if report.Documents, err = x.document(ctx, j, c.inventory); err != nil {
			return report, nil, err
		}
	}
	if base := baseOf(c.diffIDs, j.policy.Bases); base != nil {
		report.Base = base.Name
	}
	return report, contentFindings(c, j.policy), nil
}

// fetch brings the image onto the disk.
func (x *effects) fetch(ctx context.Context, j job, dir string) (content, *layers.Image, error) {
	c := content{platform: x.cfg.Platform}
	platforms, err := x.registry.Platforms(ctx, j.artifact)
	if err != nil {
		return c, nil, err
	}
	if len(platforms) > 0 && !slices.Contains(platforms, x.cfg.Platform) {
		c.faults = []layers.Fault{{What: fmt.Sprintf("it has no variant for %s, only for %s", x.cfg.Platform, strings.Join(platforms, ", "))}}
		return c, nil, nil
	}
	c.others = slices.DeleteFunc(platforms, func(p string) bool { return p == x.cfg.Platform })
	remote, err := x.registry.Image(ctx, j.artifact, x.cfg.Platform)
	if err != nil {
		return c, nil, err
	}
	image, err := layers.Unpack(ctx, remote, dir, x.limits)
	if err != nil {
		return c, nil, err
	}
	c.withConfig(image)
	return c, image, nil
}

// analyse makes the inventory. Where ctx ends before the analysis does, it is left behind with its
// folder, which then is removed when it ends.
func (x *effects) analyse(ctx context.Context, j job, image *layers.Image, dir string) (_ *inventory.Inventory, left bool, err error) {
	onDisk, err := image.V1()
	if err != nil {
		return nil, false, err
	}
	type result struct {
		inventory *inventory.Inventory
		err       error
	}
	done := make(chan result, 1)
	go func() {
		made, err := x.taker.Take(ctx, inventory.Subject{
			Image: onDisk, Name: j.artifact.String(), Digest: string(j.artifact.Digest), Manifest: image.Manifest, Skip: image.Big,
		}, dir)
		done <- result{made, err}
		if ctx.Err() != nil {
			os.RemoveAll(dir)
		}
	}()
	select {
	case r := <-done:
		return r.inventory, false, r.err
	case <-ctx.Done():
		return nil, true, fmt.Errorf("analysing the image: %w", context.Cause(ctx))
	}
}

// document puts the SBOM beside the image.
func (x *effects) document(ctx context.Context, j job, found *inventory.Inventory) ([]Document, error) {
	referrer, err := x.registry.Attach(ctx, j.artifact, registry.Document{ArtifactType: spdxType, Body: found.SPDX})
	if err != nil {
		return nil, err
	}
	return []Document{{spdxType, string(referrer.Digest)}}, nil
}

// attest signs the report and puts it beside the image, unless it is there.
func (x *effects) attest(ctx context.Context, j job, report Report, earlier *known) (verdict, error) {
	text, err := report.encode(j.artifact)
	if err != nil {
		return verdict{}, fmt.Errorf("writing the report: %w", err)
	}
	if earlier != nil && bytes.Equal(text, earlier.statement) {
		v := verdict{report: report, referrer: earlier.referrer, reused: true}
		v.keyID, v.signature = signature(earlier.envelope)
		return v, nil
	}
	envelope := x.signer.SignPayload(registry.StatementType, text)
	body, err := json.Marshal(envelope)
	if err != nil {
		return verdict{}, fmt.Errorf("writing the report: %w", err)
	}
	referrer, err := x.registry.Attach(ctx, j.artifact, registry.Document{
		ArtifactType: registry.StatementType, MediaType: registry.EnvelopeType, Annotations: report.annotations(), Body: body,
	})
	if err != nil {
		return verdict{}, err
	}
	v := verdict{report: report, referrer: referrer}
	v.keyID, v.signature = signature(envelope)
	return v, nil
}

func signature(e dsse.Envelope) (keyID, sig string) {
	if len(e.Signatures) == 0 {
		return "", ""
	}
	return e.Signatures[0].KeyID, e.Signatures[0].Sig
}
