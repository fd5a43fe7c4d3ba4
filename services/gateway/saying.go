package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger/fold"
	"towpath.dev/services/gateway/view"
)

// verbStatus asks how a run is. Nothing is recorded of it.
const verbStatus = "status"

// heard is the answer to a command that came in as an event.
type heard struct {
	view.Answer
	Run     *view.Run     `json:"run,omitempty"`     // of status
	Preview *view.Preview `json:"preview,omitempty"` // where it was only asked what the command would do
}

// about says what Authorize is to be asked about the order itself, whoever said it.
func (s saying) about() (identity.Verb, identity.Object, error) {
	if s.order.Verb != verbStatus {
		return s.order.about()
	}
	o := s.order
	_, err := events.ParseSlug(string(o.App))
	if err != nil || o.Run < 0 || len(o.ID) < minID || len(o.ID) > maxID {
		return "", identity.Object{}, invalid("asking for the status", o.ID, "it takes an app, a run that counts from 1 (left out: the newest), and an id of 8–100 bytes", "GET /openapi.json describes it")
	}
	return identity.Read, identity.Object{App: o.App, Run: o.Run}, nil
}

// asked is what Authorize is to be asked about whoever sent it.
func (s saying) asked() (identity.Verb, identity.Object, error) {
	verb, object, err := s.about()
	if err == nil && s.onBehalfOf != "" {
		verb = identity.Relay
	}
	return verb, object, err
}

func aboutSaying(c *call) (identity.Verb, identity.Object, error) {
	control := http.NewResponseController(c.w)
	control.SetReadDeadline(time.Now().Add(patience))
	body, err := io.ReadAll(io.LimitReader(c.r.Body, maxCommand+1))
	control.SetReadDeadline(time.Time{})
	if err != nil {
		return "", identity.Object{}, invalid(readingEvent, "", "its body did not arrive whole", "send it again")
	}
	said, err := readSaying(message{contentType: c.r.Header.Get("Content-Type"), attribute: single(c.r.Header.Values), body: body})
	if err != nil {
		return "", identity.Object{}, err
	}
	c.body = said
	return said.asked()
}

// doSaying follows a command that came in over HTTP.
func doSaying(c *call) error {
	answer, err := c.s.heed(c.r.Context(), speaker{actor: c.actor, channel: "http"}, c.body.(saying))
	if err == nil {
		writeJSON(c.w, http.StatusOK, answer)
	}
	return err
}

// heed does what an authorised sender says, for itself or for the person for whom it speaks.
func (s *Service) heed(ctx context.Context, by speaker, said saying) (heard, error) {
	if err := said.timely(time.Now()); err != nil {
		return heard{}, err
	}
	if said.onBehalfOf != "" {
		var err error
		if by, err = s.onBehalf(ctx, by.actor, said); err != nil {
			return heard{}, err
		}
	}
	if said.order.Verb == verbStatus {
		return s.status(said.order)
	}
	if said.dryRun {
		p, err := s.desk.preview(ctx, by, said.order)
		return heard{Answer: view.Answer{ID: said.order.ID, Text: p.Text}, Preview: &p}, err
	}
	answer, err := s.desk.command(ctx, by, said.order)
	return heard{Answer: answer}, err
}

// onBehalf finds the person for whom a bot speaks, and whether that person may.
func (s *Service) onBehalf(ctx context.Context, bot identity.Actor, said saying) (speaker, error) {
	name := fmt.Sprintf("%.100q", said.onBehalfOf)
	channel, err := identity.ParseExternal(said.onBehalfOf)
	if err != nil {
		return speaker{}, invalid("speaking for", name, "onBehalfOf is CHANNEL:ID, such as slack:T123/U456", "send the id that the other system gives the person and never changes")
	}
	if !bot.MaySpeakFor(said.onBehalfOf) {
		return speaker{}, forbidden("speaking for", name, bot.ID+" may not speak for this name", "an admin adds a bot that may: towpath actor add NAME --bot --speaks-for "+channel+":…")
	}
	person, err := s.actors.ByExternal(ctx, said.onBehalfOf)
	if errors.Is(err, identity.ErrUnknownActor) {
		return speaker{}, forbidden("speaking for", name, "nobody here is known by this name", "an admin says who that is: towpath actor map "+said.onBehalfOf+" ACTOR")
	}
	if err != nil {
		return speaker{}, fmt.Errorf("finding out who %s is: %w", name, err)
	}
	verb, object, err := said.about()
	if err != nil {
		return speaker{}, err
	}
	if err := identity.Authorize(person, verb, object); err != nil {
		return speaker{}, err
	}
	return speaker{actor: person, relay: bot.ID, channel: channel}, nil
}

// status says how a run is.
func (s *Service) status(o order) (heard, error) {
	app := s.fold().App(o.App)
	if app == nil {
		return heard{}, s.noApp(o.App)
	}
	n := o.Run
	if n == 0 {
		n = app.Runs.Len()
	}
	run := app.Run(n)
	if run == nil {
		return heard{}, notFound("asking for the status", fold.Name(o.App, n), "there is no such run", fmt.Sprintf("towpath runs --app %s lists them", o.App))
	}
	v := view.NewRun(app, run, s.runURL(o.App, n))
	text := v.Run + " is " + string(v.Status)
	for _, more := range []struct{ before, text string }{{" for ", v.For}, {": ", v.Detail}, {" → ", v.Command}} {
		if more.text != "" {
			text += more.before + more.text
		}
	}
	return heard{Answer: view.Answer{ID: o.ID, Text: text, Seq: v.Seq}, Run: &v}, nil
}

const (
	// maxHearing is how many commands of bots are followed at a time; more wait on the bus.
	maxHearing = 16
	// maxWaiting is how many wait; what comes beyond gets no answer, and is sent again.
	maxWaiting = 1024
	// StatusHeader says over the bus what HTTP would answer: "200".
	StatusHeader = "Towpath-Status"
)

// busSubjects are all ways in over the bus. A bot's is authorised by hearBot; the other says to notify, which may read
// everything, where a page is.
var busSubjects = []string{events.BotSubjects, events.LinkSubject}

// listenOnBus listens for bots' requests, and notify's. What it returns answers them until its context ends, and then
// lets end what has begun.
func (s *Service) listenOnBus() (hear func(context.Context), err error) {
	messages := make(chan *nats.Msg, maxWaiting)
	var heard []*nats.Subscription
	for _, subject := range busSubjects {
		one, err := s.rt.Ledger.Conn().ChanQueueSubscribe(subject, "gateway", messages)
		if err != nil {
			return nil, fmt.Errorf("listening on the bus: %w", err)
		}
		heard = append(heard, one)
	}
	return func(ctx context.Context) {
		var work sync.WaitGroup
		for range maxHearing {
			work.Go(func() {
				for {
					select {
					case <-ctx.Done():
						return
					case m := <-messages:
						s.answer(context.WithoutCancel(ctx), m)
					}
				}
			})
		}
		<-ctx.Done()
		for _, one := range heard {
			if err := one.Unsubscribe(); err != nil {
				s.logger.Debug("the bus was gone before the gateway", "err", err)
			}
		}
		work.Wait()
	}, nil
}

// answer answers one request of the bus. A panic is its own and nobody else's.
func (s *Service) answer(ctx context.Context, m *nats.Msg) {
	ctx, cancel := context.WithTimeout(ctx, appendBound)
	defer cancel()
	defer func() {
		if cause := recover(); cause != nil {
			s.panics.Add(1)
			s.logger.Error("a request on the bus made the gateway panic", "subject", m.Subject, "panic", fmt.Sprint(cause))
		}
	}()
	if m.Subject == events.LinkSubject {
		s.answerLink(m)
		return
	}
	reply := nats.NewMsg(m.Reply)
	var value any
	said, err := s.hearBot(ctx, m)
	status := http.StatusOK
	if value = said; err != nil {
		p := problemOf(err)
		if p.Status >= http.StatusInternalServerError {
			s.logger.Error("a request on the bus failed", "subject", m.Subject, "status", p.Status, "err", err)
		}
		status, value = p.Status, struct {
			Error *problem `json:"error"`
		}{p}
	}
	if m.Reply == "" {
		return
	}
	if reply.Data, err = json.Marshal(value); err == nil {
		reply.Header.Set(StatusHeader, strconv.Itoa(status))
		err = s.rt.Ledger.Conn().PublishMsg(reply)
	}
	if err != nil {
		s.logger.Warn("a bot got no answer", "subject", m.Subject, "err", err)
	}
}

// hearBot follows a command that came in on a bot's own subject, which nobody else can send on.
func (s *Service) hearBot(ctx context.Context, m *nats.Msg) (heard, error) {
	id, err := events.BotOf(m.Subject)
	if err != nil {
		return heard{}, invalid(readingEvent, "", err.Error(), "")
	}
	actor, err := s.actors.Get(ctx, string(id))
	if errors.Is(err, identity.ErrUnknownActor) || err == nil && (actor.Erased || actor.Kind != identity.KindBot) {
		return heard{}, &problem{
			Status: http.StatusUnauthorized, What: "asking the gateway", Why: "no bot has the id " + string(id),
			Do: "an admin adds one: towpath actor add NAME --bot", Code: codeUnknown,
		}
	}
	if err != nil {
		return heard{}, fmt.Errorf("finding out who asks: %w", err)
	}
	said, err := readSaying(message{contentType: contentType(m.Header), attribute: lowerCase(m.Header), body: m.Data})
	if err != nil {
		return heard{}, err
	}
	verb, object, err := said.asked()
	if err != nil {
		return heard{}, err
	}
	if err := identity.Authorize(actor, verb, object); err != nil {
		return heard{}, err
	}
	return s.heed(ctx, speaker{actor: actor, channel: "bus"}, said)
}

// contentType is binary mode's where nothing is said: the bus has no content types of its own.
func contentType(h nats.Header) string {
	for name, values := range h {
		if strings.EqualFold(name, "content-type") && len(values) > 0 {
			return values[0]
		}
	}
	return binaryType
}

// lowerCase reads headers as they were sent: names on the bus have a case, and a CloudEvent's are lower.
func lowerCase(h nats.Header) func(string) string {
	return single(func(name string) []string { return h[name] })
}

// single reads headers that are given once; what is given twice says nothing.
func single(values func(name string) []string) func(string) string {
	return func(name string) string {
		if all := values(name); len(all) == 1 {
			return all[0]
		}
		return ""
	}
}

// answerLink tells notify where a run's page is.
func (s *Service) answerLink(m *nats.Msg) {
	var question events.LinkRequest
	if json.Unmarshal(m.Data, &question) != nil {
		return
	}
	if app := s.fold().App(question.App); app == nil || app.Run(question.Run) == nil {
		return
	}
	if err := m.Respond([]byte(s.runURL(question.App, question.Run))); err != nil {
		s.logger.Debug("notify got no answer", "err", err)
	}
}
