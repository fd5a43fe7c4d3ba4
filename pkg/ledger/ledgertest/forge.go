package ledgertest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
)

// headers are all that nats-server 2.15 obeys, adds or documents, and what client libraries believe; each
// with a value that would do harm.
var headers = map[string]string{
	"Nats-Msg-Id": "poison", "Nats-Expected-Stream": "OTHER", "Nats-Expected-Last-Sequence": "99999",
	"Nats-Expected-Last-Subject-Sequence": "77", "Nats-Expected-Last-Subject-Sequence-Subject": "event.>",
	"Nats-Expected-Last-Msg-Id": "never", "Nats-Rollup": "all", "Nats-TTL": "1s", "Nats-Incr": "+1", "Nats-Counter-Sources": "{}",
	"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1", "Nats-Batch-Commit": "1", "Nats-Required-Api-Level": "99",
	"Nats-Schedule": "@every 1s", "Nats-Schedule-Target": "event.1.vet.x", "Nats-Schedule-TTL": "1s", "Nats-Schedule-Rollup": "all",
	"Nats-Schedule-Source": "event.>", "Nats-Schedule-Time-Zone": "UTC", "Nats-Scheduler": "event.1.vet.x", "Nats-Schedule-Next": "purge",
	"Nats-Stream": "EVENTS_1", "Nats-Subject": "event.1.promote.x", "Nats-Sequence": "1", "Nats-Time-Stamp": "2020-01-01T00:00:00Z",
	"Nats-Num-Pending": "0", "Nats-Last-Sequence": "0", "Nats-UpTo-Sequence": "1", "Nats-Stream-Source": "OTHER", "Nats-Stream-Identity": "x",
	"Nats-Marker-Reason": "Purge", "Nats-Msg-Size": "1", "Nats-Response-Type": "x", "Nats-Last-Consumer": "1", "Nats-Last-Stream": "1",
	"Nats-Consumer-Stalled": "event.1.vet.x", "Nats-No-Masking": "true", "Nats-Pending-Bytes": "0", "Nats-Pending-Messages": "0",
	"Nats-Pin-Id": "x", "Nats-Request-Info": `{"acc":"BUS","svc":"BUS"}`, "Nats-Server-Xkey": "x",
	"Nats-Trace-Dest": "event.1.vet.x", "Nats-Trace-Only": "true", "Nats-Trace-Hop": "1", "Nats-Trace-Origin-Account": "BUS",
	"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	"Status":      "404", "Description": "EOB", "KV-Operation": "PURGE", "Towpath-Log-End": "1", "Reply-To": "event.1.vet.x",
}

// together are headers that mean something only with others.
var together = map[string]nats.Header{
	"a schedule":             {"Nats-Schedule": {"@at 2020-01-01T00:00:00Z"}, "Nats-Schedule-Target": {"timer.fired.forged"}, "Nats-Schedule-TTL": {"1h"}},
	"a schedule of an event": {"Nats-Schedule": {"@every 1s"}, "Nats-Schedule-Target": {"event.1.vet.x"}, "Nats-Schedule-Source": {"event.1.gateway.x"}},
	"a batch":                {"Nats-Batch-Id": {"forged"}, "Nats-Batch-Sequence": {"1"}},
	"a whole batch":          {"Nats-Batch-Id": {"forged-2"}, "Nats-Batch-Sequence": {"1"}, "Nats-Batch-Commit": {"1"}},
	"another's place":        {"Nats-Expected-Last-Subject-Sequence": {"0"}, "Nats-Expected-Last-Subject-Sequence-Subject": {"event.1.vet.x"}},
}

// Forged is what the matrix tried and what came of it.
type Forged struct {
	Identities, Subjects, Forms, Attempts int
	// Findings are attempts that did something, each in words.
	Findings []string
}

func (f Forged) String() string {
	return fmt.Sprintf("%d attempts: %d identities × up to %d subjects × up to %d forms; %d findings", f.Attempts, f.Identities, f.Subjects, f.Forms, len(f.Findings))
}

func (f *Forged) find(format string, a ...any) {
	if len(f.Findings) < 50 {
		f.Findings = append(f.Findings, fmt.Sprintf(format, a...))
	}
}

// Forge has each identity try what is not its own: every subject in every form. It compares what every
// stream and consumer holds before and after, and hears in every account what should not be there. Without
// ids it is every identity, the door included, and a bot.
func (l *Ledger) Forge(t testing.TB, ids ...string) Forged {
	t.Helper()
	f := Forged{Forms: 3 + len(headers) + len(together)}
	bot := fresh()
	botConn := l.Bot(bot)
	if len(ids) == 0 {
		ids = append(slices.Clone(identity.IDs), "bot")
	}
	f.Identities = len(ids)
	for _, id := range ids {
		conn := botConn
		var signer *identity.Signer
		if id != "bot" {
			client := l.Connect(id)
			conn, signer = client.Conn(), client.Signer()
		}
		conn.SetErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}) // refusals
		f.identity(t, l, id, forger{id: id, conn: conn, signer: signer})
	}
	return f
}

// forger is one identity that tries.
type forger struct {
	id     string
	conn   *nats.Conn
	signer *identity.Signer
}

// identity tries everything as one identity, and looks what changed.
func (f *Forged) identity(t testing.TB, l *Ledger, id string, who forger) {
	t.Helper()
	before := l.holds(t)
	heard := l.listen(t, id)
	inbox := who.conn.NewInbox()
	answers := make(chan *nats.Msg, 1<<17)
	sub, err := who.conn.ChanSubscribe(inbox+".*", answers)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	var tried []string // what attempt n was
	attempt := func(subject, form string, h nats.Header, reply string) {
		m := nats.NewMsg(subject)
		m.Data = []byte("forged by " + id)
		maps.Copy(m.Header, h)
		if who.signer != nil {
			m.Header[identity.SignatureHeader] = []string{who.signer.Sign(strings.Replace(subject, "append.", "event.", 1), m.Data)}
		}
		if m.Reply = reply; reply == "" {
			m.Reply = fmt.Sprintf("%s.%d", inbox, len(tried))
		}
		tried = append(tried, subject+" ("+form+")")
		_ = who.conn.PublishMsg(m) // what the library refuses to send was not sent
		f.Attempts++
		if len(tried)%2000 == 0 {
			_ = who.conn.FlushTimeout(10 * time.Second) // a server drops whom it cannot follow
		}
	}
	wide, core := forgedSubjects(id)
	f.Subjects = max(f.Subjects, len(wide)+len(core))
	for _, s := range append(slices.Clone(wide), core...) {
		attempt(s, "published", nil, "event.1.vet._._._.vetrun.started._.1")
		attempt(s, "asked", nil, "")
	}
	for _, s := range core {
		attempt(s, "with another's subject for the answer", nil, "$JS.API.STREAM.PURGE."+events.StreamName(1))
		for name, value := range headers {
			if id == string(events.Ledger) && name == "Nats-Trace-Dest" {
				continue // it names a place where the door may write
			}
			attempt(s, name, nats.Header{name: {value}}, "")
		}
		for name, h := range together {
			attempt(s, name, h, "")
		}
	}
	if err := who.conn.FlushTimeout(20 * time.Second); err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	f.judgeAnswers(id, tried, inbox, answers)
	f.judgeHeard(id, heard())
	f.judgeStreams(id, before, l.holds(t))
}

// judgeAnswers reads answers until none comes for a while. An answer that is no refusal says that
// something was done.
func (f *Forged) judgeAnswers(id string, tried []string, inbox string, answers <-chan *nats.Msg) {
	quiet := time.NewTimer(500 * time.Millisecond)
	defer quiet.Stop()
	for {
		select {
		case m := <-answers:
			quiet.Reset(500 * time.Millisecond)
			n := 0
			if _, err := fmt.Sscanf(strings.TrimPrefix(m.Subject, inbox+"."), "%d", &n); err != nil || n >= len(tried) {
				continue
			}
			subject, _, _ := strings.Cut(tried[n], " (")
			if !own(id, subject) && !refused(m) {
				f.find("%s tried %s and was answered %v %.200q", id, tried[n], m.Header, m.Data)
			}
		case <-quiet.C:
			return
		}
	}
}

// refused reports whether an answer says no: nobody takes such requests, or an error of JetStream's. The
// door's own refusal is none: a request that is not the identity's should not have come so far.
func refused(m *nats.Msg) bool {
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return true
	}
	var a struct {
		Error json.RawMessage `json:"error"`
	}
	return json.Unmarshal(m.Data, &a) == nil && len(a.Error) > 0
}

// listen hears everything in every other account, until the returned function is called.
func (l *Ledger) listen(t testing.TB, except string) (heard func() map[string]*nats.Msg) {
	t.Helper()
	all := map[string]*nats.Msg{}
	var conns []*nats.Conn
	messages := make(chan *nats.Msg, 1<<16)
	names := map[*nats.Subscription]string{}
	for _, id := range identity.IDs {
		if id == except || id == string(events.Ledger) || id == string(events.Operator) {
			continue // these two may not listen to everything
		}
		conn := l.Connect(id).Conn()
		sub, err := conn.ChanSubscribe(">", messages)
		if err == nil {
			err = conn.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		names[sub] = id
		conns = append(conns, conn)
	}
	return func() map[string]*nats.Msg {
		for _, c := range conns {
			_ = c.FlushTimeout(10 * time.Second)
		}
		for {
			select {
			case m := <-messages:
				all[names[m.Sub]+" on "+m.Subject] = m
				continue
			default:
			}
			break
		}
		for _, c := range conns {
			c.Close()
		}
		return all
	}
}

func (f *Forged) judgeHeard(id string, heard map[string]*nats.Msg) {
	for where, m := range heard {
		subject := where[strings.LastIndex(where, " ")+1:]
		if own(id, subject) || strings.HasPrefix(subject, "live.") && own(id, strings.TrimPrefix(subject, "live.")) ||
			strings.HasPrefix(subject, "live.kv.") && own(id, "$KV."+strings.TrimPrefix(subject, "live.kv.")) {
			continue
		}
		if !strings.Contains(string(m.Data), "forged by") {
			continue // the bus's own, such as an advisory about what was refused
		}
		f.find("%s was heard by %s: %.100q", id, where, m.Data)
	}
}

// holding is what a stream or a consumer holds.
type holding struct {
	config   string
	state    string
	subjects map[string]uint64
}

// holds looks at every stream and every durable consumer.
func (l *Ledger) holds(t testing.TB) map[string]holding {
	t.Helper()
	all := map[string]holding{}
	js := l.Client(string(events.Operator)).JetStream()
	for _, name := range l.streamNames() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		s, err := js.Stream(ctx, name)
		var info *jetstream.StreamInfo
		if err == nil {
			info, err = s.Info(ctx, jetstream.WithSubjectFilter(">"))
		}
		cancel()
		if err != nil {
			t.Fatalf("looking at %s: %v", name, err)
		}
		config, err := json.Marshal(info.Config)
		if err != nil {
			t.Fatal(err)
		}
		s0 := info.State
		all[name] = holding{
			config: string(config), subjects: s0.Subjects,
			state: fmt.Sprintf("%d messages, %d to %d, %d deleted, %d consumers", s0.Msgs, s0.FirstSeq, s0.LastSeq, s0.NumDeleted, s0.Consumers),
		}
	}
	for _, c := range events.Consumers {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		k, err := js.Consumer(ctx, events.StreamName(1), c.Durable)
		cancel()
		if err != nil {
			t.Fatalf("looking at %s: %v", c.Durable, err)
		}
		info := k.CachedInfo()
		config, err := json.Marshal(info.Config)
		if err != nil {
			t.Fatal(err)
		}
		all["consumer "+c.Durable] = holding{
			config: string(config), state: fmt.Sprintf("acknowledged up to %d, %d redelivered, paused %v", info.AckFloor.Stream, info.NumRedelivered, info.Paused),
		}
	}
	return all
}

// judgeStreams holds every difference against what the identity may write.
func (f *Forged) judgeStreams(id string, before, after map[string]holding) {
	if len(after) != len(before) {
		f.find("%s changed which streams there are: %d became %d", id, len(before), len(after))
	}
	for name, a := range after {
		b := before[name]
		if a.config != b.config {
			f.find("%s changed the configuration of %s", id, name)
		}
		may := ownsStream(id, name)
		if a.state != b.state && !may {
			f.find("%s changed %s: %s became %s", id, name, b.state, a.state)
		}
		for subject, n := range a.subjects {
			if b.subjects[subject] != n && !own(id, subject) {
				f.find("%s changed %s in %s", id, subject, name)
			}
		}
		for subject := range b.subjects {
			if _, there := a.subjects[subject]; !there && !own(id, subject) {
				f.find("%s took %s away from %s", id, subject, name)
			}
		}
	}
}

// rights are what an identity may use of the subjects that the matrix tries, word for word as DESIGN.md has
// it ("Accounts"), beside requests to append under its own name.
var rights = map[string][]string{
	"gateway": {"log.gateway.", "$KV.ACTORS.", "$KV.CONFIG.", "$KV.SECRETS.", "bus.API.DIRECT.GET.KV_", "bus.API.DIRECT.GET.LOGS"},
	"build":   {"log.build.", "bus.API.CONSUMER.MSG.NEXT.EVENTS_1.build", "bus.API.CONSUMER.INFO.EVENTS_1.build", "$JS.ACK.EVENTS_1.build."},
	"vet":     {"log.vet.", "bus.API.CONSUMER.MSG.NEXT.EVENTS_1.vet", "bus.API.CONSUMER.INFO.EVENTS_1.vet", "$JS.ACK.EVENTS_1.vet."},
	"promote": {"log.promote.", "$KV.DISCOVERY.", "bus.API.DIRECT.GET.KV_", "bus.API.CONSUMER.MSG.NEXT.EVENTS_1.promote", "bus.API.CONSUMER.INFO.EVENTS_1.promote", "$JS.ACK.EVENTS_1.promote.", "edge.drain"},
	"verify":  {"log.verify.", "bus.API.DIRECT.GET.KV_DISCOVERY", "bus.API.CONSUMER.MSG.NEXT.EVENTS_1.verify", "bus.API.CONSUMER.INFO.EVENTS_1.verify", "$JS.ACK.EVENTS_1.verify."},
	"watch":   {"log.watch.", "timer.set.", "timer.fired.", "bus.API.DIRECT.GET.KV_DISCOVERY", "bus.API.CONSUMER.MSG.NEXT.TIMERS.timers", "bus.API.CONSUMER.INFO.TIMERS.timers", "$JS.ACK.TIMERS.timers.", "bus.API.CONSUMER.MSG.NEXT.ADVISORIES."},
	"ledger":  {"log.", "$KV.", "timer.", "put.", "event.1.", "$JS.API.DIRECT.GET.EVENTS_1"},
	"edge":    {"bus.API.DIRECT.GET.KV_DISCOVERY"},
	"notify":  {"$KV.NOTIFY.", "bus.API.DIRECT.GET.KV_NOTIFY"},
	"operator": {
		"$JS.API.INFO", "$JS.API.STREAM.CREATE.", "$JS.API.STREAM.UPDATE.", "$JS.API.STREAM.INFO.", "$JS.API.STREAM.NAMES",
		"$JS.API.CONSUMER.CREATE.", "$JS.API.CONSUMER.DURABLE.CREATE.", "$JS.API.CONSUMER.INFO.",
	},
}

// own reports whether a subject is the identity's own to use.
func own(id, subject string) bool {
	if subject == "bus.API.DIRECT.GET.EVENTS_1" || strings.HasPrefix(subject, "append."+id+".") {
		return true
	}
	if id != string(events.Edge) && id != string(events.Operator) && id != "bot" && (strings.HasPrefix(subject, "$KV.TRIES."+id+".") || strings.HasPrefix(subject, "$KV.ASIDE."+id+".")) {
		return true
	}
	return slices.ContainsFunc(rights[id], func(prefix string) bool { return strings.HasPrefix(subject, prefix) })
}

// ownsStream reports whether an identity may add to a stream, or settle a consumer's messages.
func ownsStream(id, name string) bool {
	if id == string(events.Ledger) { // the door writes what there is to write
		return true
	}
	switch name {
	case events.LogStream:
		return slices.Contains(events.Writers, events.Writer(id))
	case events.TimerStream:
		return id == string(events.Watch)
	}
	if bucket, ok := strings.CutPrefix(name, "KV_"); ok {
		return own(id, "$KV."+bucket+".x") || own(id, "$KV."+bucket+"."+id+".x")
	}
	return name == "consumer "+id
}

// forgedSubjects are what an identity tries. The wide ones are every event of every writer, and every
// request to append one: it tries them plainly. The core ones it tries in every form.
func forgedSubjects(id string) (wide, core []string) {
	app := string(fresh())
	place := func(prefix string, w events.Writer, t string) string {
		subject, predicate, _ := strings.Cut(t, ".")
		if prefix == "append" {
			return fmt.Sprintf("append.%s.1.%s.1.prod.%s.%s.k.1", w, app, subject, predicate)
		}
		return fmt.Sprintf("event.1.%s.%s.1.prod.%s.%s.k.1", w, app, subject, predicate)
	}
	for _, w := range events.Writers {
		for _, t := range eventNames {
			if id != string(events.Ledger) { // events are the door's to store
				wide = append(wide, place("event", w, t))
			}
			if string(w) != id {
				wide = append(wide, place("append", w, t))
			}
		}
		if id != string(events.Ledger) {
			core = append(core, place("event", w, "slot.decided"))
		}
		if string(w) != id {
			core = append(core, place("append", w, "slot.decided"), "log."+string(w)+".a.1._.build.1")
		} else {
			core = append(core, "log."+id+".a.1._.build.1", "append."+id+".1.*._._.app.created._._", "append."+id+".1.>", "append."+id+".1.a\x00b._._.app.created._._",
				"append."+id+".2.a._._.app.created._._", "append."+id+".1.A._._.app.created._._", place("append", w, "slot.decided"))
		}
	}
	core = append(core, "event.1.*.a", "event.*.vet.>", "event.2.vet.a", "live.event.1.vet.a", "live.log.build.a", "live.kv.DISCOVERY.prod.a",
		"timer.set.forged", "timer.fired.forged", "$KV.ACTORS.forged", "$KV.CONFIG.prod.a.KEY", "$KV.SECRETS.prod.a.KEY", "$KV.DISCOVERY.prod.a", "$KV.NOTIFY.forged", "$KV.TRIES.build.x", "$KV.ASIDE.build.x", "$KV.TRIES.vet.x", "$KV.ASIDE.vet.x", "$KV.TRIES.edge.x",
		"put.build.log.build.x", "put.gateway.$KV.ACTORS.x", "put.watch.timer.set.x", "command.forged.x", "edge.drain", "ledger.seal", "_INBOX.x.y", "_R_.x.y", "$JS.FC.EVENTS_1.build.x", "$JSC.R.x", "$JS.M.EVENTS_1.x", "$NRG.P.S-R3F-x", "$NRG.V.x",
		"$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.PING.JSZ", "$SYS.REQ.ACCOUNT.BUS.CONNZ", "$SYS.REQ.ACCOUNT.PING.SUBSZ", "$SYS.REQ.SERVER.RELOAD", "$SYS.REQ.USER.INFO.x",
		"$SYS.ACCOUNT.BUS.CONNECT", "$SYS.REQ.CLAIMS.UPDATE", "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.EVENTS_1.build", "$JS.EVENT.ADVISORY.API", "$JS.EVENT.METRIC.CONSUMER.ACK.EVENTS_1.build")
	for _, c := range append([]string{"EVENTS_1.build", "EVENTS_1.vet", "EVENTS_1.promote", "EVENTS_1.verify"}, "TIMERS.timers") {
		core = append(core, "$JS.ACK."+c+".1.1.1.1.0", "$JS.ACK._.x.BUS."+c+".1.1.1.1.0.r")
	}
	if id == string(events.Ledger) {
		// What the door may write it could spoil: that nobody else comes that far is what it is for.
		core = slices.DeleteFunc(core, func(s string) bool { return strings.HasPrefix(s, "event.") || own(id, s) })
	}
	if id == string(events.Operator) {
		return wide, core // the API is what it is there for
	}
	for _, prefix := range []string{"bus.API.", "$JS.API."} {
		for _, verb := range apiVerbs {
			if s := prefix + verb; !own(id, s) {
				core = append(core, s)
			}
		}
	}
	return wide, core
}

// eventNames are subjects and predicates of events of every kind, the door's rights' keys among them.
var eventNames = []string{
	"app.created", "change.merged", "command.received", "command.refused", "replay.requested", "setting.changed", "secret.changed", "policy.published",
	"build.queued", "build.started", "build.finished", "artifact.packaged", "artifact.published", "artifact.signed", "taskrun.started", "taskrun.finished",
	"vetrun.started", "vetrun.finished", "promotion.requested", "promotion.approved", "promotion.denied", "pipelinerun.queued", "pipelinerun.started",
	"pipelinerun.finished", "slot.taken", "slot.decided", "slot.closed", "service.deployed", "service.upgraded", "service.rolledback", "service.removed",
	"stage.replayed", "testsuiterun.started", "testsuiterun.finished", "testcaserun.finished", "stage.stuck", "key.rotated", "checkpoint.sealed",
}

// apiVerbs are the requests of JetStream's API, about streams, consumers and servers that are there.
var apiVerbs = []string{
	"INFO", "STREAM.NAMES", "STREAM.LIST", "STREAM.CREATE.MINE", "STREAM.UPDATE.EVENTS_1", "STREAM.INFO.EVENTS_1", "STREAM.DELETE.EVENTS_1", "STREAM.DELETE.LOGS",
	"STREAM.PURGE.EVENTS_1", "STREAM.PURGE.LOGS", "STREAM.PURGE.TIMERS", "STREAM.PURGE.KV_DISCOVERY", "STREAM.SNAPSHOT.EVENTS_1", "STREAM.RESTORE.EVENTS_1",
	"STREAM.MSG.DELETE.EVENTS_1", "STREAM.MSG.GET.EVENTS_1", "STREAM.MSG.GET.KV_SECRETS", "STREAM.PEER.REMOVE.EVENTS_1", "STREAM.PEER.EVACUATE.EVENTS_1",
	"STREAM.CANCEL_MOVE.EVENTS_1", "STREAM.LEADER.STEPDOWN.EVENTS_1", "CONSUMER.CREATE.EVENTS_1", "CONSUMER.CREATE.EVENTS_1.mine", "CONSUMER.CREATE.EVENTS_1.mine.event.>",
	"CONSUMER.DURABLE.CREATE.EVENTS_1.mine", "CONSUMER.DURABLE.CREATE.EVENTS_1.build", "CONSUMER.NAMES.EVENTS_1", "CONSUMER.LIST.EVENTS_1", "CONSUMER.INFO.EVENTS_1.build",
	"CONSUMER.INFO.EVENTS_1.vet", "CONSUMER.INFO.TIMERS.timers", "CONSUMER.DELETE.EVENTS_1.build", "CONSUMER.DELETE.EVENTS_1.vet", "CONSUMER.PAUSE.EVENTS_1.build",
	"CONSUMER.RESET.EVENTS_1.build", "CONSUMER.UNPIN.EVENTS_1.build", "CONSUMER.LEADER.STEPDOWN.EVENTS_1.build", "CONSUMER.PEER.REMOVE.EVENTS_1.build",
	"CONSUMER.PEER.EVACUATE.EVENTS_1.build", "CONSUMER.MSG.NEXT.EVENTS_1.build", "CONSUMER.MSG.NEXT.EVENTS_1.vet", "CONSUMER.MSG.NEXT.EVENTS_1.promote",
	"CONSUMER.MSG.NEXT.EVENTS_1.verify", "CONSUMER.MSG.NEXT.TIMERS.timers", "META.LEADER.STEPDOWN", "META.RESCUE", "SERVER.REMOVE", "SERVER.EVACUATE",
	"ACCOUNT.PURGE.BUS", "ACCOUNT.STREAM.MOVE.BUS.EVENTS_1", "ACCOUNT.STREAM.CANCEL_MOVE.BUS.EVENTS_1", "DIRECT.GET.KV_SECRETS", "DIRECT.GET.KV_ACTORS",
	"DIRECT.GET.KV_CONFIG", "STREAM.PURGE.ADVISORIES", "CONSUMER.MSG.NEXT.ADVISORIES.advisories", "DIRECT.GET.KV_NOTIFY", "DIRECT.GET.LOGS", "DIRECT.GET.TIMERS",
}

// Goes fails the test where something no longer works after an attack: events of every kind of right, a
// bucket, a log, a timer.
func (l *Ledger) Goes(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	s, e := AppCreated(fresh())
	if _, err := l.Client("gateway").Append(ctx, s, e); err != nil {
		t.Errorf("the ledger takes no events any more: %v", err)
	}
	Soon(t, "a bucket takes a value", func() bool {
		_, err := l.Client("promote").Bucket(events.BucketDiscovery).Put(ctx, "prod."+string(fresh()), []byte("x"))
		return err == nil
	})
	Soon(t, "a timer is set", func() bool {
		return l.Client("watch").Schedule(ctx, fresh(), time.Now().Add(time.Hour), nil) == nil
	})
	Soon(t, "a log is kept", func() bool {
		w := l.Client("vet").Log(ledger.LogKey{Service: "vet", App: fresh(), Run: 1, Stage: "vet", Attempt: 1})
		fmt.Fprintln(w, "a line")
		return w.Close() == nil
	})
}
