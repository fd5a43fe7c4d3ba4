package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"towpath.dev/pkg/policy"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain\n":                         "plain",
		"tab\there":                       "tab\there",
		"\x1b[31mred\x1b[0m":              "red",
		"\x1b]0;title\x07after":           "after",
		"\x1b]8;;http://x\x1b\\link":      "link",
		"10%\r50%\r100%":                  "100%",
		"100%\r\n":                        "100%",
		"bell\a\b\x00nul":                 "bellnul",
		"\x9b31m":                         "\ufffd31m",
		"Trojan \u202e source":            "Trojan  source",
		"\xff\xfe":                        "\ufffd\ufffd",
		"\x1b":                            "",
		"\x1b[":                           "",
		strings.Repeat("x", 3*maxLogLine): strings.Repeat("x", maxLogLine),
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%.40q) = %.40q, want %.40q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[31mred\x1b[0m\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if !utf8.ValidString(got) || strings.ContainsAny(got, "\x1b\r\n\a\x00\u009b") || len(got) > maxLogLine+utf8.UTFMax {
			t.Errorf("clean(%q) = %q", s, got)
		}
		if again := clean(got); again != got {
			t.Errorf("clean(%q) = %q, then %q", s, got, again)
		}
	})
}

func TestSameInstruction(t *testing.T) {
	for _, tc := range []struct {
		original, name string
		want           bool
	}{
		{"RUN make  all", "RUN make all", true},
		{"run make all", "RUN make all", true},
		{"RUN make $WHAT ${X:-y}", "RUN make all 7", true},
		{"RUN <<EOF", "RUN <<EOF (echo hello...)", true},
		{"COPY a b", "COPY a c", false},
		{"RUN make (", "RUN make (", true},
		{"FROM x", "RUN x", false},
		{"RUN", "RUN", false},
	} {
		if got := sameInstruction(tc.original, tc.name); got != tc.want {
			t.Errorf("sameInstruction(%q, %q) = %v", tc.original, tc.name, got)
		}
	}
}

func TestInputsDigest(t *testing.T) {
	one := inputs{App: "hello", Tree: "t", Dockerfile: "Dockerfile", Context: ".", Args: map[string]string{"a": "1", "b": "2"}, Platform: "linux/amd64"}
	seen := map[string]bool{one.digest(): true}
	for _, change := range []func(*inputs){
		func(i *inputs) { i.App = "other" }, func(i *inputs) { i.Tree = "u" }, func(i *inputs) { i.Dockerfile = "x" },
		func(i *inputs) { i.Context = "x" }, func(i *inputs) { i.Target = "x" }, func(i *inputs) { i.Args = nil },
		func(i *inputs) { i.Args = map[string]string{"a": "2", "b": "1"} }, func(i *inputs) { i.Platform = "linux/arm64" },
	} {
		two := one
		change(&two)
		if seen[two.digest()] {
			t.Errorf("%+v has the digest of another", two)
		}
		seen[two.digest()] = true
	}
	if again := one; again.digest() != one.digest() || len(inputsTag(one.digest())) > 128 {
		t.Error("the digest changes, or makes no tag")
	}
}

func TestConfigValidate(t *testing.T) {
	good := Config{Registry: "127.0.0.1:7050", Gateway: "http://127.0.0.1:7070"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	bad := Config{
		Gateway: "ftp://x", Work: "relative", Concurrency: 65, FetchTimeout: -1, MaxSource: -1,
		Git: Access{SSHKey: "key"}, SubmoduleFolders: []string{"/"},
	}
	err := bad.Validate()
	for _, want := range []string{"registry", "gateway", "work", "concurrency", "fetchTimeout", "maxSource", "git.sshKey", "submoduleFolders"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no fault names %s: %v", want, err)
		}
	}
}

func TestLimits(t *testing.T) {
	p := policy.Default()
	for _, l := range Limits(p) {
		if l.Holds != (l.Name == "time") || l.Why == "" || l.Value == "" {
			t.Errorf("on a shared engine: %+v", l)
		}
	}
	p.Engines.Build.Dedicated, p.Engines.Build.Host = true, "ssh://builder"
	for _, l := range Limits(p) {
		if l.Holds != (l.Name == "time") || l.Name != "time" && !strings.Contains(l.Why, "another machine") {
			t.Errorf("on an engine elsewhere: %+v", l)
		}
	}
}

func TestBuildGroup(t *testing.T) {
	l := policy.BuildLimits{Memory: 512 << 20, CPUs: 1.5, PIDs: 100}
	for version, files := range map[string]map[string]string{
		"1": {"memory/docker/buildkit/memory.limit_in_bytes": "536870912", "cpu/docker/buildkit/cpu.cfs_quota_us": "150000", "pids/docker/buildkit/pids.max": "100"},
		"2": {"docker/buildkit/memory.max": "536870912", "docker/buildkit/cpu.max": "150000 100000", "docker/buildkit/pids.max": "100"},
	} {
		root := t.TempDir()
		if version == "2" {
			if err := os.WriteFile(filepath.Join(root, "cgroup.controllers"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		g := buildGroup{root: root}
		if err := g.apply(l); !os.IsNotExist(err) && err == nil {
			t.Errorf("version %s: applied to a group that is not there", version)
		}
		if err := g.check("memory", l); err == nil || !strings.Contains(err.Error(), "first build") {
			t.Errorf("version %s: %v", version, err)
		}
		for name := range files {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("max\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.check("cpus", l); err == nil {
			t.Errorf("version %s: a limit that was not set holds", version)
		}
		if err := g.apply(l); err != nil {
			t.Fatal(err)
		}
		for name, want := range files {
			if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
				t.Errorf("version %s: %s holds %q, %v, want %q", version, name, got, err, want)
			}
		}
		for _, name := range []string{"memory", "cpus", "processes"} {
			if err := g.check(name, l); err != nil {
				t.Errorf("version %s: %s: %v", version, name, err)
			}
		}
	}
}
