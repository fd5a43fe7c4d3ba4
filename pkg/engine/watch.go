package engine

import (
	"context"
	"strings"

	"github.com/docker/docker/api/types/events"
)

// Change is something that happened to a container.
type Change struct {
	Container string // id
	Action    string // create, start, die, stop, kill, oom, destroy, health_status, rename, …
	Labels    map[string]string
}

// Watch calls seen for each change of containers that carry every given label, in order, until ctx ends
// or the engine stops answering; the error says which. What happens before it is called, and between two
// calls, is not told: look around after each.
func (e *Engine) Watch(ctx context.Context, labels map[string]string, seen func(Change)) error {
	args := labelFilter(labels)
	args.Add("type", string(events.ContainerEventType))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages, failed := e.api.Events(ctx, events.ListOptions{Filters: args})
	for {
		select {
		case m := <-messages:
			action, _, _ := strings.Cut(string(m.Action), ":")
			seen(Change{Container: m.Actor.ID, Action: action, Labels: m.Actor.Attributes})
		case err := <-failed:
			return e.fault(ctx, 0, "watching containers", err)
		}
	}
}
