package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"

	"towpath.dev/e2e/system"
)

// services is how many apps the environment has, each with this configuration and these secrets.
const services = 10

var (
	configuration = map[string]string{"GREETING": "hello", "LOG_LEVEL": "info", "DATABASE_URL": "postgres://db.example:5432/app"}
	secrets       = map[string]string{"DATABASE_PASSWORD": "correct horse", "API_KEY": "battery staple"}
)

// wholeEnvironment measures `towpath env create`, from when the command is typed until it says that all is up and verified,
// against a script that starts the same containers side by side: the images are on the Engine for both, and both make a
// network of their own, hand each container its configuration as variables and its secrets as files on tmpfs, publish a
// port of it and wait until it is healthy. They take turns, so that the
// machine's moods hit both; what is taken down afterwards is not measured.
func wholeEnvironment(ctx context.Context, o options) ([]figure, error) {
	s, err := openSystem(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close(ctx)
	images, err := fillProd(ctx, s.System, filepath.Join(s.binaries.Folder, "towpath"), s.folder, s.binaries.Sample)
	if err != nil {
		return nil, err
	}
	docker, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, err
	}
	defer docker.Close()
	var made, scripted []time.Duration
	for n := range o.runs + 1 {
		one, err := timeEnvironment(ctx, s.System, filepath.Join(s.binaries.Folder, "towpath"), fmt.Sprintf("demo%d", n))
		if err != nil {
			return nil, err
		}
		same, err := startSideBySide(ctx, docker, fmt.Sprintf("bench-%d-%d", os.Getpid(), n), images)
		if err != nil {
			return nil, fmt.Errorf("the same containers by a script: %w", err)
		}
		if n > 0 { // the first of each warms caches up
			made, scripted = append(made, one), append(scripted, same)
		}
	}
	m, c := share(made, 0.5), share(scripted, 0.5)
	return []figure{
		{fmt.Sprintf("an environment of %d services from nothing, median of %d", services, o.runs), ms(m), "", true},
		{"the same containers started side by side by a script, median", ms(c), "", true},
		{"the environment ÷ the script", ratio(m, c), "≤ 1.2", float64(m) <= 1.2*float64(c)},
	}, nil
}

// fillProd takes the apps to prod and returns their images, as the Engine knows them.
func fillProd(ctx context.Context, s *system.System, towpath, folder, sample string) ([]string, error) {
	var images []string
	for n := range services {
		app := fmt.Sprintf("service%d", n)
		r, err := newRepository(ctx, filepath.Join(folder, app), sample)
		if err != nil {
			return nil, err
		}
		pipeline := fmt.Sprintf("app: %s\nservice: {port: 8080, health: /health}\nconfig: [%s]\nsecrets: [%s]\nenvironments: [{name: prod}]\n", app,
			strings.Join(slices.Sorted(maps.Keys(configuration)), ", "), strings.Join(slices.Sorted(maps.Keys(secrets)), ", "))
		for key, value := range configuration {
			if err := command(ctx, s, towpath, "", "config", "set", "prod", app, key+"="+value); err != nil {
				return nil, err
			}
		}
		for key, value := range secrets {
			if err := command(ctx, s, towpath, value, "secret", "set", "prod", app, key); err != nil {
				return nil, err
			}
		}
		if err := os.WriteFile(filepath.Join(folder, app, "towpath.yaml"), []byte(pipeline), 0o600); err != nil {
			return nil, err
		}
		if err := r.change(ctx, app); err != nil {
			return nil, err
		}
		if err := r.push(ctx, s.Variables()["GIT"]+"/"+app+".git"); err != nil {
			return nil, err
		}
		waiting, cancel := context.WithTimeout(ctx, 2*time.Minute)
		err = s.Await(waiting, app, regexp.MustCompile(`\.prod\.slot\.closed\.`))
		cancel()
		if err != nil {
			return nil, fmt.Errorf("%s in prod: %w", app, err)
		}
		lines, err := s.Containers(ctx, false, app, "prod")
		if err != nil {
			return nil, err
		}
		image := regexp.MustCompile(`image=([^, \n]+)`).FindStringSubmatch(strings.Join(lines, ""))
		if image == nil {
			return nil, fmt.Errorf("no image of %s in %q", app, lines)
		}
		images = append(images, image[1])
	}
	return images, nil
}

// timeEnvironment has an environment like prod made, and destroyed again, and returns how long the first took.
func timeEnvironment(ctx context.Context, s *system.System, towpath, name string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	begin := time.Now()
	err := command(ctx, s, towpath, "", "env", "create", name, "--from", "prod")
	took := time.Since(begin)
	if err == nil {
		err = command(ctx, s, towpath, "", "env", "destroy", name, "--yes")
	}
	return took, err
}

// command runs a command of Towpath's with something to read.
func command(ctx context.Context, s *system.System, towpath, stdin string, args ...string) error {
	c := exec.CommandContext(ctx, towpath, args...)
	c.Env = append(os.Environ(), "TOWPATH_URL="+s.Variables()["TOWPATH_URL"], "TOWPATH_TOKEN="+s.Variables()["TOWPATH_TOKEN"])
	c.Stdin = strings.NewReader(stdin)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("towpath %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// startSideBySide starts a container of each image in a network of their own, removes all of it again, and returns how long
// it took until the last was healthy.
func startSideBySide(ctx context.Context, docker *client.Client, name string, images []string) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	ids := make([]string, len(images))
	faults := make([]error, len(images))
	tmpfs, err := os.MkdirTemp("/dev/shm", "towpath-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(tmpfs)
	begin := time.Now()
	made, err := docker.NetworkCreate(ctx, name, network.CreateOptions{})
	if err != nil {
		return 0, err
	}
	var starting sync.WaitGroup
	for i, image := range images {
		starting.Go(func() {
			ids[i], faults[i] = startHealthy(ctx, docker, made.ID, fmt.Sprintf("service%d", i), image, tmpfs)
		})
	}
	starting.Wait()
	took = time.Since(begin)
	for _, id := range ids {
		if id != "" {
			faults = append(faults, docker.ContainerRemove(ctx, id, container.RemoveOptions{Force: true}))
		}
	}
	return took, errors.Join(append(faults, docker.NetworkRemove(ctx, made.ID))...)
}

// startHealthy starts a container with its settings, the secrets as files in a folder of its own below tmpfs, and waits until
// it is healthy.
func startHealthy(ctx context.Context, docker *client.Client, in, alias, image, tmpfs string) (id string, err error) {
	const port = nat.Port("8080/tcp")
	var variables []string
	for key, value := range configuration {
		variables = append(variables, key+"="+value)
	}
	folder := filepath.Join(tmpfs, alias)
	if err := os.Mkdir(folder, 0o700); err != nil {
		return "", err
	}
	for key, value := range secrets {
		if err := os.WriteFile(filepath.Join(folder, key), []byte(value), 0o444); err != nil {
			return "", err
		}
	}
	created, err := docker.ContainerCreate(ctx,
		&container.Config{Image: image, ExposedPorts: nat.PortSet{port: {}}, Env: variables},
		&container.HostConfig{
			Binds:        []string{folder + ":/run/secrets:ro"},
			PortBindings: nat.PortMap{port: {{HostIP: "127.0.0.1"}}}, NetworkMode: container.NetworkMode(in),
			RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyAlways},
		},
		&network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{in: {Aliases: []string{alias}}}}, nil, "")
	if err != nil {
		return "", err
	}
	if err := docker.ContainerStart(ctx, created.ID, container.StartOptions{}); err != nil {
		return created.ID, err
	}
	inspected, err := docker.ContainerInspect(ctx, created.ID)
	if err != nil {
		return created.ID, err
	}
	bound := inspected.NetworkSettings.Ports[port]
	if len(bound) == 0 {
		return created.ID, errors.New("no port was published")
	}
	return created.ID, healthy(ctx, "http://127.0.0.1:"+bound[0].HostPort+"/health")
}
