package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/tonistiigi/fsutil"

	"towpath.dev/e2e/system"
)

// script does with the Docker Engine what a run does, one thing after the other, and nothing else: no ledger, no
// evidence, no vetting, no edge.
type script struct {
	docker   *client.Client
	registry *system.Registry
	bare     string            // repository that is pushed to
	current  map[string]string // environment → container
	images   []string
}

func newScript(ctx context.Context, folder string, b system.Binaries) (*script, error) {
	docker, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, err
	}
	s := &script{docker: docker, bare: filepath.Join(folder, "bare.git"), current: map[string]string{}}
	if s.registry, err = system.StartRegistry(ctx, b, filepath.Join(folder, "script-registry")); err != nil {
		return nil, err
	}
	return s, run(ctx, "git", "init", "-q", "--bare", s.bare)
}

func (s *script) close(ctx context.Context) error {
	var faults []error
	for _, id := range s.current {
		faults = append(faults, s.docker.ContainerRemove(ctx, id, container.RemoveOptions{Force: true}))
	}
	for _, name := range s.images {
		_, err := s.docker.ImageRemove(ctx, name, image.RemoveOptions{Force: true})
		faults = append(faults, err)
	}
	s.registry.Close()
	return errors.Join(append(faults, s.docker.Close())...)
}

// carry takes the repository's head through all environments and returns how long that took.
func (s *script) carry(ctx context.Context, r *repository) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	begin := time.Now()
	if err := r.push(ctx, s.bare); err != nil {
		return 0, err
	}
	tree, err := os.MkdirTemp("", "towpath-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(tree)
	if err := run(ctx, "git", "clone", "-q", "--depth", "1", "--branch", "main", "file://"+s.bare, tree); err != nil {
		return 0, err
	}
	name := fmt.Sprintf("%s/script:%d", s.registry.Address(), begin.UnixNano())
	if err := s.build(ctx, tree, name); err != nil {
		return 0, fmt.Errorf("building: %w", err)
	}
	s.images = append(s.images, name)
	if err := s.push(ctx, name); err != nil {
		return 0, fmt.Errorf("pushing the image: %w", err)
	}
	for _, env := range benchEnvironments {
		if err := s.deploy(ctx, env, name); err != nil {
			return 0, fmt.Errorf("deploying to %s: %w", env, err)
		}
	}
	return time.Since(begin), nil
}

// build uses BuildKit inside the Engine with the Dockerfile frontend on this side.
func (s *script) build(ctx context.Context, tree, name string) error {
	bk, err := bkclient.New(ctx, "",
		bkclient.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return s.docker.DialHijack(ctx, "/grpc", "h2c", nil)
		}),
		bkclient.WithSessionDialer(func(ctx context.Context, protocol string, meta map[string][]string) (net.Conn, error) {
			return s.docker.DialHijack(ctx, "/session", protocol, meta)
		}))
	if err != nil {
		return err
	}
	defer bk.Close()
	files, err := fsutil.NewFS(tree)
	if err != nil {
		return err
	}
	statuses := make(chan *bkclient.SolveStatus)
	go func() {
		for range statuses { // nobody watches
		}
	}()
	_, err = bk.Build(ctx, bkclient.SolveOpt{
		FrontendAttrs: map[string]string{"filename": "Dockerfile", "cmdline": "x"},
		LocalMounts:   map[string]fsutil.FS{"context": files, "dockerfile": files},
		Exports:       []bkclient.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": name}}},
	}, "", builder.Build, statuses)
	return err
}

func (s *script) push(ctx context.Context, name string) error {
	nobody := base64.URLEncoding.EncodeToString([]byte("{}"))
	progress, err := s.docker.ImagePush(ctx, name, image.PushOptions{RegistryAuth: nobody})
	if err != nil {
		return err
	}
	defer progress.Close()
	for lines := json.NewDecoder(progress); ; {
		var line struct{ Error string }
		if err := lines.Decode(&line); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if line.Error != "" {
			return errors.New(line.Error)
		}
	}
}

// deploy starts the new container, waits until it is healthy, and stops and removes the old one.
func (s *script) deploy(ctx context.Context, env, name string) error {
	const port = nat.Port("8080/tcp")
	created, err := s.docker.ContainerCreate(ctx,
		&container.Config{Image: name, ExposedPorts: nat.PortSet{port: {}}},
		&container.HostConfig{PortBindings: nat.PortMap{port: {{HostIP: "127.0.0.1"}}}}, nil, nil, "")
	if err != nil {
		return err
	}
	old := s.current[env]
	s.current[env] = created.ID
	if err := s.docker.ContainerStart(ctx, created.ID, container.StartOptions{}); err != nil {
		return err
	}
	inspected, err := s.docker.ContainerInspect(ctx, created.ID)
	if err != nil {
		return err
	}
	bound := inspected.NetworkSettings.Ports[port]
	if len(bound) == 0 {
		return errors.New("no port was published")
	}
	if err := healthy(ctx, "http://127.0.0.1:"+bound[0].HostPort+"/health"); err != nil {
		return err
	}
	if old == "" {
		return nil
	}
	if err := s.docker.ContainerStop(ctx, old, container.StopOptions{}); err != nil {
		return err
	}
	return s.docker.ContainerRemove(ctx, old, container.RemoveOptions{Force: true})
}

func healthy(ctx context.Context, url string) error {
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", url, errors.Join(ctx.Err(), err))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// run runs a program; the error holds what it printed.
func run(ctx context.Context, name string, args ...string) error {
	if text, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, text)
	}
	return nil
}
