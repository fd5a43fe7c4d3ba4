package identity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"sync"
)

// remembered is how many verified signatures are kept in mind: about 1 MiB.
const remembered = 16384

// proof identifies a signature that was verified, with all that it covers: SHA-256 over key, signature
// and message, the first two being of fixed length.
type proof [sha256.Size]byte

func proofOf(key ed25519.PublicKey, message, sig []byte) proof {
	h := sha256.New()
	h.Write(key)
	h.Write(sig)
	h.Write(message)
	return proof(h.Sum(nil))
}

// memory is the set of the proofs added last. Its zero value is empty.
type memory struct {
	mu   sync.Mutex
	set  map[proof]struct{}
	ring []proof // in the order in which they were added
	next int     // the place in ring that is written next, once it is full
}

func (m *memory) has(p proof) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.set[p]
	return ok
}

func (m *memory) add(p proof) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.set == nil {
		m.set = map[proof]struct{}{}
	}
	if _, ok := m.set[p]; ok {
		return
	}
	m.set[p] = struct{}{}
	if len(m.ring) < remembered {
		m.ring = append(m.ring, p)
		return
	}
	delete(m.set, m.ring[m.next])
	m.ring[m.next] = p
	m.next = (m.next + 1) % remembered
}
