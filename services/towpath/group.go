package towpath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// member is one running part.
type member struct {
	name string
	stop context.CancelFunc
	done chan struct{} // closed when it has ended
	err  error         // how; read after done
}

// group is the running parts, in the order in which they were started.
type group struct {
	logger  *slog.Logger
	mu      sync.Mutex
	members []*member
	failed  chan error // the first part that ended by itself
}

func newGroup(logger *slog.Logger) *group {
	return &group{logger: logger, failed: make(chan error, 1)}
}

// start runs a part on a context of its own, so that parts can be stopped one after the other. A part
// that ends before it is stopped ends the group.
func (g *group) start(name string, run func(context.Context) error) *member {
	ctx, stop := context.WithCancel(context.Background())
	m := &member{name: name, stop: stop, done: make(chan struct{})}
	g.mu.Lock()
	g.members = append(g.members, m)
	g.mu.Unlock()
	go func() {
		defer close(m.done)
		m.err = run(ctx)
		if ctx.Err() != nil {
			return
		}
		err := m.err
		if err == nil {
			err = errors.New("it ended by itself")
		}
		select {
		case g.failed <- fmt.Errorf("%s: %w", name, err):
		default:
		}
	}()
	return m
}

// wait returns when m is ready, or with why it will not be.
func (g *group) wait(ctx context.Context, m *member, ready <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	case <-m.done:
		return fmt.Errorf("starting %s: %w", m.name, errors.Join(m.err, ctx.Err()))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// drain stops the parts of each step together, and one step after the other, within bound in all. It
// returns how they ended. Parts that no step names are stopped last.
func (g *group) drain(bound time.Duration, steps ...[]string) error {
	end := time.NewTimer(bound)
	defer end.Stop()
	var faults []error
	stopped := map[string]bool{}
	stop := func(wanted func(string) bool) bool {
		var waiting []*member
		for _, m := range g.members {
			if !stopped[m.name] && wanted(m.name) {
				stopped[m.name] = true
				m.stop()
				waiting = append(waiting, m)
			}
		}
		for _, m := range waiting {
			select {
			case <-m.done:
				if m.err != nil && !errors.Is(m.err, context.Canceled) {
					faults = append(faults, fmt.Errorf("stopping %s: %w", m.name, m.err))
				}
			case <-end.C:
				faults = append(faults, fmt.Errorf("stopping %s: not done after %s; what it had begun is taken up at the next start", m.name, bound))
				return false
			}
		}
		return true
	}
	for _, step := range steps {
		if !stop(func(name string) bool { return slices.Contains(step, name) }) {
			return errors.Join(faults...)
		}
	}
	stop(func(string) bool { return true })
	return errors.Join(faults...)
}
