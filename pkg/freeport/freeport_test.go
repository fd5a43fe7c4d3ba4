package freeport_test

import (
	"net"
	"testing"

	"towpath.dev/pkg/freeport"
)

func TestNoPortIsGivenTwiceOrTaken(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		address, err := freeport.Address("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		if seen[address] {
			t.Fatalf("%s was given twice", address)
		}
		seen[address] = true
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
}
