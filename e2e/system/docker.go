package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	dockerevents "github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"

	"towpath.dev/pkg/pause"
)

// The labels by which Towpath marks what it creates on an Engine.
const (
	labelInstall = "towpath.install"
	labelApp     = "towpath.app"
	labelEnv     = "towpath.env"
	labelRun     = "towpath.run"
	labelSlot    = "towpath.slot"
)

// docker looks at an Engine from outside, with a client of its own, so that what Towpath believes can be compared
// with what is there.
type docker struct {
	api      *client.Client
	registry string // host:port of the system's registry: by it the system's containers are known among others'

	mu      sync.Mutex
	install string   // label of what the system makes, once it has made something
	started []string // names of the system's containers, in the order of their starts
	stop    context.CancelFunc
}

// openDocker connects to the Engine at host (empty: DOCKER_HOST, else the local one).
func openDocker(ctx context.Context, host string) (*docker, error) {
	options := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if host != "" {
		options = append(options, client.WithHost(host))
	}
	api, err := client.NewClientWithOpts(options...)
	if err != nil {
		return nil, fmt.Errorf("connecting to the Docker Engine: %w", err)
	}
	if _, err := api.Ping(ctx); err != nil {
		api.Close()
		return nil, fmt.Errorf("no Docker Engine answers (deployments/engine.sh gets one): %w", err)
	}
	return &docker{api: api, stop: func() {}}, nil
}

// watch notes from now on which containers are started of images from a registry.
func (d *docker) watch(registry string) {
	d.registry = registry
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	options := dockerevents.ListOptions{Filters: filters.NewArgs(
		filters.Arg("type", "container"), filters.Arg("event", "start"), filters.Arg("label", labelInstall))}
	listen := func() error {
		messages, errs := d.api.Events(ctx, options)
		for {
			select {
			case message := <-messages:
				next := message.TimeNano + 1
				options.Since = fmt.Sprintf("%d.%09d", next/1e9, next%1e9)
				d.note(ctx, message.Actor.Attributes)
			case err := <-errs:
				return err
			}
		}
	}
	go func() {
		for listen() != nil && ctx.Err() == nil { // an Engine that was restarted has forgotten what was before
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
}

func (d *docker) note(ctx context.Context, about map[string]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.install == "" {
		for _, reference := range d.references(ctx, about["image"]) {
			if strings.HasPrefix(reference, d.registry+"/") {
				d.install = about[labelInstall]
			}
		}
	}
	if d.install != "" && about[labelInstall] == d.install {
		d.started = append(d.started, about["name"])
	}
}

// references are the repository@digest names by which the Engine knows an image.
func (d *docker) references(ctx context.Context, id string) []string {
	inspected, err := d.api.ImageInspect(ctx, id)
	if err != nil {
		return nil
	}
	return inspected.RepoDigests
}

// imagesOf are the references of a container's image, and the one by which it was asked for: the Engine forgets the others
// with the image's last tag, though containers run it.
func (d *docker) imagesOf(ctx context.Context, c container.Summary) []string {
	names := d.references(ctx, c.ImageID)
	if inspected, err := d.api.ContainerInspect(ctx, c.ID); err == nil && inspected.Config != nil {
		names = append(names, inspected.Config.Image)
	}
	return names
}

func (d *docker) close() {
	d.stop()
	d.api.Close()
}

// startedNames lists the system's containers that were started and whose names match.
func (d *docker) startedNames(pattern *regexp.Regexp) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for _, name := range d.started {
		if pattern.MatchString(name) {
			names = append(names, name)
		}
	}
	return names
}

// installed returns the label of what the system made, or "" where it has made nothing yet.
func (d *docker) installed() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.install
}

func (d *docker) list(ctx context.Context, all bool, labels ...string) ([]container.Summary, error) {
	arguments := filters.NewArgs()
	for _, label := range labels {
		arguments.Add("label", label)
	}
	list, err := d.api.ContainerList(ctx, container.ListOptions{All: all, Filters: arguments})
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Names[0] < list[j].Names[0] })
	return list, nil
}

// line describes a container: its image by the digests that the Engine itself knows, whatever the labels say.
func (d *docker) line(ctx context.Context, c container.Summary) string {
	return fmt.Sprintf("%s %s app=%s env=%s run=%s slot=%s image=%s\n", strings.TrimPrefix(c.Names[0], "/"), c.State,
		c.Labels[labelApp], c.Labels[labelEnv], c.Labels[labelRun], c.Labels[labelSlot], strings.Join(d.imagesOf(ctx, c), ","))
}

// inspect returns what the Engine says of every container with the labels, and of their images.
func (d *docker) inspect(ctx context.Context, labels ...string) (string, error) {
	list, err := d.list(ctx, true, labels...)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, c := range list {
		inspected, err := d.api.ContainerInspect(ctx, c.ID)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("inspecting %s: %w", c.Names[0], err)
		}
		var raw strings.Builder
		encoder := json.NewEncoder(&raw)
		encoder.SetIndent("", " ")
		if err := encoder.Encode(inspected); err != nil {
			return "", err
		}
		text.WriteString(raw.String())
		history, err := d.api.ImageHistory(ctx, c.ImageID)
		if err == nil {
			fmt.Fprintf(&text, "%+v\n", history)
		}
	}
	return text.String(), nil
}

// remove takes away everything that the system made, and the images of its registry.
func (d *docker) remove(ctx context.Context) error {
	install := d.installed()
	var faults []error
	keep := func(err error) {
		if err != nil && !errdefs.IsNotFound(err) {
			faults = append(faults, err)
		}
	}
	label := labelInstall + "=" + install
	if install != "" {
		list, err := d.list(ctx, true, label)
		keep(err)
		for _, c := range list {
			keep(d.removeContainer(ctx, c.ID))
		}
		with := filters.NewArgs(filters.Arg("label", label))
		networks, err := d.api.NetworkList(ctx, network.ListOptions{Filters: with})
		keep(err)
		for _, n := range networks {
			keep(d.api.NetworkRemove(ctx, n.ID))
		}
		volumes, err := d.api.VolumeList(ctx, volume.ListOptions{Filters: with})
		keep(err)
		for _, v := range volumes.Volumes {
			keep(d.api.VolumeRemove(ctx, v.Name, true))
		}
	}
	images, err := d.api.ImageList(ctx, image.ListOptions{All: true})
	keep(err)
	for _, i := range images {
		for _, reference := range append(i.RepoTags, i.RepoDigests...) {
			if strings.HasPrefix(reference, d.registry+"/") {
				_, err := d.api.ImageRemove(ctx, reference, image.RemoveOptions{Force: true, PruneChildren: true})
				keep(err)
			}
		}
	}
	return errors.Join(faults...)
}

// removeContainer removes a container, or waits until it is gone where somebody who has ended asked for that before.
func (d *docker) removeContainer(ctx context.Context, id string) error {
	for {
		err := d.api.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
		if !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "already in progress") || pause.For(ctx, 100*time.Millisecond) != nil {
			return err
		}
	}
}

// left lists what carries the system's label and an environment's.
func (d *docker) left(ctx context.Context, env string) ([]string, error) {
	install := d.installed()
	if install == "" {
		return nil, errors.New("the system has made nothing on the Engine yet: nothing can be looked for")
	}
	var all []string
	containers, err := d.list(ctx, true, labelInstall+"="+install, labelEnv+"="+env)
	if err != nil {
		return nil, err
	}
	for _, c := range containers {
		all = append(all, "container "+c.Names[0])
	}
	with := filters.NewArgs(filters.Arg("label", labelInstall+"="+install), filters.Arg("label", labelEnv+"="+env))
	networks, err := d.api.NetworkList(ctx, network.ListOptions{Filters: with})
	if err != nil {
		return nil, fmt.Errorf("listing networks: %w", err)
	}
	for _, n := range networks {
		all = append(all, "network "+n.Name)
	}
	volumes, err := d.api.VolumeList(ctx, volume.ListOptions{Filters: with})
	if err != nil {
		return nil, fmt.Errorf("listing volumes: %w", err)
	}
	for _, v := range volumes.Volumes {
		all = append(all, "volume "+v.Name)
	}
	for _, memory := range []string{"/run", "/dev/shm"} {
		folders, err := filepath.Glob(filepath.Join(memory, "towpath-"+install, env))
		if err != nil {
			return nil, err
		}
		all = append(all, folders...)
	}
	return all, nil
}

// ContainersOf describes what Towpath runs on an Engine, one line each.
func ContainersOf(ctx context.Context, host string) (string, error) {
	d, err := openDocker(ctx, host)
	if err != nil {
		return "", err
	}
	defer d.close()
	list, err := d.list(ctx, true, labelInstall)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, c := range list {
		text.WriteString(d.line(ctx, c))
	}
	return text.String(), nil
}
