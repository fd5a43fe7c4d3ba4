package edge_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/discovery"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/services/edge"
)

// bench is an edge with a real bus, and whoever writes its table.
type bench struct {
	*testing.T
	ledger  *ledgertest.Ledger
	table   discovery.Table
	address string
	stop    func() error
}

func start(t *testing.T, cfg edge.Config) *bench {
	t.Helper()
	l := ledgertest.Start(t)
	b := &bench{T: t, ledger: l, table: discovery.Open(l.Client(string(events.Promote)))}
	cfg.Listen = "127.0.0.1:0"
	if cfg.HealthInterval == 0 {
		cfg.HealthInterval = 30 * time.Millisecond
	}
	listening := make(chan net.Addr, 1)
	s, err := edge.New(cfg, edge.Deps{
		Ledger: l.Connect(string(events.Edge)), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Ready: func(a net.Addr) { listening <- a },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	select {
	case a := <-listening:
		b.address = a.String()
	case err := <-ended:
		t.Fatal(err)
	}
	b.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { b.stop() })
	return b
}

// publish makes servers the instances of hello in dev and waits until the edge has it.
func (b *bench) publish(slot int, health string, addresses ...string) {
	b.Helper()
	e := discovery.Entry{Slot: slot, Run: fmt.Sprintf("hello/%d", slot), Health: health}
	for i, a := range addresses {
		e.Instances = append(e.Instances, events.Instance{ID: fmt.Sprintf("hello-%d-%d", slot, i+1), Address: a})
	}
	if err := b.table.Publish(b.Context(), discovery.Place{Env: "dev", App: "hello"}, e); err != nil {
		b.Fatal(err)
	}
	b.eventually("the edge has the entry", func() bool { return b.drain(slot, time.Millisecond).Slot >= slot })
}

func (b *bench) drain(slot int, timeout time.Duration) (reply discovery.DrainReply) {
	b.Helper()
	data, err := json.Marshal(discovery.DrainRequest{Env: "dev", App: "hello", Slot: slot, Timeout: timeout})
	if err != nil {
		b.Fatal(err)
	}
	m, err := b.ledger.Client(string(events.Promote)).Conn().Request(events.DrainSubject, data, timeout+5*time.Second)
	if err != nil {
		b.Fatal(err)
	}
	if err := json.Unmarshal(m.Data, &reply); err != nil {
		b.Fatal(err)
	}
	return reply
}

func (b *bench) eventually(what string, condition func() bool) {
	b.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			b.Fatalf("still not: %s", what)
		}
	}
}

func (b *bench) request(method, path, body string, header ...string) *http.Request {
	b.Helper()
	r, err := http.NewRequest(method, "http://"+b.address+path, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	r.Host = "hello.dev.localhost"
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func (b *bench) do(method, path, body string, header ...string) (int, string, http.Header) {
	b.Helper()
	response, err := http.DefaultClient.Do(b.request(method, path, body, header...))
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		b.Fatal(err)
	}
	return response.StatusCode, string(text), response.Header
}

// app is a replica that says its name.
func app(t *testing.T, name string) *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", name, r.Method, body)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func addr(s *httptest.Server) string { return s.Listener.Addr().String() }

// deadPort is an address that refuses connections.
func deadPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestRequestsGoToReplicasInTurn(t *testing.T) {
	b := start(t, edge.Config{})
	b.publish(1, "/health", addr(app(t, "a")), addr(app(t, "b")), addr(app(t, "c")))
	counts := map[string]int{}
	for range 30 {
		code, text, _ := b.do("POST", "/", "body", "Host", "Hello.DEV.localhost.:7080")
		if code != 200 || !strings.HasSuffix(text, " POST body") {
			t.Fatalf("%d %q", code, text)
		}
		counts[text[:1]]++
	}
	if counts["a"] != 10 || counts["b"] != 10 || counts["c"] != 10 {
		t.Errorf("not in turn: %v", counts)
	}
}

func TestReplicaThatRefusesIsPassedOver(t *testing.T) {
	for _, health := range []string{"", "/health"} {
		b := start(t, edge.Config{HealthInterval: time.Hour})
		b.publish(1, health, deadPort(t), addr(app(t, "b")), deadPort(t))
		for range 10 {
			if code, text, _ := b.do("POST", "/", "whole body"); code != 200 || text != "b POST whole body" {
				t.Fatalf("health %q: %d %q", health, code, text)
			}
		}
	}
}

func TestRequestThatWasSentIsNotSentAgain(t *testing.T) {
	b := start(t, edge.Config{})
	var hits atomic.Int32
	cut := func(w http.ResponseWriter, _ *http.Request) {
		hits.Add(1)
		conn, _, _ := http.NewResponseController(w).Hijack()
		conn.Close()
	}
	one, two := httptest.NewServer(http.HandlerFunc(cut)), httptest.NewServer(http.HandlerFunc(cut))
	defer one.Close()
	defer two.Close()
	b.publish(1, "", addr(one), addr(two))
	code, text, _ := b.do("POST", "/", "pay 10")
	if code != http.StatusBadGateway || !strings.Contains(text, "whether it took effect is unknown") {
		t.Errorf("%d %s", code, text)
	}
	if hits.Load() != 1 {
		t.Errorf("it reached %d replicas", hits.Load())
	}
}

func TestNobodyToAsk(t *testing.T) {
	b := start(t, edge.Config{})
	b.publish(1, "", deadPort(t))
	code, text, header := b.do("GET", "/", "")
	if code != 503 || !strings.Contains(text, "connection refused") || !strings.Contains(text, "hello-1-1") || header.Get("Retry-After") == "" {
		t.Errorf("%d %s", code, text)
	}
	var answer struct {
		Error struct{ What, On, Why, Do string }
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Error.What == "" || answer.Error.Do == "" {
		t.Errorf("%s: %v", text, err)
	}
	code, text, header = b.do("GET", "/", "", "Accept", "text/html,*/*")
	if code != 503 || !strings.HasPrefix(header.Get("Content-Type"), "text/html") || !strings.Contains(text, "<h1>") {
		t.Errorf("%d %s", code, text)
	}

	b.publish(2, "", addr(app(t, "a")))
	for host, why := range map[string]string{
		"other.dev.localhost": "nothing runs as other.dev", "localhost": "names none", "a.b.c.localhost": "names none",
		"hello.dev.localhost.evil.example": "names none", "<script>.dev.localhost": "names none",
	} {
		code, text, _ := b.do("GET", "/", "", "Host", host)
		if code != 404 || !strings.Contains(text, why) || !strings.Contains(text, "http://hello.dev.localhost:") {
			t.Errorf("%s: %d %s", host, code, text)
		}
		if _, text, _ := b.do("GET", "/", "", "Host", host, "Accept", "text/html"); strings.Contains(text, "<script>") {
			t.Errorf("%s: not escaped: %s", host, text)
		}
	}

	// A queue worker has instances and no port.
	b.publish(3, "", "")
	if code, text, _ := b.do("GET", "/", ""); code != 503 || !strings.Contains(text, "takes no requests") {
		t.Errorf("%d %s", code, text)
	}
	if err := b.table.Publish(t.Context(), discovery.Place{Env: "dev", App: "hello"}, discovery.Entry{Slot: 4, Removed: true}); err != nil {
		t.Fatal(err)
	}
	b.eventually("a removed app is unknown", func() bool { code, _, _ := b.do("GET", "/", ""); return code == 404 })
}

func TestUnhealthyReplicaGetsNothing(t *testing.T) {
	b := start(t, edge.Config{})
	var sick atomic.Bool
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" && r.Host != "hello.dev.localhost" {
			t.Errorf("checked as host %q", r.Host)
		}
		if sick.Load() {
			w.WriteHeader(500)
		}
		fmt.Fprint(w, "bad")
	}))
	defer bad.Close()
	b.publish(1, "/health", addr(bad), addr(app(t, "good")))
	seen := func() map[string]bool {
		seen := map[string]bool{}
		for range 6 {
			_, text, _ := b.do("GET", "/", "")
			seen[strings.Fields(text)[0]] = true
		}
		return seen
	}
	b.eventually("both get requests", func() bool { return len(seen()) == 2 })
	sick.Store(true)
	b.eventually("only the good one gets requests", func() bool { s := seen(); return len(s) == 1 && s["good"] })
	sick.Store(false)
	b.eventually("both get requests again", func() bool { return len(seen()) == 2 })
}

func TestForwardedHeaders(t *testing.T) {
	b := start(t, edge.Config{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "Host:", r.Host)
		r.Header.Write(w)
	}))
	defer s.Close()
	b.publish(1, "", addr(s))
	_, text, _ := b.do("GET", "/", "", "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "https")
	for _, want := range []string{"Host: hello.dev.localhost", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: hello.dev.localhost", "X-Forwarded-Proto: http\r"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "6.6.6.6") {
		t.Errorf("the client's own claim came through:\n%s", text)
	}
}

func TestUpgradedConnectionsAndStreams(t *testing.T) {
	b := start(t, edge.Config{})
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: 1\n\n")
			http.NewResponseController(w).Flush()
			<-release
			fmt.Fprint(w, "data: 2\n\n")
			return
		}
		conn, in, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprint(conn, "echo "+line)
		}
	}))
	defer s.Close()
	b.publish(1, "", addr(s))

	conn, err := net.Dial("tcp", b.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /ws HTTP/1.1\r\nHost: hello.dev.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	in := bufio.NewReader(conn)
	response, err := http.ReadResponse(in, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", response, err)
	}
	for i := range 3 {
		fmt.Fprintf(conn, "%d\n", i)
		if line, err := in.ReadString('\n'); err != nil || line != fmt.Sprintf("echo %d\n", i) {
			t.Fatalf("%q, %v", line, err)
		}
	}

	stream, err := http.DefaultClient.Do(b.request("GET", "/stream", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	lines := bufio.NewReader(stream.Body)
	if line, err := lines.ReadString('\n'); err != nil || line != "data: 1\n" {
		t.Fatalf("the first event was held back: %q, %v", line, err)
	}

	// Both count as under way until they end.
	b.publish(2, "", addr(app(t, "new")))
	if reply := b.drain(2, 50*time.Millisecond); reply.InFlight != 2 || reply.Drained(2) {
		t.Errorf("%+v", reply)
	}
	done := make(chan discovery.DrainReply, 1)
	go func() { done <- b.drain(2, 10*time.Second) }()
	close(release)
	conn.Close()
	if reply := <-done; !reply.Drained(2) {
		t.Errorf("%+v", reply)
	}
	if rest, err := io.ReadAll(lines); err != nil || string(rest) != "\ndata: 2\n\n" {
		t.Errorf("%q, %v", rest, err)
	}
}

// An answer may begin while the request is still being sent, and both go on to their ends.
func TestAnswerBeforeTheEndOfTheRequest(t *testing.T) {
	b := start(t, edge.Config{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		c.EnableFullDuplex()
		for in := bufio.NewScanner(r.Body); in.Scan(); {
			fmt.Fprintln(w, "got", in.Text())
			c.Flush()
		}
	}))
	defer s.Close()
	b.publish(1, "", addr(s))
	body, send := io.Pipe()
	request := b.request("POST", "/", "")
	request.Body, request.ContentLength = body, -1
	go fmt.Fprintln(send, "0")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	in := bufio.NewReader(response.Body)
	for i := range 5 {
		if line, err := in.ReadString('\n'); err != nil || line != fmt.Sprintf("got %d\n", i) {
			t.Fatalf("%q, %v", line, err)
		}
		if i < 4 {
			fmt.Fprintln(send, i+1)
		}
	}
	send.Close()
	if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestDrainWaitsForTheSlot(t *testing.T) {
	b := start(t, edge.Config{})
	b.publish(1, "", addr(app(t, "a")))
	if reply := b.drain(2, 30*time.Millisecond); reply.Slot != 1 || reply.Drained(2) {
		t.Errorf("slot 2 is not there: %+v", reply)
	}
	done := make(chan discovery.DrainReply, 1)
	go func() { done <- b.drain(2, 10*time.Second) }()
	b.publish(2, "", addr(app(t, "b")))
	if reply := <-done; !reply.Drained(2) {
		t.Errorf("%+v", reply)
	}
}

// A switch while requests are under way loses none: each is answered by the replica that it was given to,
// and the drain ends only after the last of the old.
func TestSwitchUnderLoad(t *testing.T) {
	b := start(t, edge.Config{})
	slow := func(name string, gone *atomic.Bool) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			<-time.After(5 * time.Millisecond)
			if gone.Load() && r.URL.Path != "/health" {
				t.Errorf("%s was asked after it was drained", name)
			}
			w.Write(body)
		}))
		t.Cleanup(s.Close)
		return s
	}
	sent := strings.Repeat("0123456789", 700)
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	flags := []*atomic.Bool{{}}
	b.publish(1, "/health", addr(slow("1", flags[0])))
	var asked, failed atomic.Int32
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for ctx.Err() == nil {
				asked.Add(1)
				response, err := http.DefaultClient.Do(b.request("POST", "/", sent))
				if err != nil {
					failed.Add(1)
					continue
				}
				text, err := io.ReadAll(response.Body)
				response.Body.Close()
				if err != nil || string(text) != sent {
					failed.Add(1)
				}
			}
		})
	}
	slot := 1
	for ; ctx.Err() == nil; slot++ {
		flag := &atomic.Bool{}
		flags = append(flags, flag)
		b.publish(slot+1, "/health", addr(slow(fmt.Sprint(slot+1), flag)))
		if reply := b.drain(slot+1, 5*time.Second); !reply.Drained(slot + 1) {
			t.Errorf("slot %d: %+v", slot+1, reply)
		}
		flags[slot-1].Store(true)
	}
	clients.Wait()
	t.Logf("%d requests over %d switches, %d failed", asked.Load(), slot-1, failed.Load())
	if failed.Load() > 0 || slot < 10 {
		t.Errorf("%d of %d requests failed over %d switches", failed.Load(), asked.Load(), slot-1)
	}
}

func TestBusAwayKeepsTheTable(t *testing.T) {
	b := start(t, edge.Config{})
	b.publish(1, "/health", addr(app(t, "a")))
	b.ledger.Stop()
	for range 20 {
		if code, text, _ := b.do("GET", "/", ""); code != 200 {
			t.Fatalf("%d %s", code, text)
		}
	}
	b.ledger.Restart()
	b.eventually("the bus is back", func() bool {
		return b.table.Publish(t.Context(), discovery.Place{Env: "dev", App: "hello"}, discovery.Entry{
			Slot: 2, Instances: []events.Instance{{ID: "b", Address: addr(app(t, "b"))}},
		}) == nil
	})
	b.eventually("the edge follows again", func() bool { _, text, _ := b.do("GET", "/", ""); return strings.HasPrefix(text, "b") })
}

func TestEndingFinishesWhatIsUnderWay(t *testing.T) {
	b := start(t, edge.Config{})
	asked, release := make(chan struct{}), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-release
		fmt.Fprint(w, "done")
	}))
	defer s.Close()
	b.publish(1, "", addr(s))
	answer := make(chan string, 1)
	go func() { _, text, _ := b.do("GET", "/", ""); answer <- text }()
	<-asked
	stopped := make(chan error, 1)
	go func() { stopped <- b.stop() }()
	b.eventually("it takes no more", func() bool {
		conn, err := net.Dial("tcp", b.address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	close(release)
	if text := <-answer; text != "done" {
		t.Errorf("got %q", text)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestBounds(t *testing.T) {
	b := start(t, edge.Config{HeaderTimeout: 100 * time.Millisecond})
	b.publish(1, "", addr(app(t, "a")))
	if code, _, _ := b.do("GET", "/", "", "X-Long", strings.Repeat("x", 80<<10)); code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 80 KiB: %d", code)
	}
	conn, err := net.Dial("tcp", b.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\n")
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("a header that never ends is waited for: %v", err)
	}
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := edge.New(edge.Config{Listen: l.Addr().String()}, edge.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "address already in use") || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

func TestFaultsAreReportedAtOnce(t *testing.T) {
	_, err := edge.New(edge.Config{Listen: "7080", MaxHeader: 1, IdleTimeout: -1}, edge.Deps{})
	for _, part := range []string{"listen", "maxHeader", "idleTimeout"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not name %s", err, part)
		}
	}
}

// An app may answer without having read the request's body. The client's connection stays good for its next request.
func TestUnreadBodiesKeepConnections(t *testing.T) {
	hasty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hi") }))
	t.Cleanup(hasty.Close)
	b := start(t, edge.Config{})
	b.publish(1, "", addr(hasty))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}, Timeout: 20 * time.Second}
	t.Cleanup(client.CloseIdleConnections)
	var failed atomic.Int32
	var group sync.WaitGroup
	for range 32 {
		group.Go(func() {
			for range 100 {
				response, err := client.Do(b.request("POST", "/", strings.Repeat("x", 2000)))
				if err == nil {
					_, err = io.Copy(io.Discard, response.Body)
					response.Body.Close()
				}
				if err != nil && failed.Add(1) == 1 {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if n := failed.Load(); n > 0 {
		t.Errorf("%d of 3200 requests failed", n)
	}
}
