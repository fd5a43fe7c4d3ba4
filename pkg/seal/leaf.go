// Package seal is the Merkle tree over the ledger: what a leaf is, the tree's hashes on disk, checkpoints
// (signed notes in the form of C2SP tlog-checkpoint) and witnesses' cosignatures (C2SP tlog-cosignature).
//
// It guarantees that the tree is a pure function of the stream, so that any sealer computes the same one
// and lost files are made anew, and that a checkpoint which Open returns was signed by a key that the
// caller trusts. It does not say whether what was sealed is sensible: that is package proof.
package seal

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"towpath.dev/pkg/ledger"
)

// Hash is a SHA-256 hash in the tree.
type Hash = tlog.Hash

// A leaf binds all that the bus holds of an event: its sequence, when it was stored, its subject, its
// signature and its body. It does so in three steps, so that a proof can show what an event is about
// and keep the rest of it to itself:
//
//	content = SHA-256(len(signature) ":" signature body)
//	about   = SHA-256(len(subject) ":" subject content)
//	leaf    = RFC 6962 leaf hash of "towpath leaf v1\n" sequence "\n" unix nanoseconds "\n" scope "\n" about
//
// The leaf with sequence n stands at index n-1.

// Scope says in the clear whose affair a leaf is: the app's name or, of an event about no app,
// "_.<subject>.<predicate>". A subject that is none of ours has the scope "_".
func Scope(subject string) string {
	t := strings.Split(subject, ".")
	switch {
	case len(t) != 10 || t[0] != "event" || strings.Contains(subject, "\n"):
		return "_"
	case t[3] != "_":
		return t[3]
	}
	return "_." + t[6] + "." + t[7]
}

// Content is the hash of an event's signature and body.
func Content(signature string, body []byte) Hash {
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s", len(signature), signature)
	h.Write(body)
	return Hash(h.Sum(nil))
}

// About is the hash of an event's subject and content.
func About(subject string, content Hash) Hash {
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s", len(subject), subject)
	h.Write(content[:])
	return Hash(h.Sum(nil))
}

// Leaf is the hash of the leaf with a sequence.
func Leaf(seq uint64, stored time.Time, scope string, about Hash) Hash {
	return tlog.RecordHash(fmt.Appendf(nil, "towpath leaf v1\n%d\n%d\n%s\n%s", seq, stored.UnixNano(), scope, about[:]))
}

// LeafOf is the hash of a stored message's leaf.
func LeafOf(s ledger.Stored) Hash {
	return Leaf(s.Seq, s.Time, Scope(s.Subject), About(s.Subject, Content(s.Signature, s.Body)))
}
