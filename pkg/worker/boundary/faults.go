//go:build faults

package boundary

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"towpath.dev/events"
)

// Where a process is to die, and what it tells about itself, is in its environment:
//
//	TOWPATH_KILL    promote:effect:3,vet:ack:1   at whichever comes first: the third time that promote reaches
//	                "effect", or the first time that vet reaches "ack", counted from the process's start
//	TOWPATH_PASSED  a file to which each process appends a line for each boundary that it reaches
const (
	killVariable   = "TOWPATH_KILL"
	passedVariable = "TOWPATH_PASSED"
)

// leave is how long a message that was settled has to leave the process before it dies: the connection writes
// what it was given at once, but in a goroutine of its own.
const leave = 5 * time.Millisecond

var (
	mu     sync.Mutex
	left   map[string]int // how often a point is still to be reached, the last time included
	passed *os.File
	begin  sync.Once
)

// Reached says that a service has come to a boundary with something of an app (empty: of none). It ends the
// process with SIGKILL where TOWPATH_KILL says so, and does not return then.
func Reached(service events.Writer, at Boundary, app events.Slug) {
	begin.Do(read)
	point := string(service) + ":" + string(at)
	mu.Lock()
	defer mu.Unlock()
	n, armed := left[point]
	if armed {
		n--
		left[point] = n
	}
	dies := armed && n == 0
	if passed != nil {
		what := "passed"
		if dies {
			what = "killed"
		}
		fmt.Fprintf(passed, "%d %d %s %s %s %s\n", time.Now().UnixNano(), os.Getpid(), what, service, at, app)
	}
	if !dies {
		return
	}
	if at == Ack {
		time.Sleep(leave)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// read takes the orders out of the environment. An order that cannot be read ends the process: a campaign whose
// kills do not happen would prove nothing.
func read() {
	left = map[string]int{}
	for order := range strings.SplitSeq(os.Getenv(killVariable), ",") {
		if order == "" {
			continue
		}
		cut := strings.LastIndexByte(order, ':')
		n, err := strconv.Atoi(order[cut+1:])
		if cut < 0 || err != nil || n < 1 {
			panic(fmt.Sprintf("%s: %q is not service:boundary:nth", killVariable, order))
		}
		left[order[:cut]] = n
	}
	if name := os.Getenv(passedVariable); name != "" {
		var err error
		if passed, err = os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			panic(fmt.Sprintf("%s: %v", passedVariable, err))
		}
	}
}
