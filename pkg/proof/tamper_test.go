package proof

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/seal"
)

// tampering is one way to change a proof or the ledger beneath it.
type tampering struct {
	name string
	// file changes the bytes of the file, of which the attacker can write the hash at its end again.
	file func(*rand.Rand, []byte) []byte
	// bundle changes what the file says; it is written again in good form.
	bundle func(*rand.Rand, *bundle) bool
	// stream changes the ledger beneath. The attacker has the ledger's own key, seals what came out, and
	// exports anew; only the auditor's kept checkpoint, or the witness, stands against that.
	stream func(*rand.Rand, *world) bool
	// roles says that the change is found even with neither of the two.
	roles bool
}

// rehash writes the file's own hash again.
func rehash(data []byte) []byte {
	text, _, _ := bytes.Cut(data, []byte("\n"))
	text = append(slices.Clone(text), '\n')
	return fmt.Appendf(text, "sha256:%x\n", sha256.Sum256(text))
}

func pick[T any](r *rand.Rand, list []T) int { return r.IntN(len(list)) }

// fullLeaves are the places of the events that are shown.
func fullLeaves(b *bundle) (places []int) {
	for i, l := range b.Leaves {
		if l.full() {
			places = append(places, i)
		}
	}
	return places
}

func flip(r *rand.Rand, data []byte) []byte {
	data = slices.Clone(data)
	data[r.IntN(len(data))] ^= 1 << r.IntN(8)
	return data
}

var tamperings = []tampering{
	{name: "a byte of the file is flipped", file: flip},
	{name: "a byte is flipped and the hash written again", file: func(r *rand.Rand, d []byte) []byte {
		text, _, _ := bytes.Cut(d, []byte("\n"))
		return rehash(append(flip(r, text), '\n'))
	}},
	{name: "the end is cut off", file: func(r *rand.Rand, d []byte) []byte { return d[:r.IntN(len(d))] }},
	{name: "something is put in", file: func(r *rand.Rand, d []byte) []byte {
		at := r.IntN(len(d))
		return rehash(slices.Insert(slices.Clone(d), at, " \t\r{}[],:0a"[r.IntN(11)]))
	}},
	{name: "an event is dropped", bundle: func(r *rand.Rand, b *bundle) bool {
		at := pick(r, b.Leaves)
		b.Leaves = slices.Delete(b.Leaves, at, at+1)
		return true
	}},
	{name: "an event's content is kept back", bundle: func(r *rand.Rand, b *bundle) bool {
		l := &b.Leaves[fullLeaves(b)[pick(r, fullLeaves(b))]]
		content := seal.Content(l.Signature, l.Body)
		*l = leaf{Time: l.Time, Subject: l.Subject, Content: content[:]}
		return true
	}},
	{name: "an event is passed off as somebody else's", bundle: func(r *rand.Rand, b *bundle) bool {
		l := &b.Leaves[fullLeaves(b)[pick(r, fullLeaves(b))]]
		about := seal.About(l.Subject, seal.Content(l.Signature, l.Body))
		*l = leaf{Time: l.Time, Scope: []string{"billing", seal.Scope(l.Subject), checkpointScope}[r.IntN(3)], About: about[:]}
		return true
	}},
	{name: "two events change places", bundle: func(r *rand.Rand, b *bundle) bool {
		i, j := pick(r, b.Leaves), pick(r, b.Leaves)
		b.Leaves[i], b.Leaves[j] = b.Leaves[j], b.Leaves[i]
		return i != j
	}},
	{name: "an event is there twice", bundle: func(r *rand.Rand, b *bundle) bool {
		at := pick(r, b.Leaves)
		b.Leaves = slices.Insert(b.Leaves, at, b.Leaves[at])
		return true
	}},
	{name: "the last events are dropped", bundle: func(r *rand.Rand, b *bundle) bool {
		b.Leaves = b.Leaves[:len(b.Leaves)-1-r.IntN(len(b.Leaves)-1)]
		return true
	}},
	{name: "a body is changed", bundle: func(r *rand.Rand, b *bundle) bool {
		l := &b.Leaves[fullLeaves(b)[pick(r, fullLeaves(b))]]
		l.Body = flip(r, l.Body)
		return true
	}},
	{name: "a time is changed", bundle: func(r *rand.Rand, b *bundle) bool {
		b.Leaves[pick(r, b.Leaves)].Time += 1 + r.Int64N(1e12)
		return true
	}},
	{name: "a subject is changed", bundle: func(r *rand.Rand, b *bundle) bool {
		places := fullLeaves(b)
		i, j := places[pick(r, places)], places[pick(r, places)]
		b.Leaves[i].Subject, b.Leaves[j].Subject = b.Leaves[j].Subject, b.Leaves[i].Subject
		return i != j
	}},
	{name: "an earlier event is dropped", bundle: func(r *rand.Rand, b *bundle) bool {
		at := pick(r, b.Before)
		b.Before = slices.Delete(b.Before, at, at+1)
		return true
	}},
	{name: "an earlier event is there twice", bundle: func(r *rand.Rand, b *bundle) bool {
		at := pick(r, b.Before)
		b.Before = slices.Insert(b.Before, at, b.Before[at])
		return true
	}},
	{name: "an earlier event is moved", bundle: func(r *rand.Rand, b *bundle) bool {
		at := pick(r, b.Before)
		b.Before[at].Seq += 1 + r.Uint64N(2)
		return true
	}},
	{name: "a piece of evidence is dropped", bundle: func(r *rand.Rand, b *bundle) bool {
		at := pick(r, b.Evidence)
		b.Evidence = slices.Delete(b.Evidence, at, at+1)
		return true
	}},
	{name: "a piece of evidence is there twice", bundle: func(r *rand.Rand, b *bundle) bool {
		b.Evidence = append(b.Evidence, b.Evidence[pick(r, b.Evidence)])
		return true
	}},
	{name: "two pieces of evidence change places", bundle: func(r *rand.Rand, b *bundle) bool {
		i, j := pick(r, b.Evidence), pick(r, b.Evidence)
		b.Evidence[i], b.Evidence[j] = b.Evidence[j], b.Evidence[i]
		return i != j
	}},
	{name: "evidence gets another's content", bundle: func(r *rand.Rand, b *bundle) bool {
		i, j := pick(r, b.Evidence), pick(r, b.Evidence)
		b.Evidence[i].Body = b.Evidence[j].Body
		return i != j
	}},
	{name: "the checkpoints are dropped but one", bundle: func(r *rand.Rand, b *bundle) bool {
		b.Checkpoints = b.Checkpoints[:len(b.Checkpoints)-1]
		return true
	}},
	{name: "the signatures are cut from a checkpoint", bundle: func(r *rand.Rand, b *bundle) bool {
		c := &b.Checkpoints[pick(r, b.Checkpoints)]
		lines := bytes.SplitAfter([]byte(c.Note), []byte("\n"))
		at := 4 + r.IntN(len(lines)-5)
		c.Note = string(bytes.Join(slices.Delete(lines, at, at+1), nil))
		return true
	}},
	{name: "a signature of a checkpoint is there twice", bundle: func(r *rand.Rand, b *bundle) bool {
		c := &b.Checkpoints[pick(r, b.Checkpoints)]
		lines := bytes.SplitAfter([]byte(c.Note), []byte("\n"))
		c.Note += string(lines[4+r.IntN(len(lines)-5)])
		return true
	}},
	{name: "a checkpoint gets another size", bundle: func(r *rand.Rand, b *bundle) bool {
		c := &b.Checkpoints[pick(r, b.Checkpoints)]
		lines := bytes.SplitAfter([]byte(c.Note), []byte("\n"))
		lines[1] = []byte(strconv.Itoa(1+r.IntN(200)) + "\n")
		text := string(bytes.Join(lines, nil))
		changed := text != c.Note
		c.Note = text
		return changed
	}},
	{name: "it is said to be about another run", bundle: func(r *rand.Rand, b *bundle) bool {
		b.About.Run += 1 + r.IntN(3)
		return true
	}},
	{name: "it is said to be about another environment", bundle: func(r *rand.Rand, b *bundle) bool {
		b.About.Environment = []events.Slug{"dev", "production", "qb"}[r.IntN(3)]
		return b.About.Environment != "dev"
	}},
	{name: "the frontier is changed", bundle: func(r *rand.Rand, b *bundle) bool {
		at := pick(r, b.Frontier)
		b.Frontier[at] = flip(r, b.Frontier[at])
		return true
	}},
	{name: "it begins elsewhere", bundle: func(r *rand.Rand, b *bundle) bool {
		b.First += 1 + r.Uint64N(5)
		return true
	}},
	{name: "the list of keys is changed", bundle: func(r *rand.Rand, b *bundle) bool {
		at := pick(r, b.Keys)
		b.Keys = slices.Delete(b.Keys, at, at+1)
		return true
	}},

	{name: "ledger: an event is edited", stream: func(r *rand.Rand, w *world) bool {
		m := &w.stored[r.IntN(len(w.stored))]
		m.Body = flip(r, m.Body)
		return true
	}},
	{name: "ledger: an event is dropped", stream: func(r *rand.Rand, w *world) bool {
		w.drop(r.IntN(len(w.stored)))
		return true
	}},
	{name: "ledger: two events change places", stream: func(r *rand.Rand, w *world) bool {
		i, j := r.IntN(len(w.stored)), r.IntN(len(w.stored))
		a, b := w.stored[i], w.stored[j]
		w.stored[i], w.stored[j] = b, a
		w.stored[i].Seq, w.stored[j].Seq = a.Seq, b.Seq
		return i != j
	}},
	{name: "ledger: forked", stream: func(r *rand.Rand, w *world) bool {
		w.stored = w.stored[:len(w.stored)-1-r.IntN(5)]
		w.set("dev", 100+r.Uint64N(100))
		return true
	}},
	{name: "ledger: rolled back", stream: func(r *rand.Rand, w *world) bool {
		w.stored = w.stored[:len(w.stored)-2-r.IntN(5)]
		return true
	}},
	{name: "ledger: an event is signed by another service", roles: true, stream: func(r *rand.Rand, w *world) bool {
		m := &w.stored[w.ofRun(r, 2)]
		s, err := events.ParseSubject(m.Subject)
		other := events.Writers[r.IntN(len(events.Writers))]
		m.Signature = w.signers[other].Sign(m.Subject, m.Body)
		return err == nil && other != s.Writer
	}},
	{name: "ledger: an event is moved to another service's subject", roles: true, stream: func(r *rand.Rand, w *world) bool {
		m := &w.stored[w.ofRun(r, 2)]
		s, err := events.ParseSubject(m.Subject)
		other := events.Writers[r.IntN(len(events.Writers))]
		changed := other != s.Writer
		s.Writer = other
		m.Subject = s.String()
		return err == nil && changed
	}},
	{name: "ledger: an event comes from a service that may not write it", roles: true, stream: func(r *rand.Rand, w *world) bool {
		m := &w.stored[w.ofRun(r, 2)]
		s, err := events.ParseSubject(m.Subject)
		e, unread := events.Decode(m.Body)
		if s.Writer = events.Writers[r.IntN(len(events.Writers))]; err != nil || unread != nil || events.MayWrite(s.Writer, e.Body.Type()) {
			return false
		}
		m.Subject = s.String()
		m.Signature = w.signers[s.Writer].Sign(m.Subject, m.Body) // the genuine key of the wrong service
		return true
	}},
	{name: "ledger: an approval is dropped", roles: true, stream: func(r *rand.Rand, w *world) bool {
		w.drop(w.find("promotion.approved"))
		return true
	}},
	{name: "ledger: the command behind an approval is dropped", roles: true, stream: func(r *rand.Rand, w *world) bool {
		w.drop(w.find("command.received"))
		return true
	}},
	{name: "ledger: the verdict is dropped", roles: true, stream: func(r *rand.Rand, w *world) bool {
		w.drop(w.find(".hello.2._.vetrun.finished"))
		return true
	}},
	{name: "ledger: the test is dropped", roles: true, stream: func(r *rand.Rand, w *world) bool {
		w.drop(w.find(".hello.2.qa.testsuiterun.finished"))
		return true
	}},
}

func (w *world) drop(at int) {
	w.stored = slices.Delete(w.stored, at, at+1)
	for i := range w.stored {
		w.stored[i].Seq = uint64(i + 1)
	}
}

func (w *world) find(part string) int {
	at := slices.IndexFunc(w.stored, func(m ledger.Stored) bool { return bytes.Contains([]byte(m.Subject), []byte(part)) })
	if at < 0 {
		w.t.Fatalf("no event on %s", part)
	}
	return at
}

// ofRun chooses an event of run n of hello.
func (w *world) ofRun(r *rand.Rand, n int) int {
	var places []int
	for i, m := range w.stored {
		if s, err := events.ParseSubject(m.Subject); err == nil && s.App == "hello" && s.Run == n {
			places = append(places, i)
		}
	}
	return places[pick(r, places)]
}

// reseal signs the ledger as it is now with the ledger's own key, as one who has stolen it could. The
// witness does not sign.
func (w *world) reseal() {
	tree := w.tree()
	root, err := tree.Root(tree.Size())
	if err != nil {
		w.t.Fatal(err)
	}
	c := seal.Checkpoint{Origin: seal.Origin(w.stored[0].ID(), 1), Size: tree.Size(), Root: root}
	w.head = seal.Status{Origin: c.Origin, Serial: w.serial + 1, Size: c.Size, Checkpoint: seal.Sign(w.signers[events.Ledger], c)}
}

// TestEveryTamperingIsFound tampers in every way, each many times, and lists what is not found. A seed
// replays a failure: TOWPATH_TAMPER_SEED; TOWPATH_TAMPER_ROUNDS asks for more than the usual rounds.
func TestEveryTamperingIsFound(t *testing.T) {
	seed := fromEnv(t, "TOWPATH_TAMPER_SEED", uint64(rand.Uint32()))
	rounds := int(fromEnv(t, "TOWPATH_TAMPER_ROUNDS", 40))
	w := newWorld(t)
	w.populate()
	about := About{App: "hello", Run: 2, Environment: "prod"}
	kept := w.head // by the auditor, and witnessed
	// More comes after it, so that a rollback and a fork have room.
	fourth := w.startRun("hello", 4)
	w.build(4, fourth)
	w.seal()
	honest := w.export(Wish{About: about})
	terms := w.terms()
	if v := Verify(honest, terms); !v.Proven() {
		t.Fatalf("the honest proof: %s", v.Headline())
	}
	t.Logf("seed %d, %d bytes, %d ways", seed, len(honest), len(tamperings))
	tried, byKind := 0, map[string]int{}
	for k, kind := range tamperings {
		for round := range rounds {
			r := rand.New(rand.NewPCG(seed, uint64(k)<<32|uint64(round)))
			data, changed, used := w.tampered(r, kind, honest, about, kept)
			if !changed {
				continue
			}
			tried++
			byKind[kind.name]++
			if v := Verify(data, used(terms)); v.Proven() {
				t.Errorf("%s (seed %d, round %d): not found", kind.name, seed, round)
			}
		}
	}
	for _, kind := range tamperings {
		if byKind[kind.name] == 0 {
			t.Errorf("%s: never tried", kind.name)
		}
	}
	if tried < 1000 && rounds >= 40 {
		t.Errorf("only %d tamperings", tried)
	}
	t.Logf("%d tamperings in %d ways, all looked for", tried, len(tamperings))
}

func fromEnv(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		t.Fatalf("%s=%q: %v", name, text, err)
	}
	return n
}

// tampered returns a file that somebody tampered with, and how the auditor's terms are then.
func (w *world) tampered(r *rand.Rand, kind tampering, honest []byte, about About, kept seal.Status) (data []byte, changed bool, used func(Terms) Terms) {
	same := func(t Terms) Terms { return t }
	switch {
	case kind.file != nil:
		data = kind.file(r, honest)
		return data, !bytes.Equal(data, honest), same
	case kind.bundle != nil:
		b, err := decode(honest)
		if err != nil {
			w.t.Fatal(err)
		}
		if !kind.bundle(r, &b) {
			return nil, false, same
		}
		data, err = b.encode()
		if err != nil {
			w.t.Fatal(err)
		}
		return data, !bytes.Equal(data, honest), same
	}
	other := *w
	other.stored = slices.Clone(w.stored)
	if !kind.stream(r, &other) {
		return nil, false, same
	}
	// The auditor holds a checkpoint that seals what was changed: the newest, or an older one.
	at := other.differs(w)
	held := w.head
	if at < int(kept.Size) && r.IntN(2) == 0 {
		held = kept
	}
	if at >= int(held.Size) {
		return nil, false, same // nobody has sealed it yet
	}
	other.reseal()
	// The attacker's exporter shows what an honest one would not: events that nobody believes.
	wish := Wish{About: about}
	if !kind.roles && held.Size <= other.head.Size {
		wish.Extends = held.Size
	}
	data, err := other.forge(wish)
	if err != nil {
		return nil, false, same
	}
	return data, true, func(t Terms) Terms {
		t.Witnesses = nil // the attacker's checkpoint has no cosignature, and nobody asks
		if !kind.roles {
			t.Checkpoint = held.Checkpoint
		}
		return t
	}
}

// differs returns the place of the first event that is another.
func (w *world) differs(from *world) int {
	for i := range from.stored {
		if i >= len(w.stored) || seal.LeafOf(w.stored[i]) != seal.LeafOf(from.stored[i]) {
			return i
		}
	}
	return len(from.stored)
}

// forge exports without verifying anything.
func (w *world) forge(wish Wish) ([]byte, error) {
	x := exporter{source: w.source(), wish: wish, policies: map[string]ledger.Stored{}, settings: map[string]ledger.Stored{}}
	for _, m := range w.stored {
		if err := x.takeAnyway(m); err != nil {
			return nil, err
		}
	}
	x.size = w.head.Size
	b := bundle{Format: Format, About: wish.About, First: x.first, Leaves: x.leaves}
	for _, step := range []func(*bundle) error{x.checkpoints, x.frontier, x.before, func(b *bundle) error { return x.evidence(w.t.Context(), b) }} {
		if err := step(&b); err != nil {
			return nil, err
		}
	}
	b.Keys = keysOf(b)
	return b.encode()
}

// takeAnyway shows an event in full even where it cannot be believed.
func (x *exporter) takeAnyway(m ledger.Stored) error {
	if err := x.take(m); err == nil {
		return nil
	}
	x.leaves = append(x.leaves, fullLeaf(m))
	return nil
}

// TestTheKeyHolderIsFoundByTheWitness: the ledger's own key signs two histories; the witness signed one.
func TestTheKeyHolderIsFoundByTheWitness(t *testing.T) {
	w := newWorld(t)
	w.populate()
	other := *w
	other.stored = slices.Clone(w.stored[:len(w.stored)-1])
	other.set("dev", 77)
	other.reseal()
	about := About{App: "hello", Run: 2}
	data := other.export(Wish{About: about})
	if v := Verify(data, Terms{Trust: w.trust}); !v.Proven() {
		t.Errorf("a fork that nobody else saw is taken for the ledger: %s", v.Headline())
	}
	if v := Verify(data, w.terms()); v.Forged == nil {
		t.Error("the witness's key does not tell a fork")
	}
}

// FuzzDecode: whatever the bytes, a verdict and no panic.
func FuzzDecode(f *testing.F) {
	w := newWorld(f)
	w.populate()
	data := w.export(Wish{About: About{App: "hello", Run: 2}})
	text, _, _ := bytes.Cut(data, []byte("\n"))
	f.Add([]byte(text))
	f.Add([]byte(`{"format":"towpath.dev/proof/v1","about":{"app":"hello","run":2},"checkpoints":null,"first":0,"leaves":null,"keys":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if v := Verify(rehash(append(text, '\n')), w.terms()); v.Proven() && !bytes.Equal(rehash(append(text, '\n')), data) {
			t.Errorf("proven: %s", v.Headline())
		}
		var b bundle
		if json.Unmarshal(text, &b) == nil {
			b.Format = Format
			if again, err := b.encode(); err == nil {
				Verify(again, w.terms())
			}
		}
	})
}
