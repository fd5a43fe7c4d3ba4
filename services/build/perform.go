package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/pipeline"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/registry/provenance"
)

// job is one attempt at building a run.
type job struct {
	app        events.Slug
	run        int
	attempt    int
	chainID    string
	source     origin
	definition pipeline.Definition
	fresh      bool // build, and from nothing, even where the same inputs were built before
}

// invocation names the attempt in provenance.
func (j job) invocation() string { return fmt.Sprintf("%s/build/%d", j.chainID, j.attempt) }

// product is an image in the registry with signed provenance beside it.
type product struct {
	artifact   registry.Artifact
	inputs     string
	provenance provenance.Signed
}

func (p product) reusedFrom() int {
	return p.provenance.Predicate.BuildDefinition.InternalParameters.ReusedFrom
}

// effects are what build does to the world: it reads repositories, builds in an engine and writes to a
// registry. Each is safe to repeat.
type effects struct {
	cfg      Config
	platform *policy.Platform
	fleet    *engine.Fleet
	registry *registry.Client
	signer   provenance.Signer
	trust    *identity.Trust

	mu     sync.Mutex
	target string // what the build engine builds for ("linux/amd64"), once it has been asked
}

// perform makes the job's image, or finds it where it was made before. Output goes to out as it comes.
// Errors are a *Fault where somebody has to act, else temporary, or ctx's cause.
func (x *effects) perform(ctx context.Context, j job, out io.Writer) (product, error) {
	repository, err := registry.ParseRepository(x.cfg.Registry + "/" + string(j.app))
	if err != nil {
		return product{}, err
	}
	began := time.Now().UTC()
	co, err := x.cfg.fetch(ctx, j.source)
	if err != nil {
		return product{}, err
	}
	defer co.remove()
	fmt.Fprintf(out, "source: commit %s of %s, tree %s (%.1fs)\n", co.Commit.ID, co.repository.text, co.Commit.Tree, time.Since(began).Seconds())
	e, platform, err := x.engine(ctx)
	if err != nil {
		return product{}, err
	}
	in := inputsOf(j.app, co.Commit.Tree, j.definition.Build, platform).digest()
	p, found, err := x.recognise(ctx, j, repository, in)
	if err != nil {
		return product{}, err
	}
	if found {
		return x.reuse(ctx, j, co, p, out)
	}
	return x.create(ctx, e, j, co, where{repository, platform, in}, out)
}

// engine returns the build engine and what it builds for.
func (x *effects) engine(ctx context.Context) (*engine.Engine, string, error) {
	e, err := x.fleet.Build(ctx)
	if err != nil {
		return nil, "", err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.target == "" {
		info, err := e.Info(ctx)
		if err != nil {
			return nil, "", err
		}
		x.target = info.OS + "/" + info.Architecture
	}
	return e, x.target, nil
}

// recognise looks for an image that came of the same inputs: of an earlier run, or of an earlier try at
// this attempt. Only signed provenance counts. A job that is to build afresh takes its own try alone.
func (x *effects) recognise(ctx context.Context, j job, r registry.Repository, in string) (product, bool, error) {
	digest, err := x.registry.Resolve(ctx, r, inputsTag(in))
	if errors.Is(err, registry.ErrNotFound) {
		return product{}, false, nil
	}
	if err != nil {
		return product{}, false, err
	}
	statements, _, err := provenance.Find(ctx, x.registry, identity.PresentKeys{Trust: x.trust}, r.At(digest))
	if err != nil {
		return product{}, false, err
	}
	var other *provenance.Signed
	for _, s := range statements {
		d := s.Predicate.BuildDefinition
		if d.InternalParameters.Inputs != in || d.InternalParameters.App != string(j.app) {
			continue
		}
		if s.Predicate.RunDetails.Metadata.InvocationID == j.invocation() && d.ExternalParameters.Commit == j.source.commit {
			return product{r.At(digest), in, s}, true, nil
		}
		if d.InternalParameters.ReusedFrom == 0 {
			other = &s
		}
	}
	if other == nil || j.fresh {
		return product{}, false, nil
	}
	return product{r.At(digest), in, *other}, true, nil
}

// recall returns what an earlier try at the attempt has made.
func (x *effects) recall(ctx context.Context, j job, a registry.Artifact) (product, error) {
	statements, _, err := provenance.Find(ctx, x.registry, x.trust, a)
	if err != nil {
		return product{}, err
	}
	for _, s := range statements {
		if s.Predicate.RunDetails.Metadata.InvocationID == j.invocation() {
			return product{a, s.Predicate.BuildDefinition.InternalParameters.Inputs, s}, nil
		}
	}
	return product{}, fmt.Errorf("image %s, packaged by an earlier try at this attempt: its provenance is gone: %w", a, registry.ErrNotFound)
}

// reuse takes an image that was built before, and states that this commit's build is that image.
func (x *effects) reuse(ctx context.Context, j job, co *checkout, p product, out io.Writer) (product, error) {
	d := p.provenance.Predicate
	if d.RunDetails.Metadata.InvocationID == j.invocation() {
		fmt.Fprintf(out, "image: %s, made before this attempt was interrupted\n", p.artifact)
		return p, nil
	}
	first := d.BuildDefinition.InternalParameters
	fmt.Fprintf(out, "image: %s, built by %s/%d from the same tree; not built again\n", p.artifact, j.app, first.Run)
	statement := x.predicate(j, co, p.inputs, first.Platform, d.RunDetails.Metadata.StartedOn)
	statement.BuildDefinition.InternalParameters.ReusedFrom = first.Run
	statement.RunDetails.Metadata.FinishedOn = d.RunDetails.Metadata.FinishedOn
	statement.BuildDefinition.ResolvedDependencies = append(gitDependencies(co, j.source.ref), fromElsewhere(d)...)
	var err error
	p.provenance, err = provenance.Attach(ctx, x.registry, x.signer, p.artifact, statement)
	return p, err
}

// where says for what an image is made.
type where struct {
	repository registry.Repository
	platform   string
	inputs     string
}

// create builds the image, has the engine push it, and completes it in the registry. The tag by which
// it is recognised later comes last: what it names is whole.
func (x *effects) create(ctx context.Context, e *engine.Engine, j job, co *checkout, w where, out io.Writer) (product, error) {
	began := time.Now().UTC()
	if err := co.write(ctx); err != nil {
		return product{}, err
	}
	if noGroup(x.platform.Engines.Build) == "" {
		limiting, done := context.WithCancel(ctx)
		defer done()
		go buildGroup{root: cgroupRoot}.keep(limiting, x.platform.Limits.Build)
	}
	described := annotations(co.repository.text, j.source.ref, co.Commit)
	tag := fmt.Sprintf("run-%d-%d", j.run, j.attempt)
	name := w.repository.String() + ":" + tag
	image, err := x.cfg.make(ctx, e, recipe{
		tree: co.tree, build: j.definition.Build, name: name, labels: described,
		created: co.Commit.Time, cacheID: w.inputs, fresh: j.fresh, keychain: x.registry,
	}, out)
	if err != nil {
		return product{}, err
	}
	pushing := time.Now()
	artifact, err := x.push(ctx, e, w.repository, tag, image, described)
	var cleaning sync.WaitGroup // beside what follows, and before an environment may pull the image
	cleaning.Go(func() { untag(ctx, e, name) })
	defer cleaning.Wait()
	if err != nil {
		return product{}, err
	}
	fmt.Fprintf(out, "image: %s (pushed in %.1fs)\n", artifact, time.Since(pushing).Seconds())
	statement := x.predicate(j, co, w.inputs, w.platform, began)
	statement.BuildDefinition.ResolvedDependencies = slices.Concat(
		gitDependencies(co, j.source.ref), baseDependencies(image.bases), dockerfileDependency(co, j, image.dockerfile))
	statement.RunDetails.Metadata.FinishedOn = time.Now().UTC().Truncate(time.Millisecond)
	signed, err := provenance.Attach(ctx, x.registry, x.signer, artifact, statement)
	if err != nil {
		return product{}, err
	}
	if err := x.registry.Tag(ctx, artifact, inputsTag(w.inputs)); err != nil {
		return product{}, err
	}
	return product{artifact, w.inputs, signed}, nil
}

// push has the engine push the image, which keeps the engine's knowledge of which layers a registry has,
// checks that the registry got what BuildKit built, and adds the annotations. The digest that counts is
// the registry's.
func (x *effects) push(ctx context.Context, e *engine.Engine, r registry.Repository, tag string, image built, described map[string]string) (registry.Artifact, error) {
	username, password, err := x.registry.Credentials(ctx, r)
	if err != nil {
		return registry.Artifact{}, err
	}
	pushed, err := e.Push(ctx, r.String()+":"+tag, engine.Credentials{Username: username, Password: password})
	if err != nil {
		return registry.Artifact{}, err
	}
	digest, err := registry.ParseDigest(pushed)
	if err != nil {
		return registry.Artifact{}, err
	}
	found, err := x.registry.Image(ctx, r.At(digest))
	if err != nil {
		return registry.Artifact{}, err
	}
	if config, err := found.ConfigName(); err != nil || config.String() != image.id {
		return registry.Artifact{}, operatorActs(events.Trouble{
			What: "pushing the image", On: r.At(digest).String(), Why: fmt.Sprintf("the registry has image %s, built was %s", config, image.id),
			Do: "find out who else writes to the registry or the engine, then replay",
		})
	}
	return x.registry.Annotate(ctx, r.At(digest), described, tag)
}

// untag takes the name off the engine's copy, of which BuildKit's cache keeps the layers.
func untag(ctx context.Context, e *engine.Engine, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_ = e.RemoveImage(ctx, name) // the next attempt under this name takes it over
}

// predicate states what is known before the build.
func (x *effects) predicate(j job, co *checkout, in, platform string, began time.Time) provenance.Predicate {
	b := j.definition.Build
	return provenance.Predicate{
		BuildDefinition: provenance.BuildDefinition{
			BuildType: provenance.BuildType,
			ExternalParameters: provenance.ExternalParameters{
				Repository: co.repository.text, Ref: j.source.ref, Commit: co.Commit.ID, Dockerfile: b.Dockerfile,
				Context: b.Context, Target: b.Target, Args: b.Args, DefinitionDigest: j.definition.Digest(),
			},
			InternalParameters: provenance.InternalParameters{
				App: string(j.app), Run: j.run, Attempt: j.attempt, Tree: co.Commit.Tree, Inputs: in, Platform: platform,
			},
		},
		RunDetails: provenance.RunDetails{
			Builder:  provenance.Builder{ID: provenance.BuilderID},
			Metadata: provenance.Metadata{InvocationID: j.invocation(), StartedOn: began.Truncate(time.Millisecond)},
		},
	}
}

// gitDependencies are the commit, its tree and the submodules, as SLSA's git predicates write them.
func gitDependencies(co *checkout, ref string) []provenance.Dependency {
	uri := "git+" + co.repository.text
	if ref != "" {
		uri += "@" + ref
	}
	all := []provenance.Dependency{{URI: uri, Digest: map[string]string{"gitCommit": co.Commit.ID, "gitTree": co.Commit.Tree}}}
	for _, m := range co.Submodules {
		all = append(all, provenance.Dependency{URI: "git+" + m.URL + "#" + m.Path, Digest: map[string]string{"gitCommit": m.Commit}})
	}
	return all
}

// fromElsewhere are submodules, base images and the Dockerfile as an earlier build of the same tree has stated them.
func fromElsewhere(p provenance.Predicate) []provenance.Dependency {
	return p.BuildDefinition.ResolvedDependencies[min(1, len(p.BuildDefinition.ResolvedDependencies)):]
}

// maxKept is the most that a Dockerfile may have to be kept in the provenance, in bytes.
const maxKept = 128 << 10

// dockerfileDependency is the Dockerfile with its text, by which vet judges how the image was made.
func dockerfileDependency(co *checkout, j job, text []byte) []provenance.Dependency {
	if len(text) > maxKept {
		return nil
	}
	sum := sha256.Sum256(text)
	return []provenance.Dependency{{
		URI:  "git+" + co.repository.text + "#" + j.definition.Build.Dockerfile,
		Name: provenance.DockerfileName, Digest: map[string]string{"sha256": hex.EncodeToString(sum[:])}, Content: text,
	}}
}

func baseDependencies(bases []base) []provenance.Dependency {
	var all []provenance.Dependency
	for _, b := range bases {
		d := provenance.Dependency{URI: provenance.BaseURI + b.Ref}
		if digest, err := registry.ParseDigest(b.Digest); err == nil {
			d.Digest = map[string]string{"sha256": digest.Hex()}
		}
		all = append(all, d)
	}
	return all
}
