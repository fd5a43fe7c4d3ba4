package fold

import (
	"fmt"
	"slices"
	"time"

	"towpath.dev/events"
	"towpath.dev/pkg/ledger"
	"towpath.dev/pkg/pipeline"
)

// Names of the stages.
const (
	StageBuild   = "build"
	StageVet     = "vet"
	StagePromote = "promote"
	StageVerify  = "verify"
)

// Status is what a stage or a whole run is doing, in the words that people see.
type Status string

// The statuses. Pending and Skipped are of stages only.
//
//	pending ──> queued ──> running ──> done
//	   │           │          ├──────> failed   the author acts
//	   └──> waiting┘          ├──────> stuck    an operator acts: replay ──> running, attempt n+1
//	                          └──────> cancelled, refused, superseded
const (
	Pending      Status = "pending" // its turn has not come
	Queued       Status = "queued"
	Running      Status = "running"
	Waiting      Status = "waiting"
	Stuck        Status = "stuck"
	Failed       Status = "failed"
	Refused      Status = "refused"
	Superseded   Status = "superseded"
	CancelledRun Status = "cancelled"
	Done         Status = "done"
	Skipped      Status = "skipped"
)

// Ended reports whether nothing more will happen without somebody acting.
func (s Status) Ended() bool {
	switch s {
	case Stuck, Failed, Refused, Superseded, CancelledRun, Done:
		return true
	}
	return false
}

// Run is one change of one app on its way.
type Run struct {
	App        events.Slug
	N          int
	ChainID    string
	StartEvent string // context.id of its first event
	Start      events.RunStart
	Definition pipeline.Definition `fold:"-"` // what Start.Definition says
	Image      bool                // built elsewhere; it entered at vet
	Created    time.Time
	Seq        uint64 // the last event that changed the run

	Build      Stage
	Vet        Stage
	Envs       []*RunEnv // in the order of the definition
	Artifact   *events.Artifact
	ArtifactID string // purl
	Verdict    *events.VetRunFinished
	Judged     *events.VetRunFinished // the verdict before the present attempt at vetting; nil: none
	// Policy is the digest of the policy that the run is judged by: the one that it started with, until a
	// replay asked for the newest. Policies are its changes, oldest first.
	Policy   string
	Policies []PolicyChange

	Cancelled    *Command
	SupersededBy int // the newer run that took its place; 0: none

	mark *mark `fold:"-"` // the app's, where nobody else has seen the run
}

// PolicyChange is that a run is judged by another policy.
type PolicyChange struct {
	From, To string // digests
	Seq      uint64
}

// RunEnv is a run in one environment.
type RunEnv struct {
	Name     events.Slug
	Promote  Stage
	Verify   Stage
	Slot     int  // the slot that the present attempt took; 0: none
	Verified bool // its slot was closed as verified, or as one that stands unverified
	// VerifiedDigest is the digest that was verified; another artifact has to be verified anew.
	VerifiedDigest string
	Concluded      bool // pipelinerun.finished was written for the present attempt

	Requested *events.PromotionRequested // an approval was asked for
	Responses []Command                  // approve and deny, as they came in
	Approvals []events.Promotion         // those that count
	Denied    *events.Promotion          // who refused the present attempt; no responder: its verdict did
	Waiting   *events.Waiting            // why it does not go on
	Forced    *Command                   // an operator asked for exactly this promotion
	// Rejudged is the sequence of the verdict that differs from the one before; approvals up to it were
	// given to something else. 0: none.
	Rejudged uint64
	// Skip is the command that skips the verification of the present attempt; nil: none.
	Skip *Command
	// Skipped says, of a slot that stands unverified, who skipped its verification, and why.
	Skipped *events.Skip
}

// Stage is one stage of a run, in its present attempt.
type Stage struct {
	Attempt    int // 1 and up
	Status     Status
	Started    time.Time
	Finished   time.Time
	Outcome    events.Outcome
	Trouble    *events.Trouble
	FirstEvent string    // context.id of the event that began the attempt
	LastEvent  string    // context.id of the attempt's last event
	Since      time.Time // of the last event
	Stuck      *events.StageStuck
	Reported   int     // how often watch has said that the attempt is stuck
	Replay     *Replay // what asked for this attempt; nil for the first
	Replayed   bool    // the worker has taken the replay up
	Concluded  bool    // of build: what follows the attempt's end was written too
}

// Replay is why a stage has another attempt: a replay, or the command to promote.
type Replay struct {
	EventID string
	Seq     uint64
	At      time.Time
	events.ReplayRequested
}

// Ended reports whether the present attempt came to an end.
func (s *Stage) Ended() bool { return s.Outcome != "" }

// Tried is how often the attempt was tried before it became stuck; 0 where that is not known.
func (s *Stage) Tried() int {
	switch {
	case s.Stuck != nil && s.Stuck.Deliveries > 0:
		return s.Stuck.Deliveries
	case s.Trouble != nil:
		return s.Trouble.Tries
	}
	return 0
}

func (s *Stage) touch(r ledger.Record) {
	s.LastEvent, s.Since = r.Event.ID, r.Event.Time
}

func (s *Stage) begin(r ledger.Record) {
	s.touch(r)
	if s.Ended() {
		return
	}
	s.alive(Running)
	if s.Started.IsZero() {
		s.Started, s.FirstEvent = r.Event.Time, r.Event.ID
	}
}

// alive gives an attempt that has not ended the status that its worker says it has: it is not stuck, or no longer.
func (s *Stage) alive(status Status) {
	if s.Stuck != nil {
		s.Stuck, s.Trouble = nil, nil
	}
	s.Status = status
}

// end closes the attempt. The first end counts.
func (s *Stage) end(r ledger.Record, status Status, outcome events.Outcome, trouble *events.Trouble) {
	s.touch(r)
	if s.Ended() {
		return
	}
	s.Status, s.Outcome, s.Trouble, s.Finished = status, outcome, trouble, r.Event.Time
	if status != Stuck {
		s.Stuck = nil
	}
	if s.Started.IsZero() {
		s.Started = r.Event.Time
	}
}

// statusOf says who acts after an outcome.
func statusOf(o events.Outcome) Status {
	switch o {
	case events.Success:
		return Done
	case events.Failure:
		return Failed
	case events.Cancel:
		return CancelledRun
	}
	return Stuck
}

// renew makes the stage ready for its next attempt.
func (s *Stage) renew(replay *Replay) {
	*s = Stage{Attempt: s.Attempt + 1, Status: Pending, Replay: replay}
}

// begun reports whether anything of the attempt was recorded.
func (s *Stage) begun() bool { return s.Status != Pending && (s.Status != Skipped || s.Ended()) }

// underWay reports whether a worker has taken the attempt up and not ended it.
func (s *Stage) underWay() bool {
	return !s.Ended() && (s.Status == Running || s.Status == Queued || s.Stuck != nil)
}

func newRun(app events.Slug, n int, start events.RunStart, d pipeline.Definition) *Run {
	r := &Run{App: app, N: n, Start: start, Definition: d, Policy: start.PolicyDigest}
	r.Build, r.Vet = Stage{Attempt: 1, Status: Pending}, Stage{Attempt: 1, Status: Pending}
	for _, e := range d.Environments {
		r.Envs = append(r.Envs, &RunEnv{
			Name:    events.Slug(e.Name),
			Promote: Stage{Attempt: 1, Status: Pending},
			Verify:  Stage{Attempt: 1, Status: Pending},
		})
	}
	return r
}

func (r *Run) clone() *Run {
	c := *r
	c.Envs = make([]*RunEnv, len(r.Envs))
	for i, e := range r.Envs {
		copied := *e
		c.Envs[i] = &copied
	}
	return &c
}

// LastWords returns what each actor who answered about an image in the environment said last about it, oldest first:
// every gate, preview and proof reads answers so. Which of the approvals count is the policy's to say; a denial stands,
// whatever the attempt, until its actor approves the same image there, or an approval overrules it.
func (e *RunEnv) LastWords(digest string) []Command {
	var last []Command
	for _, c := range e.Responses {
		if c.Digest != digest {
			continue
		}
		last = slices.DeleteFunc(last, func(earlier Command) bool {
			return earlier.Actor == c.Actor || earlier.Verb == events.VerbDeny && slices.Contains(c.Overrules, earlier.ID)
		})
		last = append(last, c)
	}
	return last
}

// Denials returns the denials of an image that stand in the environment, oldest first.
func (e *RunEnv) Denials(digest string) []Command {
	return slices.DeleteFunc(e.LastWords(digest), func(c Command) bool { return c.Verb != events.VerbDeny })
}

// Env returns the run in an environment, or nil if its definition does not name it.
func (r *Run) Env(name events.Slug) *RunEnv {
	for _, e := range r.Envs {
		if e.Name == name {
			return e
		}
	}
	return nil
}

// Next returns the first environment that the run has not been verified in, or nil when it is through.
func (r *Run) Next() *RunEnv {
	for _, e := range r.Envs {
		if !e.Verified {
			return e
		}
	}
	return nil
}

// Name is the run's name for people: "hello/42".
func (r *Run) Name() string { return Name(r.App, r.N) }

// Name is the name of run n of an app for people.
func Name(app events.Slug, n int) string { return fmt.Sprintf("%s/%d", app, n) }

// ReplayCommand is what an operator types to replay a stage.
func (r *Run) ReplayCommand(stage string, env events.Slug) string {
	command := "towpath replay " + r.Name() + " " + stage
	if env != "" {
		command += " --env " + string(env)
	}
	return command
}

// VerifiedBefore reports whether a digest was verified in an environment that comes before env.
func (r *Run) VerifiedBefore(env events.Slug, digest string) bool {
	for _, e := range r.Envs {
		if e.Name == env {
			return false
		}
		if e.Verified && e.VerifiedDigest == digest {
			return true
		}
	}
	return false
}

// VerdictFor returns vet's verdict on the run's artifact for an environment; false while there is none.
func (r *Run) VerdictFor(env events.Slug) (events.EnvironmentVerdict, bool) {
	if r.Verdict == nil || r.Verdict.ArtifactID != r.ArtifactID {
		return events.EnvironmentVerdict{}, false
	}
	return r.Verdict.For(env)
}

// GateSince returns the sequence at which what stands before an environment changed last for the run: the
// verdict on its artifact there, or the policy, where same does not say that two of them ask for the same
// there. What people answered up to it was about something else. 0: it never changed.
func (r *Run) GateSince(env events.Slug, same func(from, to string) bool) uint64 {
	var last uint64
	if e := r.Env(env); e != nil {
		last = e.Rejudged
	}
	for _, change := range r.Policies {
		if change.Seq > last && !same(change.From, change.To) {
			last = change.Seq
		}
	}
	return last
}

// stage returns a stage by name, or nil.
func (r *Run) stage(name string, env events.Slug) *Stage {
	switch name {
	case StageBuild:
		return &r.Build
	case StageVet:
		return &r.Vet
	}
	if e := r.Env(env); e != nil {
		switch name {
		case StagePromote:
			return &e.Promote
		case StageVerify:
			return &e.Verify
		}
	}
	return nil
}

// Stage returns a copy of a stage's present attempt; false if the run has no such stage.
func (r *Run) Stage(name string, env events.Slug) (Stage, bool) {
	if s := r.stage(name, env); s != nil {
		return *s, true
	}
	return Stage{}, false
}

// stages are the run's stages in their order.
func (r *Run) stages(yield func(*Stage) bool) {
	if !yield(&r.Build) || !yield(&r.Vet) {
		return
	}
	for _, e := range r.Envs {
		if !yield(&e.Promote) || !yield(&e.Verify) {
			return
		}
	}
}

// Status is what the run is doing as a whole.
func (r *Run) Status() Status {
	if r.Cancelled != nil {
		return CancelledRun
	}
	if r.SupersededBy != 0 {
		return Superseded
	}
	for _, e := range r.Envs {
		if e.Denied != nil {
			return Refused
		}
	}
	begun := false
	for s := range r.stages {
		switch s.Status {
		case Stuck, Failed, Running, Waiting, Queued, CancelledRun, Refused:
			return s.Status
		case Done:
			begun = true
		}
	}
	if r.Next() == nil {
		return Done
	}
	if begun || r.Image {
		return Running
	}
	return Queued
}

// settled reports whether nothing more comes of the run without somebody acting, and nobody has to: what App.Unsettled
// leaves out. An error that nobody was told of yet is not settled, whatever became of the run, nor is a stage that is
// yet to write its end.
func (r *Run) settled() bool {
	status := r.Status()
	if !status.Ended() || status == Stuck || r.Build.underWay() || r.Vet.underWay() || r.Build.Ended() && !r.Build.Concluded {
		return false
	}
	if r.Cancelled == nil && r.SupersededBy == 0 {
		e := r.Next()
		switch {
		case !r.Image && !r.Build.Ended(), r.Artifact != nil && !r.Vet.Ended():
			return false
		case e != nil && r.Verdict != nil && e.Slot == 0 && !e.Promote.Ended():
			return false
		}
	}
	unreported := func(s *Stage) bool { return s.Outcome == events.Error && s.Stuck == nil && r.Cancelled == nil }
	if unreported(&r.Build) || unreported(&r.Vet) {
		return false
	}
	for _, e := range r.Envs {
		if unreported(&e.Promote) || unreported(&e.Verify) {
			return false
		}
	}
	return true
}
