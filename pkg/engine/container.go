package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"
)

// Container is what a container is to be.
type Container struct {
	Name    string // unique on the engine: a second Create of it fails with ErrNameTaken
	Image   string // an id, a tag or repository@digest that the engine has
	Command []string
	// Env is visible to everybody who may inspect the container; secrets do not belong here.
	Env     map[string]string
	Labels  map[string]string
	Network string   // id or name; empty: the engine's default bridge
	Aliases []string // names that the container answers to on Network
	// Gateway lets the container find its engine's machine as host.docker.internal.
	Gateway bool
	// Port is the TCP port inside which is published at the Publish address of the engine's Host; 0
	// publishes nothing.
	Port int
	// HostPort is the port that Port is published on. 0 lets the engine choose, anew at each start.
	HostPort int
	Mounts   []Mount
	// StopSignal is what Stop, or the engine when it ends, sends first. Empty: what the image says, else SIGTERM.
	StopSignal string
	// Restart says that the engine starts it again when it exits, and after the engine was restarted.
	Restart bool
}

// Mount puts a folder of the engine's machine, or a volume, into a container.
type Mount struct {
	Folder   string // either this,
	Volume   string // or this
	Target   string // absolute path inside
	Writable bool
}

// State is what the engine says of a container.
type State struct {
	ID       string
	Name     string
	Image    string // id of the image
	Labels   map[string]string
	Env      []string // KEY=VALUE, the image's own included
	Status   string   // created, running, paused, restarting, removing, exited, dead
	ExitCode int      // of the last time that it ran
	Error    string   // why it could not be started
	OOM      bool     // it was killed for want of memory
	Health   string   // of the image's own HEALTHCHECK: starting, healthy, unhealthy; empty without one
	Started  time.Time
	Finished time.Time
	Restarts int
	Restart  string // the policy by which the engine starts it again: always, no, …
	Limits   string // of memory, processors and processes; empty: none
	PID      int    // of its first process, on the engine's machine; 0 unless running
	// Addresses are where its TCP ports are published, as host:port by the port inside. Running only.
	Addresses map[int]string
}

// Running reports whether its process is alive.
func (s State) Running() bool { return s.Status == "running" }

// Create makes a container that does not run yet and returns its id. The error wraps ErrNameTaken,
// ErrNotFound (the image or the network) or ErrNoSource (a mount's folder).
func (e *Engine) Create(ctx context.Context, c Container) (id string, err error) {
	config, host, endpoint := e.definition(c)
	err = e.do(ctx, changeBound, "creating container "+c.Name, func(ctx context.Context) error {
		created, err := e.api.ContainerCreate(ctx, config, host, endpoint, nil, c.Name)
		id = created.ID
		if errdefs.IsConflict(err) {
			return fmt.Errorf("%w: %w", ErrNameTaken, err)
		}
		return err
	})
	return id, err
}

func (e *Engine) definition(c Container) (*container.Config, *container.HostConfig, *network.NetworkingConfig) {
	config := &container.Config{Image: c.Image, Labels: c.Labels, StopSignal: c.StopSignal}
	for _, key := range slices.Sorted(maps.Keys(c.Env)) {
		config.Env = append(config.Env, key+"="+c.Env[key])
	}
	if len(c.Command) > 0 {
		// A command is a whole command line: the image's entrypoint must not come before it.
		config.Entrypoint, config.Cmd = c.Command[:1], c.Command[1:]
	}
	host := &container.HostConfig{}
	if c.Gateway {
		host.ExtraHosts = []string{"host.docker.internal:host-gateway"}
	}
	if c.Restart {
		host.RestartPolicy = container.RestartPolicy{Name: container.RestartPolicyAlways}
	}
	if c.Port > 0 {
		port := nat.Port(strconv.Itoa(c.Port) + "/tcp")
		config.ExposedPorts = nat.PortSet{port: {}}
		binding := nat.PortBinding{HostIP: e.publish}
		if c.HostPort > 0 {
			binding.HostPort = strconv.Itoa(c.HostPort)
		}
		host.PortBindings = nat.PortMap{port: {binding}}
	}
	for _, m := range c.Mounts {
		kind, source := mount.TypeBind, m.Folder
		if m.Volume != "" {
			kind, source = mount.TypeVolume, m.Volume
		}
		host.Mounts = append(host.Mounts, mount.Mount{Type: kind, Source: source, Target: m.Target, ReadOnly: !m.Writable})
	}
	var endpoint *network.NetworkingConfig
	if c.Network != "" {
		host.NetworkMode = container.NetworkMode(c.Network)
		endpoint = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
			c.Network: {Aliases: c.Aliases},
		}}
	}
	return config, host, endpoint
}

// Start starts a created or exited container; one that runs is left alone. The error wraps ErrPortTaken
// where the host port is in use, and ErrNotFound where there is no such container. A command that cannot be
// run is an error too: its reason is the container's State.Error then, and its exit code 126 or 127.
func (e *Engine) Start(ctx context.Context, id string) error {
	return e.do(ctx, changeBound, "starting container "+id, func(ctx context.Context) error {
		err := e.api.ContainerStart(ctx, id, container.StartOptions{})
		if errdefs.IsNotFound(err) && !strings.Contains(err.Error(), "No such container") {
			// The engine says "not found" of the command as well.
			return errors.New(err.Error())
		}
		return err
	})
}

// Stop asks a container to end (SIGTERM, or what its image says), and kills it after grace. One that
// does not run, or is not there, is left alone.
func (e *Engine) Stop(ctx context.Context, id string, grace time.Duration) error {
	seconds := int(grace.Round(time.Second) / time.Second)
	err := e.do(ctx, grace+changeBound, "stopping container "+id, func(ctx context.Context) error {
		return e.api.ContainerStop(ctx, id, container.StopOptions{Timeout: &seconds})
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Kill ends a container's processes at once. One that does not run, or is not there, is left alone.
func (e *Engine) Kill(ctx context.Context, id string) error {
	err := e.do(ctx, changeBound, "killing container "+id, func(ctx context.Context) error {
		err := e.api.ContainerKill(ctx, id, "KILL")
		if errdefs.IsConflict(err) {
			return nil
		}
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Remove kills and removes a container with its anonymous volumes. Absence is no error.
func (e *Engine) Remove(ctx context.Context, id string) error {
	err := e.do(ctx, changeBound, "removing container "+id, func(ctx context.Context) error {
		err := e.api.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		if errdefs.IsConflict(err) && strings.Contains(err.Error(), "already in progress") {
			return nil
		}
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// KeepRunning makes the engine start the container again whenever it exits, and whenever the engine itself
// is started. ("unless-stopped" would not do: an engine that was killed takes the containers that it ends at
// its next start for stopped.)
func (e *Engine) KeepRunning(ctx context.Context, id string) error {
	return e.do(ctx, changeBound, "setting the restart policy of container "+id, func(ctx context.Context) error {
		_, err := e.api.ContainerUpdate(ctx, id, container.UpdateConfig{
			RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyAlways},
		})
		return err
	})
}

// Inspect returns the state of a container, by id or name. The error wraps ErrNotFound.
func (e *Engine) Inspect(ctx context.Context, id string) (State, error) {
	i, err := e.inspect(ctx, id)
	if err != nil {
		return State{}, err
	}
	return e.state(i), nil
}

func (e *Engine) inspect(ctx context.Context, id string) (i container.InspectResponse, err error) {
	err = e.do(ctx, readBound, "inspecting container "+id, func(ctx context.Context) error {
		i, err = e.api.ContainerInspect(ctx, id)
		return err
	})
	return i, err
}

func (e *Engine) state(i container.InspectResponse) State {
	s := State{
		ID: i.ID, Name: strings.TrimPrefix(i.Name, "/"), Image: i.Image, Labels: i.Config.Labels, Env: i.Config.Env,
		Status: i.State.Status, ExitCode: i.State.ExitCode, Error: i.State.Error, OOM: i.State.OOMKilled,
		Restarts: i.RestartCount, PID: i.State.Pid, Addresses: map[int]string{},
	}
	s.Started, _ = time.Parse(time.RFC3339Nano, i.State.StartedAt)
	s.Finished, _ = time.Parse(time.RFC3339Nano, i.State.FinishedAt)
	if i.HostConfig != nil {
		s.Restart, s.Limits = string(i.HostConfig.RestartPolicy.Name), limits(i.HostConfig.Resources)
	}
	if i.State.Health != nil && i.State.Health.Status != container.NoHealthcheck {
		s.Health = i.State.Health.Status
	}
	for port, bindings := range i.NetworkSettings.Ports {
		for _, b := range bindings {
			address := b.HostIP
			if ip := net.ParseIP(address); ip == nil || ip.IsUnspecified() {
				address = e.publish
			}
			s.Addresses[port.Int()] = net.JoinHostPort(address, b.HostPort)
		}
	}
	return s
}

// limits says what a container may not exceed.
func limits(r container.Resources) string {
	var all []string
	if r.Memory > 0 {
		all = append(all, fmt.Sprintf("memory %d", r.Memory))
	}
	if r.NanoCPUs > 0 {
		all = append(all, fmt.Sprintf("cpus %g", float64(r.NanoCPUs)/1e9))
	}
	if r.CPUQuota > 0 {
		all = append(all, fmt.Sprintf("cpu quota %d", r.CPUQuota))
	}
	if r.CpusetCpus != "" {
		all = append(all, "cpus "+r.CpusetCpus)
	}
	if r.PidsLimit != nil && *r.PidsLimit > 0 {
		all = append(all, fmt.Sprintf("processes %d", *r.PidsLimit))
	}
	return strings.Join(all, ", ")
}

// List returns the containers, running or not, that carry every given label with its value; an empty
// value asks for the label alone. What disappears while being looked at is left out.
func (e *Engine) List(ctx context.Context, labels map[string]string) ([]State, error) {
	found, err := e.summaries(ctx, labels)
	if err != nil {
		return nil, err
	}
	states := make([]State, 0, len(found))
	for _, summary := range found {
		s, err := e.Inspect(ctx, summary.ID)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b State) int { return strings.Compare(a.Name, b.Name) })
	return states, nil
}

// Labels returns the labels of the containers that List would find, in one call.
func (e *Engine) Labels(ctx context.Context, labels map[string]string) ([]map[string]string, error) {
	found, err := e.summaries(ctx, labels)
	if err != nil {
		return nil, err
	}
	all := make([]map[string]string, len(found))
	for i, summary := range found {
		all[i] = summary.Labels
	}
	return all, nil
}

func (e *Engine) summaries(ctx context.Context, labels map[string]string) (found []container.Summary, err error) {
	err = e.do(ctx, readBound, "listing containers", func(ctx context.Context) error {
		found, err = e.api.ContainerList(ctx, container.ListOptions{All: true, Filters: labelFilter(labels)})
		return err
	})
	return found, err
}

func labelFilter(labels map[string]string) filters.Args {
	args := filters.NewArgs()
	for key, value := range labels {
		if value != "" {
			key += "=" + value
		}
		args.Add("label", key)
	}
	return args
}
