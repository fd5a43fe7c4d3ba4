package pipeline

import (
	"strings"
	"testing"
)

func TestInit(t *testing.T) {
	for _, c := range []struct {
		name, dockerfile, folder string
		app                      string
		port                     int
		path                     string
		command                  string
	}{
		{"nothing", "", "My App_2", "my-app-2", 0, "", ""},
		{"expose", "FROM scratch\nEXPOSE 8080\nCMD [\"/hello\"]\n", "hello", "hello", 8080, "", ""},
		{"expose udp first", "FROM x\nEXPOSE 53/udp 5353/tcp\n", "dns", "dns", 5353, "", ""},
		{"lower case, continued", "from x\nexpose \\\n # why\n  9000\n", "a", "a", 9000, "", ""},
		{"variable", "ARG PORT=7000\nFROM x\nEXPOSE ${PORT}\n", "a", "a", 7000, "", ""},
		{"variable with default", "FROM x\nEXPOSE ${P:-7001}\n", "a", "a", 7001, "", ""},
		{"an earlier stage does not count", "FROM go AS build\nEXPOSE 1\nFROM scratch\nCMD [\"/a\"]\n", "a", "a", 0, "", ""},
		{"a stage that goes on does", "FROM go AS base\nEXPOSE 4000\nFROM base\n", "a", "a", 4000, "", ""},
		{"command line", "FROM x\nCMD [\"/httpbin\", \"--port\", \"8081\"]\n", "a", "a", 8081, "", ""},
		{"command line address", "FROM x\nCMD /serve -listen 0.0.0.0:8082\n", "a", "a", 8082, "", ""},
		{"env", "FROM x\nENV PORT=3000 NODE_ENV=production\n", "a", "a", 3000, "", ""},
		{"expose wins", "FROM x\nENV PORT 3000\nEXPOSE 8080\n", "a", "a", 8080, "", ""},
		{"health by curl", "FROM x\nEXPOSE 8080\nHEALTHCHECK --interval=5s --timeout=3s CMD curl -f http://localhost:8080/health || exit 1\n", "a", "a", 8080, "/health", ""},
		{"health at the root", "FROM x\nEXPOSE 80\nHEALTHCHECK CMD wget -q http://127.0.0.1\n", "a", "a", 80, "/", ""},
		{"health gives the port", "FROM x\nHEALTHCHECK CMD [\"/probe\", \"http://127.0.0.1:99/up\"]\n", "a", "a", 99, "/up", ""},
		{"health command", "FROM x\nHEALTHCHECK CMD [\"/hello\", \"healthy\"]\n", "a", "a", 0, "", "/hello healthy"},
		{"health command in a shell", "FROM x\nHEALTHCHECK --retries=2 CMD test -e /tmp/alive\n", "a", "a", 0, "", "/bin/sh -c test -e /tmp/alive"},
		{"health none", "FROM x\nHEALTHCHECK CMD [\"a\"]\nHEALTHCHECK NONE\n", "a", "a", 0, "", ""},
		{"here-document", "FROM x\nRUN <<EOF\nEXPOSE 1\nEOF\nEXPOSE 2000\n", "a", "a", 2000, "", ""},
		{"escape", "# escape=`\nFROM x\nEXPOSE `\n 81\n", "a", "a", 81, "", ""},
		{"a number for a name", "FROM x", "123", "123", 0, "", ""},
		{"no letters in the name", "FROM x", "…", "app", 0, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := Init([]byte(c.dockerfile), c.folder)
			d, err := Parse(FileName, text)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if string(d.App) != c.app || d.Service.Port != c.port || d.Service.Health.Path != c.path ||
				strings.Join(d.Service.Health.Command, " ") != c.command {
				t.Errorf("got %s %d %+v\n%s", d.App, d.Service.Port, d.Service.Health, text)
			}
			if len(d.Environments) != 3 {
				t.Errorf("environments %v", d.EnvironmentNames())
			}
		})
	}
}

func FuzzInit(f *testing.F) {
	f.Add([]byte("FROM x\nEXPOSE 80\nHEALTHCHECK CMD curl http://localhost/h\n"), "hello")
	f.Add([]byte("FROM x\nHEALTHCHECK CMD [\"\\u0007\"]\nRUN <<A <<B\n"), "0x1f")
	f.Fuzz(func(t *testing.T, dockerfile []byte, folder string) {
		if len(dockerfile) > MaxSize/2 {
			return
		}
		text := Init(dockerfile, folder)
		if _, err := Parse(FileName, text); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	})
}
