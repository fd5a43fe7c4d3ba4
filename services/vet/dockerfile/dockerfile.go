// Package dockerfile reads Dockerfiles and finds in them what makes an image unsafe, or other than it was when it was
// looked at: each with its line and what to write instead.
//
// It uses BuildKit's parser, so that it reads what BuildKit builds, and nothing of the network. It is pure: the same text
// gives the same findings. A finding never holds the value of a variable.
package dockerfile

import (
	"bytes"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"towpath.dev/pkg/policy"
)

// Finding is one thing that is wrong in a Dockerfile.
type Finding struct {
	Rule    policy.Rule
	Line    int    // from 1
	Subject string // the image, URL, variable, program or package that it is about
	Message string
	Fix     string
}

// Options are what a Dockerfile was built with.
type Options struct {
	Args   map[string]string // build arguments
	Target string            // stage that was built; empty: the last
	// Digest returns the digest ("sha256:…") that an image was resolved to when it was built; empty: it is not known.
	Digest func(image string) string
}

// File is a Dockerfile that was read.
type File struct {
	lines  []string
	stages []instructions.Stage
	target int // index of the stage that was built
	meta   map[string]string
	lex    *shell.Lex
	opts   Options
}

// Read parses a Dockerfile. The error says on which line it is none.
func Read(text []byte, o Options) (*File, error) {
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("not a Dockerfile: %w", err)
	}
	stages, args, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return nil, fmt.Errorf("not a Dockerfile: %w", err)
	}
	if len(stages) == 0 {
		return nil, fmt.Errorf("not a Dockerfile: there is no FROM in it")
	}
	f := &File{
		lines: strings.Split(string(text), "\n"), stages: stages, target: len(stages) - 1, meta: map[string]string{},
		lex: shell.NewLex(parsed.EscapeToken), opts: o,
	}
	if i, ok := instructions.HasStage(stages, o.Target); ok && o.Target != "" {
		f.target = i
	} else if n, err := strconv.Atoi(o.Target); err == nil && n >= 0 && n < len(stages) {
		f.target = n
	}
	for _, a := range args {
		for _, one := range a.Args {
			if value, given := o.Args[one.Key]; given {
				f.meta[one.Key] = value
			} else if one.Value != nil {
				f.meta[one.Key] = f.expand(*one.Value)
			}
		}
	}
	return f, nil
}

// values are variables as the shell's lexer reads them.
type values map[string]string

func (v values) Get(name string) (string, bool) { value, ok := v[name]; return value, ok }
func (v values) Keys() []string {
	var keys []string
	for name := range v {
		keys = append(keys, name)
	}
	return keys
}

// expand fills in the arguments that stand before the first FROM; a word that cannot be expanded stays as it is.
func (f *File) expand(word string) string {
	expanded, _, err := f.lex.ProcessWord(word, values(f.meta))
	if err != nil {
		return word
	}
	return expanded
}

// Findings are what is wrong, by line.
func (f *File) Findings() []Finding {
	var found []Finding
	for i, stage := range f.stages {
		found = append(found, f.from(i, stage)...)
		for _, command := range stage.Commands {
			switch c := command.(type) {
			case *instructions.AddCommand:
				found = append(found, f.add(c)...)
			case *instructions.RunCommand:
				found = append(found, f.run(c)...)
			case *instructions.EnvCommand:
				for _, one := range c.Env {
					found = append(found, f.variable("ENV", one.Key, one.Value, c.Location())...)
				}
			case *instructions.ArgCommand:
				for _, one := range c.Args {
					value := ""
					if one.Value != nil {
						value = *one.Value
					}
					found = append(found, f.variable("ARG", one.Key, value, c.Location())...)
				}
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Finding) int { return a.Line - b.Line })
	return found
}

// first is the line on which an instruction begins.
func first(at []parser.Range) int {
	if len(at) == 0 {
		return 1
	}
	return at[0].Start.Line
}

// lineOf is the first line of an instruction that holds a text; the instruction's first where none does.
func (f *File) lineOf(at []parser.Range, text string) int {
	if len(at) > 0 {
		for n := at[0].Start.Line; n <= at[len(at)-1].End.Line && n <= len(f.lines); n++ {
			if strings.Contains(f.lines[n-1], text) {
				return n
			}
		}
	}
	return first(at)
}

// from: an image that is named by a tag is another one tomorrow.
func (f *File) from(i int, stage instructions.Stage) []Finding {
	name := f.expand(stage.BaseName)
	if _, isStage := instructions.HasStage(f.stages[:i], name); isStage || name == "scratch" || name == "" || strings.Contains(name, "@sha256:") {
		return nil
	}
	fix := "name it by digest: docker buildx imagetools inspect " + name + " prints it"
	if f.opts.Digest != nil {
		if digest := f.opts.Digest(name); digest != "" {
			fix = "write FROM " + name + "@" + digest + ", which is what was built upon"
		}
	}
	return []Finding{{policy.DockerfileUnpinnedBase, first(stage.Location), name, fmt.Sprintf("FROM %s can be another image at the next build", name), fix}}
}

var commit = regexp.MustCompile(`#[0-9a-f]{40}([0-9a-f]{24})?(:|$)`)

// add: what comes from a URL is what whoever has the server says it is.
func (f *File) add(c *instructions.AddCommand) []Finding {
	var found []Finding
	for _, source := range c.SourcePaths {
		remote := strings.HasPrefix(source, "http://") || strings.HasPrefix(source, "https://") || strings.HasPrefix(source, "git@") || strings.HasPrefix(source, "git://")
		if !remote || c.Checksum != "" || commit.MatchString(source) {
			continue
		}
		shown := withoutUser(source)
		found = append(found, Finding{policy.DockerfileAddURL, f.lineOf(c.Location(), source), shown,
			fmt.Sprintf("ADD %s takes whatever is there at the time", shown), "write ADD --checksum=sha256:… (of a git repository: #commit), so that another file is refused"})
	}
	return found
}

// withoutUser drops a password, and what may hold one, from a URL.
func withoutUser(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "a URL"
	}
	u.User, u.RawQuery = nil, ""
	return u.String()
}

// Names of variables that hold secrets: those that BuildKit's own check knows, without names of files and public keys.
var (
	secretName = regexp.MustCompile(`(?i)(?:_|^)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)`)
	publicName = regexp.MustCompile(`(?i)(?:_|^)public(?:_|$)|_(?:file|path|dir|url|id|name)$`)
)

// variable: what ARG and ENV hold is in the image's history, or its environment, for everybody who has the image.
func (f *File) variable(instruction, name, value string, at []parser.Range) []Finding {
	if !secretName.MatchString(name) || publicName.MatchString(name) || instruction == "ENV" && value == "" {
		return nil
	}
	fix := "declare it under secrets in towpath.yaml, and let the app read it when it runs"
	if instruction == "ARG" {
		fix = "write RUN --mount=type=secret,id=" + strings.ToLower(name) + " where the build needs it"
	}
	return []Finding{{policy.DockerfileSecret, f.lineOf(at, name), name, fmt.Sprintf("%s %s puts a secret where everybody who has the image can read it", instruction, name), fix}}
}

// UserLine is where the image that was built gets its user: the last USER of its stages, else its FROM.
func (f *File) UserLine() int {
	return f.lastLine(func(c instructions.Command) bool { _, ok := c.(*instructions.UserCommand); return ok })
}

// PortLine is where a port such as "80/tcp" is exposed, else its stage's FROM.
func (f *File) PortLine(port string) int {
	number, _, _ := strings.Cut(port, "/")
	return f.lastLine(func(c instructions.Command) bool {
		expose, ok := c.(*instructions.ExposeCommand)
		return ok && slices.ContainsFunc(expose.Ports, func(p string) bool {
			n, _, _ := strings.Cut(p, "/")
			return n == number || strings.Contains(n, "-") || strings.Contains(n, "$")
		})
	})
}

// StageLine is the FROM of the stage that was built.
func (f *File) StageLine() int { return first(f.stages[f.target].Location) }

// lastLine is that of the last instruction of a kind in the stage that was built, or in a stage that it stands on.
func (f *File) lastLine(is func(instructions.Command) bool) int {
	for i, known := f.target, true; known; {
		for _, c := range slices.Backward(f.stages[i].Commands) {
			if is(c) {
				return first(c.Location())
			}
		}
		before := f.stages[:i]
		i, known = instructions.HasStage(before, f.stages[i].BaseName)
	}
	return f.StageLine()
}
