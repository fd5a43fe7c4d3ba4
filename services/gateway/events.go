package gateway

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/services/gateway/view"
)

// maxLast is how many of the last events one answer gives.
const maxLast = 1000

// cloudEvent is an event in CloudEvents' structured mode. With what the extensions hold it can be verified and asked
// for again.
type cloudEvent struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            events.Type     `json:"type"`
	Subject         string          `json:"subject"`
	Time            time.Time       `json:"time"`
	DataContentType string          `json:"datacontenttype"`
	ChainID         string          `json:"chainid,omitempty"`
	Sequence        string          `json:"sequence"`
	StoredAs        string          `json:"towpathsubject"`
	Signature       string          `json:"towpathsignature"`
	Data            json.RawMessage `json:"data"`
}

// The forms in which events are sent, one a line.
const (
	asLines       = ""            // view.EventLine
	asCDEvents    = "cdevents"    // the event's body alone, as it was signed
	asCloudEvents = "cloudevents" // cloudEvent
)

// eventQuery is what a request asks for; its zero value takes all.
type eventQuery struct {
	ledger.Query
	typ          string // in full
	run          int
	chain        string // of the run
	digest       []byte // as it stands in a body
	actor        string
	since, until time.Time
	limit        int // 0: none
	last         int // 0: all
	follow       bool
	as           string
}

// digestPattern is a digest or the beginning of one.
var digestPattern = regexp.MustCompile(`^(sha256:)?[0-9a-f]{6,64}$`)

// takes reports whether an event fits. The bus has chosen by subject already.
func (q *eventQuery) takes(r ledger.Record) bool {
	switch {
	case q.typ != "" && string(r.Event.Body.Type()) != q.typ,
		q.run > 0 && r.Event.ChainID != q.chain && r.Subject.Run != q.run,
		!q.since.IsZero() && r.Time.Before(q.since),
		!q.until.IsZero() && !r.Time.Before(q.until),
		len(q.digest) > 0 && !bytes.Contains(r.Body, q.digest):
		return false
	}
	return q.actor == "" || bytes.Contains(r.Body, []byte(`"`+q.actor+`"`)) && saysActor(r.Body, q.actor)
}

// saysActor reports whether a body names an actor as one: as who did something, or wrote a commit.
func saysActor(body []byte, actor string) bool {
	var document any
	if json.Unmarshal(body, &document) != nil {
		return false
	}
	var says func(key string, v any) bool
	says = func(key string, v any) bool {
		switch v := v.(type) {
		case string:
			return v == actor && slices.Contains([]string{"actor", "author", "authors", "requestor", "responder", "approver", "relay", "onBehalfOf"}, key)
		case []any:
			return slices.ContainsFunc(v, func(one any) bool { return says(key, one) })
		case map[string]any:
			for name, one := range v {
				if says(name, one) {
					return true
				}
			}
		}
		return false
	}
	return says("", document)
}

// readQuery reads ?app=&run=&env=&type=&digest=&actor=&since=&until=&after=&limit=&last=&follow=&as=.
func (c *call) readQuery(values url.Values) (*eventQuery, error) {
	q := &eventQuery{follow: values.Get("follow") == "1", as: values.Get("as")}
	wrong := func(key, why string) error {
		return invalid("reading events", fmt.Sprintf("%s=%.80s", key, values.Get(key)), why, "GET /openapi.json describes it")
	}
	for key, to := range map[string]*events.Slug{"app": &q.App, "env": &q.Env} {
		if text := values.Get(key); text != "" {
			var err error
			if *to, err = events.ParseSlug(text); err != nil {
				return nil, wrong(key, "a name has lower-case letters, digits and inner hyphens, 1–63 long")
			}
		}
	}
	for key, to := range map[string]*int{"run": &q.run, "limit": &q.limit, "last": &q.last} {
		if text := values.Get(key); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				return nil, wrong(key, "it must be a number from 1 on")
			}
			*to = n
		}
	}
	if text := values.Get("after"); text != "" {
		var err error
		if q.After, err = strconv.ParseUint(text, 10, 64); err != nil {
			return nil, wrong("after", "it must be a sequence")
		}
	}
	for key, to := range map[string]*time.Time{"since": &q.since, "until": &q.until} {
		if text := values.Get(key); text != "" {
			var err error
			if *to, err = time.Parse(time.RFC3339, text); err != nil {
				return nil, wrong(key, "it must be a time such as 2026-01-02T15:04:05Z")
			}
		}
	}
	if text := values.Get("digest"); text != "" {
		if !digestPattern.MatchString(text) {
			return nil, wrong("digest", "it must be sha256: and hexadecimal digits, or at least the first 6 of them")
		}
		q.digest = []byte("sha256:" + strings.TrimPrefix(text, "sha256:"))
	}
	switch {
	case q.last > maxLast:
		return nil, wrong("last", fmt.Sprintf("at most %d", maxLast))
	case q.last > 0 && q.limit > 0:
		return nil, wrong("last", "it cannot be given with limit")
	case !q.since.IsZero() && !q.until.IsZero() && !q.since.Before(q.until):
		return nil, wrong("until", "it must be after since: nothing is between the two")
	case q.follow && !q.until.IsZero():
		return nil, wrong("until", "it cannot be given with follow")
	case q.as != asLines && q.as != asCDEvents && q.as != asCloudEvents:
		return nil, wrong("as", "it must be cdevents or cloudevents")
	case q.run > 0 && q.App == "":
		return nil, wrong("run", "it must be a run's number, with app")
	}
	for _, choose := range []func() error{
		func() error { return q.chooseType(values.Get("type")) }, func() error { return c.chooseRun(q) },
		func() error { return c.choosePlace(q) }, func() error { return c.chooseActor(q, values.Get("actor")) },
	} {
		if err := choose(); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// chooseType takes "slot", "slot.taken", or a type in full.
func (q *eventQuery) chooseType(text string) error {
	if text == "" {
		return nil
	}
	if t := events.Type(text); slices.Contains(events.Types(), t) {
		q.typ, q.Subject, q.Predicate = text, t.Subject(), t.Predicate()
		return nil
	}
	q.Subject, q.Predicate, _ = strings.Cut(text, ".")
	var subjects, predicates []string
	for _, t := range events.Types() {
		subjects = append(subjects, t.Subject())
		if t.Subject() == q.Subject {
			predicates = append(predicates, text[:len(q.Subject)]+"."+t.Predicate())
		}
	}
	if len(predicates) > 0 && (text == q.Subject || slices.Contains(predicates, text)) {
		return nil
	}
	known := predicates
	if len(known) == 0 {
		known = subjects
	}
	slices.Sort(known)
	return invalid("reading events", fmt.Sprintf("type=%.80s", text), "there is no such type", "one of "+strings.Join(slices.Compact(known), ", "))
}

// choosePlace refuses an app or environment that nobody has heard of, which would be a slip of the pen.
func (c *call) choosePlace(q *eventQuery) error {
	if q.App != "" && c.s.fold().App(q.App) == nil {
		if known, err := c.recorded(eventQuery{Query: ledger.Query{App: q.App}}); err != nil || !known {
			return errors.Join(err, c.s.noApp(q.App))
		}
	}
	if q.Env == "" {
		return nil
	}
	names := environmentNames(c.s.fold(), q.App)
	if slices.Contains(names, q.Env) {
		return nil
	}
	known, err := c.recorded(eventQuery{Query: ledger.Query{App: q.App, Env: q.Env}})
	if err != nil || known {
		return err
	}
	do := "one of " + joined(names)
	if len(names) == 0 {
		do = "leave it out: there is none yet"
	}
	return notFound("finding environment", string(q.Env), "there is no such environment", do)
}

// environmentNames are those of an app, or of all apps, sorted.
func environmentNames(f *fold.Fold, name events.Slug) []events.Slug {
	var names []events.Slug
	for _, app := range f.Apps() {
		if name != "" && app.Name != name {
			continue
		}
		names = slices.AppendSeq(names, maps.Keys(app.Envs))
		if newest := app.Newest(); newest != nil {
			names = append(names, newest.Definition.EnvironmentNames()...)
		}
	}
	if name == "" {
		for _, e := range f.Environments() {
			names = append(names, e.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// recorded reports whether any event fits.
func (c *call) recorded(q eventQuery) (bool, error) {
	err := c.s.rt.Ledger.Query(c.r.Context(), q.Query, func(r ledger.Record) error {
		if q.takes(r) {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return true, nil
	}
	return false, err
}

func (c *call) chooseRun(q *eventQuery) error {
	if q.run == 0 {
		return nil
	}
	c.app, c.run = q.App, q.run
	_, run, err := c.found()
	if err == nil {
		q.chain = run.ChainID
	}
	return err
}

// chooseActor takes an id, "me", or an email address of somebody whom the table of actors knows. An id that is not in the
// table has to be in an event: services have one, and whoever nobody could check.
func (c *call) chooseActor(q *eventQuery, text string) error {
	switch {
	case text == "me":
		q.actor = c.actor.ID
	case strings.Contains(text, "@"):
		if err := identity.Authorize(c.actor, identity.Audit, identity.Object{App: c.app}); err != nil {
			return err // who is behind an id is not for everybody who reads events
		}
		all, err := c.s.actors.List(c.r.Context())
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(a identity.Actor) bool { return strings.EqualFold(a.Email, text) })
		if i < 0 {
			return notFound("finding the actor", text, "nobody has this address", "towpath actor list shows ids")
		}
		q.actor = all[i].ID
	case text != "":
		q.actor = text
		_, err := c.s.actors.Get(c.r.Context(), text)
		if !errors.Is(err, identity.ErrUnknownActor) {
			return err
		}
		if known, err := c.recorded(eventQuery{actor: text}); err != nil || known {
			return err
		}
		return notFound("finding the actor", text, "nobody has this id, and no event names it", "towpath actor list shows ids")
	}
	return nil
}

// doEvents sends events as lines: those that are there, and with follow=1 those that come.
func doEvents(c *call) error {
	q, err := c.readQuery(c.r.URL.Query())
	if err != nil {
		return err
	}
	ctx, cancel := c.whileOpen(0)
	defer cancel()
	if !q.since.IsZero() {
		before, err := c.s.rt.Ledger.Before(ctx, q.since)
		if err != nil {
			return err
		}
		q.After = max(q.After, before)
	}
	stream := c.stream("application/x-ndjson")
	sender := &eventSender{call: c, query: q, names: map[string]string{}, out: bufio.NewWriterSize(stream, sendBuffer)}
	sender.lines = json.NewEncoder(sender.out)
	sender.lines.SetEscapeHTML(false)
	if err := errors.Join(sender.run(ctx), sender.out.Flush()); err != nil && ctx.Err() == nil {
		c.s.logger.Warn("events were not sent on", "after", q.After, "err", err)
		stream.control.SetWriteDeadline(time.Now()) // the client must not take what it has for all
	}
	return nil
}

const (
	// sendBuffer is how much is sent at once, in bytes, where many events fit.
	sendBuffer = 32 << 10
	// sendEvery is how long an event may wait for others.
	sendEvery = 200 * time.Millisecond
)

// eventSender sends the events of one request. Its memory does not grow with the ledger.
type eventSender struct {
	call    *call
	query   *eventQuery
	out     *bufio.Writer
	lines   *json.Encoder
	flushed time.Time
	names   map[string]string // of actors, by id
	sent    int
}

// errEnough ends a reading that has found all that was asked for.
var errEnough = errors.New("that is all")

func (s *eventSender) run(ctx context.Context) error {
	q := s.query
	if q.last > 0 {
		if err := s.seekLast(ctx); err != nil {
			return err
		}
	}
	for {
		last, err := s.pass(ctx, func(r ledger.Record) error { return s.send(ctx, r) })
		if errors.Is(err, errEnough) {
			return nil
		}
		if err != nil || !q.follow {
			return err
		}
		q.After = last
		if err := s.out.Flush(); err != nil {
			return err
		}
		if err := s.call.s.rt.Ledger.Await(ctx, q.After+1); err != nil {
			return err
		}
	}
}

// pass hands the events that fit, up to the head, to take, and returns the sequence up to which there are no more.
func (s *eventSender) pass(ctx context.Context, take func(ledger.Record) error) (last uint64, err error) {
	q := s.query
	last = max(q.After, s.call.s.rt.Ledger.Applied())
	err = s.call.s.rt.Ledger.Query(ctx, q.Query, func(r ledger.Record) error {
		last = max(last, r.Seq)
		if !q.until.IsZero() && !r.Time.Before(q.until) {
			return errEnough
		}
		if time.Since(s.flushed) > sendEvery {
			s.flushed = time.Now()
			if err := s.out.Flush(); err != nil {
				return err
			}
		}
		if !q.takes(r) {
			return nil
		}
		return take(r)
	})
	return last, err
}

// seekLast finds where the last events that fit begin.
func (s *eventSender) seekLast(ctx context.Context) error {
	var found []uint64
	_, err := s.pass(ctx, func(r ledger.Record) error {
		if len(found) == s.query.last {
			found = slices.Delete(found, 0, 1)
		}
		found = append(found, r.Seq)
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if len(found) > 0 {
		s.query.After = found[0] - 1
	}
	return nil
}

func (s *eventSender) send(ctx context.Context, r ledger.Record) error {
	if err := s.lines.Encode(s.form(ctx, r)); err != nil {
		return err
	}
	if s.sent++; s.sent == s.query.limit {
		return errEnough
	}
	return nil
}

func (s *eventSender) form(ctx context.Context, r ledger.Record) any {
	switch s.query.as {
	case asCDEvents:
		return json.RawMessage(r.Body)
	case asCloudEvents:
		return cloudEvent{
			SpecVersion: "1.0", ID: r.Event.ID, Source: r.Event.Source, Type: r.Event.Body.Type(), Subject: r.Event.Body.SubjectID(),
			Time: r.Event.Time, DataContentType: "application/json", ChainID: r.Event.ChainID,
			Sequence: strconv.FormatUint(r.Seq, 10), StoredAs: r.Subject.String(), Signature: r.Signature, Data: r.Body,
		}
	}
	line := view.EventLine{Seq: r.Seq, Time: r.Time.UTC(), Subject: r.Subject.String(), Type: r.Event.Body.Type(), Event: r.Body}
	line.Actor, line.Detail = view.Event(r.Event)
	line.Run = s.number(r)
	line.Name = s.name(ctx, line.Actor)
	return line
}

// number is the run of an event; 0: none. The event that starts a run is stored before the run has its number.
func (s *eventSender) number(r ledger.Record) int {
	app := s.call.s.fold().App(r.Subject.App)
	if r.Subject.Run > 0 || r.Subject.Writer != events.Gateway || r.Event.ChainID == "" || app == nil {
		return r.Subject.Run
	}
	if run := app.OfChain(r.Event.ChainID); run != nil {
		return run.N
	}
	return 0
}

// name is who an actor is, as long as the table knows, for those who may ask that.
func (s *eventSender) name(ctx context.Context, id string) string {
	if id == "" || identity.Authorize(s.call.actor, identity.Audit, identity.Object{}) != nil {
		return ""
	}
	if name, ok := s.names[id]; ok {
		return name
	}
	actor, err := s.call.s.actors.Get(ctx, id)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "" // asked for again with the next event
	}
	s.names[id] = actor.Name
	return actor.Name
}
