package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"towpath.dev/pkg/settings/consul/consultest"
	"towpath.dev/pkg/settings/vault/vaulttest"
)

// lookBound is how long promote may take to look at what it deployed: it does so once a minute.
const lookBound = 2 * time.Minute

// vaultCommand runs a real Vault of the script's own: README.md says what each verb does.
func vaultCommand(ts *testscript.TestScript, neg bool, args []string) {
	own(ts)
	h := held(ts)
	ctx, cancel := context.WithTimeout(context.Background(), lookBound+time.Minute)
	defer cancel()
	switch {
	case !neg && (len(args) == 1 || len(args) == 2 && args[1] == "docker0") && args[0] == "start" && h.vault == nil:
		folder := ts.MkAbs("vault")
		ts.Check(os.MkdirAll(folder, 0o700))
		options := vaulttest.Options{}
		if len(args) == 2 {
			options.Host = addressOf(ts, args[1])
		}
		v, err := vaulttest.Run(ctx, folder, options)
		ts.Check(err)
		ts.Defer(v.Kill)
		ts.Check(v.Mount(ctx, "secret"))
		h.vault = v
		ts.Setenv("VAULT", v.Address)
	case !neg && len(args) > 2 && args[0] == "rules" && h.vault != nil:
		pasteRules(ctx, ts, h.vault, args[1:])
	case !neg && len(args) == 3 && args[0] == "tokens" && h.vault != nil:
		awaitText(ts, lookBound, args[2], func() (string, error) {
			n, err := h.vault.Tokens(ctx, "auth/token/create/towpath-"+args[1]+"-app")
			return fmt.Sprint(n), err
		})
	case !neg && len(args) == 1 && args[0] == "seal" && h.vault != nil:
		ts.Check(h.vault.Seal(ctx))
	case !neg && len(args) == 1 && args[0] == "unseal" && h.vault != nil:
		ts.Check(h.vault.Unseal(ctx))
	case !neg && len(args) == 1 && args[0] == "revoke" && h.vault != nil:
		ts.Check(h.vault.RevokeLogins(ctx, "auth/approle/login"))
	case !neg && len(args) == 2 && args[0] == "spend" && h.vault != nil:
		token, _, _ := strings.Cut(strings.TrimSpace(ts.ReadFile(args[1])), " ")
		vaultProgram(ctx, ts, h.vault, "vault unwrap \"$1\"", token)
	case !neg && len(args) > 2 && args[0] == "as-root" && h.vault != nil:
		show(ts, vaultProgram(ctx, ts, h.vault, `vault "$@"`, args[1:]...), "")
	default:
		ts.Fatalf("usage: vault start [docker0], once; then vault rules [--discover] PLATFORM ENV..., vault tokens ENV COUNT, vault seal|unseal|revoke, vault spend FILE, vault as-root ARGS...")
	}
}

// vaultProgram runs a shell script with Vault's own command line, and Consul's, as an administrator, and returns its output.
func vaultProgram(ctx context.Context, ts *testscript.TestScript, v *vaulttest.Server, script string, args ...string) string {
	program, err := v.Program()
	ts.Check(err)
	shell := exec.CommandContext(ctx, "sh", append([]string{"-euc", script, "sh"}, args...)...)
	shell.Dir = ts.MkAbs(".")
	shell.Env = []string{
		"PATH=" + filepath.Dir(program) + ":" + os.Getenv("PATH"), "VAULT_ADDR=" + v.Address, "VAULT_TOKEN=" + v.Root, "HOME=" + ts.MkAbs("vault"),
	}
	if held(ts).consul != nil {
		shell.Env = append(shell.Env, "CONSUL_HTTP_TOKEN="+consultest.Master)
	}
	var said strings.Builder
	shell.Stderr = &said
	out, err := shell.Output()
	if err != nil {
		ts.Fatalf("%v\n%s\n%s\n%s", err, script, out, said.String())
	}
	return string(out)
}

// addressOf is an interface's IPv4 address.
func addressOf(ts *testscript.TestScript, name string) string {
	one, err := net.InterfaceByName(name)
	ts.Check(err)
	all, err := one.Addrs()
	ts.Check(err)
	for _, a := range all {
		if ip, _, err := net.ParseCIDR(a.String()); err == nil && ip.To4() != nil {
			return ip.String()
		}
	}
	ts.Fatalf("%s has no IPv4 address", name)
	return ""
}

// pasteRules does what `towpath settings rules` says, as an administrator of Vault, and of Consul where one was started:
// [--discover] PLATFORM ENV...
func pasteRules(ctx context.Context, ts *testscript.TestScript, v *vaulttest.Server, args []string) {
	var discover []string
	if args[0] == "--discover" {
		discover, args = args[:1], args[1:]
	}
	platform, environments := args[0], args[1:]
	file := ts.MkAbs("vault/platform.yaml")
	ts.Check(os.WriteFile(file, []byte(os.Expand(ts.ReadFile(platform), ts.Getenv)), 0o600))
	for _, env := range environments {
		rules, err := exec.CommandContext(ctx, filepath.Join(binaries.Folder, "towpath"), append([]string{"settings", "rules", env, "--platform", file}, discover...)...).Output()
		ts.Check(err)
		vaultProgram(ctx, ts, v, string(rules))
	}
}
