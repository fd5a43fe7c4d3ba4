package system

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
)

// CopyModule puts a Go module's source into a folder, writable, as the module proxy gives it.
func CopyModule(ctx context.Context, module, folder string) error {
	answer, err := output(ctx, []string{"GOWORK=off", "GOFLAGS=-mod=mod"}, "go", "-C", os.TempDir(), "mod", "download", "-json", module)
	if err != nil {
		return fmt.Errorf("fetching module %s: %w", module, err)
	}
	var downloaded struct{ Dir string }
	if err := json.Unmarshal([]byte(answer), &downloaded); err != nil {
		return fmt.Errorf("fetching module %s: %w", module, err)
	}
	if err := os.CopyFS(folder, os.DirFS(downloaded.Dir)); err != nil {
		return fmt.Errorf("copying module %s: %w", module, err)
	}
	_, err = output(ctx, nil, "chmod", "-R", "u+w", folder)
	return err
}
