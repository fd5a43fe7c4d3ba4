// Package doctor looks at what Towpath needs on this machine and on its Docker Engines, and says what
// to do where something is missing.
//
// It changes nothing. What only the running gateway can see (the bus, the services) the gateway's own
// checks say; this package is for before a start as much as for after it.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"towpath.dev/pkg/policy"
	"towpath.dev/services/build"
	"towpath.dev/services/towpath"
	"towpath.dev/services/towpath/client"
)

// How a check came out.
const (
	OK      = "ok"
	Warning = "warning"
	Broken  = "broken"
)

func ok(name, format string, a ...any) client.Check {
	return client.Check{Name: name, Status: OK, Detail: fmt.Sprintf(format, a...)}
}

func warning(name, fix, format string, a ...any) client.Check {
	return client.Check{Name: name, Status: Warning, Detail: fmt.Sprintf(format, a...), Fix: fix}
}

func broken(name, fix, format string, a ...any) client.Check {
	return client.Check{Name: name, Status: Broken, Detail: fmt.Sprintf(format, a...), Fix: fix}
}

// Machine looks at this machine, at the data folder and at the Engines that its platform file names.
// It takes as long as the slowest Engine, at most 30 s.
func Machine(ctx context.Context, data string) []client.Check {
	checks := []client.Check{gitCheck(ctx), dataCheck(data), diskCheck(data)}
	platform, check := platformCheck(data)
	checks = append(checks, check)
	if platform != nil {
		checks = append(checks, engineChecks(ctx, platform)...)
		checks = append(checks, limitsCheck(platform))
		checks = append(checks, registryCheck(ctx, data, platform), reachCheck(registryAddress(data, platform), platform))
	}
	return append(checks, portChecks(data)...)
}

func gitCheck(ctx context.Context) client.Check {
	const fix = "apt-get install git"
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	version, err := exec.CommandContext(ctx, "git", "--version").Output()
	if err != nil {
		return broken("git", fix, "it cannot be run: %v", err)
	}
	folder, err := exec.CommandContext(ctx, "git", "--exec-path").Output()
	if err == nil {
		_, err = os.Stat(filepath.Join(strings.TrimSpace(string(folder)), "git-http-backend"))
	}
	if err != nil {
		return broken("git", fix, "it has no http-backend, by which pushes are taken: %v", err)
	}
	return ok("git", "%s", strings.TrimPrefix(strings.TrimSpace(string(version)), "git version "))
}

func dataCheck(data string) client.Check {
	info, err := os.Stat(data)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ok("data folder", "%s is made at the first start", data)
	case err != nil:
		return broken("data folder", "use the account that runs towpath up, or another folder with --data", "%v", err)
	case info.Mode().Perm()&0o077 != 0:
		return warning("data folder", "chmod 700 "+data, "others may look into %s (mode %o)", data, info.Mode().Perm())
	}
	for _, name := range []string{"token", "keys/settings.key"} {
		if info, err := os.Stat(filepath.Join(data, name)); err == nil && info.Mode().Perm()&0o077 != 0 {
			return broken("data folder", "chmod 600 "+filepath.Join(data, name), "others may read %s (mode %o)", name, info.Mode().Perm())
		}
	}
	return ok("data folder", "%s", data)
}

// Free space below which it is time to act, and below which things fail, in bytes.
const (
	spaceLow  = 5 << 30
	spaceGone = 1 << 30
)

func diskCheck(data string) client.Check {
	folder := data
	for {
		var s syscall.Statfs_t
		err := syscall.Statfs(folder, &s)
		if errors.Is(err, fs.ErrNotExist) && folder != filepath.Dir(folder) {
			folder = filepath.Dir(folder)
			continue
		}
		if err != nil {
			return broken("disk", "see whether the disk is mounted", "%v", err)
		}
		free := int64(s.Bavail) * int64(s.Bsize)
		text := fmt.Sprintf("%s free for %s", size(free), data)
		switch {
		case free < spaceGone:
			return broken("disk", "free some, or move the data folder; docker system df shows what the Engine holds", "%s", text)
		case free < spaceLow:
			return warning("disk", "free some soon; docker system df shows what the Engine holds", "%s", text)
		}
		return ok("disk", "%s", text)
	}
}

func size(bytes int64) string {
	if bytes < 1<<30 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
}

// platformCheck reads the platform file; nil where it has faults.
func platformCheck(data string) (*policy.Platform, client.Check) {
	path := filepath.Join(data, policy.FileName)
	platform, err := policy.Load(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		platform, err = policy.Parse(path, []byte(towpath.FirstPlatform()))
		if err == nil {
			return platform, ok("platform", "the default, until a first start writes %s", path)
		}
		return nil, broken("platform", "unset DOCKER_HOST, or make it unix:// or ssh://", "DOCKER_HOST cannot be used: %v", err)
	case err != nil:
		return nil, broken("platform", "mend it; nothing starts until then", "%v", err)
	}
	return platform, ok("platform", "%s", path)
}

// limitsCheck says which of the platform's limits on builds hold.
func limitsCheck(platform *policy.Platform) client.Check {
	var holds, open []string
	why := ""
	for _, l := range build.Limits(platform) {
		if l.Holds {
			holds = append(holds, l.Name+" "+l.Value)
			continue
		}
		open, why = append(open, l.Name), l.Why
	}
	text := strings.Join(holds, ", ")
	if len(open) == 0 {
		return ok("build limits", "%s", text)
	}
	return warning("build limits", why, "%s; not limited: %s", text, strings.Join(open, ", "))
}

// registryCheck asks the registry for a sign of life.
func registryCheck(ctx context.Context, data string, platform *policy.Platform) client.Check {
	address, fix := platform.Registry.Address, "see whether it runs, and registry.address in platform.yaml"
	if address == "" {
		if !Running(data) {
			return ok("registry", "the one inside, which starts with towpath up")
		}
		place, err := towpath.ReadPlace(data)
		if err != nil {
			return broken("registry", "restart towpath up", "%v", err)
		}
		address, fix = place.Registry, "see the log of towpath up"
	}
	host, _, _ := strings.Cut(address, "/")
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var last error
	for _, scheme := range []string{"https", "http"} {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+"/v2/", nil)
		if err != nil {
			return broken("registry", fix, "%s: %v", address, err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			last = err
			continue
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK || response.StatusCode == http.StatusUnauthorized {
			return ok("registry", "%s answers", address)
		}
		last = fmt.Errorf("it answers %s", response.Status)
	}
	return broken("registry", fix, "%s: %v", address, last)
}

// Running reports whether a towpath up has the data folder.
func Running(data string) bool {
	held, err := towpath.Held(data)
	return err == nil && held
}

// portChecks sees whether a start would find its addresses free.
func portChecks(data string) []client.Check {
	if Running(data) {
		place, err := towpath.ReadPlace(data)
		if err != nil {
			return []client.Check{warning("ports", "wait for the start, then look again", "towpath up is starting: %v", err)}
		}
		return []client.Check{ok("ports", "gateway %s, apps %s", strings.TrimPrefix(place.URL, "http://"), place.Edge)}
	}
	var faults []string
	for _, a := range []struct{ flag, address string }{
		{"--listen", towpath.DefaultListen}, {"--edge-listen", towpath.DefaultEdgeListen}, {"--registry-listen", towpath.DefaultRegistryListen},
	} {
		l, err := net.Listen("tcp", a.address)
		if err != nil {
			faults = append(faults, a.address+" ("+a.flag+")")
			continue
		}
		l.Close()
	}
	if len(faults) > 0 {
		return []client.Check{warning("ports", "start with other addresses, such as --listen 127.0.0.1:0", "taken by others: %s", strings.Join(faults, ", "))}
	}
	return []client.Check{ok("ports", "%s, %s and %s are free", towpath.DefaultListen, towpath.DefaultEdgeListen, towpath.DefaultRegistryListen)}
}
