package deployments

import (
	"path/filepath"
	"regexp"
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

func composeFile(t *testing.T) compose {
	t.Helper()
	var file compose
	if err := yaml.Unmarshal([]byte(read(t, "compose/compose.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	return file
}

// Every service has a process with nothing but its own keys, and only those that touch containers reach the Engine.
func TestCompose(t *testing.T) {
	file := composeFile(t)
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
		text := read(t, "systemd/"+filepath.Base(unit))
		for _, line := range []string{"ExecStart=/usr/local/", "Restart=always", "TimeoutStopSec=", "NoNewPrivileges=yes", "[Install]"} {
			if !strings.Contains(text, "\n"+line) {
				t.Errorf("%s has no %s", filepath.Base(unit), line)
			}
		}
	}
}

// A service replaces its secret id in the file that the platform file names for it, so its unit and its container let it
// write that folder, which nobody else's may.
func TestSecretIDsCanBeReplaced(t *testing.T) {
	for name, text := range map[string]string{"platform.yaml": exampleSettings(t), "README.md": blocks(t, "yaml")[0]} {
		platform, err := policy.Parse(name, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		where := platform.Stores("prod")
		for _, service := range []string{"gateway", "promote"} {
			for _, template := range []string{where.Consul.TokenFile, where.Vault.RoleIDFile, where.Vault.SecretIDFile} {
				at := filepath.Dir(strings.ReplaceAll(template, policy.ServicePlaceholder, service))
				if at != "/var/lib/towpath/"+service {
					t.Errorf("%s: %s is in %s", name, template, at)
				}
				for unit, instance := range map[string]string{"towpath.service": "", "towpath@.service": service} {
					if !slices.ContainsFunc(writable(t, unit, instance), func(w string) bool { return w == at || strings.HasPrefix(at, w+"/") }) {
						t.Errorf("%s: %s lets %s write %q, and not %s", name, unit, service, writable(t, unit, instance), at)
					}
				}
				for other := range composeFile(t).Services {
					if got := mounts(t, other, at); got != (other == service) {
						t.Errorf("%s: the container of %s writes %s: %v", name, other, at, got)
					}
				}
			}
		}
		for _, service := range []string{"build", "vet", "verify", "watch", "notify", "ledger", "edge"} {
			for _, w := range writable(t, "towpath@.service", service) {
				if strings.HasPrefix("/var/lib/towpath/gateway/", w+"/") || strings.HasPrefix("/var/lib/towpath/promote/", w+"/") {
					t.Errorf("towpath@%s may write %s", service, w)
				}
			}
		}
	}
}

// exampleSettings is what the example platform file shows of settings as a comment, made to count.
func exampleSettings(t *testing.T) string {
	t.Helper()
	_, rest, found := strings.Cut(read(t, "platform.yaml"), "\nsettings:\n  default: {}\n")
	example, _, ends := strings.Cut(rest, "\n\n")
	if !found || !ends {
		t.Fatal("platform.yaml shows no settings")
	}
	return "settings:\n" + regexp.MustCompile(`(?m)^  # `).ReplaceAllString(example, "  ") + "\n"
}

// writable are the folders that a unit with ProtectSystem=strict may write.
func writable(t *testing.T, unit, instance string) []string {
	t.Helper()
	text := read(t, "systemd/"+unit)
	if !strings.Contains(text, "\nProtectSystem=strict\n") {
		t.Fatalf("%s may write everywhere", unit)
	}
	var folders []string
	for line := range strings.Lines(strings.ReplaceAll(text, "%i", instance)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		for _, path := range strings.Fields(value) {
			switch key {
			case "StateDirectory":
				folders = append(folders, "/var/lib/"+path)
			case "ReadWritePaths":
				folders = append(folders, path)
			}
		}
	}
	return folders
}

// mounts reports whether a service of compose.yaml, which may write nothing else, may write the machine's folder at, under
// the same name.
func mounts(t *testing.T, service, at string) bool {
	t.Helper()
	return slices.ContainsFunc(composeFile(t).Services[service].Volumes, func(node yaml.Node) bool {
		source, rest, _ := strings.Cut(node.Value, ":")
		target, mode, _ := strings.Cut(rest, ":")
		return node.Kind == yaml.ScalarNode && source == at && target == at && mode != "ro"
	})
}
