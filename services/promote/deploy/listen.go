package deploy

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"towpath.dev/pkg/engine"
)

// openPorts are the TCP ports that a container's processes listen on.
type openPorts struct {
	everywhere []int // on an address that is reached from outside the container
	loopback   []int // on its own loopback only
}

func (o openPorts) anywhere(port int) bool { return contains(o.everywhere, port) }

// explain says how the open ports are not the one that was expected, and what to do.
func (o openPorts) explain(port int) (why, do string) {
	switch {
	case contains(o.loopback, port):
		return fmt.Sprintf("it listens on port %d on its own loopback only, so nobody outside its container reaches it", port),
			fmt.Sprintf("let it listen on 0.0.0.0:%d", port)
	case len(o.everywhere) > 0:
		return fmt.Sprintf("nothing listens on port %d; it listens on %s", port, numbers(o.everywhere)),
			fmt.Sprintf("set service.port to %d in towpath.yaml, or let the app listen on %d", o.everywhere[0], port)
	}
	return fmt.Sprintf("nothing listens on port %d, nor on any other", port), "let the app listen there, or set service.port in towpath.yaml"
}

// listening reads which ports a container listens on. known is false where that cannot be seen from here:
// on another machine, or without the right to.
func listening(state engine.State) (open openPorts, known bool) {
	if state.PID == 0 {
		return open, false
	}
	root := fmt.Sprintf("/proc/%d/", state.PID)
	// The process id is the engine's: here it may be nothing, or something else.
	group, err := os.ReadFile(root + "cgroup")
	if err != nil || !strings.Contains(string(group), state.ID) {
		return open, false
	}
	for _, table := range []string{"net/tcp", "net/tcp6"} {
		file, err := os.Open(root + table)
		if err != nil {
			continue
		}
		known = true
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if address, port, ok := listener(lines.Text()); ok {
				open.add(address, port)
			}
		}
		file.Close()
	}
	return open, known
}

func (o *openPorts) add(address net.IP, port int) {
	switch {
	case address.Equal(net.IPv4(127, 0, 0, 11)): // the engine's name server
	case address.IsLoopback():
		o.loopback = appendOnce(o.loopback, port)
	default:
		o.everywhere = appendOnce(o.everywhere, port)
	}
}

// listener reads a line of /proc/net/tcp: "  0: 0100007F:1F90 00000000:0000 0A …", where 0A is LISTEN and
// addresses are words in the machine's byte order.
func listener(line string) (net.IP, int, bool) {
	fields := strings.Fields(line)
	if len(fields) < 4 || fields[3] != "0A" {
		return nil, 0, false
	}
	address, port, ok := strings.Cut(fields[1], ":")
	raw, err := hex.DecodeString(address)
	number, errPort := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || errPort != nil || len(raw)%4 != 0 {
		return nil, 0, false
	}
	for word := range slices.Chunk(raw, 4) {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	return net.IP(raw), int(number), true
}

func appendOnce(ports []int, port int) []int {
	if contains(ports, port) {
		return ports
	}
	return append(ports, port)
}

func contains(ports []int, port int) bool { return slices.Contains(ports, port) }

func numbers(ports []int) string {
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = strconv.Itoa(p)
	}
	return strings.Join(texts, ", ")
}
