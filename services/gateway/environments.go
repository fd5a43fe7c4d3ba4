package gateway

import (
	"context"
	"crypto/rand"
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
	"towpath.dev/services/gateway/view"
)

const (
	maxEnvironmentName = 40 // bytes, as in a pipeline
	maxTTL             = 366 * 24 * time.Hour
)

func aboutCreateEnvironment(c *call) (identity.Verb, identity.Object, error) {
	var o view.NewEnvironment
	if err := c.decode(&o); err != nil {
		return "", identity.Object{}, err
	}
	_, nameErr := events.ParseSlug(string(o.Name))
	_, fromErr := events.ParseSlug(string(o.From))
	ttl, ttlErr := lifetime(o)
	var faults []string
	for text, wrong := range map[string]bool{
		fmt.Sprintf("name %.80q is not a name of at most %d bytes", o.Name, maxEnvironmentName):                nameErr != nil || len(o.Name) > maxEnvironmentName,
		fmt.Sprintf("from %.80q is not an environment's name", o.From):                                         fromErr != nil,
		fmt.Sprintf("from and name are both %.80q", o.Name):                                                    o.From == o.Name,
		fmt.Sprintf("ttl %.40q must be a duration from 1s to %d days, such as 2h", o.TTL, maxTTL/24/time.Hour): ttlErr != nil || o.TTL != "" && (ttl < time.Second || ttl > maxTTL),
		"id must have 8–100 bytes: the same id sent again is the same command":                                 len(o.ID) < minID || len(o.ID) > maxID,
		fmt.Sprintf("reason may have %d bytes", maxReason):                                                     len(o.Reason) > maxReason,
	} {
		if wrong {
			faults = append(faults, text)
		}
	}
	if len(faults) > 0 {
		slices.Sort(faults)
		return "", identity.Object{}, invalid("making an environment", "", strings.Join(faults, "; "), "GET /openapi.json describes it")
	}
	c.body = o
	return identity.ManageEnvironments, identity.Object{Env: o.Name}, nil
}

// lifetime is how long an environment is wanted; 0: until it is destroyed.
func lifetime(o view.NewEnvironment) (time.Duration, error) {
	if o.TTL == "" {
		return 0, nil
	}
	return time.ParseDuration(o.TTL)
}

func doCreateEnvironment(c *call) error {
	answer, err := c.s.createEnvironment(c.r.Context(), c.actor, c.body.(view.NewEnvironment))
	if err == nil {
		writeJSON(c.w, http.StatusOK, answer)
	}
	return err
}

// createEnvironment has an environment made. It is recorded that its settings are about to be written, then they are, and
// its command after them: after a crash in between it is there, as one that is being prepared. The same request again, or
// another one, goes on from there, and destroying it removes what was written.
func (s *Service) createEnvironment(ctx context.Context, actor identity.Actor, o view.NewEnvironment) (view.EnvironmentAnswer, error) {
	defer s.making.lock(o.Name)()
	subject := events.CommandSubject(s.epoch(), events.TypeCommandReceived, "", 0, o.Name, o.ID)
	if record, found, err := s.rt.Ledger.Written(ctx, subject); err != nil || found {
		return answeredBefore(record, actor, o.ID, events.VerbCreateEnvironment, err)
	}
	known := s.fold().Environment(o.Name)
	plan, why := planEnvironment(o, known, s.fold().Apps())
	if why != nil {
		return view.EnvironmentAnswer{}, why
	}
	found, err := s.findAllSettings(ctx, o, known, plan)
	if err == nil {
		err = s.prepareEnvironment(ctx, actor, o, plan)
	}
	if err != nil {
		return view.EnvironmentAnswer{}, err
	}
	apps, warnings, err := s.furnish(ctx, actor, o, plan, found)
	if err != nil {
		return view.EnvironmentAnswer{}, err
	}
	body := &events.CommandReceived{About: events.About{ID: o.ID}, Command: events.Command{
		Verb: events.VerbCreateEnvironment, Environment: o.Name, From: o.From, Apps: apps, Actor: actor.ID, Roles: actor.Roles, Channel: "http", Reason: o.Reason,
		Answer: fmt.Sprintf("%s is made from %s: %s", o.Name, o.From, plural(len(apps), "app")),
	}}
	at := time.Now()
	if body.Expires = expiry(o, at); body.Expires != nil {
		body.Answer += ", until " + body.Expires.Format(time.RFC3339)
	}
	answer, err := s.recordOfEnvironment(ctx, actor, subject, at, body)
	answer.Warnings = warnings
	return answer, err
}

// expiry is when an environment that is asked for now is over; nil: it is not.
func expiry(o view.NewEnvironment, now time.Time) *time.Time {
	ttl, _ := lifetime(o)
	if ttl <= 0 {
		return nil
	}
	at := now.Add(ttl).UTC()
	return &at
}

// prepareEnvironment records that the settings of an environment are about to be written.
func (s *Service) prepareEnvironment(ctx context.Context, actor identity.Actor, o view.NewEnvironment, plan []planned) error {
	at, id := time.Now(), string(events.Key(o.ID, "prepare"))
	body := &events.CommandReceived{About: events.About{ID: id}, Command: events.Command{
		Verb: events.VerbPrepareEnvironment, Environment: o.Name, From: o.From, Actor: actor.ID, Channel: "http", Reason: o.Reason, Expires: expiry(o, at),
	}}
	for _, p := range plan {
		body.Apps = append(body.Apps, events.EnvironmentApp{App: p.app.Name, Slot: p.slot.N})
	}
	subject := events.CommandSubject(s.epoch(), body.Type(), "", 0, o.Name, id)
	_, err := s.recordOfEnvironment(ctx, actor, subject, at, body)
	return err
}

// recordOfEnvironment appends a command about an environment.
func (s *Service) recordOfEnvironment(ctx context.Context, actor identity.Actor, subject events.Subject, at time.Time, body *events.CommandReceived) (view.EnvironmentAnswer, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), appendBound)
	defer cancel()
	record, err := s.rt.Append(ctx, subject, events.New(events.Gateway, at, "", body))
	var exists *ledger.ExistsError
	if errors.As(err, &exists) {
		return answeredBefore(exists.Winner, actor, body.ID, body.Verb, nil)
	}
	if err != nil {
		return view.EnvironmentAnswer{}, fmt.Errorf("recording the command: %w", err)
	}
	return view.EnvironmentAnswer{Answer: view.Answer{ID: body.ID, Text: body.Answer, Seq: record.Seq}}, nil
}

// answeredBefore is the answer that the same request got before.
func answeredBefore(r ledger.Record, actor identity.Actor, id, verb string, err error) (view.EnvironmentAnswer, error) {
	if err != nil {
		return view.EnvironmentAnswer{}, fmt.Errorf("looking for command %s: %w", id, err)
	}
	b, ok := r.Event.Body.(*events.CommandReceived)
	if !ok || b.Verb != verb || b.Actor != actor.ID {
		return view.EnvironmentAnswer{}, conflict("commanding", id, "this id was used for another command", "choose a new id")
	}
	return view.EnvironmentAnswer{Answer: view.Answer{ID: id, Text: b.Answer, Seq: r.Seq}}, nil
}

// planned is what an environment that is to be made is to hold of one app.
type planned struct {
	app  *fold.App
	slot *fold.Slot // of the environment that it is made from
	run  *fold.Run
}

// planEnvironment judges whether an environment can be made, or renewed where it is known, and says of what.
func planEnvironment(o view.NewEnvironment, known *fold.Environment, apps []*fold.App) ([]planned, *problem) {
	const making = "making environment"
	on := string(o.Name)
	switch {
	case known != nil && known.Ending != nil:
		return nil, conflict(making, on, "it is being destroyed", "wait until towpath env list does not show it any more")
	case known != nil && known.Made.From != o.From:
		return nil, conflict(making, on, fmt.Sprintf("it is there, made from %s", known.Made.From), fmt.Sprintf("towpath env destroy %s, or --from %s", on, known.Made.From))
	}
	var plan []planned
	var faults []string
	for _, app := range apps {
		if run := stageOf(app, o.Name); run != nil {
			return nil, conflict(making, on, fmt.Sprintf("it is a stage of %s", run.Name()), "choose another name")
		}
		if env := app.Env(o.Name); known == nil && !env.Gone && env.Slots.Len() > 0 {
			return nil, conflict(making, on, fmt.Sprintf("%s was promoted there", app.Name), "choose another name")
		}
		slot := standing(app.Env(o.From))
		live := app.Env(o.From).Live()
		switch {
		case slot != nil && app.Run(slot.Run) != nil:
			plan = append(plan, planned{app, slot, app.Run(slot.Run)})
		case live != nil && live.Kind != events.KindRemove:
			faults = append(faults, fmt.Sprintf("no version of %s is verified in %s yet", app.Name, o.From))
		}
	}
	for name := range o.Apps {
		if !slices.ContainsFunc(plan, func(p planned) bool { return p.app.Name == name }) {
			faults = append(faults, fmt.Sprintf("settings are given for %.80s, which does not run in %s", name, o.From))
		}
	}
	slices.Sort(faults)
	switch {
	case len(faults) > 0:
		return nil, conflict(making, on, strings.Join(faults, "; "), fmt.Sprintf("towpath env show %s", o.From))
	case len(plan) == 0:
		return nil, notFound(making, on, fmt.Sprintf("nothing runs in %s", o.From), "towpath env list shows the environments")
	}
	return plan, nil
}

// stageOf returns a run of an app that has an environment as a stage: the newest, or one that is on its way.
func stageOf(app *fold.App, env events.Slug) *fold.Run {
	for _, n := range append(slices.Clone(app.Unsettled), app.Runs.Len()) {
		if run := app.Run(n); run != nil && run.Env(env) != nil {
			return run
		}
	}
	return nil
}

// standing returns the slot whose version stands in an environment, or nil.
func standing(env *fold.Env) *fold.Slot {
	live := env.Live()
	switch {
	case env.Ending != 0 || live == nil || live.Kind == events.KindRemove:
		return nil
	case live.Closing.Stands():
		return live
	}
	if good := env.Good(live.N); good != nil {
		return good
	}
	return nil
}

func doDestroyEnvironment(c *call) error {
	q := c.r.URL.Query()
	id := q.Get("id")
	if id == "" {
		id = rand.Text()
	}
	if reason := q.Get("reason"); len(id) < minID || len(id) > maxID || len(reason) > maxReason {
		return invalid("destroying environment", string(c.env), fmt.Sprintf("id must have 8–100 bytes, reason at most %d", maxReason), "")
	}
	answer, err := c.s.destroyEnvironment(c.r.Context(), c.actor, c.env, id, q.Get("reason"))
	if err == nil {
		writeJSON(c.w, http.StatusOK, answer)
	}
	return err
}

// destroyEnvironment has an environment destroyed. Promote takes down what runs there, and clearEnvironments its
// settings.
func (s *Service) destroyEnvironment(ctx context.Context, actor identity.Actor, name events.Slug, id, reason string) (view.EnvironmentAnswer, error) {
	defer s.making.lock(name)()
	subject := events.CommandSubject(s.epoch(), events.TypeCommandReceived, "", 0, name, id)
	if record, found, err := s.rt.Ledger.Written(ctx, subject); err != nil || found {
		return answeredBefore(record, actor, id, events.VerbDestroyEnvironment, err)
	}
	e := s.fold().Environment(name)
	switch {
	case e == nil && s.knownEnvironment(name) == nil:
		return view.EnvironmentAnswer{}, conflict("destroying environment", string(name), "it is a stage of a pipeline", "only what towpath env create has made is destroyed")
	case e == nil:
		return view.EnvironmentAnswer{}, s.knownEnvironment(name)
	case e.Ending != nil:
		return view.EnvironmentAnswer{Answer: view.Answer{ID: id, Text: fmt.Sprintf("%s is being destroyed", name), Seq: e.Seq}}, nil
	}
	body := &events.CommandReceived{About: events.About{ID: id}, Command: events.Command{
		Verb: events.VerbDestroyEnvironment, Environment: name, Actor: actor.ID, Roles: actor.Roles, Channel: "http", Reason: reason, Answer: fmt.Sprintf("%s is being destroyed", name),
	}}
	return s.recordOfEnvironment(ctx, actor, subject, time.Now(), body)
}

// doEnvironmentState says how an environment is, at once or once an event later than ?after has come.
func doEnvironmentState(c *call) error {
	if c.r.URL.Query().Get("after") != "" {
		after, timeout, err := pollOf(c.r)
		if err != nil {
			return err
		}
		ctx, cancel := c.whileOpen(timeout)
		c.s.fold().Wait(ctx, after+1) // without an event it is as it was
		cancel()
	}
	seq := c.s.fold().Seq()
	for _, e := range c.s.environments() {
		if e.Name == string(c.env) {
			e.Seq = seq
			writeJSON(c.w, http.StatusOK, e)
			return nil
		}
	}
	return c.s.knownEnvironment(c.env)
}

// environments are all environments, as people are shown them.
func (s *Service) environments() []view.Environment {
	return view.Environments(s.fold().Apps(), s.fold().Environments())
}
