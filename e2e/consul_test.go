package e2e

import (
	"fmt"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"towpath.dev/pkg/settings/consul/consultest"
)

// consulBound is how long Consul may take to tell what was changed.
const consulBound = 30 * time.Second

// consul start: a Consul with ACLs, which containers reach as well. consul freeze|thaw: SIGSTOP, SIGCONT. consul put KEY
// VALUE: as somebody else writes there. consul services NAME COUNT, consul tokens COUNT: once there are so many.
func consulCommand(ts *testscript.TestScript, neg bool, args []string) {
	h := own(ts)
	usage := "usage: consul start|freeze|thaw, consul put KEY VALUE, consul services NAME COUNT, consul tokens COUNT"
	if neg || len(args) == 0 || (args[0] == "start") == (h.consul != nil) {
		ts.Fatalf("%s", usage)
	}
	switch {
	case args[0] == "start":
		h.consul = consultest.StartWithACLs(h.t, `{{ GetInterfaceIP "docker0" }}`)
		ts.Setenv("CONSUL", h.consul.URL)
		ts.Setenv("CONSUL_TOKEN", consultest.TokenFile(h.t, consultest.Master))
	case args[0] == "freeze":
		h.consul.Freeze()
	case args[0] == "thaw":
		h.consul.Thaw()
	case args[0] == "put" && len(args) == 3:
		h.consul.Put(args[1], args[2])
	case args[0] == "services" && len(args) == 3:
		awaitCount(ts, args[2], func() (int, error) {
			entries, _, err := h.consul.API.Health().Service(args[1], "", true, nil)
			return len(entries), err
		})
	case args[0] == "tokens" && len(args) == 2:
		awaitCount(ts, args[1], func() (int, error) {
			tokens, _, err := h.consul.API.ACL().TokenList(nil)
			count := 0
			for _, token := range tokens {
				if strings.HasPrefix(token.Description, "Made by Towpath") {
					count++
				}
			}
			return count, err
		})
	default:
		ts.Fatalf("%s", usage)
	}
}

func awaitCount(ts *testscript.TestScript, want string, count func() (int, error)) {
	deadline := time.Now().Add(consulBound)
	for {
		got, err := count()
		if err == nil && fmt.Sprint(got) == want {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("there are %d (%v), not %s", got, err, want)
		}
		<-time.After(100 * time.Millisecond)
	}
}
