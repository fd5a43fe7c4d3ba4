// Package freeport finds addresses for servers that tests start.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// The ports lie below the range from which the kernel and Docker take some by themselves (32768 and up), so that nobody
// takes one before its server listens, or while a server that is started again does not.
const (
	first = 20000
	count = 12000
)

var (
	mu   sync.Mutex
	held []net.Listener // a socket for each port that was given, in Linux's abstract namespace
)

// Port returns a port of 127.0.0.1 that nobody listens on, by TCP or UDP. No other caller gets it for as long as this
// process lives, in other processes either.
func Port() (int, error) { return on("127.0.0.1") }

// Address is Port for an address of this machine, as host:port.
func Address(host string) (string, error) {
	port, err := on(host)
	return join(host, port), err
}

func join(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

func on(host string) (int, error) {
	mu.Lock()
	defer mu.Unlock()
	for range 1000 {
		port := first + rand.IntN(count)
		mine, err := net.Listen("unix", fmt.Sprintf("@towpath-port-%d", port))
		if err != nil {
			continue
		}
		if !free(join(host, port)) {
			mine.Close()
			continue
		}
		held = append(held, mine)
		return port, nil
	}
	return 0, fmt.Errorf("no free port of %s between %d and %d in 1000 tries", host, first, first+count)
}

func free(address string) bool {
	stream, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	defer stream.Close()
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	return packets.Close() == nil
}
