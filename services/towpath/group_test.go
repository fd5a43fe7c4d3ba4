package towpath

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// part runs until it is stopped and then notes its name.
func part(g *group, name string, ended func(string)) {
	g.start(name, func(ctx context.Context) error {
		<-ctx.Done()
		ended(name)
		return nil
	})
}

func TestDrainStopsStepByStep(t *testing.T) {
	g := newGroup(slog.New(slog.DiscardHandler))
	var mu sync.Mutex
	var order []string
	for _, name := range []string{"ledger", "edge", "build", "gateway"} {
		part(g, name, func(name string) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
		})
	}
	if err := g.drain(time.Minute, []string{"gateway"}, []string{"build"}, []string{"edge"}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"gateway", "build", "edge", "ledger"}; !slices.Equal(order, want) {
		t.Errorf("got %q, want %q", order, want)
	}
}

func TestDrainIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(slog.New(slog.DiscardHandler))
		release := make(chan struct{})
		g.start("stubborn", func(context.Context) error { <-release; return nil })
		began := time.Now()
		err := g.drain(30*time.Second, []string{"stubborn"})
		if err == nil || !strings.Contains(err.Error(), "stubborn") || time.Since(began) != 30*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		close(release)
	})
}

func TestAPartThatEndsByItselfIsTold(t *testing.T) {
	g := newGroup(slog.New(slog.DiscardHandler))
	cause := errors.New("cause")
	m := g.start("build", func(context.Context) error { return cause })
	if err := <-g.failed; !errors.Is(err, cause) || !strings.Contains(err.Error(), "build") {
		t.Errorf("got %v", err)
	}
	if err := g.wait(t.Context(), m, make(chan struct{})); !errors.Is(err, cause) {
		t.Errorf("waiting for it: %v", err)
	}
	if err := g.drain(time.Minute); !errors.Is(err, cause) {
		t.Errorf("draining: %v", err)
	}
}
