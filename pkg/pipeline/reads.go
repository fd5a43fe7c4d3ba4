package pipeline

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Read is a place in an app's source that reads an environment variable.
type Read struct {
	Key  string
	File string // below the repository's root
	Line int
}

// ReadPattern is a POSIX extended regular expression for what reads an environment variable by a constant name, in the
// languages that most services are written in: `git grep -n -o -E` finds with it what ParseReads takes. What is
// read by a computed name, or by a library, it does not find.
const ReadPattern = `(os\.(Getenv|LookupEnv)\(|os\.getenv\(|os\.environ(\[|\.get\()|System\.getenv\(|std::env::var(_os)?\(|env::var(_os)?\(|Environment\.GetEnvironmentVariable\(|System\.get_env\(|getenv\(|ENV(\[|\.fetch\(|\.fetch )|process\.env\[|Deno\.env\.get\() *["'][A-Z][A-Z0-9_]+["']|process\.env\.[A-Z][A-Z0-9_]+`

var readKey = regexp.MustCompile(`[A-Z][A-Z0-9_]+$`)

// ParseReads reads what git grep printed, FILE:LINE:MATCH on each line. Tests, vendored code and what is no program are
// left out.
func ParseReads(grepped []byte) []Read {
	var reads []Read
	for text := range strings.Lines(string(grepped)) {
		file, rest, _ := strings.Cut(strings.TrimRight(text, "\n"), ":")
		number, match, _ := strings.Cut(rest, ":")
		line, err := strconv.Atoi(number)
		key := readKey.FindString(strings.TrimRight(match, `"'`))
		if err == nil && key != "" && isProgram(file) {
			reads = append(reads, Read{key, file, line})
		}
	}
	return reads
}

var programs = []string{
	".go", ".py", ".js", ".mjs", ".cjs", ".ts", ".jsx", ".tsx", ".java", ".kt", ".scala", ".groovy", ".rs", ".rb", ".cs", ".ex", ".exs", ".php", ".c", ".cc", ".cpp",
}

var otherFolders = []string{"vendor", "node_modules", "third_party", "test", "tests", "spec", "testdata", "__tests__", "examples"}

func isProgram(file string) bool {
	base := path.Base(file)
	for name := range strings.SplitSeq(path.Dir(file), "/") {
		if slices.Contains(otherFolders, name) {
			return false
		}
	}
	stem, _, _ := strings.Cut(base, ".")
	isTest := strings.HasSuffix(stem, "_test") || strings.HasPrefix(stem, "test_") || strings.HasSuffix(stem, "Test") ||
		strings.Contains(base, ".test.") || strings.Contains(base, ".spec.")
	return slices.Contains(programs, path.Ext(file)) && !isTest
}

// given are variables that a container has without anybody's doing, or that no service needs to be told.
var given = []string{
	"PATH", "HOME", "HOSTNAME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "TERM", "PWD", "SHELL", "DEBUG", "CI", "NODE_ENV", "NO_COLOR", "PORT",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "GOMAXPROCS", "GOMEMLIMIT", "GOGC", "JAVA_OPTS", "RUST_LOG", "RUST_BACKTRACE",
	"CONSUL_HTTP_ADDR", "CONSUL_HTTP_TOKEN_FILE", "VAULT_ADDR",
}

// Undeclared returns the first place of each variable that the source reads and that nothing gives it: the definition
// declares it neither under config nor under secrets, no ENV of the Dockerfile sets it, and no container has it anyway.
// Such an app may well be right: it may have a default. It is told to people and stops nothing.
func Undeclared(d Definition, dockerfile []byte, reads []Read) []Read {
	env := readDockerfile(dockerfile).env
	first := map[string]bool{}
	var undeclared []Read
	for _, r := range reads {
		_, set := env[r.Key]
		secret := strings.TrimSuffix(r.Key, FileSuffix)
		is := func(variable string) func(string) bool {
			return func(key string) bool { return Variable(key) == variable }
		}
		declared := slices.ContainsFunc(d.Config, is(r.Key)) || slices.ContainsFunc(d.Secrets, is(r.Key)) || secret != r.Key && slices.ContainsFunc(d.Secrets, is(secret))
		if !first[r.Key] && !set && !declared && !slices.Contains(given, r.Key) && !strings.HasPrefix(r.Key, "TOWPATH_") {
			undeclared = append(undeclared, r)
		}
		first[r.Key] = true
	}
	slices.SortFunc(undeclared, func(a, b Read) int { return strings.Compare(a.Key, b.Key) })
	return undeclared
}
