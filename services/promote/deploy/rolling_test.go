package deploy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"towpath.dev/events"
)

// startEdge runs the edge as the process that it is elsewhere, and returns its address.
func (b *bench) startEdge() string {
	b.Helper()
	program := filepath.Join(b.TempDir(), "edge")
	build := exec.Command("go", "build", "-o", program, "./cmd/edge")
	build.Dir = "../../edge"
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("building the edge: %v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	edge := exec.Command(program, "--bus", b.ledger.URL, "--keys", b.ledger.Keys, "--listen", address, "--log-level", "debug")
	said, err := os.Create(filepath.Join(b.TempDir(), "edge.log"))
	if err != nil {
		b.Fatal(err)
	}
	edge.Stderr = said
	if err := edge.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		edge.Process.Signal(syscall.SIGTERM)
		if err := edge.Wait(); err != nil {
			b.Errorf("the edge ended with %v", err)
		}
		if text, err := os.ReadFile(said.Name()); b.Failed() {
			b.Logf("the edge said (%v):\n%s", err, text)
		}
	})
	return address
}

// load is what came of requests at a fixed rate.
type load struct {
	mu     sync.Mutex
	times  []time.Duration
	faults []string
	by     map[string]int // answers by version
}

// run sends requests at rate a second to hello in dev until ctx ends, whether earlier ones were answered
// or not, and waits for their answers.
func (l *load) run(ctx context.Context, address string, rate int) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	var sent sync.WaitGroup
	for n := 0; ; n++ {
		select {
		case <-tick.C:
			sent.Go(func() { l.send(client, address, n) })
		case <-ctx.Done():
			sent.Wait()
			return
		}
	}
}

func (l *load) send(client *http.Client, address string, n int) {
	method, path, body := http.MethodGet, "/", ""
	switch n % 10 {
	case 1, 2, 3:
		method, body = http.MethodPost, strings.Repeat("x", 100*(n%50))
	case 4:
		path = "/slow?for=300ms"
	}
	begun := time.Now()
	request, err := http.NewRequest(method, "http://"+address+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	request.Host = "hello.dev.localhost"
	response, err := client.Do(request)
	text := ""
	if err == nil {
		var data []byte
		data, err = io.ReadAll(response.Body)
		response.Body.Close()
		text = string(data)
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", response.Status, text)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.faults = append(l.faults, fmt.Sprintf("%s %s: %v", method, path, err))
		return
	}
	if path == "/" {
		l.times = append(l.times, time.Since(begun))
		version, _, _ := strings.Cut(text, " ")
		l.by[version]++
	}
}

// A rolling deploy loses no request: prepare, switch, drain, retire, again and again under 200 requests a
// second, a third of them with bodies and a tenth of them slow.
func TestRollingDeployUnderLoad(t *testing.T) {
	b := start(t)
	address := b.startEdge()
	s := b.spec(1, serving("-text", "v1"))
	s.Replicas = 2
	roll := func(slot int) {
		s.Slot, s.Run = slot, fmt.Sprintf("hello/%d", slot)
		if err := b.Switch(t.Context(), s, b.prepare(s)); err != nil {
			t.Fatal(err)
		}
		if left, err := b.Drain(t.Context(), hello, slot, 10*time.Second); left != 0 || err != nil {
			t.Fatalf("draining: %d left, %v", left, err)
		}
		if err := b.Retire(t.Context(), hello, slot); err != nil {
			t.Fatal(err)
		}
	}
	roll(1)
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	l := &load{by: map[string]int{}}
	var clients sync.WaitGroup
	clients.Go(func() { l.run(ctx, address, 200) })
	slot := 1
	for ctx.Err() == nil {
		slot++
		next := b.spec(slot, serving("-text", fmt.Sprintf("v%d", slot)))
		s.Repository, s.Digest = next.Repository, next.Digest
		roll(slot)
	}
	clients.Wait()
	slices.Sort(l.times)
	at := func(share float64) time.Duration {
		return l.times[int(share*float64(len(l.times)-1))].Round(100 * time.Microsecond)
	}
	t.Logf("%d switches, %d+ requests, %d failed; p50 %s, p99 %s, max %s; by version %v",
		slot-1, len(l.times), len(l.faults), at(0.5), at(0.99), at(1), l.by)
	if len(l.faults) > 0 {
		t.Errorf("%d requests failed, the first: %s", len(l.faults), l.faults[0])
	}
	if slot < 3 || len(l.times) < 800 {
		t.Errorf("only %d switches and %d requests", slot-1, len(l.times))
	}
	if ids := b.ids(hello); len(ids) != 2 {
		t.Errorf("left: %v", ids)
	}
	if err := b.Withdraw(t.Context(), hello, slot+1); err != nil {
		t.Fatal(err)
	}
	if err := b.Retire(t.Context(), hello, slot+1); err != nil {
		t.Fatal(err)
	}
}

// The process that deploys is killed between any two steps of a switch, and another takes over: no
// request is lost, no container is made twice.
func TestTakeoverInTheMiddleOfASwitch(t *testing.T) {
	b := start(t)
	address := b.startEdge()
	v1, v2 := b.spec(1, serving("-text", "v1")), b.spec(2, serving("-text", "v2", "-ready", "1s"))
	v1.Replicas, v2.Replicas = 2, 2
	if err := b.Switch(t.Context(), v1, b.prepare(v1)); err != nil {
		t.Fatal(err)
	}
	if left, err := b.Drain(t.Context(), hello, 1, 10*time.Second); left != 0 || err != nil {
		t.Fatalf("draining: %d left, %v", left, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	l := &load{by: map[string]int{}}
	var clients sync.WaitGroup
	clients.Go(func() { l.run(ctx, address, 200) })

	dying, die := context.WithTimeout(t.Context(), 800*time.Millisecond)
	if _, err := b.Prepare(dying, v2); err == nil {
		t.Error("it was ready before it could be killed")
	}
	die()
	made := b.ids(hello)
	for _, instances := range [][]events.Instance{nil, nil} {
		var err error
		if instances, err = b.again().Prepare(t.Context(), v2); err != nil {
			t.Fatal(err)
		}
		if err := b.again().Switch(t.Context(), v2, instances); err != nil {
			t.Fatal(err)
		}
	}
	for name, id := range b.ids(hello) {
		if made[name] != "" && made[name] != id {
			t.Errorf("%s was made a second time", name)
		}
	}
	dying, die = context.WithTimeout(t.Context(), time.Millisecond)
	b.Drain(dying, hello, 2, 10*time.Second)
	die()
	if left, err := b.again().Drain(t.Context(), hello, 2, 10*time.Second); left != 0 || err != nil {
		t.Fatalf("draining: %d left, %v", left, err)
	}
	dying, die = context.WithTimeout(t.Context(), 50*time.Millisecond)
	b.Retire(dying, hello, 2)
	die()
	if err := b.again().Retire(t.Context(), hello, 2); err != nil {
		t.Fatal(err)
	}
	stop()
	clients.Wait()
	t.Logf("%d+ requests, %d failed; by version %v", len(l.times), len(l.faults), l.by)
	if len(l.faults) > 0 {
		t.Errorf("%d requests failed, the first: %s", len(l.faults), l.faults[0])
	}
	if ids := b.ids(hello); len(ids) != 2 || l.by["v1"] == 0 || l.by["v2"] == 0 {
		t.Errorf("left: %v; answers: %v", ids, l.by)
	}
}
