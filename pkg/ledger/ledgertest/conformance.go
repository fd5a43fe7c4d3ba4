package ledgertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
)

// Conformance holds a ledger to everything that package ledger promises. It writes under names of its
// own, so that it can run against a ledger that holds something already.
func Conformance(t *testing.T, l *Ledger) {
	t.Run("an event is written once and followed by all", func(t *testing.T) { followedByAll(t, l) })
	t.Run("the same event appended again is one event", func(t *testing.T) { appendedAgain(t, l) })
	t.Run("fifty writers race for one subject", func(t *testing.T) { race(t, l) })
	t.Run("records come in order, each once", func(t *testing.T) { inOrder(t, l) })
	t.Run("hostile headers reach nobody", func(t *testing.T) { hostileHeaders(t, l) })
	t.Run("hostile requests are refused", func(t *testing.T) { hostileRequests(t, l) })
	t.Run("no identity gets past the door", func(t *testing.T) { pastTheDoor(t, l) })
	t.Run("no identity changes the bus", func(t *testing.T) { changeTheBus(t, l) })
	t.Run("a bot reaches the gateway and nothing else", func(t *testing.T) { confinedBot(t, l) })
	t.Run("no identity settles another's messages", func(t *testing.T) { settleAnothers(t, l) })
	t.Run("buckets keep versions and refuse strangers", func(t *testing.T) { buckets(t, l) })
	t.Run("logs are kept and followed", func(t *testing.T) { logs(t, l) })
	t.Run("timers wake watch", func(t *testing.T) { timers(t, l) })
	t.Run("a broken connection loses and doubles nothing", func(t *testing.T) { reconnects(t, l) })
}

// fresh returns a slug that was never used.
func fresh() events.Slug { return events.Key(events.NewID()) }

// AppCreated returns an event, and where it is stored, that the gateway may write for a new app.
func AppCreated(app events.Slug) (events.Subject, events.Event) {
	body := &events.AppCreated{About: events.About{ID: string(app)}, Actor: "u-conformance"}
	return events.AppSubject(1, app), events.New(events.Gateway, time.Now(), "", body)
}

// append stores app.created of a fresh app.
func appendFresh(t *testing.T, c *ledger.Client) ledger.Record {
	t.Helper()
	s, e := AppCreated(fresh())
	r, err := c.Append(t.Context(), s, e)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Follow follows on a connection of its own until the test ends, and returns what it is given.
func (l *Ledger) Follow(t *testing.T, service string) <-chan ledger.Record {
	t.Helper()
	c := l.Connect(service)
	records := make(chan ledger.Record, 1<<16)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Follow(ctx, func(r ledger.Record) error { records <- r; return nil }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("following as %s: %v", service, err)
		}
	})
	return records
}

// until returns what is followed up to a sequence.
func until(t *testing.T, records <-chan ledger.Record, seq uint64) []ledger.Record {
	t.Helper()
	timeout := time.After(30 * time.Second)
	var all []ledger.Record
	for {
		select {
		case r := <-records:
			if all = append(all, r); r.Seq >= seq {
				return all
			}
		case <-timeout:
			t.Fatalf("event %d was not followed; %d others were", seq, len(all))
		}
	}
}

// readers are the identities that follow the ledger.
var readers = identity.IDs[:len(identity.IDs)-1]

func followedByAll(t *testing.T, l *Ledger) {
	var followers []<-chan ledger.Record
	for _, id := range readers {
		followers = append(followers, l.Follow(t, id))
	}
	want := appendFresh(t, l.Client("gateway"))
	for i, f := range followers {
		all := until(t, f, want.Seq)
		got := all[len(all)-1]
		if got.Seq != want.Seq || got.Subject != want.Subject || got.Event.ID != want.Event.ID || got.Time.IsZero() {
			t.Errorf("%s followed %+v, appended was %+v", readers[i], got, want)
		}
	}
	s, e := AppCreated(want.Subject.App)
	_, err := l.Client("gateway").Append(t.Context(), s, e)
	var exists *ledger.ExistsError
	if !errors.As(err, &exists) || exists.Winner.Seq != want.Seq || exists.Winner.Event.ID != want.Event.ID {
		t.Errorf("a second event on the subject: %v", err)
	}
}

func appendedAgain(t *testing.T, l *Ledger) {
	c := l.Client("gateway")
	s, e := AppCreated(fresh())
	first, err := c.Append(t.Context(), s, e)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Append(t.Context(), s, e)
	if err != nil || again.Seq != first.Seq {
		t.Errorf("appended at %d, again at %d: %v", first.Seq, again.Seq, err)
	}
}

func race(t *testing.T, l *Ledger) {
	app := fresh()
	var all sync.WaitGroup
	var mu sync.Mutex
	var won []uint64
	lost := map[uint64]int{}
	for range 50 {
		c := l.Connect("gateway")
		all.Go(func() {
			s, e := AppCreated(app)
			r, err := c.Append(t.Context(), s, e)
			mu.Lock()
			defer mu.Unlock()
			var exists *ledger.ExistsError
			switch {
			case err == nil:
				won = append(won, r.Seq)
			case errors.As(err, &exists):
				lost[exists.Winner.Seq]++
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(won) != 1 || lost[won[0]] != 49 {
		t.Errorf("won: %v, lost to: %v", won, lost)
	}
}

func inOrder(t *testing.T, l *Ledger) {
	const writers, each = 8, 80 // several batches
	live := l.Follow(t, "build")
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range each {
				s, e := AppCreated(fresh())
				if _, err := l.Client("gateway").Append(t.Context(), s, e); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	last := appendFresh(t, l.Client("gateway")).Seq
	for name, records := range map[string][]ledger.Record{
		"while it was written": until(t, live, last),
		"from the beginning":   until(t, l.Follow(t, "vet"), last),
	} {
		if uint64(len(records)) != last {
			t.Errorf("%s: %d records up to %d", name, len(records), last)
		}
		for i, r := range records {
			if r.Seq != uint64(i+1) {
				t.Fatalf("%s: place %d has %d", name, i+1, r.Seq)
			}
		}
	}
	var read uint64
	end, err := l.Client("verify").Read(t.Context(), 10, func(r ledger.Record) error {
		if read++; r.Seq != 10+read {
			return fmt.Errorf("%d comes as number %d", r.Seq, read)
		}
		return nil
	})
	if err != nil || end < last || read != end-10 {
		t.Errorf("read %d records after 10, up to %d: %v", read, end, err)
	}
}

// request returns the request that Append sends.
func request(t testing.TB, signer *identity.Signer, s events.Subject, e events.Event) *nats.Msg {
	t.Helper()
	body, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	m := nats.NewMsg(s.AppendSubject())
	m.Data = body
	for name, value := range e.Headers() {
		m.Header[name] = []string{value}
	}
	m.Header[identity.SignatureHeader] = []string{signer.Sign(s.String(), body)}
	return m
}

// Stored returns an event as the door stores it, for tests that fill a ledger in bulk with the door's
// own rights.
func Stored(t testing.TB, signer *identity.Signer, s events.Subject, e events.Event) *nats.Msg {
	t.Helper()
	m := request(t, signer, s, e)
	m.Subject = s.String()
	return m
}

// hostile are headers that the bus, or a client library, would obey or believe.
var hostile = map[string]string{
	"Nats-Msg-Id": "poison", "Nats-Expected-Stream": "OTHER", "Nats-Expected-Last-Sequence": "0",
	"Nats-Expected-Last-Subject-Sequence": "77", "Nats-Expected-Last-Subject-Sequence-Subject": "event.>",
	"Nats-Expected-Last-Msg-Id": "never", "Nats-Rollup": "all", "Nats-TTL": "1s", "Nats-Incr": "+1",
	"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1", "Nats-Batch-Commit": "1", "Nats-Required-Api-Level": "99",
	"Nats-Schedule": "@every 1s", "Nats-Schedule-Target": "event.1.build.x", "Nats-Schedule-TTL": "1s",
	"Nats-Schedule-Source": "event.>", "Nats-Scheduler": "event.1.x", "Nats-Schedule-Next": "purge",
	"Nats-Stream": "EVENTS_1", "Nats-Subject": "event.1.promote.x", "Nats-Sequence": "1", "Nats-Time-Stamp": "2020-01-01T00:00:00Z",
	"Nats-Num-Pending": "0", "Nats-Last-Sequence": "0", "Nats-Stream-Source": "OTHER", "Nats-Marker-Reason": "Purge",
	"Nats-Trace-Dest": "event.1.x", "Nats-Trace-Only": "true", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	"Status": "404", "Description": "EOB", "KV-Operation": "DEL", "Towpath-Log-End": "1", "Reply-To": "event.1.x",
}

func hostileHeaders(t *testing.T, l *Ledger) {
	c := l.Client("gateway")
	live := l.Follow(t, "edge")
	var apps []events.Slug
	for name, value := range hostile {
		for _, spelled := range []string{name, strings.ToLower(name)} {
			app := fresh()
			s, e := AppCreated(app)
			m := request(t, c.Signer(), s, e)
			m.Header[spelled] = []string{value, value}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			// What traces or only traces is not answered; the door either stores it clean or not at all.
			_, _ = c.Conn().RequestMsgWithContext(ctx, m)
			cancel()
			if !strings.HasPrefix(strings.ToLower(name), "nats-trace") {
				apps = append(apps, app)
			}
		}
	}
	last := appendFresh(t, c)
	stored := map[events.Slug]bool{}
	for _, r := range until(t, live, last.Seq) {
		stored[r.Subject.App] = true
	}
	for _, planted := range []string{"event.1.x", "event.1.build.x", "event.1.promote.x"} {
		m, err := c.Conn().Request(c.API()+".DIRECT.GET."+events.StreamName(1), fmt.Appendf(nil, `{"last_by_subj":%q}`, planted), 5*time.Second)
		if err != nil || m.Header.Get("Status") != "404" {
			t.Errorf("something was stored under %s: %v", planted, err)
		}
	}
	for _, app := range apps {
		if !stored[app] {
			t.Errorf("the event of %s was not stored", app)
			continue
		}
		for name := range storedHeaders(t, c, events.AppSubject(1, app)) {
			if !strings.HasPrefix(name, "ce-") && !slices.Contains(kept, name) {
				t.Errorf("header %s was stored", name)
			}
		}
	}
}

// kept are the headers that a stored event may have besides ce-*: the signature, what the door asks of
// the bus, and what a direct get adds.
var kept = []string{
	identity.SignatureHeader, "Nats-Expected-Last-Subject-Sequence",
	"Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp",
}

func storedHeaders(t *testing.T, c *ledger.Client, s events.Subject) nats.Header {
	t.Helper()
	m, err := c.Conn().Request(c.API()+".DIRECT.GET."+events.StreamName(1), fmt.Appendf(nil, `{"last_by_subj":%q}`, s), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range m.Header {
		if len(values) != 1 {
			t.Errorf("header %s of %s is stored %d times", name, s, len(values))
		}
	}
	return m.Header
}
