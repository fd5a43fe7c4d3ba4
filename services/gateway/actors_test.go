package gateway

import (
	"net/http"
	"strings"
	"testing"

	"towpath.dev/services/gateway/view"
)

// An administrator adds people and bots, gives them roles, tokens and names, and takes everything away again.
func TestActors(t *testing.T) {
	s := newStation(t)
	w := newWorking(t, helloYAML)
	w.git("push", s.remote("hello"), "main") // makes Ann known, as an author
	ann := get[view.Actor](s, http.MethodPost, "/v1/actors", view.NewActor{Name: "Ann A.", Email: "ann@example.org", Roles: []string{"approver"}})
	bot := get[view.Actor](s, http.MethodPost, "/v1/actors", view.NewActor{Name: "chat", Kind: "bot", Roles: []string{"bot"}, SpeaksFor: []string{"slack:T1/"}})
	if ann.Kind != "person" || ann.Name != "Ann A." || bot.Kind != "bot" || ann.ID != s.run("hello", 1).Start.Authors[0] {
		t.Errorf("made %+v and %+v", ann, bot)
	}
	token := get[struct{ Token string }](s, http.MethodPost, "/v1/actors/"+ann.ID+"/tokens", nil).Token
	if status, answer := s.ask(token, http.MethodGet, "/v1/runs", nil); status != http.StatusOK {
		t.Errorf("Ann's token: %d %s", status, answer)
	}
	if status, answer := s.ask(token, http.MethodGet, "/v1/actors", nil); status != http.StatusForbidden {
		t.Errorf("an approver lists actors: %d %s", status, answer)
	}
	mapped := get[view.Actor](s, http.MethodPost, "/v1/actors/"+ann.ID+"/external", map[string]string{"external": "slack:T1/U1"})
	if len(mapped.External) != 1 || mapped.Tokens != 1 {
		t.Errorf("mapped: %+v", mapped)
	}
	for name, c := range map[string]struct {
		method, path string
		body         any
		status       int
		says         string
	}{
		"no name":            {"POST", "/v1/actors", view.NewActor{}, 400, "no name"},
		"unknown kind":       {"POST", "/v1/actors", view.NewActor{Name: "x", Kind: "service"}, 400, "person nor bot"},
		"unknown role":       {"POST", "/v1/actors", view.NewActor{Name: "x", Roles: []string{"emperor"}}, 400, "emperor"},
		"person for others":  {"POST", "/v1/actors", view.NewActor{Name: "x", SpeaksFor: []string{"slack:"}}, 400, "for bots"},
		"odd prefix":         {"POST", "/v1/actors", view.NewActor{Name: "x", Kind: "bot", SpeaksFor: []string{""}}, 400, "external name"},
		"address taken":      {"POST", "/v1/actors", view.NewActor{Name: "x", Email: "ann@example.org"}, 409, ann.ID},
		"roles of nobody":    {"PUT", "/v1/actors/u-x/roles", map[string][]string{"roles": {"bot"}}, 404, "nobody has this id"},
		"unknown roles":      {"PUT", "/v1/actors/" + bot.ID + "/roles", map[string][]string{"roles": {"x"}}, 400, "a role is"},
		"token of nobody":    {"POST", "/v1/actors/u-x/tokens", nil, 404, "nobody"},
		"name for a bot":     {"POST", "/v1/actors/" + bot.ID + "/external", map[string]string{"external": "slack:T1/U2"}, 400, "only a person"},
		"odd external name":  {"POST", "/v1/actors/" + ann.ID + "/external", map[string]string{"external": "Ann"}, 400, "CHANNEL:ID"},
		"unmapping nothing":  {"DELETE", "/v1/actors/" + ann.ID + "/external?external=slack:x", nil, 404, "nobody"},
		"unmapping another":  {"DELETE", "/v1/actors/" + bot.ID + "/external?external=slack:T1/U1", nil, 409, ann.ID},
		"erasing nobody":     {"DELETE", "/v1/actors/u-x", nil, 404, "nobody"},
		"a name that is far": {"POST", "/v1/actors", view.NewActor{Name: strings.Repeat("x", 201)}, 400, "200 bytes"},
	} {
		if status, answer := s.ask(s.token, c.method, c.path, c.body); status != c.status || !strings.Contains(answer, c.says) {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	get[view.Actor](s, http.MethodDelete, "/v1/actors/"+ann.ID+"/tokens", nil)
	if status, _ := s.ask(token, http.MethodGet, "/v1/runs", nil); status != http.StatusUnauthorized {
		t.Errorf("a revoked token: %d", status)
	}
	get[view.Actor](s, http.MethodDelete, "/v1/actors/"+ann.ID+"/external?external=slack:T1/U1", nil)
	if changed := get[view.Actor](s, http.MethodPut, "/v1/actors/"+ann.ID+"/roles", map[string][]string{"roles": {}}); len(changed.Roles) != 0 || len(changed.External) != 0 {
		t.Errorf("afterwards: %+v", changed)
	}
	get[view.Actor](s, http.MethodDelete, "/v1/actors/"+ann.ID, nil)
	var me string
	for _, a := range get[[]view.Actor](s, http.MethodGet, "/v1/actors", nil) {
		if a.ID == ann.ID && (!a.Erased || a.Name != "" || a.Email != "") {
			t.Errorf("erased: %+v", a)
		}
		if len(a.Roles) == 1 && a.Roles[0] == "admin" {
			me = a.ID
		}
	}
	if status, answer := s.ask(s.token, http.MethodDelete, "/v1/actors/"+me, nil); status != http.StatusConflict {
		t.Errorf("erasing oneself: %d %s", status, answer)
	}
}
