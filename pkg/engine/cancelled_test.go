package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"towpath.dev/pkg/engine"
	"towpath.dev/pkg/engine/enginetest"
)

// cancelling is an engine in front of a real one. It gives the first start of a container up, and says of the container
// what Engine 23 and newer say then.
func cancelling(t *testing.T, real *engine.Engine, name string) *engine.Engine {
	t.Helper()
	socket, ours := strings.CutPrefix(real.Host().URL, "unix://")
	if !ours {
		t.Fatalf("this test needs an engine on a socket, not %s", real.Host().URL)
	}
	var starts atomic.Int32
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "engine" },
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}},
		ModifyResponse: func(r *http.Response) error {
			if starts.Load() != 1 || r.Request.Method != http.MethodGet || !strings.HasSuffix(r.Request.URL.Path, "/json") {
				return nil
			}
			var said map[string]any
			if err := json.NewDecoder(r.Body).Decode(&said); err != nil {
				return err
			}
			if state, ok := said["State"].(map[string]any); ok && said["Name"] == "/"+name {
				state["ExitCode"], state["Error"] = 128, "Canceled: context canceled"
			}
			data, err := json.Marshal(said)
			r.Body = io.NopCloser(bytes.NewReader(data))
			r.Header.Set("Content-Length", strconv.Itoa(len(data)))
			return err
		},
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "engine.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/start") && starts.Add(1) == 1 {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, `{"message": "Canceled: context canceled"}`)
			return
		}
		proxy.ServeHTTP(w, r)
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	e, err := engine.Connect(t.Context(), engine.Host{URL: "unix://" + l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// A start that the engine gave up before it made a process is no run of the command: the next call starts it, once.
func TestRunOnceAfterACancelledStart(t *testing.T) {
	real := enginetest.EnsureEngine(t)
	once := engine.Container{
		Name: "towpath-test-once-cancelled", Image: image(t, real, enginetest.App{}), Labels: labels(t),
		Command: []string{enginetest.Program, "once"},
	}
	e := cancelling(t, real, once.Name)
	bounds := engine.Bounds{Timeout: 20 * time.Second, Output: 64}
	if r, err := e.RunOnce(t.Context(), once, bounds); err == nil || !strings.Contains(err.Error(), "context canceled") {
		t.Fatalf("a start that was given up: %+v, %v", r, err)
	}
	first, err := e.RunOnce(t.Context(), once, bounds)
	if err != nil || first.ExitCode != 0 || first.Error != "" || !strings.HasPrefix(first.Output, "run ") {
		t.Fatalf("the next call: %+v, %v", first, err)
	}
	again, err := e.RunOnce(t.Context(), once, bounds)
	if err != nil || again.Output != first.Output || !again.Adopted {
		t.Errorf("after that: %+v, %v", again, err)
	}
}
