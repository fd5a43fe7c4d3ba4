package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/engine"
)

// Switch gives the traffic of an app's environment to these instances of s.Slot: in the table, which the edge reads, then
// in Consul's catalog. The error is a *discovery.StaleError where a greater slot has it. Any other may come after the
// first of the two: older instances are needed until there is none. Twice is once.
func (d *Deployer) Switch(ctx context.Context, s Spec, instances []events.Instance) error {
	return d.publish(ctx, s.Place, discovery.Entry{
		Slot: s.Slot, Digest: s.Digest, Run: s.Run, Instances: instances, Health: s.HealthPath,
	})
}

func (d *Deployer) publish(ctx context.Context, p discovery.Place, e discovery.Entry) error {
	if err := d.deps.Table.Publish(ctx, p, e); err != nil {
		return err
	}
	return d.Show(ctx, p)
}

// Show has Consul's catalog, where there is one, say what the table says of a place.
func (d *Deployer) Show(ctx context.Context, p discovery.Place) error {
	if d.deps.Catalog == nil {
		return nil
	}
	if err := d.deps.Catalog.Project(ctx, p); err != nil {
		return fmt.Errorf("showing in Consul's catalog where %s runs: %w", p, err)
	}
	return nil
}

// Withdraw takes an app's environment out of the traffic, for slot, which is of kind remove. Consul's catalog may be behind:
// nothing takes the place of what it names, and it catches up with whoever looks around next. The error is a
// *discovery.StaleError where a greater slot has it.
func (d *Deployer) Withdraw(ctx context.Context, p discovery.Place, slot int) error {
	if err := d.deps.Table.Publish(ctx, p, discovery.Entry{Slot: slot, Removed: true}); err != nil {
		return err
	}
	if err := d.Show(ctx, p); err != nil {
		d.deps.Logger.Warn("Consul's catalog is behind, to be tried again", "slot", slot, "err", err)
	}
	return nil
}

// ErrNoEdge is wrapped by Drain where no edge answers.
var ErrNoEdge = errors.New("no edge answers")

// Drain waits until the edge sends nothing any more to instances of a place that its entry, of slot or a
// later one, does not hold, and returns how many requests are still under way there: 0, unless timeout
// was over first. Without an edge the error wraps ErrNoEdge: nothing can be said then.
func (d *Deployer) Drain(ctx context.Context, p discovery.Place, slot int, timeout time.Duration) (left int, err error) {
	doing := fmt.Sprintf("draining instances of %s before slot %d", p, slot)
	deadline := time.Now().Add(timeout)
	for {
		reply, err := d.askEdge(ctx, discovery.DrainRequest{
			Env: p.Env, App: p.App, Slot: slot, Timeout: max(0, min(time.Until(deadline), discovery.MaxDrain)),
		})
		switch {
		case ctx.Err() != nil:
			return 0, fmt.Errorf("%s: %w", doing, context.Cause(ctx))
		case errors.Is(err, nats.ErrNoResponders), errors.Is(err, context.DeadlineExceeded):
			return 0, fmt.Errorf("%s: %w within %s: check that the edge runs and reaches the bus", doing, ErrNoEdge, edgeBound)
		case err != nil:
			return 0, fmt.Errorf("%s: %w", doing, err)
		case reply.Error != "":
			return 0, fmt.Errorf("%s: the edge says: %s", doing, reply.Error)
		case reply.Drained(slot):
			return 0, nil
		case !time.Now().Before(deadline) && reply.Slot < slot:
			return 0, fmt.Errorf("%s: the edge still sends requests to slot %d after %s: check that it follows the bus", doing, reply.Slot, timeout)
		case !time.Now().Before(deadline):
			return reply.InFlight, nil
		}
	}
}

// edgeBound is how long an edge may take to answer beyond the time that it was told to wait.
const edgeBound = 5 * time.Second

func (d *Deployer) askEdge(ctx context.Context, request discovery.DrainRequest) (reply discovery.DrainReply, err error) {
	data, err := json.Marshal(request)
	if err != nil {
		return reply, err
	}
	ctx, cancel := context.WithTimeout(ctx, request.Timeout+edgeBound)
	defer cancel()
	m, err := d.deps.Bus.RequestWithContext(ctx, events.DrainSubject, data)
	if err != nil {
		return reply, err
	}
	return reply, json.Unmarshal(m.Data, &reply)
}

// Reconcile makes the table say where the instances of a place really are, for example after an engine was
// started again, and returns how many of them do not run, or have lost their secrets. Where some have,
// Prepare the live slot's version again and Switch to it: that restores them. It changes no slot.
func (d *Deployer) Reconcile(ctx context.Context, p discovery.Place) (missing int, err error) {
	entry, err := d.deps.Table.Get(ctx, p)
	if errors.Is(err, fs.ErrNotExist) || err == nil && entry.Removed {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	e, err := d.deps.Engines.Environment(ctx, string(p.Env))
	if err != nil {
		return 0, err
	}
	containers, err := e.List(ctx, d.placeLabels(p))
	if err != nil {
		return 0, err
	}
	states := map[string]engine.State{}
	for _, c := range containers {
		states[c.Name] = c
	}
	var present []events.Instance
	for _, instance := range entry.Instances {
		state, found := states[instance.ID]
		keeper, kept := states[d.secretsVolume(p, slotOf(state.Labels))]
		if !state.Running() && state.Status != "restarting" || kept && !keeper.Running() {
			missing++
		}
		if !found {
			continue
		}
		// One that does not run keeps its port, and its address.
		for _, address := range state.Addresses {
			instance.Address = address
		}
		present = append(present, instance)
	}
	entry.Instances = present
	if err := d.deps.Table.Publish(ctx, p, entry); err != nil {
		return missing, err
	}
	if err := d.Show(ctx, p); err != nil { // what is missing is made again all the same
		d.deps.Logger.Warn("Consul's catalog is behind, to be tried again", "slot", entry.Slot, "err", err)
	}
	return missing, nil
}
