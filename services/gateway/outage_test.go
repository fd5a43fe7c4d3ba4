package gateway

import (
	"net/http"
	"testing"
	"time"
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
