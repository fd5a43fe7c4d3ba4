package pipeline

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"towpath.dev/pkg/strictyaml"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Each testdata/*.yaml has a golden: the canonical JSON and its digest where it is valid, else the faults.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden inputs: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got string
			definition, err := Parse(FileName, data)
			if err != nil {
				got = err.Error() + "\n"
			} else {
				var indented bytes.Buffer
				if err := json.Indent(&indented, definition.Canonical(), "", "  "); err != nil {
					t.Fatal(err)
				}
				got = indented.String() + "\n" + definition.Digest() + "\n"
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

const minimal = "app: hello\nenvironments: [{name: dev}]\n"

func TestFaults(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "towpath.yaml:1: the file is empty; `towpath init` writes one"},
		{"only a comment", "# nothing\n", "towpath.yaml:1: the file is empty"},
		{"broken", "app: hello\nservice: {port: 1\n", "towpath.yaml:2: not valid YAML: "},
		{"tab", "app: hello\nservice:\n\tport: 1\n", "towpath.yaml:3: not valid YAML: found character that cannot start any token; YAML is indented with spaces"},
		{"two documents", minimal + "---\napp: b\n", "towpath.yaml:3: a second document begins here"},
		{"a list", "- app\n", `towpath.yaml:1: must be a mapping with the keys app, branch, build,`},
		{"unknown key", minimal + "enviroments: []\n", "towpath.yaml:3: enviroments: unknown key; allowed: app, branch, build, config, discover, environments, onNewer, release, secrets, service; did you mean environments?"},
		{"unknown nested key", minimal + "service:\n  prot: 80\n", "towpath.yaml:4: service.prot: unknown key; allowed: drainTimeout, health, healthTimeout, port, replicas; did you mean port?"},
		{"twice", minimal + "app: b\n", "towpath.yaml:3: app: given twice, first on line 1; keep one of them"},
		{"discover", minimal + "discover: yes please\n", `towpath.yaml:3: discover: must be true or false (got "yes please")`},
		{"port", minimal + "service: {port: 70000}\n", `towpath.yaml:3: service.port: must be a whole number, 1–65535 (got "70000")`},
		{"port word", minimal + "service: {port: http}\n", `towpath.yaml:3: service.port: must be a whole number, 1–65535 (got "http")`},
		{"huge port", minimal + "service: {port: 99999999999999999999}\n", `service.port: must be a whole number`},
		{"no app", "environments: [{name: dev}]\n", "towpath.yaml:1: app: is missing; it must be a name of lower-case letters"},
		{"app case", "app: Hello\nenvironments: [{name: dev}]\n", `towpath.yaml:1: app: must be a name of lower-case letters, digits and inner hyphens, 1–40 long (got "Hello")`},
		{"app traversal", "app: ../x\nenvironments: [{name: dev}]\n", `app: must be`},
		{"no environments", "app: hello\n", "towpath.yaml:1: environments: is missing"},
		{"empty environments", "app: hello\nenvironments: []\n", `towpath.yaml:2: environments: must be a list of 1–20 environments (got "0 of them")`},
		{"null environments", "app: hello\nenvironments:\n", `towpath.yaml:2: environments: must be a list of environments (got "nothing")`},
		{"environment twice", "app: hello\nenvironments: [{name: dev}, {name: dev}]\n", `environments[1].name: each environment may be named once (got "dev")`},
		{"environment unnamed", "app: hello\nenvironments: [{replicas: 1}]\n", `environments[0].name: is missing`},
		{"environment word", "app: hello\nenvironments: [dev]\n", `environments[0]: must be a mapping with the keys approvals, name, replicas, verify (got "dev")`},
		{"replicas", "app: hello\nenvironments: [{name: dev, replicas: 0}]\n", `environments[0].replicas: must be a whole number, 1–100 (got "0")`},
		{"onNewer", minimal + "onNewer: supercede\n", `onNewer: must be one of supersede, queue (got "supercede"); did you mean supersede?`},
		{"duration", minimal + "build: {timeout: 30}\n", `build.timeout: must be a duration such as 30s or 1m30s, 1s–6h0m0s (got "30"); give a unit: did you mean 30s?`},
		{"duration bounds", minimal + "build: {timeout: 300h}\n", `build.timeout: must be a duration`},
		{"command as text", minimal + "release: /hello migrate\n", `release: must be a list of a command and its arguments; no shell is involved (got "/hello migrate"); did you mean ["/hello", "migrate"]?`},
		{"config key", minimal + "config: [DATABASE--URL]\n", `config[0]: must be a name such as DATABASE_URL`},
		{"config key's end", minimal + "config: [spring.]\n", `config[0]: must be a name such as DATABASE_URL`},
		{"one variable", minimal + "config: [server.port, A, SERVER_PORT]\n", `config[2]: is the variable SERVER_PORT in a container, and so is server.port; rename one of them (got "SERVER_PORT")`},
		{"one variable, dotted", minimal + "config: [a.b-c, a-b.c]\n", `config[1]: is the variable A_B_C in a container, and so is a.b-c; rename one of them (got "a-b.c")`},
		{"one file variable", minimal + "config: [DB_PASSWORD_FILE]\nsecrets: [db.password]\n", `secrets[0]: is the variable DB_PASSWORD_FILE in a container, and so is DB_PASSWORD_FILE; rename one of them (got "db.password")`},
		{"reserved, dotted", minimal + "config: [towpath.run]\n", `config[0]: must be a name such as DATABASE_URL`},
		{"a file's name that is taken", minimal + "secrets: [vault-token]\n", `of a secret is Towpath's own`},
		{"a field's name that is taken", minimal + "secrets: [db.encoding]\n", `of a secret is Towpath's own`},
		{"config twice", minimal + "config: [A, A]\n", `config[1]: each name may be given once (got "A")`},
		{"reserved", minimal + "config: [TOWPATH_RUN]\n", `config[0]: must be a name such as DATABASE_URL`},
		{"config and secret", minimal + "config: [A]\nsecrets: [A]\n", `secrets[0]: is a configuration key as well`},
		{"path without port", minimal + "service: {health: /h}\n", "service.health: a path needs service.port"},
		{"http check without port", "app: hello\nenvironments: [{name: dev, verify: [{http: {path: /}}]}]\n", "environments[0].verify[0].http: an HTTP check needs service.port"},
		{"health both", minimal + "service: {port: 1, health: {path: /, command: [a]}}\n", "service.health: must be a path or a command, not both"},
		{"empty check", "app: hello\nenvironments: [{name: dev, verify: [{timeout: 3s}]}]\n", "environments[0].verify[0]: must have exactly one of http and command"},
		{"status", "app: hello\nservice: {port: 1}\nenvironments: [{name: dev, verify: [{http: {path: /, status: 9}}]}]\n", "environments[0].verify[0].http.status: must be a whole number, 100–599"},
		{"outside", minimal + "build: {context: ../other}\n", `build.context: must be a path inside the repository, with slashes, without .. at its front (got "../other")`},
		{"absolute", minimal + "build: {dockerfile: /etc/passwd}\n", `build.dockerfile: must be a path inside the repository`},
		{"branch", minimal + "branch: refs/heads/main\n", "branch: must be a branch's name"},
		{"anchor", "app: &a hello\nenvironments: [{name: dev}]\n", `towpath.yaml:1: anchors (&name) are not allowed (got "&a"); write the value out where it is needed`},
		{"alias", "app: hello\nconfig: &c [A]\nsecrets: *c\nenvironments: [{name: dev}]\n", `towpath.yaml:3: aliases (*name) are not allowed (got "*c"); write the value out`},
		{"merge", minimal + "service:\n  <<: {port: 1}\n", "service: a key must be a plain word"},
		{"tag", "app: !!binary aGVsbG8=\nenvironments: [{name: dev}]\n", "tags are not allowed"},
		{"control character", "app: hello\nrelease: [\"a\\u0007\"]\nenvironments: [{name: dev}]\n", "release[0]: must not hold control characters"},
		{"deep", "app: " + strings.Repeat("[", 40) + strings.Repeat("]", 40) + "\n", "nested too deeply"},
		{"many", "app: hello\nconfig: [" + strings.Repeat("A,", 20000) + "]\n", "the file holds too many values"},
		{"large", strings.Repeat("#", MaxSize+1), "the file has 65537 bytes, allowed are 65536"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(FileName, []byte(c.text))
			var faults *strictyaml.Faults
			if !errors.As(err, &faults) {
				t.Fatalf("got %v, want *strictyaml.Faults", err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %s\nwant %s", err, c.want)
			}
		})
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	_, err := Parse(FileName, []byte("app: Bad\nservice: {port: x, replicas: 0}\nfoo: 1\nenvironments: [{name: dev}, {nmae: qa}]\n"))
	var faults *strictyaml.Faults
	if !errors.As(err, &faults) {
		t.Fatal(err)
	}
	var at []string
	for _, fault := range faults.List {
		at = append(at, fault.Key)
	}
	want := "app service.port service.replicas foo environments[1].nmae environments[1].name"
	if got := strings.Join(at, " "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// What one part of the file says must not change how another part is judged, whichever comes first.
func TestOrderOfKeysDoesNotMatter(t *testing.T) {
	a, err := Parse(FileName, []byte("environments: [{name: dev, verify: [{http: /}]}]\nservice: {replicas: 2, port: 80}\napp: hello\n"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := Parse(FileName, []byte("app: hello\nservice:\n  port: 80\n  replicas: 2\nenvironments:\n- name: dev\n  verify:\n  - http: {status: 200, path: /}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if a.Digest() != b.Digest() {
		t.Errorf("digests differ:\n%s\n%s", a.Canonical(), b.Canonical())
	}
	for _, text := range []string{"config: [A]\nsecrets: [A]\n", "secrets: [A]\nconfig: [A]\n"} {
		if _, err := Parse(FileName, []byte(minimal+text)); err == nil {
			t.Errorf("%q: a key that is both configuration and secret was accepted", text)
		}
	}
}

func TestParseCanonical(t *testing.T) {
	definition, err := Parse(FileName, []byte(minimal+"build: {args: {B: \"<&>\", A: 1.20}}\nrelease: [sh, \"two\\nlines\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	canonical := definition.Canonical()
	again, err := ParseCanonical(canonical)
	if err != nil {
		t.Fatal(err)
	}
	if again.Digest() != definition.Digest() {
		t.Error("the digest changed on the way")
	}
	embedded, err := json.Marshal(struct{ D json.RawMessage }{canonical})
	if err != nil || !bytes.Contains(embedded, canonical) {
		t.Errorf("embedding changed the bytes: %s %v", embedded, err)
	}
	for name, data := range map[string]string{
		"white space":  " " + string(canonical),
		"order":        `{"branch":"main",` + strings.Replace(string(canonical[1:]), `"branch":"main",`, "", 1),
		"unknown":      strings.Replace(string(canonical), `"app"`, `"x":1,"app"`, 1),
		"bad value":    strings.Replace(string(canonical), `"app":"hello"`, `"app":"HELLO"`, 1),
		"no defaults":  `{"app":"hello","environments":[{"name":"dev"}]}`,
		"YAML":         minimal,
		"nothing":      "",
		"cut":          string(canonical[:len(canonical)-1]),
		"two of them":  string(canonical) + string(canonical),
		"null service": strings.Replace(string(canonical), `"service":{`, `"service":null,"s":{`, 1),
	} {
		if _, err := ParseCanonical([]byte(data)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Whatever Parse accepts has a canonical form that means the same.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(minimal))
	f.Fuzz(func(t *testing.T, data []byte) {
		definition, err := Parse(FileName, data)
		if err != nil {
			var faults *strictyaml.Faults
			if !errors.As(err, &faults) || len(faults.List) == 0 {
				t.Fatalf("error without faults: %v", err)
			}
			for _, fault := range faults.List {
				if fault.Line < 1 || fault.Problem == "" {
					t.Fatalf("fault without a line or problem: %+v", fault)
				}
			}
			return
		}
		again, err := ParseCanonical(definition.Canonical())
		if err != nil {
			t.Fatalf("canonical form is refused: %v\n%s", err, definition.Canonical())
		}
		if !bytes.Equal(again.Canonical(), definition.Canonical()) {
			t.Fatalf("canonical form is not stable:\n%s\n%s", definition.Canonical(), again.Canonical())
		}
		if len(definition.Environments) == 0 || definition.Service == nil || definition.App == "" {
			t.Fatalf("incomplete definition %+v", definition)
		}
	})
}

// Keys as Spring's users have them are declared as they are, and are variables as frameworks look for them.
func TestVariables(t *testing.T) {
	d, err := Parse(FileName, []byte("app: hello\nconfig: [server.port, spring.jpa.open-in-view, spring.messages.encoding, greeting, Server_Port]\nsecrets: [spring.datasource.password]\nenvironments: [{name: dev}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	var variables []string
	for _, key := range d.Config {
		variables = append(variables, Variable(key))
	}
	variables = append(variables, Variable(d.Secrets[0])+FileSuffix)
	want := "SERVER_PORT SPRING_JPA_OPEN_IN_VIEW SPRING_MESSAGES_ENCODING greeting Server_Port SPRING_DATASOURCE_PASSWORD_FILE"
	if got := strings.Join(variables, " "); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if left := Undeclared(d, nil, []Read{{Key: "SERVER_PORT"}, {Key: "SPRING_DATASOURCE_PASSWORD_FILE"}, {Key: "OTHER_PORT"}}); len(left) != 1 || left[0].Key != "OTHER_PORT" {
		t.Errorf("undeclared are %v", left)
	}
}
