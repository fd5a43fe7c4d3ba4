package fold

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/pipeline"
)

// App is one app: its runs and the slots of its environments.
type App struct {
	Name       events.Slug
	Repository string // URL; empty: hosted by the gateway
	Branch     string
	Poll       time.Duration // 0: not polled
	Created    time.Time     // zero where only its runs are known
	Hold       *Hold         // of the app, or of everything
	Resumed    time.Time     // when its last hold ended, or one on everything; zero: it was never held
	Runs       Runs
	Envs       map[events.Slug]*Env
	Seq        uint64 // the last event that changed the app
	// Unsettled are the numbers of the runs of which something may still come without anybody acting, or that wait
	// for an operator: those that have not ended, those that are stuck, and those whose end is not written in full,
	// oldest first. Whoever looks for what there is to do looks at these (Open) and not at all runs.
	Unsettled []int

	owned owned `fold:"-"`
}

// owned says which parts of an app nobody else has seen, so that they may be changed where they are.
type owned struct {
	envs  bool
	slots map[events.Slug]bool
	mark  *mark // of the runs that nobody else has seen
}

// mark is on what was made since an app was given out last.
type mark struct{ _ byte }

// Run returns run n, or nil. An app that is not there has none.
func (a *App) Run(n int) *Run {
	if a == nil {
		return nil
	}
	return a.Runs.at(n)
}

// Newest returns the run that was started last, or nil.
func (a *App) Newest() *Run { return a.Run(a.Runs.Len()) }

// Open returns the unsettled runs, oldest first.
func (a *App) Open() iter.Seq[*Run] {
	return func(yield func(*Run) bool) {
		for _, n := range a.Unsettled {
			if !yield(a.Run(n)) {
				return
			}
		}
	}
}

// Env returns the app's slots in an environment; never nil.
func (a *App) Env(name events.Slug) *Env {
	if e := a.Envs[name]; e != nil {
		return e
	}
	return &Env{Name: name}
}

// Latest returns the newest run of a repository and ref, or nil.
func (a *App) Latest(repository, ref string) *Run {
	return a.newest(func(r runHead) bool { return r.Start.RepositoryURL == repository && r.Start.Ref == ref })
}

// StartedBy returns the run that an event started, or nil.
func (a *App) StartedBy(eventID string) *Run {
	return a.newest(func(r runHead) bool { return r.StartEvent == eventID })
}

// Started returns the ids of the events that started the runs.
func (a *App) Started() map[string]bool {
	all := make(map[string]bool, a.Runs.Len())
	for head := range a.Runs.heads() {
		all[head.StartEvent] = true
	}
	return all
}

// OfChain returns the run to which the events of a chain belong, or nil.
func (a *App) OfChain(chainID string) *Run {
	return a.newest(func(r runHead) bool { return r.ChainID == chainID })
}

func (a *App) newest(wanted func(runHead) bool) *Run {
	for head := range a.Runs.heads() {
		if wanted(head) {
			return a.Run(head.N)
		}
	}
	return nil
}

// Env is the dense sequence of slots of one app's environment.
type Env struct {
	Name  events.Slug
	Slots Slots
	// Rollbacks are commands that ask for an earlier version and have no slot yet, oldest first.
	Rollbacks []Command
	// Plan is what the environment is to hold, where somebody made it from another; nil: nothing is planned.
	Plan   *Plan
	Ending uint64 // sequence of what has it destroyed; 0: nothing
	Gone   bool   // nothing of it is left
	// Config and Secrets are what the ledger says last of each key.
	Config, Secrets map[string]Setting
	Drifts          []Drift // that are not over, oldest first
	DriftCount      int     // of all drifts that were ever found
}

// Command is a command as it was received.
type Command struct {
	ID  string
	Seq uint64
	At  time.Time
	events.Command
}

// Slot is one version's claim on an environment.
//
//	taken ──> decided live ──> closed verified | unverified | rejected | superseded
//	   └────> decided abandoned
//
// The next slot may be taken once this one is abandoned or closed.
type Slot struct {
	N int
	events.SlotTaken
	TakenSeq  uint64
	TakenAt   time.Time
	Decision  events.Decision // "" until decided
	DecidedAt time.Time
	DecidedID string          // context.id of slot.decided
	Why       string          // of the decision or the closing
	Outcome   events.Outcome  // of an abandoned slot: how its promotion ended
	Trouble   *events.Trouble // of an abandoned slot
	Instances []events.Instance
	Closing   events.Closing // "" until closed
	ClosedAt  time.Time
	Skipped   *events.Skip // of an unverified slot
	Actor     string       // of a restored slot: who asked for it
	Reason    string       // and why
	// Deployed says that service.deployed, upgraded or rolledback was written for it.
	Deployed bool
	// Trial is the last verification of the slot that ended; nil: none.
	Trial *Trial
	// TrialAttempt is the attempt of verify that counts for this slot; results of others are fenced.
	TrialAttempt int
}

// Trial is how a slot's verification ended.
type Trial struct {
	Attempt int
	Outcome events.Outcome
	Reason  string
	Trouble *events.Trouble
	Skipped *events.Skip // nobody verified anything
	EventID string
}

// Open reports whether the slot keeps the next from being taken.
func (s *Slot) Open() bool {
	return s.Decision == "" || s.Decision == events.Live && s.Closing == ""
}

// Last returns the newest slot, or nil.
func (e *Env) Last() *Slot {
	return e.Slots.at(e.Slots.Len())
}

// Slot returns slot n, or nil.
func (e *Env) Slot(n int) *Slot { return e.Slots.at(n) }

// Live returns the greatest live slot, which is what gets traffic, or nil. A live slot of kind remove
// means that nothing runs.
func (e *Env) Live() *Slot {
	for s := range e.Slots.Backward() {
		if s.Decision == events.Live {
			return s
		}
	}
	return nil
}

// Good returns the newest slot below n that stands and holds a version, or nil: what comes back when slot n
// is rejected. A slot that itself brought a version back stands for that version.
func (e *Env) Good(n int) *Slot {
	for s := range e.Slots.Backward() {
		if s.N < n && s.Closing.Stands() {
			if s.Kind == events.KindRemove {
				return nil
			}
			return s
		}
	}
	return nil
}

// ErrSlotOrder is wrapped for an event about a slot that cannot come there: promote never writes one.
var ErrSlotOrder = errors.New("slot out of order")

// apply changes a, which nobody else has seen, but may share runs and slots with what was given out: those are
// copied before they change. It reports whether anything changed; where it did not, or with an error, nothing did.
// policy is the digest of the newest policy.
func (a *App) apply(r ledger.Record, policy string, known *definitions) (bool, error) {
	switch b := r.Event.Body.(type) {
	case *events.AppCreated:
		a.Repository, a.Branch, a.Created = b.Repository, b.Branch, r.Event.Time
		a.Poll = time.Duration(b.Poll) * time.Second
		return true, nil
	case *events.ChangeMerged:
		return true, a.startRun(r, b.Run, nil, "", known)
	case *events.ArtifactPublished:
		if b.Published.Run != nil {
			return true, a.startRun(r, *b.Published.Run, &b.Published.Artifact, b.ID, known)
		}
	case *events.SlotTaken:
		return true, a.takeSlot(r, b)
	case *events.SlotDecided:
		return true, a.decideSlot(r, b)
	case *events.SlotClosed:
		return true, a.closeSlot(r, b)
	case *events.CommandReceived:
		if b.Repeats != "" {
			return false, nil
		}
		return true, a.command(r, b)
	case *events.SettingChanged:
		a.applySetting(r.Seq, false, b.Environment, b.Key, Setting{Store: b.Store, Version: b.Version, Deleted: b.Deleted, Actor: b.Actor})
		return true, nil
	case *events.SecretChanged:
		a.applySetting(r.Seq, true, b.Environment, b.Key, Setting{Store: b.Store, Version: b.Version, Deleted: b.Deleted, Actor: b.Actor})
		return true, nil
	case *events.DriftDetected:
		a.detect(r, b.Drift)
		return true, nil
	case *events.DriftResolved:
		a.resolve(r)
		return true, nil
	case *events.ServiceDeployed, *events.ServiceUpgraded, *events.ServiceRolledback, *events.ServiceRemoved:
		return a.markDeployed(r), nil
	}
	if r.Subject.Run == 0 {
		return false, nil
	}
	run := a.Run(r.Subject.Run)
	if run == nil {
		return false, fmt.Errorf("run %d is unknown", r.Subject.Run)
	}
	next := a.ownRun(run)
	switch b := r.Event.Body.(type) {
	case *events.TestSuiteRunFinished:
		a.finishTrial(r, b)
		next.apply(r)
	case *events.ReplayRequested:
		ended := a.slotEnded(run, b.Environment)
		if next.replay(r, b, policy, ended) && b.Stage == StageVerify && next.Env(b.Environment).Slot != 0 {
			a.renewTrial(next.Env(b.Environment))
		}
	default:
		next.apply(r)
	}
	next.Seq = r.Seq
	a.setRun(next)
	return true, nil
}

// slotEnded reports whether the slot that the run took in an environment, if any, can no longer be
// verified: it was abandoned or closed.
func (a *App) slotEnded(run *Run, env events.Slug) bool {
	e := run.Env(env)
	if e == nil || e.Slot == 0 {
		return true
	}
	s := a.Env(env).Slot(e.Slot)
	return s == nil || !s.Open()
}

// StatusOf is what a run is doing, a hold included.
func (a *App) StatusOf(r *Run) Status {
	status := r.Status()
	if a.Hold != nil && !status.Ended() && status != Running {
		return Waiting
	}
	return status
}

// ownRun returns a run to be changed, which setRun then puts in its place.
func (a *App) ownRun(r *Run) *Run {
	if a.owned.mark == nil {
		a.owned.mark = new(mark)
	}
	if r.mark == a.owned.mark {
		return r
	}
	next := r.clone()
	next.mark = a.owned.mark
	return next
}

// setRun puts a run, which nobody else has seen, in its place: that of an older version of it, or the next.
func (a *App) setRun(r *Run) {
	settled, before := r.settled(), a.Newest()
	a.Runs.set(r, settled && before != nil && r.N < before.N)
	if before != nil && before.N < r.N && before.settled() {
		a.Runs.set(before, true)
	}
	at, listed := slices.BinarySearch(a.Unsettled, r.N)
	switch {
	case settled && listed:
		a.Unsettled = slices.Delete(slices.Clone(a.Unsettled), at, at+1)
	case !settled && !listed:
		a.Unsettled = slices.Insert(slices.Clone(a.Unsettled), at, r.N)
	}
}

// ownEnv returns an environment to be changed.
func (a *App) ownEnv(name events.Slug) *Env {
	if a.owned.slots[name] {
		return a.Envs[name]
	}
	if !a.owned.envs {
		a.Envs, a.owned.envs, a.owned.slots = maps.Clone(a.Envs), true, map[events.Slug]bool{}
	}
	e := *a.Env(name)
	e.Name = name
	a.Envs[name], a.owned.slots[name] = &e, true
	return &e
}

// setSlot puts a slot, which nobody else has seen, in its place.
func (a *App) setSlot(env events.Slug, s *Slot) *Env {
	e := a.ownEnv(env)
	e.Slots.set(s, s.N <= e.Slots.Len()-openSlots)
	if old, open := e.Slots.asIs(s.N - openSlots); open {
		e.Slots.set(old, true)
	}
	return e
}

// openSlots is how many slots are kept as they are: the newest, and most often the live one.
const openSlots = 2

func (a *App) startRun(
	r ledger.Record, start events.RunStart, artifact *events.Artifact, artifactID string, known *definitions,
) error {
	d, err := known.read(&start)
	if err != nil {
		return err
	}
	run := newRun(a.Name, a.Runs.Len()+1, start, d)
	run.ChainID, run.StartEvent, run.Created, run.Seq = r.Event.ChainID, r.Event.ID, r.Event.Time, r.Seq
	if artifact != nil {
		run.Image = true
		run.Artifact, run.ArtifactID = artifact, artifactID
		run.Build.Status = Skipped
	}
	a.setRun(run)
	return nil
}

func (a *App) takeSlot(r ledger.Record, b *events.SlotTaken) error {
	e := a.Env(b.Environment)
	if last := e.Last(); b.Slot != e.Slots.Len()+1 || last != nil && last.Open() {
		return fmt.Errorf("taking slot %d of %s after %d: %w", b.Slot, b.Environment, e.Slots.Len(), ErrSlotOrder)
	}
	s := &Slot{N: b.Slot, SlotTaken: *b, TakenSeq: r.Seq, TakenAt: r.Event.Time, TrialAttempt: 1}
	for _, c := range a.Env(b.Environment).Rollbacks {
		if c.ID == b.Command {
			s.Actor, s.Reason = c.Actor, c.Reason
		}
	}
	next := a.setSlot(b.Environment, s)
	next.Gone = false
	next.Rollbacks = slices.DeleteFunc(slices.Clone(next.Rollbacks), func(c Command) bool { return c.ID == b.Command })
	if run := a.Run(b.Run); run != nil && b.Kind == events.KindDeploy {
		run = a.ownRun(run)
		run.Seq = r.Seq
		if env := run.Env(b.Environment); env != nil && env.Promote.Attempt == b.Attempt {
			env.Slot, env.Waiting = b.Slot, nil
			s.TrialAttempt = env.Verify.Attempt
			env.Promote.begin(r)
		}
		a.setRun(run)
	}
	return nil
}

func (a *App) decideSlot(r ledger.Record, b *events.SlotDecided) error {
	old := a.Env(b.Environment).Slot(b.Slot)
	if old == nil || old.Decision != "" {
		return fmt.Errorf("deciding slot %d of %s: %w", b.Slot, b.Environment, ErrSlotOrder)
	}
	s := *old
	s.Decision, s.DecidedAt, s.DecidedID = b.Decision, r.Event.Time, r.Event.ID
	s.Why, s.Instances, s.Outcome, s.Trouble = b.Why, b.Instances, b.Outcome, b.Trouble
	a.setSlot(b.Environment, &s)
	if s.Kind != events.KindDeploy || b.Decision != events.Live {
		return nil
	}
	if env, run := a.envRun(&s, r.Seq); env != nil {
		env.Promote.end(r, Done, events.Success, nil)
		a.setRun(run)
	}
	a.supersedeOlder(&s, r.Seq)
	return nil
}

// supersedeOlder ends older runs that have not reached the environment where the slot is now live.
func (a *App) supersedeOlder(s *Slot, seq uint64) {
	newer := a.Run(s.Run)
	if newer == nil || newer.Definition.OnNewer == pipeline.Queue {
		return
	}
	for _, n := range slices.Clone(a.Unsettled) {
		if n >= s.Run {
			break
		}
		run := a.Run(n)
		env := run.Env(s.Environment)
		status := run.Status()
		if env == nil || env.Verified || status.Ended() && status != Stuck {
			continue
		}
		run = a.ownRun(run)
		run.SupersededBy, run.Seq = s.Run, seq
		a.setRun(run)
	}
}

func (a *App) closeSlot(r ledger.Record, b *events.SlotClosed) error {
	old := a.Env(b.Environment).Slot(b.Slot)
	if old == nil || old.Decision != events.Live || old.Closing != "" {
		return fmt.Errorf("closing slot %d of %s: %w", b.Slot, b.Environment, ErrSlotOrder)
	}
	s := *old
	s.Closing, s.ClosedAt, s.Skipped = b.Closing, r.Event.Time, b.Skipped
	if b.Why != "" {
		s.Why = b.Why
	}
	a.setSlot(b.Environment, &s)
	if s.Kind != events.KindDeploy {
		return nil
	}
	env, run := a.envRun(&s, r.Seq)
	if env == nil {
		return nil
	}
	switch b.Closing {
	case events.Verified, events.Unverified:
		env.Verified, env.VerifiedDigest, env.Skipped = true, s.Digest, b.Skipped
	case events.Superseded:
		env.Verify.end(r, CancelledRun, events.Cancel, &events.Trouble{What: "verifying in " + string(env.Name), Why: b.Why})
	}
	a.setRun(run)
	return nil
}

// envRun returns the run that holds the slot, changed by the event with this sequence and to be put in its place, and its environment, if the slot is the one
// that the run's present attempt took.
func (a *App) envRun(s *Slot, seq uint64) (*RunEnv, *Run) {
	run := a.Run(s.Run)
	if run == nil {
		return nil, nil
	}
	if env := run.Env(s.Environment); env == nil || env.Slot != s.N || env.Promote.Attempt != s.Attempt {
		return nil, nil
	}
	run = a.ownRun(run)
	run.Seq = seq
	return run.Env(s.Environment), run
}

// finishTrial keeps a verification's result with its slot.
func (a *App) finishTrial(r ledger.Record, b *events.TestSuiteRunFinished) {
	old := a.Env(r.Subject.Env).Slot(b.Trial.Slot)
	if old == nil || b.Trial.Attempt != old.TrialAttempt || old.Trial != nil {
		return
	}
	s := *old
	s.Trial = &Trial{
		Attempt: b.Trial.Attempt, Outcome: b.Outcome, Reason: b.Reason,
		Trouble: b.Trial.Trouble, Skipped: b.Trial.Skipped, EventID: r.Event.ID,
	}
	a.setSlot(r.Subject.Env, &s)
}

// renewTrial lets the next attempt of verify count for the slot, which is open.
func (a *App) renewTrial(e *RunEnv) {
	s := *a.Env(e.Name).Slot(e.Slot)
	s.Trial, s.TrialAttempt = nil, e.Verify.Attempt
	a.setSlot(e.Name, &s)
}

func (a *App) markDeployed(r ledger.Record) bool {
	n, err := strconv.Atoi(string(r.Subject.Key))
	if err != nil {
		return false
	}
	old := a.Env(r.Subject.Env).Slot(n)
	if old == nil || old.Deployed {
		return false
	}
	s := *old
	s.Deployed = true
	a.setSlot(r.Subject.Env, &s)
	return true
}

// command applies a command that names the app.
func (a *App) command(r ledger.Record, b *events.CommandReceived) error {
	c := Command{ID: b.ID, Seq: r.Seq, At: r.Event.Time, Command: b.Command}
	switch b.Verb {
	case events.VerbHold:
		a.Hold = &Hold{Actor: b.Actor, Reason: b.Reason, Since: r.Event.Time}
		return nil
	case events.VerbResume:
		if a.Hold != nil {
			a.Hold, a.Resumed = nil, r.Event.Time
		}
		return nil
	case events.VerbRollback:
		e := a.ownEnv(b.Environment)
		if e.Ending != 0 || e.Gone { // nobody brings anything back to what ends
			return nil
		}
		e.Rollbacks = append(slices.Clone(e.Rollbacks), c)
		return nil
	}
	run := a.Run(b.Run)
	if run == nil {
		return fmt.Errorf("command %s: run %d is unknown", b.Verb, b.Run)
	}
	ended := a.slotEnded(run, b.Environment)
	run = a.ownRun(run)
	run.Seq = r.Seq
	run.command(c)
	if env := run.Env(b.Environment); b.Verb == events.VerbSkip && env != nil && !env.Verified {
		run.skip(c, r.Event.ID, env, ended)
		if !ended {
			a.renewTrial(env)
		}
	}
	a.setRun(run)
	return nil
}
