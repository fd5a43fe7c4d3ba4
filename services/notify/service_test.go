package notify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger/fold/foldtest"
	"towpath.dev/pkg/ledger/ledgertest"
	"towpath.dev/pkg/policy"
	"towpath.dev/pkg/worker"
	"towpath.dev/services/notify"
)

const secret = "T0PSECRETPATH"

// chat is a receiver: it keeps what it takes, and answers as it is told.
type chat struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	asked  int
	known  map[string]bool
	arrive chan post
}

type post struct {
	header http.Header
	text   string
	blocks int
}

func newChat(t *testing.T) *chat {
	c := &chat{status: http.StatusOK, known: map[string]bool{}, arrive: make(chan post, 1000)}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked++
		var m struct {
			Text   string
			Blocks []struct {
				Type string
				Text struct{ Type, Text string }
			}
		}
		data, err := io.ReadAll(r.Body)
		if err = errors.Join(err, json.Unmarshal(data, &m)); err != nil || r.URL.Path != "/"+secret {
			t.Errorf("%s got %s: %v", r.URL.Path, data, err)
		}
		w.WriteHeader(c.status)
		if c.status == http.StatusOK {
			p := post{r.Header, m.Text, len(m.Blocks)}
			for _, b := range m.Blocks {
				p.text += "\n" + b.Text.Text
			}
			c.arrive <- p
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *chat) answer(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = status
}

// gets waits for the next post that did not come before: the same may come again, under the same id.
func (c *chat) gets(t *testing.T) post {
	t.Helper()
	for {
		select {
		case p := <-c.arrive:
			id := p.header.Get(notify.HeaderID)
			c.mu.Lock()
			known := c.known[id]
			c.known[id] = true
			c.mu.Unlock()
			if !known {
				return p
			}
		case <-time.After(20 * time.Second):
			t.Fatal("nothing came within 20 s")
		}
	}
}

// station is a ledger and a notify that can be stopped and started again.
type station struct {
	t         *testing.T
	ledger    *ledgertest.Ledger
	story     *foldtest.Ledger
	told      int // records of the story that are in the ledger
	receivers []policy.Receiver
	logs      *bytes.Buffer
	mu        sync.Mutex
}

func newStation(t *testing.T, receivers ...policy.Receiver) *station {
	s := &station{t: t, ledger: ledgertest.Start(t), story: foldtest.New(), receivers: receivers, logs: &bytes.Buffer{}}
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if strings.Contains(s.logs.String(), secret) {
			t.Errorf("an address is in the log:\n%s", s.logs)
		}
	})
	return s
}

// Write keeps the log.
func (s *station) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logs.Write(p)
}

func receiver(t *testing.T, name string, c *chat, kinds ...string) policy.Receiver {
	t.Helper()
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte(c.URL+"/"+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if len(kinds) == 0 {
		kinds = policy.NoticeKinds
	}
	return policy.Receiver{Name: name, URLFile: file, Kinds: kinds}
}

// start runs notify until stop is called.
func (s *station) start(cfg notify.Config) (stop func()) {
	s.t.Helper()
	return s.run(cfg, s.open())
}

func (s *station) open() *worker.Runtime {
	s.t.Helper()
	platform := policy.Default()
	platform.Notify = s.receivers
	rt, err := worker.Open(s.t.Context(), worker.Options{
		Service: "notify", Bus: s.ledger.URL, Keys: s.ledger.Keys, Platform: platform,
		Logger: slog.New(slog.NewTextHandler(s, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return rt
}

func (s *station) run(cfg notify.Config, rt *worker.Runtime) (stop func()) {
	s.t.Helper()
	cfg.Pace, cfg.Retry = time.Millisecond, 10*time.Millisecond
	service, err := notify.New(cfg, notify.Deps{Runtime: rt})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				s.t.Errorf("notify ended: %v", err)
			}
			rt.Close()
		})
	}
	s.t.Cleanup(stop)
	return stop
}

// tell writes what the story has got since into the ledger, as if it happened at that time.
func (s *station) tell(at time.Time) {
	s.t.Helper()
	for _, r := range s.story.Records(uint64(s.told)) {
		s.told++
		e := r.Event
		e.Time = at.UTC().Truncate(time.Microsecond)
		if _, err := s.ledger.Client(string(r.Subject.Writer)).Append(s.t.Context(), r.Subject, e); err != nil {
			s.t.Fatal(err)
		}
	}
}

// stuck makes another run of the app that is stuck at once.
func (s *station) stuck() string {
	n := s.story.Push(foldtest.Definition("app: hello\nservice: {port: 8080}\nenvironments: [{name: dev}]\n"), "")
	b := &events.StageStuck{Stage: "build", Attempt: 1, LastError: "the engine <is> away & `gone`", Command: fmt.Sprintf("towpath replay hello/%d build", n)}
	b.ID = fmt.Sprintf("hello/%d/build", n)
	s.story.Write(events.StuckSubject(1, "hello", n, "", "build", 1, 1), foldtest.Chain("hello", n), b)
	return fmt.Sprintf("hello/%d", n)
}

func TestAReceiverIsTold(t *testing.T) {
	all, failures := newChat(t), newChat(t)
	s := newStation(t, receiver(t, "all", all), receiver(t, "failures", failures, policy.NoticeFailed))
	s.stuck()
	s.tell(time.Now()) // before the first start: history is nobody's business
	s.start(notify.Config{})
	// Until it is known how far they are, nothing that comes is theirs.
	s.waitForProgress("all", "failures")
	run := s.stuck()
	s.tell(time.Now())
	p := all.gets(t)
	if p.header.Get(notify.HeaderRun) != run || p.header.Get(notify.HeaderKind) != "stuck" || p.header.Get(notify.HeaderID) == "" ||
		p.header.Get(notify.HeaderAct) != "towpath replay "+run+" build" || p.header.Get("Content-Type") != "application/json" {
		t.Errorf("headers: %v", p.header)
	}
	for _, says := range []string{run + " is stuck in build", "the engine &lt;is&gt; away &amp; 'gone'", "`towpath replay " + run + " build`"} {
		if !strings.Contains(p.text, says) {
			t.Errorf("%q is missing in %s", says, p.text)
		}
	}
	if p.blocks != 3 {
		t.Errorf("%d blocks", p.blocks)
	}
	failures.mu.Lock()
	defer failures.mu.Unlock()
	if failures.asked != 0 {
		t.Errorf("a receiver of failures alone was asked %d times", failures.asked)
	}
}

// The bus may go away between the start of the process and its first question.
func TestTheBusMayBeAwayAtTheBeginning(t *testing.T) {
	c := newChat(t)
	s := newStation(t, receiver(t, "people", c, policy.NoticeStuck))
	rt := s.open()
	s.ledger.Stop()
	s.run(notify.Config{Timeout: time.Second}, rt)
	ledgertest.Soon(t, "notify has tried in vain", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.Contains(s.logs.String(), "notifications do not begin yet")
	})
	s.ledger.Restart()
	s.waitForProgress("people")
	name := s.stuck()
	s.tell(time.Now())
	if p := c.gets(t); !strings.Contains(p.text, name) {
		t.Errorf("got %q, want %s", p.text, name)
	}
}

// waitForProgress waits until it is kept how far receivers are.
func (s *station) waitForProgress(names ...string) {
	s.t.Helper()
	end := time.Now().Add(20 * time.Second)
	for _, name := range names {
		for {
			_, _, err := s.ledger.Client("notify").Bucket(events.BucketNotify).Get(s.t.Context(), name)
			if err == nil {
				break
			}
			if time.Now().After(end) {
				s.t.Fatalf("no progress of %s: %v", name, err)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
}

// A receiver that is away keeps nobody waiting, and gets everything in order when it is back, also when notify was
// restarted meanwhile.
func TestADeadReceiverBlocksNobody(t *testing.T) {
	good, bad := newChat(t), newChat(t)
	s := newStation(t, receiver(t, "bad", bad), receiver(t, "good", good))
	bad.answer(http.StatusInternalServerError)
	stop := s.start(notify.Config{})
	s.waitForProgress("bad", "good")
	var runs []string
	for range 5 {
		runs = append(runs, s.stuck())
		s.tell(time.Now())
		if p := good.gets(t); p.header.Get(notify.HeaderRun) != runs[len(runs)-1] {
			t.Errorf("good got %s", p.text)
		}
	}
	stop()
	bad.answer(http.StatusOK)
	s.start(notify.Config{})
	for _, run := range runs {
		if p := bad.gets(t); p.header.Get(notify.HeaderRun) != run {
			t.Errorf("bad got %s, want %s", p.header.Get(notify.HeaderRun), run)
		}
	}
	run := s.stuck()
	s.tell(time.Now())
	for name, c := range map[string]*chat{"bad": bad, "good": good} {
		if p := c.gets(t); p.header.Get(notify.HeaderRun) != run {
			t.Errorf("%s then got %s, want %s", name, p.header.Get(notify.HeaderRun), run)
		}
	}
}

// After days nobody is flooded: what is too old is left out, and said to be.
func TestWhatIsTooOldIsLeftOut(t *testing.T) {
	c := newChat(t)
	s := newStation(t, receiver(t, "team", c))
	stop := s.start(notify.Config{})
	s.waitForProgress("team")
	stop()
	for range 20 {
		s.stuck()
	}
	s.tell(time.Now().Add(-20 * time.Minute)) // the door takes nothing that is older
	run := s.stuck()
	s.tell(time.Now())
	s.start(notify.Config{MaxAge: 10 * time.Minute})
	if p := c.gets(t); p.header.Get(notify.HeaderKind) != notify.KindLeftOut || !strings.Contains(p.text, "20 older notifications were left out") {
		t.Errorf("first: %s %s", p.header.Get(notify.HeaderKind), p.text)
	}
	if p := c.gets(t); p.header.Get(notify.HeaderRun) != run {
		t.Errorf("then: %s", p.text)
	}
}

// A receiver that refuses is not asked again for the same, and gets the next.
func TestARefusalIsFinal(t *testing.T) {
	c := newChat(t)
	s := newStation(t, receiver(t, "team", c))
	s.start(notify.Config{})
	s.waitForProgress("team")
	for _, status := range []int{http.StatusNotFound, http.StatusFound} {
		c.answer(status)
		c.mu.Lock()
		before := c.asked
		c.mu.Unlock()
		s.stuck()
		s.tell(time.Now())
		end := time.Now().Add(20 * time.Second)
		for asked := before; asked == before && time.Now().Before(end); <-time.After(10 * time.Millisecond) {
			c.mu.Lock()
			asked = c.asked
			c.mu.Unlock()
		}
		c.answer(http.StatusOK)
		run := s.stuck()
		s.tell(time.Now())
		if p := c.gets(t); p.header.Get(notify.HeaderRun) != run {
			t.Errorf("after %d it got %s, want %s", status, p.header.Get(notify.HeaderRun), run)
		}
		c.mu.Lock()
		if c.asked != before+2 {
			t.Errorf("asked %d times after %d, want 2", c.asked-before, status)
		}
		c.mu.Unlock()
	}
}

// An address that cannot be used, and a receiver that nobody answers at, are said without the address.
func TestAnUnusableAddressIsNotRepeated(t *testing.T) {
	c := newChat(t)
	gone := receiver(t, "gone", c)
	if err := os.WriteFile(gone.URLFile, []byte("http://127.0.0.1:1/"+secret), 0o600); err != nil {
		t.Fatal(err)
	}
	odd := receiver(t, "odd", c)
	if err := os.WriteFile(odd.URLFile, []byte("nonsense "+secret), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStation(t, gone, odd)
	s.start(notify.Config{})
	s.waitForProgress("gone", "odd")
	s.stuck()
	s.tell(time.Now())
	end := time.Now().Add(20 * time.Second)
	for {
		s.mu.Lock()
		logs := s.logs.String()
		s.mu.Unlock()
		if strings.Contains(logs, "it does not answer") && strings.Contains(logs, "address cannot be used") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("not said within 20 s:\n%s", logs)
		}
		<-time.After(10 * time.Millisecond)
	}
}
