package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"
)

// pullSilence is how long a pull may go without a word of progress.
const pullSilence = 2 * time.Minute

// Image is an image that the engine has.
type Image struct {
	ID           string // "sha256:…" of its configuration
	OS           string
	Architecture string
	Ports        []int // TCP ports that it declares with EXPOSE
	HasCommand   bool  // it says what to run
	HasHealth    bool  // it declares a HEALTHCHECK
}

// Credentials are for a registry that asks for them; the zero value is anonymous.
type Credentials struct {
	Username string
	Password string
}

// Image looks at an image that the engine has, by id, tag or repository@digest. The error wraps
// ErrNotFound where it has none.
func (e *Engine) Image(ctx context.Context, name string) (Image, error) {
	i, err := e.inspectImage(ctx, name)
	if err != nil {
		return Image{}, err
	}
	return describe(i), nil
}

func (e *Engine) inspectImage(ctx context.Context, name string) (i image.InspectResponse, err error) {
	err = e.do(ctx, readBound, "inspecting image "+name, func(ctx context.Context) error {
		i, err = e.api.ImageInspect(ctx, name)
		return err
	})
	return i, err
}

func describe(i image.InspectResponse) Image {
	out := Image{ID: i.ID, OS: i.Os, Architecture: i.Architecture}
	if c := i.Config; c != nil {
		out.HasCommand = len(c.Cmd)+len(c.Entrypoint) > 0
		out.HasHealth = c.Healthcheck != nil && len(c.Healthcheck.Test) > 0 && c.Healthcheck.Test[0] != "NONE"
		for port := range c.ExposedPorts {
			number, protocol, _ := strings.Cut(port, "/")
			if n, err := strconv.Atoi(number); err == nil && protocol != "udp" {
				out.Ports = append(out.Ports, n)
			}
		}
		slices.Sort(out.Ports)
	}
	return out
}

// Pull makes sure that the engine has repository@digest ("127.0.0.1:7050/hello", "sha256:…") and that it
// knows the image by that digest. What is there already is not asked for again. A pull is given up
// when it says nothing for two minutes. The error wraps ErrNotFound where the registry has no such
// image, ErrNoPlatform where it has none for the engine's platform.
func (e *Engine) Pull(ctx context.Context, repository, digest string, credentials Credentials) (Image, error) {
	name, err := reference.ParseNormalizedNamed(repository)
	if err != nil {
		return Image{}, fmt.Errorf("pulling %s: %w", repository, err)
	}
	pinned := reference.FamiliarName(name) + "@" + digest
	i, err := e.inspectImage(ctx, pinned)
	if errors.Is(err, ErrNotFound) {
		if err = e.pull(ctx, pinned, credentials); err == nil {
			i, err = e.inspectImage(ctx, pinned)
		}
	}
	if err != nil {
		return Image{}, err
	}
	if !slices.Contains(i.RepoDigests, pinned) {
		return Image{}, fmt.Errorf("pulling %s: the engine at %s has %s with the digests %v instead; nothing was started", pinned, e.host.URL, i.ID, i.RepoDigests)
	}
	return describe(i), nil
}

func (e *Engine) pull(ctx context.Context, pinned string, credentials Credentials) error {
	doing := "pulling " + pinned
	auth := ""
	if credentials != (Credentials{}) {
		var err error
		if auth, err = registry.EncodeAuthConfig(registry.AuthConfig{Username: credentials.Username, Password: credentials.Password}); err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
	}
	heard, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(pullSilence, func() { cancel(context.DeadlineExceeded) })
	defer watchdog.Stop()
	progress, err := e.api.ImagePull(heard, pinned, image.PullOptions{RegistryAuth: auth})
	if err == nil {
		err = progressError(progress, func() { watchdog.Reset(pullSilence) })
		progress.Close()
	}
	if err != nil && ctx.Err() == nil && context.Cause(heard) == context.DeadlineExceeded {
		err = context.DeadlineExceeded
	}
	if err != nil && strings.Contains(err.Error(), "no matching manifest for") {
		return fmt.Errorf("%s: %w: %w", doing, ErrNoPlatform, err)
	}
	if err != nil && strings.Contains(err.Error(), "manifest unknown") {
		return fmt.Errorf("%s: %w: %w", doing, ErrNotFound, err)
	}
	return e.fault(ctx, pullSilence, doing, err)
}

// progressError reads an engine's stream of progress to its end and returns the error that it reports.
func progressError(r io.Reader, heard func()) error {
	d := json.NewDecoder(r)
	for {
		var message struct {
			Error string `json:"error"`
		}
		if err := d.Decode(&message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if message.Error != "" {
			return errors.New(message.Error)
		}
		heard()
	}
}

// Import makes an image of one layer from a tar stream of its files, under a name. changes
// are Dockerfile instructions such as `CMD ["/hello"]`; platform is "linux/amd64" or empty for the
// engine's own.
func (e *Engine) Import(ctx context.Context, name string, files io.Reader, platform string, changes ...string) error {
	return e.do(ctx, 5*changeBound, "importing image "+name, func(ctx context.Context) error {
		progress, err := e.api.ImageImport(ctx, image.ImportSource{Source: files, SourceName: "-"}, name,
			image.ImportOptions{Changes: changes, Platform: platform})
		if err != nil {
			return err
		}
		defer progress.Close()
		return progressError(progress, func() {})
	})
}

// RemoveImage removes a name of an image, and the image with its last name. Absence is no error.
func (e *Engine) RemoveImage(ctx context.Context, name string) error {
	err := e.do(ctx, changeBound, "removing image "+name, func(ctx context.Context) error {
		_, err := e.api.ImageRemove(ctx, name, image.RemoveOptions{PruneChildren: true})
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
