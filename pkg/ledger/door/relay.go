package door

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/events"
)

// What else services write, logs, buckets and timers, comes to the door as well, as
// put.<service>.<subject>, and leaves it with none but the headers that it needs: on a stream that several
// servers keep, one message with a header that the bus obeys stops the stream for good.

// readPut returns the message that a request to put asks for. Which service may ask for which subject is
// the bus's to say.
func readPut(m *nats.Msg) (*nats.Msg, error) {
	tokens := strings.SplitN(m.Subject, ".", 3)
	if len(tokens) != 3 {
		return nil, fmt.Errorf("subject %.120q names nothing to put", m.Subject)
	}
	subject := tokens[2]
	for token := range strings.SplitSeq(subject, ".") {
		if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' || r == '*' || r == '>' }) {
			return nil, fmt.Errorf("subject %.120q has a token that is not allowed", subject)
		}
	}
	out := nats.NewMsg(subject)
	out.Data = m.Data
	allowed, err := putHeaders(subject, m.Header)
	out.Header = allowed
	return out, err
}

// putHeaders are those of a request's headers that its kind of message may carry, checked.
func putHeaders(subject string, h nats.Header) (nats.Header, error) {
	kept := nats.Header{}
	keep := func(name string, good func(string) bool) error {
		switch v := h[name]; {
		case len(v) == 0:
			return nil
		case len(v) > 1 || !good(v[0]):
			return fmt.Errorf("header %s is not as it must be", name)
		default:
			kept[name] = v
			return nil
		}
	}
	is := func(want ...string) func(string) bool {
		return func(v string) bool {
			for _, w := range want {
				if v == w {
					return true
				}
			}
			return false
		}
	}
	switch {
	case strings.HasPrefix(subject, "log."):
		return kept, keep("Towpath-Log-End", is("1"))
	case strings.HasPrefix(subject, "$KV."):
		return kept, errors.Join(
			keep(expectLastSubject, func(v string) bool { _, err := strconv.ParseUint(v, 10, 64); return err == nil }),
			keep("KV-Operation", is("DEL", "PURGE")), keep("Nats-Rollup", is("sub")))
	}
	key, timer := strings.CutPrefix(subject, "timer.set.")
	if _, err := events.ParseSlug(key); !timer || err != nil {
		return nil, fmt.Errorf("nothing is kept under %.120q", subject)
	}
	err := errors.Join(
		keep("Nats-Schedule", func(v string) bool {
			at, ok := strings.CutPrefix(v, "@at ")
			_, err := time.Parse(time.RFC3339Nano, at)
			return ok && err == nil
		}),
		keep("Nats-Schedule-Target", is("timer.fired."+key)), keep("Nats-Schedule-TTL", is("24h")))
	if err == nil && len(kept) != 3 {
		err = errors.New("a timer needs its schedule, its target and its life")
	}
	return kept, err
}

// put stores one such message and hands the bus's own answer on. One that may not be stored is not
// answered with anything that could be taken for success.
func (d *Door) put(ctx context.Context, m *nats.Msg) {
	out, err := readPut(m)
	var answer []byte
	if err != nil {
		d.Logger.Warn("refused to store", "subject", fmt.Sprintf("%.200s", m.Subject), "why", err)
		answer = fmt.Appendf(nil, `{"error":{"code":400,"err_code":0,"description":%s}}`, quoted("the ledger's door refused: "+err.Error()))
	} else {
		ctx, cancel := context.WithTimeout(ctx, storeTimeout)
		defer cancel()
		reply, failed := d.Conn.RequestMsgWithContext(ctx, out)
		if failed != nil {
			d.Logger.Debug("the bus did not acknowledge", "subject", out.Subject, "err", failed)
			return // unknown: the one who asked asks again
		}
		answer = reply.Data
	}
	if m.Reply == "" {
		return
	}
	if err := m.Respond(answer); err != nil {
		d.Logger.Warn("not answered", "subject", m.Subject, "err", err)
	}
}

// quoted is a text as JSON has it.
func quoted(text string) []byte {
	data, err := json.Marshal(text)
	if err != nil {
		return []byte(`"refused"`)
	}
	return data
}
