package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"towpath.dev/pkg/settings/vault/vaulttest"
)

// vaultCommand runs a real Vault of the script's own.
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
	default:
		ts.Fatalf("usage: vault start, once; then vault rules PLATFORM ENV..., vault seal, vault unseal")
	}
}

// pasteRules does what `towpath settings rules` says, as an administrator of Vault.
func pasteRules(ctx context.Context, ts *testscript.TestScript, v *vaulttest.Server, platform string, environments []string) {
	program, err := v.Program()
	ts.Check(err)
	file := ts.MkAbs("vault/platform.yaml")
	ts.Check(os.WriteFile(file, []byte(os.Expand(ts.ReadFile(platform), ts.Getenv)), 0o600))
	for _, env := range environments {
		rules, err := exec.CommandContext(ctx, filepath.Join(binaries.Folder, "towpath"), "settings", "rules", env, "--platform", file).Output()
		ts.Check(err)
		shell := exec.CommandContext(ctx, "sh", "-euc", string(rules))
		shell.Env = []string{"PATH=" + filepath.Dir(program) + ":" + os.Getenv("PATH"), "VAULT_TOKEN=" + v.Root, "HOME=" + ts.MkAbs("vault")}
		if out, err := shell.CombinedOutput(); err != nil {
			ts.Fatalf("the rules of %s: %v\n%s\n%s", env, err, rules, out)
		}
	}
}
