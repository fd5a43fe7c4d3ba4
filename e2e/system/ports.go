package system

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

var (
	portsGiven = map[int]bool{}
	portsLock  sync.Mutex
)

// freePort returns a TCP port of 127.0.0.1 that nothing listens on and that was not given before. It lies below
// the range from which the kernel and Docker take ports by themselves, so that nobody else takes it meanwhile.
func freePort() (int, error) {
	portsLock.Lock()
	defer portsLock.Unlock()
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		if portsGiven[port] {
			continue
		}
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		listener.Close()
		portsGiven[port] = true
		return port, nil
	}
	return 0, fmt.Errorf("no free port between 20000 and 32000 in 1000 tries")
}
