package faults

import (
	"context"
	"testing"
	"time"

	"towpath.dev/pkg/engine/enginetest"
)

// patience is how long an Engine may take to say what it is, before it counts as locked up.
const patience = 15 * time.Second

// watch does what an operator does about an Engine that has locked up: it starts it again. Containers go on meanwhile.
func watch(t *testing.T, d *enginetest.Dockerd) (stop func()) {
	about, err := d.Engine.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for times := 1; ; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			asking, end := context.WithTimeout(ctx, patience)
			_, err := d.Engine.Info(asking)
			end()
			if err == nil || ctx.Err() != nil {
				continue
			}
			d.Kill()
			d.Start()
			t.Logf("the Engine had locked up (%v), and was started again: the %d. time; release %s is known for it: %t", err, times, about.Version, about.LocksUp())
			times++
		}
	}()
	return func() { cancel(); <-done }
}
