package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"towpath.dev/services/gateway/view"
)

// A run is waited for across a ledger that does not answer for a while; what is not there is said at once.
func TestWaitingOutlivesALedgerThatStartsAgain(t *testing.T) {
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch requests++; {
		case r.URL.Path != "/v1/apps/hello/runs/1":
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error":{"what":"looking for a run","why":"there is none"}}`)
		case requests%2 == 1:
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"error":{"what":"asking the ledger","why":"it does not answer in time"}}`)
		default:
			fmt.Fprintf(w, `{"run":"hello/1","app":"hello","number":1,"seq":%d}`, requests)
		}
	}))
	t.Cleanup(server.Close)
	c, err := New(server.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	run, err := Patiently(t.Context(), func(ctx context.Context) (view.Run, error) { return c.Run(ctx, "hello", 1) })
	if err != nil || run.Run != "hello/1" || requests != 2 {
		t.Fatalf("%+v, %v after %d requests", run, err, requests)
	}
	run, err = c.Follow(t.Context(), run, func(view.Run) error { return nil }, func(r view.Run) bool { return r.Seq > 2 })
	if err != nil || run.Seq != 4 {
		t.Errorf("followed to %d: %v", run.Seq, err)
	}
	requests = 0
	_, err = Patiently(t.Context(), func(ctx context.Context) (view.Run, error) { return c.Run(ctx, "hello", 2) })
	if e := (*Error)(nil); !errors.As(err, &e) || e.Status != http.StatusNotFound || requests != 1 {
		t.Errorf("what is not there: %v after %d requests", err, requests)
	}
}
