package towpath

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestOneProcessOnADataFolder(t *testing.T) {
	cfg := Config{Data: t.TempDir()}
	if held, err := Held(cfg.Data); held || err != nil {
		t.Fatalf("fresh folder: held %v, %v", held, err)
	}
	release, err := lock(cfg.Data, cfg.lockFile())
	if err != nil {
		t.Fatal(err)
	}
	if held, err := Held(cfg.Data); !held || err != nil {
		t.Errorf("held %v, %v", held, err)
	}
	_, err = lock(cfg.Data, cfg.lockFile())
	var used *InUseError
	if !errors.As(err, &used) || used.PID != os.Getpid() || !strings.Contains(err.Error(), cfg.Data) {
		t.Errorf("second lock: %v", err)
	}
	release()
	again, err := lock(cfg.Data, cfg.lockFile())
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	again()
}
