package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"towpath.dev/events"
)

// git runs git commands on one bare repository, in an environment that the machine's users and the
// repository's author have no say in: no configuration but git's own defaults, no hooks, no prompts, no
// helper programs, no transports but those allowed.
type git struct {
	dir    string   // the repository: GIT_DIR
	config []string // -c options
	env    []string
}

// passedOn are the variables of the service's own environment that git gets: how to reach the network.
var passedOn = []string{
	"PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "SSH_AUTH_SOCK", "TMPDIR",
}

// newGit makes an empty repository in dir.
func newGit(ctx context.Context, dir, home string, access Access) (*git, error) {
	g := &git{dir: dir, env: []string{
		"HOME=" + home, "LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=", "SSH_ASKPASS=", "SSH_ASKPASS_REQUIRE=never",
		"GIT_ALLOW_PROTOCOL=file:http:https:ssh", "GIT_SSH_COMMAND=" + access.sshCommand(),
		"GIT_NO_REPLACE_OBJECTS=1", "GIT_LFS_SKIP_SMUDGE=1", "GIT_DIR=" + dir,
	}}
	for _, name := range passedOn {
		if value, ok := os.LookupEnv(name); ok {
			g.env = append(g.env, name+"="+value)
		}
	}
	for _, option := range []string{
		"core.hooksPath=/dev/null", "core.fsmonitor=false", "core.autocrlf=false", "core.symlinks=true",
		"core.fileMode=true", "gc.auto=0", "maintenance.auto=false", "credential.helper=",
		"fetch.unpackLimit=1", "http.lowSpeedLimit=1000", "http.lowSpeedTime=30", "advice.detachedHead=false",
	} {
		g.config = append(g.config, "-c", option)
	}
	if access.Credentials != "" {
		g.config = append(g.config, "-c", "credential.helper=store --file="+shellQuote(access.Credentials))
	}
	_, err := g.run(ctx, "init", "--quiet", "--bare", "--template=")
	return g, err
}

// open adds an Authorization header to requests for one repository. It travels in the environment, which
// other users of the machine cannot read, as they can arguments.
func (g *git) open(r repositoryURL, authorization string) {
	g.env = append(g.env, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http."+r.text+".extraHeader", "GIT_CONFIG_VALUE_0=Authorization: "+authorization)
}

// sshCommand is what git runs for ssh: without the user's configuration, without questions, and only to
// hosts whose key is known.
func (a Access) sshCommand() string {
	command := "ssh -F none -oBatchMode=yes -oConnectTimeout=10 -oServerAliveInterval=15 -oStrictHostKeyChecking=yes -oForwardAgent=no -oClearAllForwardings=yes"
	if a.SSHKnownHosts != "" {
		command += " -oUserKnownHostsFile=" + shellQuote(a.SSHKnownHosts)
	}
	if a.SSHKey != "" {
		command += " -oIdentitiesOnly=yes -i " + shellQuote(a.SSHKey)
	}
	return command
}

// shellQuote quotes a path of the platform's configuration: git gives it to a shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// gitError is a git command that failed.
type gitError struct {
	command string
	stderr  string // the end of it
	err     error
}

func (e *gitError) Error() string {
	said := strings.TrimSpace(e.stderr)
	if said == "" {
		said = e.err.Error()
	}
	return "git " + e.command + ": " + said
}

func (e *gitError) Unwrap() error { return e.err }

// says reports whether git's words hold one of the texts, whatever their case.
func (e *gitError) says(texts ...string) bool {
	said := strings.ToLower(e.stderr)
	for _, text := range texts {
		if strings.Contains(said, strings.ToLower(text)) {
			return true
		}
	}
	return false
}

// run runs a git command and returns what it wrote, at most 16 MiB.
func (g *git) run(ctx context.Context, args ...string) ([]byte, error) {
	out := &limitedBuffer{max: 16 << 20}
	err := g.stream(ctx, out, args...)
	return out.Bytes(), err
}

// stream runs a git command and its children in a process group, which is killed when ctx ends or when
// out takes no more.
func (g *git) stream(ctx context.Context, out io.Writer, args ...string) error {
	stderr := &tailBuffer{max: 8 << 10}
	command := exec.CommandContext(ctx, "git", append(g.config[:len(g.config):len(g.config)], args...)...)
	command.Dir, command.Env = g.dir, g.env
	if args[0] == "init" {
		command.Dir = "/"
	}
	command.Stdout, command.Stderr = out, stderr
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = 5 * time.Second
	err := command.Run()
	if err == nil {
		return nil
	}
	name := args[0]
	if strings.HasPrefix(name, "-") {
		name = args[1]
	}
	if ctx.Err() != nil {
		return fmt.Errorf("git %s: %w", name, context.Cause(ctx))
	}
	if errors.Is(err, exec.ErrNotFound) {
		return operatorActs(events.Trouble{What: "fetching the source", Why: "git is not installed where build runs", Do: "apt-get install git, then replay"})
	}
	return &gitError{command: name, stderr: stderr.String(), err: err}
}

// errTooLong stops a command whose output has no place to go.
var errTooLong = errors.New("the output is too long")

// limitedBuffer keeps at most max bytes and refuses more.
type limitedBuffer struct {
	bytes.Buffer
	max int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.max {
		return 0, errTooLong
	}
	return b.Buffer.Write(p)
}

// tailBuffer keeps the last max bytes.
type tailBuffer struct {
	data []byte
	max  int
}

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.data = append(b.data, p...)
	if len(b.data) > 2*b.max {
		b.data = append(b.data[:0], b.data[len(b.data)-b.max:]...)
	}
	return len(p), nil
}

func (b *tailBuffer) String() string { return string(b.data[max(0, len(b.data)-b.max):]) }
