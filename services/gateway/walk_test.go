package gateway

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
)

// askedOf is what the routes that find out for themselves ask Authorize, about the sample of each. One that is added has
// to be added here.
var askedOf = map[string]identity.Verb{
	"POST /v1/apps":                           identity.CreateApp,
	"POST /v1/submit":                         identity.Submit,
	"POST /v1/commands":                       identity.Hold,
	"POST /v1/environments":                   identity.ManageEnvironments,
	"POST /v1/events":                         identity.Hold,
	"GET /v1/audit/story":                     identity.Audit,
	"GET /git/{repository}/info/refs":         identity.Submit,
	"POST /git/{repository}/git-upload-pack":  identity.Read,
	"POST /git/{repository}/git-receive-pack": identity.Submit,
}

// rolesFor is who may do what those routes ask, an administrator apart: written down once more, so that a right that is
// given away in Authorize has to be given away here too.
var rolesFor = map[identity.Verb][]string{
	identity.Read:         {identity.RoleOperator, identity.RoleApprover, identity.RoleDeveloper, identity.RoleAuditor, identity.RoleBot},
	identity.Audit:        {identity.RoleOperator, identity.RoleApprover, identity.RoleDeveloper, identity.RoleAuditor},
	identity.Submit:       {identity.RoleOperator, identity.RoleDeveloper, identity.RoleBot},
	identity.CreateApp:    {identity.RoleOperator, identity.RoleDeveloper},
	identity.Hold:         {identity.RoleOperator},
	identity.Rebuild:      {identity.RoleOperator},
	identity.SetConfig:    {identity.RoleOperator, identity.RoleDeveloper},
	identity.SetSecret:    {identity.RoleOperator, identity.RoleDeveloper},
	identity.ManageActors: {},

	identity.ManageEnvironments: {identity.RoleOperator},
}

// Every route, as every role and every kind of actor, lets through whom Authorize allows and nobody else.
func TestEveryRouteAsEveryRole(t *testing.T) {
	s := newStation(t)
	w := newWorking(t, helloYAML)
	w.git("push", s.remote("hello"), "main")
	n := 0
	for _, kind := range []string{identity.KindPerson, identity.KindBot, identity.KindService} {
		for _, role := range append([]string{""}, identity.Roles...) {
			var roles []string
			if role != "" {
				roles = []string{role}
			}
			token := s.newToken(t, kind, roles...)
			for _, one := range routes() {
				if one.open != "" {
					continue
				}
				n++
				method, path := sample(one.pattern)
				verb, asks := askedOf[one.pattern]
				if asks == (one.about == nil) {
					t.Fatalf("nobody says what %s asks", one.pattern)
				}
				if !asks {
					verb = one.verb
				}
				if rolesFor[verb] == nil || method != http.MethodGet && verb == identity.Read && !asks {
					t.Fatalf("nobody says who may %q, which %s asks", verb, one.pattern)
				}
				body := sampleBody(one.pattern)
				if o, ok := body.(order); ok {
					o.ID = id("route", n)
					body = o
				}
				if one.pattern == "POST /v1/events" {
					body = newSpoken(id("route", n), said{Verb: "hold", App: "hello"}).structured()
				}
				allowed := role == identity.RoleAdmin || slices.Contains(rolesFor[verb], role)
				status, answer := s.ask(token, method, path, body)
				if passed := status != http.StatusForbidden && status != http.StatusUnauthorized; passed != allowed {
					t.Errorf("%s as %s %q: %d, allowed %v: %s", one.pattern, kind, role, status, allowed, answer)
				}
			}
		}
	}
	for pattern := range askedOf {
		if !slices.ContainsFunc(routes(), func(one route) bool { return one.pattern == pattern }) {
			t.Errorf("%s is no route any more", pattern)
		}
	}
}

// No hook is answered without the name of a push that is under way.
func TestHooksAskForThePush(t *testing.T) {
	s := newStation(t)
	hooks := s.hooks()
	for name := range s.hookRoutes() {
		for _, body := range []string{`{"push":""}`, `{"push":"nobody","updates":""}`, `{}`} {
			recorder := newRecorder()
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://gateway/"+name, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			hooks.ServeHTTP(recorder, request)
			if recorder.status != http.StatusForbidden {
				t.Errorf("%s with %s: %d", name, body, recorder.status)
			}
		}
	}
}

// recorder keeps the status of an answer.
type recorder struct {
	header http.Header
	status int
}

func newRecorder() *recorder                    { return &recorder{header: http.Header{}} }
func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(p []byte) (int, error) { return len(p), nil }
func (r *recorder) WriteHeader(status int)      { r.status = status }

// The gateway takes requests of others on these subjects and no other; whoever adds one says here who may send on it.
func TestWaysInOverTheBus(t *testing.T) {
	senders := map[string]string{
		events.BotSubjects: "bots, each on its own; hearBot asks Authorize",
		events.LinkSubject: "notify alone, which may read the whole ledger",
	}
	for _, subject := range busSubjects {
		if senders[subject] == "" {
			t.Errorf("nobody says who may send on %s", subject)
		}
	}
	s := newStation(t)
	w := newWorking(t, helloYAML)
	w.git("push", s.remote("hello"), "main")
	notify := s.ledger.Connect(string(events.Notify)).Conn()
	reply, err := notify.Request(events.LinkSubject, []byte(`{"app":"hello","run":1}`), 10*time.Second)
	if err != nil || !strings.HasPrefix(string(reply.Data), s.url+"/runs/hello/1?key=") {
		t.Errorf("notify asked for a link: %v %v", reply, err)
	}
	for _, body := range []string{`{"app":"hello","run":99}`, `{"app":"nobody","run":1}`, `nonsense`, ``} {
		if reply, err := notify.Request(events.LinkSubject, []byte(body), 200*time.Millisecond); err == nil {
			t.Errorf("%s was answered: %s", body, reply.Data)
		}
	}
	for _, other := range []events.Writer{events.Build, events.Vet, events.Promote, events.Verify, events.Watch, events.Edge, events.Ledger} {
		conn := s.ledger.Connect(string(other)).Conn()
		for _, subject := range []string{events.LinkSubject, events.BotSubject("u-someone")} {
			m := nats.NewMsg(subject)
			m.Data = []byte(`{"app":"hello","run":1}`)
			if reply, err := conn.RequestMsg(m, 100*time.Millisecond); err == nil {
				t.Errorf("%s asked on %s and was answered %s", other, subject, reply.Data)
			}
		}
	}
}
