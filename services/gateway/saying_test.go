package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
)

// spoken is a command as an event, before it is sent.
type spoken struct {
	id, command, time, typ, source string
	content                        any
}

func newSpoken(command string, content any) spoken {
	return spoken{events.NewID(), command, time.Now().UTC().Format(time.RFC3339Nano), string(events.TypeCommandReceived), "/bots/test", content}
}

// cdevent is its CDEvents JSON.
func (s spoken) cdevent() map[string]any {
	return map[string]any{
		"context": map[string]any{"specversion": events.SpecVersion, "id": s.id, "source": s.source, "type": s.typ, "timestamp": s.time},
		"subject": map[string]any{"id": s.command, "content": s.content},
	}
}

func (s spoken) attributes() map[string]any {
	return map[string]any{"specversion": "1.0", "id": s.id, "source": s.source, "type": s.typ, "subject": s.command, "time": s.time}
}

func (s spoken) structured() string {
	all := s.attributes()
	all["datacontenttype"], all["data"] = binaryType, s.cdevent()
	return jsonOf(all)
}

func (s spoken) headers() map[string]string {
	all := map[string]string{}
	for name, value := range s.attributes() {
		all["ce-"+name] = value.(string)
	}
	return all
}

func jsonOf(value any) string {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// post sends bytes to the events' route with these headers.
func (s *station) post(token string, headers map[string]string, body string) (int, string) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url+"/v1/events", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(response.Body); err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, answer.String()
}

// A command comes in in both modes, with everything that the modes allow.
func TestModes(t *testing.T) {
	s := newStation(t)
	w := newWorking(t, helloYAML)
	w.git("push", s.remote("hello"), "main")
	binary := func(one spoken) map[string]string {
		h := one.headers()
		h["Content-Type"] = "application/json"
		return h
	}
	n := 0
	hold := func() spoken {
		n++
		verb := events.VerbHold
		if n%2 == 0 {
			verb = events.VerbResume
		}
		return newSpoken(fmt.Sprintf("mode ü %d%%", n), said{Verb: verb, App: "hello", Reason: "why"})
	}
	send := func(name string, headers map[string]string, body string) {
		t.Helper()
		if status, answer := s.post(s.token, headers, body); status != http.StatusOK {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	one := hold()
	h := binary(one)
	h["ce-subject"] = "mode%20%C3%BC%201%25"
	send("percent-encoded", h, jsonOf(one.cdevent()))
	one = hold()
	h = binary(one)
	h["Content-Type"], h["ce-subject"], h["ce-source"] = "Application/JSON; charset=UTF-8", `"mode %C3%BC 2%25"`, `"\/bots/test"`
	h["ce-source"] = `"/bots/test"`
	send("quoted", h, jsonOf(one.cdevent()))
	send("structured", map[string]string{"Content-Type": structuredType + "; charset=utf-8"}, hold().structured())
	one = hold()
	all := one.attributes()
	all["data"], all["traceparent"], all["number"] = one.cdevent(), "00-0-0-00", 7
	send("structured, with extensions", map[string]string{"Content-Type": structuredType}, jsonOf(all))
	if got := count(s.records("hello"), "command.received"); got != n {
		t.Errorf("%d commands in the ledger, want %d", got, n)
	}
}

// Whatever is wrong with an event is refused with what to do, and nothing is recorded.
func TestWrongEvents(t *testing.T) {
	s := newStation(t)
	w := newWorking(t, helloYAML)
	w.git("push", s.remote("hello"), "main")
	before := s.fold().Seq()
	good := func() spoken { return newSpoken("wrong-1234", said{Verb: "hold", App: "hello"}) }
	binary := func(change func(h map[string]string, body map[string]any)) (map[string]string, string) {
		one := good()
		h, body := one.headers(), one.cdevent()
		h["Content-Type"] = binaryType
		change(h, body)
		return h, jsonOf(body)
	}
	structuredWith := func(change func(all map[string]any)) (map[string]string, string) {
		one := good()
		all := one.attributes()
		all["data"] = one.cdevent()
		change(all)
		return map[string]string{"Content-Type": structuredType}, jsonOf(all)
	}
	inside := func(body map[string]any, part, key string, value any) { body[part].(map[string]any)[key] = value }
	type sent struct {
		headers map[string]string
		body    string
	}
	of := func(h map[string]string, body string) sent { return sent{h, body} }
	aged := func(d time.Duration) sent {
		one := good()
		one.time = time.Now().Add(d).UTC().Format(time.RFC3339Nano)
		return sent{map[string]string{"Content-Type": structuredType}, one.structured()}
	}
	for name, c := range map[string]struct {
		sent   sent
		status int
		says   string
	}{
		"no content type":          {sent{nil, good().structured()}, 415, "Content-Type"},
		"wrong content type":       {sent{map[string]string{"Content-Type": "text/plain"}, good().structured()}, 415, "text/plain"},
		"a batch":                  {sent{map[string]string{"Content-Type": "application/cloudevents-batch+json"}, "[]"}, 415, "batches are not taken"},
		"another charset":          {sent{map[string]string{"Content-Type": structuredType + "; charset=utf-16"}, good().structured()}, 415, "utf-16"},
		"binary without headers":   {sent{map[string]string{"Content-Type": binaryType}, jsonOf(good().cdevent())}, 415, "ce-specversion"},
		"no JSON":                  {sent{map[string]string{"Content-Type": structuredType}, "nonsense"}, 400, "not a JSON object"},
		"two objects":              {sent{map[string]string{"Content-Type": structuredType}, good().structured() + "{}"}, 400, "something follows"},
		"a list":                   {sent{map[string]string{"Content-Type": structuredType}, "[]"}, 400, "not a JSON object"},
		"too large":                {sent{map[string]string{"Content-Type": structuredType}, strings.Repeat(" ", maxCommand+1)}, 413, "65536"},
		"specversion":              {of(binary(func(h map[string]string, _ map[string]any) { h["ce-specversion"] = "0.3" })), 400, "specversion"},
		"another id":               {of(binary(func(h map[string]string, _ map[string]any) { h["ce-id"] = "x" })), 400, "context.id"},
		"another source":           {of(binary(func(h map[string]string, _ map[string]any) { h["ce-source"] = "/x" })), 400, "context.source"},
		"another subject":          {of(binary(func(h map[string]string, _ map[string]any) { h["ce-subject"] = "x" })), 400, "subject.id"},
		"another time":             {of(binary(func(h map[string]string, _ map[string]any) { h["ce-time"] = time.Now().Format(time.RFC3339) })), 400, "context.timestamp"},
		"no time":                  {of(binary(func(h map[string]string, _ map[string]any) { delete(h, "ce-time") })), 400, "time and context.timestamp must both"},
		"another type in the body": {of(binary(func(_ map[string]string, b map[string]any) { inside(b, "context", "type", "x") })), 400, "context.type"},
		"unknown type":             {of(binary(func(h map[string]string, _ map[string]any) { h["ce-type"] = "dev.cdevents.change.merged.0.3.0" })), 422, string(events.TypeCommandReceived)},
		"a newer version": {of(binary(func(h map[string]string, _ map[string]any) {
			h["ce-type"] = "dev.cdeventsx.towpath-command.received.0.2.0"
		})), 422, "0.2.0"},
		"another CDEvents version": {of(binary(func(_ map[string]string, b map[string]any) { inside(b, "context", "specversion", "0.4.0") })), 400, "0.5.1"},
		"unknown property":         {of(binary(func(_ map[string]string, b map[string]any) { inside(b, "context", "colour", "red") })), 400, "colour"},
		"unknown content": {of(binary(func(_ map[string]string, b map[string]any) {
			inside(b, "subject", "content", map[string]any{"verb": "hold", "actor": "u-1"})
		})), 400, "actor"},
		"no content":      {of(binary(func(_ map[string]string, b map[string]any) { inside(b, "subject", "content", nil) })), 400, "subject.content"},
		"custom data":     {of(binary(func(_ map[string]string, b map[string]any) { b["customData"] = 1 })), 400, "customData"},
		"base64":          {of(structuredWith(func(all map[string]any) { delete(all, "data"); all["data_base64"] = "e30=" })), 400, "base64"},
		"no data":         {of(structuredWith(func(all map[string]any) { delete(all, "data") })), 400, "data is not"},
		"data is a text":  {of(structuredWith(func(all map[string]any) { all["data"] = "x" })), 400, "data is not"},
		"data is XML":     {of(structuredWith(func(all map[string]any) { all["datacontenttype"] = "text/xml" })), 400, "datacontenttype"},
		"no subject":      {of(structuredWith(func(all map[string]any) { delete(all, "subject") })), 400, "subject"},
		"a moved subject": {of(structuredWith(func(all map[string]any) { all["subject"] = "other-1234" })), 400, "subject.id"},
		"a long id":       {sent{map[string]string{"Content-Type": structuredType}, newSpoken(strings.Repeat("x", 2000), said{Verb: "hold"}).structured()}, 400, "1024"},
		"a short id":      {sent{map[string]string{"Content-Type": structuredType}, newSpoken("x", said{Verb: "hold"}).structured()}, 400, "8–100"},
		"unknown verb":    {sent{map[string]string{"Content-Type": structuredType}, newSpoken("verb-12345", said{Verb: "destroy", App: "hello"}).structured()}, 400, "destroy"},
		"stale":           {aged(-window - time.Minute), 422, "old"},
		"of tomorrow":     {aged(window + time.Minute), 422, "ahead of"},
		"an hour off":     {aged(time.Hour), 422, "300"},
	} {
		status, answer := s.post(s.token, c.sent.headers, c.sent.body)
		var said struct {
			Error struct{ What, Why, Do, Code string }
		}
		if err := json.Unmarshal([]byte(answer), &said); err != nil || said.Error.Do == "" || said.Error.Code == "" {
			t.Errorf("%s: no problem that says what to do: %s", name, answer)
		}
		if status != c.status || !strings.Contains(answer, c.says) && !(c.says == "300" && strings.Contains(answer, "5m0s")) {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	if after := s.fold().Seq(); after != before {
		t.Errorf("%d events came of it", after-before)
	}
}

// crew is a person whom another system knows, and a bot on both doors.
type crew struct {
	*station
	person, bot identity.Actor
	token       string // the bot's
	conn        *nats.Conn
}

func newCrew(t *testing.T, roles ...string) crew {
	t.Helper()
	s := newStation(t)
	c := crew{station: s}
	var err error
	if c.person, err = s.actors.Create(t.Context(), identity.Actor{Name: "Ann", Roles: roles}); err != nil {
		t.Fatal(err)
	}
	if err := s.actors.Map(t.Context(), "slack:T1/U1", c.person.ID); err != nil {
		t.Fatal(err)
	}
	c.bot, err = s.actors.Create(t.Context(), identity.Actor{Kind: identity.KindBot, Name: "chat", Roles: []string{identity.RoleBot}, SpeaksFor: []string{"slack:T1/"}})
	if err != nil {
		t.Fatal(err)
	}
	if c.token, err = s.actors.IssueToken(t.Context(), c.bot.ID); err != nil {
		t.Fatal(err)
	}
	c.conn = s.ledger.Bot(events.Slug(c.bot.ID))
	return c
}

// doors are the ways by which a bot can say something.
var doors = []string{"http", "bus"}

// say sends a command through one of the doors.
func (c crew) say(door string, one spoken) (int, string) {
	c.t.Helper()
	if door == "http" {
		return c.ask(c.token, http.MethodPost, "/v1/events", one.structured())
	}
	m := nats.NewMsg(events.BotSubject(events.Slug(c.bot.ID)))
	for name, value := range one.headers() {
		m.Header[name] = []string{value}
	}
	m.Data = []byte(jsonOf(one.cdevent()))
	return c.request(m)
}

func (c crew) request(m *nats.Msg) (int, string) {
	c.t.Helper()
	reply, err := c.conn.RequestMsg(m, 30*time.Second)
	if err != nil {
		c.t.Fatal(err)
	}
	var status int
	if _, err := fmt.Sscan(reply.Header.Get(StatusHeader), &status); err != nil {
		c.t.Errorf("an answer without its status: %v %s", reply.Header, reply.Data)
	}
	return status, string(reply.Data)
}

// A bot passes on what a person says: the person is the actor, and the bot is named.
func TestABotSpeaksForAPerson(t *testing.T) {
	for _, door := range doors {
		t.Run(door, func(t *testing.T) { speaksForAPerson(t, door) })
	}
}

func speaksForAPerson(t *testing.T, door string) {
	c := newCrew(t, identity.RoleApprover, identity.RoleOperator)
	w := newWorking(t, helloYAML)
	w.git("push", c.remote("hello"), "main")
	digest := c.built("hello", 1)
	approve := said{Verb: "approve", App: "hello", Run: 1, Environment: "prod"}
	for what, content := range map[string]said{"decides nothing for itself": approve, "it takes the role operator": {Verb: "replay", App: "hello", Run: 1, Stage: "vet"}} {
		if status, answer := c.say(door, newSpoken("own-"+content.Verb, content)); status != http.StatusForbidden || !strings.Contains(answer, what) {
			t.Errorf("%s in its own right: %d %s", content.Verb, status, answer)
		}
	}
	for external, why := range map[string]string{
		"slack:T1/U2": "towpath actor map slack:T1/U2 ACTOR", "slack:T2/U1": "may not speak for", "Ann": "CHANNEL:ID",
	} {
		approve.OnBehalfOf = external
		if status, answer := c.say(door, newSpoken("stranger-"+external, approve)); status < 400 || !strings.Contains(answer, why) {
			t.Errorf("for %s: %d %s", external, status, answer)
		}
	}
	approve.OnBehalfOf = "slack:T1/U1"
	one := newSpoken("approve-1", approve)
	status, first := c.say(door, one)
	if status != http.StatusOK || !strings.Contains(first, "hello/1 is approved for prod") {
		t.Fatalf("for the person: %d %s", status, first)
	}
	if status, again := c.say(door, one); status != http.StatusOK || again != first {
		t.Errorf("again: %d %s, first %s", status, again, first)
	}
	responses := c.run("hello", 1).Env("prod").Responses
	if len(responses) != 1 {
		t.Fatalf("%d responses", len(responses))
	}
	if r := responses[0]; r.Actor != c.person.ID || r.Relay != c.bot.ID || r.Channel != "slack" || r.Digest != digest {
		t.Errorf("recorded %+v", r)
	}
	// Status is for the bot itself, and a person's rights are the person's own.
	status, answer := c.say(door, newSpoken("status-1", said{Verb: "status", App: "hello"}))
	var v heard
	if err := json.Unmarshal([]byte(answer), &v); err != nil || status != http.StatusOK || v.Run == nil || v.Run.Run != "hello/1" || !strings.Contains(v.Text, "hello/1 is ") {
		t.Errorf("status: %d %s", status, answer)
	}
	if err := c.actors.SetRoles(t.Context(), c.person.ID, identity.RoleDeveloper); err != nil {
		t.Fatal(err)
	}
	deny := newSpoken("deny-123", said{Verb: "deny", App: "hello", Run: 1, Environment: "prod", OnBehalfOf: "slack:T1/U1"})
	if status, answer := c.say(door, deny); status != http.StatusForbidden || !strings.Contains(answer, "it takes the role approver") {
		t.Errorf("for a person who may not: %d %s", status, answer)
	}
	if err := c.actors.Erase(t.Context(), c.bot.ID); err != nil {
		t.Fatal(err)
	}
	if status, answer := c.say(door, newSpoken("gone-123", said{Verb: "status", App: "hello"})); status != http.StatusUnauthorized {
		t.Errorf("erased: %d %s", status, answer)
	}
}

// The same command sent a thousand times, through both doors at once and after a restart, has one effect and one answer.
func TestResends(t *testing.T) {
	c := newCrew(t, identity.RoleOperator)
	w := newWorking(t, helloYAML)
	w.git("push", c.remote("hello"), "main")
	one := newSpoken("resend-1234", said{Verb: "hold", App: "hello", OnBehalfOf: "slack:T1/U1"})
	answers := make([]string, 1000)
	var work sync.WaitGroup
	turns := make(chan struct{}, 64)
	for i := range answers {
		turns <- struct{}{}
		work.Go(func() {
			defer func() { <-turns }()
			status, answer := c.say(doors[i%2], one)
			if answers[i] = answer; status != http.StatusOK {
				t.Errorf("resend %d: %d %s", i, status, answer)
			}
		})
	}
	work.Wait()
	c.restart()
	for _, door := range doors {
		_, answer := c.say(door, one)
		answers = append(answers, answer)
	}
	for i, answer := range answers {
		if strings.TrimSpace(answer) != strings.TrimSpace(answers[0]) {
			t.Fatalf("answer %d is %s, the first %s", i, answer, answers[0])
		}
	}
	if records := c.records("hello"); count(records, "command.received") != 1 || count(records, "command.refused") != 0 {
		t.Errorf("recorded %v", records)
	}
	another := newSpoken("resend-1234", said{Verb: "resume", App: "hello", OnBehalfOf: "slack:T1/U1"})
	if status, answer := c.say("bus", another); status != http.StatusConflict || !strings.Contains(answer, "another command") {
		t.Errorf("another command under the same id: %d %s", status, answer)
	}
}

// Every verb, as every role and every kind of actor, through every door, is answered as Authorize says.
func TestEveryVerbAsEveryRole(t *testing.T) {
	s := newStation(t)
	w := newWorking(t, helloYAML)
	w.git("push", s.remote("hello"), "main")
	s.built("hello", 1)
	// The table is written down here once more: a right that is given away in Authorize has to be given away here too.
	may := map[string][]string{
		"status":   {identity.RoleOperator, identity.RoleApprover, identity.RoleDeveloper, identity.RoleAuditor, identity.RoleBot, identity.RoleAdmin},
		"approve":  {identity.RoleApprover, identity.RoleAdmin},
		"deny":     {identity.RoleApprover, identity.RoleAdmin},
		"promote":  {identity.RoleOperator, identity.RoleAdmin},
		"rollback": {identity.RoleOperator, identity.RoleAdmin},
		"replay":   {identity.RoleOperator, identity.RoleAdmin},
		"skip":     {identity.RoleOperator, identity.RoleAdmin},
		"hold":     {identity.RoleOperator, identity.RoleAdmin},
		"resume":   {identity.RoleOperator, identity.RoleAdmin},
		"dismiss":  {identity.RoleOperator, identity.RoleAdmin},
		"cancel":   {identity.RoleOperator, identity.RoleDeveloper, identity.RoleAdmin},
	}
	for _, verb := range verbs {
		if may[verb] == nil {
			t.Errorf("nobody says who may %s", verb)
		}
	}
	personal := []string{"approve", "deny"}
	n := 0
	for _, kind := range []string{identity.KindPerson, identity.KindBot} {
		for _, role := range append([]string{""}, identity.Roles...) {
			var roles []string
			if role != "" {
				roles = []string{role}
			}
			actor, err := s.actors.Create(t.Context(), identity.Actor{Kind: kind, Name: "x", Roles: roles})
			if err != nil {
				t.Fatal(err)
			}
			token, err := s.actors.IssueToken(t.Context(), actor.ID)
			if err != nil {
				t.Fatal(err)
			}
			c := crew{station: s, bot: actor, token: token, conn: s.ledger.Bot(events.Slug(actor.ID))}
			for verb, who := range may {
				allowed := slices.Contains(who, role) && !(kind != identity.KindPerson && slices.Contains(personal, verb))
				content := said{Verb: verb, App: "hello", Run: 99, Environment: "prod"} // a run that is not there: nothing may happen
				if verb == "hold" || verb == "resume" {
					content = said{Verb: verb, App: "nothere"}
				}
				if verb == "dismiss" {
					content = said{Verb: verb, Message: 1 << 40, Reason: "seen"}
				}
				for _, door := range []string{"http", "bus", "commands"} {
					n++
					var status int
					var answer string
					want := http.StatusNotFound
					if verb == "rollback" {
						want = http.StatusConflict
					}
					if !allowed {
						want = http.StatusForbidden
					}
					switch {
					case door == "commands" && verb == "status":
						continue
					case door == "commands":
						status, answer = s.ask(token, http.MethodPost, "/v1/commands", content.order(id("walk", n)))
					default:
						status, answer = c.say(door, newSpoken(id("walk", n), content))
					}
					if door == "bus" && kind != identity.KindBot {
						want = http.StatusUnauthorized
					}
					if status != want {
						t.Errorf("%s as %s %q through %s: %d, want %d: %s", verb, kind, role, door, status, want, answer)
					}
				}
				// For somebody else: a bot of that role may pass it on, and nobody else may.
				relayed := content
				relayed.OnBehalfOf = "slack:T9/U9"
				status, answer := c.say("http", newSpoken(id("relay", n), relayed))
				if status != http.StatusForbidden {
					t.Errorf("%s for nobody as %s %q: %d %s", verb, kind, role, status, answer)
				}
			}
		}
	}
}

// 10,000 malformed events: no panic, no event.
func TestMalformedEvents(t *testing.T) {
	c := newCrew(t, identity.RoleOperator)
	w := newWorking(t, helloYAML)
	w.git("push", c.remote("hello"), "main")
	before := c.fold().Seq()
	random := rand.New(rand.NewPCG(3, 4))
	good := newSpoken("malformed-1234", said{Verb: "hold", App: "hello", OnBehalfOf: "slack:T1/U1"})
	types := []string{structuredType, binaryType, "", "text/plain", "application/cloudevents-batch+json", structuredType + "; charset=x", "application/json;;;", "\x7f"}
	pieces := []string{"", "{", "[]", "null", `""`, "\x00", "\xff\xfe", `{"a":`, strings.Repeat("[", 5000), strings.Repeat("{\"data\":", 3000), `"\ud800"`, "9e999"}
	statuses := map[int]int{}
	for i := range 10_000 {
		one := good
		one.command = fmt.Sprintf("malformed-%d", i)
		body := []byte(one.structured())
		headers := map[string]string{"Content-Type": structuredType}
		broken := false
		switch random.IntN(6) {
		case 0: // bytes are changed until it is another text
			for range 1 + random.IntN(8) {
				body[random.IntN(len(body))] = byte(random.IntN(256))
			}
		case 1:
			body = body[:random.IntN(len(body))]
			broken = true
		case 2:
			body = []byte(pieces[random.IntN(len(pieces))])
			broken = true
		case 3:
			headers["Content-Type"] = types[2+random.IntN(len(types)-2)]
			broken = true
		case 4: // binary mode with a header that is missing or another
			headers = one.headers()
			body = []byte(jsonOf(one.cdevent()))
			headers["Content-Type"] = binaryType
			for name := range headers {
				if name != "Content-Type" {
					headers[name] = pieces[3+random.IntN(2)]
					break
				}
			}
			broken = true
		case 5:
			one.time = pieces[random.IntN(len(pieces))]
			body = []byte(one.structured())
			broken = true
		}
		if !broken && sameCommand(body) {
			continue // the bytes that were changed say the same
		}
		if headers["Content-Type"] == "\x7f" {
			headers["Content-Type"] = "x"
		}
		var status int
		if i%2 == 0 {
			status, _ = c.post(c.token, headers, string(body))
		} else {
			m := nats.NewMsg(events.BotSubject(events.Slug(c.bot.ID)))
			for name, value := range headers {
				m.Header[name] = []string{value}
			}
			m.Data = body
			status, _ = c.request(m)
		}
		statuses[status]++
		if status < 400 || status >= 500 {
			t.Fatalf("%d for %v %q", status, headers, body)
		}
	}
	t.Logf("answers %v", statuses)
	if c.panics.Load() != 0 {
		t.Errorf("%d panics", c.panics.Load())
	}
	if after := c.fold().Seq(); after != before {
		t.Errorf("%d events", after-before)
	}
}

// sameCommand reports whether bytes are a command that may be followed.
func sameCommand(body []byte) bool {
	_, err := readSaying(message{contentType: structuredType, attribute: func(string) string { return "" }, body: body})
	return err == nil
}

// FuzzSaying holds the reader to: an error that says what to do, or a command whose attributes mirror its body.
func FuzzSaying(f *testing.F) {
	one := newSpoken("fuzzed-1234", said{Verb: "approve", App: "hello", Run: 1, Environment: "prod", OnBehalfOf: "slack:T1/U1"})
	f.Add(structuredType, "", "", []byte(one.structured()))
	f.Add(binaryType, one.id, one.command, []byte(jsonOf(one.cdevent())))
	f.Add("application/json; charset=utf-8", `"a\"b"`, "%zz", []byte(`{"context":{}}`))
	f.Fuzz(func(t *testing.T, contentType, ceID, ceSubject string, body []byte) {
		attributes := one.headers()
		attributes["ce-id"], attributes["ce-subject"] = ceID, ceSubject
		got, err := readSaying(message{contentType: contentType, attribute: func(name string) string { return attributes[name] }, body: body})
		var p *problem
		if err != nil {
			if !errors.As(err, &p) || p.Do == "" || p.Status < 400 || p.Status > 499 {
				t.Fatalf("%v is no problem that says what to do", err)
			}
			return
		}
		if got.at.IsZero() || got.order.ID == "" || len(got.order.ID) > maxAttribute {
			t.Fatalf("read %+v", got)
		}
	})
}

// Whatever a command can say over HTTP, a CloudEvent can say.
func TestEventsCanSayAllThatOrdersCan(t *testing.T) {
	var content said
	from := reflect.ValueOf(&content).Elem()
	for i := range from.NumField() {
		switch field := from.Field(i); field.Kind() {
		case reflect.String:
			field.SetString(from.Type().Field(i).Name)
		case reflect.Int:
			field.SetInt(int64(i) + 1)
		case reflect.Bool:
			field.SetBool(true)
		}
	}
	got := reflect.ValueOf(content.order("an id"))
	for i := range got.NumField() {
		name := got.Type().Field(i).Name
		source, renamed := from.FieldByName(name), map[string]string{"Env": "Environment"}[name]
		if renamed != "" {
			source = from.FieldByName(renamed)
		}
		if name == "ID" {
			continue
		}
		if !source.IsValid() || !got.Field(i).Equal(source) {
			t.Errorf("%s of an order is not said", name)
		}
	}
}
