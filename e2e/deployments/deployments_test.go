package deployments

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"towpath.dev/e2e/system"
	"towpath.dev/pkg/policy"
)

const folder = "../../deployments"

type compose struct {
	Services map[string]struct {
		Command     []string          `yaml:"command"`
		Environment map[string]string `yaml:"environment"`
		NetworkMode string            `yaml:"network_mode"`
		Volumes     []yaml.Node       `yaml:"volumes"`
	} `yaml:"services"`
	Volumes map[string]any `yaml:"volumes"`
}

type mount struct {
	Source   string `yaml:"source"`
	ReadOnly bool   `yaml:"read_only"`
	Volume   struct {
		Subpath string `yaml:"subpath"`
	} `yaml:"volume"`
}

// Every service has a process with nothing but its own keys, and only those that touch containers reach the Engine.
func TestCompose(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(folder, "compose/compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file compose
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, name := range system.Services {
		service, ok := file.Services[name]
		if !ok {
			t.Errorf("%s is missing", name)
			continue
		}
		if len(service.Command) == 0 || service.Command[0] != name {
			t.Errorf("%s runs %q", name, service.Command)
		}
		if service.Environment["TOWPATH_BUS"] == "" || service.Environment["TOWPATH_KEYS"] != "/keys" {
			t.Errorf("%s is not told where the bus and its keys are: %v", name, service.Environment)
		}
		var keys []string
		socket, addresses := false, false
		for _, node := range service.Volumes {
			if node.Kind == yaml.ScalarNode {
				socket = socket || strings.HasPrefix(node.Value, "/var/run/docker.sock:")
				addresses = addresses || node.Value == "./notify:/etc/towpath/notify:ro"
				continue
			}
			var m mount
			if err := node.Decode(&m); err != nil {
				t.Fatal(err)
			}
			if _, named := file.Volumes[m.Source]; !named {
				t.Errorf("%s mounts %q, which is no volume", name, m.Source)
			}
			if m.Source == "keys" {
				keys = append(keys, m.Volume.Subpath)
				if !m.ReadOnly {
					t.Errorf("%s may write its keys", name)
				}
			}
		}
		if !slices.Equal(keys, []string{"identities/" + name}) {
			t.Errorf("%s has the keys %q", name, keys)
		}
		if wants := slices.Contains([]string{"build", "promote", "verify"}, name); socket != wants {
			t.Errorf("%s reaches the Engine: %v, and should: %v", name, socket, wants)
		}
		if wants := name == "notify"; addresses != wants {
			t.Errorf("%s reads the addresses of receivers: %v, and should: %v", name, addresses, wants)
		}
	}
	if _, err := policy.Load(filepath.Join(folder, "compose/platform.yaml")); err != nil {
		t.Error(err)
	}
}

// Each unit starts a program that the build makes, restarts it, and leaves it time to drain.
func TestUnits(t *testing.T) {
	units, err := filepath.Glob(filepath.Join(folder, "systemd/*.service"))
	if err != nil || len(units) == 0 {
		t.Fatalf("no units: %v", err)
	}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"ExecStart=/usr/local/", "Restart=always", "TimeoutStopSec=", "NoNewPrivileges=yes", "[Install]"} {
			if !strings.Contains(string(text), "\n"+line) {
				t.Errorf("%s has no %s", filepath.Base(unit), line)
			}
		}
	}
}
