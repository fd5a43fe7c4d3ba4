package proof

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/seal"
)

// Terms are what the verifier trusts, none of which comes from the bundle.
type Terms struct {
	// Trust are the public keys: a trust.json that the verifier got from elsewhere.
	Trust *identity.Trust
	// Checkpoint is a signed note that the verifier kept; the bundle has to extend it. Empty: none.
	Checkpoint string
	// Witnesses are the keys of which at least one has to have cosigned. Empty: cosignatures are not asked for.
	Witnesses []seal.Witness
}

// Fault is why a bundle proves nothing.
type Fault struct {
	Seq     uint64 `json:"seq,omitempty"`     // of the event; 0: none in particular
	Subject string `json:"subject,omitempty"` // of the event, for people: "vetrun.finished of hello/3"
	Why     string `json:"why"`
}

// String says where and why: "event 17 (vetrun.finished of hello/3): …".
func (f Fault) String() string {
	if f.Seq == 0 {
		return f.Why
	}
	if f.Subject == "" {
		return fmt.Sprintf("event %d: %s", f.Seq, f.Why)
	}
	return fmt.Sprintf("event %d (%s): %s", f.Seq, f.Subject, f.Why)
}

// Verdict is what a bundle proves.
type Verdict struct {
	About About `json:"about"`
	// Forged says that something in the file is not what was signed and sealed, or is missing.
	Forged *Fault `json:"forged,omitempty"`
	// Incoherent says that everything is as it was recorded, and that it does not add up to a deploy that
	// went by the rules.
	Incoherent *Fault `json:"incoherent,omitempty"`
	// Story is what is proven, in plain words, a sentence each.
	Story []string `json:"story,omitempty"`
	// Limits are what is not proven, a sentence each.
	Limits []string `json:"limits,omitempty"`
	// Checkpoint is the newest in the bundle.
	Checkpoint *seal.Checkpoint `json:"-"`
	Size       uint64           `json:"size,omitempty"` // of that checkpoint
	AsOf       time.Time        `json:"asOf,omitzero"`  // when its last event was stored
	Events     int              `json:"events"`         // shown in full
	Signatures int              `json:"signatures"`     // verified
}

// Proven reports whether the bundle proves what it is about.
func (v Verdict) Proven() bool { return v.Forged == nil && v.Incoherent == nil }

// Headline is the verdict in one line.
func (v Verdict) Headline() string {
	switch {
	case v.Forged != nil:
		return "FORGED: " + v.Forged.String()
	case v.Incoherent != nil:
		return "NOT PROVEN: " + v.Incoherent.String()
	case len(v.Story) > 0:
		return "PROVEN: " + v.Story[0]
	}
	return "PROVEN"
}

// Verify judges a bundle. It needs no server, no clock and no file but the bundle's bytes.
func Verify(data []byte, t Terms) Verdict {
	c := checker{terms: t}
	b, err := decode(data)
	c.bundle, c.verdict.About = b, b.About
	if err != nil {
		c.verdict.Forged = &Fault{Why: err.Error()}
		if changed := c.locate(); changed != nil {
			c.verdict.Forged = changed
		}
		return c.verdict
	}
	for _, step := range []func() *Fault{c.openCheckpoints, c.rebuild, c.kept, c.earlier, c.signatures, c.keys, c.evidence} {
		if fault := step(); fault != nil {
			c.verdict.Forged = fault
			return c.verdict
		}
	}
	c.verdict.Incoherent = c.tell()
	if unread := c.unread(); c.verdict.Incoherent != nil && len(unread) > 0 {
		c.verdict.Incoherent.Why += fmt.Sprintf("; what could not be read may tell why, and a newer build may read it: %s", strings.Join(unread, "; "))
	}
	return c.verdict
}

// reason is why a stored message is none to be believed, without its place, which a fault names anyway.
func reason(err error) string {
	if _, why, found := strings.Cut(err.Error(), ledger.ErrSetAside.Error()+": "); found {
		return why
	}
	return err.Error()
}

// locate returns the first event that is shown and that nobody signed as it stands, or nil: where the whole
// does not add up, it says which part was changed.
func (c *checker) locate() *Fault {
	at := func(m ledger.Stored) *Fault {
		_, err := open(m, c.terms.Trust)
		if err == nil || errors.As(err, new(*parkedError)) {
			return nil
		}
		f := &Fault{Seq: m.Seq, Why: reason(err)}
		if s, err := events.ParseSubject(m.Subject); err == nil {
			f.Subject = nameOf(s)
		}
		return f
	}
	for _, s := range c.bundle.Before {
		if f := at(s.stored()); f != nil {
			return f
		}
	}
	for i, l := range c.bundle.Leaves {
		if !l.full() {
			continue
		}
		if f := at(l.stored(c.bundle.First + uint64(i))); f != nil {
			return f
		}
	}
	return nil
}

// checker verifies one bundle, step by step.
type checker struct {
	terms   Terms
	bundle  bundle
	verdict Verdict

	checkpoints []seal.Signed
	end         seal.Signed // at which the leaves end
	roots       map[uint64]seal.Hash
	own         seal.Signed // the checkpoint that the verifier kept; zero: none
	// before and records are what is shown in full, in order.
	before    []ledger.Record
	records   []ledger.Record
	parked    []parked // shown, and not judged
	documents []statement
}

func forged(format string, v ...any) *Fault { return &Fault{Why: fmt.Sprintf(format, v...)} }

func about(r ledger.Record, format string, v ...any) *Fault {
	return &Fault{Seq: r.Seq, Subject: nameOf(r.Subject), Why: fmt.Sprintf(format, v...)}
}

// nameOf is an event's kind and place for people.
func nameOf(s events.Subject) string {
	name := s.Subject + "." + s.Predicate
	switch {
	case s.App != "" && s.Run > 0:
		name += fmt.Sprintf(" of %s/%d", s.App, s.Run)
	case s.App != "":
		name += " of " + string(s.App)
	}
	if s.Env != "" {
		name += " in " + string(s.Env)
	}
	return name
}

// openCheckpoints verifies the notes, that each extends the one before, and finds the one that seals the leaves.
func (c *checker) openCheckpoints() *Fault {
	b := c.bundle
	if len(b.Checkpoints) == 0 || b.First == 0 || len(b.Leaves) == 0 {
		return forged("it has no checkpoint, or no events")
	}
	end := b.First - 1 + uint64(len(b.Leaves))
	witnessed := false
	for i, e := range b.Checkpoints {
		s, err := seal.Open(e.Note, c.terms.Trust, c.terms.Witnesses...)
		if err != nil {
			return forged("checkpoint %d of the file: %v", i+1, err)
		}
		witnessed = witnessed || len(s.Cosignatures) > 0 && s.Size >= end
		if len(c.terms.Witnesses) > 0 && len(s.Unknown) > 0 {
			return forged("checkpoint of %d events: it bears a signature by %q that none of the given keys made", s.Size, s.Unknown)
		}
		proof, err := toHashes(e.Proof)
		if err != nil {
			return forged("checkpoint of %d events: %v", s.Size, err)
		}
		if fault := c.follows(s, proof); fault != nil {
			return fault
		}
		c.checkpoints = append(c.checkpoints, s)
		if s.Size == end {
			c.end = s
		}
	}
	newest := c.checkpoints[len(c.checkpoints)-1]
	c.verdict.Checkpoint, c.verdict.Size = &newest.Checkpoint, newest.Size
	switch {
	case c.end.Note == "":
		return forged("no checkpoint in it seals exactly %d events, where its events end", end)
	case len(c.terms.Witnesses) > 0 && !witnessed:
		return forged("no checkpoint that seals these events was cosigned by the witness %s", c.terms.Witnesses[0].Name)
	}
	return nil
}

// follows makes sure that a checkpoint is of the same ledger as the one before, and extends it.
func (c *checker) follows(s seal.Signed, proof []seal.Hash) *Fault {
	if len(c.checkpoints) == 0 {
		if len(proof) > 0 {
			return forged("the first checkpoint comes with a proof that it extends another")
		}
		return nil
	}
	last := c.checkpoints[len(c.checkpoints)-1]
	if s.Origin != last.Origin {
		return forged("its checkpoints are of different ledgers: %s and %s", last.Origin, s.Origin)
	}
	if last.Size == 0 || s.Size <= last.Size {
		return forged("a checkpoint of %d events follows one of %d", s.Size, last.Size)
	}
	if err := tlog.CheckTree(proof, int64(s.Size), s.Root, int64(last.Size), last.Root); err != nil {
		return forged("the checkpoint of %d events does not extend the one of %d: the ledger was forked", s.Size, last.Size)
	}
	return nil
}

// rebuild computes the tree from the leaves and compares its root with every checkpoint that it passes.
func (c *checker) rebuild() *Fault {
	roots, err := toHashes(c.bundle.Frontier)
	if err != nil {
		return forged("the frontier before event %d: %v", c.bundle.First, err)
	}
	f := frontier{c.bundle.First - 1, roots}
	if !f.valid() {
		return forged("the frontier before event %d has %d hashes, which cannot be", c.bundle.First, len(roots))
	}
	c.roots = map[uint64]seal.Hash{}
	wanted := map[uint64]bool{}
	for _, s := range c.checkpoints {
		wanted[s.Size] = true
	}
	if fault := c.openKept(wanted); fault != nil {
		return fault
	}
	note := func() {
		if wanted[f.size] {
			c.roots[f.size] = f.root()
		}
	}
	note()
	for i, l := range c.bundle.Leaves {
		seq := c.bundle.First + uint64(i)
		hash, scope, err := l.hash(seq)
		if err != nil {
			return &Fault{Seq: seq, Why: err.Error()}
		}
		if fault := c.shown(seq, l, scope); fault != nil {
			return fault
		}
		f.add(hash)
		note()
	}
	for _, s := range c.checkpoints {
		if root, known := c.roots[s.Size]; known && root != s.Root {
			if changed := c.locate(); changed != nil {
				return changed
			}
			return forged("events %d to %d are not those that the checkpoint of %d events seals: one was changed, dropped, added, or moved",
				c.bundle.First, s.Size, s.Size)
		}
	}
	return nil
}

// shown makes sure that nothing which matters is kept back: only what is another app's affair, a
// checkpoint, or another run's may be.
func (c *checker) shown(seq uint64, l leaf, scope string) *Fault {
	if l.full() {
		return nil
	}
	slug, err := events.ParseSlug(scope)
	switch {
	case scope == checkpointScope && l.Subject == "":
		return nil
	case err == nil && slug != c.bundle.About.App && l.Subject == "":
		return nil
	case scope == string(c.bundle.About.App) && l.Subject != "":
		subject, err := events.ParseSubject(l.Subject)
		if err == nil && othersRun(subject, c.bundle.About.Run) {
			return nil
		}
		return &Fault{Seq: seq, Subject: l.Subject, Why: "it belongs to what is to be proven, and its content is missing"}
	}
	return &Fault{Seq: seq, Why: fmt.Sprintf("an event of %.80q is missing", scope)}
}

// openKept reads the checkpoint that the verifier kept.
func (c *checker) openKept(wanted map[uint64]bool) *Fault {
	if c.terms.Checkpoint == "" {
		return nil
	}
	kept, err := seal.Open(c.terms.Checkpoint, c.terms.Trust, c.terms.Witnesses...)
	if err != nil {
		return forged("the checkpoint that was given to compare with: %v", err)
	}
	wanted[kept.Size], c.own = true, kept
	return nil
}

// kept compares with the checkpoint that the verifier kept.
func (c *checker) kept() *Fault {
	kept := c.own
	if e := c.bundle.Extends; e != nil {
		return c.extends(*e, kept)
	}
	if kept.Note == "" {
		return nil
	}
	newest := c.checkpoints[len(c.checkpoints)-1]
	switch root, known := c.roots[kept.Size]; {
	case kept.Origin != newest.Origin:
		return forged("it is of the ledger %s, the checkpoint given of %s", newest.Origin, kept.Origin)
	case kept.Size > newest.Size:
		return forged("it ends at %d events, and the checkpoint given has %d: the ledger was rolled back, or the proof is older than the checkpoint",
			newest.Size, kept.Size)
	case known && root != kept.Root:
		return forged("its first %d events are not those of the checkpoint given: the ledger was changed or forked", kept.Size)
	case known:
		return nil
	}
	for _, s := range c.checkpoints {
		if s.Size == kept.Size && s.Root == kept.Root {
			return nil
		}
	}
	return forged("it does not show that it extends the checkpoint of %d events: export it again with --checkpoint and that file", kept.Size)
}

// extends verifies the proof that the bundle brings with it.
func (c *checker) extends(e extension, kept seal.Signed) *Fault {
	proof, err := toHashes(e.Proof)
	switch {
	case err != nil || e.Size == 0 || e.Size > c.end.Size:
		return forged("the proof that it extends %d events is malformed", e.Size)
	case kept.Note == "":
		return forged("it says that it extends a checkpoint of %d events: give that with --checkpoint", e.Size)
	case e.Size != kept.Size || kept.Origin != c.end.Origin:
		return forged("it extends a checkpoint of %d events of %s; the one given has %d, of %s", e.Size, c.end.Origin, kept.Size, kept.Origin)
	}
	if err := tlog.CheckTree(proof, int64(c.end.Size), c.end.Root, int64(kept.Size), kept.Root); err != nil {
		return forged("it does not extend the checkpoint of %d events that was kept: the ledger was changed or forked", kept.Size)
	}
	return nil
}

// earlier verifies that the events from before the range stand in the ledger.
func (c *checker) earlier() *Fault {
	last := uint64(0)
	for _, s := range c.bundle.Before {
		if s.Seq <= last || s.Seq >= c.bundle.First {
			return &Fault{Seq: s.Seq, Why: "it does not stand in its place among the earlier events"}
		}
		last = s.Seq
		proof, err := toHashes(s.Proof)
		if err == nil {
			err = tlog.CheckRecord(proof, int64(c.end.Size), c.end.Root, int64(s.Seq-1), seal.LeafOf(s.stored()))
		}
		if err != nil {
			return &Fault{Seq: s.Seq, Subject: s.Subject, Why: "it is not the event that was sealed there"}
		}
	}
	return nil
}

// signatures verifies and reads every event that is shown.
func (c *checker) signatures() *Fault {
	read := func(m ledger.Stored, into *[]ledger.Record) *Fault {
		r, err := open(m, c.terms.Trust)
		switch {
		case err == nil:
			*into = append(*into, r)
		case !c.park(m, err):
			return &Fault{Seq: m.Seq, Subject: m.Subject, Why: reason(err)}
		}
		c.verdict.Events++
		c.verdict.Signatures++
		return nil
	}
	for _, s := range c.bundle.Before {
		if fault := read(s.stored(), &c.before); fault != nil {
			return fault
		}
	}
	for i, l := range c.bundle.Leaves {
		if !l.full() {
			continue
		}
		if fault := read(l.stored(c.bundle.First+uint64(i)), &c.records); fault != nil {
			return fault
		}
	}
	c.verdict.AsOf = time.Unix(0, c.bundle.Leaves[len(c.bundle.Leaves)-1].Time).UTC()
	return c.sealedInTime()
}

// sealedInTime makes sure that the checkpoint's key might sign when the last event was stored, and that the
// ledger's name is its first event's.
func (c *checker) sealedInTime() *Fault {
	for _, k := range c.end.Keys {
		if err := k.ValidAt(c.verdict.AsOf); err != nil {
			return forged("the checkpoint of %d events: %v", c.end.Size, err)
		}
	}
	var first ledger.Stored
	switch {
	case c.bundle.First == 1:
		first = c.bundle.Leaves[0].stored(1)
	case len(c.bundle.Before) > 0:
		first = c.bundle.Before[0].stored()
	}
	if first.Seq != 1 || first.Body == nil {
		return forged("the ledger's first event, by which it is named, is missing")
	}
	if id, err := seal.LedgerOf(c.end.Origin); err != nil || id != first.ID() {
		return &Fault{Seq: 1, Subject: first.Subject, Why: "it is not the first event of " + c.end.Origin}
	}
	return nil
}

// keys compares the list of keys with those that signed.
func (c *checker) keys() *Fault {
	if want := keysOf(c.bundle); !slices.Equal(want, c.bundle.Keys) {
		return forged("it lists the keys %q; those that signed are %q", c.bundle.Keys, want)
	}
	return nil
}
