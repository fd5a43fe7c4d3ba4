package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"towpath.dev/events"
	"towpath.dev/pkg/freeport"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/bus"
)

// servers is how many a cluster has, and on how many of them each stream is kept.
const servers = 3

// Clustered runs three nats-servers, each a process of its own, and keeps every stream on all of them.
func Clustered() Option {
	return func(l *Ledger) { l.begin, l.replicas = l.startCluster, servers }
}

// cluster is three nats-servers.
type cluster struct {
	ledger *Ledger
	nodes  [servers]*process
}

func (c *cluster) URL() string {
	urls := make([]string, servers)
	for i, n := range c.nodes {
		urls[i] = n.url
	}
	return strings.Join(urls, ",")
}

// Shutdown ends all servers.
func (c *cluster) Shutdown() {
	for _, n := range c.nodes {
		n.Shutdown()
	}
}

// Reload gives every server the keys of now.
func (c *cluster) Reload() (bool, error) {
	var faults []error
	for _, n := range c.nodes {
		_, err := n.Reload()
		faults = append(faults, err)
	}
	return true, errors.Join(faults...)
}

func serverName(i int) string { return fmt.Sprintf("bus-%d", i+1) }

// startCluster takes the addresses of the start before, or free ones.
func (l *Ledger) startCluster(listen string) (running, error) {
	c := &cluster{ledger: l}
	clients := strings.Split(strings.ReplaceAll(listen, "nats://", ""), ",")
	if len(clients) != servers {
		clients = make([]string, servers)
		l.routes = make([]string, servers)
		for i := range servers {
			var one, other error
			clients[i], one = freeport.Address("127.0.0.1")
			l.routes[i], other = freeport.Address("127.0.0.1")
			if err := errors.Join(one, other); err != nil {
				return nil, err
			}
		}
	}
	for i := range c.nodes {
		var err error
		c.nodes[i], err = l.spawn(serverName(i), bus.Config{
			Listen: clients[i], Cluster: &bus.Cluster{Server: serverName(i), Listen: l.routes[i], Routes: l.routes},
		})
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

// KillLeader kills the server that leads the events stream with SIGKILL and returns what starts it again.
func (l *Ledger) KillLeader() (again func()) {
	l.t.Helper()
	c := l.server.(*cluster)
	leader := ""
	Soon(l.t, "the events stream has a leader", func() bool {
		info, err := l.streamInfo(events.StreamName(l.Epoch))
		if err == nil && info.Cluster != nil {
			leader = info.Cluster.Leader
		}
		return leader != ""
	})
	for i, n := range c.nodes {
		if serverName(i) != leader {
			continue
		}
		n.kill()
		return func() { l.t.Helper(); l.again(n) }
	}
	l.t.Fatalf("%q leads, which is none of ours", leader)
	return nil
}

// EachAlone calls f for each server while the others are dead, with a client that reads what that server alone has:
// one of three is no majority, so that nothing is written meanwhile. Afterwards the cluster is whole.
func (l *Ledger) EachAlone(f func(server string, c *ledger.Client)) {
	l.t.Helper()
	for i := range l.server.(*cluster).nodes {
		// A server that has just come back begins to answer reads up to 2 s later, and alone it never does.
		err := errors.New("it was not asked")
		for try := 0; try < 10 && err != nil; try++ {
			l.alone(i, func(c *ledger.Client) {
				if _, err = c.Read(l.t.Context(), 0, func(ledger.Record) error { return nil }); err == nil {
					f(serverName(i), c)
				}
			})
		}
		if err != nil {
			l.t.Fatalf("%s alone answers no reads: %v", serverName(i), err)
		}
	}
}

// alone calls f while only one server runs.
func (l *Ledger) alone(i int, f func(c *ledger.Client)) {
	l.t.Helper()
	nodes := l.server.(*cluster).nodes
	for j, other := range nodes {
		if j != i {
			other.kill()
		}
	}
	o := l.Options(string(events.Build))
	o.URL = nodes[i].url
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := ledger.Connect(ctx, o)
	if err != nil {
		l.t.Fatalf("connecting to %s alone: %v", serverName(i), err)
	}
	f(c)
	c.Close()
	for j, other := range nodes {
		if j != i {
			l.again(other)
		}
	}
	l.Whole()
}

// streamInfo asks the operator's way, within a short time.
func (l *Ledger) streamInfo(name string) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	s, err := l.Client(string(events.Operator)).JetStream().Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.CachedInfo(), nil
}

// Whole waits until every stream is led and every replica of it has everything, and fails the test where
// that does not come about: a replica that stopped stays behind for good.
func (l *Ledger) Whole() {
	l.t.Helper()
	for _, name := range l.streamNames() {
		why := ""
		defer func() {
			if l.t.Failed() && why != "" {
				l.t.Logf("stream %s: %s", name, why)
			}
		}()
		Soon(l.t, "every replica of "+name+" has everything", func() bool { why = l.lacking(name); return why == "" })
	}
}

// lacking says what a stream has not; "": nothing.
func (l *Ledger) lacking(name string) string {
	info, err := l.streamInfo(name)
	if err != nil {
		return err.Error()
	}
	if l.replicas == 0 {
		return ""
	}
	if info.Cluster == nil || info.Cluster.Leader == "" || len(info.Cluster.Replicas) != servers-1 {
		return fmt.Sprintf("no leader, or too few replicas: %+v", info.Cluster)
	}
	for _, r := range info.Cluster.Replicas {
		if r.Offline || !r.Current || r.Lag > 0 {
			return fmt.Sprintf("replica %s: offline %v, current %v, %d behind", r.Name, r.Offline, r.Current, r.Lag)
		}
	}
	return ""
}

// streamNames are all streams of the bus.
func (l *Ledger) streamNames() []string {
	l.t.Helper()
	var names []string
	Soon(l.t, "the bus lists its streams", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		list := l.Client(string(events.Operator)).JetStream().StreamNames(ctx)
		names = nil
		for name := range list.Name() {
			names = append(names, name)
		}
		return list.Err() == nil && len(names) > 0
	})
	return names
}
