package ledger

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/identity"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/pause"
	"towpath.dev/pkg/seal"
	"towpath.dev/pkg/worker"
)

// log is the ledger as it is sealed; *ledger.Client is one.
type log interface {
	ReadStored(ctx context.Context, after uint64, apply func(ledger.Stored) error) (last uint64, err error)
	Append(context.Context, events.Subject, events.Event) (ledger.Record, error)
	Epoch() int
	Trust() *identity.Trust
	Signer() *identity.Signer
}

// clock is what time it is, and waiting.
type clock interface {
	now() time.Time
	after(time.Duration) <-chan time.Time
}

type wallClock struct{}

func (wallClock) now() time.Time                         { return time.Now() }
func (wallClock) after(d time.Duration) <-chan time.Time { return time.After(d) }

// sealer keeps the Merkle tree over the ledger and appends its signed heads.
type sealer struct {
	cfg     Config
	rt      *worker.Runtime
	log     log
	shelf   shelf
	clock   clock
	logger  *slog.Logger
	witness *cosigner // nil: none
	now     chan chan error
	endings chan ending

	mu     sync.Mutex
	status seal.Status
	tree   *seal.Tree // nil until it is open

	// Of the sealing goroutine alone.
	origin string
	serial int
	sealed uint64 // size of the newest checkpoint
	plain  uint64 // the last event that is no checkpoint
	newest string // the newest checkpoint that was read, while it is not kept
}

func newSealer(cfg Config, rt *worker.Runtime) (*sealer, error) {
	s := &sealer{
		cfg: cfg, rt: rt, log: rt.Ledger, shelf: nothing{}, clock: wallClock{}, logger: rt.Logger,
		now: make(chan chan error), endings: make(chan ending),
	}
	if cfg.State != "" {
		s.shelf = folder(cfg.State)
	}
	if cfg.Witness != "" {
		key, err := seal.ParseWitness(cfg.WitnessKey)
		if err != nil {
			return nil, err
		}
		s.witness = newCosigner(cfg.Witness, key)
		s.status.Witness = key.String()
	}
	return s, nil
}

// alarm is an error after which nothing is sealed any more: what is stored is not what was sealed.
type alarm struct {
	why string
	// file says that the tree's own file may be at fault.
	file bool
}

func (a alarm) Error() string { return a.why }

func alarmed(format string, v ...any) error { return alarm{why: fmt.Sprintf(format, v...)} }

// differs is an alarm about what is compared with the tree.
func differs(format string, v ...any) error { return alarm{fmt.Sprintf(format, v...), true} }

// retryPause is the longest pause after a failure.
const retryPause = 30 * time.Second

// run seals until ctx ends. Where the bus is away it tries again; an alarm ends sealing until an operator ends the
// alarm, and questions are still answered.
func (s *sealer) run(ctx context.Context) {
	defer s.replaceTree(nil)
	for pause := time.Second; ; pause = min(2*pause, retryPause) {
		began := time.Now()
		err := s.session(ctx)
		var stop alarm
		switch {
		case ctx.Err() != nil:
			return
		case errors.As(err, &stop):
			if !s.raise(ctx, stop.why) {
				return
			}
			pause = time.Second
			continue
		}
		s.logger.Warn("sealing was interrupted; it goes on", "err", err)
		if time.Since(began) > time.Minute {
			pause = time.Second
		}
		if !s.rest(ctx, pause) {
			return
		}
	}
}

// rest waits, and tells those who want something sealed meanwhile that it cannot be.
func (s *sealer) rest(ctx context.Context, d time.Duration) bool {
	over := s.clock.after(d)
	for {
		select {
		case <-over:
			return true
		case done := <-s.now:
			done <- errors.New("sealing is interrupted and goes on in a moment; see the ledger service's log")
		case <-ctx.Done():
			return false
		}
	}
}

// alarmEvery is how often an alarm is repeated in the log.
const alarmEvery = 10 * time.Minute

// raise says loudly, in the log, in a file and in every status, that sealing has stopped. It returns true once an operator
// has ended the alarm, and false when ctx ends.
func (s *sealer) raise(ctx context.Context, why string) bool {
	s.sound(why)
	for {
		s.logger.Error("ALARM: the ledger is not what was sealed; nothing is sealed any more", "why", why)
		timer := time.NewTimer(alarmEvery)
		for wait := true; wait; {
			select {
			case <-timer.C:
				wait = false
			case done := <-s.now:
				done <- nil // the status says why
			case wish := <-s.endings:
				err := s.end(ctx, why, wish.reason)
				wish.done <- err
				if err == nil {
					timer.Stop()
					return true
				}
			case <-ctx.Done():
				timer.Stop()
				return false
			}
		}
	}
}

// sound has the alarm stand, over a restart too.
func (s *sealer) sound(why string) {
	s.mu.Lock()
	s.status.Alarm = why
	s.mu.Unlock()
	if err := s.shelf.write(seal.AlarmFile, why+"\n"); err != nil {
		s.logger.Error("the alarm could not be kept", "err", err)
	}
}

// ending is an operator's wish to end the alarm.
type ending struct {
	reason string
	done   chan error
}

// end records who ended an alarm, and puts aside what was sealed before. In that order: where a crash comes between the
// two, the alarm stands and is ended again.
func (s *sealer) end(ctx context.Context, why, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, nowTimeout)
	defer cancel()
	at := s.clock.now().UTC()
	body := &events.AlarmEnded{Alarm: before(why, foundEarlier), Reason: reason, Actor: string(events.Operator)}
	body.ID = "alarm/" + at.Format(time.RFC3339Nano)
	if s.cfg.State != "" {
		body.Aside = "before-" + at.Format("20060102T150405.000000000Z")
		if prior, err := s.prior(); err == nil && prior != nil {
			body.Sealed = prior.Size
		}
	}
	if _, err := s.log.Append(ctx, events.AlarmEndedSubject(s.log.Epoch(), at), events.New(events.Ledger, at, "", body)); err != nil {
		return fmt.Errorf("recording that the alarm is ended: %w", err)
	}
	s.replaceTree(nil)
	if err := s.shelf.putAside(body.Aside, seal.HashesFile, seal.CheckpointFile, seal.WitnessedFile, seal.AlarmFile); err != nil {
		return err
	}
	s.logger.Warn("the alarm was ended; everything is compared and sealed anew", "alarm", body.Alarm, "reason", reason, "aside", body.Aside)
	s.mu.Lock()
	s.status = seal.Status{Witness: s.status.Witness}
	s.mu.Unlock()
	return nil
}

// replaceTree closes the tree of before.
func (s *sealer) replaceTree(tree *seal.Tree) {
	s.mu.Lock()
	old := s.tree
	s.tree = tree
	s.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

// session opens the tree, compares it with the ledger, and seals what comes.
func (s *sealer) session(ctx context.Context) error {
	if err := s.standingAlarm(); err != nil {
		return err
	}
	if err := s.rt.Fold.Wait(ctx, 1); err != nil { // an empty ledger has no id yet
		return err
	}
	if err := s.recover(ctx); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	found, changed := make(chan error, 1), make(chan struct{}, 1)
	beside.Go(func() { s.keepChecking(ctx, found) })
	beside.Go(func() { s.watch(ctx, changed) })
	defer func() { stop(); beside.Wait() }()
	return s.loop(ctx, changed, found)
}

func (s *sealer) loop(ctx context.Context, changed <-chan struct{}, found <-chan error) error {
	var due *time.Timer
	timer := func() <-chan time.Time {
		if due == nil {
			return nil
		}
		return due.C
	}
	if s.plain > s.sealed {
		due = time.NewTimer(s.cfg.Every)
	}
	// What the witness has not cosigned it is asked for again, though nothing is new: it was away, or it was given a new start.
	witnessing, wait := time.NewTimer(0), witnessPause
	defer witnessing.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-found:
			return err
		case <-changed:
			if due == nil {
				due = time.NewTimer(s.cfg.Every)
			}
		case <-timer():
			due = nil
			if err := s.sealNew(ctx); err != nil {
				return err
			}
		case done := <-s.now:
			err := s.sealNew(ctx)
			done <- err
			if err != nil {
				return err
			}
		case <-witnessing.C:
			if !s.unwitnessed() {
				wait = witnessPause
			} else if err := s.witnessNewest(ctx); err != nil {
				return err
			} else if s.unwitnessed() {
				wait = min(2*wait, witnessPauseMost)
			}
			witnessing.Reset(wait)
		}
	}
}

// witnessPause is between two looks at whether the newest checkpoint lacks the witness's word; where the witness does not
// give it, the pauses grow to witnessPauseMost.
const (
	witnessPause     = time.Second
	witnessPauseMost = time.Minute
)

// unwitnessed reports whether the newest checkpoint lacks the word of the witness that there is.
func (s *sealer) unwitnessed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.witness != nil && s.sealed > 0 && (s.status.Witnessed == nil || s.status.Witnessed.Size < s.sealed)
}

// watch signals that the ledger has grown.
func (s *sealer) watch(ctx context.Context, changed chan<- struct{}) {
	for seq := s.tree.Size(); s.rt.Fold.Wait(ctx, seq+1) == nil; seq = s.rt.Fold.Seq() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

// standingAlarm returns the alarm of an earlier start, which stands until an operator ends it.
func (s *sealer) standingAlarm() error {
	text, err := s.shelf.read(seal.AlarmFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return alarmed("%s%s; once it is looked into: towpath audit end-alarm --reason TEXT)", strings.TrimSpace(before(text, foundEarlier)), foundEarlier)
}

// foundEarlier stands behind an alarm that a start found standing.
const foundEarlier = " (found earlier"

func before(text, sep string) string { text, _, _ = strings.Cut(text, sep); return text }

// recover opens the tree and brings it up to the ledger's head. Every event is compared with what was
// sealed; what was lost is computed again.
func (s *sealer) recover(ctx context.Context) error {
	prior, err := s.prior()
	if err != nil {
		return err
	}
	tree, err := s.shelf.tree()
	if err != nil {
		return err
	}
	s.replaceTree(tree)
	// What lies beyond the newest checkpoint was never signed: it is read again.
	keep := uint64(0)
	if prior != nil && prior.Size <= tree.Size() {
		keep = prior.Size
	}
	first := s.readFrom(ctx, keep, prior)
	var found alarm
	if !errors.As(first, &found) || !found.file || keep == 0 {
		return first
	}
	// It may be the file that is wrong. The tree is computed anew, and what was signed decides.
	second := s.readFrom(ctx, 0, prior)
	if errors.As(second, new(alarm)) {
		return first
	}
	return second
}

// readFrom cuts the tree back, reads the whole ledger, and makes sure that it is what was sealed. Before that is certain
// the newest checkpoint of before stays where it is kept: it is what tells, at the next start as well.
func (s *sealer) readFrom(ctx context.Context, keep uint64, prior *seal.Signed) error {
	if err := s.tree.Truncate(keep); err != nil {
		return err
	}
	s.origin, s.serial, s.sealed, s.plain, s.newest = "", 0, 0, 0, ""
	last, err := s.read(ctx, 0)
	if err == nil && prior != nil {
		err = s.continues(ctx, prior, last)
	}
	if err != nil {
		return err
	}
	if prior != nil && s.sealed < prior.Size {
		s.newest = "" // the replica that answers does not have the event with the one that is kept yet
	}
	return s.keep()
}

// prior returns the newest checkpoint of before, or nil.
func (s *sealer) prior() (*seal.Signed, error) {
	text, err := s.shelf.read(seal.CheckpointFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	signed, err := seal.Open(text, s.log.Trust())
	if err != nil {
		return nil, alarmed("the %s that is kept: %v: it was changed, or trust.json lacks the key that signed it", seal.CheckpointFile, err)
	}
	return &signed, nil
}

// continues makes sure that the ledger still is what an earlier checkpoint sealed.
func (s *sealer) continues(ctx context.Context, prior *seal.Signed, last uint64) error {
	deadline := s.clock.now().Add(s.cfg.Absence)
	for last < prior.Size {
		if s.clock.now().After(deadline) {
			return alarmed("rolled back: a checkpoint of %d events was signed, and the ledger has %d", prior.Size, last)
		}
		if !s.rest(ctx, s.cfg.Absence/10) {
			return ctx.Err()
		}
		var err error
		if last, err = s.read(ctx, last); err != nil {
			return err
		}
	}
	root, err := s.tree.Root(prior.Size)
	switch {
	case err != nil:
		return err
	case prior.Origin != s.origin:
		return alarmed("another ledger: the newest checkpoint here is of %s, this is %s", prior.Origin, s.origin)
	case root != prior.Root:
		return differs("edited: the first %d events have another root than the checkpoint that was signed over them", prior.Size)
	}
	return nil
}

// read goes through the ledger after a sequence: what the tree has is compared, what it lacks is added. It
// returns the last sequence read.
func (s *sealer) read(ctx context.Context, after uint64) (last uint64, err error) {
	last, err = s.log.ReadStored(ctx, after, func(m ledger.Stored) error {
		if m.Seq == 1 {
			s.origin = seal.Origin(m.ID(), s.log.Epoch())
		}
		if err := s.compareOrAdd(m); err != nil {
			return err
		}
		err := s.look(m)
		if m.Seq%events.MaxBatch == 0 {
			err = errors.Join(err, pause.For(ctx, time.Millisecond)) // leave the bus a moment for appends
		}
		return err
	})
	var history *ledger.HistoryError
	if errors.As(err, &history) {
		return last, alarmed("dropped: %s", history.Why)
	}
	s.mu.Lock()
	s.status.Origin, s.status.Head = s.origin, last
	s.mu.Unlock()
	return last, err
}

func (s *sealer) compareOrAdd(m ledger.Stored) error {
	leaf := seal.LeafOf(m)
	if m.Seq > s.tree.Size() {
		return s.tree.Append(leaf)
	}
	was, err := s.tree.Leaf(m.Seq)
	if err == nil && was != leaf {
		err = differs("edited: event %d (%s) is not what was sealed", m.Seq, m.Subject)
	}
	return err
}

// look takes note of an event. A checkpoint has to be one of this very tree.
func (s *sealer) look(m ledger.Stored) error {
	subject, err := events.ParseSubject(m.Subject)
	want := events.CheckpointSubject(s.log.Epoch(), s.serial+1)
	if err != nil || subject.Writer != want.Writer || subject.Subject != want.Subject {
		s.plain = m.Seq
		return nil
	}
	r, err := m.Record(s.log.Trust())
	if errors.As(err, new(*events.UnknownTypeError)) {
		return fmt.Errorf("checkpoint %d (event %d) was written by a newer build, which has to seal: %w", subject.Attempt, m.Seq, err)
	}
	if err != nil {
		return alarmed("event %d stands as a checkpoint and is none: %v", m.Seq, err)
	}
	b, ok := r.Event.Body.(*events.CheckpointSealed)
	if !ok || subject != want {
		return alarmed("event %d stands as checkpoint %d on %s, expected is %s", m.Seq, subject.Attempt, subject, want)
	}
	signed, err := seal.Open(b.Checkpoint, s.log.Trust(), s.witnesses()...)
	if err != nil {
		return alarmed("checkpoint %d (event %d): %v", subject.Attempt, m.Seq, err)
	}
	if signed.Size >= m.Seq || signed.Origin != s.origin {
		return alarmed("checkpoint %d (event %d) seals %d events of %s: that cannot be", subject.Attempt, m.Seq, signed.Size, signed.Origin)
	}
	root, err := s.tree.Root(signed.Size)
	if err != nil {
		return err
	}
	if root != signed.Root {
		return differs("edited: checkpoint %d (event %d) was signed over %d other events than those that are stored now",
			subject.Attempt, m.Seq, signed.Size)
	}
	s.serial, s.sealed = subject.Attempt, signed.Size
	s.newest = b.Checkpoint
	s.publish(signed, m.Time)
	return nil
}

func (s *sealer) witnesses() []seal.Witness {
	if s.witness == nil {
		return nil
	}
	return []seal.Witness{s.witness.key}
}

// publish puts a checkpoint into the status.
func (s *sealer) publish(signed seal.Signed, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if signed.Size < s.status.Size {
		return // it is read again, perhaps from a replica that is behind
	}
	s.status.Serial, s.status.Size, s.status.At = s.serial, signed.Size, at
	s.status.Root = base64.StdEncoding.EncodeToString(signed.Root[:])
	s.status.Checkpoint = signed.Note
	for _, c := range signed.Cosignatures {
		s.status.Witnessed = &seal.WitnessedAt{Cosignature: c, Size: signed.Size, Checkpoint: signed.Note}
	}
}

// keep writes down the newest checkpoints, where there are others than before.
func (s *sealer) keep() error {
	if s.newest == "" {
		return nil
	}
	if err := s.shelf.write(seal.CheckpointFile, s.newest); err != nil {
		return err
	}
	s.mu.Lock()
	witnessed := s.status.Witnessed
	s.mu.Unlock()
	if witnessed != nil {
		if err := s.shelf.write(seal.WitnessedFile, witnessed.Checkpoint); err != nil {
			return err
		}
	}
	s.newest = ""
	return nil
}

// sealNew reads what is new and, unless that is nothing but checkpoints, signs the tree's head, has the
// witness cosign it, and appends it.
func (s *sealer) sealNew(ctx context.Context) error {
	for {
		_, err := s.read(ctx, s.tree.Size())
		var found alarm
		if errors.As(err, &found) && found.file {
			return anew(err)
		}
		if err != nil {
			return err
		}
		if err := s.keep(); err != nil {
			return err
		}
		if s.plain <= s.sealed {
			return nil
		}
		if err := s.appendCheckpoint(ctx, false); err != nil {
			return err
		}
	}
}

// witnessNewest appends a checkpoint over what is sealed already, if the witness cosigns it.
func (s *sealer) witnessNewest(ctx context.Context) error {
	if err := s.sealNew(ctx); err != nil || !s.unwitnessed() {
		return err
	}
	if err := s.appendCheckpoint(ctx, true); err != nil {
		return err
	}
	return s.sealNew(ctx)
}

// appendCheckpoint appends the next checkpoint; with witnessed, only one that the witness has cosigned. Where another sealer
// was first, its checkpoint counts: the next look at the ledger finds and checks it.
func (s *sealer) appendCheckpoint(ctx context.Context, witnessed bool) error {
	c := seal.Checkpoint{Origin: s.origin, Size: s.tree.Size()}
	var err error
	if c.Root, err = s.tree.Root(c.Size); err != nil {
		return err
	}
	plain := seal.Sign(s.log.Signer(), c)
	text := s.cosign(ctx, c, plain)
	if witnessed && text == plain {
		return nil
	}
	serial := s.serial + 1
	body := &events.CheckpointSealed{
		TreeSize: c.Size, RootHash: base64.StdEncoding.EncodeToString(c.Root[:]), Checkpoint: text,
	}
	body.ID = fmt.Sprintf("checkpoint/%d", serial)
	_, err = s.log.Append(ctx, events.CheckpointSubject(s.log.Epoch(), serial), events.New(events.Ledger, s.clock.now(), "", body))
	var exists *ledger.ExistsError
	if errors.As(err, &exists) {
		return nil
	}
	return err
}

// cosign returns the note with the witness's cosignature or, where there is none to be had, as it is.
func (s *sealer) cosign(ctx context.Context, c seal.Checkpoint, text string) string {
	if s.witness == nil {
		return text
	}
	s.mu.Lock()
	var known uint64
	if s.status.Witnessed != nil {
		known = s.status.Witnessed.Size
	}
	s.mu.Unlock()
	signed, err := s.witness.sign(ctx, s.tree, c, text, known)
	if err == nil {
		_, err = seal.Open(signed, s.log.Trust(), s.witness.key)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.status.Trouble = err.Error()
		s.logger.Error("the witness did not cosign the checkpoint", "size", c.Size, "err", err)
		return text
	}
	s.status.Trouble = ""
	return signed
}

// anew has the session begin anew after an alarm for which its own tree may be to blame.
func anew(err error) error {
	return fmt.Errorf("everything is compared from the start: %w", errors.New(err.Error()))
}

// keepChecking compares the whole ledger with the tree from time to time. Where they differ it has the
// session begin anew, which tells a spoiled file from a changed ledger.
func (s *sealer) keepChecking(ctx context.Context, found chan<- error) {
	s.checked(s.tree.Size())
	ticker := time.NewTicker(s.cfg.CheckEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		size, err := s.compare(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.As(err, new(alarm)):
			found <- anew(err)
			return
		case err != nil:
			s.logger.Warn("the ledger could not be compared with what was sealed; it is tried again", "err", err)
		default:
			s.checked(size)
		}
	}
}

func (s *sealer) checked(size uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Checked, s.status.CheckedTo = time.Now().UTC(), size
}

// compare reads all that the tree has, and returns how much that was.
func (s *sealer) compare(ctx context.Context) (uint64, error) {
	size := s.tree.Size()
	enough := errors.New("compared")
	last, err := s.log.ReadStored(ctx, 0, func(m ledger.Stored) error {
		if m.Seq > size {
			return enough
		}
		if m.Seq%events.MaxBatch == 0 {
			if err := pause.For(ctx, time.Millisecond); err != nil { // leave the bus a moment for appends
				return err
			}
		}
		return s.compareOrAdd(m)
	})
	var history *ledger.HistoryError
	switch {
	case errors.As(err, &history):
		return 0, alarmed("dropped: %s", history.Why)
	case err != nil && !errors.Is(err, enough):
		return 0, err
	case last < size:
		return 0, alarmed("rolled back: the tree has %d events, and the ledger has %d", size, last)
	}
	return size, nil
}
