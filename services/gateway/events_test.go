package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/services/gateway/view"
)

// lines asks for events and returns what came.
func (s *station) lines(t *testing.T, query string) []string {
	t.Helper()
	status, answer := s.ask(s.token, "GET", "/v1/events?"+query, nil)
	if status != http.StatusOK {
		t.Fatalf("%s: %d %s", query, status, answer)
	}
	return strings.FieldsFunc(answer, func(r rune) bool { return r == '\n' })
}

// Who is behind an actor's id is told to those who may audit, and to no bot.
func TestEventsNameNobodyToBots(t *testing.T) {
	s, _ := pushed(t)
	if status, answer := s.ask(s.token, "GET", "/v1/events?last=1", nil); status != http.StatusOK || !strings.Contains(answer, "actorName") {
		t.Fatalf("the administrator gets %d %s", status, answer)
	}
	bot := s.newToken(t, identity.KindBot, identity.RoleBot)
	if status, answer := s.ask(bot, "GET", "/v1/events", nil); status != http.StatusOK || !strings.Contains(answer, `"actor"`) || strings.Contains(answer, "actorName") {
		t.Errorf("a bot gets %d %s", status, answer)
	}
	if status, answer := s.ask(bot, "GET", "/v1/events?actor=nobody@example.org", nil); status != http.StatusForbidden {
		t.Errorf("a bot that asks for an address gets %d %s", status, answer)
	}
}

func TestEventQueries(t *testing.T) {
	s, _ := pushed(t)
	run := s.run("hello", 1)
	digest := "sha256:" + strings.Repeat("ab12", 16)
	published := &events.ArtifactPublished{About: events.About{ID: "pkg:oci/hello@" + digest}, Published: events.Published{Artifact: events.Artifact{Repository: "r/hello", Digest: digest}}}
	s.write(events.BuildSubject(1, published.Type(), "hello", 1, "", 1), run.ChainID, published)
	taken := &events.SlotTaken{About: events.About{ID: "hello/dev/1"}, Slot: 1, Run: 1, Attempt: 1, Digest: digest, Kind: events.KindDeploy, Environment: "dev"}
	s.write(events.SlotSubject(1, taken.Type(), "hello", "dev", 1), run.ChainID, taken)
	all := s.lines(t, "")
	var first, last view.EventLine
	if json.Unmarshal([]byte(all[0]), &first) != nil || json.Unmarshal([]byte(all[len(all)-1]), &last) != nil {
		t.Fatal(all)
	}
	for query, want := range map[string]int{
		"env=dev":                                     1,
		"type=slot":                                   1,
		"type=slot.taken&app=hello":                   1,
		"type=slot.decided":                           0,
		"app=hello&run=1":                             3,
		"digest=ab12ab":                               2,
		"digest=" + digest:                            2,
		"digest=sha256:ab13ab":                        0,
		"actor=" + run.Start.Actor:                    strings.Count(fmt.Sprint(all), `"actor":"`+run.Start.Actor+`","actorName"`),
		"actor=me&type=change":                        1,
		"limit=2":                                     2,
		"last=2":                                      2,
		"last=1000":                                   len(all),
		"after=1&limit=1&type=change":                 1,
		"since=2000-01-01T00:00:00Z":                  len(all),
		"since=2100-01-01T00:00:00Z":                  0,
		"until=2000-01-01T00:00:00Z":                  0,
		"until=2100-01-01T00:00:00Z":                  len(all),
		"since=" + last.Time.Format(time.RFC3339Nano): 1,
		"until=" + last.Time.Format(time.RFC3339Nano): len(all) - 1,
	} {
		if got := s.lines(t, query); len(got) != want {
			t.Errorf("%s: %d events, want %d\n%s", query, len(got), want, strings.Join(got, "\n"))
		}
	}
	if got := s.lines(t, "last=1"); len(got) != 1 || got[0] != all[len(all)-1] {
		t.Errorf("the last is %s", got)
	}
	if !strings.Contains(all[len(all)-1], `"detail":"slot 1: deploy ab12ab12ab12"`) {
		t.Errorf("people are told %s", all[len(all)-1])
	}
	for _, query := range []string{
		"app=Hello", "env=..", "run=1", "app=hello&run=0", "app=hello&run=7", "app=other&run=1", "digest=xyz", "digest=ab", "since=yesterday",
		"until=2100-01-01T00:00:00Z&follow=1", "limit=0", "limit=-1", "last=1001", "last=1&limit=1", "after=-1", "as=xml", "actor=nobody@example.org",
		"since=2026-01-02T00:00:00Z&until=2026-01-02T00:00:00Z",
	} {
		if status, answer := s.ask(s.token, "GET", "/v1/events?"+query, nil); status < 400 || status >= 500 || !strings.Contains(answer, `"what"`) {
			t.Errorf("%s: %d %s", query, status, answer)
		}
	}
}

// TestEventQueriesThatNothingCanFit: a slip of the pen is not told "nothing", but which names there are.
func TestEventQueriesThatNothingCanFit(t *testing.T) {
	s, _ := pushed(t)
	for query, want := range map[string]struct {
		status int
		says   string
	}{
		"type=Nonsense":   {http.StatusBadRequest, "service, setting, slot, stage"},
		"type=bogus":      {http.StatusBadRequest, "service, setting, slot, stage"},
		"type=slot.takne": {http.StatusBadRequest, "one of slot.closed, slot.decided, slot.taken"},
		"type=dev.cdeventsx.towpath-slot.taken.9.9.9": {http.StatusBadRequest, "slot"},
		"env=nosuch":           {http.StatusNotFound, "one of dev"},
		"app=hello&env=nosuch": {http.StatusNotFound, "one of dev"},
		"app=hell":             {http.StatusNotFound, "did you mean hello?"},
		"actor=nobody":         {http.StatusNotFound, "towpath actor list"},
		"actor=hello":          {http.StatusNotFound, "no event names it"}, // an app's name is no actor
		"since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z": {http.StatusBadRequest, "nothing is between"},
	} {
		if status, answer := s.ask(s.token, "GET", "/v1/events?"+query, nil); status != want.status || !strings.Contains(answer, want.says) {
			t.Errorf("%s: %d %s, want %d and %q", query, status, answer, want.status, want.says)
		}
	}
	for _, query := range []string{"env=dev", "type=slot", "type=slot.decided", "type=" + string(events.TypeSlotTaken), "app=hello&env=dev"} {
		if got := s.lines(t, query+"&since=2100-01-01T00:00:00Z"); len(got) != 0 {
			t.Errorf("%s: %s", query, got)
		}
	}
}

// TestTheStartOfARunNamesIt: what is stored before a run has its number is shown with it.
func TestTheStartOfARunNamesIt(t *testing.T) {
	s, _ := pushed(t)
	var line view.EventLine
	if got := s.lines(t, "type=change.merged"); len(got) != 1 || json.Unmarshal([]byte(got[0]), &line) != nil || line.Run != 1 {
		t.Errorf("the run's first event is %s", got)
	}
}

// TestEventForms: the same events in each form.
func TestEventForms(t *testing.T) {
	s, _ := pushed(t)
	lines, plain, cloud := s.lines(t, ""), s.lines(t, "as=cdevents"), s.lines(t, "as=cloudevents")
	if len(plain) != len(lines) || len(cloud) != len(lines) || len(lines) == 0 {
		t.Fatalf("%d lines, %d CDEvents, %d CloudEvents", len(lines), len(plain), len(cloud))
	}
	for i := range lines {
		var line view.EventLine
		var ce cloudEvent
		if err := json.Unmarshal([]byte(lines[i]), &line); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(cloud[i]), &ce); err != nil {
			t.Fatal(err)
		}
		e, err := events.Decode([]byte(plain[i]))
		if err != nil || plain[i] != string(line.Event) || plain[i] != string(ce.Data) {
			t.Errorf("%s: %v", plain[i], err)
		}
		if ce.SpecVersion != "1.0" || ce.ID != e.ID || ce.Source != e.Source || ce.Type != e.Body.Type() || ce.Subject != e.Body.SubjectID() ||
			!ce.Time.Equal(e.Time) || ce.ChainID != e.ChainID || ce.Sequence != fmt.Sprint(line.Seq) || ce.StoredAs != line.Subject {
			t.Errorf("attributes of %s", cloud[i])
		}
		if writer, err := s.rt.Ledger.Trust().Verify(ce.StoredAs, ce.Data, ce.Signature); err != nil || writer != string(events.Gateway) {
			t.Errorf("what was sent cannot be verified: %s, %v", writer, err)
		}
	}
}
