package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"towpath.dev/pkg/settings/consul/consultest"
	"towpath.dev/pkg/settings/vault/vaulttest"
)

// vaultCommand runs a real Vault of the script's own: README.md says what each verb does.
func vaultCommand(ts *testscript.TestScript, neg bool, args []string) {
	own(ts)
	h := held(ts)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	switch {
	case !neg && len(args) == 1 && args[0] == "start" && h.vault == nil:
		folder := ts.MkAbs("vault")
		ts.Check(os.MkdirAll(folder, 0o700))
		v, err := vaulttest.Run(ctx, folder, vaulttest.Options{})
		ts.Check(err)
		ts.Defer(v.Kill)
		ts.Check(v.Mount(ctx, "secret"))
		h.vault = v
		ts.Setenv("VAULT", v.Address)
	case !neg && len(args) > 2 && args[0] == "rules" && h.vault != nil:
		pasteRules(ctx, ts, h.vault, args[1], args[2:])
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
		ts.Fatalf("usage: vault start, once; then vault rules PLATFORM ENV..., vault seal|unseal|revoke, vault spend FILE, vault as-root ARGS...")
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

// pasteRules does what `towpath settings rules` says, as an administrator of Vault, and of Consul where one was started.
func pasteRules(ctx context.Context, ts *testscript.TestScript, v *vaulttest.Server, platform string, environments []string) {
	file := ts.MkAbs("vault/platform.yaml")
	ts.Check(os.WriteFile(file, []byte(os.Expand(ts.ReadFile(platform), ts.Getenv)), 0o600))
	for _, env := range environments {
		rules, err := exec.CommandContext(ctx, filepath.Join(binaries.Folder, "towpath"), "settings", "rules", env, "--platform", file).Output()
		ts.Check(err)
		vaultProgram(ctx, ts, v, string(rules))
	}
}
