// Package imports asserts the rules that keep Towpath's parts apart: who may import whom, and that decisions
// are pure. It reads the source; nothing of it is compiled.
package imports

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

// source is one Go file and what it imports.
type source struct {
	path    string // below the root, slashes
	syntax  *ast.File
	set     *token.FileSet
	imports []string
}

// module is the file's module as a folder below the root: "events", "services/build".
func (s source) module() string {
	parts := strings.Split(s.path, "/")
	if parts[0] == "services" && len(parts) > 2 {
		return "services/" + parts[1]
	}
	return parts[0]
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
			return fs.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		set := token.NewFileSet()
		syntax, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		below, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		s := source{path: filepath.ToSlash(below), syntax: syntax, set: set}
		for _, spec := range syntax.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, imported)
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d Go files found below %s: the rules would be judged on nothing", len(all), root)
	}
	return all
}

// forbidden returns why a file may not import something, or "".
func forbidden(s source, imported string) string {
	module := s.module()
	standard := !strings.Contains(strings.Split(imported, "/")[0], ".")
	inside := func(prefix string) bool { return imported == prefix || strings.HasPrefix(imported, prefix+"/") }
	ours := strings.HasPrefix(imported, "towpath.dev/")
	switch {
	case module == "events" && !standard && !inside("towpath.dev/events"):
		return "events is the contract and uses the standard library only"
	case module == "pkg" && ours && !inside("towpath.dev/pkg") && !inside("towpath.dev/events"):
		return "pkg is below the services"
	case strings.HasPrefix(module, "services/") && module != "services/towpath" &&
		inside("towpath.dev/services") && !inside("towpath.dev/"+module):
		return "services never import each other: what two of them need moves into pkg"
	case module != "e2e" && inside("towpath.dev/e2e"):
		return "nothing is built on the scenarios"
	case module == "e2e" && inside("towpath.dev/services"):
		return "scenarios see services from outside"
	case module != "e2e" && inside("github.com/cdevents"):
		return "the CDEvents SDK is an oracle for scenarios only"
	case inside("github.com/hashicorp/consul") && !inside("github.com/hashicorp/consul/api"),
		inside("github.com/hashicorp/vault") && !inside("github.com/hashicorp/vault/api"):
		return "the servers are separate programs, never linked into ours"
	}
	return ""
}

func TestWhoImportsWhom(t *testing.T) {
	for _, s := range sources(t) {
		for _, imported := range s.imports {
			if why := forbidden(s, imported); why != "" {
				t.Errorf("%s imports %s: %s", s.path, imported, why)
			}
		}
	}
}

// What a decision may not reach: another file's import list is its own affair.
var impureImports = []string{
	"context", "log", "log/slog", "os", "os/exec", "net", "net/http", "io/fs", "database/sql", "math/rand", "math/rand/v2",
	"crypto/rand", "syscall", "path/filepath",
	"towpath.dev/pkg/ledger", "towpath.dev/pkg/worker", "towpath.dev/pkg/engine", "towpath.dev/pkg/registry",
}

var impureTime = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// impurities lists what makes a decision depend on more than its arguments.
func impurities(s source) []string {
	var found []string
	for _, imported := range s.imports {
		if slices.Contains(impureImports, imported) {
			found = append(found, "imports "+imported)
		}
	}
	ast.Inspect(s.syntax, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.SelectorExpr:
			if on, ok := node.X.(*ast.Ident); ok && on.Name == "time" && slices.Contains(impureTime, node.Sel.Name) {
				found = append(found, fmt.Sprintf("line %d asks the clock: time.%s", s.set.Position(node.Pos()).Line, node.Sel.Name))
			}
		case *ast.GoStmt:
			found = append(found, fmt.Sprintf("line %d starts a goroutine", s.set.Position(node.Pos()).Line))
		}
		return true
	})
	return found
}

func TestDecisionsArePure(t *testing.T) {
	seen := 0
	for _, s := range sources(t) {
		if filepath.Base(s.path) != "decide.go" {
			continue
		}
		seen++
		for _, impurity := range impurities(s) {
			t.Errorf("%s %s", s.path, impurity)
		}
	}
	if seen == 0 {
		t.Error("no decide.go found: the rule was judged on nothing")
	}
}

// The rules notice what they are for.
func TestRulesNotice(t *testing.T) {
	for _, c := range []struct{ path, imported string }{
		{"events/build.go", "github.com/nats-io/nats.go"},
		{"events/build.go", "towpath.dev/pkg/ledger"},
		{"pkg/ledger/append.go", "towpath.dev/services/build"},
		{"services/build/service.go", "towpath.dev/services/vet"},
		{"services/build/cmd/build/main.go", "towpath.dev/services/vet/sbom"},
		{"services/build/service.go", "github.com/cdevents/sdk-go/pkg/api"},
		{"e2e/system/start.go", "towpath.dev/services/towpath"},
		{"pkg/settings/consul.go", "github.com/hashicorp/consul/agent"},
		{"pkg/settings/settings.go", "towpath.dev/e2e/system"},
	} {
		if forbidden(source{path: c.path}, c.imported) == "" {
			t.Errorf("%s may import %s, and must not", c.path, c.imported)
		}
	}
	for _, c := range []struct{ path, imported string }{
		{"services/towpath/up.go", "towpath.dev/services/build"},
		{"services/build/cmd/build/main.go", "towpath.dev/services/build"},
		{"events/build.go", "encoding/json"},
		{"pkg/settings/consul.go", "github.com/hashicorp/consul/api"},
	} {
		if why := forbidden(source{path: c.path}, c.imported); why != "" {
			t.Errorf("%s may not import %s (%s), and may", c.path, c.imported, why)
		}
	}
	for name, text := range map[string]string{
		"clock":     `package p; import "time"; func decide() time.Time { return time.Now() }`,
		"context":   `package p; import "context"; func decide(context.Context) {}`,
		"goroutine": `package p; func decide() { go func() {}() }`,
	} {
		set := token.NewFileSet()
		syntax, err := parser.ParseFile(set, "decide.go", text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		s := source{path: "decide.go", syntax: syntax, set: set}
		for _, spec := range syntax.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			s.imports = append(s.imports, imported)
		}
		if len(impurities(s)) == 0 {
			t.Errorf("%s: not noticed", name)
		}
	}
}

// The top level is fixed, and each module stands by itself.
func TestTree(t *testing.T) {
	fixed := []string{"LICENSE", "Makefile", "README.md", "deployments", "e2e", "events", "go.work", "go.work.sum", "pkg", "services"}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasPrefix(name, ".") && name != "bin" && !slices.Contains(fixed, name) {
			t.Errorf("%s stands at the top level, which holds only %s", name, strings.Join(fixed, ", "))
		}
	}
	work, err := os.ReadFile(filepath.Join(root, "go.work"))
	if err != nil {
		t.Fatal(err)
	}
	services, err := filepath.Glob(filepath.Join(root, "services/*/go.mod"))
	if err != nil || len(services) == 0 {
		t.Fatalf("no services found: %v", err)
	}
	for _, file := range append(services, filepath.Join(root, "events/go.mod"), filepath.Join(root, "pkg/go.mod"), filepath.Join(root, "e2e/go.mod")) {
		folder, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(work), "./"+filepath.ToSlash(folder)+"\n") {
			t.Errorf("go.work does not use ./%s", folder)
		}
		mod, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if want := "module towpath.dev/" + filepath.ToSlash(folder) + "\n"; !strings.HasPrefix(string(mod), want) {
			t.Errorf("%s does not begin with %q", file, want)
		}
	}
}
