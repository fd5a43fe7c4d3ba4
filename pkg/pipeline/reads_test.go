package pipeline

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"
)

// TestUndeclared has the real git find what programs in many languages read.
func TestUndeclared(t *testing.T) {
	folder := t.TempDir()
	for file, text := range map[string]string{
		"main.go":              "package main\n\nvar a = os.Getenv(\"A_GO\")\nvar b, ok = os.LookupEnv(\"B_GO\") ; c = os.Getenv(\"DECLARED\")\n",
		"app/settings.py":      "import os\nD = os.environ[\"D_PY\"]\nE = os.environ.get('E_PY', 'x')\nF = os.getenv(\"F_PY\")\n",
		"server.ts":            "const g = process.env.G_TS ?? process.env['H_TS'];\n",
		"src/main/Main.java":   "class Main { String i = System.getenv(\"I_JAVA\"); }\n",
		"src/main.rs":          "fn main() { std::env::var(\"J_RS\"); }\n",
		"lib/app.rb":           "K = ENV['K_RB']\nL = ENV.fetch(\"L_RB\")\n",
		"again.go":             "package main\n\nvar again = os.Getenv(\"A_GO\")\n",
		"main_test.go":         "package main\n\nvar t = os.Getenv(\"ONLY_TESTED\")\n",
		"vendor/x/x.go":        "package x\n\nvar v = os.Getenv(\"VENDORED\")\n",
		"README.md":            "Call os.Getenv(\"IN_PROSE\")\n",
		"known.go":             "package main\n\nvar _ = os.Getenv(\"HOME\") + os.Getenv(\"FROM_DOCKERFILE\") + os.Getenv(\"PASSWORD_FILE\") + os.Getenv(\"TOWPATH_ENVIRONMENT\")\n",
		"computed.go":          "package main\n\nvar _ = os.Getenv(name)\n",
		"services/b/config.go": "package b\n\nvar _ = os.Getenv(  \"SPACED\")\n",
	} {
		path := filepath.Join(folder, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("git", "grep", "--no-index", "-n", "-I", "-o", "-E", ReadPattern)
	cmd.Dir = folder
	found, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	d := Definition{Config: []string{"DECLARED"}, Secrets: []string{"PASSWORD"}}
	got := Undeclared(d, []byte("FROM scratch\nENV FROM_DOCKERFILE=x\n"), ParseReads(found))
	want := []Read{
		{"A_GO", "again.go", 3}, {"B_GO", "main.go", 4}, {"D_PY", "app/settings.py", 2}, {"E_PY", "app/settings.py", 3}, {"F_PY", "app/settings.py", 4},
		{"G_TS", "server.ts", 1}, {"H_TS", "server.ts", 1}, {"I_JAVA", "src/main/Main.java", 1}, {"J_RS", "src/main.rs", 1},
		{"K_RB", "lib/app.rb", 1}, {"L_RB", "lib/app.rb", 2}, {"SPACED", "services/b/config.go", 3},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("undeclared\n%v, want\n%v", got, want)
	}
}

func TestParseReadsTakesAnything(t *testing.T) {
	for _, text := range []string{"", ":", "a:b:c", "main.go:x:os.Getenv(\"A\")", "main.go:1:", "main.go:1:os.Getenv(\"", "\n\n"} {
		if reads := ParseReads([]byte(text)); len(reads) != 0 {
			t.Errorf("%q: %v", text, reads)
		}
	}
}
