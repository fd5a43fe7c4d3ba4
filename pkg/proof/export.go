package proof

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"golang.org/x/mod/sumdb/tlog"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/registry"
	"towpath.dev/pkg/seal"
)

// Reader reads the ledger as it is stored; *ledger.Client does.
type Reader interface {
	ReadStored(ctx context.Context, after uint64, apply func(ledger.Stored) error) (last uint64, err error)
}

// Registry reads what stands beside an image; *registry.Client does.
type Registry interface {
	ReadWhole(ctx context.Context, subject registry.Artifact, referrer registry.Digest, max int64) (manifest, body []byte, err error)
}

// Source is what an export reads.
type Source struct {
	Ledger   Reader
	Hashes   tlog.HashReader // of the sealed tree
	Status   seal.Status     // as it is after sealing what is new
	Trust    *identity.Trust
	Registry Registry
}

// Wish says what to export.
type Wish struct {
	About
	// Whole goes on to the newest checkpoint however many events that are. Otherwise, where more than Limit
	// came since the run began, the proof ends at the first checkpoint after the run's last event.
	Whole bool
	// Limit is in events; 0 means MaxRange.
	Limit int
	// Extends is the size of a checkpoint that somebody has kept, which the proof shall extend; 0: none.
	Extends uint64
}

// MaxRange is how many events a proof goes through unless it is asked to go through all.
const MaxRange = 50_000

// maxDocument is the most that a piece of evidence may have, in bytes.
const maxDocument = 64 << 20

// ErrNoRun is wrapped where the sealed ledger has no such run.
var ErrNoRun = errors.New("the sealed ledger has no such run")

// Export writes the bundle that a wish asks for.
func Export(ctx context.Context, s Source, w Wish) ([]byte, error) {
	wrap := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("exporting the proof of %s/%d: %w", w.App, w.Run, err)
	}
	x := exporter{source: s, wish: w, policies: map[string]ledger.Stored{}, settings: map[string]ledger.Stored{}}
	if err := x.read(ctx); err != nil {
		return wrap(err)
	}
	if err := x.end(); err != nil {
		return wrap(err)
	}
	b := bundle{Format: Format, About: w.About, First: x.first, Leaves: x.leaves}
	for _, step := range []func(*bundle) error{x.checkpoints, x.frontier, x.before} {
		if err := step(&b); err != nil {
			return wrap(err)
		}
	}
	if err := x.evidence(ctx, &b); err != nil {
		return wrap(err)
	}
	b.Keys = keysOf(b)
	data, err := b.encode()
	if err != nil {
		return wrap(err)
	}
	if len(data) > MaxSize {
		return wrap(fmt.Errorf("it would have %d bytes; at most %d are read", len(data), MaxSize))
	}
	return data, nil
}

// exporter gathers what goes into a bundle.
type exporter struct {
	source Source
	wish   Wish

	starts int // runs of the app so far
	first  uint64
	last   uint64 // the run's last event so far
	chain  string
	size   uint64 // at which the leaves end
	leaves []leaf
	run    []ledger.Record // what the leaves show in full

	founding ledger.Stored            // the ledger's first
	policies map[string]ledger.Stored // by digest, before first
	settings map[string]ledger.Stored // by settingKey, before first
	notes    []noteAt                 // checkpoints that lie in the range
}

type noteAt struct {
	size uint64
	note string
}

var errSealed = errors.New("beyond the checkpoint")

// read goes through the sealed ledger once.
func (x *exporter) read(ctx context.Context) error {
	_, err := x.source.Ledger.ReadStored(ctx, 0, func(m ledger.Stored) error {
		if m.Seq > x.source.Status.Size {
			return errSealed
		}
		return x.take(m)
	})
	if err != nil && !errors.Is(err, errSealed) {
		return err
	}
	if x.first == 0 {
		return ErrNoRun
	}
	return nil
}

// take decides what is shown of an event.
func (x *exporter) take(m ledger.Stored) error {
	if m.Seq == 1 {
		x.founding = m
	}
	scope := seal.Scope(m.Subject)
	mine := scope == string(x.wish.App)
	var r ledger.Record
	var unread *parkedError
	if mine || scope[0] == '_' {
		var err error
		switch r, err = open(m, x.source.Trust); {
		case err == nil:
			x.note(m, r)
		case errors.As(err, &unread): // shown as it is sealed, and judged by whoever can read it
			r = ledger.Record{Seq: m.Seq, Subject: unread.at}
		case x.first > 0:
			return fmt.Errorf("event %d cannot be shown: %w", m.Seq, err)
		}
	}
	switch {
	case x.first == 0:
	case !mine && (scope[0] != '_' || scope == checkpointScope):
		about := seal.About(m.Subject, seal.Content(m.Signature, m.Body))
		x.leaves = append(x.leaves, leaf{Time: m.Time.UnixNano(), Scope: scope, About: about[:]})
	case mine && othersRun(r.Subject, x.wish.Run):
		content := seal.Content(m.Signature, m.Body)
		x.leaves = append(x.leaves, leaf{Time: m.Time.UnixNano(), Subject: m.Subject, Content: content[:]})
	default:
		x.leaves = append(x.leaves, fullLeaf(m))
		if unread == nil {
			x.run = append(x.run, r)
		}
	}
	return nil
}

// checkpointScope is the scope of checkpoints, which nothing depends on.
const checkpointScope = "_.checkpoint.sealed"

// othersRun reports whether a subject is about another run of the app and nothing else.
func othersRun(s events.Subject, run int) bool { return s.Run != 0 && s.Run != run }

// note keeps what may be needed of an event.
func (x *exporter) note(m ledger.Stored, r ledger.Record) {
	if start := startOf(r); start != nil {
		if x.starts++; x.starts == x.wish.Run {
			x.first, x.chain = m.Seq, r.Event.ChainID
		}
	}
	if x.chain != "" && r.Event.ChainID == x.chain {
		x.last = m.Seq
	}
	switch b := r.Event.Body.(type) {
	case *events.PolicyPublished:
		if x.first == 0 {
			x.policies[b.Digest] = m
		}
	case *events.SettingChanged:
		if x.first == 0 {
			x.settings[settingKey("setting", b.Environment, b.Key, b.Store, b.Version)] = m
		}
	case *events.SecretChanged:
		if x.first == 0 {
			x.settings[settingKey("secret", b.Environment, b.Key, b.Store, b.Version)] = m
		}
	case *events.CheckpointSealed:
		if x.first > 0 {
			x.notes = append(x.notes, noteAt{b.TreeSize, b.Checkpoint})
		}
	}
}

// settingKey names a version of a setting. Older events do not name the store.
func settingKey(kind string, env events.Slug, key, store string, version uint64) string {
	return kind + "/" + string(env) + "/" + key + "/" + strconv.FormatUint(version, 10) + "/" + store
}

// startOf returns what a run's first event pins, or nil.
func startOf(r ledger.Record) *events.RunStart {
	switch b := r.Event.Body.(type) {
	case *events.ChangeMerged:
		return &b.Run
	case *events.ArtifactPublished:
		return b.Published.Run
	}
	return nil
}

// end decides at which checkpoint the leaves end.
func (x *exporter) end() error {
	x.size = x.source.Status.Size
	limit := x.wish.Limit
	if limit == 0 {
		limit = MaxRange
	}
	if x.wish.Whole || len(x.leaves) <= limit {
		return nil
	}
	for _, n := range x.notes {
		if n.size >= x.last {
			x.size = n.size
			break
		}
	}
	x.leaves = x.leaves[:x.size-x.first+1]
	x.run = slices.DeleteFunc(x.run, func(r ledger.Record) bool { return r.Seq > x.size })
	return nil
}

// checkpoints puts the one at which the leaves end, the newest, and the newest that was witnessed.
func (x *exporter) checkpoints(b *bundle) error {
	all := map[uint64]string{}
	for _, n := range x.notes {
		if n.size == x.size {
			all[n.size] = n.note
		}
	}
	if w := x.source.Status.Witnessed; w != nil {
		all[w.Size] = w.Checkpoint
	}
	if s := x.source.Status; all[s.Size] == "" {
		all[s.Size] = s.Checkpoint
	}
	before := int64(0)
	for _, size := range slices.Sorted(maps.Keys(all)) {
		one := extended{Note: all[size]}
		if before > 0 {
			proof, err := tlog.ProveTree(int64(size), before, x.source.Hashes)
			if err != nil {
				return err
			}
			one.Proof = hashesOf(proof)
		}
		b.Checkpoints = append(b.Checkpoints, one)
		before = int64(size)
	}
	switch size := x.wish.Extends; {
	case size == 0:
		return nil
	case size > x.size:
		return fmt.Errorf("the checkpoint to be extended has %d events, and the proof ends at %d: the ledger was rolled back, or it is another", size, x.size)
	default:
		proof, err := tlog.ProveTree(int64(x.size), int64(size), x.source.Hashes)
		b.Extends = &extension{size, hashesOf(proof)}
		return err
	}
}

func (x *exporter) frontier(b *bundle) error {
	f, err := frontierAt(x.first-1, x.source.Hashes)
	b.Frontier = hashesOf(f.roots)
	return err
}

// before adds what the run depends on and came earlier: the ledger's first event, which names it, the
// policies, and the versions of settings.
func (x *exporter) before(b *bundle) error {
	wanted := map[uint64]ledger.Stored{}
	want := func(m ledger.Stored) {
		if m.Seq > 0 && m.Seq < x.first {
			wanted[m.Seq] = m
		}
	}
	want(x.founding)
	for _, r := range x.run {
		if start := startOf(r); start != nil {
			want(x.policies[start.PolicyDigest])
		}
		switch e := r.Event.Body.(type) {
		case *events.VetRunFinished:
			want(x.policies[e.Policy])
		case *events.ReplayRequested:
			want(x.policies[e.Policy])
		case *events.SlotTaken:
			if e.Run != x.wish.Run {
				continue
			}
			for key, version := range e.Pins.Config {
				want(x.settings[settingKey("setting", e.Environment, key, e.Pins.ConfigStore, version)])
				want(x.settings[settingKey("setting", e.Environment, key, "", version)])
			}
			for key, version := range e.Pins.Secrets {
				want(x.settings[settingKey("secret", e.Environment, key, e.Pins.SecretStore, version)])
				want(x.settings[settingKey("secret", e.Environment, key, "", version)])
			}
		}
	}
	for _, seq := range slices.Sorted(maps.Keys(wanted)) {
		m := wanted[seq]
		proof, err := tlog.ProveRecord(int64(x.size), int64(seq-1), x.source.Hashes)
		if err != nil {
			return err
		}
		b.Before = append(b.Before, single{seq, m.Time.UnixNano(), m.Subject, m.Signature, m.Body, hashesOf(proof)})
	}
	return nil
}

// evidence fetches what the events name, and what that names in turn.
func (x *exporter) evidence(ctx context.Context, b *bundle) error {
	fetched := map[string]bool{}
	fetch := func(artifact registry.Artifact, referrer string) ([]byte, error) {
		digest, err := registry.ParseDigest(referrer)
		if err != nil || fetched[referrer] {
			return nil, err
		}
		fetched[referrer] = true
		manifest, body, err := x.source.Registry.ReadWhole(ctx, artifact, digest, maxDocument)
		if err != nil {
			return nil, err
		}
		b.Evidence = append(b.Evidence, document{manifest, body})
		return body, nil
	}
	for _, r := range x.run {
		if r.Subject.Run != x.wish.Run {
			continue
		}
		switch e := r.Event.Body.(type) {
		case *events.ArtifactPublished:
			if e.Published.Artifact.Provenance == "" {
				continue
			}
			artifact, err := registry.ParsePURL(e.ID)
			if err == nil {
				_, err = fetch(artifact, e.Published.Artifact.Provenance)
			}
			if err != nil {
				return err
			}
		case *events.VetRunFinished:
			if e.Report == nil {
				continue
			}
			artifact, err := registry.ParsePURL(e.ArtifactID)
			if err != nil {
				return err
			}
			body, err := fetch(artifact, e.Report.Digest)
			if err != nil {
				return err
			}
			for _, d := range documentsOf(body) {
				if _, err := fetch(artifact, d); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// documentsOf returns the digests that a signed report names; what is no report names none.
func documentsOf(envelope []byte) (digests []string) {
	var e dsse.Envelope
	if json.Unmarshal(envelope, &e) != nil {
		return nil
	}
	payload, err := e.DecodeB64Payload()
	if err != nil {
		return nil
	}
	var s reportStatement
	if json.Unmarshal(payload, &s) != nil {
		return nil
	}
	for _, d := range s.Predicate.Documents {
		digests = append(digests, d.Referrer)
	}
	return digests
}

// keysOf returns the ids of the keys that signed what is shown, sorted.
func keysOf(b bundle) []string {
	ids := map[string]bool{}
	add := func(signature string) {
		if id, err := identity.KeyOf(signature); err == nil {
			ids[id] = true
		}
	}
	for _, l := range b.Leaves {
		if l.full() {
			add(l.Signature)
		}
	}
	for _, s := range b.Before {
		add(s.Signature)
	}
	return append([]string{}, slices.Sorted(maps.Keys(ids))...)
}
