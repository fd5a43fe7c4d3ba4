package gateway

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/ledgertest"
)

// While the bus is away nobody is told that something was done, or that the gateway is broken: try again.
func TestTheBusIsAway(t *testing.T) {
	s := newStation(t)
	s.ledger.Stop()
	for path, body := range map[string]any{
		"/v1/submit":   map[string]string{"app": "hello", "image": "r/hello@sha256:0000000000000000000000000000000000000000000000000000000000000000"},
		"/v1/commands": map[string]string{"verb": "hold", "app": "hello"},
		"/v1/apps":     map[string]string{"app": "hello"},
	} {
		if status, answer := s.ask(s.token, http.MethodPost, path, body); status != http.StatusServiceUnavailable {
			t.Errorf("POST %s: %d %s", path, status, answer)
		}
	}
	if status, answer := s.ask(s.token, http.MethodGet, "/v1/runs", nil); status != http.StatusServiceUnavailable {
		t.Errorf("GET /v1/runs: %d %s", status, answer)
	}
	s.ledger.Restart()
	for end := time.Now().Add(10 * time.Second); ; {
		status, answer := s.ask(s.token, http.MethodGet, "/v1/runs", nil)
		if status == http.StatusOK {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the bus is back, and GET /v1/runs answers %d %s", status, answer)
		}
	}
}

// TestALeaderDiesUnderTheGateway: while the leader of three servers is killed again and again, whoever asks is told that it
// is done, and then it is, or to try again; nothing else. With one server of three it is to try again.
func TestALeaderDiesUnderTheGateway(t *testing.T) {
	t.Parallel()
	s := newStation(t, ledgertest.Clustered())
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex
	answers := map[int]int{}
	promised := map[string]bool{}
	var asking sync.WaitGroup
	for i := range 4 {
		asking.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				app := fmt.Sprintf("app-%d-%d", i, n)
				status, err := s.addApp(app)
				mu.Lock()
				answers[status]++
				switch {
				case err != nil:
					t.Errorf("adding %s: %v", app, err)
				case status == http.StatusCreated || status == http.StatusOK:
					promised[app] = true
				case status != http.StatusServiceUnavailable:
					t.Errorf("adding %s: %d", app, status)
				}
				mu.Unlock()
			}
		})
	}
	answered := func(n int) func() bool {
		return func() bool { mu.Lock(); defer mu.Unlock(); return len(promised) >= n }
	}
	for n := range 3 {
		ledgertest.Soon(t, "apps are added", answered(20*(n+1)))
		again := s.ledger.KillLeader()
		<-time.After(2 * time.Second)
		again()
	}
	stop()
	asking.Wait()
	first := s.ledger.KillLeader()
	second := s.ledger.KillLeader()
	if status, err := s.addApp("alone"); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("with one server of three: %d, %v", status, err)
	}
	first()
	second()
	if status, err := s.addApp("alone"); err != nil || status != http.StatusCreated && status != http.StatusOK {
		t.Errorf("asked again when they are back: %d, %v", status, err)
	}
	promised["alone"] = true
	s.ledger.Whole()
	stored := map[string]bool{}
	if _, err := s.ledger.Client("build").Read(t.Context(), 0, func(r ledger.Record) error {
		if r.Event.Body.Type() == events.TypeAppCreated {
			stored[string(r.Subject.App)] = true
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for app := range promised {
		if !stored[app] {
			t.Errorf("%s was said to be added, and is not in the ledger", app)
		}
	}
	t.Logf("answers by status: %v", answers)
}

// addApp asks for an app as a script does that waits for its answer.
func (s *station) addApp(app string) (status int, err error) {
	request, err := http.NewRequest(http.MethodPost, s.url+"/v1/apps", strings.NewReader(`{"app":"`+app+`"}`))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+s.token)
	response, err := (&http.Client{Timeout: time.Minute}).Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}
