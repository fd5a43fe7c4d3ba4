package system

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// Binaries are the programs under test and the real servers beside them.
type Binaries struct {
	Folder  string // towpath and one program for each service
	Servers string // nats-server, registry
	Sample  string // the app that is deployed, static
}

// Root is the workspace's top folder.
var Root = sync.OnceValue(func() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
})

// Services are the programs of the separate shape, in the order in which they are started.
var Services = []string{"ledger", "gateway", "build", "vet", "promote", "verify", "watch", "notify", "edge"}

// Build builds everything once for this process and returns where it is. Go's own cache makes it cheap when
// nothing has changed. Our programs have the race detector where race is set, and the build tags. With TOWPATH_E2E_BINARIES, the
// programs in that folder are tested instead, as they are, unless tags are asked for.
func Build(ctx context.Context, race bool, tags ...string) (Binaries, error) {
	cache := filepath.Join(Root(), ".cache", "e2e")
	b := Binaries{Folder: filepath.Join(cache, "bin"), Sample: filepath.Join(cache, "sample")}
	if race {
		b.Folder += "-race"
	}
	for _, tag := range tags {
		b.Folder += "-" + tag
	}
	if err := os.MkdirAll(b.Folder, 0o755); err != nil {
		return b, err
	}
	unlock, err := lockFile(filepath.Join(cache, "lock"))
	if err != nil {
		return b, err
	}
	defer unlock()

	servers, err := output(ctx, nil, filepath.Join(Root(), "deployments/servers/build.sh"), "nats-server", "registry")
	if err != nil {
		return b, fmt.Errorf("building the real servers: %w", err)
	}
	b.Servers = strings.TrimSpace(servers)
	if _, err := output(ctx, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", b.Sample, "./e2e/sample"); err != nil {
		return b, fmt.Errorf("building the sample app: %w", err)
	}
	if given := os.Getenv("TOWPATH_E2E_BINARIES"); given != "" && len(tags) == 0 {
		b.Folder = given
		return b, nil
	}
	args := []string{"build", "-o", b.Folder + "/"}
	if race {
		args = append(args, "-race")
	}
	if len(tags) > 0 {
		args = append(args, "-tags", strings.Join(tags, ","))
	}
	args = append(args, "./services/towpath/cmd/towpath", "./e2e/bot")
	for _, service := range Services {
		args = append(args, "./services/"+service+"/cmd/"+service)
	}
	if _, err := output(ctx, nil, "go", args...); err != nil {
		return b, fmt.Errorf("building towpath: %w", err)
	}
	return b, nil
}

// output runs a program in the workspace's top folder and returns its stdout; the error holds its stderr.
func output(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = Root()
	cmd.Env = append(os.Environ(), env...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// lockFile holds a file lock, so that two test processes do not build at once.
func lockFile(name string) (unlock func(), err error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		file.Close()
		return nil, fmt.Errorf("locking %s: %w", name, err)
	}
	return func() { file.Close() }, nil
}
