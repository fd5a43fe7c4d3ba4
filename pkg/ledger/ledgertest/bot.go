package ledgertest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
)

// Bot makes a bus key for a bot, has the running server take it up, and returns the bot's connection.
func (l *Ledger) Bot(id events.Slug) *nats.Conn {
	l.t.Helper()
	seed, err := identity.AddBot(l.Keys, id)
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := l.server.Reload(); err != nil {
		l.t.Fatal(err)
	}
	pair, err := nkeys.FromSeed(seed)
	if err != nil {
		l.t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		l.t.Fatal(err)
	}
	conn, err := nats.Connect(l.URL, nats.Nkey(public, pair.Sign), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(conn.Close)
	return conn
}

// confinedBot lets two bots in while others append, and has one of them try everything that it can name: each
// subject, published, requested, and as the address of an answer.
func confinedBot(t *testing.T, l *Ledger) {
	build := l.Connect("build").Conn()
	lost := make(chan struct{}, 8)
	build.SetDisconnectErrHandler(func(*nats.Conn, error) { lost <- struct{}{} })
	stop := writeUntil(t, l)
	name := fresh()
	victim := fresh()
	l.Bot(victim)
	bot := l.Bot(name)
	stop()
	select {
	case <-lost:
		t.Error("letting a bot in broke a service's connection")
	default:
	}
	heard := make(chan *nats.Msg, 1024)
	sub, err := l.Client("gateway").Conn().ChanSubscribe(events.BotSubjects, heard)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	if err := l.Client("gateway").Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	before := head(t, l)
	unanswered(t, l, bot, victim)
	if bot.MaxPayload() >= 1<<20 {
		t.Errorf("the bot may send %d bytes at once", bot.MaxPayload())
	}
	s, _ := AppCreated(fresh())
	for _, reply := range []string{s.String(), s.AppendSubject(), events.BotSubject(victim), "$KV.ACTORS.x"} {
		if err := bot.PublishRequest(events.BotSubject(name), reply, nil); err != nil {
			t.Fatal(err)
		}
		select {
		case m := <-heard:
			if m.Subject != events.BotSubject(name) || m.Respond([]byte("an answer")) != nil {
				t.Errorf("the gateway heard %s", m.Subject)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the gateway heard nothing of the bot's own subject")
		}
	}
	everything, err := bot.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	l.Client("gateway").Conn().Publish(events.BotSubject(victim), []byte("an answer of another"))
	appendFresh(t, l.Client("gateway"))
	if m, err := everything.NextMsg(200 * time.Millisecond); err == nil {
		t.Errorf("the bot heard %s", m.Subject)
	}
	for len(heard) > 0 {
		if m := <-heard; string(m.Data) != "an answer of another" {
			t.Errorf("the gateway heard the bot on %s", m.Subject)
		}
	}
	if after := head(t, l); after != before+1 {
		t.Errorf("something was stored: %d became %d", before, after)
	}
	shutOut(t, l, name, bot)
}

// unanswered has a bot try every subject that it can name: none may answer.
func unanswered(t *testing.T, l *Ledger, bot *nats.Conn, victim events.Slug) {
	t.Helper()
	s, e := AppCreated(fresh())
	subjects := []string{
		s.String(), "live." + s.String(), "event.>", "log.build.x", "timer.set.x", "timer.fired.x", "$KV.ACTORS.x", "$KV.NOTIFY.x", "$SYS.REQ.SERVER.PING",
		events.BotSubject(victim), "command." + string(victim), "command.>", "command.*.received", events.DrainSubject, events.LinkSubject,
		"$JS.ACK.EVENTS_1.build.1.1.1.1.0", "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.EVENTS_1.build",
	}
	for _, w := range identity.IDs {
		subjects = append(subjects, strings.Replace(s.AppendSubject(), "gateway", w, 1))
	}
	for _, api := range []string{"$JS.API.", "bus.API."} {
		for _, verb := range []string{"INFO", "STREAM.NAMES", "DIRECT.GET.EVENTS_1", "DIRECT.GET.KV_ACTORS", "STREAM.CREATE.X", "STREAM.PURGE.EVENTS_1", "CONSUMER.MSG.NEXT.EVENTS_1.build"} {
			subjects = append(subjects, api+verb)
		}
	}
	for _, subject := range subjects {
		m := request(t, l.signer(t, "gateway"), s, e)
		m.Subject = subject
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if reply, err := bot.RequestMsgWithContext(ctx, m); err == nil {
			t.Errorf("%s was answered: %.200s", subject, reply.Data)
		}
		cancel()
	}
}

// shutOut takes a bot's key away, which ends its connection too.
func shutOut(t *testing.T, l *Ledger, name events.Slug, bot *nats.Conn) {
	t.Helper()
	if err := identity.RemoveBot(l.Keys, name); err != nil {
		t.Fatal(err)
	}
	if _, err := l.server.Reload(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); bot.IsConnected(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Error("a bot without a key is still connected after 10 s")
			return
		}
	}
}

// writeUntil appends from two writers, and listens, until stop is called; every append must succeed.
func writeUntil(t *testing.T, l *Ledger) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	written := make([]int, 2)
	for n := range written {
		work.Go(func() {
			for ctx.Err() == nil {
				s, e := AppCreated(fresh())
				if _, err := l.Client("gateway").Append(context.WithoutCancel(ctx), s, e); err != nil {
					t.Errorf("appending while the bus took a key up: %v", err)
					return
				}
				written[n]++
			}
		})
	}
	return func() {
		cancel()
		work.Wait()
		if written[0]+written[1] == 0 {
			t.Error("nothing was written meanwhile")
		}
	}
}
