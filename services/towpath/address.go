package towpath

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// settleAddresses puts the ports of the start before in the place of ports 0, and makes sure that
// nobody else listens on any address, so that a port which is taken is named before anything starts.
func (c *Config) settleAddresses() error {
	before, err := listenedBefore(c.Data)
	if err != nil {
		return err
	}
	var faults []error
	for _, a := range c.addresses() {
		host, port, _ := net.SplitHostPort(*a.address)
		wanted := *a.address
		if oldHost, oldPort, err := net.SplitHostPort(before[a.name]); port == "0" && err == nil && oldHost == host {
			wanted = net.JoinHostPort(host, oldPort)
		}
		bound, err := probe(wanted)
		// The registry's address is in the names of images that are deployed; the others may move.
		if err != nil && wanted != *a.address && a.name != "registry" {
			bound, err = probe(*a.address)
		}
		if err != nil {
			faults = append(faults, taken(a, wanted, err))
			continue
		}
		*a.address = bound
	}
	return errors.Join(faults...)
}

// probe listens for a moment and returns the address that it got.
func probe(address string) (string, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", err
	}
	defer l.Close()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.Itoa(l.Addr().(*net.TCPAddr).Port)), nil
}

func taken(a listenAddress, address string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("the %s's address %s is in use by another program; stop that one, or choose another with %s HOST:PORT (port 0 takes a free one)", a.name, address, a.flag)
	}
	return fmt.Errorf("the %s cannot listen on %s: %w; choose another address with %s HOST:PORT", a.name, address, err, a.flag)
}
