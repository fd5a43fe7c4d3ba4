package ledger_test

import (
	"strings"
	"testing"

	"towpath.dev/pkg/ledger/ledgertest"
)

// forge runs the whole matrix and looks that everything goes on, at once and after a restart.
func forge(t *testing.T, l *ledgertest.Ledger) {
	f := l.Forge(t)
	t.Log(f)
	for _, finding := range f.Findings {
		t.Error(finding)
	}
	l.Whole()
	l.Goes(t)
	l.Restart()
	l.Goes(t)
	l.Whole()
}

func TestNobodyForgesOnOneServer(t *testing.T) {
	t.Parallel()
	forge(t, ledgertest.Start(t, ledgertest.Separate()))
}

// Each right too many is noticed, or silence about the rights that there are means nothing.
func TestTheMatrixNoticesARightTooMany(t *testing.T) {
	t.Parallel()
	tooMany := []struct{ what, id, owner, service string }{
		{"an event of vet's", "build", `{service: "event.1.vet.>", accounts: [BUILD]}`, `{service: {account: BUS, subject: "event.1.vet.>"}}`},
		{"another's requests to append", "vet", `{service: "append.promote.>", accounts: [VET]}`, `{service: {account: BUS, subject: "append.promote.>"}}`},
		{"timers", "verify", `{service: "timer.set.>", accounts: [VERIFY]}`, `{service: {account: BUS, subject: "timer.set.>"}}`},
		{"purging logs", "notify", `{service: "$JS.API.STREAM.PURGE.LOGS", accounts: [NOTIFY]}`, `{service: {account: BUS, subject: "$JS.API.STREAM.PURGE.LOGS"}, to: "bus.API.STREAM.PURGE.LOGS"}`},
		{"secrets", "edge", `{service: "$KV.SECRETS.>", accounts: [EDGE]}`, `{service: {account: BUS, subject: "$KV.SECRETS.>"}}`},
	}
	l := ledgertest.Start(t, ledgertest.Loosened(func(conf string) string {
		for _, c := range tooMany {
			conf = strings.Replace(conf, "    exports: [\n", "    exports: [\n      "+c.owner+"\n", 1) // the owner's come first
			head, rest, found := strings.Cut(conf, "\n  "+strings.ToUpper(c.id)+" {\n")
			if !found {
				t.Fatalf("no account of %s", c.id)
			}
			conf = head + "\n  " + strings.ToUpper(c.id) + " {\n" + strings.Replace(rest, "    imports: [\n", "    imports: [\n      "+c.service+"\n", 1)
		}
		return conf
	}))
	for _, c := range tooMany {
		if f := l.Forge(t, c.id); len(f.Findings) == 0 {
			t.Errorf("%s: not noticed: %s", c.what, f)
		}
	}
}
