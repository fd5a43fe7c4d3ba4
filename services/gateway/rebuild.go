package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/pause"
	"towpath.dev/pkg/worker"
	"towpath.dev/services/gateway/view"
)

// rebuildRequest is the body of POST /v1/rebuild.
type rebuildRequest struct {
	Check bool `json:"check,omitempty"` // change nothing: prove that it would change nothing
}

// projection is one line of the answer: one thing that follows from the ledger.
type projection struct {
	Projection string `json:"projection"` // "fold of build", "traffic"
	worker.Report
	Places int  `json:"places,omitempty"` // of traffic
	Absent bool `json:"absent,omitempty"` // the service does not answer
}

// stateful are the services with a fold of their own, in the order in which they are asked.
var stateful = []events.Writer{events.Gateway, events.Ledger, events.Build, events.Vet, events.Promote, events.Verify, events.Watch, events.Notify}

// doRebuild checks or rebuilds every projection, in each process that has it, one service after the other, and sends a
// line for each as it is done.
func doRebuild(c *call) error {
	var body rebuildRequest
	if err := c.decode(&body); err != nil {
		return err
	}
	do := worker.DoRebuild
	if body.Check {
		do = worker.DoCheck
	}
	ctx, cancel := c.whileOpen(0)
	defer cancel()
	lines := json.NewEncoder(c.stream("application/x-ndjson"))
	lines.SetEscapeHTML(false)
	for _, service := range stateful {
		for _, p := range c.s.upkeep(ctx, service, do) {
			if err := lines.Encode(p); err != nil {
				return nil // the client is gone
			}
		}
	}
	if err := lines.Encode(c.s.checkTraffic(ctx)); err != nil {
		c.s.logger.Debug("the answer was not taken", "err", err)
	}
	return nil
}

const (
	upkeepPause = 50 * time.Millisecond
	// upkeepSilence is how long a process that works on it may be silent.
	upkeepSilence = 30 * time.Second
	// othersBound is how long after the first process of a service others may answer.
	othersBound = 300 * time.Millisecond
	// answerBound is how long the first may take.
	answerBound = 5 * time.Second
)

// upkeep has every process of a service check or rebuild its fold, and returns what each came to.
func (s *Service) upkeep(ctx context.Context, service events.Writer, do string) []projection {
	name := "fold of " + string(service)
	failed := func(process, why string, absent bool) projection {
		return projection{Projection: name, Report: worker.Report{Service: string(service), Process: process, Error: why}, Absent: absent}
	}
	heard := map[string]time.Time{} // by process, when it answered last
	over := map[string]projection{}
	for begun := time.Now(); len(over) == 0 || len(over) < len(heard); {
		answers, err := s.askState(ctx, service, do)
		if err == nil {
			do = worker.DoStatus
		}
		for _, a := range answers {
			heard[a.Process] = time.Now()
			switch {
			case a.Running:
			case a.Report != nil:
				over[a.Process] = projection{Projection: name, Report: *a.Report}
			default:
				over[a.Process] = failed(a.Process, fmt.Sprintf("%s was started meanwhile: try again", service), false)
			}
		}
		for process, at := range heard {
			if _, ended := over[process]; !ended && time.Since(at) > upkeepSilence {
				over[process] = failed(process, silent(service), true)
			}
		}
		if len(heard) == 0 && (errors.Is(err, nats.ErrNoResponders) || time.Since(begun) > upkeepSilence) {
			return []projection{failed("", silent(service), true)}
		}
		select {
		case <-time.After(upkeepPause):
		case <-ctx.Done():
			return []projection{failed("", context.Cause(ctx).Error(), false)}
		}
	}
	list := slices.SortedFunc(maps.Values(over), func(a, b projection) int { return cmp.Compare(a.Process, b.Process) })
	for i := range list {
		if len(list) > 1 {
			list[i].Projection = fmt.Sprintf("%s (%d of %d)", name, i+1, len(list))
		}
	}
	return list
}

// silent says that a service does not answer.
func silent(service events.Writer) string {
	return fmt.Sprintf("%s does not answer: see whether it runs", service)
}

// askState asks every process of a service, and returns the answers that came until othersBound after the first. The
// gateway is asked here alone: one process has the repositories.
func (s *Service) askState(ctx context.Context, service events.Writer, do string) ([]worker.StateAnswer, error) {
	if service == events.Gateway {
		return []worker.StateAnswer{s.rt.AskState(do)}, nil
	}
	conn := s.rt.Ledger.Conn()
	inbox := conn.NewRespInbox()
	heard, err := conn.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = heard.Unsubscribe() }()
	if err := conn.PublishRequest(events.StateSubject(service), inbox, []byte(do)); err != nil {
		return nil, err
	}
	var all []worker.StateAnswer
	for wait := answerBound; ; wait = othersBound {
		next, cancel := context.WithTimeout(ctx, wait)
		m, err := heard.NextMsgWithContext(next)
		cancel()
		if err != nil && len(all) > 0 {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		var a worker.StateAnswer
		if err := json.Unmarshal(m.Data, &a); err != nil {
			return all, fmt.Errorf("the answer of %s: %w", service, err)
		}
		all = append(all, a)
	}
}

// checkTraffic compares the table of what gets traffic with the fold. What is decided while it looks is looked at again.
func (s *Service) checkTraffic(ctx context.Context) projection {
	began := time.Now()
	p := projection{Projection: "traffic"}
	for try := range trafficTries {
		if try > 0 {
			_ = pause.For(ctx, trafficPause) // what comes next ends with ctx
		}
		table, err := discovery.Open(s.rt.Ledger).List(ctx)
		if err != nil {
			p.Error = err.Error()
			return p
		}
		p.Seq = s.fold().Seq()
		if p.Places, p.Difference = view.TrafficDifference(s.fold().Apps(), table, s.ending); p.Difference == "" {
			break
		}
	}
	p.Live.Took = time.Since(began)
	return p
}

// ending reports whether an environment is being destroyed.
func (s *Service) ending(env events.Slug) bool {
	e := s.fold().Environment(env)
	return e != nil && e.Ending != nil
}

// A switch comes a moment after its slot was decided.
const (
	trafficTries = 20
	trafficPause = 250 * time.Millisecond
)
