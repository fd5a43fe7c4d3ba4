package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/policy"
)

// maxReason is the longest reason of a command, in bytes.
const maxReason = 2000

// answered is what became of a command.
type answered struct {
	ID   string `json:"id"`
	Text string `json:"text"`
	Seq  uint64 `json:"seq"`
}

// previewed is what a command would do.
type previewed struct {
	Text string   `json:"text"`
	Kept []string `json:"kept,omitempty"`
	Runs []string `json:"runs,omitempty"`
}

// commandVerbs are what Authorize is asked for a command's verb.
var commandVerbs = map[string]identity.Verb{
	events.VerbApprove: identity.Approve, events.VerbDeny: identity.Deny, events.VerbPromote: identity.Promote,
	events.VerbRollback: identity.Rollback, events.VerbCancel: identity.Cancel, events.VerbHold: identity.Hold,
	events.VerbResume: identity.Resume, verbReplay: identity.Replay,
}

// aboutCommand reads the order and refuses what no order can be.
func aboutCommand(c *call) (identity.Verb, identity.Object, error) {
	var o order
	if err := c.decode(&o); err != nil {
		return "", identity.Object{}, err
	}
	verb, known := commandVerbs[o.Verb]
	var faults []string
	fault := func(wrong bool, text string) {
		if wrong {
			faults = append(faults, text)
		}
	}
	_, appErr := events.ParseSlug(string(o.App))
	_, envErr := events.ParseSlug(string(o.Env))
	fault(!known, fmt.Sprintf("verb %.40q is none of %s", o.Verb, strings.Join(verbs, ", ")))
	fault(len(o.ID) < 8 || len(o.ID) > 100, "id must have 8–100 bytes: the same id sent again is the same command")
	fault(appErr != nil && (o.App != "" || o.Verb != events.VerbHold && o.Verb != events.VerbResume), fmt.Sprintf("app %.80q is not an app's name", o.App))
	fault(o.Env != "" && envErr != nil, fmt.Sprintf("env %.80q is not an environment's name", o.Env))
	fault(o.Run < 0, "run must count from 1")
	fault(o.Stage != "" && !slices.Contains([]string{fold.StageBuild, fold.StageVet, fold.StagePromote, fold.StageVerify}, o.Stage), fmt.Sprintf("stage %.40q is none of build, vet, promote, verify", o.Stage))
	fault(len(o.Reason) > maxReason, fmt.Sprintf("reason may have %d bytes", maxReason))
	if len(faults) > 0 {
		return "", identity.Object{}, invalid("commanding", "", strings.Join(faults, "; "), "GET /openapi.json describes it")
	}
	c.body = o
	return verb, identity.Object{App: o.App, Env: o.Env, Run: o.Run}, nil
}

// doCommand judges an order and records it; with dryRun=1 it only says what it would do.
func doCommand(c *call) error {
	o := c.body.(order)
	dry := c.r.URL.Query().Get("dryRun") == "1"
	if o.App != "" && c.s.fold().App(o.App) == nil {
		return c.s.noApp(o.App)
	}
	if seq, text, done := c.alreadyDone(o); done && !dry {
		writeJSON(c.w, http.StatusOK, answered{o.ID, text, seq})
		return nil
	}
	d, why := decide(o, c.s.scope(o, c.actor))
	if why != nil {
		if !dry {
			c.recordRefusal(o, d, why)
		}
		return why
	}
	if dry {
		writeJSON(c.w, http.StatusOK, previewed{d.text, d.kept, d.runs})
		return nil
	}
	return c.record(o, d)
}

// scope is what the order is judged by, as the ledger has it now.
func (s *Service) scope(o order, actor identity.Actor) scope {
	in := scope{held: s.fold().Held(), actor: actor.ID, roles: actor.Roles}
	in.rule = func(run *fold.Run, env events.Slug) policy.Approval { return s.approvalRule(run, env) }
	if o.App != "" {
		in.app = s.fold().App(o.App)
	}
	return in
}

// chain is the id that the events of the order's run share.
func (s *Service) chain(o order) string {
	if app := s.fold().App(o.App); app != nil {
		if run := app.Run(o.Run); run != nil {
			return run.ChainID
		}
	}
	return ""
}

// event is what the decision is recorded as.
func (c *call) event(o order, d decision) (events.Event, events.Subject) {
	at, chain := time.Now(), c.s.chain(o)
	if d.replay != nil {
		body := d.replay
		body.ID = o.ID
		var links []events.Link
		if d.original != "" {
			links = append(links, events.Relation("replays", d.original))
		}
		return events.New(events.Gateway, at, chain, body, links...),
			events.CommandSubject(c.s.epoch(), body.Type(), o.App, o.Run, body.Environment, o.ID)
	}
	d.command.Channel = "http"
	body := &events.CommandReceived{About: events.About{ID: o.ID}, Command: d.command}
	return events.New(events.Gateway, at, chain, body), events.CommandSubject(c.s.epoch(), body.Type(), o.App, o.Run, o.Env, o.ID)
}

// record appends the command and answers.
func (c *call) record(o order, d decision) error {
	event, subject := c.event(o, d)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), appendBound)
	defer cancel()
	record, err := c.s.rt.Append(ctx, subject, event)
	var exists *ledger.ExistsError
	if errors.As(err, &exists) {
		if !sameOrder(exists.Winner.Event.Body, event.Body) {
			return conflict("commanding", o.ID, "this id was used for another command", "choose a new id")
		}
		record, err = exists.Winner, nil
	}
	if err != nil {
		return fmt.Errorf("recording the command: %w", err)
	}
	c.s.done.add(o.ID, remembered{c.actor.ID, o.Verb, d.text, record.Seq})
	writeJSON(c.w, http.StatusOK, answered{o.ID, d.text, record.Seq})
	return nil
}

// sameOrder reports whether two events are the same command of the same actor.
func sameOrder(a, b events.Body) bool {
	switch a := a.(type) {
	case *events.CommandReceived:
		b, ok := b.(*events.CommandReceived)
		return ok && a.Command.Verb == b.Command.Verb && a.Command.Actor == b.Command.Actor
	case *events.ReplayRequested:
		b, ok := b.(*events.ReplayRequested)
		return ok && a.Stage == b.Stage && a.Actor == b.Actor
	}
	return false
}

// recordRefusal keeps that a person's approval or command was not followed, and why. It is of no use to anybody who
// waits for it, so it is tried once.
func (c *call) recordRefusal(o order, d decision, why *problem) {
	if why.Status == http.StatusNotFound || why.Status == http.StatusBadRequest {
		return
	}
	d.command.Channel = "http"
	body := &events.CommandRefused{About: events.About{ID: o.ID}, Command: d.command, Why: why.Error()}
	subject := events.CommandSubject(c.s.epoch(), body.Type(), o.App, o.Run, o.Env, o.ID)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), appendBound)
	defer cancel()
	_, err := c.s.rt.Append(ctx, subject, events.New(events.Gateway, time.Now(), c.s.chain(o), body))
	var exists *ledger.ExistsError
	if err != nil && !errors.As(err, &exists) {
		c.s.logger.Warn("a refusal was not recorded", "verb", o.Verb, "app", o.App, "err", err)
	}
}
