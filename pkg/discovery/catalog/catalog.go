// Package catalog shows in Consul's catalog where apps run, for whoever finds services there.
//
// What it shows is a projection of the discovery table, as the edge's routes are: the instances of the greatest live
// slot, each with a health check that Consul carries out. They are registered with the agent that platform.yaml names
// for the environment. An instance that does not run any more, or was left behind by a crash, is taken out at the next
// Reconcile; one whose installation is gone altogether, by Consul itself after Forget. What others have registered is
// left alone.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/settings/consul"
)

// Metadata of what is registered.
const (
	MetaInstall     = "towpath-install"
	MetaApp         = "towpath-app"
	MetaEnvironment = "towpath-environment"
	MetaRun         = "towpath-run"
	MetaDigest      = "towpath-digest"
	MetaSlot        = "towpath-slot"
)

// How Consul looks after instances.
const (
	checkEvery   = 5 * time.Second
	checkTimeout = 2 * time.Second
	// Forget is after how long Consul itself takes an instance out that does not answer.
	Forget = 10 * time.Minute
)

// Bound is how long Project may take: a Consul that does not answer does not hold up a deploy.
const Bound = 4 * time.Second

// Catalog is safe for concurrent use.
type Catalog struct {
	install  string
	domain   string
	platform *policy.Platform
	table    discovery.Table
	mu       sync.Mutex
	agents   map[policy.Consul]*agent
}

// agent is one environment's Consul.
type agent struct {
	*consul.Client
	turn chan struct{} // held while a projection is carried out there: one that does not answer holds up no other
}

// occupy takes the agent's turn.
func (a *agent) occupy(ctx context.Context) (release func(), err error) {
	select {
	case a.turn <- struct{}{}:
		return func() { <-a.turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("showing what runs in Consul: another projection is under way there: %w", context.Cause(ctx))
	}
}

// New returns the catalogs of the environments that the platform file has a Consul for. Host names end in domain. It
// does no IO.
func New(install, domain string, platform *policy.Platform, table discovery.Table) *Catalog {
	return &Catalog{install: install, domain: domain, platform: platform, table: table, agents: map[policy.Consul]*agent{}}
}

// agent returns the Consul of an environment; nil: it has none.
func (c *Catalog) agent(env events.Slug) (*agent, error) {
	cfg := c.platform.Stores(env).Consul
	if cfg == nil {
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.agents[*cfg]
	if !ok {
		client, err := consul.NewClient(*cfg, env, string(events.Promote))
		if err != nil {
			return nil, err
		}
		a = &agent{client, make(chan struct{}, 1)}
		c.agents[*cfg] = a
	}
	return a, nil
}

// Project makes the catalog say of a place what the table says, within Bound. New instances are registered first, as
// passing, because the table holds only what is healthy.
func (c *Catalog) Project(ctx context.Context, p discovery.Place) error {
	return c.project(ctx, p, func() (map[discovery.Place]discovery.Entry, error) {
		entry, err := c.table.Get(ctx, p)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return map[discovery.Place]discovery.Entry{p: entry}, err
	})
}

// Remove takes a place out of the catalog for good, whatever the table says, within Bound.
func (c *Catalog) Remove(ctx context.Context, p discovery.Place) error {
	if consul := c.platform.Stores(p.Env).Consul; consul == nil || !consul.Register {
		return nil
	}
	return c.project(ctx, p, func() (map[discovery.Place]discovery.Entry, error) {
		return map[discovery.Place]discovery.Entry{p: {Removed: true}}, nil
	})
}

// project makes the catalog say of a place what entries say.
func (c *Catalog) project(ctx context.Context, p discovery.Place, entries func() (map[discovery.Place]discovery.Entry, error)) error {
	a, err := c.agent(p.Env)
	if err != nil || a == nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, Bound, errors.New("it did not answer in time"))
	defer cancel()
	release, err := a.occupy(ctx)
	if err != nil {
		return err
	}
	defer release()
	filter := fmt.Sprintf("Meta[%q] == %q and Meta[%q] == %q and Meta[%q] == %q",
		MetaInstall, c.install, MetaEnvironment, p.Env, MetaApp, p.App)
	return c.sync(ctx, a, filter, api.HealthPassing, entries)
}

// Reconcile makes every catalog say what the table says: it registers what is missing, and takes out what is not in the
// table any more. A place without an entry is left as it is, because a table that is written anew is empty at first.
func (c *Catalog) Reconcile(ctx context.Context) error {
	all, err := c.table.List(ctx)
	if err != nil {
		return err
	}
	agents := map[*agent]bool{}
	environments := maps.Clone(c.platform.Settings)
	for p := range all {
		environments[p.Env] = c.platform.Stores(p.Env)
	}
	var errs []error
	for env := range environments {
		a, err := c.agent(env)
		errs = append(errs, err)
		if a != nil {
			agents[a] = true
		}
	}
	var (
		mu   sync.Mutex
		work sync.WaitGroup
	)
	for a := range agents {
		work.Go(func() {
			err := c.reconcile(ctx, a)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

// reconcile makes one agent say what the table says.
func (c *Catalog) reconcile(ctx context.Context, a *agent) error {
	release, err := a.occupy(ctx)
	if err != nil {
		return err
	}
	defer release()
	return c.sync(ctx, a, fmt.Sprintf("Meta[%q] == %q", MetaInstall, c.install), "", func() (map[discovery.Place]discovery.Entry, error) {
		return c.table.List(ctx)
	})
}

// sync makes what the filter finds at an agent be what the table says. It looks at the agent first: what is there then
// and not in the table afterwards was not written by somebody who is ahead. status is that of a new instance until it
// was checked; empty: critical.
func (c *Catalog) sync(ctx context.Context, a *agent, filter, status string, table func() (map[discovery.Place]discovery.Entry, error)) error {
	var present map[string]*api.AgentService
	err := a.Do(ctx, "listing what is registered", func(ctx context.Context, client *api.Client) (err error) {
		present, err = client.Agent().ServicesWithFilterOpts(filter, (&api.QueryOptions{}).WithContext(ctx))
		return err
	})
	if err != nil {
		return err
	}
	entries, err := table()
	if err != nil {
		return err
	}
	wanted := map[string]*api.AgentServiceRegistration{}
	for p, entry := range entries {
		mine, err := c.agent(p.Env)
		if err != nil {
			return err
		}
		if mine != a || !c.platform.Stores(p.Env).Consul.Register {
			continue
		}
		for _, i := range entry.Instances {
			if wanted[i.ID], err = c.registration(p, entry, i, status); err != nil {
				return err
			}
		}
	}
	return c.apply(ctx, a.Client, present, wanted, func(service *api.AgentService) bool {
		_, known := entries[discovery.Place{Env: events.Slug(service.Meta[MetaEnvironment]), App: events.Slug(service.Meta[MetaApp])}]
		return known
	})
}

// apply registers what is wanted, then takes out what is not and may go. It ends at the first error: a Consul that does
// not answer is waited for once.
func (c *Catalog) apply(ctx context.Context, client *consul.Client, present map[string]*api.AgentService, wanted map[string]*api.AgentServiceRegistration, mayGo func(*api.AgentService) bool) error {
	for id, r := range wanted {
		if same(present[id], r) {
			continue
		}
		err := client.Do(ctx, "registering "+id, func(ctx context.Context, a *api.Client) error {
			return a.Agent().ServiceRegisterOpts(r, (api.ServiceRegisterOpts{ReplaceExistingChecks: true}).WithContext(ctx))
		})
		if err != nil {
			return err
		}
	}
	for id, service := range present {
		if wanted[id] != nil || !mayGo(service) {
			continue
		}
		err := client.Do(ctx, "taking out "+id, func(ctx context.Context, a *api.Client) error {
			return a.Agent().ServiceDeregisterOpts(id, (&api.QueryOptions{}).WithContext(ctx))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// registration is one instance as Consul is told of it.
func (c *Catalog) registration(p discovery.Place, e discovery.Entry, i events.Instance, status string) (*api.AgentServiceRegistration, error) {
	name := strings.NewReplacer("{env}", string(p.Env), "{app}", string(p.App)).Replace(c.platform.Stores(p.Env).Consul.Service)
	r := &api.AgentServiceRegistration{
		ID: i.ID, Name: name, Tags: []string{string(p.App), string(p.Env)},
		Meta: map[string]string{
			MetaInstall: c.install, MetaApp: string(p.App), MetaEnvironment: string(p.Env),
			MetaRun: e.Run, MetaDigest: e.Digest, MetaSlot: strconv.Itoa(e.Slot),
		},
	}
	if i.Address == "" { // it takes no requests, so there is nothing to ask
		return r, nil
	}
	host, port, err := net.SplitHostPort(i.Address)
	if err == nil {
		r.Port, err = strconv.Atoi(port)
	}
	if err != nil {
		return nil, fmt.Errorf("registering %s: its address %q: %w", i.ID, i.Address, err)
	}
	r.Address = host
	r.Check = &api.AgentServiceCheck{
		CheckID: i.ID, Name: "answers", Interval: checkEvery.String(), Timeout: checkTimeout.String(), Status: status,
		DeregisterCriticalServiceAfter: Forget.String(),
	}
	if e.Health == "" {
		r.Check.TCP = i.Address
		return r, nil
	}
	r.Check.HTTP, r.Check.Method = "http://"+i.Address+e.Health, http.MethodGet
	r.Check.Header = map[string][]string{"Host": {p.String() + "." + c.domain}}
	return r, nil
}

// same reports whether an instance is registered as it should be.
func same(present *api.AgentService, r *api.AgentServiceRegistration) bool {
	return present != nil && present.Service == r.Name && present.Address == r.Address && present.Port == r.Port && maps.Equal(present.Meta, r.Meta)
}
