// Package system starts a whole Towpath for a scenario, in either shape, and looks at it from outside: through
// its command line, its HTTP API, its edge, the files that it writes, and the Docker Engine.
//
// It guarantees that nothing which it started outlives the program that uses it, and that Close removes what the
// system created on the Engine. It does not hide the difference between the shapes: killing one service of the
// all-in-one kills all of it.
package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"towpath.dev/pkg/freeport"
)

// Shape says how the services are spread over processes.
type Shape string

const (
	// AllInOne is `towpath up`: one process with bus, registry and every service.
	AllInOne Shape = "all-in-one"
	// Separate is one process for each service, a real nats-server and a real registry.
	Separate Shape = "separate"
)

// Options say what to start.
type Options struct {
	Shape    Shape
	Binaries Binaries
	Folder   string        // for logs and everything that Data does not hold; made if missing
	Data     string        // the data folder; empty: "data" in Folder
	Platform string        // platform.yaml, without what the harness itself puts there
	Registry string        // host:port of a registry that Platform names; empty: one of the system's own
	AckWait  time.Duration // of the bus's consumers; 0: what the programs take by themselves
	// Environment, where not nil, is asked at each start of a program for more of its environment.
	Environment func(program string) []string
}

// Bounds of the harness's own waits. They are far above what is usual, because tests share two cores.
const (
	startBound = 60 * time.Second
	stopBound  = 45 * time.Second
)

// System is one running Towpath.
type System struct {
	options   Options
	data      string
	gateway   string // host:port
	edge      string
	registry  string
	bus       string
	token     string
	programs  []program
	processes map[string]*process
	own       *Registry // separate shape only
	docker    *docker
}

// program is one process of the system, and how it is started.
type program struct {
	name  string
	argv  []string
	env   []string
	ready func(context.Context) error
}

// Start starts a system and waits until it is ready.
func Start(ctx context.Context, o Options) (*System, error) {
	s := &System{options: o, data: o.Data, processes: map[string]*process{}}
	if s.data == "" {
		s.data = filepath.Join(o.Folder, "data")
	}
	for _, folder := range []string{o.Folder, s.data} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, err
		}
	}
	for _, address := range []*string{&s.gateway, &s.edge, &s.registry, &s.bus} {
		port, err := freeport.Port()
		if err != nil {
			return nil, err
		}
		*address = fmt.Sprintf("127.0.0.1:%d", port)
	}
	if o.Registry != "" {
		s.registry = o.Registry
	}
	var err error
	if s.docker, err = openDocker(ctx, ""); err != nil {
		return nil, err
	}
	switch o.Shape {
	case AllInOne:
		err = s.prepareAllInOne()
	case Separate:
		err = s.prepareSeparate(ctx)
	default:
		err = fmt.Errorf("unknown shape %q", o.Shape)
	}
	if err == nil {
		s.docker.watch(s.registry)
		err = s.Restart(ctx, "all")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the %s system: %w\n%s", o.Shape, err, s.LogTail(60)), s.Close(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// Shape returns how the services are spread over processes.
func (s *System) Shape() Shape { return s.options.Shape }

// Variables are what a script needs to reach the system.
func (s *System) Variables() map[string]string {
	return map[string]string{
		"TOWPATH_URL":   "http://" + s.gateway,
		"TOWPATH_TOKEN": s.token,
		"GIT":           "http://ada:" + s.token + "@" + s.gateway + "/git",
		"GATEWAY":       s.gateway,
		"EDGE":          s.edge,
		"DATA":          s.data,
		"REGISTRY":      s.registry,
		"BUS":           "nats://" + s.bus,
		"KEYS":          s.keys(),
	}
}

// keys is the folder with the keys of every identity.
func (s *System) keys() string { return filepath.Join(s.data, "keys") }

// Restart starts the programs that do not run: all of them, or the one that holds the service; it waits until
// each is ready.
func (s *System) Restart(ctx context.Context, service string) error {
	found := false
	for _, p := range s.programs {
		if service != "all" && s.holderOf(service) != p.name {
			continue
		}
		found = true
		if running := s.processes[p.name]; running != nil && running.running() {
			continue
		}
		if err := s.launch(p); err != nil {
			return err
		}
		if p.ready == nil {
			continue
		}
		if err := until(ctx, p.name+" to be ready", startBound, []*process{s.processes[p.name]}, p.ready); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("no service %q", service)
	}
	return nil
}

// launch starts a program and does not wait for anything.
func (s *System) launch(p program) error {
	env := append(os.Environ(), p.env...)
	if s.options.Environment != nil {
		env = append(env, s.options.Environment(p.name)...)
	}
	started, err := startProcess(p.name, s.logFile(p.name), env, p.argv...)
	if err == nil {
		s.processes[p.name] = started
	}
	return err
}

// Revive starts the programs that have ended, but those that are to stay down, without waiting until they are ready,
// and returns their names.
func (s *System) Revive(down ...string) (revived []string, err error) {
	for _, p := range s.programs {
		if running := s.processes[p.name]; running != nil && running.running() || slices.Contains(down, p.name) {
			continue
		}
		if err := s.launch(p); err != nil {
			return revived, err
		}
		revived = append(revived, p.name)
	}
	return revived, nil
}

// Programs are the names of the system's processes, in the order of their start.
func (s *System) Programs() []string {
	var names []string
	for _, p := range s.programs {
		names = append(names, p.name)
	}
	return names
}

// Pid is the process id of a program that was started; 0 where none was.
func (s *System) Pid(program string) int {
	if p := s.processes[program]; p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

// holderOf names the program that holds a service.
func (s *System) holderOf(service string) string {
	if s.options.Shape == AllInOne {
		return "towpath"
	}
	return service
}

// Kill kills the process that holds the service with SIGKILL; "all" kills every process of ours, all at once,
// the bus included.
func (s *System) Kill(service string) error {
	var victims []*process
	for name, p := range s.processes {
		if p.running() && (service == "all" || name == s.holderOf(service)) {
			victims = append(victims, p)
			p.cmd.Process.Kill()
		}
	}
	if len(victims) == 0 {
		return fmt.Errorf("%s does not run", service)
	}
	for _, p := range victims {
		<-p.done
	}
	return nil
}

// Memory returns how many bytes of memory the process that holds the service has resident.
func (s *System) Memory(service string) (int64, error) {
	p := s.processes[s.holderOf(service)]
	if p == nil || !p.running() {
		return 0, fmt.Errorf("%s does not run", service)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	var kib int64
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("no VmRSS in the status of process %d", p.cmd.Process.Pid)
}

// Stop stops the process that holds the service with SIGTERM and waits until it has drained.
func (s *System) Stop(service string) error {
	p := s.processes[s.holderOf(service)]
	if p == nil || !p.running() {
		return fmt.Errorf("%s does not run", service)
	}
	return p.stop(stopBound)
}

// Down stops everything with SIGTERM, in the reverse order of the start. What it deployed keeps running.
func (s *System) Down() error {
	var faults []error
	for i := len(s.programs) - 1; i >= 0; i-- {
		if p := s.processes[s.programs[i].name]; p != nil {
			faults = append(faults, p.stop(stopBound))
		}
	}
	return errors.Join(faults...)
}

// Close stops everything and removes what the system created on the Engine.
func (s *System) Close(ctx context.Context) error {
	faults := []error{s.Down()}
	if s.own != nil {
		s.own.Close()
	}
	if s.docker != nil {
		faults = append(faults, s.docker.remove(ctx))
		s.docker.close()
	}
	return errors.Join(faults...)
}

// Get sends one GET through the edge.
func (s *System) Get(env, app, path string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.edge+path, nil)
	if err != nil {
		return 0, "", err
	}
	request.Host = app + "." + env + ".localhost"
	request.Close = true
	return do(request)
}

// Fetch sends one GET to a URL, as a browser without a token does.
func Fetch(ctx context.Context, url string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	return do(request)
}

// api sends one GET with the token to the gateway and returns the body of any answer.
func (s *System) api(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.gateway+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+s.token)
	_, body, err := do(request)
	return []byte(body), err
}

func do(request *http.Request) (status int, body string, err error) {
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return response.StatusCode, string(text), err
}

// Containers describes the containers of an app and an environment, if they are given, one line each.
func (s *System) Containers(ctx context.Context, all bool, app, env string) ([]string, error) {
	labels := []string{labelInstall + "=" + s.docker.installed()}
	if app != "" {
		labels = append(labels, labelApp+"="+app)
	}
	if env != "" {
		labels = append(labels, labelEnv+"="+env)
	}
	list, err := s.docker.list(ctx, all, labels...)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, c := range list {
		lines = append(lines, s.docker.line(ctx, c))
	}
	return lines, nil
}

// Left is everything that the system has on the Engine in an environment: containers, networks, volumes, and folders with
// secrets in this machine's memory.
func (s *System) Left(ctx context.Context, env string) ([]string, error) {
	return s.docker.left(ctx, env)
}

// Inspect is what the Engine says of every container of the app and of their images' histories.
func (s *System) Inspect(ctx context.Context, app string) (string, error) {
	return s.docker.inspect(ctx, labelApp+"="+app, labelInstall+"="+s.docker.installed())
}

// Started lists the names of containers that Towpath started since the system was started and that match.
func (s *System) Started(pattern *regexp.Regexp) []string { return s.docker.startedNames(pattern) }

func (s *System) logFile(name string) string { return filepath.Join(s.options.Folder, name+".log") }

// LogTail returns the last lines of every program's log.
func (s *System) LogTail(lines int) string {
	var text strings.Builder
	for _, p := range s.programs {
		content, err := os.ReadFile(s.logFile(p.name))
		if err != nil {
			continue
		}
		all := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
		fmt.Fprintf(&text, "── %s (last %d of %d lines)\n%s\n", p.name, min(lines, len(all)), len(all), strings.Join(all[max(0, len(all)-lines):], "\n"))
	}
	return text.String()
}

// Races returns what the race detector wrote into the logs.
func (s *System) Races() string {
	var found []string
	for _, p := range s.programs {
		content, err := os.ReadFile(s.logFile(p.name))
		if err != nil {
			continue
		}
		if at := strings.Index(string(content), "WARNING: DATA RACE"); at >= 0 {
			found = append(found, p.name+":\n"+string(content[at:min(len(content), at+4000)]))
		}
	}
	return strings.Join(found, "\n")
}
