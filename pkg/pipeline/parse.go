package pipeline

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"towpath.dev/events"
	"towpath.dev/pkg/strictyaml"
)

// Bounds of a definition.
const (
	MaxSize         = 64 << 10 // bytes of a towpath.yaml
	MaxEnvironments = 20
	MaxReplicas     = 100

	maxCanonical = events.MaxRunsDefined
	maxDepth     = 12 // nesting; the deepest key is environments[].verify[].http.path
	maxNodes     = 8 << 10
	maxText      = 1 << 10
	maxArguments = 64
	maxArgument  = 4 << 10
	maxKeys      = 100 // configuration keys, secret keys, build arguments: of each
	maxChecks    = 50
	maxApprovals = 20
	maxBuildTime = 6 * time.Hour
	maxWaitTime  = time.Hour
)

// Defaults, written into every Definition.
const (
	DefaultBranch        = "main"
	DefaultBuildTimeout  = Duration(15 * time.Minute)
	DefaultHealthTimeout = Duration(time.Minute)
	DefaultDrainTimeout  = Duration(10 * time.Second)
	DefaultCheckTimeout  = Duration(30 * time.Second)
)

var (
	slugPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)
	argPattern  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	keyPattern  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*([.-][A-Za-z0-9_]+)*$`)
)

const (
	slugRule = "a name of lower-case letters, digits and inner hyphens, 1–40 long"
	keyRule  = "a name such as DATABASE_URL or spring.datasource.url: letters, digits, underscores, inner dots and hyphens, not beginning with a digit, 1–128 long, and not beginning with TOWPATH_"
)

// Parse reads a towpath.yaml and applies the defaults. name is how errors call the file. Every error is a
// *strictyaml.Faults with all that is wrong. Anchors, aliases, merge keys, tags and several documents in one file are refused, so
// that reading takes time and memory in proportion to the file, which may have MaxSize bytes.
func Parse(name string, data []byte) (Definition, error) { return parse(name, data, MaxSize) }

func parse(name string, data []byte, largest int) (Definition, error) {
	strict, root := strictyaml.Open(name, data, strictyaml.Limits{
		Size: largest, Depth: maxDepth, Nodes: maxNodes, Empty: "`towpath init` writes one",
	})
	if err := strict.Err(); err != nil {
		return Definition{}, err
	}
	r := reader{strict}
	definition := r.definition(root)
	if err := r.Err(); err != nil {
		return Definition{}, err
	}
	if size := len(definition.Canonical()); size > maxCanonical {
		r.Fault(root, "", fmt.Sprintf("with its defaults the definition has %d bytes, allowed are %d", size, maxCanonical), "", "")
	}
	return definition, r.Err()
}

// reader reads what a definition is made of, beyond what every strict YAML file is.
type reader struct{ *strictyaml.Reader }

func (r reader) definition(root *yaml.Node) Definition {
	d := Definition{
		Branch:  DefaultBranch,
		Build:   Build{Dockerfile: "Dockerfile", Context: ".", Timeout: DefaultBuildTimeout},
		Service: &Service{Replicas: 1, HealthTimeout: DefaultHealthTimeout, DrainTimeout: DefaultDrainTimeout},
		OnNewer: Supersede,
	}
	var given bool
	var config, secrets, environments *yaml.Node
	r.Fields(root, "", map[string]strictyaml.Field{
		"app":          func(n *yaml.Node, k string) { given, d.App = true, r.slug(n, k) },
		"branch":       func(n *yaml.Node, k string) { d.Branch = r.branch(n, k) },
		"build":        func(n *yaml.Node, k string) { r.build(n, k, &d.Build) },
		"service":      func(n *yaml.Node, k string) { r.service(n, k, d.Service) },
		"release":      func(n *yaml.Node, k string) { d.Release = r.command(n, k) },
		"config":       func(n *yaml.Node, k string) { config, d.Config = n, r.keyNames(n, k, CheckKey) },
		"secrets":      func(n *yaml.Node, k string) { secrets, d.Secrets = n, r.keyNames(n, k, CheckSecret) },
		"discover":     func(n *yaml.Node, k string) { d.Discover = r.Bool(n, k) },
		"onNewer":      func(n *yaml.Node, k string) { d.OnNewer = OnNewer(r.OneOf(n, k, string(Supersede), string(Queue))) },
		"environments": func(n *yaml.Node, k string) { environments = n },
	})
	if root.Kind != yaml.MappingNode {
		return d
	}
	if !given {
		r.Fault(root, "app", "is missing; it must be "+slugRule, "", "")
	}
	for i, name := range d.Secrets {
		if name != "" && slices.Contains(d.Config, name) {
			r.Fault(secrets.Content[i], fmt.Sprintf("secrets[%d]", i), "is a configuration key as well; it must be one or the other", name, "")
		}
	}
	r.variables(config, d.Config, secrets, d.Secrets)
	if environments == nil {
		r.Fault(root, "environments", "is missing; it lists where the app runs, in order, such as [{name: dev}, {name: prod}]", "", "")
		return d
	}
	r.Items(environments, "environments", "environments", 1, MaxEnvironments, func(n *yaml.Node, k string) {
		d.Environments = append(d.Environments, r.environment(n, k, *d.Service, d.Environments))
	})
	return d
}

func (r reader) build(node *yaml.Node, key string, b *Build) {
	r.Fields(node, key, map[string]strictyaml.Field{
		"dockerfile": func(n *yaml.Node, k string) { b.Dockerfile = r.inside(n, k) },
		"context":    func(n *yaml.Node, k string) { b.Context = r.inside(n, k) },
		"target": func(n *yaml.Node, k string) {
			b.Target = r.Matching(n, k, maxText, "the name of a stage", func(s string) bool { return !strings.ContainsAny(s, " \t\n") })
		},
		"timeout": func(n *yaml.Node, k string) { b.Timeout = Duration(r.Duration(n, k, time.Second, maxBuildTime)) },
		"args":    func(n *yaml.Node, k string) { b.Args = r.arguments(n, k) },
	})
	if b.Dockerfile == "." {
		r.Fault(node, key+".dockerfile", "must name a file", ".", "")
	}
}

// arguments reads the build arguments, a mapping with free keys.
func (r reader) arguments(node *yaml.Node, key string) map[string]string {
	if node.Kind != yaml.MappingNode || len(node.Content) > 2*maxKeys {
		r.Fault(node, key, fmt.Sprintf("must be a mapping of at most %d names to texts", maxKeys), strictyaml.Describe(node), "")
		return nil
	}
	args := map[string]string{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		if name.Kind != yaml.ScalarNode || !argPattern.MatchString(name.Value) {
			r.Fault(name, key, "a build argument must be named with letters, digits and underscores", strictyaml.Describe(name), "")
			continue
		}
		if _, twice := args[name.Value]; twice {
			r.Fault(name, key+"."+name.Value, "given twice", "", "keep one of them")
		}
		args[name.Value], _ = r.Text(value, key+"."+name.Value, maxArgument)
	}
	if len(args) == 0 {
		return nil
	}
	return args
}

func (r reader) service(node *yaml.Node, key string, s *Service) {
	health := node
	r.Fields(node, key, map[string]strictyaml.Field{
		"port":          func(n *yaml.Node, k string) { s.Port = r.Integer(n, k, 1, 65535) },
		"health":        func(n *yaml.Node, k string) { health = n; s.Health = r.health(n, k) },
		"replicas":      func(n *yaml.Node, k string) { s.Replicas = r.Integer(n, k, 1, MaxReplicas) },
		"healthTimeout": func(n *yaml.Node, k string) { s.HealthTimeout = Duration(r.Duration(n, k, time.Second, maxWaitTime)) },
		"drainTimeout":  func(n *yaml.Node, k string) { s.DrainTimeout = Duration(r.Duration(n, k, 0, maxWaitTime)) },
	})
	if s.Port == 0 && s.Health.Path != "" {
		r.Fault(health, key+".health", "a path needs service.port; a service without one is healthy by a command", s.Health.Path,
			"add port, or health: {command: [...]}")
	}
}

// health reads a path, {path: …} or {command: […]}.
func (r reader) health(node *yaml.Node, key string) (h Health) {
	if node.Kind == yaml.ScalarNode {
		h.Path = r.urlPath(node, key)
		return h
	}
	r.Fields(node, key, map[string]strictyaml.Field{
		"path":    func(n *yaml.Node, k string) { h.Path = r.urlPath(n, k) },
		"command": func(n *yaml.Node, k string) { h.Command = r.command(n, k) },
	})
	if h.Path != "" && h.Command != nil {
		r.Fault(node, key, "must be a path or a command, not both", "", "")
	}
	return h
}

func (r reader) environment(node *yaml.Node, key string, service Service, before []Environment) Environment {
	e := Environment{Replicas: service.Replicas}
	var named bool
	r.Fields(node, key, map[string]strictyaml.Field{
		"name": func(n *yaml.Node, k string) {
			named, e.Name = true, r.slug(n, k)
			if slices.ContainsFunc(before, func(other Environment) bool { return other.Name == e.Name && e.Name != "" }) {
				r.Fault(n, k, "each environment may be named once", string(e.Name), "")
			}
		},
		"replicas":  func(n *yaml.Node, k string) { e.Replicas = r.Integer(n, k, 1, MaxReplicas) },
		"approvals": func(n *yaml.Node, k string) { e.Approvals = r.Integer(n, k, 0, maxApprovals) },
		"verify": func(n *yaml.Node, k string) {
			r.Items(n, k, "checks", 0, maxChecks, func(n *yaml.Node, k string) { e.Verify = append(e.Verify, r.check(n, k, service)) })
		},
	})
	if node.Kind == yaml.MappingNode && !named {
		r.Fault(node, key+".name", "is missing; it must be "+slugRule, "", "")
	}
	return e
}

func (r reader) check(node *yaml.Node, key string, service Service) Check {
	c := Check{Timeout: DefaultCheckTimeout}
	given := 0
	r.Fields(node, key, map[string]strictyaml.Field{
		"http": func(n *yaml.Node, k string) {
			given++
			c.HTTP = r.httpCheck(n, k)
			if service.Port == 0 {
				r.Fault(n, k, "an HTTP check needs service.port", "", "add port to service, or check with a command")
			}
		},
		"command": func(n *yaml.Node, k string) { given, c.Command = given+1, r.command(n, k) },
		"timeout": func(n *yaml.Node, k string) { c.Timeout = Duration(r.Duration(n, k, time.Second, maxWaitTime)) },
	})
	if node.Kind == yaml.MappingNode && given != 1 {
		r.Fault(node, key, "must have exactly one of http and command", "", "")
	}
	return c
}

func (r reader) httpCheck(node *yaml.Node, key string) *HTTPCheck {
	h := &HTTPCheck{Path: "/", Status: 200}
	if node.Kind == yaml.ScalarNode {
		h.Path = r.urlPath(node, key)
		return h
	}
	r.Fields(node, key, map[string]strictyaml.Field{
		"path":     func(n *yaml.Node, k string) { h.Path = r.urlPath(n, k) },
		"status":   func(n *yaml.Node, k string) { h.Status = r.Integer(n, k, 100, 599) },
		"contains": func(n *yaml.Node, k string) { h.Contains, _ = r.Text(n, k, maxArgument) },
	})
	return h
}

// command reads a command and its arguments.
func (r reader) command(node *yaml.Node, key string) []string {
	if node.Kind == yaml.ScalarNode && node.Tag == "!!str" {
		r.Fault(node, key, "must be a list of a command and its arguments; no shell is involved", node.Value,
			`did you mean ["`+strictyaml.Shorten(strings.Join(strings.Fields(node.Value), `", "`))+`"]?`)
		return nil
	}
	var command []string
	r.Items(node, key, "texts (a command and its arguments)", 1, maxArguments, func(node *yaml.Node, key string) {
		argument, ok := r.Text(node, key, maxArgument)
		if ok && argument == "" && len(command) == 0 {
			r.Fault(node, key, "must not be empty: it is the program that runs", "", "")
		}
		command = append(command, argument)
	})
	return command
}

func (r reader) slug(node *yaml.Node, key string) events.Slug {
	return events.Slug(r.Matching(node, key, maxText, slugRule, slugPattern.MatchString))
}

func (r reader) branch(node *yaml.Node, key string) string {
	return r.Matching(node, key, 200, "a branch's name such as main or release/2, without refs/heads/", validBranch)
}

// keyNames reads the names of settings.
func (r reader) keyNames(node *yaml.Node, key string, check func(string) error) (names []string) {
	r.Items(node, key, "names", 0, maxKeys, func(n *yaml.Node, k string) {
		name := r.Matching(n, k, maxText, keyRule, validKey)
		if err := check(name); name != "" && err != nil {
			r.Fault(n, k, err.Error(), name, "")
		}
		if name != "" && slices.Contains(names, name) {
			r.Fault(n, k, "each name may be given once", name, "")
		}
		names = append(names, name)
	})
	return names
}

// inside reads a path below the repository's root and cleans it.
func (r reader) inside(node *yaml.Node, key string) string {
	value := r.Matching(node, key, maxText, "a path inside the repository, with slashes, without .. at its front", func(s string) bool {
		clean := path.Clean(s)
		return s != "" && !path.IsAbs(s) && clean != ".." && !strings.HasPrefix(clean, "../") && !strings.ContainsAny(s, "\\\n")
	})
	if value == "" {
		return ""
	}
	return path.Clean(value)
}

func (r reader) urlPath(node *yaml.Node, key string) string {
	return r.Matching(node, key, maxText, "a path that begins with /, such as /health", func(s string) bool {
		return strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "//") && !strings.ContainsAny(s, " \t\n#\\")
	})
}

// variables refuses settings that would be one variable of a container.
func (r reader) variables(config *yaml.Node, keys []string, secrets *yaml.Node, secretKeys []string) {
	taken := map[string]string{}
	look := func(node *yaml.Node, list string, names []string, suffix string) {
		for i, name := range names {
			if name == "" {
				continue
			}
			variable := Variable(name) + suffix
			if other, is := taken[variable]; is && other != name {
				r.Fault(node.Content[i], fmt.Sprintf("%s[%d]", list, i), fmt.Sprintf("is the variable %s in a container, and so is %s; rename one of them", variable, other), name, "")
			}
			taken[variable] = name
		}
	}
	look(config, "config", keys, "")
	look(secrets, "secrets", secretKeys, FileSuffix)
}

// FileSuffix ends the name of the variable that says in which file a secret is.
const FileSuffix = "_FILE"

// Variable is the environment variable that a setting is in a container: its name, or where that has dots or hyphens, the
// name in upper case with underscores instead, as frameworks look for it: SPRING_DATASOURCE_URL for spring.datasource.url.
func Variable(key string) string {
	if !strings.ContainsAny(key, ".-") {
		return key
	}
	return strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// CheckKey reports whether a name may be a setting's: letters, digits, underscores, inner dots and hyphens, not beginning
// with a digit, 1–128 long, and not beginning with TOWPATH_ as a variable, which is Towpath's own.
func CheckKey(name string) error {
	if !validKey(name) {
		return fmt.Errorf("key %.130q must be %s", name, keyRule)
	}
	return nil
}

// Names among an app's secrets that are taken: files that it finds beside them, and fields of Vault that say how others
// are encoded.
var (
	takenSecrets = []string{"own", "consul-token", "consul-ca.pem", "vault-token", "vault-ca.pem"}
	takenEnding  = ".encoding"
)

// CheckSecret is CheckKey for a secret.
func CheckSecret(name string) error {
	if err := CheckKey(name); err != nil {
		return err
	}
	if slices.Contains(takenSecrets, name) || strings.HasSuffix(name, takenEnding) {
		return fmt.Errorf("key %q of a secret is Towpath's own: %s, and what ends in %s; choose another", name, strings.Join(takenSecrets, ", "), takenEnding)
	}
	return nil
}

func validKey(name string) bool {
	return len(name) <= 128 && keyPattern.MatchString(name) && !strings.HasPrefix(strings.ToUpper(Variable(name)), "TOWPATH_")
}

// validBranch holds git's rules for names below refs/heads.
func validBranch(name string) bool {
	if name == "" || name == "@" || strings.HasPrefix(name, "refs/") || strings.HasPrefix(name, "-") {
		return false
	}
	if strings.ContainsAny(name, " ~^:?*[\\\t\n\x7f") || strings.Contains(name, "..") || strings.Contains(name, "@{") {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") || strings.HasSuffix(part, ".") {
			return false
		}
	}
	return true
}
