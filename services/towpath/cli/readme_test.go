package cli

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"towpath.dev/pkg/pipeline"
	"towpath.dev/services/towpath/screen"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Commands as they stand in a shell's lines and between backquotes.
var (
	shellLine  = regexp.MustCompile(`(?m)^ +(?:\$ )?(?:.* && )?(?:bin/)?towpath ([a-z].*)$`)
	backquoted = regexp.MustCompile("`towpath ([a-z][^`]*)`")
	comment    = regexp.MustCompile(`\s{2,}#.*$`)
)

// Every command that the README names is there, with the flags that it shows.
func TestReadmeNamesWhatThereIs(t *testing.T) {
	text := readme(t)
	var lines []string
	for _, found := range append(shellLine.FindAllStringSubmatch(text, -1), backquoted.FindAllStringSubmatch(text, -1)...) {
		lines = append(lines, strings.TrimSuffix(comment.ReplaceAllString(found[1], ""), ` \`))
	}
	if len(lines) < 25 {
		t.Fatalf("only %d commands found", len(lines))
	}
	for _, line := range lines {
		p := &program{out: screen.Screen{}, err: screen.Screen{}}
		root := p.root()
		root.InitDefaultCompletionCmd()
		command, rest, err := root.Find(strings.Fields(line))
		if err != nil || command == root || command.HasSubCommands() && command.Name() != strings.Fields(line)[0] {
			t.Errorf("towpath %s: no such command (%v)", line, err)
			continue
		}
		if err := command.ParseFlags(rest); err != nil {
			t.Errorf("towpath %s: %v", line, err)
		}
	}
}

// The README's towpath.yaml is a good one, and shows every key at its top level.
func TestReadmeDefinition(t *testing.T) {
	_, rest, found := strings.Cut(readme(t), "```yaml\n")
	example, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("there is no towpath.yaml in it")
	}
	if _, err := pipeline.Parse(pipeline.FileName, []byte(example)); err != nil {
		t.Error(err)
	}
	for _, key := range []string{"app", "branch", "build", "service", "release", "config", "secrets", "onNewer", "environments"} {
		if !strings.Contains("\n"+example, "\n"+key+":") {
			t.Errorf("it does not show %s", key)
		}
	}
}
