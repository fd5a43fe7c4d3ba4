package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// doRebuild checks or rebuilds every projection, one after the other, and sends a line for each as it is done.
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
		p := projection{Projection: "fold of " + string(service), Report: worker.Report{Service: string(service)}}
		report, err := c.s.upkeep(ctx, service, do)
		var silent *silentError
		switch {
		case errors.As(err, &silent):
			p.Absent, p.Error = true, err.Error()
		case err != nil:
			p.Error = err.Error()
		default:
			p.Report = report
		}
		if err := lines.Encode(p); err != nil {
			return nil // the client is gone
		}
	}
	if err := lines.Encode(c.s.checkTraffic(ctx)); err != nil {
		c.s.logger.Debug("the answer was not taken", "err", err)
	}
	return nil
}

// silentError says that a service does not answer.
type silentError struct{ service events.Writer }

func (e *silentError) Error() string {
	return fmt.Sprintf("%s does not answer: see whether it runs", e.service)
}

const (
	upkeepPause = 50 * time.Millisecond
	// upkeepSilence is how long a service that works on it may be silent.
	upkeepSilence = 30 * time.Second
)

// upkeep has a service check or rebuild its fold, and waits for the report.
func (s *Service) upkeep(ctx context.Context, service events.Writer, do string) (worker.Report, error) {
	heard := time.Now()
	for {
		answer, err := s.askState(ctx, service, do)
		switch {
		case err == nil && do == worker.DoStatus && !answer.Running && answer.Report != nil:
			return *answer.Report, nil
		case err == nil && do == worker.DoStatus && !answer.Running:
			return worker.Report{}, fmt.Errorf("%s was started again meanwhile: try again", service)
		case err == nil:
			do, heard = worker.DoStatus, time.Now()
		case errors.Is(err, nats.ErrNoResponders) || time.Since(heard) > upkeepSilence:
			return worker.Report{}, &silentError{service}
		}
		if err := pause.For(ctx, upkeepPause); err != nil {
			return worker.Report{}, err
		}
	}
}

func (s *Service) askState(ctx context.Context, service events.Writer, do string) (answer worker.StateAnswer, err error) {
	if service == events.Gateway {
		return s.rt.AskState(do), nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	m, err := s.rt.Ledger.Conn().RequestWithContext(ctx, events.StateSubject(service), []byte(do))
	if err != nil {
		return answer, err
	}
	return answer, json.Unmarshal(m.Data, &answer)
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
		if p.Places, p.Difference = view.TrafficDifference(s.fold().Apps(), table); p.Difference == "" {
			break
		}
	}
	p.Live.Took = time.Since(began)
	return p
}

// A switch comes a moment after its slot was decided.
const (
	trafficTries = 20
	trafficPause = 250 * time.Millisecond
)
