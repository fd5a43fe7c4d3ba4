package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend/dockerfile/builder"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"

	"towpath.dev/events"
	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/pipeline"
)

// recipe is everything that decides how an image comes out.
type recipe struct {
	tree    string // folder with the source
	build   pipeline.Build
	name    string            // what the engine calls the image: repository:tag
	labels  map[string]string // in the image's configuration
	created time.Time
	// cacheID must differ where the source differs: of a context with the same id BuildKit keeps what has
	// the same size and time, and the files of all commits of one second have the same time.
	cacheID  string
	fresh    bool     // use nothing of earlier builds
	keychain keychain // opens the registries of base images; nil: none needs that
}

// built is an image that the engine has.
type built struct {
	id         string // digest of its configuration, "sha256:…"
	bases      []base
	dockerfile []byte
}

// base is an image that a Dockerfile builds upon.
type base struct {
	Ref    string // as BuildKit resolved it: "docker.io/library/debian:12"
	Digest string // "sha256:…", or empty where the engine's own copy was used and no registry knows it
}

// context and Dockerfile as folders that BuildKit may read.
type sources struct {
	context    string
	dockerfile string // folder
	filename   string
	text       []byte // of the Dockerfile
}

// maxDockerfile is the most that a Dockerfile may have, in bytes.
const maxDockerfile = 1 << 20

// locate finds the context and the Dockerfile, neither of which may be a link that leads out of the source.
func (r recipe) locate() (sources, error) {
	root, err := filepath.EvalSymlinks(r.tree)
	if err != nil {
		return sources{}, err
	}
	inside := func(what, name string) (string, error) {
		found, err := filepath.EvalSymlinks(filepath.Join(root, filepath.FromSlash(name)))
		if err == nil && found != root && !strings.HasPrefix(found, root+string(filepath.Separator)) {
			err = errors.New("it leads out of the repository")
		}
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				err = errors.New("there is no such file in the commit")
			}
			return "", authorActs(events.Trouble{What: "finding the " + what, On: name, Why: err.Error(),
				Do: "correct build in towpath.yaml, or add the file, and push"})
		}
		return found, nil
	}
	var s sources
	if s.context, err = inside("build context", r.build.Context); err != nil {
		return s, err
	}
	if info, err := os.Stat(s.context); err != nil || !info.IsDir() {
		return s, authorActs(events.Trouble{What: "finding the build context", On: r.build.Context, Why: "it is not a folder"})
	}
	file, err := inside("Dockerfile", r.build.Dockerfile)
	if err != nil {
		return s, err
	}
	if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() || info.Size() > maxDockerfile {
		return s, authorActs(events.Trouble{What: "reading the Dockerfile", On: r.build.Dockerfile, Why: "it is not a file of at most 1 MiB"})
	}
	s.dockerfile, s.filename = filepath.Split(file)
	s.text, err = os.ReadFile(file)
	return s, err
}

// attributes are what the Dockerfile frontend is asked for.
func (r recipe) attributes(s sources) map[string]string {
	attributes := map[string]string{
		"filename": s.filename,
		"target":   r.build.Target,
		// With a command line given, a "# syntax=" line does not make BuildKit fetch and run another frontend.
		"cmdline": "towpath",
	}
	for name, value := range r.build.Args {
		attributes["build-arg:"+name] = value
	}
	for name, value := range r.labels {
		attributes["label:"+name] = value
	}
	if r.fresh {
		attributes["no-cache"] = ""
	}
	return attributes
}

// make builds the image in the engine and writes what happens to out. What fails because of the source
// is a Fault with the step, its place in the Dockerfile and the end of its output. It does not return
// before BuildKit has let go of the build, also when ctx ends.
func (c Config) make(ctx context.Context, e *engine.Engine, r recipe, out io.Writer) (built, error) {
	s, err := r.locate()
	if err != nil {
		return built{}, err
	}
	contextFS, err := fsutil.NewFS(s.context)
	if err != nil {
		return built{}, fmt.Errorf("reading the build context: %w", err)
	}
	dockerfileFS, err := fsutil.NewFS(s.dockerfile)
	if err != nil {
		return built{}, fmt.Errorf("reading the Dockerfile: %w", err)
	}
	bk, err := dial(ctx, e)
	if err != nil {
		return built{}, err
	}
	defer bk.Close()
	var seen resolved
	var refused error // by the Dockerfile's frontend, which runs here and knows more than comes back from the engine
	frontend := func(ctx context.Context, client gateway.Client) (*gateway.Result, error) {
		var result *gateway.Result
		if result, refused = builder.Build(ctx, &witness{Client: client, seen: &seen}); refused != nil {
			return nil, refused
		}
		return result, setTimes(result, r.created)
	}
	var attached []session.Attachable
	if r.keychain != nil {
		attached = append(attached, &logins{keychain: r.keychain})
	}
	statuses := make(chan *bkclient.SolveStatus)
	log := newProgress(out, c.MaxLog)
	var following sync.WaitGroup
	following.Go(func() { log.follow(statuses) })
	response, err := bk.Build(ctx, bkclient.SolveOpt{
		FrontendAttrs: r.attributes(s),
		LocalMounts:   map[string]fsutil.FS{"context": contextFS, "dockerfile": dockerfileFS},
		SharedKey:     r.cacheID,
		Session:       attached,
		Exports:       []bkclient.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": r.name}}},
	}, "", frontend, statuses)
	following.Wait()
	if err != nil {
		return built{}, r.fault(ctx, s, log, e, refused, err)
	}
	id := response.ExporterResponse[exptypes.ExporterImageDigestKey]
	if _, err := digest.Parse(id); err != nil {
		return built{}, fmt.Errorf("building the image: the engine named no image (%q)", id)
	}
	return built{id: id, bases: seen.list(), dockerfile: s.text}, nil
}

// dial opens BuildKit's API inside the engine.
func dial(ctx context.Context, e *engine.Engine) (*bkclient.Client, error) {
	bk, err := bkclient.New(ctx, "",
		bkclient.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return e.DialHijack(ctx, "/grpc", "h2c", nil)
		}),
		bkclient.WithSessionDialer(func(ctx context.Context, protocol string, meta map[string][]string) (net.Conn, error) {
			return e.DialHijack(ctx, "/session", protocol, meta)
		}))
	if err != nil {
		return nil, fmt.Errorf("reaching BuildKit in the engine at %s: %w", e.Host().URL, err)
	}
	return bk, nil
}

// setTimes makes the image's configuration say when its commit was made, instead of when it was built:
// the same layers then always make the same image. (The build argument SOURCE_DATE_EPOCH would do this as
// well, but puts the time into every WORKDIR and COPY, and so throws their cache away at each commit.)
func setTimes(result *gateway.Result, at time.Time) error {
	for key, value := range result.Metadata {
		if key != exptypes.ExporterImageConfigKey && !strings.HasPrefix(key, exptypes.ExporterImageConfigKey+"/") {
			continue
		}
		var config map[string]json.RawMessage
		var history []ocispecs.History
		if err := json.Unmarshal(value, &config); err != nil {
			return fmt.Errorf("reading the image's configuration: %w", err)
		}
		if err := json.Unmarshal(config["history"], &history); err != nil && len(config["history"]) > 0 {
			return fmt.Errorf("reading the image's history: %w", err)
		}
		for i := range history {
			if history[i].Created == nil || history[i].Created.After(at) {
				history[i].Created = &at
			}
		}
		config["created"], _ = json.Marshal(at)
		config["history"], _ = json.Marshal(history)
		changed, err := json.Marshal(config)
		if err != nil {
			return err
		}
		result.AddMeta(key, changed)
	}
	return nil
}

// witness notes which images a Dockerfile's frontend asks for.
type witness struct {
	gateway.Client
	seen *resolved
}

func (c *witness) ResolveImageConfig(ctx context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	name, d, config, err := c.Client.ResolveImageConfig(ctx, ref, opt)
	c.seen.add(ref, d, err)
	return name, d, config, err
}

func (c *witness) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	meta, err := c.Client.ResolveSourceMetadata(ctx, op, opt)
	if err == nil && meta.Image != nil {
		c.seen.add(strings.TrimPrefix(op.Identifier, "docker-image://"), meta.Image.Digest, nil)
	}
	return meta, err
}

// resolved is the set of images that a build asked for. Stages are resolved at the same time.
type resolved struct {
	mu     sync.Mutex
	images map[string]string
}

func (r *resolved) add(ref string, d digest.Digest, err error) {
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.images == nil {
		r.images = map[string]string{}
	}
	r.images[ref] = string(d)
}

func (r *resolved) list() []base {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []base
	for _, ref := range slices.Sorted(maps.Keys(r.images)) {
		all = append(all, base{Ref: ref, Digest: r.images[ref]})
	}
	return all
}
