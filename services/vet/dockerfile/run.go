package dockerfile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"towpath.dev/pkg/policy"
)

var (
	// piped is a download that goes into an interpreter: curl … | sh, and curl … | sudo bash -s.
	piped = regexp.MustCompile(`\b(curl|wget)\b[^|;&]*\|\s*(?:sudo\s+(?:-\S+\s+)*)?(?:env\s+(?:\w+=\S*\s+)*)?(?:\S*/)?(sh|bash|dash|ash|zsh|ksh|python[0-9.]*|perl|ruby|node|php)\b`)
	// substituted is the same by other means: sh -c "$(curl …)", bash <(curl …), eval "$(wget …)".
	substituted = regexp.MustCompile("(?:\\b(?:sh|bash|dash|ash|zsh|ksh)\\s+(?:-\\S+\\s+)*|\\beval\\s+|\\b(?:source|\\.)\\s+)[\"']?(?:\\$\\(|<\\(|`)\\s*(curl|wget)\\b")
	webAddress  = regexp.MustCompile(`\b(?:https?|ftp)://[^\s"'|;&)>]+`)
	// separators end a command of a shell script.
	separators = regexp.MustCompile(`&&|\|\||[;|&\n(){}]`)
)

// run finds what a RUN does that nobody can repeat or check.
func (f *File) run(c *instructions.RunCommand) []Finding {
	script := strings.Join(c.CmdLine, " ")
	for _, inline := range c.Files {
		script += "\n" + inline.Data
	}
	script = strings.ReplaceAll(script, "\\\n", " ")
	var found []Finding
	for _, kind := range []*regexp.Regexp{piped, substituted} {
		for _, match := range kind.FindAllString(script, -1) {
			subject, at := "a download", "curl"
			if strings.Contains(match, "wget") {
				at = "wget"
			}
			if address := webAddress.FindString(match + afterMatch(script, match)); address != "" {
				subject, at = withoutUser(address), address
			}
			found = append(found, Finding{policy.DockerfilePipeShell, f.lineOf(c.Location(), at), subject,
				fmt.Sprintf("RUN hands %s to an interpreter that runs whatever comes", subject),
				"download it to a file, compare its checksum (sha256sum -c), then run it; or install it from the distribution"})
		}
	}
	for _, command := range separators.Split(script, -1) {
		for _, one := range unpinned(strings.Fields(command)) {
			found = append(found, Finding{policy.DockerfileUnpinnedPackage, f.lineOf(c.Location(), one.name), one.manager + " " + one.name,
				fmt.Sprintf("%s installs whichever version of %s there is at the time", one.manager, one.name), "write " + one.pin})
		}
	}
	return found
}

// afterMatch is what follows a match on its line, where the address of a download may stand.
func afterMatch(script, match string) string {
	_, after, _ := strings.Cut(script, match)
	line, _, _ := strings.Cut(after, "\n")
	return line
}

// installed is a package without its version.
type installed struct{ manager, name, pin string }

// manager is a program that installs packages.
type manager struct {
	verbs  []string // one of which installs
	pinned func(name string) bool
	pin    string   // how a version is written, with the package's name in front
	values []string // options that take a value
}

var managers = map[string]manager{
	"apt-get": {[]string{"install"}, holding("="), "=VERSION", []string{"-t", "--target-release", "-o", "-c"}},
	"apt":     {[]string{"install"}, holding("="), "=VERSION", []string{"-t", "--target-release", "-o", "-c"}},
	"apk":     {[]string{"add"}, holding("=", "~"), "=VERSION", []string{"-t", "--virtual", "--repository", "-X", "-p", "--root"}},
	"pip":     {[]string{"install"}, holding("==", "@", "/", ".whl"), "==VERSION", []string{"-r", "--requirement", "-c", "--constraint", "-i", "--index-url", "--extra-index-url", "-t", "--target", "--prefix", "-e"}},
	"npm":     {[]string{"install", "i", "add"}, npmPinned, "@VERSION", []string{"--prefix", "--registry"}},
	"gem":     {[]string{"install"}, holding(":"), ":VERSION", []string{"-v", "--version"}},
	"go": {[]string{"install"}, func(name string) bool {
		return !strings.HasSuffix(name, "@latest") && !strings.HasSuffix(name, "@master")
	}, "@VERSION", nil},
}

func holding(signs ...string) func(string) bool {
	return func(name string) bool {
		return slices.ContainsFunc(signs, func(sign string) bool { return strings.Contains(name, sign) })
	}
}

// npmPinned: a version follows the second @ of @scope/name@version, or the first of name@version.
func npmPinned(name string) bool {
	at := strings.LastIndex(name, "@")
	return at > 0 && name[at+1:] != "latest" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "/") || strings.HasSuffix(name, ".tgz")
}

// unpinned reads one command.
func unpinned(words []string) []installed {
	for len(words) > 0 && (words[0] == "sudo" || words[0] == "env" || words[0] == "exec" || strings.Contains(words[0], "=")) {
		words = words[1:]
	}
	if len(words) >= 3 && strings.HasPrefix(words[0], "python") && words[1] == "-m" {
		words = words[2:]
	}
	if len(words) == 0 {
		return nil
	}
	program := words[0][strings.LastIndex(words[0], "/")+1:]
	if program == "pip3" {
		program = "pip"
	}
	m, known := managers[program]
	if !known {
		return nil
	}
	var found []installed
	installing := false
	for i := 1; i < len(words); i++ {
		word := strings.Trim(words[i], `"'`)
		switch {
		case slices.Contains(m.values, word):
			if program == "gem" {
				return nil // the version follows
			}
			i++
		case strings.HasPrefix(word, "-"):
		case !installing:
			if !slices.Contains(m.verbs, word) {
				return nil
			}
			installing = true
		case word == "" || word == "." || strings.ContainsAny(word, "$`<>*\\") || strings.HasPrefix(word, "./") || strings.HasPrefix(word, "/") || m.pinned(word):
		default:
			found = append(found, installed{program, word, word + m.pin})
		}
	}
	return found
}
