package fold

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"towpath.dev/events"
)

// without names the packages of this repository that the fold is built with and that have no say in a state.
var without = map[string]string{
	"pkg/wholefile": "writes key files",
	"pkg/pause":     "waits",
}

// TestFormatCoversAllThatHasASay: every package that the fold is built with is in the format as it is in the tree, or
// is named above with the reason.
func TestFormatCoversAllThatHasASay(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}} {{.Dir}}", ".").Output()
	if err != nil {
		t.Fatalf("listing what the fold is built with: %v", err)
	}
	covered := sources()
	for line := range strings.Lines(string(out)) {
		path, folder, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, ours := strings.CutPrefix(path, "towpath.dev/")
		if !ours || without[name] != "" {
			continue
		}
		if want := events.SourceOf(os.DirFS(folder)); covered[name] != want {
			t.Errorf("the format has %.12q of %s, which is %.12s: have it in sources, or say why not", covered[name], name, want)
		}
		delete(covered, name)
	}
	for name := range covered {
		t.Errorf("the format has %s, which the fold is not built with", name)
	}
}

// TestSourcesDiffer: any change of a file's text or name is another source, and one of a test is not.
func TestSourcesDiffer(t *testing.T) {
	before := events.SourceOf(fstest.MapFS{"a.go": {Data: []byte("package a")}, "a_test.go": {Data: []byte("package a")}})
	for name, c := range map[string]struct {
		files fstest.MapFS
		same  bool
	}{
		"another text":   {fstest.MapFS{"a.go": {Data: []byte("package b")}}, false},
		"another name":   {fstest.MapFS{"b.go": {Data: []byte("package a")}}, false},
		"another file":   {fstest.MapFS{"a.go": {Data: []byte("package a")}, "b.go": {Data: []byte("package a")}}, false},
		"another test":   {fstest.MapFS{"a.go": {Data: []byte("package a")}, "a_test.go": {Data: []byte("package b")}}, true},
		"no file at all": {fstest.MapFS{}, false},
	} {
		if got := events.SourceOf(c.files); (got == before) != c.same {
			t.Errorf("%s: %.12s and %.12s", name, before, got)
		}
	}
	if folder, err := filepath.Abs("."); err != nil || events.SourceOf(os.DirFS(folder)) != events.SourceOf(source) {
		t.Error("what is embedded is not what is in the folder")
	}
}
