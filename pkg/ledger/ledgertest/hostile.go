package ledgertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
)

// head returns the last sequence of the ledger, as the server that leads it has it.
func head(t *testing.T, l *Ledger) (seq uint64) {
	t.Helper()
	Soon(t, "the events stream says where it ends", func() bool {
		info, err := l.streamInfo(events.StreamName(l.Epoch))
		if err == nil {
			seq = info.State.LastSeq
		}
		return err == nil
	})
	return seq
}

// signer returns the signing key of an identity.
func (l *Ledger) signer(t *testing.T, id string) *identity.Signer {
	t.Helper()
	s, err := identity.LoadSigner(l.Keys, id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// hostileRequests sends requests that the door must refuse, each with words that say why, and looks
// that nothing was stored.
func hostileRequests(t *testing.T, l *Ledger) {
	gateway, build := l.signer(t, "gateway"), l.signer(t, "build")
	s, e := AppCreated(fresh())
	other := events.AppSubject(1, fresh())
	for name, m := range map[string]*nats.Msg{
		"wrong signer":        request(t, build, s, e),
		"moved subject":       moved(request(t, gateway, s, e), other.AppendSubject()),
		"wild card":           moved(request(t, gateway, s, e), "append.gateway.1.*._._.app.created._._"),
		"full wild card":      moved(request(t, gateway, s, e), "append.gateway.1.a._._.app.>"),
		"too few tokens":      moved(request(t, gateway, s, e), "append.gateway.1.a"),
		"upper case":          moved(request(t, gateway, s, e), "append.gateway.1.APP._._.app.created._._"),
		"oversize":            oversize(gateway, s),
		"no signature":        without(request(t, gateway, s, e), identity.SignatureHeader),
		"ce-id of another":    with(request(t, gateway, s, e), "ce-id", events.NewID()),
		"ce-type of another":  with(request(t, gateway, s, e), "ce-type", "dev.cdevents.build.started.0.3.0"),
		"ce-time missing":     without(request(t, gateway, s, e), "ce-time"),
		"nothing":             moved(nats.NewMsg("x"), s.AppendSubject()),
		"another's type":      request(t, gateway, events.SlotSubject(1, events.TypeSlotTaken, "a", "prod", 1), e),
		"signed, but no JSON": raw(gateway, s, []byte("\x00\xff")),
	} {
		t.Run(name, func(t *testing.T) {
			before := head(t, l)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			reply, err := l.Client("gateway").Conn().RequestMsgWithContext(ctx, m)
			if err == nil {
				var a ledger.Answer
				if err := json.Unmarshal(reply.Data, &a); err != nil || a.Refused == "" {
					t.Errorf("answered %s", reply.Data)
				}
			} else if !errors.Is(err, nats.ErrNoResponders) && !errors.Is(err, nats.ErrMaxPayload) {
				t.Errorf("not answered: %v", err)
			}
			if after := head(t, l); after != before {
				t.Errorf("something was stored: %d became %d", before, after)
			}
		})
	}
	_, err := l.Client("gateway").Append(t.Context(), events.SlotSubject(1, events.TypeSlotTaken, "a", "prod", 1), e)
	if !errors.Is(err, ledger.ErrRefused) {
		t.Errorf("Append of another's event: %v", err)
	}
}

func moved(m *nats.Msg, subject string) *nats.Msg { m.Subject = subject; return m }

func with(m *nats.Msg, name, value string) *nats.Msg { m.Header[name] = []string{value}; return m }

func without(m *nats.Msg, name string) *nats.Msg { delete(m.Header, name); return m }

func raw(signer *identity.Signer, s events.Subject, body []byte) *nats.Msg {
	m := nats.NewMsg(s.AppendSubject())
	m.Data = body
	m.Header[identity.SignatureHeader] = []string{signer.Sign(s.String(), body)}
	return m
}

func oversize(signer *identity.Signer, s events.Subject) *nats.Msg {
	return raw(signer, s, []byte(`{"x":"`+strings.Repeat("x", events.MaxEventSize)+`"}`))
}

// pastTheDoor has every identity but the door publish where events are stored, and where others append.
func pastTheDoor(t *testing.T, l *Ledger) {
	for _, id := range identity.IDs {
		if id == string(events.Ledger) {
			continue
		}
		t.Run(id, func(t *testing.T) {
			c := l.Connect(id)
			before := head(t, l)
			app := fresh()
			s, e := AppCreated(app)
			var subjects []string
			subjects = append(subjects, s.String(), "live."+s.String(), "log.other.x", "timer.fired.x", "$KV.DISCOVERY.x.y")
			for _, w := range events.Writers {
				if string(w) != id {
					subjects = append(subjects, strings.Replace(s.AppendSubject(), "gateway", string(w), 1))
				}
			}
			for _, subject := range subjects {
				if id == string(events.Promote) && strings.HasPrefix(subject, "$KV.DISCOVERY") {
					continue // its own
				}
				m := request(t, c.Signer(), s, e)
				m.Subject = subject
				if stored(c, m) {
					t.Errorf("%s was answered", subject)
				}
				m.Reply = s.String() // the acknowledgement of anything must not be stored there
				_ = c.Conn().PublishMsg(m)
			}
			own := nats.NewMsg("append." + id + ".1.x")
			own.Reply = s.String()
			_ = c.Conn().PublishMsg(own)
			if err := c.Conn().Flush(); err != nil {
				t.Fatal(err)
			}
			if after := head(t, l); after != before {
				t.Errorf("something was stored: %d became %d", before, after)
			}
			if _, err := l.Client("gateway").Append(t.Context(), s, e); err != nil {
				t.Errorf("the rightful event cannot be stored any more: %v", err)
			}
		})
	}
}

// stored reports whether somebody acknowledged a message.
func stored(c *ledger.Client, m *nats.Msg) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	reply, err := c.Conn().RequestMsgWithContext(ctx, m)
	if err != nil {
		return false
	}
	var answer struct {
		Seq   uint64          `json:"seq"`
		Error json.RawMessage `json:"error"`
	}
	return json.Unmarshal(reply.Data, &answer) != nil || answer.Seq > 0
}

// changeTheBus has every runtime identity try to change streams and to make consumers, whose deliver
// subject could otherwise write anywhere.
func changeTheBus(t *testing.T, l *Ledger) {
	stream := events.StreamName(1)
	verbs := []string{
		"STREAM.UPDATE." + stream, "STREAM.DELETE." + stream, "STREAM.PURGE." + stream, "STREAM.MSG.DELETE." + stream,
		"STREAM.CREATE.MINE", "STREAM.SNAPSHOT." + stream, "STREAM.RESTORE." + stream, "STREAM.INFO." + stream, "STREAM.LIST",
		"CONSUMER.CREATE." + stream + ".mine", "CONSUMER.DURABLE.CREATE." + stream + ".mine", "CONSUMER.DELETE." + stream + ".build",
		"CONSUMER.PAUSE." + stream + ".build", "CONSUMER.UNPIN." + stream + ".build", "CONSUMER.RESET." + stream + ".build",
		"STREAM.MSG.GET." + stream, "META.LEADER.STEPDOWN", "ACCOUNT.PURGE.BUS", "INFO",
		"DIRECT.GET.KV_ACTORS", "DIRECT.GET.KV_SECRETS",
	}
	for _, id := range readers {
		c := l.Connect(id)
		for _, verb := range verbs {
			if id == string(events.Gateway) && strings.HasPrefix(verb, "DIRECT.GET.KV_") || id == string(events.Promote) && verb == "DIRECT.GET.KV_SECRETS" {
				continue
			}
			body := "{}"
			if strings.HasPrefix(verb, "CONSUMER.UNPIN") {
				body = `{"group":"g"}` // it looks at its body before it looks at the account
			}
			for _, api := range []string{"bus.API.", "$JS.API."} {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				reply, err := c.Conn().RequestWithContext(ctx, api+verb, []byte(body))
				cancel()
				if err == nil && !refusal(reply.Data) {
					t.Errorf("%s asked %s%s and got %.200s", id, api, verb, reply.Data)
				}
			}
		}
	}
	if _, err := l.Client("gateway").Read(t.Context(), 0, func(ledger.Record) error { return nil }); err != nil {
		t.Errorf("reading afterwards: %v", err)
	}
}

// refusal reports whether JetStream's answer is that there is no JetStream for this account (10039), or that
// this account has no such stream (10059).
func refusal(data []byte) bool {
	var answer struct {
		Error struct {
			Code int `json:"err_code"`
		} `json:"error"`
	}
	return json.Unmarshal(data, &answer) == nil && (answer.Error.Code == 10039 || answer.Error.Code == 10059)
}

// settleAnothers has verify try to settle and to pull what was delivered to build.
func settleAnothers(t *testing.T, l *Ledger) {
	appendCommand(t, l)
	thief := l.Connect("verify").Conn()
	if _, err := thief.Request("bus.API.CONSUMER.MSG.NEXT.EVENTS_1.build", []byte(`{"batch":1,"expires":1000000000}`), time.Second/2); err == nil {
		t.Error("verify pulled build's message")
	}
	var before uint64 // once the consumer has seen the command
	Soon(t, "build has a message to do", func() bool { before = pending(t, l, "build"); return before > 0 })
	for seq := range uint64(200) {
		_ = thief.PublishRequest(fmt.Sprintf("$JS.ACK.EVENTS_1.build.1.%d.%d.1.0", seq, seq), "$JS.ACK.EVENTS_1.build.1.1.1.1.0", []byte("+ACK"))
	}
	if err := thief.Flush(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		t.Fatal(err)
	}
	// More may have come into the consumer's sight since; an acknowledgement that counted would leave less.
	if after := pending(t, l, "build"); after < before {
		t.Errorf("build had %d messages to do, after verify's acknowledgements %d", before, after)
	}
}

// appendCommand stores a command that wakes the workers, and returns its sequence.
func appendCommand(t *testing.T, l *Ledger) uint64 {
	t.Helper()
	id := events.NewID()
	body := &events.CommandReceived{About: events.About{ID: id}}
	body.Verb = events.VerbHold
	r, err := l.Client("gateway").Append(t.Context(),
		events.CommandSubject(1, events.TypeCommandReceived, "", 0, "", id), events.New(events.Gateway, time.Now(), "", body))
	if err != nil {
		t.Fatal(err)
	}
	return r.Seq
}

// pending is what a durable consumer still has to do.
func pending(t *testing.T, l *Ledger, durable string) uint64 {
	t.Helper()
	k, err := l.Client(durable).JetStream().Consumer(t.Context(), events.StreamName(1), durable)
	if err != nil {
		t.Fatal(err)
	}
	info := k.CachedInfo()
	return info.NumPending + uint64(info.NumAckPending)
}
