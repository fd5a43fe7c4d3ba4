// Package proof is the file that proves a deploy with no server: the events of a run and of all that it
// depends on, their place in the sealed ledger, the signed checkpoints, and what the registry holds about
// the image. Export writes it, Verify judges it with nothing but public keys; ../README.md says how anybody can.
//
// What a verified file proves, as of its checkpoint: each event in it was written by the service that its
// subject names and stands in the ledger where it says, and nothing of the run, of its app's slots,
// settings and commands, or of the platform between the run's first event and the checkpoint was left
// out, because every leaf in between is accounted for: in full, or as one that says in the clear that
// it is another app's affair, another run's, or a checkpoint.
//
// What it does not prove: what came after its checkpoint (a file may be an older one: compare its
// checkpoint, or hold it against one that you kept); that no earlier event was left out of those before
// the run's first; that the services did what they signed; and, without a witness's cosignature, that
// whoever holds the ledger's own key shows everybody the same ledger.
package proof

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/seal"
)

// Format names the form of the file; another form has another name.
const Format = "towpath.dev/proof/v1"

// formats begins what a bundle of any form names first, and ending is how it ends.
const formats = `"format":"towpath.dev/proof/`

var ending = regexp.MustCompile(`\nsha256:[0-9a-f]{64}\n$`)

// Resembles reports whether data was written as a bundle, whatever was changed of it since. What was not is no forged
// proof: it is none at all.
func Resembles(data []byte) bool {
	return bytes.Contains(data[:min(len(data), 1024)], []byte(formats)) || ending.Match(data[max(0, len(data)-128):])
}

// MediaType is that of a bundle.
const MediaType = "application/vnd.towpath.proof.v1+json"

// MaxSize is the largest bundle that is read, in bytes.
const MaxSize = 256 << 20

// About says what a bundle is about: a run and, where Environment is given, that it is what runs there.
type About struct {
	App         events.Slug `json:"app"`
	Run         int         `json:"run"`
	Environment events.Slug `json:"environment,omitempty"`
}

// bundle is the file: one line of JSON in exactly the form that encode gives it, and one with its hash.
type bundle struct {
	Format string `json:"format"`
	About  About  `json:"about"`
	// Checkpoints of growing size, each with the proof that it extends the one before. One of them has the
	// size at which Leaves end.
	Checkpoints []extended `json:"checkpoints"`
	// Extends proves that the checkpoint at which Leaves end extends one that somebody has kept.
	Extends *extension `json:"extends,omitempty"`
	// First is the sequence of the first leaf, which is the run's first event.
	First uint64 `json:"first"`
	// Frontier are the roots of the complete subtrees that hold the leaves before First, the largest first.
	Frontier [][]byte `json:"frontier,omitempty"`
	Leaves   []leaf   `json:"leaves"`
	// Before are events from before First that the run depends on, each with its own proof.
	Before   []single   `json:"before,omitempty"`
	Evidence []document `json:"evidence,omitempty"`
	// Keys are the ids of the keys that signed events here.
	Keys []string `json:"keys"`
}

type extended struct {
	Note  string   `json:"note"`
	Proof [][]byte `json:"proof,omitempty"`
}

type extension struct {
	Size  uint64   `json:"size"`
	Proof [][]byte `json:"proof,omitempty"`
}

// leaf is one event of the range: in full (Subject, Signature, Body), of another run of the app (Subject,
// Content), or of somebody else (Scope, About).
type leaf struct {
	Time      int64  `json:"t"` // when it was stored, in nanoseconds since 1970
	Scope     string `json:"scope,omitempty"`
	About     []byte `json:"about,omitempty"`
	Subject   string `json:"subject,omitempty"`
	Content   []byte `json:"content,omitempty"`
	Signature string `json:"signature,omitempty"`
	Body      []byte `json:"body,omitempty"`
}

func (l leaf) full() bool { return l.Body != nil }

// stored is the message that a leaf shows in full.
func (l leaf) stored(seq uint64) ledger.Stored {
	return ledger.Stored{Seq: seq, Time: time.Unix(0, l.Time).UTC(), Subject: l.Subject, Body: l.Body, Signature: l.Signature}
}

func fullLeaf(m ledger.Stored) leaf {
	return leaf{Time: m.Time.UnixNano(), Subject: m.Subject, Signature: m.Signature, Body: m.Body}
}

// errLeaf is wrapped for a leaf of no known shape.
var errLeaf = errors.New("it is neither whole nor one of the two ways to keep something to oneself")

// hash is the leaf's place in the tree, and scope whose affair it is.
func (l leaf) hash(seq uint64) (hash seal.Hash, scope string, err error) {
	at := time.Unix(0, l.Time)
	switch {
	case l.full() && l.Subject != "" && l.Scope == "" && l.About == nil && l.Content == nil:
		return seal.LeafOf(l.stored(seq)), seal.Scope(l.Subject), nil
	case l.Subject != "" && len(l.Content) == tlog.HashSize && l.Scope == "" && l.About == nil && l.Signature == "":
		scope = seal.Scope(l.Subject)
		return seal.Leaf(seq, at, scope, seal.About(l.Subject, seal.Hash(l.Content))), scope, nil
	case l.Scope != "" && len(l.About) == tlog.HashSize && l.Subject == "" && l.Content == nil && l.Signature == "":
		return seal.Leaf(seq, at, l.Scope, seal.Hash(l.About)), l.Scope, nil
	}
	return seal.Hash{}, "", errLeaf
}

// single is one event with its own proof of inclusion.
type single struct {
	Seq       uint64   `json:"seq"`
	Time      int64    `json:"t"`
	Subject   string   `json:"subject"`
	Signature string   `json:"signature"`
	Body      []byte   `json:"body"`
	Proof     [][]byte `json:"proof"`
}

func (s single) stored() ledger.Stored {
	return leaf{Time: s.Time, Subject: s.Subject, Signature: s.Signature, Body: s.Body}.stored(s.Seq)
}

// document is what the registry holds about the image: the referrer's manifest, whose digest an event or
// a signed statement names, and the body that the manifest names.
type document struct {
	Manifest []byte `json:"manifest"`
	Body     []byte `json:"body"`
}

// encode writes the file.
func (b bundle) encode() ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(b); err != nil {
		return nil, fmt.Errorf("writing the proof: %w", err)
	}
	fmt.Fprintf(&out, "sha256:%x\n", sha256.Sum256(out.Bytes()))
	return out.Bytes(), nil
}

// decode reads a file, which must be exactly as encode writes it. Where it is not, what can be read is
// returned beside the error, so that what was changed may be found.
func decode(data []byte) (bundle, error) {
	var b bundle
	if len(data) > MaxSize {
		return b, fmt.Errorf("it has %d bytes; at most %d are read", len(data), MaxSize)
	}
	text, sum, ok := bytes.Cut(data, []byte("\n"))
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		return bundle{}, fmt.Errorf("it is no proof: %w", err)
	}
	if b.Format != Format {
		return b, fmt.Errorf("its form is %.60q; this build reads %s", b.Format, Format)
	}
	if !ok || string(sum) != fmt.Sprintf("sha256:%x\n", sha256.Sum256(append(text[:len(text):len(text)], '\n'))) {
		return b, errors.New("the file is not as it was written: its own hash is another")
	}
	again, err := b.encode()
	if err != nil {
		return b, err
	}
	if !bytes.Equal(again, data) {
		return b, errors.New("the file is not written in the one way that there is")
	}
	return b, nil
}

// Checkpoint returns the note of a bundle's newest checkpoint, unverified.
func Checkpoint(data []byte) (string, error) {
	b, err := decode(data)
	if err != nil {
		return "", err
	}
	if len(b.Checkpoints) == 0 {
		return "", errors.New("it has no checkpoint")
	}
	return b.Checkpoints[len(b.Checkpoints)-1].Note, nil
}

func hashesOf(proof []seal.Hash) [][]byte {
	var all [][]byte
	for _, h := range proof {
		all = append(all, h[:])
	}
	return all
}

func toHashes(proof [][]byte) ([]seal.Hash, error) {
	all := make([]seal.Hash, len(proof))
	for i, h := range proof {
		if len(h) != tlog.HashSize {
			return nil, fmt.Errorf("a hash in it has %d bytes", len(h))
		}
		all[i] = seal.Hash(h)
	}
	return all, nil
}
