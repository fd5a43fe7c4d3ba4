package identity

import (
	"encoding/binary"
	"testing"
)

func numbered(n int) proof {
	var p proof
	binary.LittleEndian.PutUint64(p[:], uint64(n))
	return p
}

func TestMemoryKeepsTheLast(t *testing.T) {
	var m memory
	const added = 3*remembered + 5
	for n := range added {
		if m.has(numbered(n)) {
			t.Fatalf("%d is known before it was added", n)
		}
		m.add(numbered(n))
		m.add(numbered(n))
	}
	for n := range added {
		if want := n >= added-remembered; m.has(numbered(n)) != want {
			t.Fatalf("%d of %d is known: %v", n, added, !want)
		}
	}
	if len(m.set) != remembered || len(m.ring) != remembered {
		t.Errorf("%d are kept in %d places", len(m.set), len(m.ring))
	}
}
