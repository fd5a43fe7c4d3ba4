package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"towpath.dev/pkg/settings/consul/consultest"
)

// consulBound is how long Consul may take to tell what was changed.
const consulBound = 30 * time.Second

const consulUsage = "usage: consul start [SERVERS], consul freeze|thaw|kill|lose|again, consul put KEY VALUE, consul allow POLICY RULES, " +
	"consul services NAME COUNT, consul tokens COUNT, consul keys PREFIX COUNT"

// consulCommand runs a real Consul of the script's own: README.md says what each verb does.
func consulCommand(ts *testscript.TestScript, neg bool, args []string) {
	h := own(ts)
	if neg || len(args) == 0 || (args[0] == "start") == (h.consul != nil) {
		ts.Fatalf("%s", consulUsage)
	}
	switch verb, rest := args[0], args[1:]; {
	case verb == "start" && len(rest) < 2:
		startConsul(ts, h, rest)
	case verb == "freeze" && len(rest) == 0:
		h.consul[0].Freeze()
	case verb == "thaw" && len(rest) == 0:
		h.consul[0].Thaw()
	case verb == "kill" && len(rest) == 0:
		loseConsul(h, 0)
	case verb == "lose" && len(rest) == 0 && len(h.consul) > 1:
		loseConsul(h, 1)
		awaitText(ts, consulBound, "", func() (string, error) {
			leader, err := h.consul[0].API.Status().Leader()
			if err != nil && strings.Contains(err.Error(), "No cluster leader") {
				return "", nil
			}
			return leader, err
		})
	case verb == "again" && len(rest) == 0:
		for _, server := range h.lost {
			server.Start()
		}
		h.lost = nil
		h.consul[0].AwaitLeader()
	case verb == "put" && len(rest) == 2:
		h.consul[0].Put(rest[0], rest[1])
	case verb == "allow" && len(rest) == 2:
		h.consul[0].Allow(rest[0], rest[1])
	case verb == "services" && len(rest) == 2:
		awaitText(ts, consulBound, rest[1], func() (string, error) {
			entries, _, err := h.consul[0].API.Health().Service(rest[0], "", true, nil)
			return fmt.Sprint(len(entries)), err
		})
	case verb == "tokens" && len(rest) == 1:
		awaitText(ts, consulBound, rest[0], func() (string, error) {
			tokens, _, err := h.consul[0].API.ACL().TokenList(nil)
			count := 0
			for _, token := range tokens {
				if strings.HasPrefix(token.Description, "Made by Towpath") {
					count++
				}
			}
			return fmt.Sprint(count), err
		})
	case verb == "keys" && len(rest) == 2:
		awaitText(ts, consulBound, rest[1], func() (string, error) {
			keys, _, err := h.consul[0].API.KV().Keys(rest[0], "", nil)
			return fmt.Sprint(len(keys)), err
		})
	default:
		ts.Fatalf("%s", consulUsage)
	}
}

// startConsul starts one server, which containers reach too, or a cluster of some, which they do not.
func startConsul(ts *testscript.TestScript, h *holder, args []string) {
	if len(args) == 0 {
		h.consul = []*consultest.Agent{consultest.StartWithACLs(h.t, `{{ GetInterfaceIP "docker0" }}`)}
	} else {
		size, err := strconv.Atoi(args[0])
		ts.Check(err)
		h.consul = consultest.StartClusterWithACLs(h.t, size)
	}
	ts.Setenv("CONSUL", h.consul[0].URL)
	ts.Setenv("CONSUL_TOKEN", consultest.TokenFile(h.t, consultest.Master))
}

// loseConsul kills all servers but the first few.
func loseConsul(h *holder, but int) {
	for _, server := range h.consul[but:] {
		server.Kill()
		h.lost = append(h.lost, server)
	}
}

// awaitText waits until what is looked at is as wanted.
func awaitText(ts *testscript.TestScript, bound time.Duration, want string, look func() (string, error)) {
	deadline := time.Now().Add(bound)
	for {
		got, err := look()
		if err == nil && got == want {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("it is %q (%v), not %q, after %s", got, err, want, bound)
		}
		pause(100 * time.Millisecond)
	}
}
