package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/pkg/worker"
	"towpath.dev/pkg/worker/boundary"
	"towpath.dev/services/gateway/view"
)

const (
	// maxReason is the longest reason of a command, in bytes.
	maxReason = 2000
	// minID and maxID bound a command's id, in bytes: it must not be another's by chance.
	minID = 8
	maxID = 100
)

// speaker is who gives a command, and how it came in. Who they are and whether they may was found out before.
type speaker struct {
	actor   identity.Actor
	relay   string // the bot that passed it on; empty: the actor's own words
	channel string // http, bus, or where the actor said it to the bot: slack
}

// book is the ledger, as orders and runs are recorded in it.
type book interface {
	// Append stores an event and returns once the fold has it, as worker.Runtime's method does.
	Append(ctx context.Context, s events.Subject, e events.Event) (ledger.Record, error)
	// Written reads the event of a subject from the ledger, as ledger.Client's method does.
	Written(ctx context.Context, s events.Subject) (ledger.Record, bool, error)
	Epoch() int
	App(name events.Slug) *fold.App
	CurrentPolicy() fold.PolicyVersion
	Replays() []fold.Command // of all that is stuck, which have not finished
}

// runtimeBook is the ledger as a process of the gateway has it.
type runtimeBook struct {
	*worker.Runtime
	*fold.Fold
}

func (b runtimeBook) Written(ctx context.Context, s events.Subject) (ledger.Record, bool, error) {
	return b.Ledger.Written(ctx, s)
}

// grounds are what orders are judged by, beside the fold.
type grounds interface {
	scope(ctx context.Context, o order, app *fold.App, actor identity.Actor) (scope, error)
	noApp(name events.Slug) *problem
}

// desk is where orders are judged and recorded and runs begin, whichever door they came in by. It is safe for concurrent
// use; what one process does not know, the ledger does.
type desk struct {
	book    book
	grounds grounds
	logger  *slog.Logger
	done    commandLog
}

// commandVerbs are what Authorize is asked for a command's verb.
var commandVerbs = map[string]identity.Verb{
	events.VerbApprove: identity.Approve, events.VerbDeny: identity.Deny, events.VerbPromote: identity.Promote,
	events.VerbRollback: identity.Rollback, events.VerbCancel: identity.Cancel, events.VerbSkip: identity.Skip,
	events.VerbHold: identity.Hold, events.VerbResume: identity.Resume, events.VerbReplay: identity.Replay,
	events.VerbDismiss: identity.Dismiss,
}

// aboutCommand reads the order and refuses what no order can be.
func aboutCommand(c *call) (identity.Verb, identity.Object, error) {
	var o order
	if err := c.decode(&o); err != nil {
		return "", identity.Object{}, err
	}
	c.body = o
	return o.about()
}

// about says what Authorize is to be asked about the order, and refuses what no order can be.
func (o order) about() (identity.Verb, identity.Object, error) {
	verb, known := commandVerbs[o.Verb]
	var faults []string
	fault := func(wrong bool, text string) {
		if wrong {
			faults = append(faults, text)
		}
	}
	_, appErr := events.ParseSlug(string(o.App))
	_, envErr := events.ParseSlug(string(o.Env))
	everything := o.Verb == events.VerbHold || o.Verb == events.VerbResume || o.Verb == events.VerbDismiss || o.Verb == events.VerbReplay && o.AllStuck
	fault(!known, fmt.Sprintf("verb %.40q is none of %s", o.Verb, strings.Join(verbs, ", ")))
	fault(len(o.ID) < minID || len(o.ID) > maxID, "id must have 8–100 bytes: the same id sent again is the same command")
	fault(appErr != nil && (o.App != "" || !everything), fmt.Sprintf("app %.80q is not an app's name", o.App))
	fault(o.Env != "" && envErr != nil, fmt.Sprintf("env %.80q is not an environment's name", o.Env))
	fault(o.Run < 0, "run must count from 1")
	fault(o.Stage != "" && o.Verb != events.VerbSkip && !slices.Contains(stages, o.Stage), fmt.Sprintf("stage %.40q is none of %s", o.Stage, strings.Join(stages, ", ")))
	fault(len(o.Stage) > 40, "stage may have 40 bytes")
	fault(len(o.Reason) > maxReason, fmt.Sprintf("reason may have %d bytes", maxReason))
	fault(o.Policy != "" && o.Policy != policyPinned && o.Policy != policyCurrent, fmt.Sprintf("policy %.40q is neither %s nor %s", o.Policy, policyPinned, policyCurrent))
	fault(o.Attempt < 0, "attempt must count from 1")
	fault(o.Verb != events.VerbReplay && (o.AllStuck || o.Policy != "" || o.Attempt != 0), "allStuck, policy and attempt are for replay alone")
	fault(o.Verb != events.VerbRollback && o.WithSecrets, "withSecrets is for rollback alone")
	dismisses := o.Verb == events.VerbDismiss
	fault(dismisses != (o.Message > 0), "message, the sequence of one that was set aside, is for dismiss alone, which takes it")
	fault(dismisses && (o.App != "" || o.Run != 0 || o.Stage != "" || o.Env != ""), "dismiss is about no app")
	fault(dismisses && o.Reason == "", "dismiss takes a reason: it is recorded")
	fault(o.Verb != events.VerbApprove && o.Overrule, "overrule is for approve alone")
	fault(o.Overrule && o.Reason == "", "overrule needs a reason")
	fault(o.AllStuck && (o.Run != 0 || o.Stage != "" || o.Env != "" || o.Attempt != 0 || o.Rebuild || o.Policy != ""), "allStuck goes with app alone")
	if len(faults) > 0 {
		return "", identity.Object{}, invalid("commanding", "", strings.Join(faults, "; "), "GET /openapi.json describes it")
	}
	return verb, identity.Object{App: o.App, Env: o.Env, Run: o.Run}, nil
}

// doCommand judges an order and records it; with dryRun=1 it only says what it would do.
func doCommand(c *call) error {
	by := speaker{actor: c.actor, channel: "http"}
	if c.r.URL.Query().Get("dryRun") == "1" {
		preview, err := c.s.desk.preview(c.r.Context(), by, c.body.(order))
		if err == nil {
			writeJSON(c.w, http.StatusOK, preview)
		}
		return err
	}
	answer, err := c.s.desk.command(c.r.Context(), by, c.body.(order))
	if err == nil {
		writeJSON(c.w, http.StatusOK, answer)
	}
	return err
}

// preview says what an order would do, and records nothing.
func (s *desk) preview(ctx context.Context, by speaker, o order) (view.Preview, error) {
	d, _, err := s.judge(ctx, by, o)
	d.preview.Text = d.text
	return d.preview, err
}

// command judges an order and records it. Every way in ends here. The same order sent again, by its id, gets the answer
// that it got before, also from another process.
func (s *desk) command(ctx context.Context, by speaker, o order) (view.Answer, error) {
	boundary.Reached(events.Gateway, boundary.Received, o.App)
	defer boundary.Reached(events.Gateway, boundary.Ack, o.App)
	if answer, done, err := s.before(ctx, by, o); done || err != nil {
		return answer, err
	}
	d, in, err := s.judge(ctx, by, o)
	var why *problem
	switch {
	case errors.As(err, &why):
		// The same order may have been followed meanwhile, which is why it makes no sense any more.
		if answer, done, err := s.before(ctx, by, o); done || err != nil {
			return answer, err
		}
		s.recordRefusal(ctx, by, o, in, why)
		return view.Answer{}, why
	case err != nil:
		return view.Answer{}, err
	}
	return s.record(ctx, by, o, d)
}

// judge completes an order, looks up what it is judged by, and decides. It returns the completed order.
func (s *desk) judge(ctx context.Context, by speaker, o order) (decision, order, error) {
	var app *fold.App
	if o.App != "" {
		if app = s.book.App(o.App); app == nil {
			return decision{}, o, s.grounds.noApp(o.App)
		}
	}
	o = o.completed(app, by.actor.ID)
	in, err := s.grounds.scope(ctx, o, app, by.actor)
	if err != nil {
		return decision{}, o, err
	}
	d, why := decide(o, in)
	if why != nil {
		return d, o, why
	}
	return d, o, nil
}

// chain is the id that the events of the order's run share.
func (s *desk) chain(o order) string {
	if app := s.book.App(o.App); app != nil {
		if run := app.Run(o.Run); run != nil {
			return run.ChainID
		}
	}
	return ""
}

// event is what the decision on an order is recorded as, and where: that depends on the order as it was sent alone, so that
// two processes which know different things cannot both record it.
func (s *desk) event(by speaker, o order, d decision) (events.Event, events.Subject) {
	at, chain := time.Now(), s.chain(o)
	if d.replay != nil {
		body := d.replay
		body.ID, body.Roles, body.Channel, body.Relay, body.Answer = o.ID, by.actor.Roles, by.channel, by.relay, d.text
		var links []events.Link
		if body.Original != "" {
			links = append(links, events.Relation("replays", body.Original))
		}
		return events.New(events.Gateway, at, chain, body, links...),
			s.subject(body.Type(), o)
	}
	d.command.Roles, d.command.Channel, d.command.Relay, d.command.Answer = by.actor.Roles, by.channel, by.relay, d.text
	body := &events.CommandReceived{About: events.About{ID: o.ID}, Command: d.command}
	return events.New(events.Gateway, at, chain, body), s.subject(body.Type(), o)
}

// subject is where an event about an order is stored. A replay of all that is stuck is found by its id alone, whichever
// app it is limited to.
func (s *desk) subject(t events.Type, o order) events.Subject {
	app := o.App
	if o.AllStuck {
		app = ""
	}
	return events.CommandSubject(s.book.Epoch(), t, app, o.Run, o.Env, o.ID)
}

// record appends the command and answers.
func (s *desk) record(ctx context.Context, by speaker, o order, d decision) (view.Answer, error) {
	event, subject := s.event(by, o, d)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), appendBound)
	defer cancel()
	boundary.Reached(events.Gateway, boundary.Decided, o.App)
	record, err := s.book.Append(ctx, subject, event)
	var exists *ledger.ExistsError
	if errors.As(err, &exists) {
		answer, _, err := answerIn(exists.Winner, by, o)
		return answer, err
	}
	if err != nil {
		return view.Answer{}, fmt.Errorf("recording the command: %w", err)
	}
	s.done.add(o.ID, remembered{by.actor.ID, o, d.text, record.Seq})
	return view.Answer{ID: o.ID, Text: d.text, Seq: record.Seq}, nil
}

// before finds the answer that the same order got before: in memory, or in the ledger. An order that was refused is
// refused again.
func (s *desk) before(ctx context.Context, by speaker, o order) (answer view.Answer, done bool, err error) {
	if r, ok := s.done.find(o.ID); ok && r.actor == by.actor.ID && r.order == o {
		return view.Answer{ID: o.ID, Text: r.text, Seq: r.seq}, true, nil
	}
	for _, t := range []events.Type{events.TypeCommandReceived, events.TypeReplayRequested, events.TypeCommandRefused} {
		if t == events.TypeReplayRequested && (o.Verb != events.VerbReplay || o.AllStuck) {
			continue
		}
		record, found, err := s.book.Written(ctx, s.subject(t, o))
		if err != nil {
			return view.Answer{}, false, fmt.Errorf("looking for command %s: %w", o.ID, err)
		}
		if found {
			return answerIn(record, by, o)
		}
	}
	return view.Answer{}, false, nil
}

// answerIn is the answer that an event gives to the order that it records; an error where it records another order, or a
// refusal.
func answerIn(r ledger.Record, by speaker, o order) (view.Answer, bool, error) {
	other := conflict("commanding", o.ID, "this id was used for another command", "choose a new id")
	answer := view.Answer{ID: o.ID, Seq: r.Seq}
	switch b := r.Event.Body.(type) {
	case *events.CommandReceived:
		if b.Verb != o.Verb || b.Actor != by.actor.ID {
			return view.Answer{}, true, other
		}
		answer.Text = b.Answer
	case *events.ReplayRequested:
		if o.Verb != events.VerbReplay || b.Actor != by.actor.ID || o.Stage != "" && o.Stage != b.Stage {
			return view.Answer{}, true, other
		}
		answer.Text = b.Answer
	case *events.CommandRefused:
		if b.Verb != o.Verb || b.Actor != by.actor.ID {
			return view.Answer{}, true, other
		}
		p := conflict(b.Why, "", "", b.Do)
		if status := statusOf(b.Code); status != 0 {
			p.Status, p.Code = status, b.Code
		}
		return view.Answer{}, true, p
	default:
		return view.Answer{}, true, other
	}
	if answer.Text == "" {
		answer.Text = o.Verb + " is recorded"
	}
	return answer, true, nil
}

// recordRefusal keeps that a person's approval or command was not followed, and why. It is of no use to anybody who
// waits for it, so it is tried once.
func (s *desk) recordRefusal(ctx context.Context, by speaker, o, completed order, why *problem) {
	if why.Status == http.StatusNotFound || why.Status == http.StatusBadRequest {
		return
	}
	body := &events.CommandRefused{
		About: events.About{ID: o.ID}, Command: completed.command(by.actor.ID), Why: why.Error(), Do: why.Do, Code: why.Code,
	}
	body.Roles, body.Channel, body.Relay = by.actor.Roles, by.channel, by.relay
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), appendBound)
	defer cancel()
	_, err := s.book.Append(ctx, s.subject(body.Type(), o), events.New(events.Gateway, time.Now(), s.chain(o), body))
	var exists *ledger.ExistsError
	if err != nil && !errors.As(err, &exists) {
		s.logger.Warn("a refusal was not recorded", "verb", o.Verb, "app", o.App, "err", err)
	}
}
