package deploy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"

	"towpath.dev/pkg/engine"
)

// portTries is how often another port is tried when one turns out to be taken.
const portTries = 20

// freePort chooses the host port of a new container. It is chosen here and not by the engine, which gives
// other ports after each start: while the edge's table is behind, one app's address would be another's.
// So no port is chosen that any container of any installation was created with, running or not.
func (d *Deployer) freePort(ctx context.Context, e *engine.Engine) (int, error) {
	published, err := e.Labels(ctx, map[string]string{LabelPort: ""})
	if err != nil {
		return 0, err
	}
	used := map[string]bool{}
	for _, labels := range published {
		used[labels[LabelPort]] = true
	}
	count := d.cfg.LastPort - d.cfg.FirstPort + 1
	first := rand.IntN(count)
	for i := range count {
		port := d.cfg.FirstPort + (first+i)%count
		if !used[strconv.Itoa(port)] && !(e.Local() && listens(e.Publish(), port)) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("publishing a port on %s: every port from %d to %d is taken; widen the range", e.Host().URL, d.cfg.FirstPort, d.cfg.LastPort)
}

// listens reports whether something else on this machine has a port.
func listens(address string, port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	if err == nil {
		l.Close()
	}
	return errors.Is(err, syscall.EADDRINUSE)
}
