package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/ledger/fold/foldtest/simulation"
	"towpath.dev/pkg/seal"
)

// blindness is what a broken sealer does not see, so that the checker can be seen to notice.
type blindness int

const (
	seeing        blindness = iota
	toFirst                 // the ledger takes a checkpoint although another one stands there
	toCheckpoints           // it does not see the checkpoints of others
	toEdits                 // it does not read again what it has read once
	toKept                  // it forgets at a start which checkpoint was the newest
	toEvidence              // it keeps the ledger's newest checkpoint before it has compared
	toAlarms                // it forgets at a start that there was an alarm
	toAbsence               // it does not wait for what is missing
)

func TestSimulation(t *testing.T) {
	simulation.Check(t, 300, simulated(t, seeing), "call failed", "sealed", "first was another", "alarm", "restored", "edited", "mended", "alarm ended",
		"behind", "hashes lost", "hashes spoiled", "compared")
}

func TestSimulationNoticesBrokenGuards(t *testing.T) {
	for name, b := range map[string]blindness{
		"first": toFirst, "checkpoints": toCheckpoints, "edits": toEdits, "kept": toKept, "evidence": toEvidence, "alarms": toAlarms, "absence": toAbsence,
	} {
		t.Run(name, func(t *testing.T) { simulation.NoticesWithin(t, 1000, simulated(t, b)) })
	}
}

// keys are who signs in a simulation, and whom all trust.
type keys struct {
	signer *identity.Signer
	trust  *identity.Trust
}

func newKeys(t *testing.T) keys {
	t.Helper()
	dir := t.TempDir()
	err := identity.Init(dir)
	if err != nil {
		t.Fatal(err)
	}
	var k keys
	if k.signer, err = identity.LoadSigner(dir, string(events.Ledger)); err != nil {
		t.Fatal(err)
	}
	if k.trust, err = identity.LoadTrust(filepath.Join(dir, identity.TrustFile)); err != nil {
		t.Fatal(err)
	}
	return k
}

// model is a stream, which somebody may change behind the sealers' back, and the processes that seal it.
type model struct {
	keys
	blind   blindness
	world   *simulation.World
	stream  []ledger.Stored
	genuine []ledger.Stored // as it was before it was edited
	history int             // counts the restores: who followed the stream before has lost it
	changes int             // of what was stored
	time    time.Time
	calm    bool                    // nothing happens any more but what the sealers do
	opened  map[string]*seal.Signed // checkpoints that were looked at, by their event's signature and body, or their own text
	sealers map[*simulation.Process]*sealing
	desks   map[*simulation.Process]*desk
}

// desk is what is kept of a process from one start to the next, and what it was seen to do.
type desk struct {
	model  *model
	keeps  bool
	files  map[string]string
	hashes *seal.Tree
	newest *seal.Signed // that was kept
	alarm  bool         // was raised and not ended
	wish   bool         // an operator wants it ended
}

// sealing is one start of a process.
type sealing struct {
	*sealer
	start   int
	history int
	busy    bool
	open    bool
	checked bool // in calm
	seen    uint64
}

func simulated(t *testing.T, b blindness) func(*simulation.World) simulation.Service {
	k := newKeys(t)
	return func(w *simulation.World) simulation.Service {
		m := &model{
			keys: k, blind: b, world: w, time: time.Now(), opened: map[string]*seal.Signed{}, sealers: map[*simulation.Process]*sealing{}, desks: map[*simulation.Process]*desk{},
		}
		m.plain()
		w.Budget *= 5
		return simulation.Service{Writer: events.Ledger, Looks: true, Handle: m.handle, Others: m.others, Settle: m.settle, Rest: m.rest}
	}
}

// now implements clock. No two moments are the same.
func (m *model) now() time.Time {
	m.time = m.time.Add(time.Millisecond)
	return m.time
}

// plain stores an event that is no checkpoint.
func (m *model) plain() {
	name := fmt.Sprintf("event-%d-%d", m.changes, len(m.stream)+1)
	m.store(events.AppSubject(1, events.Slug(name)).String(), []byte(name), "")
}

func (m *model) store(subject string, body []byte, signature string) ledger.Stored {
	s := ledger.Stored{Seq: uint64(len(m.stream) + 1), Time: m.now(), Subject: subject, Body: body, Signature: signature}
	m.stream, m.genuine = append(m.stream, s), append(m.genuine, s)
	return s
}

// root computes the root of the first events of a stream by RFC 6962's own words.
func root(all []ledger.Stored) seal.Hash {
	switch n := len(all); n {
	case 0:
		return seal.Hash{}
	case 1:
		return seal.LeafOf(all[0])
	default:
		k := 1
		for k*2 < n {
			k *= 2
		}
		return tlog.NodeHash(root(all[:k]), root(all[k:]))
	}
}

// way is a process's way to the stream.
type way struct {
	*model
	process *simulation.Process
	mine    *sealing
}

var errHistory = errors.New("the stream is another one")

// call is one call that leaves the process, and may fail, or succeed without its answer arriving.
func (d way) call(do func()) error {
	lost := false
	err := d.process.Effect(func() {
		if lost = d.history != d.mine.history; !lost {
			do()
		}
	})
	if lost {
		return errHistory
	}
	return err
}

func (d way) Epoch() int               { return 1 }
func (d way) Trust() *identity.Trust   { return d.trust }
func (d way) Signer() *identity.Signer { return d.signer }

func (d way) after(wait time.Duration) <-chan time.Time {
	_ = d.call(func() { d.time = d.time.Add(wait) }) // it is over whatever happens
	over := make(chan time.Time, 1)
	over <- d.time
	return over
}

func (d way) now() time.Time {
	if d.blind == toAbsence {
		d.time = d.time.Add(time.Hour)
	}
	return d.model.now()
}

// ReadStored implements log. The replica that answers may be behind.
func (d way) ReadStored(_ context.Context, after uint64, apply func(ledger.Stored) error) (uint64, error) {
	behind := 0
	if !d.calm && d.world.Rand.IntN(4) == 0 {
		d.world.Seen["behind"]++
		behind = d.world.Rand.IntN(8)
	}
	for {
		var got []ledger.Stored
		if err := d.call(func() {
			if to := len(d.stream) - behind; int(after) < to {
				got = slices.Clone(d.read()[after:min(int(after)+32, to)])
			}
		}); err != nil || len(got) == 0 {
			return after, err
		}
		for _, s := range got {
			after = s.Seq
			if err := apply(s); err != nil {
				return after, err
			}
		}
	}
}

// read is the stream as the blind sealer reads it.
func (m *model) read() []ledger.Stored {
	switch m.blind {
	case toEdits:
		return m.genuine
	case toCheckpoints:
		all := slices.Clone(m.stream)
		for i := range all {
			if m.checkpoint(all[i]) != nil {
				all[i].Subject = events.AppSubject(1, "hidden").String()
			}
		}
		return all
	}
	return m.stream
}

// Append implements log. An event may be stored without its writer hearing of it.
func (d way) Append(_ context.Context, s events.Subject, e events.Event) (ledger.Record, error) {
	body, err := e.Encode()
	if err != nil {
		return ledger.Record{}, err
	}
	var done ledger.Record
	var exists *ledger.ExistsError
	if err := d.call(func() {
		if i := slices.IndexFunc(d.stream, func(one ledger.Stored) bool { return one.Subject == s.String() }); i >= 0 && d.blind != toFirst {
			d.world.Seen["first was another"]++
			exists = &ledger.ExistsError{Winner: ledger.Record{Seq: uint64(i + 1), Subject: s}}
			return
		}
		stored := d.store(s.String(), body, d.signer.Sign(s.String(), body))
		if b, ok := e.Body.(*events.CheckpointSealed); ok {
			d.world.Fail(d.sealed(stored, s, b))
		}
		done = ledger.Record{Seq: stored.Seq, Subject: s, Event: e}
	}); err != nil {
		return ledger.Record{}, err
	}
	if exists != nil {
		return ledger.Record{}, exists
	}
	return done, d.call(func() {})
}

// checkpoint reads a stored event as one; nil: it is none.
func (m *model) checkpoint(s ledger.Stored) *seal.Signed {
	if s.Signature == "" {
		return nil
	}
	key := s.Signature + string(s.Body)
	if c, known := m.opened[key]; known {
		return c
	}
	m.opened[key] = nil
	if r, err := s.Record(m.trust); err == nil {
		if b, ok := r.Event.Body.(*events.CheckpointSealed); ok {
			m.opened[key] = m.open(b.Checkpoint)
		}
	}
	return m.opened[key]
}

// open reads a checkpoint's text; nil: it cannot be trusted.
func (m *model) open(text string) *seal.Signed {
	c, known := m.opened[text]
	if known {
		return c
	}
	if signed, err := seal.Open(text, m.trust); err == nil {
		c = &signed
	}
	m.opened[text] = c
	return c
}

// sealed checks a checkpoint when it is stored: it is the next one, it covers more events than the one before, and what it
// covers is what was stored.
func (m *model) sealed(s ledger.Stored, subject events.Subject, b *events.CheckpointSealed) error {
	m.world.Seen["sealed"]++
	c := m.checkpoint(s)
	if c == nil {
		return fmt.Errorf("event %d is no checkpoint that can be trusted", s.Seq)
	}
	serial, before := 1, uint64(0)
	for _, earlier := range m.genuine[:s.Seq-1] {
		if e := m.checkpoint(earlier); e != nil {
			serial, before = serial+1, e.Size
		}
	}
	switch {
	case subject.Attempt != serial:
		return fmt.Errorf("checkpoint %d is followed by %d", serial-1, subject.Attempt)
	case c.Size <= before:
		return fmt.Errorf("checkpoint %d covers %d events, the one before %d", serial, c.Size, before)
	case c.Size >= s.Seq || b.TreeSize != c.Size:
		return fmt.Errorf("checkpoint %d (event %d) says that it covers %d and %d events", serial, s.Seq, c.Size, b.TreeSize)
	case !slices.ContainsFunc(m.genuine[before:c.Size], func(s ledger.Stored) bool { return m.checkpoint(s) == nil }):
		return fmt.Errorf("checkpoint %d covers nothing new but checkpoints", serial)
	case m.changes == 0 && c.Root != root(m.stream[:c.Size]):
		return fmt.Errorf("checkpoint %d covers other events than those that are stored", serial)
	}
	return nil
}

// handle lets a process take one of the steps of sealer.run.
func (m *model) handle(p *simulation.Process, _ ledger.Record) error {
	d := m.desks[p]
	if d == nil {
		d = &desk{model: m, keeps: len(m.desks)%3 != 2, files: map[string]string{}}
		m.desks[p] = d
	}
	s := m.sealers[p]
	if s == nil || s.start != p.Starts || s.history != m.history && !s.busy {
		s = &sealing{start: p.Starts, history: m.history}
		to := way{m, p, s}
		s.sealer = &sealer{
			cfg: Config{Absence: 10 * time.Second}, log: to, shelf: nothing{}, clock: to, logger: slog.New(slog.DiscardHandler),
			now: make(chan chan error), endings: make(chan ending),
		}
		if d.keeps {
			s.cfg.State, s.shelf = "kept", d
			d.damage()
		} else {
			d.alarm = false // nobody remembers it
		}
		m.sealers[p] = s
	}
	if s.busy {
		return nil
	}
	s.busy = true
	defer func() { s.busy = false }()
	return m.step(d, s)
}

func (m *model) step(d *desk, s *sealing) error {
	ctx := context.Background()
	var err error
	changes := m.changes
	switch {
	case s.status.Alarm != "":
		if !d.wish {
			return nil
		}
		d.wish = false
		if err = s.end(ctx, s.status.Alarm, "looked into"); err == nil {
			m.world.Seen["alarm ended"]++
			d.alarm, s.open, s.seen = false, false, 0
		}
		return err
	case !s.open:
		if m.blind == toEvidence && d.keeps {
			d.overwrite()
		}
		if err = s.standingAlarm(); err == nil {
			err = s.recover(ctx)
		}
		s.open = err == nil
	case m.calm && !s.checked || m.world.Rand.IntN(4) == 0:
		if _, err = s.compare(ctx); errors.As(err, new(alarm)) {
			err = anew(err) // as keepChecking does
		}
		m.world.Seen["compared"]++
		s.checked = m.calm && err == nil
	default:
		err = s.sealNew(ctx)
	}
	var why alarm
	if errors.As(err, &why) {
		m.world.Seen["alarm"]++
		if !d.alarm && changes == m.changes && m.wrong(d) == nil {
			m.world.Fail(fmt.Errorf("an alarm (%s), and nothing is wrong", why.why))
		}
		s.sound(why.why)
		d.alarm = true
	}
	s.open = s.open && err == nil
	if s.open {
		if s.status.Size < s.seen {
			m.world.Fail(fmt.Errorf("it was said that %d events are sealed, and now %d", s.seen, s.status.Size))
		}
		s.seen = s.status.Size
	}
	return nil
}

// wrong says what is otherwise than it was sealed, as far as the sealer with this desk can know: nil where nothing is.
func (m *model) wrong(d *desk) error {
	if m.changes == 0 {
		return nil
	}
	for _, s := range m.stream {
		subject, err := events.ParseSubject(s.Subject)
		c := m.checkpoint(s)
		switch {
		case err != nil || subject.Subject != events.TypeCheckpointSealed.Subject():
		case c == nil:
			return fmt.Errorf("event %d is no checkpoint", s.Seq)
		case c.Root != root(m.stream[:c.Size]):
			return fmt.Errorf("event %d was signed over other events", s.Seq)
		}
	}
	switch c := d.newest; {
	case c == nil:
	case c.Size > uint64(len(m.stream)):
		return fmt.Errorf("%d events were sealed, and there are %d", c.Size, len(m.stream))
	case c.Root != root(m.stream[:c.Size]):
		return fmt.Errorf("the first %d events are not those that were sealed", c.Size)
	}
	return nil
}

// overwrite is what a sealer does that keeps the newest checkpoint before it has compared.
func (d *desk) overwrite() {
	for _, s := range d.model.stream {
		if c := d.model.checkpoint(s); c != nil {
			d.files[seal.CheckpointFile] = c.Note
		}
	}
}

// damage is what a crash, or a disk, does to the tree.
func (d *desk) damage() {
	if d.hashes == nil || d.hashes.Size() == 0 {
		return
	}
	size := d.hashes.Size()
	switch d.model.world.Rand.IntN(6) {
	case 0:
		d.model.world.Seen["hashes lost"]++
		_ = d.hashes.Truncate(uint64(d.model.world.Rand.IntN(int(size)))) // never too many
	case 1:
		d.model.world.Seen["hashes spoiled"]++
		spoiled, at := newTree(), 1+uint64(d.model.world.Rand.IntN(int(size)))
		for n := uint64(1); n <= size; n++ {
			leaf, _ := d.hashes.Leaf(n) // in memory
			if n == at {
				leaf[0] ^= 1
			}
			_ = spoiled.Append(leaf) // in memory
		}
		d.hashes = spoiled
	}
}

func newTree() *seal.Tree {
	t, err := seal.OpenTree("")
	if err != nil {
		panic(err) // it is in memory
	}
	return t
}

// tree implements shelf.
func (d *desk) tree() (*seal.Tree, error) {
	if d.hashes == nil {
		d.hashes = newTree()
	}
	return d.hashes, nil
}

func (d *desk) read(name string) (string, error) {
	text, ok := d.files[name]
	if !ok || d.model.blind == toKept && name == seal.CheckpointFile || d.model.blind == toAlarms && name == seal.AlarmFile {
		return "", fs.ErrNotExist
	}
	return text, nil
}

// write checks that what is kept never goes back.
func (d *desk) write(name, text string) error {
	if name == seal.CheckpointFile {
		c := d.model.open(text)
		switch {
		case c == nil:
			d.model.world.Fail(errors.New("what is kept is no checkpoint"))
		case d.newest != nil && c.Size < d.newest.Size:
			d.model.world.Fail(fmt.Errorf("a checkpoint over %d events was kept, and now one over %d", d.newest.Size, c.Size))
		}
		d.newest = c
	}
	d.files[name] = text
	return nil
}

func (d *desk) putAside(_ string, names ...string) error {
	for _, name := range names {
		delete(d.files, name)
	}
	d.hashes, d.newest = nil, nil
	return nil
}

// others lets an event come, or somebody do what the sealers must find.
func (m *model) others(w *simulation.World) {
	m.time = m.time.Add(time.Duration(w.Rand.IntN(2000)) * time.Millisecond)
	switch n := w.Rand.IntN(60); {
	case n == 0 && len(m.stream) > 1: // an older copy is put back, and goes on from there
		w.Seen["restored"]++
		m.stream = m.stream[:1+w.Rand.IntN(len(m.stream)-1)]
		m.genuine = slices.Clone(m.stream)
		m.history++
		m.changes++
	case n == 1:
		w.Seen["edited"]++
		i := w.Rand.IntN(len(m.stream))
		m.stream = slices.Clone(m.stream)
		m.stream[i].Body = bytes.ToUpper(m.stream[i].Body)
		m.changes++
	case n == 2 && m.changes > 0: // who edited puts it back as it was
		w.Seen["mended"]++
		m.stream = slices.Clone(m.genuine)
		m.changes++
	case n < 7:
		for _, d := range m.desks {
			d.wish = d.alarm
		}
	default:
		m.plain()
	}
}

// settle waits until every sealer has an alarm, or has compared everything and what came is sealed.
func (m *model) settle(*simulation.World) bool {
	if !m.calm {
		m.calm = true
		return true
	}
	unsealed := m.unsealed() > 0
	for p := range m.desks {
		s := m.sealers[p]
		if s == nil || s.start != p.Starts || s.history != m.history || s.busy {
			return true
		}
		if s.status.Alarm == "" && (!s.open || !s.checked || unsealed || s.status.Head < uint64(len(m.stream))) {
			return true
		}
	}
	return len(m.desks) == 0
}

// unsealed is the last event that is no checkpoint and that none covers; 0: there is none.
func (m *model) unsealed() (last uint64) {
	for _, s := range m.stream {
		if c := m.checkpoint(s); c == nil {
			last = s.Seq
		} else if c.Size >= last {
			last = 0
		}
	}
	return last
}

// rest checks that who can know that something is wrong has an alarm, and an alarm stands until it is ended. That all is
// sealed is what settle waits for.
func (m *model) rest(*simulation.World) error {
	for p, d := range m.desks {
		rings := m.sealers[p].status.Alarm != ""
		if why := m.wrong(d); why != nil && !rings {
			return fmt.Errorf("%w, and nobody is alarmed", why)
		}
		if d.alarm && !rings {
			return errors.New("there was an alarm, nobody ended it, and it is gone")
		}
	}
	return nil
}
